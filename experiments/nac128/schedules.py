"""The 128 schedules as six whole numbers, and their limits.

Between whole numbers a schedule is a blend: intervals, gap and start are interpolated, and of two patterns of doses
each is given at its share, so that the cumulative dose of each drug is the same everywhere.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments.nac128.model import ANTHRACYCLINE, TAXANE, Timed
from tumortwin import units
from tumortwin.control import AbstractConstraint, AbstractParametrization, DecisionSpace
from tumortwin.treatments import Course

NAMES = ("order", "interval", "split", "taxane", "gap", "start")
INTERVAL, GAP, START = (14.0, 21.0), (7.0, 21.0), (0.0, 7.0)  # [day]
FULL, HALVED = 4, 8  # doses of the anthracycline pair
# Taxane: number of doses, interval [day]; from the longest course to the shortest (a number between two means one).
PATTERNS = ((12, 10.0), (12, 7.0), (6, 14.0), (4, 21.0))
WEEKLY = 12.0  # taxane in weekly doses, all patterns
LOCKED = (60.0, 66.0)  # [day], first and last on which the ward is closed
SHORTEST = 10.0  # [day] between two doses of the anthracycline pair


def _between(ends: tuple[float, float], share: Any) -> Any:
    return ends[0] + (ends[1] - ends[0]) * share


class Neoadjuvant(AbstractParametrization):
    """Order (0: anthracycline pair first), its interval (14, 21 d), its split (4 full, 8 half doses at half the
    interval), the taxane (10 d x 12, 7 d x 12, 14 d x 6, 21 d x 4), the gap (7, 21 d) and the start (day 0, 7);
    `whole`: whether the six components are whole numbers or anything between.
    """

    whole: bool = eqx.field(static=True, default=True)

    @property
    def space(self) -> DecisionSpace:
        top = np.asarray([1.0, 1.0, 1.0, len(PATTERNS) - 1.0, 1.0, 1.0])
        return DecisionSpace(np.zeros(6), top, np.full(6, self.whole), NAMES, (units.FRACTION,) * 6)

    def variables(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return vector

    def vector(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def courses(self, variables: Float[Array, " n"]) -> dict[str, Course]:
        order, interval, split, taxane, gap, start = variables
        every, start = _between(INTERVAL, interval), _between(START, start)
        hats = jnp.maximum(1.0 - jnp.abs(taxane - jnp.arange(len(PATTERNS))), 0.0)
        spans = jnp.asarray([(n - 1) * days for n, days in PATTERNS])
        whole, halves = jnp.arange(FULL) * every, jnp.arange(HALVED) * every / 2.0
        shift_pair = _between(GAP, gap) + jnp.sum(hats * spans)
        shift_taxane = _between(GAP, gap) + (1.0 - split) * (FULL - 1) * every + split * (HALVED - 1) * every / 2.0
        pair = [(whole, (1.0 - split) * jnp.ones(FULL)), (halves, split * jnp.full(HALVED, FULL / HALVED))]
        drug = [(jnp.arange(n) * days, hats[i] * jnp.full(n, WEEKLY / n)) for i, (n, days) in enumerate(PATTERNS)]
        return {
            ANTHRACYCLINE: _ordered(pair, start, order * shift_pair),
            TAXANE: _ordered(drug, start, (1.0 - order) * shift_taxane),
        }

    @property
    def affine_doses(self) -> bool:
        return False

    @property
    def fixed_times(self) -> bool:
        return False

    def schedule(self, variables: Float[Array, " n"]) -> Timed:
        courses = self.courses(variables)
        _, interval, split, taxane, gap, start = variables
        pair = _between(INTERVAL, interval) * ((1.0 - split) * (FULL - 1) + split * (HALVED - 1) / 2.0)
        hats = jnp.maximum(1.0 - jnp.abs(taxane - jnp.arange(len(PATTERNS))), 0.0)
        spans = jnp.sum(hats * jnp.asarray([(n - 1) * days for n, days in PATTERNS]))
        return Timed(courses, _between(START, start) + pair + _between(GAP, gap) + spans)

    def cost(self, variables: Float[Array, " n"]) -> Mapping[str, float]:
        return {f"{agent}_total": float(jnp.sum(c.doses)) for agent, c in self.courses(variables).items()}

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return dict(zip(NAMES, np.asarray(variables).tolist(), strict=True))

    def sentence(self, variables: Float[Array, " n"]) -> str:
        order, interval, split, taxane, gap, start = (float(v) for v in variables)
        pair = f"pair every {_between(INTERVAL, interval) / (1 + round(split)):g} d x {HALVED if split > 0.5 else FULL}"
        n, days = PATTERNS[round(taxane)]
        first, second = (pair, f"taxane every {days:g} d x {n}")[:: 1 if order < 0.5 else -1]
        return f"from day {_between(START, start):g}: {first}, {_between(GAP, gap):g} d, {second}"


def _ordered(patterns: list[tuple[Array, Array]], start: Array, shift: Array) -> Course:
    """All patterns of one drug, each at its share, moved together."""
    times, doses = (jnp.concatenate(part) for part in zip(*patterns, strict=True))
    return Course(start + shift + times, doses)


class PairInterval(AbstractConstraint):
    """At least `days` [day] between two doses of the anthracycline pair.

    Between whole numbers: of the interval as it is blended.
    """

    days: float = eqx.field(static=True, converter=float, default=SHORTEST)

    name: ClassVar[str] = "pair_interval"
    unit: ClassVar[str] = units.TIME

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        del parametrization
        return (self.days - _between(INTERVAL, variables[1]) * (1.0 - 0.5 * variables[2]))[None]

    def affine(self, parametrization: AbstractParametrization) -> bool:
        del parametrization
        return False

    def describe(self) -> dict[str, Any]:
        return {"limit": self.days}


def every_schedule() -> np.ndarray:
    """The 128 decisions [128 6]."""
    space = Neoadjuvant().space
    axes = [np.arange(high + 1.0) for high in space.upper]
    return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=1)
