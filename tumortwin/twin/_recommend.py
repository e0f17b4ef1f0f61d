"""From a posterior to a schedule: the tumor's burden under a plan, for every draw, by the moving-edge path."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from tumortwin._chunks import in_chunks
from tumortwin.control import (
    AbstractConstraint,
    AbstractController,
    AbstractObjective,
    AbstractParametrization,
    AbstractRisk,
    Curve,
    PlanningProblem,
    Recommendation,
    SecondAim,
    WeeklyFractions,
    curves,
    recommend,
)
from tumortwin.inference import Posterior, Problem
from tumortwin.models import GivenDensity, ReactionDiffusion
from tumortwin.solvers import MovingEdges, simulate, simulate_moving
from tumortwin.treatments import Course, Schedule
from tumortwin.twin._build import Solve, start_at_day_zero
from tumortwin.twin._unlearned import completed


class DecisionDraw(eqx.Module):
    """A posterior draw on the day of the decision: its `values` by path and the `density` that it has led to.

    The way there does not depend on the plan, so it is gone once, not with every plan that is tried. `usable`: whether
    that solve came through.
    """

    values: dict[str, Array]
    density: Float[Array, "*draw x y z"]
    usable: Bool[Array, "*draw"]


class PlannedBurden(eqx.Module):
    """`(draw, schedule) -> Curve` of the tumor's mass [mm^3], all days counted from that of the decision, `origin`.

    On that day, at the fractions that the edges save (just before them) and on the fixed days after treatment; NaN
    where the solve failed.

    The fraction times are traced step edges and days of the curve, so a plan's start day has an exact gradient also in
    objectives that integrate over treatment.
    """

    problem: Problem
    edges: MovingEdges
    origin: float = eqx.field(static=True)
    days: tuple[float, ...] = eqx.field(static=True)  # the fixed ones

    def __call__(self, draw: DecisionDraw, schedule: Schedule) -> Curve:
        model = self.model(draw)
        trajectory = simulate_moving(model, schedule, self.edges)
        cell = model.tissue.grid.cell_volume
        later = jnp.sum(trajectory.states.density, axis=(1, 2, 3), dtype=jnp.float64) * cell
        burden = jnp.concatenate([jnp.sum(draw.density, dtype=jnp.float64)[None] * cell, later])
        usable = trajectory.succeeded & draw.usable
        days = jnp.concatenate([jnp.zeros(1), trajectory.ts])
        return Curve(days, jnp.where(usable, burden, jnp.nan))

    def model(self, draw: DecisionDraw) -> ReactionDiffusion:
        """The model of a draw, which starts on the day of the decision."""
        model, _ = self.problem.bind(draw.values)
        return eqx.tree_at(lambda m: m.initial, model, GivenDensity(draw.density))


def decided(problem: Problem, values: dict[str, Array], origin: float) -> DecisionDraw:
    """Every draw brought to the day `origin` under the treatment given before it."""
    return in_chunks(lambda part: _decided(problem, part, origin), values)


@eqx.filter_jit
def _decided(problem: Problem, values: dict[str, Array], origin: float) -> DecisionDraw:
    solve = problem.solve
    assert isinstance(solve, Solve)

    def one(draw: dict[str, Array]) -> DecisionDraw:
        model, fine = start_at_day_zero(problem.bind(draw)[0], solve.solver)
        density = model.initial.state(model.tissue).density
        if origin > 0.0:
            reached = simulate(model, solve.schedule, (origin,), solve.solver, estimate_error=False)
            density, fine = reached.states.density[-1], fine & reached.succeeded
        return DecisionDraw(draw, density, fine)

    return jax.lax.map(one, values)


def _with_past(problem: Problem, origin: float) -> Problem:
    solve = problem.solve
    assert isinstance(solve, Solve)
    return eqx.tree_at(lambda p: p.solve, problem, Solve(_past(solve.schedule, origin), solve.solver))


def _past(schedule: Schedule, origin: float) -> Schedule:
    """What was given before the day `origin` (times concrete)."""

    def before(course: Course) -> Course:
        early = np.asarray(course.times) < origin
        return Course(course.times[early], course.doses[early])

    return Schedule(
        before(schedule.radiotherapy),
        {name: before(course) for name, course in schedule.drugs.items()},
        [r for r in schedule.resections if r.time < origin],
    )


def check_horizon(parametrization: WeeklyFractions, start_window: tuple[float, float], horizon: float) -> float:
    """The day of the last fraction of the latest start.

    **Raises:** `ValueError` when the horizon is not more than a day after it.
    """
    latest = start_window[1] + float(parametrization.fraction_days[-1])
    if horizon <= latest + 1.0:
        raise ValueError(
            f"required: a horizon after the last fraction of the latest start (day {latest:g}); received: day "
            f"{horizon:g}"
        )
    return latest


def planning_problem(
    problem: Problem,
    posterior: Posterior,
    parametrization: WeeklyFractions,
    objective: AbstractObjective,
    risk: AbstractRisk,
    constraints: Sequence[AbstractConstraint],
    *,
    start_window: tuple[float, float],
    horizon: float,
    origin: float = 0.0,
    n_draws: int = 24,
    n_days: int = 5,
    key: Array,
) -> PlanningProblem:
    """The planning problem of a twin: `n_draws` equal-weight posterior draws, held fixed.

    They come from the first half of the posterior (`Posterior.halves`): the second is kept for the comparison. The
    effect of a treatment that the plan gives and that no datum spoke of is drawn from its prior (`prior_only`).

    **Arguments:** `origin` [day]: the day of the decision; every other day of the plan counts from it, what was given
    before it stays given, what was given after it is replaced by the plan; `start_window` [day] in which the first
    fraction may fall; `horizon` [day] of the objective, after the last fraction of the latest start; `n_days` days of
    the burden curve after treatment.

    **Raises:** `ValueError` when the horizon is not after the latest last fraction.
    """
    latest = check_horizon(parametrization, start_window, horizon)
    middle = 0.5 * (start_window[0] + start_window[1])
    reference = parametrization.schedule(parametrization.uniform(2.0, max(middle, 0.5)))
    return schedule_problem(
        problem,
        posterior.halves()[0],
        parametrization,
        objective,
        risk,
        constraints,
        reference=reference,
        days=np.linspace(latest + 1.0, horizon, n_days).tolist(),
        save_fractions=(*range(0, parametrization.n_fractions, parametrization.fractions_per_week), -1),
        origin=origin,
        n_draws=n_draws,
        key=key,
    )


def schedule_problem(
    problem: Problem,
    posterior: Posterior,
    parametrization: AbstractParametrization,
    objective: AbstractObjective,
    risk: AbstractRisk,
    constraints: Sequence[AbstractConstraint],
    *,
    reference: Schedule,
    days: Sequence[float],
    save_fractions: Sequence[int] = (),
    origin: float = 0.0,
    n_draws: int = 24,
    key: Array,
) -> PlanningProblem:
    """`planning_problem` of any decision that leads to a `Schedule`: radiotherapy and drugs, slot by slot.

    **Arguments:** `reference`: a schedule with as many fractions, in the same order; `days` of the burden curve [day
    after `origin`], the first after the last dose; `save_fractions`: fractions before which the burden is on the curve
    too; the others as there.
    """
    solve = problem.solve
    assert isinstance(solve, Solve)
    edges = MovingEdges.from_schedule(
        reference,
        days,
        max_step=solve.solver.max_step,
        max_diffusivity=solve.solver.max_diffusivity,
        save_fractions=save_fractions,
    )
    before = _with_past(problem, origin)
    draws = _drawn(problem, posterior, reference, n_draws, key=key)
    return PlanningProblem(
        PlannedBurden(before, edges, origin, tuple(days)),
        decided(before, draws, origin),
        parametrization,
        objective,
        risk,
        tuple(constraints),
    )


def _drawn(problem: Problem, posterior: Posterior, schedule: Schedule, n: int, *, key: Array) -> dict[str, Array]:
    found = completed(problem, posterior.resample(n, key=key), schedule, key=key)
    return {path: jnp.asarray(value) for path, value in found.items()}


def recommend_schedule(
    plan_problem: PlanningProblem,
    posterior: Posterior,
    controller: AbstractController | None,
    standard_of_care: PyTree,
    *,
    n_fresh: int = 64,
    objectives: Sequence[AbstractObjective] = (),
    aim: SecondAim | None = None,
    minimal_gains: Mapping[str, float] | None = None,
    level: float | None = None,
    on_step: Any = None,
    key: Array,
) -> Recommendation:
    """The recommended plan, for radiotherapy its equal-toxicity twin, and both against the standard of care.

    Both are judged on `n_fresh` other draws. `controller`: None for a suitable one; `aim`: of a front.

    The other draws come from the half of the posterior that `planning_problem` leaves alone. A posterior of a single
    draw has no other half. `level` of the CVaR gain that is reported: that of the risk which was minimized, 0.8 when it
    has none.
    """
    fresh_key, bootstrap_key = jax.random.split(key)
    burden = plan_problem.burden
    assert isinstance(burden, PlannedBurden)
    given = plan_problem.parametrization.schedule(standard_of_care)
    fresh = _drawn(burden.problem, posterior.halves()[1], given, n_fresh, key=fresh_key)
    return recommend(
        plan_problem,
        controller,
        standard_of_care,
        fresh_draws=decided(burden.problem, fresh, burden.origin),
        fresh_log_prior=np.asarray(burden.problem.prior.log_probability(fresh)),
        objectives=objectives,
        aim=aim,
        minimal_gains=minimal_gains,
        level=float(plan_problem.risk.describe().get("level", 0.8)) if level is None else level,
        key=bootstrap_key,
        on_step=on_step,
    )


def path_gap(plan_problem: PlanningProblem, variables: PyTree) -> float:
    """Relative difference of the final tumor mass between the fast and the moving-edge path, at the first draw."""
    burden = plan_problem.burden
    assert isinstance(burden, PlannedBurden)
    one = jax.tree.map(lambda leaf: leaf[:1], plan_problem.draws)
    moving = float(curves(plan_problem.with_draws(one), variables).burden[0, -1])
    fast = _fast_mass(burden, jax.tree.map(lambda leaf: leaf[0], one), plan_problem.parametrization.schedule(variables))
    return abs(float(fast) / moving - 1.0)


@eqx.filter_jit
def _fast_mass(burden: PlannedBurden, draw: DecisionDraw, schedule: Schedule) -> Array:
    """The final mass [mm^3] by the fast path."""
    solve, model = burden.problem.solve, burden.model(draw)
    assert isinstance(solve, Solve)
    fast = simulate(model, schedule, burden.days[-1:], solve.solver, estimate_error=False).states.density[-1]
    return jnp.sum(fast, dtype=jnp.float64) * model.tissue.grid.cell_volume
