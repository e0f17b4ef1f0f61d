"""The burden under a plan: gradients against finite differences, the day of the decision, the horizon."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin_case as case

from tumortwin.control import CVaR, MeanLogBurden, PlanVariables, StartWindow, WeeklyFractions
from tumortwin.solvers import simulate
from tumortwin.treatments import Course
from tumortwin.twin import planning_problem

WEEKS = WeeklyFractions(2, 2, concurrent={"temozolomide": Course(jnp.arange(5.0), jnp.ones(5))})
HORIZON = 60.0
PLAN = PlanVariables(jnp.asarray([2.2, 1.7]), jnp.asarray(12.3))


@pytest.fixture(scope="module")
def double():
    """The tiny patient's problem with fields of double precision, for finite differences."""
    return jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, case.problem())


def planned(problem, **changes):
    arguments = {"start_window": (7.0, 21.0), "horizon": HORIZON, "n_draws": 2, "n_days": 3} | changes
    return planning_problem(
        problem,
        case.prior_posterior(problem, 6),
        WEEKS,
        MeanLogBurden(jnp.zeros(()), jnp.asarray(HORIZON)),
        CVaR(0.5),
        [StartWindow(7.0, 21.0)],
        key=jax.random.key(0),
        **arguments,
    )


def test_gradient_of_the_risk_is_that_of_finite_differences(double):
    problem = planned(double)
    run = eqx.filter_jit(lambda p, v: p.risk_gradient(v))  # one program: the differences are those of its value
    gradient = run(problem, PLAN)[1]
    h = 1e-4
    for where, of in (
        (lambda v: v.start_day, gradient.start_day),
        (lambda v: v.weekly_fraction_dose[0], gradient.weekly_fraction_dose[0]),
        (lambda v: v.weekly_fraction_dose[1], gradient.weekly_fraction_dose[1]),
    ):
        slope = jax.grad(where)(PLAN)  # one in the direction of the variable, zero elsewhere
        up, down = (jax.tree.map(lambda v, d, s=s: v + s * h * d, PLAN, slope) for s in (1.0, -1.0))
        difference = float(run(problem, up)[0] - run(problem, down)[0]) / (2 * h)
        assert abs(difference) > 1e-4
        assert float(of) == pytest.approx(difference, rel=2e-4)


def test_a_plan_starts_from_the_tumor_of_the_day_of_decision(double):
    """At `origin` the curve begins with the mass that the treatment given before leads to."""
    origin = 30.0
    problem = planned(double, origin=origin)
    curve = eqx.filter_jit(lambda p: p.curves(PLAN))(problem)
    draw = {path: value[0] for path, value in problem.draws.items()}
    model = double.bind(draw)[0]
    run = eqx.filter_jit(lambda m: simulate(m, double.solve.schedule, (origin,), case.SOLVER, estimate_error=False))
    start = run(model).states.density[-1]
    assert float(curve.burden[0, 0]) == pytest.approx(float(start.sum()) * 64.0, rel=1e-10)
    assert np.isfinite(np.asarray(curve.burden)).all() and float(curve.days[0, -1]) == HORIZON


def test_a_horizon_within_treatment_is_refused(double):
    with pytest.raises(ValueError, match="horizon after the last fraction"):
        planned(double, horizon=25.0)
