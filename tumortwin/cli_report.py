"""From the files of a run to what its report says."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from tumortwin import report as r
from tumortwin._errors import InputError
from tumortwin.cli_beyond import beyond_the_edge
from tumortwin.cli_cite import references
from tumortwin.cli_patient import Case
from tumortwin.cli_report_plan import is_weekly, planned_schedule, weekly_plan
from tumortwin.geometry import Grid
from tumortwin.io import read_forecast, read_posterior
from tumortwin.metrics import volume_growth_rate
from tumortwin.runs import Run
from tumortwin.treatments import Schedule
from tumortwin.twin import ModelFrame, Patient, Scan, unused_adc

CHANNELS = {"t1gd": "enhancing tumor", "flair": "FLAIR abnormality"}
PARAMETERS = {
    "mechanisms.diffusion.white_matter": ("invasion: diffusivity in white matter", "diffusivity"),
    "mechanisms.proliferation.rate": ("growth rate", "rate"),
    "mechanisms.radiotherapy.alpha": ("radiosensitivity alpha", "alpha"),
    "mechanisms.chemotherapy.sensitivity": ("drug sensitivity", "sensitivity"),
    "initial.tail_ratio": ("tail of the first scan's tumor, over that of a front", ""),
    "initial.core_ratio": ("edge of its core, over that of a front", ""),
    "initial.flair_shift": ("first FLAIR outline: how far off as a whole", ""),
    "initial.t1gd_shift": ("first enhancing outline: how far off as a whole", ""),
    "initial.age": ("age of the tumor at the first scan", ""),
    "observation.t1gd.threshold": ("density at the enhancing edge", "t1gd_threshold"),
    "observation.flair.threshold": ("density at the FLAIR edge", "flair_threshold"),
    "observation.t1gd.width": ("blur of the enhancing edge", ""),
    "observation.flair.width": ("blur of the FLAIR edge", ""),
    "observation.adc.noise_sd": ("noise of the cellularity map", ""),
}
# What the identifiability statement calls parameters that have no panel, or whose label is no part of a sentence.
SPOKEN = {
    "mechanisms.diffusion.white_matter": "diffusivity in white matter",
    "mechanisms.proliferation.pattern": "mode of the growth rate within the tumor",
    "initial.flair_shift": "offset of the first FLAIR outline",
    "initial.t1gd_shift": "offset of the first enhancing outline",
    "initial.tail_ratio": "tail of the first scan's tumor",
    "initial.core_ratio": "edge of its core",
    "observation.t1gd.shift": "offset of the enhancing outline on a visit",
    "observation.flair.shift": "offset of the FLAIR outline on a visit",
    "observation.adc.width": "blur of the cellularity map",
}
LIMITS = (
    "Research software: no number here may guide the care of a person.",
    "One tumor density without necrosis, edema or mass effect; tissue does not move.",
    "The growth rate may vary within the tumor along a few smooth modes only; finer variation, and any in the "
    "invasion or the response to treatment, is not in the intervals.",
    "Radiation acts at once and alike in every voxel; its dose is not mapped.",
)


def report_data(
    config: DictConfig, run: Run, case: Case, frame: ModelFrame, *, dropped: Mapping[str, str], refused: str
) -> r.ReportData:
    """Everything the report says, read from the run's files (or those of the run it starts from).

    `dropped`: path -> why it was not learned; `refused`: why there is no plan.
    """
    absent: dict[str, str] = {}
    posterior = _store(run, "posterior.zarr", read_posterior)
    found = _store(run, "forecast.zarr", read_forecast)
    plan = _json(run, "plan.json")
    if plan is None and refused:
        absent["plan"] = refused
    if not case.hidden:
        absent["scores"] = "No scan was hidden from the twin, so there is nothing to score the forecast with."
    patient = case.patient
    return r.ReportData(
        title=str(config.report.title or config.patient.title),
        question=str(config.patient.question),
        patient=_summary(case),
        channels=tuple(r.Channel(c, _channel_words(patient, c)) for c in _channels(patient)),
        anatomy=r.Anatomy(_image(patient.anatomy, patient.grid), patient.brain),
        parameters=() if posterior is None else _parameters(posterior, patient),
        diagnostics=None if posterior is None else _diagnostics(posterior, patient),
        fit=() if found is None else _fit(case, found),
        forecast=None if found is None else _forecast(config, case, found),
        scores=_scores(_json(run, "scores.json") or []),
        plan=None if plan is None or not is_weekly(plan) else weekly_plan(run, plan),
        schedules=() if plan is None or is_weekly(plan) else (planned_schedule(run, plan, origin=plan["origin_day"]),),
        beyond="" if found is None or len(case.known.scans) > 1 else beyond_the_edge(case, frame, found),
        limits=LIMITS,
        assumptions=(*patient.assumptions, *dropped_words(dropped), *_unused(case.known, frame)),
        results=tuple(_result(row) for row in run.results()),
        provenance=_json(run, "provenance.json") or {},
        citations=tuple(reference.text for reference in references(config)),
        absent=absent,
        reproduce=_command(run),
    )


def _store(run: Run, name: str, read: Any) -> Any:
    try:
        path = run.source(name)
    except InputError:
        return None
    return read(path)


def _json(run: Run, name: str) -> Any:
    try:
        path: Path = run.source(name)
    except InputError:
        return None
    return json.loads(path.read_text())


def _command(run: Run) -> str:
    provenance = _json(run, "provenance.json") or {}
    argv = provenance.get("argv") or []
    return " ".join(["tumortwin", *[str(word) for word in argv[1:]]])


def _image(values: np.ndarray, grid: Grid) -> r.Image:
    return r.Image(values, grid.affine_array)


def _channels(patient: Patient) -> list[str]:
    return [c for c in ("t1gd", "flair") if any(c in scan.masks for scan in patient.scans)]


def _channel_words(patient: Patient, channel: str) -> str:
    return patient.channel_words.get(channel, CHANNELS.get(channel, channel))


def _summary(case: Case) -> r.PatientSummary:
    patient, last = case.patient, case.known.scans[-1].day
    schedule = patient.schedule
    return r.PatientSummary(
        id=patient.id,
        source=patient.source,
        virtual=patient.truth is not None,
        visits=tuple(_visit(scan, patient.grid, scan.day > last) for scan in patient.scans),
        treatments=r.Treatments(
            fraction_days=np.asarray(schedule.radiotherapy.times),
            fraction_doses=np.asarray(schedule.radiotherapy.doses),
            drug_days={name: np.asarray(course.times) for name, course in schedule.drugs.items()},
            surgery_days=tuple(float(s.time) for s in schedule.resections),
        ),
    )


def _visit(scan: Scan, grid: Grid, hidden: bool) -> r.Visit:
    return r.Visit(
        day=float(scan.day),
        volumes={c: scan.volume(c, grid) for c in scan.masks},
        masks={c: _image(mask, grid) for c, mask in scan.masks.items()},
        hidden=hidden,
    )


def _parameters(posterior: Any, patient: Patient) -> tuple[r.ParameterDraws, ...]:
    draws, prior, stats, attrs = posterior
    log_weight = stats["log_weight"]
    weights = np.exp(log_weight - log_weight.max())
    truth, words = dict(patient.truth or {}), {}
    if "mechanisms.proliferation.pattern" in draws and "rate" in truth:  # the parameter is no such mean
        words["rate"] = f"{truth.pop('rate'):.3g} as a mean over the tumor"
    found = []
    for path, (label, name) in PARAMETERS.items():
        if path in draws:
            found.append(
                r.ParameterDraws(
                    path,
                    _words(label, patient),
                    str(attrs["units"].get(path, "1")),
                    np.asarray(prior[path], float),
                    np.asarray(draws[path], float),
                    weights,
                    float(truth[name]) if name in truth else None,
                    words.get(name, ""),
                )
            )
    return tuple(found)


def _words(label: str, patient: Patient) -> str:
    return label.replace("enhancing", "core") if "t1gd" in patient.channel_words else label


def _diagnostics(posterior: Any, patient: Patient) -> r.Diagnostics:
    attrs = posterior[3]
    labels = {path: label for path, (label, _) in PARAMETERS.items()} | SPOKEN
    methods = {
        "PsisCalibrator": "Laplace approximation, then Pareto-smoothed importance sampling",
        "NutsCalibrator": "No-U-Turn sampling, preconditioned by the Laplace approximation",
        "LaplaceCalibrator": "Laplace approximation",
        "MapCalibrator": "the most probable values alone",
        "SmcCalibrator": "sequential Monte Carlo, the scans taken in by day",
        "SviCalibrator": "variational inference by a Gaussian of low rank",
        "PathfinderCalibrator": "Gaussians along quasi-Newton paths, importance-weighted",
    }
    return r.Diagnostics(
        attrs["diagnostics"],
        attrs["statement"],
        methods.get(attrs["calibrator"], ""),
        {path: _words(label, patient) for path, label in labels.items()},
    )


def _fit(case: Case, found: Any) -> tuple[r.PredictedMask, ...]:
    days, _, maps, attrs = found
    affine = np.asarray(attrs["affine"])
    fits = []
    for scan in case.known.scans:
        if scan.day in days:
            row = int(np.flatnonzero(days == scan.day)[0])
            for channel in scan.masks:
                if f"map_p_{channel}" in maps:
                    fits.append(
                        r.PredictedMask(
                            float(scan.day), channel, r.Image(maps[f"map_p_{channel}"][row].astype(float), affine)
                        )
                    )
    return tuple(fits)


def _forecast(config: DictConfig, case: Case, found: Any) -> r.Forecast:
    days, volumes, maps, attrs = found
    affine = np.asarray(attrs["affine"])
    last = case.known.scans[-1].day
    predictions, baselines = [], []
    for channel in _channels(case.patient):
        if f"volume_{channel}_predictive" not in volumes:
            continue
        predictions.append(r.volume_prediction(channel, days, volumes[f"volume_{channel}_predictive"].astype(float)))
        baselines += _baselines(config, case, channel, days[days >= last])
    rows = [int(np.flatnonzero(days == day)[0]) for day in attrs["map_days"]]
    return r.Forecast(
        origin_day=float(last),
        volumes=tuple(predictions),
        baselines=tuple(baselines),
        maps=tuple(
            r.ForecastMaps(
                float(days[row]),
                r.Image(maps["map_p_tumor"][row].astype(float), affine),
                r.Image(maps["map_mean"][row].astype(float), affine),
                r.Image(maps["map_sd"][row].astype(float), affine),
            )
            for row in rows
        ),
        assumed_treatment=assumed_treatment(case.patient.schedule, float(last)),
    )


def assumed_treatment(schedule: Schedule, last: float) -> str:
    """What a forecast from day `last` assumes, as a phrase."""
    days = [schedule.radiotherapy.times, *(course.times for course in schedule.drugs.values())]
    earlier = any(bool((np.asarray(d) < last).any()) for d in days) or any(r.time < last for r in schedule.resections)
    ahead = in_words(schedule, last)
    if not earlier:
        return ahead or "no treatment"
    return f"the treatment already given, and then {ahead}" if ahead else "the treatment already given, and none after"


def in_words(schedule: Schedule, since: float) -> str:
    """What a schedule gives from the day `since` on; empty for nothing."""
    said = []
    times, doses = (np.asarray(v, float) for v in (schedule.radiotherapy.times, schedule.radiotherapy.doses))
    if (later := times >= since).any():
        said.append(f"{later.sum()} fractions of {doses[later].sum():g} Gy in all{_span(times[later])}")
    for name, course in schedule.drugs.items():
        days = np.asarray(course.times, float)
        if (later := days >= since).any():
            said.append(f"{later.sum()} doses of {name}{_span(days[later])}")
    said += [f"a resection on day {r.time:g}" for r in schedule.resections if r.time >= since]
    return ", ".join(said)


def _span(days: np.ndarray) -> str:
    return f" (day {days[0]:g})" if days.size == 1 else f" (days {days[0]:g} to {days[-1]:g})"


def _baselines(config: DictConfig, case: Case, channel: str, days: np.ndarray) -> list[r.Baseline]:
    seen = [(s.day, s.volume(channel, case.known.grid)) for s in case.known.scans if channel in s.masks]
    if not seen:
        return []
    last = seen[-1][1]
    rate = volume_growth_rate([d for d, _ in seen], [v for _, v in seen], float(config.patient.baseline.doubling_time))
    grown = last * np.exp(rate * (days - seen[-1][0]))
    return [
        r.Baseline("persistence", channel, days, np.full(days.shape, last)),
        r.Baseline("exponential growth", channel, days, grown),
    ]


def _scores(rows: list[dict[str, Any]]) -> tuple[r.Score, ...]:
    found = []
    known = ("dice", "hd95", "ccc", "crps", "coverage")
    for row in rows:
        parts = row["name"].split(".")
        # JSON has no infinity: the distance to an empty outline, the worst there is, is stored as null.
        value = math.inf if row["value"] is None and parts[-1] == "hd95" else row["value"]
        if parts[0] != "forecast" or parts[-1] not in known or value is None:
            continue
        if parts[1] == "all":
            found.append(r.Score(parts[2].replace("_", " "), parts[3], float(value)))
        else:
            day = float(".".join(parts[2:-2]).removeprefix("day"))
            found.append(r.Score(parts[-2].replace("_", " "), parts[-1], float(value), parts[1], day))
    return tuple(found)


def dropped_words(dropped: Mapping[str, str]) -> list[str]:
    """What was not learned and why, and what of it is drawn from the prior; sentences."""
    reasons: dict[str, list[str]] = {}
    for path, reason in dropped.items():
        reasons.setdefault(reason, []).append(PARAMETERS.get(path, (path, ""))[0])
    said = [f"Not learned, as {reason}: {', '.join(names)}." for reason, names in reasons.items()]
    sensitivities = [PARAMETERS.get(path, (path, ""))[0] for path in dropped if path.startswith("mechanisms.")]
    if sensitivities:
        said.append(
            f"Prior only, as nothing was given yet: {', '.join(sensitivities)}. Forecasts and schedules that give the "
            "treatment draw it from the prior: their intervals are as wide as what is known before treatment."
        )
    return said


def _unused(known: Patient, frame: ModelFrame) -> list[str]:
    return [
        f"The ADC map of day {day:g} is not used: no model voxel lies wholly where it counts, which is inside the "
        "outlines of that day and of the first; a finer geometry.spacing may hold one."
        for day in unused_adc(known, frame)
    ]


def _result(row: dict[str, Any]) -> r.Result:
    return r.Result(
        str(row["name"]), row["value"], str(row["unit"] or ""), str(row["target"] or ""), str(row["source"] or "")
    )
