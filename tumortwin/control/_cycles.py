"""Cycles that may be moved: the day of the first dose and the interval between doses."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.control._decision import AbstractParametrization, DecisionSpace, scheduled
from tumortwin.control._slots import course_cost, course_words
from tumortwin.treatments import Course, Schedule


class ShiftedCycles(AbstractParametrization):
    """A course of equal steps in time, u = (start, interval), with given doses.

    $$ t_k = start + k \\, interval, \\qquad k = 0, \\dots, m - 1 $$

    The number of cycles is static, times have gradients. With `offsets` every cycle repeats a pattern (days within the
    cycle), so that the events are t_k + offset_j.

    **Arguments:** `agent`; `cycles`; `dose` of every event; `start` and `interval` windows [day] (equal ends fix them);
    `offsets` [day] within a cycle, in order; `whole_days`: start and interval are whole numbers; `fixed`: treatment
    that is given anyway.

    **Good values:** neoadjuvant taxane every 7-21 days, 4-12 cycles; temozolomide 5 days of 28 (offsets 0-4).

    **Raises:** `ValueError` when a cycle could overlap the next (shortest interval not above the last offset).
    """

    agent: str = eqx.field(static=True)
    cycles: int = eqx.field(static=True)
    dose: float = eqx.field(static=True, converter=float, default=1.0)
    start: tuple[float, float] = eqx.field(static=True, default=(0.0, 0.0))
    interval: tuple[float, float] = eqx.field(static=True, default=(7.0, 21.0))
    offsets: tuple[float, ...] = eqx.field(static=True, default=(0.0,))
    whole_days: bool = eqx.field(static=True, default=True)
    fixed: Schedule = eqx.field(default_factory=Schedule)

    def __check_init__(self) -> None:
        if self.cycles < 1 or self.interval[0] <= self.offsets[-1] or list(self.offsets) != sorted(self.offsets):
            raise ValueError(
                "required: one cycle or more, offsets in order, and every interval longer than the last offset; "
                f"received: {self.cycles} cycles, offsets {self.offsets}, intervals {self.interval}"
            )

    @property
    def space(self) -> DecisionSpace:
        low, high = (np.asarray([self.start[k], self.interval[k]], dtype=float) for k in (0, 1))
        return DecisionSpace(low, high, np.full(2, self.whole_days), ("start", "interval"), (units.TIME, units.TIME))

    def variables(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return vector

    def vector(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def courses(self, variables: Float[Array, " n"]) -> dict[str, Course]:
        firsts = variables[0] + jnp.arange(self.cycles, dtype=variables.dtype) * variables[1]
        times = (firsts[:, None] + jnp.asarray(self.offsets)[None, :]).ravel()
        return {self.agent: Course(times, jnp.full(times.shape, self.dose))}

    @property
    def affine_doses(self) -> bool:
        return True

    @property
    def fixed_times(self) -> bool:
        return False

    def schedule(self, variables: Float[Array, " n"]) -> Schedule:
        return scheduled(self.courses(variables), self.fixed)

    def cost(self, variables: Float[Array, " n"]) -> Mapping[str, float]:
        return course_cost(self.courses(variables))

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return {
            "start_day": float(variables[0]),
            "interval_days": float(variables[1]),
            "cycles": self.cycles,
            "schedule": self.schedule(variables).describe(),
        }

    def sentence(self, variables: Float[Array, " n"]) -> str:
        return course_words(self.courses(variables))


def cycles_after(
    agent: str,
    day: float,
    wait: Sequence[float],
    *,
    cycles: int,
    dose: float,
    interval: Sequence[float],
    offsets: Sequence[float] = (0.0,),
) -> ShiftedCycles:
    """Cycles in whole days, the first `wait` [day] (from, to) after a `day`: adjuvant after concurrent treatment.

    **Good values:** temozolomide on 5 days (offsets 0 to 4), every 28 days, the first 28 days after radiotherapy
    (Stupp et al. 2005).
    """
    low, high = (float(w) for w in wait)
    shortest, longest = (float(v) for v in interval)
    return ShiftedCycles(
        agent, int(cycles), dose, (day + low, day + high), (shortest, longest), tuple(float(o) for o in offsets)
    )
