"""Scores of many forecasters on the same hidden readings, as a whole, by step and by subgroup."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from tumortwin.metrics._paired import Difference, drawn_means, paired_bootstrap
from tumortwin.metrics._replay import Targets
from tumortwin.metrics._scores import crps, probability_integral_transform, quantile, wilson

Entry = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ReplayScores:
    """One forecaster on every case: absolute error of the median, CRPS, and for a distribution the 95 % interval, where
    it holds, and PIT. `point`: a forecast of one column, which has no interval."""

    name: str
    error: Float[np.ndarray, " case"]
    crps: Float[np.ndarray, " case"]
    low: Float[np.ndarray, " case"]
    high: Float[np.ndarray, " case"]
    inside: Bool[np.ndarray, " case"]
    pit: Float[np.ndarray, " case"]
    point: bool

    def entries(self, targets: Targets, unit: str = "1", prefix: str = "replay") -> list[Entry]:
        """Flat results `<prefix>.<name>.<score>`; coverage as a whole and by step, with Wilson's 95 % interval."""
        start = f"{prefix}.{self.name}"
        found = [
            _entry(f"{start}.mean_absolute_error", self.error.mean(), unit),
            _entry(f"{start}.crps", self.crps.mean(), unit),
        ]
        if self.point:
            return found
        found.append(_entry(f"{start}.interval_width", np.mean(self.high - self.low), unit))
        steps = {"coverage": np.ones(targets.cases, bool)}
        steps |= {f"coverage_step{s}": targets.asked.step == s for s in np.unique(targets.asked.step)}
        for label, chosen in steps.items():
            share = wilson(int(self.inside[chosen].sum()), int(chosen.sum()))
            found += [
                _entry(f"{start}.{label}", share.value),
                _entry(f"{start}.{label}_low", share.low),
                _entry(f"{start}.{label}_high", share.high),
            ]
        return found


def score_replay(
    forecasts: Mapping[str, np.ndarray],
    targets: Targets,
    *,
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray,
    level: float = 0.95,
) -> dict[str, ReplayScores]:
    """Every forecaster's sample [case, draw] against the observed values, on the scale of an increasing `transform`.

    The point forecast is the median, which is best under absolute error; the CRPS of a point is its absolute error, so
    that all share one scale.

    **Raises:** `ValueError` for a sample of another shape, or one that is not finite: a forecaster that cannot answer
    must say what it falls back on, and no case is dropped.
    """
    observed = transform(targets.observed)
    found = {}
    for name, raw in forecasts.items():
        sample = np.asarray(raw, float)
        if sample.ndim != 2 or sample.shape[0] != targets.cases or not np.isfinite(sample).all():
            bad = int((~np.isfinite(sample)).sum())
            raise ValueError(
                f"required: a finite sample [{targets.cases}, draw] of {name!r}; received: {sample.shape} with {bad} "
                "values that are not finite; try: state a fall-back inside the forecaster"
            )
        sample = transform(sample)
        ends = (0.5, 0.5 - level / 2, 0.5 + level / 2)
        middle, low, high = np.asarray([quantile(row, np.asarray(ends)) for row in sample]).T
        found[name] = ReplayScores(
            name,
            np.abs(middle - observed),
            np.asarray([crps(row, y) for row, y in zip(sample, observed, strict=True)]),
            low,
            high,
            (low <= observed) & (observed <= high),
            np.asarray([probability_integral_transform(row, y) for row, y in zip(sample, observed, strict=True)]),
            sample.shape[1] == 1,
        )
    return found


def compare_replay(
    scores: Mapping[str, ReplayScores], name: str, targets: Targets, *, score: str = "crps", rng: np.random.Generator
) -> dict[str, Difference]:
    """`name` minus every other forecaster in `score` (`crps` or `error`), bootstrapped by subject."""
    own = getattr(scores[name], score)
    return {
        other: paired_bootstrap(own, getattr(found, score), targets.asked.subject, rng=rng)
        for other, found in scores.items()
        if other != name
    }


@dataclasses.dataclass(frozen=True)
class Subgroup:
    """A forecaster in one subgroup: subjects, cases, mean error and CRPS, coverage with Wilson's 95 % interval, and the
    mean error inside minus outside it with a bootstrap interval over subjects (an audit: does it serve all alike?)."""

    label: str
    subjects: int
    cases: int
    error: float
    crps: float
    coverage: float
    coverage_low: float
    coverage_high: float
    excess: float
    excess_low: float
    excess_high: float


def subgroup_table(
    score: ReplayScores,
    targets: Targets,
    groups: Mapping[str, np.ndarray],
    *,
    rng: np.random.Generator,
    resamples: int = 2_000,
) -> list[Subgroup]:
    """Every value of every grouping (`groups`: name -> label of each subject), read as `name=label`."""
    found = []
    for name, labels in groups.items():
        of_case = np.asarray(labels)[targets.asked.subject]
        for label in np.unique(of_case):
            inside = of_case == label
            share = wilson(int(score.inside[inside].sum()), int(inside.sum()))
            excess = _excess(score.error, targets.asked.subject, inside, rng, resamples)
            found.append(
                Subgroup(
                    f"{name}={label}",
                    np.unique(targets.asked.subject[inside]).size,
                    int(inside.sum()),
                    float(score.error[inside].mean()),
                    float(score.crps[inside].mean()),
                    share.value,
                    share.low,
                    share.high,
                    *excess,
                )
            )
    return found


def _excess(
    error: np.ndarray, subject: np.ndarray, inside: np.ndarray, rng: np.random.Generator, resamples: int
) -> tuple[float, float, float]:
    """Mean error inside minus outside and its 95 % interval, each side resampled by subject; 0 where all are inside."""
    if inside.all():
        return 0.0, 0.0, 0.0
    here, there = (drawn_means(error[w], subject[w], rng=rng, resamples=resamples) for w in (inside, ~inside))
    low, high = np.quantile(here - there, [0.025, 0.975])
    return float(error[inside].mean()) - float(error[~inside].mean()), float(low), float(high)


def _entry(name: str, value: Any, unit: str = "1") -> Entry:
    return {"name": name, "value": float(value), "unit": unit, "target": None, "source": None}
