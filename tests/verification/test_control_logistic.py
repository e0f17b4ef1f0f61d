"""Planning on the closed-form logistic + linear-quadratic model, where the answers are known.

dN/dt = rho N (1 - N/K) between fractions, N -> N exp(-alpha d (1 + d/r)) at a fraction.
"""

import dataclasses
import itertools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tumortwin.control import (
    Curve,
    CVaR,
    EffectiveDose,
    FractionDose,
    LogBurden,
    Mean,
    MeanLogBurden,
    PlanningProblem,
    PlanVariables,
    ProjectedGradient,
    Recommendation,
    StartWindow,
    TimeToProgression,
    TotalDose,
    WeeklyFractions,
    compare,
    losses,
    make_plan,
    optimize,
    recommend,
    risk_gradient,
)
from tumortwin.control._comparison import compare_judged, judge
from tumortwin.treatments import survival

WEEKS = WeeklyFractions()
SOC = WEEKS.uniform(2.0, 0.0)
END = 200.0
STARTS_NOW = StartWindow(0.0, 0.0)


def logistic(n, rho, capacity, days):
    return capacity / (1.0 + (capacity / n - 1.0) * jnp.exp(-rho * days))


def exponential(n, rho, capacity, days):
    del capacity
    return n * jnp.exp(rho * days)


def gompertz(n, rho, capacity, days):
    return capacity * jnp.exp(jnp.log(n / capacity) * jnp.exp(-rho * days))


def curve_of(draw, schedule, growth, kill, points=60):
    """Burden before and after every fraction, then regrowth to day END; all days move with the fractions."""
    course = schedule.radiotherapy

    def fraction(carry, event):
        day, n = carry
        before = growth(n, draw["rho"], draw["capacity"], event[0] - day)
        after = kill(before, event[1], draw)
        return (event[0], after), (jnp.stack([event[0]] * 2), jnp.stack([before, after]))

    first = (jnp.zeros(()), draw["initial"])
    (last, n), (days, burden) = jax.lax.scan(fraction, first, (course.times, course.doses))
    tail = last + (END - last) * jnp.linspace(0.0, 1.0, points)[1:]
    regrown = growth(n, draw["rho"], draw["capacity"], tail - last)
    return Curve(jnp.concatenate([days.ravel(), tail]), jnp.concatenate([burden.ravel(), regrown]))


def lq_kill(n, dose, draw):
    return n * survival(dose, draw["alpha"], 10.0)


def log_linear_kill(n, dose, draw):
    return n * jnp.exp(-draw["alpha"] * dose)


def burden(draw, schedule):
    return curve_of(draw, schedule, logistic, lq_kill)


def exponential_burden(draw, schedule):
    return curve_of(draw, schedule, exponential, lq_kill)


def draws(size, seed=0, initial=0.2):
    rng = np.random.default_rng(seed)

    def lognormal():
        return jnp.asarray(0.05 * np.exp(0.5 * rng.standard_normal(size)))

    return {
        "rho": lognormal(),
        "alpha": lognormal(),
        "capacity": jnp.ones(size),
        "initial": jnp.full(size, initial),
    }


REFERENCE = {k: jnp.asarray(v) for k, v in {"rho": 0.05, "alpha": 0.05, "capacity": 1.0, "initial": 0.2}.items()}
STANDARD_LIMITS = (TotalDose(60.0), FractionDose(3.0), STARTS_NOW)


def problem(objective, risk=None, constraints=STANDARD_LIMITS, model=burden, size=16, **kwargs):
    return PlanningProblem(
        model, draws(size), WEEKS, objective, risk or CVaR(0.8), constraints, sequential=False, **kwargs
    )


def after_last(doses):
    course = WEEKS.schedule(PlanVariables(doses, 0.0)).radiotherapy
    given = burden(REFERENCE, WEEKS.schedule(PlanVariables(doses, 0.0)))
    return course.times[-1], given.burden[2 * course.size - 1]


def time_to_progression(doses):
    day, n = after_last(doses)
    start = REFERENCE["initial"]
    return day + (jnp.log(start / (1.0 - start)) - jnp.log(n / (1.0 - n))) / REFERENCE["rho"]


