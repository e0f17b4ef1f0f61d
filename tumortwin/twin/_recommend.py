"""From a posterior to a schedule: the tumor's burden under a plan, for every draw, by the moving-edge path."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin.control import (
    AbstractConstraint,
    AbstractController,
    AbstractObjective,
    AbstractRisk,
    Curve,
    PlanningProblem,
    PlanVariables,
    Recommendation,
    WeeklyFractions,
    recommend,
)
from tumortwin.inference import Posterior, Problem
from tumortwin.models import GivenDensity, ReactionDiffusion
from tumortwin.solvers import MovingEdges, simulate, simulate_moving
from tumortwin.treatments import Course, Schedule
from tumortwin.twin._build import Solve, start_at_day_zero
from tumortwin.twin._unlearned import completed


class PlannedBurden(eqx.Module):
    """`(draw, schedule) -> Curve` of the tumor's mass [mm^3], all days counted from the day `origin`.

    On that day, at the fractions that the edges save (just before them) and on the fixed days after treatment; NaN
    where the solve failed.

    The fraction times are traced step edges and days of the curve, so a plan's start day has an exact gradient also in
    objectives that integrate over treatment.
    """

    problem: Problem
    edges: MovingEdges
    origin: float = eqx.field(static=True)
    days: tuple[float, ...] = eqx.field(static=True)  # the fixed ones

    def __call__(self, draw: Mapping[str, Array], schedule: Schedule) -> Curve:
        solve = self.problem.solve
        assert isinstance(solve, Solve)
        model, _ = self.problem.bind(draw)
        model, fine = self.from_origin(model)
        start = model.initial.state(model.tissue).density
        trajectory = simulate_moving(model, schedule, self.edges)
        cell = model.tissue.grid.cell_volume
        later = jnp.sum(trajectory.states.density, axis=(1, 2, 3), dtype=jnp.float64) * cell
        burden = jnp.concatenate([jnp.sum(start, dtype=jnp.float64)[None] * cell, later])
        usable = trajectory.succeeded & fine
        days = jnp.concatenate([jnp.zeros(1), trajectory.ts])
        return Curve(days, jnp.where(usable, burden, jnp.nan))

    def from_origin(self, model: ReactionDiffusion) -> tuple[ReactionDiffusion, Array]:
        """The model with the density on the day `origin` as initial condition, and whether it was reached."""
        solve = self.problem.solve
        assert isinstance(solve, Solve)
        model, fine = start_at_day_zero(model, solve.solver)
        if self.origin == 0.0:
            return model, fine
        reached = simulate(model, solve.schedule, (self.origin,), solve.solver, estimate_error=False)
        start = GivenDensity(reached.states.density[-1])
        return eqx.tree_at(lambda m: m.initial, model, start), fine & reached.succeeded


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
    solve = problem.solve
    assert isinstance(solve, Solve)
    days = np.linspace(latest + 1.0, horizon, n_days)
    middle = 0.5 * (start_window[0] + start_window[1])
    reference = parametrization.schedule(parametrization.uniform(2.0, max(middle, 0.5)))
    edges = MovingEdges.from_schedule(
        reference,
        days.tolist(),
        max_step=solve.solver.max_step,
        max_diffusivity=solve.solver.max_diffusivity,
        save_fractions=[*range(0, parametrization.n_fractions, parametrization.fractions_per_week), -1],
    )
    draws = _drawn(problem, posterior.halves()[0], reference, n_draws, key=key)
    return PlanningProblem(
        PlannedBurden(_with_past(problem, origin), edges, origin, tuple(days.tolist())),
        draws,
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
    controller: AbstractController,
    standard_of_care: PlanVariables,
    *,
    n_fresh: int = 64,
    objectives: Sequence[AbstractObjective] = (),
    minimal_gains: Mapping[str, float] | None = None,
    level: float | None = None,
    on_step: Any = None,
    key: Array,
) -> tuple[Recommendation, dict[str, np.ndarray]]:
    """The recommended plan, its equal-toxicity twin, and both against the standard of care on `n_fresh` other draws.

    The other draws come from the half of the posterior that `planning_problem` leaves alone. A posterior of a single
    draw has no other half. `level` of the CVaR gain that is reported: that of the risk which was minimized, 0.8 when it
    has none.

    Beside the recommendation: the objective of every fresh draw, by plan (`recommended`, `equal_effect`,
    `standard_of_care`), paired.
    """
    fresh_key, bootstrap_key = jax.random.split(key)
    burden = plan_problem.burden
    assert isinstance(burden, PlannedBurden)
    given = plan_problem.parametrization.schedule(standard_of_care)
    fresh = _drawn(burden.problem, posterior.halves()[1], given, n_fresh, key=fresh_key)
    found = recommend(
        plan_problem,
        controller,
        standard_of_care,
        fresh_draws=fresh,
        objectives=objectives,
        minimal_gains=minimal_gains,
        level=float(plan_problem.risk.describe().get("level", 0.8)) if level is None else level,
        key=bootstrap_key,
        on_step=on_step,
    )
    judged = plan_problem.with_draws(fresh)
    plans = {
        "recommended": found.plan,
        "equal_effect": found.equal_effect_plan,
        "standard_of_care": found.standard_of_care,
    }
    return found, {name: np.asarray(_losses(judged, plan.variables)) for name, plan in plans.items()}


@eqx.filter_jit
def _losses(plan_problem: PlanningProblem, variables: PlanVariables) -> Array:
    return plan_problem.losses(variables)


def path_gap(plan_problem: PlanningProblem, variables: PlanVariables) -> float:
    """Relative difference of the final tumor mass between the fast and the moving-edge path, at the first draw."""
    fast, moving = _two_masses(plan_problem, variables)
    return abs(float(fast) / float(moving) - 1.0)


@eqx.filter_jit
def _two_masses(plan_problem: PlanningProblem, variables: PlanVariables) -> tuple[Array, Array]:
    """The final mass [mm^3] of the first draw by the fast path and by the moving-edge path."""
    burden = plan_problem.burden
    assert isinstance(burden, PlannedBurden)
    solve = burden.problem.solve
    assert isinstance(solve, Solve)
    draw = {path: value[0] for path, value in plan_problem.draws.items()}
    schedule = plan_problem.parametrization.schedule(variables)
    model, _ = burden.from_origin(burden.problem.bind(draw)[0])
    fast = simulate(model, schedule, burden.days, solve.solver, estimate_error=False).states.density[-1]
    fast_mass = jnp.sum(fast, dtype=jnp.float64) * model.tissue.grid.cell_volume
    return fast_mass, burden(draw, schedule).burden[-1]
