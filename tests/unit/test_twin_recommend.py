"""The burden under a plan: gradients against finite differences, the day of the decision, the horizon."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin_case as case

from tumortwin.control import (
    Comparison,
    CVaR,
    EffectiveDose,
    FractionDose,
    MeanLogBurden,
    PlanVariables,
    ProjectedGradient,
    Recommendation,
    SecondAim,
    StartWindow,
    WeeklyFractions,
    curves,
    make_plan,
    risk_gradient,
    sample_risk,
)
from tumortwin.inference import Posterior
from tumortwin.solvers import simulate
from tumortwin.treatments import Course, Schedule
from tumortwin.twin import forecast, planning_problem, prior_only, recommend_schedule

WEEKS = WeeklyFractions(2, 2, concurrent={"temozolomide": Course(jnp.arange(5.0), jnp.ones(5))})
HORIZON = 60.0
PLAN = PlanVariables(jnp.asarray([2.2, 1.7]), jnp.asarray(12.3))


@pytest.fixture(scope="module")
def double():
    """The tiny patient's problem with fields of double precision, for finite differences."""
    return jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, case.problem())


DRAWS = 40


def from_prior(of, shape):
    """Prior draws [chain draw], the first of `DRAWS`: one program draws them whatever the shape."""
    draws = of.prior.sample((DRAWS,), key=jax.random.key(0))
    return {path: np.asarray(v)[: math.prod(shape)].reshape(*shape, *v.shape[1:]) for path, v in draws.items()}


def some(of):
    """Six prior draws in the place of a posterior."""
    return Posterior(from_prior(of, (1, 6)), None, {}, "prior")


def planned(problem, **changes):
    arguments = {"start_window": (7.0, 21.0), "horizon": HORIZON, "n_draws": 2, "n_days": 3} | changes
    return planning_problem(
        problem,
        some(problem),
        WEEKS,
        MeanLogBurden(jnp.zeros(()), jnp.asarray(HORIZON)),
        CVaR(0.5),
        [StartWindow(7.0, 21.0), FractionDose(3.0)],
        key=jax.random.key(0),
        **arguments,
    )


def test_gradient_of_the_risk_is_that_of_finite_differences(double):
    problem = planned(double)
    gradient = risk_gradient(problem, PLAN)[1]
    h = 1e-4
    for where, of in (
        (lambda v: v.start_day, gradient.start_day),
        (lambda v: v.weekly_fraction_dose[0], gradient.weekly_fraction_dose[0]),
        (lambda v: v.weekly_fraction_dose[1], gradient.weekly_fraction_dose[1]),
    ):
        slope = jax.grad(where)(PLAN)  # one in the direction of the variable, zero elsewhere
        up, down = (jax.tree.map(lambda v, d, s=s: v + s * h * d, PLAN, slope) for s in (1.0, -1.0))
        difference = (sample_risk(problem, up) - sample_risk(problem, down)) / (2 * h)
        assert abs(difference) > 1e-4
        assert float(of) == pytest.approx(difference, rel=2e-4)


def test_a_plan_starts_from_the_tumor_of_the_day_of_decision(double):
    """At `origin` the curve begins with the mass that the treatment given before leads to."""
    origin = 30.0
    problem = planned(double, origin=origin)
    curve = curves(problem, PLAN)
    draw = {path: value[0] for path, value in problem.draws.values.items()}
    model = double.bind(draw)[0]
    run = eqx.filter_jit(lambda m: simulate(m, double.solve.schedule, (origin,), case.SOLVER, estimate_error=False))
    start = run(model).states.density[-1]
    assert float(curve.burden[0, 0]) == pytest.approx(float(start.sum()) * 64.0, rel=1e-10)
    assert np.isfinite(np.asarray(curve.burden)).all() and float(curve.days[0, -1]) == HORIZON


def test_a_horizon_within_treatment_is_refused(double):
    with pytest.raises(ValueError, match="horizon after the last fraction"):
        planned(double, horizon=25.0)


# --- treatment that was never given: its effect is known from the prior alone ---

UNTREATED = ("mechanisms.radiotherapy.alpha", "mechanisms.chemotherapy.sensitivity")


@pytest.fixture(scope="module")
def untreated():
    """The tiny patient before any treatment."""
    return case.problem(case.patient(schedule=Schedule()))


@pytest.mark.slow
def test_a_plan_for_an_untreated_patient_draws_radiosensitivity_from_the_prior(untreated):
    problem = planned(untreated, n_draws=200)
    assert not set(UNTREATED) & set(untreated.prior.paths)
    assert set(prior_only(untreated, WEEKS.schedule(PLAN))) == set(UNTREATED) and not prior_only(untreated, Schedule())
    for path in UNTREATED:
        found = np.log(np.asarray(problem.draws.values[path]))
        median, log_sd = {UNTREATED[0]: (0.04, 0.5), UNTREATED[1]: (0.2, 0.3)}[path]
        assert np.exp(np.median(found)) == pytest.approx(median, rel=0.15)
        assert np.std(found) == pytest.approx(log_sd, rel=0.15)
        growth = np.log(np.asarray(problem.draws.values["mechanisms.proliferation.rate"]))
        assert abs(np.corrcoef(found, growth)[0, 1]) < 0.25  # independent of what was learned


