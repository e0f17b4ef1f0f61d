"""Schedules for subjects of a table: the way from a reading to the day of the decision and on, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_twin_cohort import LAW, START, problem_of

from tumortwin.control import (
    CumulativeDose,
    CVaR,
    Exhaustive,
    HysteresisPolicy,
    LogBurden,
    MeanLogBurden,
    OnOff,
    SlotDoses,
    compare,
    plan,
    regular_slots,
)
from tumortwin.inference import Posterior
from tumortwin.models import Logistic, SensitiveResistant
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import Schedule, StepHistory
from tumortwin.twin import (
    Decision,
    TreatedSubject,
    common_plan,
    fresh_draws,
    recommend_for_subject,
    subject_draws,
    subject_problem,
)

VISITS, HORIZON = (0.0, 20.0, 40.0), 60.0
DAYS = (12.0, 25.0)  # of the decision, on each subject's clock
SLOTS = (regular_slots("drug", 0.0, 20.0, 3),)


def posterior(draws: int = 20) -> Posterior:
    """Every draw has a start of its own, so that a row is known by it."""
    rows = START[None, None, :] * np.exp(0.02 * np.arange(2 * draws)).reshape(2, draws, 1)
    return Posterior({"subject.start": rows, "residual.log_sd": np.full((2, draws), 0.2)}, None, {}, "")


def decision(parametrization=None, objective=None, limits=()) -> Decision:
    chosen = OnOff(SLOTS) if parametrization is None else parametrization
    wanted = MeanLogBurden(0.0, HORIZON) if objective is None else objective
    return Decision(chosen, wanted, CVaR(0.5), tuple(limits), HORIZON, VISITS, "ng/mL")


def parts(start: np.ndarray, days_on: float, days: float | np.ndarray) -> np.ndarray:
    """Sensitive and resistant cells in closed form."""
    return np.stack([start * 0.9 * np.exp(0.01 * days - 0.04 * days_on), start * 0.1 * np.exp(0.002 * days)])


@pytest.mark.parametrize("subject, on", [(0, 12.0), (1, 15.0)])
def test_a_subject_goes_on_from_the_state_that_its_own_treatment_led_to(subject, on):
    """The first was on the drug from day 0 to 20, the second from 10 to 30; then 20 days on, 20 off, 20 half."""
    problem = problem_of()
    drawn = {"subject.start": np.stack([START, 2.0 * START])}
    draws = subject_draws(problem, drawn, subject, DAYS[subject])
    before = parts(drawn["subject.start"][:, subject], on, DAYS[subject])
    np.testing.assert_allclose([draws.state.sensitive, draws.state.resistant], before, rtol=1e-12)
    np.testing.assert_allclose(draws.first, drawn["subject.start"][:, subject], rtol=1e-12)
    slots = SlotDoses(SLOTS)
    burden = TreatedSubject(problem.model, decision(slots).days, VISITS, "ng/mL")
    curve = jax.vmap(lambda d: burden(d, slots.schedule(jnp.asarray([1.0, 0.0, 0.5]))))(draws)
    days = np.asarray(curve.days[0])
    assert days.tolist() == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    given = np.asarray([0.0, 10.0, 20.0, 20.0, 20.0, 25.0, 30.0])  # full doses x days so far
    sensitive = before[0][:, None] * np.exp(0.01 * days - 0.04 * given)
    resistant = before[1][:, None] * np.exp(0.002 * days)
    np.testing.assert_allclose(curve.burden, sensitive + resistant, rtol=1e-12)
    np.testing.assert_allclose(curve.quantities["resistant"], resistant, rtol=1e-12)
    assert curve.quantities["exposure"][0].tolist() == [1.0, 1.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    assert curve.unit_of("burden") == "ng/mL"


def test_a_rule_sees_what_it_leads_to():
    """Stop below 60 % of the first reading, start again at 90 %: the loop of the definition, visit by visit."""
    problem = problem_of()
    draws = subject_draws(problem, {"subject.start": np.stack([START, 1.5 * START])}, 0, DAYS[0])
    burden = TreatedSubject(problem.model, decision().days, VISITS, "ng/mL")
    curve = jax.vmap(lambda d: burden(d, HysteresisPolicy(0.6, 0.9)))(draws)
    for k in range(2):
        cells, on, seen, levels = np.asarray([draws.state.sensitive[k], draws.state.resistant[k]]), 1.0, [], []
        for _ in VISITS:
            share = cells.sum() / float(draws.first[k])
            on = 1.0 if share >= 0.9 else 0.0 if share < 0.6 else on
            for _ in range(2):
                seen.append(cells.sum())
                levels.append(on)
                cells = cells * np.exp([10.0 * (0.01 - 0.04 * on), 10.0 * 0.002])
        np.testing.assert_allclose(curve.burden[k], [*seen, cells.sum()], rtol=1e-10)
        np.testing.assert_array_equal(curve.quantities["exposure"][k][:-1], levels)
    assert 0.0 < np.asarray(curve.quantities["exposure"]).mean() < 1.0  # it both stops and goes on


@pytest.mark.parametrize(
    "law",
    [
        LAW,
        SensitiveResistant(*map(jnp.asarray, (10.0, 1.0, 0.02, 0.01, 2.0, 100.0, 0.9))),
        Logistic(*map(jnp.asarray, (0.05, 80.0, 9.0))),
    ],
)
def test_a_solve_that_goes_on_from_a_state_is_the_whole_solve(law):
    level = StepHistory.courses(jnp.asarray([5.0]), jnp.asarray([22.0]))
    whole = simulate_compartment(law, jnp.asarray([15.0, 40.0]), level)
    state = jax.tree.map(lambda x: x[0], whole.states)
    rest = simulate_compartment(law, jnp.asarray([40.0]), level, t0=15.0, state=state)
    np.testing.assert_allclose(rest.burden[0], whole.burden[1], rtol=1e-7)
    assert bool(rest.succeeded)


@pytest.mark.slow
def test_plans_are_chosen_and_judged_on_different_draws_and_compared_with_the_one_in_common():
    problem, told = problem_of(), posterior()
    limits = (CumulativeDose("drug", 1.0),)
    wanted = decision(limits=limits, objective=LogBurden(HORIZON))
    keys = jax.random.split(jax.random.key(3), 4)
    problems = [subject_problem(problem, told, wanted, s, DAYS[s], n_draws=10, key=keys[0]) for s in range(2)]
    fresh = [fresh_draws(problem, told, s, DAYS[s], n_draws=10, key=keys[1]) for s in range(2)]
    for one, other in zip(problems, fresh, strict=True):
        assert not set(np.asarray(one.draws.first).tolist()) & set(np.asarray(other.draws.first).tolist())
    found = recommend_for_subject(problems[0], fresh[0], None, jnp.ones(3), key=keys[2])
    assert float(found.plan.variables.sum()) == 1.0 and found.equal_effect_plan is None
    entry = found.comparison.entries["log_burden.expected_gain"]
    assert entry.value < 0.0  # a third of the drug: the price, against all of it
    assert len(found.prior_sensitivity) == 2 and found.curves["recommended"].burden.shape == (10, 7)
    common = common_plan(problems, Exhaustive(), key=keys[3])
    assert float(common.variables.sum()) == 1.0 and common.risk["measure"] == "mean_over_groups"
    against = compare(problems[0], found.plan, common, draws=fresh[0].draws, key=keys[3])
    # The burden on a fixed day does not mind when a sensitive clone that does not compete is killed.
    assert against.entries["log_burden.expected_gain"].value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_a_plan_in_common_is_never_better_than_each_ones_own_on_the_draws_it_was_chosen_with():
    problem, told = problem_of(), posterior()
    wanted = decision(limits=(CumulativeDose("drug", 1.0),))
    problems = [subject_problem(problem, told, wanted, s, DAYS[s], n_draws=10, key=jax.random.key(0)) for s in range(2)]
    common = common_plan(problems, Exhaustive(), key=jax.random.key(1))
    own = [plan(p, controller=Exhaustive(), key=jax.random.key(1)) for p in problems]
    together = np.mean([float(p.risk(p.losses(common.variables))) for p in problems])
    assert together == pytest.approx(common.risk["value"], abs=1e-12)
    assert np.mean([p.risk["value"] for p in own]) <= together + 1e-12


def test_a_schedule_of_nothing_is_growth_alone():
    problem = problem_of()
    draws = subject_draws(problem, {"subject.start": START[None]}, 0, 0.0)
    slots = OnOff(SLOTS)
    burden = TreatedSubject(problem.model, decision().days, VISITS)
    curve = burden(jax.tree.map(lambda x: x[0], draws), slots.schedule(jnp.zeros(3)))
    assert isinstance(slots.schedule(jnp.zeros(3)), Schedule)
    np.testing.assert_allclose(curve.burden, parts(START[0], 0.0, np.asarray(curve.days)).sum(axis=0), rtol=1e-12)
