"""Decisions slot by slot: how much, whether, or which level of an agent on days that are given."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.control._decision import (
    RADIOTHERAPY,
    AbstractParametrization,
    DecisionSpace,
    scheduled,
)
from tumortwin.control._toxicity import toxicity
from tumortwin.treatments import Course, Schedule

EQUALLY_SPACED = 1e-12


@dataclasses.dataclass(frozen=True)
class Slots:
    """The days [day], in order, on which an `agent` may be given, and the `unit` of its dose.

    **Good values:** agent `radiotherapy` (doses in Gy) or the name of a drug (multiples of its reference dose, unit 1).

    **Raises:** `ValueError` for no day, or days out of order.
    """

    agent: str
    days: tuple[float, ...]
    unit: str = units.FRACTION

    def __post_init__(self) -> None:
        object.__setattr__(self, "days", tuple(float(day) for day in self.days))
        if not self.days or any(b <= a for a, b in zip(self.days, self.days[1:], strict=False)):
            raise ValueError(f"required: one day or more, in order; received: {self.days} for {self.agent}")

    @property
    def size(self) -> int:
        """Number of slots."""
        return len(self.days)


def _tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _each(value: float | Sequence[float], slots: tuple[Slots, ...], what: str) -> np.ndarray:
    """One number a slot from one number, one an agent, or one a slot."""
    sizes = [s.size for s in slots]
    given = np.atleast_1d(np.asarray(value, dtype=float))
    if given.size == 1:
        return np.repeat(given, sum(sizes))
    if given.size == len(slots):
        return np.repeat(given, sizes)
    if given.size == sum(sizes):
        return given
    raise ValueError(
        f"required: {what}: one number, one an agent ({len(slots)}) or one a slot ({sum(sizes)}); "
        f"received: {given.size}"
    )


def _names(slots: tuple[Slots, ...]) -> tuple[str, ...]:
    return tuple(f"{s.agent}[{day:g}]" for s in slots for day in s.days)


def _courses(slots: tuple[Slots, ...], doses: Array) -> dict[str, Course]:
    found, first = {}, 0
    for s in slots:
        found[s.agent] = Course(jnp.asarray(s.days), doses[first : first + s.size])
        first += s.size
    return found


def _check_agents(slots: tuple[Slots, ...]) -> None:
    agents = [s.agent for s in slots]
    if not agents or len(set(agents)) < len(agents):
        raise ValueError(f"required: one agent or more, each once; received: {agents}")


def course_cost(courses: Mapping[str, Course]) -> dict[str, float]:
    """Cumulative dose and number of doses by agent, and the dose summary of radiotherapy [Gy]."""
    found: dict[str, float] = {}
    for agent, course in courses.items():
        if agent == RADIOTHERAPY:
            found |= toxicity(course.doses).describe()
        else:
            found[f"{agent}_total"] = float(jnp.sum(course.doses))
        found[f"{agent}_doses"] = float(np.sum(np.asarray(course.doses) > 0.0))
    return found


def course_words(courses: Mapping[str, Course]) -> str:
    """What is given on which day, in words."""
    parts = []
    for agent, course in courses.items():
        given = [(t, d) for t, d in zip(course.times.tolist(), course.doses.tolist(), strict=True) if d > 0.0]
        doses = ", ".join(f"{d:.3g} on day {t:g}" for t, d in given) or "nothing"
        parts.append(f"{agent}: {doses} (total {sum(d for _, d in given):.4g})")
    return "; ".join(parts)


class SlotDoses(AbstractParametrization):
    """A continuous dose in every slot of one or several agents.

    $$ u = (d_{agent, slot}), \\qquad l \\le u \\le h $$

    **Arguments:** `slots`, one an agent; `high` and `low` doses: one number, one an agent or one a slot; `fixed`:
    treatment that is given anyway.

    **Good values:** radiotherapy 0-3 Gy a fraction; drugs 0-1 of the reference dose.

    **Limits:** a dose of zero keeps its slot as an event (convenience: the number of events is static).
    """

    slots: tuple[Slots, ...] = eqx.field(static=True, converter=_tuple)
    high: float | tuple[float, ...] = eqx.field(static=True, default=1.0)
    low: float | tuple[float, ...] = eqx.field(static=True, default=0.0)
    fixed: Schedule = eqx.field(default_factory=Schedule)

    def __check_init__(self) -> None:
        _check_agents(self.slots)
        _ = self.space

    @property
    def space(self) -> DecisionSpace:
        low, high = _each(self.low, self.slots, "low"), _each(self.high, self.slots, "high")
        every = tuple(s.unit for s in self.slots for _ in s.days)
        return DecisionSpace(low, high, np.zeros(low.size, bool), _names(self.slots), every)

    def variables(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return vector

    def vector(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def courses(self, variables: Float[Array, " n"]) -> dict[str, Course]:
        return _courses(self.slots, variables)

    @property
    def affine_doses(self) -> bool:
        return True

    @property
    def fixed_times(self) -> bool:
        return True

    def schedule(self, variables: Float[Array, " n"]) -> Schedule:
        return scheduled(self.courses(variables), self.fixed)

    def cost(self, variables: Float[Array, " n"]) -> Mapping[str, float]:
        return course_cost(self.courses(variables))

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return {"doses": np.asarray(variables).tolist(), "schedule": self.schedule(variables).describe()}

    def sentence(self, variables: Float[Array, " n"]) -> str:
        return course_words(self.courses(variables))


class OnOff(AbstractParametrization):
    """Give the full dose in a slot or nothing: u in {0, 1}^n.

    $$ d_i = u_i \\, dose_i $$

    **Arguments:** `slots`, one an agent; `dose` of a slot that is on: one number, one an agent or one a slot; `fixed`.

    **Good values:** intermittent therapy by 28-day slots.
    """

    slots: tuple[Slots, ...] = eqx.field(static=True, converter=_tuple)
    dose: float | tuple[float, ...] = eqx.field(static=True, default=1.0)
    fixed: Schedule = eqx.field(default_factory=Schedule)

    unit: ClassVar[str] = units.FRACTION

    def __check_init__(self) -> None:
        _check_agents(self.slots)
        _ = _each(self.dose, self.slots, "dose")

    @property
    def space(self) -> DecisionSpace:
        n = sum(s.size for s in self.slots)
        return DecisionSpace(np.zeros(n), np.ones(n), np.ones(n, bool), _names(self.slots), (self.unit,) * n)

    def variables(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return vector

    def vector(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def courses(self, variables: Float[Array, " n"]) -> dict[str, Course]:
        return _courses(self.slots, variables * jnp.asarray(_each(self.dose, self.slots, "dose")))

    @property
    def affine_doses(self) -> bool:
        return True

    @property
    def fixed_times(self) -> bool:
        return True

    def schedule(self, variables: Float[Array, " n"]) -> Schedule:
        return scheduled(self.courses(variables), self.fixed)

    def cost(self, variables: Float[Array, " n"]) -> Mapping[str, float]:
        return course_cost(self.courses(variables))

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return {"on": np.asarray(variables).tolist(), "schedule": self.schedule(variables).describe()}

    def sentence(self, variables: Float[Array, " n"]) -> str:
        return course_words(self.courses(variables))


class DoseLevels(AbstractParametrization):
    """One of a few dose levels in every slot: u_i in {0, ..., m - 1} is the index of the level.

    $$ d_i = level_{u_i}, $$

    linear between the levels for an index that is not whole (the relaxation of a controller). Whole fractions of a
    slot are the levels (0, f, 2f, ...).

    **Arguments:** `slots`, one an agent; `levels`, rising, one tuple for all agents or one tuple an agent; `fixed`.

    **Good values:** radiotherapy (0, 1, 2, 3) Gy a fraction; a drug (0, .5, .75, 1) of its reference dose.

    **Raises:** `ValueError` for fewer than two levels, or levels that do not rise.
    """

    slots: tuple[Slots, ...] = eqx.field(static=True, converter=_tuple)
    levels: tuple = eqx.field(static=True, converter=_tuple)
    fixed: Schedule = eqx.field(default_factory=Schedule)

    unit: ClassVar[str] = units.FRACTION

    def __check_init__(self) -> None:
        _check_agents(self.slots)
        for levels in self.of_agents:
            if len(levels) < 2 or any(b <= a for a, b in zip(levels, levels[1:], strict=False)):
                raise ValueError(f"required: two dose levels or more, rising; received: {levels}")

    @property
    def of_agents(self) -> tuple[tuple[float, ...], ...]:
        """The levels of every agent."""
        if isinstance(self.levels[0], Sequence):
            if len(self.levels) != len(self.slots):
                raise ValueError(
                    f"required: one tuple of levels an agent ({len(self.slots)}); received: {len(self.levels)}"
                )
            return tuple(tuple(float(v) for v in levels) for levels in self.levels)
        return (tuple(float(v) for v in self.levels),) * len(self.slots)

    @property
    def space(self) -> DecisionSpace:
        top = np.concatenate([np.full(s.size, len(v) - 1.0) for s, v in zip(self.slots, self.of_agents, strict=True)])
        n = top.size
        return DecisionSpace(np.zeros(n), top, np.ones(n, bool), _names(self.slots), (self.unit,) * n)

    def variables(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return vector

    def vector(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def courses(self, variables: Float[Array, " n"]) -> dict[str, Course]:
        doses, first = [], 0
        for s, levels in zip(self.slots, self.of_agents, strict=True):
            index = variables[first : first + s.size]
            doses.append(jnp.interp(index, jnp.arange(len(levels), dtype=index.dtype), jnp.asarray(levels)))
            first += s.size
        return _courses(self.slots, jnp.concatenate(doses))

    @property
    def affine_doses(self) -> bool:
        return all(np.ptp(np.diff(levels)) <= EQUALLY_SPACED * levels[-1] for levels in self.of_agents)

    @property
    def fixed_times(self) -> bool:
        return True

    def schedule(self, variables: Float[Array, " n"]) -> Schedule:
        return scheduled(self.courses(variables), self.fixed)

    def cost(self, variables: Float[Array, " n"]) -> Mapping[str, float]:
        return course_cost(self.courses(variables))

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return {"levels": np.asarray(variables).tolist(), "schedule": self.schedule(variables).describe()}

    def sentence(self, variables: Float[Array, " n"]) -> str:
        return course_words(self.courses(variables))
