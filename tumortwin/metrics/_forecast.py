"""One table for a forecast: the twin beside every baseline, always."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tumortwin import units
from tumortwin.metrics._concordance import concordance, correlation
from tumortwin.metrics._overlap import dice, hausdorff95, volume_similarity
from tumortwin.metrics._scores import (
    central_interval,
    coverage,
    crps,
    interval_score,
    probability_integral_transform,
    quantile,
)
from tumortwin.metrics._types import NpMask

TWIN = "twin"
BASELINES = ("persistence", "dilation", "exponential_growth")


@dataclasses.dataclass(frozen=True)
class ForecastCase:
    """One hidden observation and what was forecast for it.

    `channel` and `day` name it; `observed` bool mask; `forecast` bool mask of the twin (P(tumor) >= 0.5); `volumes`
    [draw] of the twin's predictive volume [mm^3], observation noise included, with `weights` [draw] or None;
    `baselines`: name -> mask, all of `BASELINES` (from `baseline_forecasts`). Optional maps of a measured field such as
    cellularity: `observed_field` and `forecast_field`, compared where `field_valid`.
    """

    channel: str
    day: float
    observed: NpMask
    forecast: NpMask
    volumes: np.ndarray
    baselines: Mapping[str, NpMask]
    weights: np.ndarray | None = None
    observed_field: np.ndarray | None = None
    forecast_field: np.ndarray | None = None
    field_valid: NpMask | None = None

    def __post_init__(self) -> None:
        missing = [name for name in BASELINES if name not in self.baselines]
        if missing:
            raise ValueError(f"required: every baseline beside the twin; missing: {missing}; try: baseline_forecasts")


Entry = dict[str, Any]


def entry(name: str, value: float, unit: str = units.FRACTION, source: str | None = None) -> Entry:
    """One line of results.json."""
    return {"name": name, "value": float(value), "unit": unit, "target": None, "source": source}


def score_forecast(cases: Sequence[ForecastCase], spacing: Sequence[float], *, level: float = 0.95) -> list[Entry]:
    """Every score of every case, twin and baselines, as flat results; over all cases the pooled ones.

    Names read `forecast.<channel>.day<day>.<who>.<score>` and `forecast.all.<who>.<score>`. Per case and forecaster:
    Dice, HD95 [mm], volume similarity, volume [mm^3], CRPS of the volume [mm^3] (the absolute error for a baseline).
    For the twin also median, interval, whether it covers, interval score, PIT. Pooled: mean Dice, mean CRPS, CCC and
    PCC of volumes, and the coverage with Wilson's 95 % interval. Infinite distances stay infinite: one of the two masks
    was empty.
    """
    if not cases:
        raise ValueError("required: at least one hidden observation to score; received: none")
    found: list[Entry] = []
    for case in cases:
        found.extend(_case_entries(case, spacing, level))
    return found + _pooled_entries(cases, spacing, level)


def _masks(case: ForecastCase) -> dict[str, NpMask]:
    return {TWIN: case.forecast, **{name: case.baselines[name] for name in case.baselines}}


def _volume(mask: NpMask, spacing: Sequence[float]) -> float:
    return float(mask.sum()) * float(np.prod(list(spacing)))


def _crps(case: ForecastCase, who: str, mask: NpMask, spacing: Sequence[float]) -> float:
    observed = _volume(case.observed, spacing)
    if who == TWIN:
        return crps(case.volumes, observed, case.weights)
    return abs(_volume(mask, spacing) - observed)


def _case_entries(case: ForecastCase, spacing: Sequence[float], level: float) -> list[Entry]:
    where = f"forecast.{case.channel}.day{case.day:g}"
    observed = _volume(case.observed, spacing)
    found = [entry(f"{where}.observed.volume", observed, units.VOLUME)]
    for who, mask in _masks(case).items():
        found += [
            entry(f"{where}.{who}.dice", dice(mask, case.observed)),
            entry(f"{where}.{who}.hd95", hausdorff95(mask, case.observed, spacing), units.LENGTH),
            entry(f"{where}.{who}.volume_similarity", volume_similarity(mask, case.observed)),
            entry(f"{where}.{who}.volume", _volume(mask, spacing), units.VOLUME),
            entry(f"{where}.{who}.crps", _crps(case, who, mask, spacing), units.VOLUME),
        ]
    low, high = central_interval(case.volumes, level, case.weights)
    found += [
        entry(f"{where}.{TWIN}.volume_median", float(quantile(case.volumes, 0.5, case.weights)), units.VOLUME),
        entry(f"{where}.{TWIN}.volume_low", low, units.VOLUME),
        entry(f"{where}.{TWIN}.volume_high", high, units.VOLUME),
        entry(f"{where}.{TWIN}.covered", float(low <= observed <= high)),
        entry(f"{where}.{TWIN}.interval_score", interval_score(low, high, observed, level), units.VOLUME),
        entry(f"{where}.{TWIN}.pit", probability_integral_transform(case.volumes, observed, case.weights)),
    ]
    if case.observed_field is not None and case.forecast_field is not None:
        valid = np.ones_like(case.observed) if case.field_valid is None else case.field_valid
        found += [
            entry(f"{where}.{TWIN}.ccc", concordance(case.forecast_field[valid], case.observed_field[valid])),
            entry(f"{where}.{TWIN}.pcc", correlation(case.forecast_field[valid], case.observed_field[valid])),
        ]
    return found


def _pooled_entries(cases: Sequence[ForecastCase], spacing: Sequence[float], level: float) -> list[Entry]:
    observed = np.asarray([_volume(case.observed, spacing) for case in cases])
    found: list[Entry] = []
    names = [who for who in _masks(cases[0]) if all(who in _masks(case) for case in cases)]
    for who in names:
        masks = [_masks(case)[who] for case in cases]
        volumes = [_volume(mask, spacing) for mask in masks]
        if who == TWIN:
            volumes = [float(quantile(case.volumes, 0.5, case.weights)) for case in cases]
        scores = [_crps(case, who, mask, spacing) for case, mask in zip(cases, masks, strict=True)]
        overlaps = [dice(mask, case.observed) for case, mask in zip(cases, masks, strict=True)]
        found += [
            entry(f"forecast.all.{who}.dice", float(np.mean(overlaps))),
            entry(f"forecast.all.{who}.crps", float(np.mean(scores)), units.VOLUME),
            entry(f"forecast.all.{who}.ccc", concordance(np.asarray(volumes), observed)),
            entry(f"forecast.all.{who}.pcc", correlation(np.asarray(volumes), observed)),
        ]
    bounds = np.asarray([central_interval(case.volumes, level, case.weights) for case in cases])
    share = coverage(bounds[:, 0], bounds[:, 1], observed)
    return found + [
        entry(f"forecast.all.{TWIN}.coverage", share.value),
        entry(f"forecast.all.{TWIN}.coverage_low", share.low),
        entry(f"forecast.all.{TWIN}.coverage_high", share.high),
        entry("forecast.all.cases", float(len(cases)), units.FRACTION),
    ]
