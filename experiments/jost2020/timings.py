"""When lenograstim is given: before, with or after cytarabine, or not at all; every timing through all patients."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from experiments.jost2020.bank import SLOTS, STEPS_PER_DAY, Cycle, simulate
from experiments.jost2020.patients import LEUKOPENIA
from tumortwin.models import LeukemiaMyelosuppression

NONE, SIMULTANEOUS, PRE, POST = "none", "simultaneous", "pre", "post"
CHEMOTHERAPY = (0, 1, 2)  # [day]
WITH = CHEMOTHERAPY  # the timing that stands for SIMULTANEOUS: the days of chemotherapy themselves
DURATIONS = (3, 5, 7, 10)  # [day]
ENDS_BEFORE = (-1, -3, -5, -7)  # [day], last day of PRE
STARTS_AFTER = (3, 4, 5, 7, 9, 11)  # [day], first day of POST
OVERLAPS = ((0, 5), (0, 7), (0, 10), (-3, 6), (-2, 5), (-6, 7), (2, 7))  # further first days and durations with overlap
EVERY = Cycle(-17.0, 42.0, tuple(float(d) for d in range(-16, 21)))


@dataclasses.dataclass(frozen=True)
class Timing:
    """A group, the first day and the number of days of lenograstim, and what became of every patient."""

    group: str
    first: int
    days: int
    nadir: np.ndarray  # [patient], G/L
    duration: np.ndarray  # [patient], days below 1 G/L

    @property
    def leukopenia(self) -> float:
        """Share of patients below 1 G/L at any time."""
        return float(np.mean(self.nadir < LEUKOPENIA))


def schedules() -> list[tuple[str, int, int]]:
    """(group, first day, days): none, the days of chemotherapy, 16 before, 24 after, seven that overlap otherwise."""
    return [
        (NONE, 0, 0),
        (SIMULTANEOUS, WITH[0], len(WITH)),
        *((PRE, end - n + 1, n) for n in DURATIONS for end in ENDS_BEFORE),
        *((POST, start, n) for n in DURATIONS for start in STARTS_AFTER),
        *((SIMULTANEOUS, *overlap) for overlap in OVERLAPS),
    ]


def try_all(models: LeukemiaMyelosuppression) -> list[Timing]:
    """Every timing under full cytarabine."""
    first = round(-EVERY.first * STEPS_PER_DAY)
    white = eqx.filter_jit(lambda given: simulate(models, EVERY, jnp.ones(len(SLOTS)), given).white[first:])
    found = []
    for group, start, days in schedules():
        given = [float(start <= day < start + days) for day in EVERY.factor_days]
        cells = np.asarray(white(jnp.asarray(given)))
        below = (cells < LEUKOPENIA).sum(axis=0) / STEPS_PER_DAY
        found.append(Timing(group, start, days, cells.min(axis=0), below))
    return found