def test_standard_of_care_reference_values():
    day, n = after_last(SOC.weekly_fraction_dose)
    assert float(day) == 39.0
    assert float(n) == pytest.approx(0.0324035, abs=5e-8)
    assert float(time_to_progression(SOC.weekly_fraction_dose)) == pytest.approx(79.2051, abs=5e-5)


def test_soft_time_to_progression_agrees_with_the_closed_form():
    curve = curve_of(REFERENCE, WEEKS.schedule(SOC), logistic, lq_kill, points=2000)
    found = -float(TimeToProgression(0.0, END, softness=1e-4)(curve))
    assert found == pytest.approx(79.2051, abs=2e-3)
    assert -float(TimeToProgression(0.0, 60.0, softness=1e-4)(curve)) == pytest.approx(60.0, abs=1e-2)


def test_gradient_of_time_to_progression_matches_central_differences():
    doses = jnp.asarray([2.0, 2.5, 1.5, 2.0, 1.0, 2.5])
    gradient = jax.jit(jax.grad(time_to_progression))(doses)
    value = jax.jit(time_to_progression)
    step = 1e-4
    for week in range(6):
        shift = step * jnp.eye(6)[week]
        difference = (value(doses + shift) - value(doses - shift)) / (2 * step)
        assert float(gradient[week]) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize("objective", [LogBurden(120.0), MeanLogBurden(0.0, END), TimeToProgression(0.0, END)])
def test_risk_gradient_matches_central_differences_in_doses_and_start(objective):
    case = problem(objective, constraints=())
    at = PlanVariables(jnp.asarray([2.0, 2.5, 1.5, 2.0, 1.0, 2.5]), jnp.asarray(3.3))
    value, gradient = risk_gradient(case, at)

    def risk(variables):
        return make_plan(case, variables, name="here").risk["value"]

    assert float(value) == pytest.approx(risk(at))
    step = 1e-4
    for week in (0, 5):
        shift = PlanVariables(step * jnp.eye(6)[week], 0.0)
        difference = (risk(jax.tree.map(jnp.add, at, shift)) - risk(jax.tree.map(jnp.subtract, at, shift))) / (2 * step)
        assert float(gradient.weekly_fraction_dose[week]) == pytest.approx(difference, rel=2e-5)
    later, earlier = (PlanVariables(at.weekly_fraction_dose, at.start_day + s) for s in (step, -step))
    difference = (risk(later) - risk(earlier)) / (2 * step)
    assert float(gradient.start_day) == pytest.approx(difference, rel=2e-4, abs=1e-9)


