"""Two cycles, planned again after every block from white cell counts: what the counts are worth.

Four decisions, three levels each: the dose of cytarabine in cycle 1 (day 0), the days of lenograstim after it (day 3),
and both again in cycle 2 (days 28 and 31). All 81 courses of all patients are simulated once; a planner knows a
cloud of patients from the same population and weighs them by the counts seen so far. At every visit it plans the whole
rest (the mean loss, all courses tried) and delivers the next decision: `RecedingHorizon` over `Exhaustive`.
"""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.jost2020.bank import PUBLISHED, SLOTS, STEPS_PER_DAY, Cycle, Law, simulate
from experiments.jost2020.patients import LEUKOPENIA
from tumortwin.control import (
    CountedDays,
    Curve,
    DoseLevels,
    Exhaustive,
    Mean,
    PlanningProblem,
    RecedingHorizon,
    Slots,
    Visit,
    optimize,
)
from tumortwin.models import LeukemiaMyelosuppression

SECOND = 28.0  # [day], start of cycle 2
AFTER = 3.0  # [day] of a cycle on which lenograstim starts
DOSES, DAYS = (0.25, 0.5, 1.0), (0.0, 5.0, 10.0)
CYTARABINE, LENOGRASTIM = "cytarabine", "lenograstim"
DECISION = DoseLevels(
    (Slots(CYTARABINE, (0.0, SECOND)), Slots(LENOGRASTIM, (AFTER, SECOND + AFTER))),
    (DOSES, DAYS),
)
DUE = (0.0, SECOND, AFTER, SECOND + AFTER)  # [day] of every component of the decision
STANDARD = (2, 2, 2, 2)  # full doses, ten days of lenograstim
VISITS = tuple(sorted(DUE))  # [day]
COUNTED = np.arange(0, 56, 2)  # [day] of the counts
TWO_CYCLES = Cycle(
    0.0,
    56.0,
    tuple(start + AFTER + k for start in (0.0, SECOND) for k in range(int(max(DAYS)))),
    (*SLOTS, *(SECOND + s for s in SLOTS)),
)
NOISE = 0.1  # [ln] of a count
ASSUMED = 0.2  # [ln] in the weights: wider, because the cloud is finite
PER_DOUBLING, PER_VIAL = 7.0, 0.25  # [day of leukopenia] that a doubling of blasts and a vial count as


@dataclasses.dataclass(frozen=True)
class Table:
    """Loss [course patient] in days of leukopenia, and white cells [course patient count] on the days `COUNTED`; the
    `courses` are decisions of `DECISION`."""

    courses: np.ndarray
    loss: np.ndarray
    white: np.ndarray


def tabulated(models: LeukemiaMyelosuppression, law: Law = PUBLISHED) -> Table:
    """All courses of all patients."""
    courses = np.asarray(list(itertools.product(range(3), repeat=4)))

    @eqx.filter_jit
    def one(cytarabine, factor):  # noqa: ANN001, ANN202
        found = simulate(models, TWO_CYCLES, cytarabine, factor, law)
        below = jnp.sum(found.white[1:] < LEUKOPENIA, axis=0) / STEPS_PER_DAY
        doublings = jnp.log2(found.marrow[-1] / found.marrow[0])
        loss = below + PER_DOUBLING * doublings + PER_VIAL * jnp.sum(factor)
        return loss, found.white[COUNTED * STEPS_PER_DAY].T

    losses, white = [], []
    for dose_1, dose_2, days_1, days_2 in courses:
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
    problem = PlanningProblem(
        _looked_up, {"loss": jnp.asarray(cloud.loss.T)}, DECISION, CountedDays(), Mean(), (), sequential=False
    )
    start = np.asarray(optimize(problem, Exhaustive()).variables)
    delivered = np.stack([_delivered(problem, cloud, truth.white[:, p], noise[p], informative) for p in range(n)])
    each = np.asarray([truth.loss[_row(course), p] for p, course in enumerate(delivered)])
    return Outcome(
        truth.loss[_row(np.asarray(STANDARD))],
        truth.loss[_row(start)],
        each,
        truth.loss.min(axis=0),
        float(np.mean((delivered != start).any(axis=1))),
    )


def _looked_up(draw: dict[str, Array], schedule: Any) -> Curve:
    """The loss of a course from the table of one patient, as days that are not won."""
    given = [(schedule.drugs[agent].doses, levels) for agent, levels in ((CYTARABINE, DOSES), (LENOGRASTIM, DAYS))]
    digits = jnp.concatenate(
        [jnp.argmin(jnp.abs(doses[:, None] - jnp.asarray(levels)[None]), axis=1) for doses, levels in given]
    )
    loss = draw["loss"][jnp.sum(digits * 3 ** jnp.arange(digits.size)[::-1])]
    return Curve(jnp.arange(2.0), jnp.ones(2), parameters={"days": -loss})


def _row(course: np.ndarray) -> int:
    """The place of a course in a table."""
    return int(np.ravel_multi_index(tuple(np.round(course).astype(int)), (3, 3, 3, 3)))


def _delivered(
    problem: PlanningProblem, cloud: Table, white: np.ndarray, noise: np.ndarray, informative: bool
) -> np.ndarray:
    """The course that planning again at every visit delivers to a patient with `white` cells [course count]."""

    def weighed(visit: Visit, key: Array) -> tuple[Any, Array | None]:
        del key
        if not informative:
            return problem.draws, None
        # Decisions that are not due yet change no count so far: the course as it stands tells them.
        row, seen = _row(visit.delivered), visit.day >= COUNTED
        misfit = (np.log(cloud.white[row][:, seen]) - (np.log(white[row, seen]) + NOISE * noise[seen])) / ASSUMED
        fit = -0.5 * np.sum(misfit**2, axis=1)
        return problem.draws, jnp.asarray(np.exp(fit - fit.max()))

    horizon = RecedingHorizon(Exhaustive(), VISITS, DUE, weighed)
    return np.asarray(optimize(problem, horizon, key=jax.random.key(0)).variables)
