"""A poisoned future: nothing that happens after a landmark may change the call that is made there."""

import dataclasses

import numpy as np
from jaxtyping import Array

from experiments.bruchovsky2006.cycles import METASTASIS, Landmarks, landmarks_of, records_of
from experiments.bruchovsky2006.folds import leave_one_out
from tumortwin.io import DoseHistory, Table

PATIENTS = 2
HAIR = 1e-6  # [day]
SEEN_BY = ("mechanism", "logistic", "both", "nadir_only")


def poisoned(table: Table, patient: int, day: float, rng: np.random.Generator) -> Table:
    """The table with other PSA after `day` [of the file] for one patient, other switches after his restart, and another
    outcome."""
    psa = table.quantities["psa"]
    # A day that was shifted to and fro may be a rounding away from the landmark itself.
    later = (table.row_subject == patient) & (table.row_day > day + HAIR) & psa.measured
    factor = np.where(later, rng.uniform(2.0, 5.0, later.size), 1.0)
    worse = dataclasses.replace(psa, value=psa.value * factor, lower=psa.lower * factor, upper=psa.upper * factor)
    history = table.doses["on_treatment"]
    edges = list(history.edges)
    mine = edges[patient].copy()
    after = np.flatnonzero(mine > day)[1:]  # the restart stays: without it there is no landmark
    mine[after] = mine[after] + 1.0
    edges[patient] = mine
    outcome = table.covariates["outcome"].copy()
    outcome[patient] = "no_relapse" if outcome[patient] == "relapse" else "relapse"
    doses = {**table.doses, "on_treatment": DoseHistory(history.unit, tuple(edges), history.levels)}
    return dataclasses.replace(
        table,
        quantities={**table.quantities, "psa": worse},
        doses=doses,
        covariates={**table.covariates, "outcome": outcome},
    )


def leakage(
    table: Table, landmarks: Landmarks, *, key: Array, rng: np.random.Generator, patients: int = PATIENTS
) -> float:
    """The largest change of a call, over the first landmarks of some patients, when their future is poisoned."""
    candidates = np.unique(landmarks.patient[~landmarks.metastasis & landmarks.judged])
    # Changing a metastasis to a relapse would change who is judged: those stay out.
    assert not any(str(table.covariates["outcome"][i]).startswith(METASTASIS) for i in candidates)
    worst = 0.0
    for i in rng.choice(candidates, min(patients, candidates.size), replace=False):
        case = int(np.flatnonzero(landmarks.patient == i)[0])
        start = _start(table, int(i))
        other = poisoned(table, int(i), landmarks.day[case] + start, rng)
        before = leave_one_out(records_of(table), landmarks, key=key, refit=False, only=(int(i),))
        after = leave_one_out(records_of(other), landmarks_of(other), key=key, refit=False, only=(int(i),))
        for name in SEEN_BY:
            for own, poison in (
                (before.probability, after.probability),
                (before.threshold, after.threshold),
                (before.ever_probability, after.ever_probability),
                (before.ever_threshold, after.ever_threshold),
            ):
                worst = max(worst, abs(float(own[name][case] - poison[name][case])))
    return worst


def _start(table: Table, patient: int) -> float:
    """The day, in the file, of a patient's first treatment."""
    history = table.doses["on_treatment"]
    return float(history.edges[patient][history.levels[patient] > 0.0][0])
