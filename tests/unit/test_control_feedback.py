"""Fronts, gaps, dynamic programming, policies and receding horizons, each against what is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control_case import CONTINUOUS, DAYS, SLOTS, draws, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tumortwin.control import (
    CumulativeDose,
    DoseLevels,
    Exhaustive,
    HysteresisPolicy,
    Known,
    LocalSearch,
    MarkovDecision,
    Mean,
    RecedingHorizon,
    SchedulePolicy,
    ScipyGradient,
    finite_horizon,
    grid_process,
    hypervolume,
    judged_vectors,
    make_plan,
    nondominated,
    optimize,
    pareto_front,
    receding_each,
    sample_average_gap,
    value_iteration,
)
from tumortwin.control._rounded import neighbours

LEVELS = DoseLevels(SLOTS, (0.0, 1.0, 2.0))
KEY = jax.random.key(0)

# --- fronts ---


def test_a_front_trades_dose_for_risk_and_knows_the_cheapest_equal():
    front = pareto_front(
        problem(CONTINUOUS), ScipyGradient(), [-1.0, 0.0, 2.0, 5.0, 10.0], lambda b: CumulativeDose("drug", b),
        lambda plan: plan.toxicity["drug_total"],
    )  # fmt: skip
    assert front.infeasible == (-1.0,)
    np.testing.assert_allclose(front.values[:, 1], [0.0, 2.0, 5.0, 10.0], atol=1e-6)
    assert (np.diff(front.values[:, 0]) < 0.0).all()
    middle = front.smallest(front.values[1, 0] + 1e-9)
    assert middle is not None and middle.epsilon == 2.0
    assert front.smallest(-np.inf) is None
    assert len(front.to_json()["points"]) == 4


def test_hypervolume_by_hand_and_by_counting():
    points = np.asarray([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert hypervolume(points, (4.0, 4.0)) == pytest.approx(6.0)
    assert hypervolume(points[:1], (4.0, 4.0)) == pytest.approx(3.0)
    assert hypervolume(np.asarray([[5.0, 0.0]]), (4.0, 4.0)) == 0.0
    rng = np.random.default_rng(0)
    cloud = rng.uniform(size=(12, 3))
    tried = rng.uniform(size=(200_000, 3))
    share = (cloud[:, None, :] <= tried[None]).all(axis=2).any(axis=0).mean()
    assert hypervolume(cloud, (1.0, 1.0, 1.0)) == pytest.approx(share, abs=4e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_dominated_points_add_no_volume(points):
    values = np.asarray(points, dtype=float)
    kept = values[nondominated(values)]
    assert hypervolume(kept, (5.0, 5.0)) == pytest.approx(hypervolume(values, (5.0, 5.0)))
    for a, b in itertools.permutations(kept, 2):
        assert not ((a <= b).all() and (a < b).any())


# --- the sample-average gap ---


def test_the_gap_of_a_bad_plan_is_found_and_that_of_a_good_one_is_small():
    case = problem(LEVELS, (CumulativeDose("drug", 4.0),), risk=Mean(), size=32)

    def sampler(key):
        return draws(32, int(jax.random.randint(key, (), 0, 10_000)))

    good = optimize(case, Exhaustive())
    bad = make_plan(case, jnp.asarray([2.0, 2.0, 0.0, 0.0, 0.0]), name="early")
    gaps = [sample_average_gap(case, p, Exhaustive(), sampler, replications=6, key=KEY) for p in (good, bad)]
    assert 0.0 <= gaps[0].estimate <= gaps[0].upper and gaps[0].lost == 0
    assert gaps[1].estimate > 10.0 * max(gaps[0].upper, 1e-6)
    fresh = problem(LEVELS, (CumulativeDose("drug", 4.0),), risk=Mean(), size=4096)
    truth = make_plan(fresh, bad.variables, name="b").risk["value"] - optimize(fresh, Exhaustive()).risk["value"]
    assert truth <= gaps[1].upper and gaps[1].estimate == pytest.approx(truth, rel=0.3)


# --- dynamic programming ---


def brute_force(process, steps, terminal, state):
    """The smallest expected cost over all decision trees, by recursion."""
    if steps == 0:
        return terminal[state]
    return min(
        process.cost[a, state]
        + sum(p * brute_force(process, steps - 1, terminal, s) for s, p in enumerate(process.probability[a, state]))
        for a in range(process.cost.shape[0])
    )


def test_backward_induction_is_the_best_of_all_trees():
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.ones(3), size=(2, 3))
    process = MarkovDecision.dense(transition, rng.uniform(size=(2, 3)))
    terminal = rng.uniform(size=3)
    found = finite_horizon(process, 4, terminal)
    assert found.action.shape == (4, 3) and found.value.shape == (5, 3)
    for state in range(3):
        assert found.value[0, state] == pytest.approx(brute_force(process, 4, terminal, state), abs=1e-12)


def test_value_iteration_solves_its_equation_and_is_the_long_horizon():
    rng = np.random.default_rng(4)
    process = MarkovDecision.dense(rng.dirichlet(np.ones(5), size=(3, 5)), rng.uniform(size=(3, 5)))
    found = value_iteration(process, discount=0.9, tolerance=1e-11)
    every = process.cost + 0.9 * np.asarray(process.expected(jnp.asarray(found.value)))
    np.testing.assert_allclose(found.value, every.min(axis=0), atol=1e-9)
    np.testing.assert_array_equal(found.action, every.argmin(axis=0))
    long = finite_horizon(process, 400, np.zeros(5), discount=0.9)
    np.testing.assert_allclose(long.value[0], found.value, atol=1e-8)
    with pytest.raises(ValueError, match="values that settle"):
        value_iteration(process, discount=1.0, max_sweeps=50)
    with pytest.raises(ValueError, match="rows sum to one"):
        MarkovDecision.dense(np.full((1, 2, 2), 0.7), np.zeros((1, 2)))


def test_a_grid_reproduces_scalar_linear_quadratic_control():
    """x' = .9 x + .5 u, cost x^2 + .3 u^2: the value is p x^2 with p from the discounted Riccati equation."""
    p = 1.0
    for _ in range(500):
        gain = 0.95 * 0.5 * p * 0.9 / (0.3 + 0.95 * 0.25 * p)
        p = 1.0 + 0.95 * 0.81 * p - 0.95 * 0.9 * 0.5 * p * gain
    process, states = grid_process(
        lambda x, u: 0.9 * x + 0.5 * u,
        lambda x, u: x[0] ** 2 + 0.3 * u**2,
        [np.linspace(-2.0, 2.0, 161)],
        np.linspace(-2.0, 2.0, 161),
    )
    found = value_iteration(process, discount=0.95, tolerance=1e-8)
    inner = np.abs(states[:, 0]) > 0.5
    np.testing.assert_allclose(found.value[inner], p * states[inner, 0] ** 2, rtol=0.02)
    np.testing.assert_allclose(process.probability.sum(axis=-1), 1.0, atol=1e-12)