@pytest.mark.slow
def test_a_forecast_under_a_plan_draws_it_too_and_one_without_treatment_does_not(untreated):
    posterior = some(untreated)

    def looked_ahead(schedule):
        key = jax.random.key(0)
        return forecast(untreated, posterior, (0.0, 30.0), schedule=schedule, n_draws=3, chunk=3, key=key)

    with_plan, without = looked_ahead(WEEKS.schedule(PLAN)), looked_ahead(None)
    assert np.unique(with_plan.draws[UNTREATED[0]]).size == 3
    assert not set(UNTREATED) & set(without.draws)


# --- fresh draws ---


@pytest.mark.parametrize("chains, draws", [(1, 40), (4, 10), (3, 7)])
def test_a_plan_is_judged_on_draws_that_it_was_not_chosen_with(monkeypatch, untreated, chains, draws):
    """Uneven weights, as importance sampling leaves them: a heavy row would come up in any two resamples."""
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=(chains, draws)) ** 3
    growth = 0.02 + 0.001 * np.arange(chains * draws).reshape(chains, draws)  # names the row
    found = from_prior(untreated, (chains, draws)) | {"mechanisms.proliferation.rate": growth}
    posterior = Posterior(found, np.log(weights / weights.sum()), {}, "")
    arguments = (WEEKS, MeanLogBurden(0.0, HORIZON), CVaR(0.5), [StartWindow(7.0, 21.0), FractionDose(3.0)])
    problem = planning_problem(
        untreated, posterior, *arguments, start_window=(7.0, 21.0), horizon=HORIZON, n_draws=50, key=jax.random.key(1)
    )
    seen = {}

    def recommended(*_, fresh_draws, level, **__):
        seen.update(fresh_draws.values)
        assert level == 0.5  # that of the risk
        plan = make_plan(problem, PLAN, name="any", value=0.0)
        nothing = Comparison("any", "any", {}, {}, {}, 0.8, 0)
        return Recommendation(plan, plan, plan, nothing, nothing)

    monkeypatch.setattr("tumortwin.twin._recommend.recommend", recommended)
    recommend_schedule(problem, posterior, ProjectedGradient(PLAN), PLAN, n_fresh=50, key=jax.random.key(2))
    planning, fresh = (
        set(np.asarray(d["mechanisms.proliferation.rate"]).tolist()) for d in (problem.draws.values, seen)
    )
    assert len(planning) > 3 and len(fresh) > 3 and not planning & fresh
    assert np.unique(np.asarray(seen[UNTREATED[0]])).size == 50


@pytest.mark.slow
def test_a_front_of_weekly_fractions_buys_effect_with_normal_tissue():
    """The tiny patient: less BED, more tumor; each limit is used up, and the plan at equal BED is a point too."""
    problem = case.problem()
    posterior, limits = some(problem), [StartWindow(7.0, 7.0), FractionDose(3.0), EffectiveDose(25.0)]
    planning = planning_problem(
        problem, posterior, WEEKS, MeanLogBurden(0.0, HORIZON), CVaR(0.5), limits,
        start_window=(7.0, 7.0), horizon=HORIZON, n_draws=3, n_days=3, key=jax.random.key(0),
    )  # fmt: skip
    standard = WEEKS.uniform(2.0, 7.0)
    found = recommend_schedule(
        planning, posterior, ProjectedGradient(standard, max_gradients=6), standard, n_fresh=3,
        aim=SecondAim(EffectiveDose, (0.25, 0.6), "normal-tissue BED", "Gy"), key=jax.random.key(2),
    )  # fmt: skip
    assert found.trade_off is not None and found.equal_effect_plan is not None
    front = found.trade_off.front
    risks, prices = front.values.T
    most = found.plan.toxicity["bed_3_gy"]
    assert most == pytest.approx(float(EffectiveDose(0.0).violation(found.plan.variables, WEEKS)))
    np.testing.assert_allclose(prices[[0, 1, -1]], [0.25 * most, prices[1], most], rtol=0.02)
    assert (np.diff(risks) < 0.0).all() and (np.diff(found.trade_off.fresh) < 0.0).all() and not front.infeasible
    assert any(point.plan is found.equal_effect_plan for point in (*front.points, *front.dominated))
    assert found.trade_off.hypervolume > 0.0 and "Front against normal-tissue BED" in found.describe()


def test_a_single_draw_has_no_other_half():
    one = Posterior({"rate": np.ones((1, 1))}, None, {}, "")
    assert one.halves() == (one, one)
    first, second = Posterior({"rate": np.arange(5.0)[None]}, None, {}, "").halves()
    assert sorted([*first.draws["rate"].ravel(), *second.draws["rate"].ravel()]) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert first.weights.sum() == pytest.approx(1.0) and second.weights.sum() == pytest.approx(1.0)
