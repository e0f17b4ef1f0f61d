"""Will the next course of androgen deprivation fail? A call at the end of each off-phase, from PSA alone.

`tumortwin reproduce bruchovsky2006 [data.root=DIR]`. Every number that is judged stands in `expected.json`, fixed
before any call was scored. `runtime=ci`: for each patient the population without his whole block of patients, not
refitted.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.bruchovsky2006 import figures
from experiments.bruchovsky2006.cycles import QUANTIFICATION, Landmarks, landmarks_of, plain_features, records_of
from experiments.bruchovsky2006.folds import Calls, leave_one_out
from experiments.bruchovsky2006.leak import leakage
from experiments.bruchovsky2006.scores import Scored, card_of, scored, subgroups
from tumortwin._errors import InputError
from tumortwin.io import Table, load_table
from tumortwin.metrics import auc_difference
from tumortwin.runs import Run, Verdict, at_least, at_most, between, measured

LANDMARKS = {"next": "before each next cycle", "ever": "end of the first off-phase"}
LEAST = 2  # patients with a relapse, and without: fewer cannot be ranked after one is left out
RESAMPLES = 2000


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The cohort, the calls, their scores at both landmarks, the patients with metastasis, and the leak test."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    table = load_table("bruchovsky", config.data.root)
    landmarks = landmarks_of(table)
    _enough(table, landmarks)
    with run.progress.task("leave one patient out", total=len(table.subjects)) as bar:
        calls = leave_one_out(
            records_of(table), landmarks, key=run.key("posterior"), refit=not quick, advance=bar.advance
        )
    found = cohort(table, landmarks)
    tables = {name: scored(name, landmarks, calls, table.subjects) for name in LANDMARKS}
    for name, one in tables.items():
        found += judged(name, one, expected, run)
    found += apart(landmarks, calls) + forecasts(landmarks, calls)
    with run.progress.task("a poisoned future"):
        changed = leakage(table, landmarks, key=run.key("posterior"), rng=np.random.default_rng(0))
    found.append(at_most("leakage", changed, expected["leakage"]["at_most"], "1", expected["leakage"]["source"]))
    run.write_json("subgroups.json", subgroups(table, landmarks, tables))
    rows = [dataclasses.asdict(row) | {"landmark": name} for name, one in tables.items() for row in one.rows]
    run.write_json("calls.json", rows)
    run.write_json("card.json", card_of(table, landmarks, not quick).as_plain())
    figures.draw_roc(run, tables)
    figures.draw_calibration(run, tables)
    figures.draw_patients(run, table, landmarks, calls)
    return found


def _enough(table: Table, landmarks: Landmarks) -> None:
    fair = landmarks.judged & ~landmarks.metastasis
    events = len(np.unique(landmarks.patient[fair & landmarks.relapses]))
    others = len(np.unique(landmarks.patient[fair & ~landmarks.relapses]))
    if min(events, others) < LEAST:
        raise InputError(
            file=table.source,
            required=f"at least {LEAST} patients who relapse in a later on-phase with a PSA, and {LEAST} who do not",
            received=f"{events} and {others}",
            advice="more patients, and the outcomes `relapse` and `no_relapse` in the column `outcome`",
        )


def cohort(table: Table, landmarks: Landmarks) -> list[Verdict]:
    """Counts, and what the majority class alone gets: both with metastases as "no relapse" and without them."""
    outcome = np.asarray([str(o) for o in table.covariates["outcome"]])
    again = np.unique(landmarks.patient)
    apart = landmarks.judged & ~landmarks.metastasis
    return [
        measured("patients", len(outcome)),
        measured("patients_relapse", np.sum(outcome == "relapse")),
        measured("patients_metastasis", np.sum(np.char.startswith(outcome, "metastasis"))),
        measured("patients_never_treated_again", len(outcome) - len(again)),
        measured("next_cycles", len(landmarks.patient)),
        measured("next_cycles_with_psa", landmarks.judged.sum()),
        measured("majority_accuracy_per_patient", np.mean(outcome != "relapse")),
        measured("majority_accuracy_per_cycle", np.mean(~landmarks.relapses[landmarks.judged])),
        measured("majority_accuracy_per_cycle_metastases_apart", np.mean(~landmarks.relapses[apart])),
    ]


def judged(name: str, one: Scored, expected: dict[str, Any], run: Run) -> list[Verdict]:
    """Every forecaster at one landmark; targets for the mechanism alone."""
    found = [measured(f"cases_{name}", len(one.event)), measured(f"events_{name}", one.event.sum())]
    for forecaster in one.probability:
        found += one.verdicts(forecaster)
    for other in ("logistic", "nadir_only"):
        for ours in ("mechanism", "both"):
            gap = auc_difference(
                one.probability[ours],
                one.probability[other],
                one.event,
                one.patient,
                rng=np.random.default_rng(int(run.config.seed)),
                resamples=RESAMPLES,
            )
            found += [
                measured(f"auc_{name}_{ours}_minus_{other}", gap.difference),
                measured(f"auc_{name}_{ours}_minus_{other}_low", gap.low),
                measured(f"auc_{name}_{ours}_minus_{other}_high", gap.high),
            ]
    ahead = one.auc("mechanism") - one.auc("logistic")
    target = expected[f"auc_above_logistic_{name}"]
    found.append(at_least(f"auc_above_logistic_{name}", ahead, target["at_least"], "1", target["source"]))
    target = expected[f"spiegelhalter_z_{name}"]
    z = one.spiegelhalter("mechanism")
    found.append(between(f"spiegelhalter_z_{name}", z, target["low"], target["high"], "1", target["source"]))
    target = expected[f"brier_over_prevalence_{name}"]
    ratio = one.brier("mechanism") / one.brier("prevalence")
    return [*found, at_most(f"brier_over_prevalence_{name}", ratio, target["at_most"], "1", target["source"])]


def apart(landmarks: Landmarks, calls: Calls) -> list[Verdict]:
    """Patients with metastasis: what the mechanism says of them, against nothing."""
    mine = landmarks.metastasis & landmarks.judged
    if not mine.any():
        return []
    above = calls.probability["mechanism"][mine] >= calls.threshold["mechanism"][mine]
    return [
        measured("metastasis_next_cycles", mine.sum()),
        measured("metastasis_mean_probability_next", calls.probability["mechanism"][mine].mean()),
        measured("metastasis_called_relapse_next", above.sum()),
    ]


def forecasts(landmarks: Landmarks, calls: Calls) -> list[Verdict]:
    """PSA itself: the forecast of the next course beside the nadir of the last one, without any outcome."""
    use, floor = landmarks.judged, np.log(QUANTIFICATION)
    seen = np.log(landmarks.nadir[use])
    last = plain_features(landmarks.known)[use, 0]
    ahead = np.maximum(calls.forecast[use, 0], floor)
    return [
        measured("next_nadir_log_error_mechanism", np.abs(ahead - seen).mean(), "1"),
        measured("next_nadir_log_error_last_nadir", np.abs(last - seen).mean(), "1"),
        measured("population_last_change", calls.change, "1"),
    ]