def test_a_process_that_ends_needs_no_discount():
    process, states = grid_process(
        lambda x, a: x + a, lambda x, a: -jnp.ones(()), [np.arange(6.0)], np.asarray([1.0, 2.0]),
        ended=lambda x: x[0] >= 5.0,
    )  # fmt: skip
    found = value_iteration(process)
    np.testing.assert_allclose(found.value, [-5.0, -4.0, -3.0, -2.0, -1.0, 0.0])  # small steps live longest
    assert (found.action[:4] == 0).all() and states.shape == (6, 1)


# --- policies and receding horizons ---


def test_hysteresis_remembers_between_its_thresholds():
    rule = HysteresisPolicy(0.5, 1.0)
    memory, doses = rule.start(jnp.asarray(10.0)), []
    for seen in (10.0, 7.0, 4.9, 7.0, 9.9, 10.0, 7.0):
        memory, dose = rule.decide(memory, jnp.asarray(seen))
        doses.append(float(dose))
    assert doses == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    single = HysteresisPolicy(0.8, 0.8)
    memory = single.start(jnp.asarray(1.0))
    assert [float(single.decide(memory, jnp.asarray(v))[1]) for v in (0.79, 0.8, 0.9)] == [0.0, 1.0, 1.0]


BUDGET = (CumulativeDose("drug", 4.0),)


def mpc(reestimate):
    return RecedingHorizon(Exhaustive(), (0.0, 10.0, 20.0), DAYS, reestimate)


def test_with_nothing_learned_a_receding_horizon_is_the_open_loop():
    case = problem(LEVELS, BUDGET, risk=Mean())
    open_loop = optimize(case, Exhaustive())
    seen = []

    def nothing_new(visit, key):
        del key
        seen.append((visit.day, int(visit.held.sum())))
        return case.draws, None

    closed = optimize(case, mpc(nothing_new), key=KEY)
    np.testing.assert_array_equal(closed.variables, open_loop.variables)
    assert seen == [(0.0, 0), (10.0, 2), (20.0, 3)]
    assert closed.convergence["converged"] and len(closed.convergence["visits"]) == 3


