"""Two cycles, planned again after every block from white cell counts: what the counts are worth.

Four decisions, three levels each: the dose of cytarabine in cycle 1 (day 0), the days of lenograstim after it (day 3),
and both again in cycle 2 (days 28 and 31). All 81 courses of all patients are simulated once; a planner knows a
cloud of patients from the same population and weighs them by the counts seen so far. At every visit it plans the whole
rest (the mean loss, all courses tried) and delivers the next decision.
"""

import dataclasses
import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from experiments.jost2020.bank import SLOTS, STEPS_PER_DAY, Cycle, simulate
from experiments.jost2020.patients import LEUKOPENIA
from tumortwin.models import LeukemiaMyelosuppression

SECOND = 28.0  # [day], start of cycle 2
AFTER = 3  # [day] of a cycle on which lenograstim starts
DOSES, DAYS = (0.25, 0.5, 1.0), (0, 5, 10)
STANDARD = (2, 2, 2, 2)  # full doses, ten days of lenograstim
VISITS = (0.0, 3.0, 28.0, 31.0)  # [day]
COUNTED = np.arange(0, 56, 2)  # [day] of the counts
TWO_CYCLES = Cycle(
    0.0,
    56.0,
    tuple(float(start + AFTER + k) for start in (0, SECOND) for k in range(max(DAYS))),
    (*SLOTS, *(SECOND + s for s in SLOTS)),
)
NOISE = 0.1  # [ln] of a count
ASSUMED = 0.2  # [ln] in the weights: wider, because the cloud is finite
PER_DOUBLING, PER_VIAL = 7.0, 0.25  # [day of leukopenia] that a doubling of blasts and a vial count as


@dataclasses.dataclass(frozen=True)
class Table:
    """Loss [course patient] in days of leukopenia, and white cells [course patient count] on the days `COUNTED`."""

    courses: np.ndarray
    loss: np.ndarray
    white: np.ndarray


def tabulated(models: LeukemiaMyelosuppression) -> Table:
    """All courses of all patients."""
    courses = np.asarray(list(itertools.product(range(3), repeat=4)))

    @eqx.filter_jit
    def one(cytarabine, factor):  # noqa: ANN001, ANN202
        found = simulate(models, TWO_CYCLES, cytarabine, factor)
        below = jnp.sum(found.white[1:] < LEUKOPENIA, axis=0) / STEPS_PER_DAY
        doublings = jnp.log2(found.marrow[-1] / found.marrow[0])
        loss = below + PER_DOUBLING * doublings + PER_VIAL * jnp.sum(factor)
        return loss, found.white[COUNTED * STEPS_PER_DAY].T

    losses, white = [], []
    for dose_1, days_1, dose_2, days_2 in courses:
        cytarabine = np.repeat([DOSES[dose_1], DOSES[dose_2]], len(SLOTS))
        factor = np.concatenate([np.arange(max(DAYS)) < DAYS[d] for d in (days_1, days_2)]).astype(float)
        loss, cells = one(jnp.asarray(cytarabine), jnp.asarray(factor))
        losses.append(np.asarray(loss))
        white.append(np.asarray(cells))
    return Table(courses, np.stack(losses), np.stack(white))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Losses of the true patients under three ways to decide, and under the best course of each [patient]."""

    standard: np.ndarray
    open_loop: np.ndarray
    closed_loop: np.ndarray
    perfect: np.ndarray
    changed: float  # share of the patients whose delivered course is not the open-loop one


def compared(cloud: Table, truth: Table, *, informative: bool, seed: int) -> Outcome:
    """Every true patient by the standard, by the plan of day 0, and by planning again at every visit."""
    n = truth.loss.shape[1]
    noise = np.random.default_rng(seed).normal(size=(n, COUNTED.size))
    start = _best(cloud, np.ones(cloud.loss.shape[1]), np.zeros(0, int))
    delivered = np.stack([_delivered(cloud, truth, p, noise[p], informative) for p in range(n)])
    standard = _row(cloud.courses, np.asarray(STANDARD))
    each = np.asarray([truth.loss[_row(cloud.courses, course), p] for p, course in enumerate(delivered)])
    return Outcome(
        truth.loss[standard],
        truth.loss[_row(cloud.courses, start)],
        each,
        truth.loss.min(axis=0),
        float(np.mean((delivered != start).any(axis=1))),
    )


def _row(courses: np.ndarray, course: np.ndarray) -> int:
    return int(np.flatnonzero((courses == course).all(axis=1))[0])


def _best(cloud: Table, weights: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The course with the lowest mean loss among those that begin with what is given."""
    rows = np.flatnonzero((cloud.courses[:, : given.size] == given).all(axis=1))
    return cloud.courses[rows[np.argmin(cloud.loss[rows] @ (weights / weights.sum()))]]


def _delivered(cloud: Table, truth: Table, patient: int, noise: np.ndarray, informative: bool) -> np.ndarray:
    """The course that planning again at every visit delivers."""
    given = np.zeros(0, int)
    for day in VISITS:
        weights = np.ones(cloud.loss.shape[1])
        if informative:
            # Later decisions change no earlier count: any course that begins with what is given tells them.
            row = np.flatnonzero((cloud.courses[:, : given.size] == given).all(axis=1))[0]
            seen = COUNTED <= day
            counts = np.log(truth.white[row, patient, seen]) + NOISE * noise[seen]
            misfit = (np.log(cloud.white[row][:, seen]) - counts) / ASSUMED
            fit = -0.5 * np.sum(misfit**2, axis=1)
            weights = np.exp(fit - fit.max())
        given = np.append(given, _best(cloud, weights, given)[given.size])
    return given
