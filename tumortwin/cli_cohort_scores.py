"""Forecasts of held-out readings beside the forecasts that need no mechanism."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig

from tumortwin.cli_files import row_of
from tumortwin.cli_table import Cohort
from tumortwin.metrics import (
    Asked,
    ReplayCard,
    ReplayScores,
    Series,
    Targets,
    compare_replay,
    exponential_forecast,
    persistence_forecast,
    population_mean_forecast,
    regressor_forecast,
    score_replay,
    subgroup_table,
    targets_of,
)

TWIN = "twin"
BASELINES: Mapping[str, Callable[[Series, Asked], np.ndarray]] = {
    "persistence": persistence_forecast,
    "exponential": exponential_forecast,
    "population_mean": population_mean_forecast,
    "regressor": regressor_forecast,
}
"""Forecasts of a table that know no biology; the last one is machine learning alone."""
SCALES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"forecast": np.asarray, "forecast_log": np.log1p}
"""The scale of the table, and log(1 + y), on which a large reading does not outweigh all others."""
MOST_GROUPS = 8
_LIMITS = (
    "Scored on one cohort: another site, assay or scanner may differ.",
    "A rounded or censored reading is scored at the table's number; it is inside where the interval meets it.",
)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Rows for scores.json and subgroups.json, the card of the replay, and what has to be said beside them."""

    rows: list[dict[str, Any]]
    subgroups: list[dict[str, Any]]
    card: dict[str, Any]
    notes: tuple[str, ...]


def series_of(cohort: Cohort, *, held: bool) -> Series:
    """The held-out or the known readings as the replay harness takes them."""
    rows = (cohort.held if held else cohort.known).padded(cohort.quantity)
    return Series(rows.times, rows.values, rows.valid)


def cohort_scores(config: DictConfig, cohort: Cohort, predictive: np.ndarray, *, seed: int) -> Scored:
    """`predictive` [draw, subject, held-out reading] against what was seen, beside every baseline that can answer."""
    held = series_of(cohort, held=True)
    if not held.valid.any():
        return Scored([], [], {}, ("Nothing is held out: the forecast has nothing to be compared with.",))
    targets = targets_of(held)
    place = targets.asked.step - 1
    forecasts, notes = {TWIN: predictive[:, targets.asked.subject, place].T}, []
    for name, forecaster in BASELINES.items():
        try:
            forecasts[name] = forecaster(series_of(cohort, held=False), targets.asked)
        except ValueError as error:
            notes.append(f"baseline {name} left out: {error}")
    rows, groups, rng = [], [], np.random.default_rng(seed)
    readings = cohort.held.padded(cohort.quantity)
    bounds = [np.asarray(ends[targets.asked.subject, place]) for ends in (readings.lower, readings.upper)]
    for prefix, scale in SCALES.items():
        unit = cohort.unit if prefix == "forecast" else "1"
        usable = {k: v for k, v in forecasts.items() if prefix == "forecast" or (v > -1.0).all()}
        notes += [f"{k} is below zero somewhere and not scored on log(1 + y)" for k in forecasts if k not in usable]
        scores = score_replay(usable, targets, transform=scale)
        scores = {name: _meeting(score, *map(scale, bounds)) for name, score in scores.items()}
        for score in scores.values():
            rows += score.entries(targets, unit, prefix)
        if TWIN in scores:
            rows += _differences(scores, targets, unit, prefix, rng)
        if prefix == "forecast":
            groups = _subgroups(cohort, scores[TWIN], targets, rng)
    return Scored(rows, groups, _card(config, cohort, targets, tuple(n for n in forecasts if n != TWIN)), tuple(notes))


def _meeting(score: ReplayScores, lower: np.ndarray, upper: np.ndarray) -> ReplayScores:
    """Inside is where the 95 % interval meets what is known of a reading: a rounded or censored one is an interval."""
    return dataclasses.replace(score, inside=(score.low <= upper) & (score.high >= lower))


def _differences(
    scores: Mapping[str, ReplayScores], targets: Targets, unit: str, prefix: str, rng: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    for kind, label in (("error", "mean_absolute_error"), ("crps", "crps")):
        for other, found in compare_replay(scores, TWIN, targets, score=kind, rng=rng).items():
            start = f"{prefix}.{TWIN}_minus_{other}.{label}"
            ends = {"mean": found.mean, "low": found.low, "high": found.high}
            rows += [row_of(f"{start}.{end}", value, unit) for end, value in ends.items()]
    return rows


def _subgroups(cohort: Cohort, score: ReplayScores, targets: Targets, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Error and coverage by every covariate of a few words."""
    groups = {
        name: values
        for name, values in cohort.whole.covariates.items()
        if values.dtype.kind not in "fiu" and 1 < np.unique(values).size <= MOST_GROUPS
    }
    rows = []
    for group in subgroup_table(score, targets, groups, rng=rng) if groups else []:
        start = f"subgroup.{group.label}"
        rows += [
            row_of(f"{start}.subjects", group.subjects, "1"),
            row_of(f"{start}.mean_absolute_error", group.error, cohort.unit),
            row_of(f"{start}.coverage", group.coverage, "1"),
            row_of(f"{start}.coverage_low", group.coverage_low, "1"),
            row_of(f"{start}.coverage_high", group.coverage_high, "1"),
        ]
    return rows


def _card(config: DictConfig, cohort: Cohort, targets: Targets, comparators: tuple[str, ...]) -> dict[str, Any]:
    told = "is" if cohort.split.future_doses else "is not"
    return ReplayCard(
        name=str(config.name),
        cohort=f"{len(cohort.subjects)} subjects of {cohort.whole.source.name}, {cohort.quantity} [{cohort.unit}]",
        subjects=int(np.unique(targets.asked.subject).size),
        cases=targets.cases,
        split=f"held out: {cohort.split.words}; the treatment after it {told} given to the forecast",
        site_split="none: the table is read as one site",
        comparators=comparators or ("none could answer",),
        looks="once by this run; whoever changes the model after reading it has looked again",
        limits=_LIMITS,
    ).as_plain()
