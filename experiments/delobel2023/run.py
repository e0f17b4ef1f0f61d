"""Low-grade glioma under temozolomide: a persister model, and the last two volumes of each patient.

`tumortwin reproduce delobel2023 [data.root=DIR]`. `runtime=ci`: a small design.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.delobel2023.figures import draw_forecasts
from experiments.delobel2023.model import FREE, SHARED, Weighed, design, nearer
from experiments.delobel2023.record import HELD_OUT, Records, records_of
from tumortwin.io import load_table
from tumortwin.metrics import (
    Asked,
    ReplayCard,
    Series,
    Targets,
    exponential_forecast,
    persistence_forecast,
    score_replay,
    wilson,
)
from tumortwin.runs import Run, Verdict, at_least, measured

SIZE, SIZE_QUICK = (128, 64), (32, 32)  # points of what is shared in a round, and of what is free
ROUNDS, ROUNDS_QUICK = 4, 2
DRAWS = 2000
UNIT = "cm^3"
TWIN, UNCARRIED = "persister", "persister_from_curve"


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The posterior from the known volumes, then the hidden ones."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    records = records_of(load_table("delobel", config.data.root))
    for note in records.notes:
        run.say(note)
    chosen = design(*(SIZE_QUICK if quick else SIZE))
    rounds = ROUNDS_QUICK if quick else ROUNDS
    with run.progress.task("design", total=rounds) as bar:
        weighed = Weighed(records, chosen)
        for _ in range(rounds - 1):
            bar.advance()
            chosen = nearer(weighed, chosen)
            weighed = Weighed(records, chosen)
    samples = forecasts_of(weighed, np.random.default_rng(run.config.seed))
    draw_forecasts(run, weighed, samples[TWIN], samples["persistence"])
    write_card(run, records)
    effective = weighed.effective
    target = expected["least_effective_nodes"]
    found = [measured("patients", len(records.names)), measured("notes", len(records.notes))]
    found.append(
        measured("effective_nodes", effective)
        if quick
        else at_least("effective_nodes", effective, target["at_least"], target["unit"], target["source"])
    )
    typical = np.exp(weighed.weight.sum(axis=0) @ chosen.shared)
    found += [measured(f"shared_{name}", value, "1/day") for name, value in zip(SHARED, typical, strict=True)]
    return found + of_fit(weighed, run.config.seed) + of_forecasts(records, samples)


def forecasts_of(weighed: Weighed, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Samples [case, draw] of every forecaster; a case is a hidden volume."""
    patients = range(len(weighed.records.names))
    twin = [weighed.forecast(i, DRAWS, rng, carried=True) for i in patients]
    uncarried = [weighed.forecast(i, DRAWS, rng, carried=False) for i in patients]
    known, asked = series_of(weighed.records), targets_of(weighed.records).asked
    return {
        TWIN: np.concatenate([draws.T for draws in twin]),
        UNCARRIED: np.concatenate([draws.T for draws in uncarried]),
        "persistence": persistence_forecast(known, asked),
        "exponential": exponential_forecast(known, asked),
        "exponential_of_last_two": exponential_forecast(series_of(weighed.records, last=2), asked),
    }


def series_of(records: Records, last: int | None = None) -> Series:
    """The known volumes (the `last` of them) as the baselines want them."""
    days = [d if last is None else d[-last:] for d in records.known_days]
    volumes = [v if last is None else v[-last:] for v in records.known]
    length = max(d.size for d in days)
    times, values, valid = (np.zeros((len(days), length)) for _ in range(3))
    for i, (day, volume) in enumerate(zip(days, volumes, strict=True)):
        times[i, : day.size], values[i, : day.size], valid[i, : day.size] = day, volume, 1.0
    return Series(times, values, valid > 0)


