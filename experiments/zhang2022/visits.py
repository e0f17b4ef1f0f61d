"""Visits of the trial: PSA, drug, and the cycles that are to be forecast."""

import dataclasses

import numpy as np

from tumortwin.io import Table

ADAPTIVE = "Adaptive"
LEAST_PSA = 0.01  # [ng/mL] of an assay: a smaller reading (0 is one) stands for this


@dataclasses.dataclass(frozen=True, eq=False)
class Visits:
    """Arrays [patient, visit], padded on the right by the last day; `valid` False there.

    `days` from the patient's first visit; `psa` [ng/mL], at least `LEAST_PSA`; `relative` [1], over a maximum that lies
    in the future and so serves for scoring and fits alone; `on` 1 where the drug is given from that visit on;
    `adaptive` [patient].
    """

    names: tuple[str, ...]
    adaptive: np.ndarray
    days: np.ndarray
    psa: np.ndarray
    relative: np.ndarray
    on: np.ndarray
    valid: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Visits of each patient."""
        return self.valid.sum(axis=1)

    def of(self, patients: np.ndarray) -> "Visits":
        """Some of the patients, by place."""
        names = tuple(self.names[i] for i in patients)
        return Visits(names, *(getattr(self, f.name)[patients] for f in dataclasses.fields(self)[1:]))


@dataclasses.dataclass(frozen=True)
class Cycle:
    """From the restart at visit `start`, whose PSA is known, to the next restart (or the last visit) `stop`, which is
    still asked for. `number`: 0 for the patient's first; `before`: the visit of the restart before (or the first)."""

    patient: int
    number: int
    before: int
    start: int
    stop: int

    @property
    def asked(self) -> slice:
        """The visits that are forecast."""
        return slice(self.start + 1, self.stop + 1)


def visits_of(table: Table) -> Visits:
    """The table of the trial as arrays."""
    psa, relative = table.padded("psa"), table.padded("relative_psa")
    drug = table.doses["abiraterone"]
    on = np.array([drug.at(i, days) for i, days in enumerate(psa.times)])
    adaptive = table.covariates["cohort"] == ADAPTIVE
    days = psa.times - psa.times[:, :1]
    return Visits(psa.subjects, adaptive, days, np.maximum(psa.values, LEAST_PSA), relative.values, on, psa.valid)


def cycles_of(visits: Visits) -> list[Cycle]:
    """Every cycle of the adaptive patients that begins with a recorded restart (off before, on from then)."""
    found = []
    for patient in np.flatnonzero(visits.adaptive):
        count = int(visits.counts[patient])
        on = visits.on[patient, :count]
        restarts = [int(j) for j in np.flatnonzero(np.diff(on) > 0) + 1]
        for number, (start, stop) in enumerate(zip(restarts, [*restarts[1:], count - 1], strict=False)):
            if stop > start:
                before = restarts[number - 1] if number else 0
                found.append(Cycle(int(patient), number, before, start, stop))
    return found


def persistence(visits: Visits, cycle: Cycle) -> np.ndarray:
    """The PSA of the restart, at every visit asked for."""
    return np.full(cycle.stop - cycle.start, visits.psa[cycle.patient, cycle.start])


def running_mean(visits: Visits, cycle: Cycle) -> np.ndarray:
    """The mean of every reading so far."""
    return np.full(cycle.stop - cycle.start, visits.psa[cycle.patient, : cycle.start + 1].mean())


def previous_cycle(visits: Visits, cycle: Cycle) -> np.ndarray:
    """What was seen as many days after the restart before this one; then the PSA of this restart."""
    days, psa = visits.days[cycle.patient], visits.psa[cycle.patient]
    since = days[cycle.asked] - days[cycle.start] + days[cycle.before]
    known = slice(0, cycle.start + 1)
    return np.interp(since, days[known], psa[known])


BASELINES = {"previous_cycle": previous_cycle, "running_mean": running_mean, "persistence": persistence}
