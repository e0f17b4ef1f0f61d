"""What a cycle, a landmark and a relapse are, and what is known at a landmark.

A **cycle** begins on the day of the first visit on treatment (level > 0) after visits without, and ends where the next
one begins: an on-phase, then an off-phase. Cycles are read from `on_treatment`; the file's own count is not needed.

A **landmark** stands before a restart: it is the day of the last visit of the off-phase that precedes it. Known there:
readings up to and on that day, and the switches before it. Not known: the day of the restart, the PSA of that day, and
whatever follows. The first landmark of a patient is the end of the first off-phase.

A **relapse** (the covariate `outcome`) is counted in the last on-phase of the record of a patient who relapsed.
Patients with metastasis are neither: they are called, and reported apart. An on-phase without any PSA cannot be
judged.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from tumortwin.io import Table

RELAPSE, METASTASIS = "relapse", "metastasis"
# At or below this [ng/mL] a reading says only that: the trial's assays end at 0.2, 0.1 and 0.02, the values that
# repeat most in the file (207, 84 and 84 times of 3419 readings), and nothing tells which assay was used when.
QUANTIFICATION = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Readings and switches of some patients, or of what was known of them, as arrays with one row each.

    `times` [row, reading, day since the first treatment], `lower`, `upper` [ng/mL], `valid`; `switches` [row, switch,
    day]: on, off, on, ... from day 0 on, padded with +inf; `until` [row]: the last day that is known.
    """

    times: Float[np.ndarray, "row reading"]
    lower: Float[np.ndarray, "row reading"]
    upper: Float[np.ndarray, "row reading"]
    valid: Bool[np.ndarray, "row reading"]
    switches: Float[np.ndarray, "row switch"]
    until: Float[np.ndarray, " row"]


@dataclasses.dataclass(frozen=True, eq=False)
class Landmarks:
    """Every landmark of every patient, in the order of the table; `known` is all that a call may use.

    `patient`: index into the table's subjects; `cycle`: the number of the cycle that comes next (2: the end of the
    first off-phase); `relapses`: in the next on-phase; `ever`: at any time after the first landmark; `metastasis`;
    `judged`: whether the next on-phase has a reading; `nadir` and `readings` of the *next* on-phase [ng/mL]: the
    future, for scoring and for the nowcast only.
    """

    patient: Int[np.ndarray, " case"]
    cycle: Int[np.ndarray, " case"]
    day: Float[np.ndarray, " case"]
    relapses: Bool[np.ndarray, " case"]
    ever: Bool[np.ndarray, " case"]
    metastasis: Bool[np.ndarray, " case"]
    judged: Bool[np.ndarray, " case"]
    nadir: Float[np.ndarray, " case"]
    known: Records


@dataclasses.dataclass(frozen=True)
class _Patient:
    """One patient's rows: days since the first treatment."""

    visits: np.ndarray
    times: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    switches: np.ndarray


def records_of(table: Table) -> Records:
    """All that was ever recorded of every patient of the table; who never starts treatment has no readings."""
    patients = [_patient(table, s) for s in range(len(table.subjects))]
    return _padded([(p, np.inf) for p in patients], *_widths(patients))


def landmarks_of(table: Table) -> Landmarks:
    """The landmarks of every patient that was treated again; the others have none."""
    found, known = [], []
    patients = [_patient(table, s) for s in range(len(table.subjects))]
    for s, patient in enumerate(patients):
        outcome = str(table.covariates["outcome"][s])
        restarts = patient.switches[2::2]
        for k, restart in enumerate(restarts):
            day = patient.visits[patient.visits < restart].max()
            if not (patient.times <= day).any():
                continue
            ends = patient.switches[2 * k + 3] if len(patient.switches) > 2 * k + 3 else np.inf
            during = (patient.times >= restart) & (patient.times < ends)
            last = k == len(restarts) - 1
            found.append(
                (
                    s,
                    k + 2,
                    day,
                    outcome == RELAPSE and last,
                    outcome == RELAPSE,
                    outcome.startswith(METASTASIS),
                    during.any(),
                    patient.upper[during].min() if during.any() else np.nan,
                )
            )
            known.append((patient, day))
    columns = [np.asarray(column) for column in zip(*found, strict=True)] if found else [np.zeros(0)] * 8
    return Landmarks(*columns, known=_padded(known, *_widths(patients)))


def plain_features(known: Records) -> Float[np.ndarray, "case feature"]:
    """What a clinician would write down at the landmark, for the regression without a mechanism.

    Log nadir of the last on-phase, log(days off treatment + 30), number of the next cycle, log of the first PSA.
    """
    rows = []
    for times, lower, upper, valid, switches, until in zip(
        known.times, known.lower, known.upper, known.valid, known.switches, known.until, strict=True
    ):
        days, logs = times[valid], np.log(upper[valid])
        del lower
        finite = switches[np.isfinite(switches)]
        on, off = finite[0::2], finite[1::2]
        during = (days >= on[-1]) & (days < off[-1])
        nadir = logs[during].min() if during.any() else logs[days < off[-1]].min(initial=logs[0])
        rows.append((nadir, np.log(until - off[-1] + MONTH), len(on) + 1.0, logs[0]))
    return np.asarray(rows).reshape(len(rows), len(PLAIN))


MONTH = 30.0  # [day] added to the time off treatment: a first visit without treatment may be the last
PLAIN = ("log nadir", "log days off", "cycle", "log first PSA")


def _patient(table: Table, subject: int) -> _Patient:
    history, psa = table.doses["on_treatment"], table.quantities["psa"]
    on = history.levels[subject] > 0.0
    switches = history.edges[subject][np.diff(on, prepend=False) != 0]
    start = switches[0] if len(switches) else np.inf
    rows = np.flatnonzero((table.row_subject == subject) & (table.row_day >= start))
    read = rows[psa.measured[rows]]
    small = psa.upper[read] <= QUANTIFICATION
    return _Patient(
        table.row_day[rows] - start,
        table.row_day[read] - start,
        np.where(small, 0.0, psa.lower[read]),
        np.where(small, QUANTIFICATION, psa.upper[read]),
        switches - start,
    )


def _widths(patients: list[_Patient]) -> tuple[int, int]:
    """Most readings and most switches of a patient: one width for whole records and for what was known."""
    return max((len(p.times) for p in patients), default=0), max((len(p.switches) for p in patients), default=0)


def _padded(rows: list[tuple[_Patient, float]], readings: int, most: int) -> Records:
    """What is known of each patient up to and on its day."""
    seen = [patient.times <= day for patient, day in rows]
    switched = [patient.switches[patient.switches <= day] for patient, day in rows]
    columns = {name: np.zeros((len(rows), readings)) for name in ("times", "lower", "upper")}
    valid = np.zeros((len(rows), readings), bool)
    switches = np.full((len(rows), most), np.inf)
    for i, ((patient, _), mine) in enumerate(zip(rows, seen, strict=True)):
        count = int(mine.sum())
        valid[i, :count] = True
        for name, column in columns.items():
            column[i, :count] = getattr(patient, name)[mine]
        switches[i, : len(switched[i])] = switched[i]
    until = np.asarray([min(day, p.visits.max(initial=0.0)) for p, day in rows])
    return Records(**columns, valid=valid, switches=switches, until=until)
