"""Limits on a plan. Each says how far it is violated (`<= 0` is kept) and what it adds to the feasible set."""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.control._schedule import PlanVariables, WeeklyFractions
from tumortwin.treatments import biologically_effective_dose

NORMAL_TISSUE_ALPHA_BETA = 3.0
"""alpha/beta [Gy] of late-responding normal tissue. Convention; Fowler, Br J Radiol 62 (1989)."""


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
    """`violation(variables, parametrization) <= 0` where the constraint is kept."""

    name: eqx.AbstractClassVar[str]
    unit: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def violation(self, variables: PlanVariables, parametrization: WeeklyFractions) -> Float[Array, ""]:
        """How far the constraint is exceeded, in its unit; zero or less where it is kept."""

    @abc.abstractmethod
    def limits(self) -> Limits:
        """The constraint as bounds and sums, for the projection."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain numbers: the limit and what defines it."""


class TotalDose(AbstractConstraint):
    """Sum of all fractions, planned and earlier, <= `limit` [Gy].

    **Good values:** 60 Gy (glioblastoma standard of care).
    """

    limit: float = eqx.field(static=True, converter=float, default=60.0)

    name: ClassVar[str] = "total_dose"
    unit: ClassVar[str] = units.DOSE

    def violation(self, variables: PlanVariables, parametrization: WeeklyFractions) -> Float[Array, ""]:
        return jnp.sum(parametrization.fraction_doses(variables)) + sum(parametrization.earlier) - self.limit

    def limits(self) -> Limits:
        return Limits(total_dose=self.limit)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.limit}


class FractionDose(AbstractConstraint):
    """Every fraction between `low` and `high` [Gy]; a number, or one number a week.

    `low` above zero forbids gaps. Weeks already given are held by low = high. **Good values:** high 2.5-3 Gy; low 0
    (gaps allowed) or 1.5 Gy.
    """

    high: float | tuple[float, ...] = eqx.field(static=True, default=3.0, converter=_hashable)
    low: float | tuple[float, ...] = eqx.field(static=True, default=0.0, converter=_hashable)

    name: ClassVar[str] = "fraction_dose"
    unit: ClassVar[str] = units.DOSE

    def violation(self, variables: PlanVariables, parametrization: WeeklyFractions) -> Float[Array, ""]:
        del parametrization
        dose = variables.weekly_fraction_dose
        return jnp.maximum(jnp.max(dose - jnp.asarray(self.high)), jnp.max(jnp.asarray(self.low) - dose))

    def limits(self) -> Limits:
        return Limits(dose_low=self.low, dose_high=self.high)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.high, "low": self.low}


class EffectiveDose(AbstractConstraint):
    """Normal-tissue BED, sum n d (1 + d / (alpha/beta)) <= `limit` [Gy], over planned and earlier fractions.

    Several limits may stand side by side, each with its own alpha/beta. No recovery between courses is counted.

    **Good values:** alpha/beta 3 Gy and 100 Gy, the BED_3 of 30 x 2 Gy.
    """

    limit: float = eqx.field(static=True, converter=float, default=100.0)
    alpha_beta: float = eqx.field(static=True, converter=float, default=NORMAL_TISSUE_ALPHA_BETA)

    name: ClassVar[str] = "effective_dose"
    unit: ClassVar[str] = units.DOSE

    def violation(self, variables: PlanVariables, parametrization: WeeklyFractions) -> Float[Array, ""]:
        planned = biologically_effective_dose(parametrization.fraction_doses(variables), self.alpha_beta)
        return planned + earlier_effect(parametrization, self.alpha_beta) - self.limit

    def limits(self) -> Limits:
        return Limits(effective_dose=self.limit, alpha_beta=self.alpha_beta)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.limit, "alpha_beta": self.alpha_beta}


def earlier_effect(parametrization: WeeklyFractions, alpha_beta: float) -> float:
    """BED [Gy] of the fractions given before the plan."""
    return sum(dose * (1.0 + dose / alpha_beta) for dose in parametrization.earlier)


class StartWindow(AbstractConstraint):
    """First fraction between the days `low` and `high`; equal days fix it."""

    low: float = eqx.field(static=True, converter=float)
    high: float = eqx.field(static=True, converter=float)

    name: ClassVar[str] = "start_day"
    unit: ClassVar[str] = units.TIME

    def violation(self, variables: PlanVariables, parametrization: WeeklyFractions) -> Float[Array, ""]:
        del parametrization
        return jnp.maximum(self.low - variables.start_day, variables.start_day - self.high)

    def limits(self) -> Limits:
        return Limits(start_low=self.low, start_high=self.high)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.high, "low": self.low}
