"""One plan for each of many patients, side by side in one program: a projected gradient over all of them."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from tumortwin.control._feasible import FeasibleSet
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._projected_gradient import LONGEST_STEP, SHORTEST_STEP, SUFFICIENT_DECREASE
from tumortwin.control._schedule import PlanVariables

BACKTRACKS = 8
"""Halvings of a step after which a descent has stalled (a kink of the risk)."""


@dataclasses.dataclass(frozen=True)
class EachPlan:
    """The weekly fraction doses [patient week] [Gy] of every patient, their `risk` [patient] on the draws they were
    chosen with, which start the best came from, and whether its projected gradient fell below the tolerance."""

    doses: Float[np.ndarray, "patient week"]
    risk: Float[np.ndarray, " patient"]
    start: np.ndarray
    converged: Bool[np.ndarray, " patient"]


class Descending(eqx.Module):
    """One descent: `point` [week] [Gy], its value and gradient, spectral `step`, `length` tried along it, and `unit`
    (a step of it moves 1 Gy at first)."""

    point: Array
    value: Array
    gradient: Array
    step: Array
    length: Array
    unit: Array
    converged: Array
    ended: Array


def plan_each(
    problem: PlanningProblem,
    draws: PyTree,
    *,
    starts: Float[ArrayLike, "*patient start week"],
    total_dose: Float[ArrayLike, " patient"] | None = None,
    effective_dose: Float[ArrayLike, " patient"] | None = None,
    max_steps: int = 60,
    tolerance: float = 1e-5,
) -> EachPlan:
    """The plan of every patient, by the same projected gradient as `ProjectedGradient`, all of them at once.

    Every patient has the problem's burden, objective, risk and limits, and draws of their own. From every start,

    $$ d_k = P(x_k - \\lambda_k \\nabla R(x_k)) - x_k, \\qquad x_{k+1} = x_k + t_k d_k $$

    with Barzilai-Borwein step lengths and a monotone line search; the lowest end is the plan, so that no plan is worse
    than any of its (projected) starts, and none leaves the limits.

    **Arguments:** `problem`: its own draws are not used; weekly fractions on a fixed start day, closed forms
    (everything is solved at once). `draws`: leaves [patient draw ...]. `starts` [Gy]: of all patients, or of each.
    `total_dose`, `effective_dose` [Gy]: a tighter limit on the total, and on every BED limited, for each patient (a
    limit that leaves no plan gives the lowest doses). `tolerance` [Gy] of the projected gradient.

    **Good values:** the standard of care and the corners of the set as starts; 64 draws a patient with CVaR 0.8.

    **Limits:** a local minimum, as every gradient search over LQ doses (mathematical); a start day that may move, draws
    with weights and limits on the outcome are for the other controllers (convenience).

    **Raises:** `ValueError` for such a problem.

    **Reference:** Birgin, Martinez and Raydan, SIAM J Optim 10 (2000).
    """
    feasible = problem.feasible_set
    if feasible.start[0] != feasible.start[1] or problem.weights is not None or problem.outcome_limits:
        raise ValueError(
            "required: a fixed start day, draws of equal weight and limits on the decision alone; received: days "
            f"{feasible.start.tolist()}, {'no ' if problem.weights is None else ''}weights, "
            f"{len(problem.outcome_limits)} limits on the outcome; try: plan(), patient by patient"
        )
    patients = jax.tree.leaves(draws)[0].shape[0]
    begun = jnp.asarray(starts, float)
    if begun.ndim == 2:
        begun = jnp.broadcast_to(begun, (patients, *begun.shape))
    budgets = _tightened(feasible, patients, total_dose, effective_dose)
    bare = problem.with_constraints(()).with_draws(None)
    found = _search(bare, draws, feasible, budgets, begun, jnp.asarray(max_steps), jnp.asarray(tolerance))
    doses, risk, start, converged = (np.asarray(each) for each in found)
    return EachPlan(doses, risk, start, converged)


def _tightened(
    feasible: FeasibleSet, patients: int, total: ArrayLike | None, effective: ArrayLike | None
) -> tuple[Float[Array, " patient"], Float[Array, "patient limit"]]:
    """Total dose and BEDs that each patient's own plan may use."""
    totals, effects = (
        jnp.broadcast_to(jnp.asarray(np.inf if each is None else each, float), (patients,))
        for each in (total, effective)
    )
    return jnp.minimum(feasible.total_dose, totals), jnp.minimum(feasible.effective_dose[None], effects[:, None])