def test_draws_one_by_one_and_all_at_once_agree():
    together = problem(LogBurden(120.0), constraints=())
    one_by_one = PlanningProblem(burden, together.draws, WEEKS, together.objective, together.risk, (), sequential=True)
    at = PlanVariables(jnp.full(6, 1.7), jnp.asarray(1.0))
    ours, theirs = (risk_gradient(p, at) for p in (together, one_by_one))
    known = risk_gradient(one_by_one, at, losses(one_by_one, at)[0])
    for a, b, c in zip(*map(jax.tree.leaves, (ours, theirs, known)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(b, c)


def test_four_weeks_of_3_gray_gain_exactly_six_days_while_growth_is_exponential():
    hypofractionated = PlanVariables(jnp.asarray([3.0, 3.0, 3.0, 3.0, 0.0, 0.0]), 0.0)
    alone = jax.tree.map(lambda v: v[None], REFERENCE)
    objective = TimeToProgression(0.0, END, softness=1e-4)
    case = PlanningProblem(exponential_burden, alone, WEEKS, objective, Mean(), ())
    losses = eqx.filter_jit(case.losses)
    gain = losses(SOC) - losses(hypofractionated)
    assert float(gain[0]) == pytest.approx(6.0, abs=1e-3)


def tried_by_grid(case, step=0.5, top=3.0):
    """Lowest risk over every plan of the grid that keeps the limits, and the number of plans tried."""
    levels = np.arange(0.0, top + 1e-9, step)
    grid = np.asarray(list(itertools.product(levels, repeat=6)))
    feasible = case.feasible_set
    kept = np.asarray(jax.vmap(lambda d: feasible.contains(PlanVariables(d, 0.0)))(jnp.asarray(grid)))
    # More dose in any week is never worse, so only plans that use the whole budget are solved.
    totals = grid.sum(axis=1)
    grid = grid[kept & (totals >= totals[kept].max() - 1e-9)]

    @jax.jit
    def risks(doses):
        return jax.lax.map(lambda d: case.risk(case.losses(PlanVariables(d, 0.0))), doses, batch_size=128)

    values = risks(jnp.asarray(grid))
    best = int(np.argmin(values))
    return float(values[best]), grid[best], len(grid)


@pytest.mark.parametrize("objective", [LogBurden(120.0), TimeToProgression(0.0, END)])
def test_the_best_plan_of_an_exhaustive_grid_is_found(objective):
    case = problem(objective, constraints=(TotalDose(60.0), FractionDose(3.0, 1.0), STARTS_NOW))
    plan = optimize(case, ProjectedGradient(SOC))
    best, _, tried = tried_by_grid(case)
    standard = make_plan(case, SOC, name="soc").risk["value"]
    assert tried > 500
    assert plan.risk["value"] <= best + 0.01 * (standard - best)
    assert plan.convergence["gradient_evaluations"] <= 40


def test_at_equal_normal_tissue_effect_the_uniform_schedule_is_the_analytic_optimum():
    """Exponential growth, tumor alpha/beta 10, tissue 3: kill is 20 - (1/3 - 1/10) sum d^2, largest for equal doses."""
    constraints = (TotalDose(60.0), FractionDose(4.0), EffectiveDose(100.0), STARTS_NOW)
    case = problem(LogBurden(120.0), constraints=constraints, model=exponential_burden)
    plan = optimize(case, ProjectedGradient(WEEKS.uniform(1.0, 0.0), tolerance=1e-4))
    np.testing.assert_allclose(plan.weekly_fraction_dose, 2.0, atol=0.03)
    assert plan.convergence["converged"]


def test_skipper_no_schedule_beats_another_when_kill_is_log_linear_and_growth_exponential():
    def model(draw, schedule):
        return curve_of(draw, schedule, exponential, log_linear_kill)

    constraints = (TotalDose(60.0), FractionDose(3.0), StartWindow(0.0, 14.0))
    case = problem(LogBurden(120.0), constraints=constraints, model=model)
    plan = optimize(case, ProjectedGradient(SOC))
    standard = make_plan(case, SOC, name="soc")
    assert plan.risk["value"] == pytest.approx(standard.risk["value"], abs=1e-9)
    assert plan.toxicity["total_dose_gy"] == pytest.approx(60.0)


SAME_TOTAL = (
    (2.0,) * 6,
    (3.0, 3.0, 3.0, 3.0, 0.0, 0.0),
    (0.0, 0.0, 3.0, 3.0, 3.0, 3.0),
    (1.0, 3.0, 2.0, 1.5, 2.5, 2.0),
)


def losses_of(kill):
    """Log burden on day 60 under Gompertz growth for several schedules of one total dose."""
    case = problem(LogBurden(60.0), model=lambda draw, schedule: curve_of(draw, schedule, gompertz, kill))
    losses = eqx.filter_jit(case.losses)
    return np.asarray([losses(PlanVariables(jnp.asarray(doses), 0.0)) for doses in SAME_TOTAL])


def test_norton_simon_schedule_makes_no_difference_for_any_growth_law():
    """N' = f(N) (1 - L u): a dose turns the flow of f back by L d days."""

    def turned_back(n, dose, draw):
        return gompertz(n, draw["rho"], draw["capacity"], -4.0 * draw["alpha"] * dose)

    found = losses_of(turned_back)
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-9)


def test_log_kill_with_gompertz_growth_does_depend_on_the_schedule():
    found = losses_of(log_linear_kill)
    assert (np.abs(found[1:] - found[0]).max(axis=1) > 1e-2).all()


def test_an_early_start_is_chosen_when_burden_over_time_counts():
    constraints = (TotalDose(60.0), FractionDose(2.5), StartWindow(2.0, 16.0))
    case = problem(MeanLogBurden(0.0, END), constraints=constraints)
    plan = optimize(case, ProjectedGradient(WEEKS.uniform(2.0, 9.0)))
    assert plan.start_day == 2.0


def test_start_days_keep_the_weekday_and_doses_their_step():
    constraints = (TotalDose(60.0), FractionDose(3.0), EffectiveDose(100.0), StartWindow(1.0, 23.0))
    case = problem(LogBurden(120.0), constraints=constraints)
    plan = optimize(case, ProjectedGradient(WEEKS.uniform(2.0, 10.0), start_step=7.0, dose_step=0.05))
    assert plan.start_day in {3.0, 10.0, 17.0}  # whole weeks from the reference's start
    steps = np.asarray(plan.weekly_fraction_dose) / 0.05
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert bool(case.feasible_set.contains(plan.variables))


@pytest.mark.parametrize("seed", range(3))
def test_no_iterate_ever_violates_a_limit(seed):
    rng = np.random.default_rng(seed)
    low = float(rng.uniform(0.0, 1.2))
    constraints = (
        TotalDose(float(rng.uniform(40.0, 70.0))),
        FractionDose(float(rng.uniform(1.5, 4.0)), low),
        EffectiveDose(float(rng.uniform(70.0, 120.0))),
        StartWindow(0.0, float(rng.uniform(0.0, 20.0))),
    )
    case = problem(TimeToProgression(0.0, END), constraints=constraints)
    controller = ProjectedGradient(SOC)
    state = controller.init(case)
    while not controller.terminate(case, state):
        state = controller.step(case, state)
        for descent in state.descents:
            at = controller.variables(descent)
            assert max(float(c.violation(at, WEEKS)) for c in constraints) <= 1e-9
    plan = controller.postprocess(case, state, "plan")
    assert all(entry["violation"] <= 1e-9 for entry in plan.constraints)
    assert state.gradients <= 40


def test_a_plan_against_itself_gains_nothing():
    case = problem(MeanLogBurden(0.0, END))
    plan = make_plan(case, SOC, name="soc")
    found = compare(
        case,
        plan,
        plan,
        draws=draws(64, 1),
        objectives=(LogBurden(120.0),),
        minimal_gains={"log_burden": 0.1},
        key=jax.random.key(0),
    ).entries
    assert found["log_burden.expected_gain"].value == found["log_burden.expected_gain"].high == 0.0
    assert found["log_burden.probability_of_benefit"].value == 0.0
    assert found["log_burden.fraction_without_benefit"].value == 1.0
    assert all(found[name].value == 0.0 for name in found if name.startswith("toxicity."))


def test_comparison_is_paired_counts_failures_and_agrees_with_numpy():
    case = problem(MeanLogBurden(0.0, END))
    fresh = draws(65, 2)
    fresh["rho"] = fresh["rho"].at[7].set(jnp.nan)
    soc = make_plan(case, SOC, name="soc")
    other = make_plan(case, PlanVariables(jnp.asarray([3.0, 3.0, 3.0, 3.0, 0.0, 0.0]), 0.0), name="hypo")
    found = compare(
        case,
        other,
        soc,
        draws=fresh,
        objectives=(LogBurden(120.0),),
        minimal_gains={"log_burden": 0.2},
        key=jax.random.key(1),
    )
    assert found.failed_draws == 1 and found.gains["log_burden"].shape == (64,)
    kept = {k: jnp.delete(v, 7) for k, v in fresh.items()}

    @jax.jit
    def loss(variables):
        return jax.vmap(lambda draw: LogBurden(120.0)(burden(draw, WEEKS.schedule(variables))))(kept)

    theirs, ours = np.asarray(loss(SOC)), np.asarray(loss(other.variables))
    gain = theirs - ours
    entries = found.entries
    assert entries["log_burden.expected_gain"].value == pytest.approx(gain.mean())
    assert entries["log_burden.probability_of_benefit"].value == pytest.approx((gain > 0).mean())
    assert entries["log_burden.fraction_without_benefit"].value == pytest.approx((gain < 0.2).mean())
    tail = CVaR(0.8)
    assert entries["log_burden.cvar_gain"].value == pytest.approx(
        float(tail(jnp.asarray(theirs)) - tail(jnp.asarray(ours)))
    )
    half = 1.96 * gain.std() / np.sqrt(gain.size)
    estimate = entries["log_burden.expected_gain"]
    low, high = (float(end) for end in (estimate.low, estimate.high) if end is not None)
    assert high - low == pytest.approx(2 * half, rel=0.15)
    assert entries["toxicity.bed_3_gy_change"].value == pytest.approx(20.0)
    assert entries["toxicity.bed_3_gy_change"].low is None


def test_a_recommendation_shows_the_gain_at_equal_normal_tissue_effect_too():
    one_more = draws(17)
    one_more["rho"] = one_more["rho"].at[0].set(jnp.nan)
    case = problem(MeanLogBurden(0.0, END)).with_draws(one_more)
    found = recommend(
        case,
        ProjectedGradient(SOC),
        SOC,
        fresh_draws=draws(64, 3),
        minimal_gains={"mean_log_burden": 0.02},
        objectives=(LogBurden(120.0),),
        key=jax.random.key(2),
    )
    assert found.standard_of_care.toxicity["bed_3_gy"] == pytest.approx(100.0)
    assert found.plan.toxicity["bed_3_gy"] > 110.0
    assert found.equal_effect_plan is not None and found.equal_effect_comparison is not None
    assert found.equal_effect_plan.toxicity["bed_3_gy"] <= 100.0 + 1e-9
    gain = [c.entries["mean_log_burden.expected_gain"] for c in (found.comparison, found.equal_effect_comparison)]
    assert gain[0].value > gain[1].value > 0.0
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {"plan", "standard_of_care", "comparison", "constraints", "risk", "equal_effect"} <= set(stored)
    assert len(stored["plan"]["weekly_fraction_dose_gy"]) == 6
    assert set(stored["comparison"]["mean_log_burden.expected_gain"]) == {"value", "low", "high", "unit", "interval"}
    kinds = {name.split(".")[1]: entry["interval"] for name, entry in stored["comparison"].items()}
    assert kinds["expected_gain"] == kinds["worst_gain"] == "bootstrap" and kinds["gain_over_draws"] == "draws"
    assert kinds["probability_of_benefit"] == "Wilson" and kinds["bed_3_gy_change"] is None
    assert stored["failed_draws"] == {"planning": 1, "comparison": 0}
    assert "normal-tissue BED" in stored["statement"]


def test_a_recommendation_says_what_is_left_of_the_gain_under_other_priors():
    fresh = draws(64, 3)
    log_prior = norm.logpdf(np.log(np.asarray(fresh["rho"])), np.log(0.05), 0.5)
    case = problem(MeanLogBurden(0.0, END)).with_draws(draws(16))
    found = recommend(
        case,
        ProjectedGradient(SOC),
        SOC,
        fresh_draws=fresh,
        fresh_log_prior=log_prior,
        minimal_gains={"mean_log_burden": 0.05},
        key=jax.random.key(2),
    )
    gain = found.outcomes["standard_of_care"] - found.outcomes["recommended"]
    less, more = found.prior_sensitivity
    assert (less["power"], more["power"]) == (0.8, 1.25)
    for entry in (less, more):
        weights = np.exp((entry["power"] - 1.0) * log_prior)  # a tail this short is hardly smoothed
        weights /= weights.sum()
        assert entry["expected_gain"]["value"] == pytest.approx(float(weights @ gain), rel=0.02)
        assert entry["fraction_without_benefit"]["value"] == pytest.approx(float(weights @ (gain < 0.05)), abs=0.02)
        assert entry["reliable"] and 40.0 < entry["draws"] < 64.0
    assert less["expected_gain"]["value"] != pytest.approx(more["expected_gain"]["value"], rel=1e-3)
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [entry["power"] for entry in stored["prior_sensitivity"]] == [0.8, 1.25]


def test_a_fresh_draw_that_fails_is_left_out_of_every_plans_outcomes():
    fresh = draws(16, 3)
    fresh["rho"] = fresh["rho"].at[2].set(jnp.nan)
    case = problem(MeanLogBurden(0.0, END)).with_draws(draws(16))
    found = recommend(case, ProjectedGradient(SOC), SOC, fresh_draws=fresh, key=jax.random.key(2))
    assert found.comparison.failed_draws == 1
    assert {name: values.shape for name, values in found.outcomes.items()} == dict.fromkeys(found.outcomes, (15,))
    assert np.isfinite([*found.outcomes.values()]).all()


def test_a_gain_the_size_of_rounding_is_none_and_a_loss_is_said_to_be_one():
    case = problem(MeanLogBurden(0.0, END)).with_draws(draws(16))
    found = recommend(case, ProjectedGradient(SOC), SOC, fresh_draws=draws(16, 3), key=jax.random.key(2))
    assert "no gain" not in found.describe() and "worse" not in found.describe()
    standard = judge(case, found.standard_of_care)

    def beside(change: np.ndarray) -> Recommendation:
        """The recommendation, as if the plan's losses were the standard's and a change."""
        ours = dataclasses.replace(standard, losses=standard.losses + change)
        return dataclasses.replace(found, comparison=compare_judged(ours, standard, key=jax.random.key(0)))

    size = np.abs(standard.losses)
    for rounding in (-1e-13 * size, 1e-13 * size):
        entries = beside(rounding).comparison.entries
        assert entries["mean_log_burden.probability_of_benefit"].value == 0.0
        assert entries["mean_log_burden.fraction_without_benefit"].value == 0.0
    either = np.where(np.arange(16) % 2, 0.1, -0.1)[None]
    assert "no gain is shown" in beside(either).describe()
    assert "not recommended" in beside(np.full((1, 16), 0.1)).describe()
    assert beside(np.full((1, 16), -0.1)).comparison.entries["mean_log_burden.probability_of_benefit"].value == 1.0


def test_a_limit_for_another_tissue_holds_at_equal_normal_tissue_effect_too():
    """BED_2 <= 105 Gy is less than the 120 Gy of 30 x 2 Gy: it binds in both plans, beside BED_3 <= 100 Gy in one."""
    other = EffectiveDose(105.0, 2.0)
    case = problem(MeanLogBurden(0.0, END), constraints=(*STANDARD_LIMITS, other))
    found = recommend(case, ProjectedGradient(SOC), SOC, fresh_draws=draws(32, 3), key=jax.random.key(2))
    assert found.equal_effect_plan is not None
    for plan in (found.plan, found.equal_effect_plan):
        assert float(other.violation(plan.variables, WEEKS)) <= 1e-9
        assert plan.toxicity["total_dose_gy"] > 30.0
    assert found.equal_effect_plan.toxicity["bed_3_gy"] <= 100.0 + 1e-9
    limits = sorted((c["limit"], c["alpha_beta"]) for c in found.equal_effect_plan.constraints if "alpha_beta" in c)
    assert limits == [(pytest.approx(100.0), 3.0), (105.0, 2.0)]


def test_the_equal_effect_of_a_second_course_counts_the_first():
    """After 15 x 2 Gy a limit on all fractions leaves room for the standard of care, and no more than its effect."""
    again = WeeklyFractions(n_weeks=3, earlier=(2.0,) * 15)
    soc = again.uniform(2.0, 0.0)
    limits = (TotalDose(60.0), FractionDose(3.0), EffectiveDose(110.0), STARTS_NOW)
    case = PlanningProblem(burden, draws(8), again, MeanLogBurden(0.0, END), CVaR(0.8), limits, sequential=False)
    found = recommend(case, ProjectedGradient(soc), soc, fresh_draws=draws(8, 3), key=jax.random.key(2))
    assert found.standard_of_care.toxicity["bed_3_gy"] == pytest.approx(50.0)
    assert found.equal_effect_plan is not None
    assert found.equal_effect_plan.toxicity["bed_3_gy"] <= 50.0 + 1e-9
    assert found.plan.toxicity["bed_3_gy"] <= 60.0 + 1e-9 and found.plan.toxicity["total_dose_gy"] <= 30.0 + 1e-9
    assert found.to_json()["plan"]["earlier_dose_gy"] == 30.0
