"""Limits on a plan. Each says how far it is violated (`<= 0` is kept) and what it adds to the feasible set."""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from tumortwin import units
from tumortwin.control._decision import RADIOTHERAPY, AbstractParametrization
from tumortwin.control._schedule import PlanVariables, WeeklyFractions
from tumortwin.control._slots import AbstractSlots
from tumortwin.control._toxicity import NORMAL_TISSUE_ALPHA_BETA
from tumortwin.treatments import biologically_effective_dose


def _hashable(bound: float | Sequence[float]) -> float | tuple[float, ...]:
    return tuple(map(float, bound)) if isinstance(bound, Sequence) else float(bound)


class Limits(eqx.Module):
    """What one constraint adds to the feasible set: bounds [Gy a fraction; day] and the two sums [Gy]."""

    dose_low: float | tuple[float, ...] = eqx.field(static=True, default=0.0)
    dose_high: float | tuple[float, ...] = eqx.field(static=True, default=math.inf)
    start_low: float = eqx.field(static=True, converter=float, default=-math.inf)
    start_high: float = eqx.field(static=True, converter=float, default=math.inf)
    total_dose: float = eqx.field(static=True, converter=float, default=math.inf)
    effective_dose: float = eqx.field(static=True, converter=float, default=math.inf)
    alpha_beta: float | None = eqx.field(static=True, default=None)


class AbstractConstraint(eqx.Module):
    """A hard limit on the decision: every entry of `residuals(variables, parametrization)` is zero or less.

    The entries are smooth where the limit is (a search differentiates them); `violation`, the largest, is what is
    reported. `affine` says whether they are affine in the decision vector: such limits are rows A u <= b, which
    controllers treat exactly.

    A number that enters the residuals by arithmetic alone is a plain field, not a static one: a `Region` traces it, so
    that limits of another size run the same program.
    """

    name: eqx.AbstractClassVar[str]
    unit: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        """How far each part of the constraint is exceeded, in its unit."""

    @abc.abstractmethod
    def affine(self, parametrization: AbstractParametrization) -> bool:
        """Whether the residuals are affine in the decision vector."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain numbers: the limit and what defines it."""

    def violation(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, ""]:
        """How far the constraint is exceeded, in its unit; zero or less where it is kept."""
        return jnp.max(self.residuals(variables, parametrization), initial=-jnp.inf)


class AbstractDoseConstraint(AbstractConstraint):
    """A limit on radiotherapy that the exact projection on the set of weekly fractions knows too."""

    @abc.abstractmethod
    def limits(self) -> Limits:
        """The constraint as bounds and sums, for the projection."""


def fractions_of(variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " fraction"]:
    """The decided radiotherapy fractions [Gy].

    **Raises:** `ValueError` for a plan without radiotherapy.
    """
    courses = parametrization.courses(variables)
    if RADIOTHERAPY not in courses:
        raise ValueError(
            f"required: a plan that decides on {RADIOTHERAPY}, for a limit on its fractions; received: a plan of "
            f"{', '.join(courses)}; try: CumulativeDose(agent, limit)"
        )
    return courses[RADIOTHERAPY].doses


def earlier_fractions(parametrization: AbstractParametrization) -> tuple[float, ...]:
    """Doses [Gy] of fractions given before the plan, which count in its limits."""
    return parametrization.earlier if isinstance(parametrization, WeeklyFractions | AbstractSlots) else ()


class TotalDose(AbstractDoseConstraint):
    """Sum of all fractions, planned and earlier, <= `limit` [Gy].

    **Good values:** 60 Gy (glioblastoma standard of care).
    """

    limit: float = eqx.field(converter=float, default=60.0)

    name: ClassVar[str] = "total_dose"
    unit: ClassVar[str] = units.DOSE

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        planned = jnp.sum(fractions_of(variables, parametrization))
        return (planned + sum(earlier_fractions(parametrization)) - self.limit)[None]

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return parametrization.affine_doses

    def limits(self) -> Limits:
        return Limits(total_dose=self.limit)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.limit}


class FractionDose(AbstractDoseConstraint):
    """Every fraction between `low` and `high` [Gy]; a number, or one number a week (a fraction, where weeks have none).

    `low` above zero forbids gaps. Weeks already given are held by low = high. **Good values:** high 2.5-3 Gy; low 0
    (gaps allowed) or 1.5 Gy.
    """

    high: float | tuple[float, ...] = eqx.field(default=3.0, converter=_hashable)
    low: float | tuple[float, ...] = eqx.field(default=0.0, converter=_hashable)

    name: ClassVar[str] = "fraction_dose"
    unit: ClassVar[str] = units.DOSE

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        weekly = isinstance(parametrization, WeeklyFractions)
        dose = variables.weekly_fraction_dose if weekly else fractions_of(variables, parametrization)
        return jnp.concatenate([dose - jnp.asarray(self.high), jnp.asarray(self.low) - dose])

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return parametrization.affine_doses

    def limits(self) -> Limits:
        return Limits(dose_low=self.low, dose_high=self.high)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.high, "low": self.low}


class EffectiveDose(AbstractDoseConstraint):
    """Normal-tissue BED, sum n d (1 + d / (alpha/beta)) <= `limit` [Gy], over planned and earlier fractions.

    Several limits may stand side by side, each with its own alpha/beta. No recovery between courses is counted. Convex
    in the doses.

    **Good values:** alpha/beta 3 Gy and 100 Gy, the BED_3 of 30 x 2 Gy.
    """

    limit: float = eqx.field(converter=float, default=100.0)
    alpha_beta: float = eqx.field(static=True, converter=float, default=NORMAL_TISSUE_ALPHA_BETA)

    name: ClassVar[str] = "effective_dose"
    unit: ClassVar[str] = units.DOSE

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        planned = biologically_effective_dose(fractions_of(variables, parametrization), self.alpha_beta)
        return (planned + earlier_effect(parametrization, self.alpha_beta) - self.limit)[None]

    def affine(self, parametrization: AbstractParametrization) -> bool:
        del parametrization
        return False

    def limits(self) -> Limits:
        return Limits(effective_dose=self.limit, alpha_beta=self.alpha_beta)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.limit, "alpha_beta": self.alpha_beta}


def earlier_effect(parametrization: AbstractParametrization, alpha_beta: float) -> float:
    """BED [Gy] of the fractions given before the plan."""
    return sum(dose * (1.0 + dose / alpha_beta) for dose in earlier_fractions(parametrization))


class StartWindow(AbstractDoseConstraint):
    """First fraction between the days `low` and `high`; equal days fix it."""

    low: float = eqx.field(converter=float)
    high: float = eqx.field(converter=float)

    name: ClassVar[str] = "start_day"
    unit: ClassVar[str] = units.TIME

    def residuals(self, variables: PlanVariables, parametrization: WeeklyFractions) -> Float[Array, " residual"]:
        del parametrization
        return jnp.stack([self.low - variables.start_day, variables.start_day - self.high])

    def affine(self, parametrization: AbstractParametrization) -> bool:
        del parametrization
        return True

    def limits(self) -> Limits:
        return Limits(start_low=self.low, start_high=self.high)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.high, "low": self.low}