def test_what_is_learned_at_a_visit_changes_the_rest_of_the_course_and_nothing_given():
    case = problem(LEVELS, BUDGET, risk=Mean())
    slow = jax.tree.map(lambda leaf: leaf[:1], case.draws) | {
        "rate": jnp.asarray([0.3]),
        "initial": jnp.asarray([9e4]),
        "kill": jnp.asarray([4.0]),
    }

    def truth_on_day_10(visit, key):
        del key
        return (case.draws if visit.index == 0 else slow), None

    closed = optimize(case, mpc(truth_on_day_10), key=KEY)
    before = optimize(case, Exhaustive())
    np.testing.assert_array_equal(closed.variables[:2], before.variables[:2])
    assert float(closed.variables.sum()) <= 4.0
    judged = case.with_draws(slow)
    outcome = [make_plan(judged, p.variables, name="p").risk["value"] for p in (closed, before)]
    assert outcome[0] <= outcome[1]


def test_visits_must_rise_and_come_before_the_doses():
    with pytest.raises(ValueError, match="rising visit days"):
        RecedingHorizon(Exhaustive(), (3.0, 10.0), DAYS, lambda visit, key: (draws(), None))


# --- many patients side by side ---


def every_course(vector, visit):
    del visit
    return jnp.asarray(list(itertools.product(range(3), repeat=len(DAYS))), vector.dtype)


def test_many_patients_at_once_are_one_after_another():
    """Three patients whose draws differ by visit: the course of each is that of `RecedingHorizon(Exhaustive())`."""
    case = problem(LEVELS, BUDGET, risk=Mean())
    by_visit = [[draws(8, 10 * patient + visit) for patient in range(3)] for visit in range(3)]

    def all_of_them(visit, key):
        del key
        assert visit.delivered.shape == (3, len(DAYS))
        return Known(jax.tree.map(lambda *leaves: jnp.stack(leaves), *by_visit[visit.index]))

    found = receding_each(
        case, every_course, all_of_them, visits=(0.0, 10.0, 20.0), component_days=DAYS, start=np.zeros((3, 5)), key=KEY
    )
    for patient in range(3):
        alone = optimize(case, mpc(lambda visit, key, p=patient: (by_visit[visit.index][p], None)), key=KEY)
        np.testing.assert_array_equal(found.course[patient], alone.variables)
        assert found.risk[2, patient] == pytest.approx(alone.convergence["visits"][2]["risk"])
    assert len({tuple(course) for course in found.course}) > 1
    assert found.course.sum(axis=1).max() <= 4.0


def test_who_needs_no_plan_keeps_the_one_before_and_nobody_ends_it():
    case = problem(LEVELS, BUDGET, risk=Mean())
    pair = jax.tree.map(lambda leaf: leaf[None], case.draws)

    def one_then_none(visit, key):
        del key
        return Known(pair, rows=np.asarray([1])) if visit.index == 0 else None

    found = receding_each(
        case, every_course, one_then_none, visits=(0.0, 10.0), component_days=DAYS, start=np.zeros((2, 5)), key=KEY
    )
    assert (found.course[0] == 0.0).all() and found.course[1].sum() > 0.0
    assert np.isnan(found.risk[:, 0]).all() and np.isfinite(found.risk[0, 1])
    with pytest.raises(ValueError, match="keep the limits"):
        receding_each(
            case, every_course, one_then_none, visits=(0.0,), component_days=DAYS, start=np.full((2, 5), 2.0), key=KEY
        )


def test_local_search_ends_where_no_neighbour_is_better():
    case = problem(LEVELS, BUDGET, risk=Mean())
    oracle = optimize(case, Exhaustive())
    found = optimize(case, LocalSearch(jnp.zeros((1, 5)), reach=4))
    assert found.convergence["converged"]
    assert found.risk["value"] <= found.convergence["risk_of_best_start"]
    near = neighbours(case.region, np.asarray(found.variables), 4)
    assert judged_vectors(case, near)[0].min() >= found.risk["value"]
    assert found.risk["value"] >= oracle.risk["value"] - 1e-12
    assert (np.abs(neighbours(case.region, np.asarray([0.0, 1.0, 0.0, 1.0, 0.0]), 1)).sum(axis=1) <= 3.0).all()
    with pytest.raises(ValueError, match="a start that keeps the limits"):
        optimize(case, LocalSearch(jnp.full((1, 5), 2.0)))


def test_a_schedule_as_a_policy_gives_what_it_says():
    policy = SchedulePolicy(jnp.asarray([1.0, 0.0, 1.0]))
    memory, doses = policy.start(jnp.asarray(3.0)), []
    for seen in (3.0, 9.0, 0.1, 5.0):
        memory, dose = policy.decide(memory, jnp.asarray(seen))
        doses.append(float(dose))
    assert doses == [1.0, 0.0, 1.0, 1.0]
