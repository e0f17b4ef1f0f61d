"""Replay: what would have been said before a scan that is now known, beside what knows no biology."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tumortwin.metrics import ForecastCase, baseline_forecasts, score_forecast
from tumortwin.twin._forecast import Forecast
from tumortwin.twin._frame import ModelFrame
from tumortwin.twin._patient import Patient, Scan

_OUTLINED = 0.5


def replay_cases(
    known: Patient,
    hidden: Sequence[Scan],
    frame: ModelFrame,
    forecast: Forecast,
    *,
    radial_velocity: float,
    doubling_time: float,
) -> list[ForecastCase]:
    """One case a hidden scan and channel, on the patient's own voxels inside the frame's box.

    **Arguments:** `known` the patient without the hidden scans; `forecast` made from it, with the hidden days among its
    days; `radial_velocity` [mm/day] and `doubling_time` [day]: priors of the baselines, stated beforehand, never fitted
    to what is hidden.

    **Raises:** `ValueError` when a hidden scan is not later than every known one.
    """
    last = known.scans[-1].day
    if any(scan.day <= last for scan in hidden):
        raise ValueError(f"required: hidden scans after day {last:g}; received: {[s.day for s in hidden]}")
    box = frame.box
    domain = np.asarray(box.crop(known.domain))
    cases = []
    for scan in hidden:
        index = forecast.days.index(scan.day)
        for channel, mask in sorted(scan.masks.items()):
            seen = [(s.day, np.asarray(box.crop(s.masks[channel]))) for s in known.scans if channel in s.masks]
            if not seen or channel not in forecast.p_channels:
                continue
            outlined = box_probability(frame, forecast.p_channels[channel][index]) >= _OUTLINED
            baselines = baseline_forecasts(
                [m for _, m in seen],
                [d for d, _ in seen],
                scan.day,
                known.grid.spacing,
                radial_velocity=radial_velocity,
                doubling_time=doubling_time,
                domain=domain,
            )
            cases.append(
                ForecastCase(
                    channel=channel,
                    day=scan.day,
                    observed=np.asarray(box.crop(mask)),
                    forecast=outlined,
                    volumes=forecast.predictive[channel][:, index],
                    baselines=baselines,
                )
            )
    return cases


def box_probability(frame: ModelFrame, field: np.ndarray) -> np.ndarray:
    """A model field on the patient's voxels of the frame's box."""
    return np.asarray(frame.box.crop(frame.fine(field)))


def replay_scores(cases: Sequence[ForecastCase], patient: Patient) -> list[dict[str, Any]]:
    """Flat results: the twin beside persistence, dilation and exponential growth, always."""
    return score_forecast(cases, patient.grid.spacing)


def truth_entries(patient: Patient, intervals: Mapping[str, tuple[float, float, float]]) -> list[dict[str, Any]]:
    """For a virtual patient: each interval (low, median, high) beside the truth of the same name."""
    found: list[dict[str, Any]] = []
    for name, (low, median, high) in intervals.items():
        if patient.truth is None or name not in patient.truth:
            continue
        truth = float(patient.truth[name])
        for label, value in (("truth", truth), ("median", median), ("low", low), ("high", high)):
            found.append(_entry(f"truth.{name}.{label}", value))
        found.append(_entry(f"truth.{name}.covered", float(low <= truth <= high)))
    return found


def _entry(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "value": float(value), "unit": "1", "target": None, "source": "virtual patient"}