def targets_of(records: Records) -> Targets:
    """The hidden volumes."""
    patient = np.repeat(np.arange(len(records.names)), [h.size for h in records.hidden])
    step = np.concatenate([np.arange(1, h.size + 1) for h in records.hidden])
    return Targets(Asked(patient, np.concatenate(records.hidden_days), step), np.concatenate(records.hidden))


def of_fit(weighed: Weighed, seed: int) -> list[Verdict]:
    """Root mean square of the median curve to the known volumes after the first, mean over patients."""
    found, rng = [], np.random.default_rng(seed)
    for i, volumes in enumerate(weighed.records.known):
        curve = np.median(weighed.draws(i, DRAWS, rng).curve[:, 1 : volumes.size], axis=0)
        found.append(np.sqrt(np.mean((curve - volumes[1:]) ** 2)))
    return [measured("fit_rmse", np.mean(found), UNIT)]


def of_forecasts(records: Records, samples: Mapping[str, np.ndarray]) -> list[Verdict]:
    """RMSE (mean over patients), absolute error, CRPS; coverage. Five patients prove nothing, so nothing is tested."""
    targets = targets_of(records)
    patient, irradiated = targets.asked.subject, np.concatenate(records.irradiated)
    scores, found = score_replay(samples, targets), []
    for name, score in scores.items():
        by_patient = np.array([np.sqrt(np.mean(score.error[patient == i] ** 2)) for i in np.unique(patient)])
        found += [
            measured(f"forecast_rmse_{name}", by_patient.mean(), UNIT),
            measured(f"forecast_absolute_error_{name}", score.error.mean(), UNIT),
            measured(f"forecast_crps_{name}", score.crps.mean(), UNIT),
        ]
        if irradiated.any() and not irradiated.all():
            label = f"forecast_absolute_error_without_irradiated_{name}"
            found.append(measured(label, score.error[~irradiated].mean(), UNIT))
        found += [
            measured(f"forecast_rmse_{name}_patient_{records.names[i]}", error, UNIT)
            for i, error in zip(np.unique(patient), by_patient, strict=True)
            if name in (TWIN, "persistence")
        ]
    inside = scores[TWIN].inside
    share = wilson(int(inside.sum()), inside.size)
    return [
        *found,
        measured("forecast_coverage", inside.mean()),
        measured("forecast_coverage_low", share.low),
        measured("forecast_coverage_high", share.high),
        measured("forecast_interval_width", np.mean(scores[TWIN].high - scores[TWIN].low), UNIT),
    ]


def write_card(run: Run, records: Records) -> None:
    """Who was forecast, with what model, against what, and where it does not hold."""
    card = ReplayCard(
        name="delobel2023: the last two volumes of low-grade glioma under temozolomide",
        cohort="low-grade glioma, FLAIR volumes over years; courses of temozolomide",
        subjects=len(records.names),
        cases=sum(h.size for h in records.hidden),
        split=f"by time within a patient: the last {HELD_OUT} volumes are hidden; what is shared is of the known ones",
        site_split="not possible: site and scanner are not in the file",
        comparators=("persistence", "exponential of all known volumes", "exponential of the last two known", UNCARRIED),
        looks="model chosen with the two volumes before the hidden ones; the hidden ones twice, between which only the "
        "number of points of the design changed",
        limits=(
            "the model is this framework's, not the paper's: S' = growth S - (kill + persistence) D S + reversion P; "
            "X' = kill D S - clearance X; P' = persistence D S - resistance D P - reversion P; "
            "R' = regrowth R + resistance D P; volume S + X + P + R; D constant within a course, 5 days of 28",
            f"free in a patient: {' and '.join(FREE)}; shared: {', '.join(SHARED)} and the noise; the first volume is "
            "the start",
            "courses after the last known volume are taken as known",
            "radiotherapy counts as eight courses of temozolomide at once (EORTC 22033-26033), not learned",
            "five patients: no claim of significance",
            *records.notes,
        ),
        source="doi:10.1371/journal.pcbi.1011208",
    )
    run.write_json("card.json", card.as_plain())
