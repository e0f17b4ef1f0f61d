"""Decisions slot by slot: how much, whether, or which level of an agent on days that are given."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

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
from tumortwin.treatments import Course, Schedule, weekday_fractions

EQUALLY_SPACED = 1e-12


@dataclasses.dataclass(frozen=True)
class Slots:
    """The days [day], in order, on which an `agent` may be given, and the `unit` of its dose.

    With `offsets` [day] a slot is a block, a week of fractions or of tablets: what is decided for it is given on each
    of day + offset.

    **Good values:** agent `radiotherapy` (doses in Gy) or the name of a drug (multiples of its reference dose, unit 1);
    offsets 0 to 4 for five fractions a week.

    **Raises:** `ValueError` for no day, days out of order, or a block that runs into the next.
    """

    agent: str
    days: tuple[float, ...]
    unit: str = units.FRACTION
    offsets: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "days", tuple(float(day) for day in self.days))
        object.__setattr__(self, "offsets", tuple(float(offset) for offset in self.offsets))
        if not self.days or not self.offsets or not _rising(self.days) or not _rising(self.event_days):
            raise ValueError(
                f"required: one day or more, in order, and blocks that end before the next; received: {self.days} with "
                f"offsets {self.offsets} for {self.agent}"
            )

    @property
    def size(self) -> int:
        """Number of slots."""
        return len(self.days)

    @property
    def event_days(self) -> tuple[float, ...]:
        """The days [event] on which something is given, slot after slot."""
        return tuple(day + offset for day in self.days for offset in self.offsets)


def _rising(days: Sequence[float]) -> bool:
    return all(b > a for a, b in zip(days, days[1:], strict=False))


def regular_slots(
    agent: str,
    start: float,
    interval: float,
    count: int,
    unit: str = units.FRACTION,
    offsets: Sequence[float] = (0.0,),
) -> Slots:
    """`count` slots of an agent, the first on day `start`, one every `interval` [day].

    **Good values:** 28 days for endocrine therapy, 1 day for tablets; 7 days with offsets 0 to 4 for weekly fractions.

    **Raises:** `ValueError` for no slot, or no interval.
    """
    if count < 1 or interval <= 0.0:
        raise ValueError(
            f"required: one slot or more and an interval above 0; received: {count} every {interval:g} days"
        )
    return Slots(agent, tuple(start + interval * k for k in range(int(count))), unit, tuple(offsets))


def weekday_slots(agent: str, start: float, count: int, unit: str = units.DOSE) -> Slots:
    """`count` slots on weekdays, the first on day `start`, a Monday (`weekday_fractions`).

    **Good values:** 30 fractions of radiotherapy.
    """
    return Slots(agent, tuple(np.asarray(weekday_fractions(start, int(count), 0.0).times).tolist()), unit)


def _tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,)


def _hashable(value: Any) -> Any:
    """A number as it is, numbers as a tuple."""
    return tuple(float(v) for v in value) if isinstance(value, Sequence | np.ndarray) else float(value)


def _nested(value: Any) -> tuple:
    """A tuple of numbers, or a tuple of such tuples."""
    return tuple(_hashable(v) for v in value)


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
        found[s.agent] = Course(jnp.asarray(s.event_days), jnp.repeat(doses[first : first + s.size], len(s.offsets)))
        first += s.size
    return found


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


class AbstractSlots(AbstractParametrization):
    """What all decisions slot by slot share: the vector is the variables, one component a slot, on days that are fixed.

    `slots`, one an agent; `fixed`: treatment that is given anyway; `earlier`: doses [Gy] of fractions given before the
    day from which the plan counts (no part of its schedule, counted by every dose limit).

    **Raises:** `ValueError` for no agent, or one that stands twice.
    """

    slots: eqx.AbstractVar[tuple[Slots, ...]]
    if TYPE_CHECKING:  # as variables a type checker would put them before the arguments of a subclass

        @property
        def fixed(self) -> Schedule: ...

        @property
        def earlier(self) -> tuple[float, ...]: ...

    else:
        fixed: eqx.AbstractVar[Schedule]
        earlier: eqx.AbstractVar[tuple[float, ...]]

    word: eqx.AbstractClassVar[str]
    """What the vector holds, in a JSON file."""

    def __check_init__(self) -> None:
        agents = [s.agent for s in self.slots]
        if not agents or len(set(agents)) < len(agents):
            raise ValueError(f"required: one agent or more, each once; received: {agents}")
        _ = self.space

    @abc.abstractmethod
    def doses(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        """The dose of every slot."""

    @abc.abstractmethod
    def of_doses(self, doses: float | Sequence[float]) -> Float[np.ndarray, " n"]:
        """The decision that gives these doses: one number, one an agent or one a slot (a dose that is none of those
        allowed becomes the nearest below)."""

    def variables(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return vector

    def vector(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def courses(self, variables: Float[Array, " n"]) -> dict[str, Course]:
        return _courses(self.slots, self.doses(variables))

    @property
    def fixed_times(self) -> bool:
        return True

    def schedule(self, variables: Float[Array, " n"]) -> Schedule:
        return scheduled(self.courses(variables), self.fixed)

    def cost(self, variables: Float[Array, " n"]) -> Mapping[str, float]:
        return course_cost(self.courses(variables))

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return {
            self.word: np.asarray(variables).tolist(),
            "earlier_dose_gy": sum(self.earlier),
            "schedule": self.schedule(variables).describe(),
        }

    def sentence(self, variables: Float[Array, " n"]) -> str:
        return course_words(self.courses(variables))


def _box(slots: tuple[Slots, ...], low: np.ndarray, high: np.ndarray, every: tuple[str, ...] | None) -> DecisionSpace:
    """The space of one component a slot; whole numbers without unit where no units are given."""
    whole = every is None
    given = (units.FRACTION,) * low.size if every is None else every
    return DecisionSpace(low, high, np.full(low.size, whole), _names(slots), given)


class SlotDoses(AbstractSlots):
    """A continuous dose in every slot of one or several agents.

    $$ u = (d_{agent, slot}), \\qquad l \\le u \\le h $$

    **Arguments:** `slots`, one an agent; `high` and `low` doses: one number, one an agent or one a slot; `fixed` and
    `earlier` as of `AbstractSlots`.

    **Good values:** radiotherapy 0-3 Gy a fraction; drugs 0-1 of the reference dose.

    **Limits:** a dose of zero keeps its slot as an event (convenience: the number of events is static).
    """

    slots: tuple[Slots, ...] = eqx.field(static=True, converter=_tuple)
    high: float | tuple[float, ...] = eqx.field(static=True, default=1.0, converter=_hashable)
    low: float | tuple[float, ...] = eqx.field(static=True, default=0.0, converter=_hashable)
    fixed: Schedule = eqx.field(default_factory=Schedule)
    earlier: tuple[float, ...] = eqx.field(static=True, default=(), converter=_tuple)

    word: ClassVar[str] = "doses"

    @property
    def space(self) -> DecisionSpace:
        low, high = _each(self.low, self.slots, "low"), _each(self.high, self.slots, "high")
        return _box(self.slots, low, high, tuple(s.unit for s in self.slots for _ in s.days))

    @property
    def affine_doses(self) -> bool:
        return True

    def doses(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def of_doses(self, doses: float | Sequence[float]) -> Float[np.ndarray, " n"]:
        return _each(doses, self.slots, "doses")


class OnOff(AbstractSlots):
    """Give the full dose in a slot or nothing: u in {0, 1}^n.

    $$ d_i = u_i \\, dose_i $$

    **Arguments:** `slots`, one an agent; `dose` of a slot that is on: one number, one an agent or one a slot; `fixed`
    and `earlier` as of `AbstractSlots`.

    **Good values:** intermittent therapy by 28-day slots.
    """

    slots: tuple[Slots, ...] = eqx.field(static=True, converter=_tuple)
    dose: float | tuple[float, ...] = eqx.field(static=True, default=1.0, converter=_hashable)
    fixed: Schedule = eqx.field(default_factory=Schedule)
    earlier: tuple[float, ...] = eqx.field(static=True, default=(), converter=_tuple)

    word: ClassVar[str] = "on"

    @property
    def space(self) -> DecisionSpace:
        whole = self._whole
        return _box(self.slots, np.zeros(whole.size), np.ones(whole.size), None)

    @property
    def _whole(self) -> np.ndarray:
        return _each(self.dose, self.slots, "dose")

    @property
    def affine_doses(self) -> bool:
        return True

    def doses(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables * jnp.asarray(self._whole)

    def of_doses(self, doses: float | Sequence[float]) -> Float[np.ndarray, " n"]:
        return (_each(doses, self.slots, "doses") >= self._whole).astype(float)


class DoseLevels(AbstractSlots):
    """One of a few dose levels in every slot: u_i in {0, ..., m - 1} is the index of the level.

    $$ d_i = level_{u_i}, $$

    linear between the levels for an index that is not whole (the relaxation of a controller). Whole fractions of a
    slot are the levels (0, f, 2f, ...).

    **Arguments:** `slots`, one an agent; `levels`, rising, one tuple for all agents or one tuple an agent; `fixed` and
    `earlier` as of `AbstractSlots`.

    **Good values:** radiotherapy (0, 1, 2, 3) Gy a fraction; a drug (0, .5, .75, 1) of its reference dose.

    **Raises:** `ValueError` for fewer than two levels, or levels that do not rise.
    """

    slots: tuple[Slots, ...] = eqx.field(static=True, converter=_tuple)
    levels: tuple = eqx.field(static=True, converter=_nested)
    fixed: Schedule = eqx.field(default_factory=Schedule)
    earlier: tuple[float, ...] = eqx.field(static=True, default=(), converter=_tuple)

    word: ClassVar[str] = "levels"

    @property
    def of_agents(self) -> tuple[tuple[float, ...], ...]:
        """The levels of every agent."""
        if isinstance(self.levels[0], tuple):
            if len(self.levels) != len(self.slots):
                raise ValueError(
                    f"required: one tuple of levels an agent ({len(self.slots)}); received: {len(self.levels)}"
                )
            every = self.levels
        else:
            every = (self.levels,) * len(self.slots)
        for levels in every:
            if len(levels) < 2 or not _rising(levels):
                raise ValueError(f"required: two dose levels or more, rising; received: {levels}")
        return every

    @property
    def space(self) -> DecisionSpace:
        top = np.concatenate([np.full(s.size, len(v) - 1.0) for s, v in zip(self.slots, self.of_agents, strict=True)])
        return _box(self.slots, np.zeros(top.size), top, None)

    @property
    def affine_doses(self) -> bool:
        return all(np.ptp(np.diff(levels)) <= EQUALLY_SPACED * levels[-1] for levels in self.of_agents)

    def doses(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        doses, first = [], 0
        for s, levels in zip(self.slots, self.of_agents, strict=True):
            index = variables[first : first + s.size]
            doses.append(jnp.interp(index, jnp.arange(len(levels), dtype=index.dtype), jnp.asarray(levels)))
            first += s.size
        return jnp.concatenate(doses)

    def of_doses(self, doses: float | Sequence[float]) -> Float[np.ndarray, " n"]:
        wanted, found, first = _each(doses, self.slots, "doses"), [], 0
        for s, levels in zip(self.slots, self.of_agents, strict=True):
            below = np.searchsorted(levels, wanted[first : first + s.size] + EQUALLY_SPACED, side="right") - 1
            found.append(np.maximum(below, 0).astype(float))
            first += s.size
        return np.concatenate(found)
