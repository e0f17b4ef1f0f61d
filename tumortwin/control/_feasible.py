"""The set of plans that keep every limit, and the exact Euclidean projection on it."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._schedule import PlanVariables, WeeklyFractions

BISECTIONS = 60
"""Halvings of a dual interval: past double precision (2^-60)."""


class FeasibleSet(eqx.Module):
    """Box, total dose and normal-tissue BED in the weekly fraction doses; an interval for the start day.

    $$ l \\le d \\le h, \\quad n \\sum_w d_w \\le B, \\quad n \\sum_w d_w (1 + d_w / r) \\le E, \\quad t \\in [a, b] $$

    with n fractions a week and r the alpha/beta of normal tissue. Convex. The projection of y on it is separable once
    the two dual variables are known,

    $$ d_w = clip\\left(\\frac{y_w - n(\\mu + \\nu)}{1 + 2 n \\nu / r}, l_w, h_w\\right) $$

    and both are found by nested bisection; the feasible end of the bracket is returned, so a projected plan keeps its
    limits in floating point too. The start day is independent of the doses and is clipped.

    The limits are arrays, so one compiled projection serves every set of a shape.

    **Raises:** `ValueError` when no plan keeps the limits, when a bound is missing, or for two different alpha/beta.
    """

    low: np.ndarray
    high: np.ndarray
    start: np.ndarray
    total_dose: np.ndarray
    effective_dose: np.ndarray
    alpha_beta: np.ndarray
    fractions: int = eqx.field(static=True)

    def __init__(self, constraints: Sequence[AbstractConstraint], parametrization: WeeklyFractions) -> None:
        limits = [c.limits() for c in constraints]
        weeks = parametrization.n_weeks
        low = np.max([np.broadcast_to(v.dose_low, weeks) for v in limits] + [np.zeros(weeks)], axis=0)
        high = np.min([np.broadcast_to(v.dose_high, weeks) for v in limits] + [np.full(weeks, np.inf)], axis=0)
        ratios = {v.alpha_beta for v in limits if v.alpha_beta is not None}
        if len(ratios) > 1:
            raise ValueError(f"required: one alpha/beta for all BED limits; received: {sorted(ratios)} Gy")
        self.low, self.high = low, high
        self.start = np.asarray([max(v.start_low for v in limits), min(v.start_high for v in limits)])
        self.fractions = parametrization.fractions_per_week
        self.total_dose = np.asarray(min(v.total_dose for v in limits))
        self.effective_dose = np.asarray(min(v.effective_dose for v in limits))
        self.alpha_beta = np.asarray(ratios.pop() if ratios else 1.0)
        self._check(low, high)

    def _check(self, low: np.ndarray, high: np.ndarray) -> None:
        if not np.isfinite([*self.start, *high]).all():
            raise ValueError(
                "required: a highest fraction dose for every week and a window for the start day; received: "
                f"{high.tolist()} Gy and days {self.start.tolist()}; "
                "try: FractionDose(high=3.0) and StartWindow(low, high)"
            )
        if (low > high).any() or self.start[0] > self.start[1]:
            raise ValueError(
                f"required: low <= high; received: {low.tolist()} to {high.tolist()} Gy, days {self.start.tolist()}"
            )
        if self._total(low) > self.total_dose or self._effective(low) > self.effective_dose:
            raise ValueError(
                f"required: the lowest weekly doses within the budgets; received: {self._total(low):.2f} of "
                f"{self.total_dose} Gy and BED {self._effective(low):.2f} of {self.effective_dose} Gy; "
                "try: a lower FractionDose.low"
            )

    def _total(self, dose):
        return self.fractions * dose.sum()

    def _effective(self, dose):
        return self.fractions * (dose * (1.0 + dose / self.alpha_beta)).sum()

    @eqx.filter_jit
    def contains(self, variables: PlanVariables, tolerance: float = 1e-9) -> Array:
        """Whether every limit is kept to `tolerance` (Gy, days)."""
        dose, day = variables.weekly_fraction_dose, variables.start_day
        inside = (dose >= jnp.asarray(self.low) - tolerance) & (dose <= jnp.asarray(self.high) + tolerance)
        return (
            jnp.all(inside)
            & (self._total(dose) <= self.total_dose + tolerance)
            & (self._effective(dose) <= self.effective_dose + tolerance)
            & (day >= self.start[0] - tolerance)
            & (day <= self.start[1] + tolerance)
        )

    @eqx.filter_jit
    def project(self, variables: PlanVariables) -> PlanVariables:
        """The nearest plan that keeps every limit (doses in Gy; the start day clipped to its window)."""
        start = jnp.clip(variables.start_day, self.start[0], self.start[1])
        return PlanVariables(self._project_doses(variables.weekly_fraction_dose), start)

    def _project_doses(self, target: Float[Array, " week"]) -> Float[Array, " week"]:
        n, low, high = self.fractions, jnp.asarray(self.low), jnp.asarray(self.high)

        def dose(mu: Array, nu: Array) -> Array:
            return jnp.clip((target - n * (mu + nu)) / (1.0 + 2.0 * n * nu / self.alpha_beta), low, high)

        def within_total(nu: Array) -> Array:
            """The budget's dual variable for a given dual variable of the BED limit."""
            top = jnp.maximum(jnp.max(target) / n, 1.0)  # d <= 0 before clipping: nothing lower exists
            return _smallest(lambda mu: self._total(dose(mu, nu)) <= self.total_dose, top)

        # A nu at which every dose before clipping is at most its lower bound's floor, zero.
        top = jnp.maximum(jnp.max(target) / n, 1.0)
        nu = _smallest(lambda v: self._effective(dose(within_total(v), v)) <= self.effective_dose, top)
        return dose(within_total(nu), nu)


def _smallest(feasible, top: Array) -> Array:
    """Smallest multiplier in [0, top] that is feasible, by bisection from above; zero if zero is."""

    def halve(_, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        bottom, upper = bracket
        middle = 0.5 * (bottom + upper)
        keeps = feasible(middle)
        return jnp.where(keeps, bottom, middle), jnp.where(keeps, middle, upper)

    zero = jnp.zeros_like(top)
    _, found = jax.lax.fori_loop(0, BISECTIONS, halve, (zero, top))
    return jnp.where(feasible(zero), zero, found)