@eqx.filter_jit
def _search(
    problem: PlanningProblem,
    draws: PyTree,
    feasible: FeasibleSet,
    budgets: tuple[Float[Array, " patient"], Float[Array, "patient limit"]],
    starts: Float[Array, "patient start week"],
    max_steps: Array,
    tolerance: Array,
) -> tuple[Array, Array, Array, Array]:
    def one(drawn: PyTree, budget: tuple[Array, Array], begun: Array) -> tuple[Array, Array, Array, Array]:
        own = eqx.tree_at(lambda s: (s.total_dose, s.effective_dose), feasible, budget)
        ends = jax.vmap(lambda x: _descend(problem.with_draws(drawn), own, x, max_steps, tolerance))(begun)
        best = jnp.argmin(ends.value)
        return ends.point[best], ends.value[best], best, ends.converged[best]

    return jax.vmap(one)(draws, budgets, starts)


def _descend(
    problem: PlanningProblem, feasible: FeasibleSet, start: Array, max_steps: Array, tolerance: Array
) -> Descending:
    day = jnp.asarray(feasible.start[0])

    def project(point: Array) -> Array:
        return feasible.project(PlanVariables(point, day)).weekly_fraction_dose

    risk = jax.value_and_grad(lambda x: problem.risk(problem.losses(PlanVariables(x, day))))

    def step(state: Descending, first: Array) -> Descending:
        way = project(state.point - state.step * state.gradient) - state.point
        slope = jnp.sum(way * state.gradient)
        # The displacement of a step of one unit is at most this.
        residual = jnp.max(jnp.abs(way)) * jnp.maximum(1.0, state.unit / state.step)
        converged = (residual <= tolerance) & ~first
        point = state.point + state.length * way
        value, gradient = risk(point)
        better = (value <= state.value + SUFFICIENT_DECREASE * state.length * slope) & (slope < 0.0)
        unit = jnp.where(first, 1.0 / jnp.maximum(jnp.max(jnp.abs(gradient)), 1e-12), state.unit)
        spectral = jnp.where(first, unit, _spectral(point - state.point, gradient - state.gradient, unit))
        accepted = Descending(point, value, gradient, spectral, jnp.ones(()), unit, converged, converged)
        shorter = state.length * 0.5
        stalled = (shorter < 0.5**BACKTRACKS) | (slope >= 0.0)
        refused = eqx.tree_at(
            lambda s: (s.length, s.converged, s.ended), state, (shorter, converged, converged | stalled)
        )
        return jax.tree.map(lambda a, b: jnp.where(first | (better & ~converged), a, b), accepted, refused)

    def body(carry: tuple[Array, Descending]) -> tuple[Array, Descending]:
        count, state = carry
        following = step(state, count == 0)
        return count + 1, jax.tree.map(lambda old, new: jnp.where(state.ended, old, new), state, following)

    # The first step has no gradient: it goes to the projected start and is taken. So the risk is compiled once.
    one, no = jnp.ones(()), jnp.asarray(False)
    begun = Descending(start, one * jnp.inf, jnp.zeros_like(start), one, one, one, no, no)
    return jax.lax.while_loop(lambda c: (c[0] <= max_steps) & ~c[1].ended, body, (jnp.asarray(0), begun))[1]


def _spectral(moved: Array, turned: Array, unit: Array) -> Array:
    """The Barzilai-Borwein step length, within its bounds."""
    curvature = jnp.sum(moved * turned)
    length = jnp.where(curvature > 0.0, jnp.sum(moved**2) / jnp.where(curvature > 0.0, curvature, 1.0), jnp.inf)
    return jnp.clip(length, SHORTEST_STEP * unit, LONGEST_STEP * unit)
