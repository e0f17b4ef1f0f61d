"""The set of plans that keep every limit, and the exact Euclidean projection on it."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.control._constraint import AbstractConstraint, AbstractDoseConstraint, earlier_effect
from tumortwin.control._decision import AbstractParametrization
from tumortwin.control._schedule import PlanVariables, WeeklyFractions
from tumortwin.control._toxicity import NORMAL_TISSUE_ALPHA_BETA

BISECTIONS = 60
"""Halvings of a dual interval: past double precision (2^-60)."""


class FeasibleSet(eqx.Module):
    """Box, total dose and normal-tissue BED in the weekly fraction doses; an interval for the start day.

    $$ l \\le d \\le h, \\quad n \\sum_w d_w \\le B, \\quad n \\sum_w d_w (1 + d_w / r_j) \\le E_j,
        \\quad t \\in [a, b] $$

    with n fractions a week, B and E_j what earlier fractions leave of the limits, and r_j the alpha/beta of each BED
    limit. Convex. The projection of y on it is separable once the dual variables are known,

    $$ d_w = clip\\left(\\frac{y_w - n(\\mu + \\sum_j \\nu_j)}{1 + 2 n \\sum_j \\nu_j / r_j}, l_w, h_w\\right) $$

    and they are found by nested bisection; the feasible end of the bracket is returned, so a projected plan keeps its
    limits in floating point too. Of several BED limits mostly one binds: the projection that minds it alone is the
    answer when it keeps the others. The start day is independent of the doses and is clipped.

    The limits are arrays, so one compiled projection serves every set of a shape.

    **Raises:** `ValueError` when no plan keeps the limits, when a bound is missing, and for a plan or a limit that is
    not one of weekly fractions (`Region` is the general set).
    """

    low: np.ndarray
    high: np.ndarray
    start: np.ndarray
    total_dose: np.ndarray
    effective_dose: np.ndarray
    alpha_beta: np.ndarray
    fractions: int = eqx.field(static=True)

    def __init__(self, constraints: Sequence[AbstractConstraint], parametrization: AbstractParametrization) -> None:
        foreign = [c.name for c in constraints if not isinstance(c, AbstractDoseConstraint)]
        if foreign or not isinstance(parametrization, WeeklyFractions):
            raise ValueError(
                "required: weekly fractions and limits on radiotherapy, for the exact projection; received: "
                f"{type(parametrization).__name__} {foreign}; try: PlanningProblem.region, which knows every limit"
            )
        limits = [c.limits() for c in constraints if isinstance(c, AbstractDoseConstraint)]
        weeks = parametrization.n_weeks
        low = np.max([np.broadcast_to(v.dose_low, weeks) for v in limits] + [np.zeros(weeks)], axis=0)
        high = np.min([np.broadcast_to(v.dose_high, weeks) for v in limits] + [np.full(weeks, np.inf)], axis=0)
        ratios = sorted({v.alpha_beta for v in limits if v.alpha_beta is not None}) or [NORMAL_TISSUE_ALPHA_BETA]
        tightest = [min([v.effective_dose for v in limits if v.alpha_beta == r], default=np.inf) for r in ratios]
        self.low, self.high = low, high
        starts = [(v.start_low, v.start_high) for v in limits]
        self.start = np.asarray(
            [max([s[0] for s in starts], default=-np.inf), min([s[1] for s in starts], default=np.inf)]
        )
        self.fractions = parametrization.fractions_per_week
        total = min([v.total_dose for v in limits], default=np.inf)
        self.total_dose = np.asarray(total - sum(parametrization.earlier))
        self.effective_dose = np.asarray(tightest) - [earlier_effect(parametrization, r) for r in ratios]
        self.alpha_beta = np.asarray(ratios)
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
        if self._total(low) > self.total_dose or (self._effective(low) > self.effective_dose).any():
            raise ValueError(
                f"required: the lowest weekly doses within the budgets; received: {self._total(low):.2f} of "
                f"{self.total_dose:.2f} Gy and BED {np.round(self._effective(low), 2).tolist()} of "
                f"{np.round(self.effective_dose, 2).tolist()} Gy that earlier fractions leave; "
                "try: a lower FractionDose.low, or higher limits"
            )

    def _total(self, dose):
        return self.fractions * dose.sum()

    def _effective(self, dose):
        """BED [limit] of the planned fractions."""
        return self.fractions * (dose.sum() + (dose**2).sum() / self.alpha_beta)

    @eqx.filter_jit
    def contains(self, variables: PlanVariables, tolerance: float = 1e-9) -> Array:
        """Whether every limit is kept to `tolerance` (Gy, days)."""
        dose, day = variables.weekly_fraction_dose, variables.start_day
        inside = (dose >= jnp.asarray(self.low) - tolerance) & (dose <= jnp.asarray(self.high) + tolerance)
        return (
            jnp.all(inside)
            & (self._total(dose) <= self.total_dose + tolerance)
            & jnp.all(self._effective(dose) <= self.effective_dose + tolerance)
            & (day >= self.start[0] - tolerance)
            & (day <= self.start[1] + tolerance)
        )

    @eqx.filter_jit
    def project(self, variables: PlanVariables) -> PlanVariables:
        """The nearest plan that keeps every limit (doses in Gy; the start day clipped to its window)."""
        start = jnp.clip(variables.start_day, self.start[0], self.start[1])
        return PlanVariables(self._project_doses(variables.weekly_fraction_dose), start)

    def _project_doses(self, target: Float[Array, " week"]) -> Float[Array, " week"]:
        every = tuple(range(self.alpha_beta.size))
        alone = jnp.stack([self._nearest(target, (limit,)) for limit in every])
        if len(every) == 1:
            return alone[0]
        kept = jnp.stack([jnp.all(self._effective(dose) <= self.effective_dose) for dose in alone])
        return jax.lax.cond(jnp.any(kept), lambda: alone[jnp.argmax(kept)], lambda: self._nearest(target, every))

    def _nearest(self, target: Float[Array, " week"], limits: tuple[int, ...]) -> Float[Array, " week"]:
        """The nearest doses within the box, the total dose and the BED limits of the given indices."""
        n, low, high = self.fractions, jnp.asarray(self.low), jnp.asarray(self.high)
        budgets, ratios = jnp.asarray(self.effective_dose), jnp.asarray(self.alpha_beta)
        # A multiplier at which every dose before clipping is at most its lower bound's floor, zero.
        top = jnp.maximum(jnp.max(target) / n, 1.0)

        def dose(mu: Array, nus: tuple[Array, ...]) -> Array:
            bend = sum((nu / ratios[j] for j, nu in zip(limits, nus, strict=True)), jnp.zeros(()))
            return jnp.clip((target - n * (mu + sum(nus))) / (1.0 + 2.0 * n * bend), low, high)

        def settled(nus: tuple[Array, ...]) -> Array:
            """The doses for given multipliers of the first BED limits, the others and the total's chosen for them."""
            if len(nus) == len(limits):
                mu = _smallest(lambda m: self._total(dose(m, nus)) <= self.total_dose, top)
                return dose(mu, nus)
            j = limits[len(nus)]
            nu = _smallest(lambda v: self._effective(settled((*nus, v)))[j] <= budgets[j], top)
            return settled((*nus, nu))

        return settled(())


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
