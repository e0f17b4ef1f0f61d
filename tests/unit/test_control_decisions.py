"""Decision vectors become treatment, limits become rows, and what cannot be is named with the closest that can."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tumortwin.control import (
    CumulativeDose,
    DoseLevels,
    EffectiveDose,
    FeasibleSet,
    FractionDose,
    Infeasible,
    LockOut,
    MinimumInterval,
    Nearest,
    OnOff,
    PlanVariables,
    Region,
    ShiftedCycles,
    SlotDoses,
    Slots,
    StartWindow,
    TotalDose,
    Weekdays,
    WeeklyFractions,
    check_feasible,
    cycles_after,
    regular_slots,
    weekday_slots,
)
from tumortwin.treatments import Course, Schedule

WEEKS = WeeklyFractions()
FIVE = Slots("drug", (0.0, 7.0, 14.0, 21.0, 28.0))
TWO_AGENTS = SlotDoses((Slots("radiotherapy", (0.0, 1.0, 2.0), "Gy"), Slots("drug", (0.0, 7.0))), high=(3.0, 1.0))
LEVELS = DoseLevels((FIVE,), (0.0, 0.5, 1.0))
EVERY = (
    WEEKS,
    TWO_AGENTS,
    OnOff((FIVE,), dose=2.0),
    LEVELS,
    ShiftedCycles("drug", 4, start=(0.0, 7.0), interval=(14.0, 28.0)),
)


@pytest.mark.parametrize("parametrization", EVERY, ids=lambda p: type(p).__name__)
def test_vector_and_variables_are_inverse_and_a_gradient_packs(parametrization):
    space = parametrization.space
    vector = jnp.asarray(np.clip(np.linspace(0.2, 1.8, space.size), space.lower, space.upper))
    variables = parametrization.variables(vector)
    np.testing.assert_array_equal(parametrization.vector(variables), vector)
    assert len(space.names) == len(set(space.names)) == space.size

    def total(u):
        courses = parametrization.courses(parametrization.variables(u))
        return sum(jnp.sum(c.doses**2 * (1.0 + c.times)) for c in courses.values())

    packed = parametrization.vector(
        jax.grad(lambda v: sum(jnp.sum(c.doses**2 * (1.0 + c.times)) for c in parametrization.courses(v).values()))(
            variables
        )
    )
    np.testing.assert_allclose(packed, jax.grad(total)(vector), rtol=1e-12)


def test_slots_of_several_agents_become_one_schedule():
    before = Schedule(drugs={"drug": Course(jnp.asarray([-3.0]), jnp.ones(1))})
    both = SlotDoses(TWO_AGENTS.slots, high=(3.0, 1.0), fixed=before)
    schedule = both.schedule(jnp.asarray([1.0, 2.0, 3.0, 0.25, 0.5]))
    np.testing.assert_array_equal(schedule.radiotherapy.doses, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(schedule.drugs["drug"].times, [-3.0, 0.0, 7.0])
    np.testing.assert_array_equal(schedule.drugs["drug"].doses, [1.0, 0.25, 0.5])
    assert both.space.names[3] == "drug[0]" and both.space.units == ("Gy",) * 3 + ("1",) * 2
    np.testing.assert_array_equal(both.space.upper, [3.0, 3.0, 3.0, 1.0, 1.0])
    cost = both.cost(jnp.asarray([2.0, 2.0, 0.0, 0.25, 0.5]))
    assert cost["total_dose_gy"] == 4.0 and cost["drug_total"] == 0.75 and cost["radiotherapy_doses"] == 2.0


def test_levels_on_off_and_cycles():
    index = jnp.asarray([0.0, 1.0, 2.0, 1.5, 0.0])
    np.testing.assert_allclose(LEVELS.courses(index)["drug"].doses, [0.0, 0.5, 1.0, 0.75, 0.0])
    assert LEVELS.affine_doses and not DoseLevels((FIVE,), (0.0, 0.75, 1.0)).affine_doses
    np.testing.assert_array_equal(OnOff((FIVE,), dose=2.0).courses(jnp.ones(5))["drug"].doses, np.full(5, 2.0))
    course = ShiftedCycles("tmz", 2, start=(1.0, 9.0), interval=(21.0, 28.0), offsets=(0.0, 1.0, 2.0))
    np.testing.assert_array_equal(course.courses(jnp.asarray([3.0, 28.0]))["tmz"].times, [3, 4, 5, 31, 32, 33])
    slope = jax.jacobian(lambda u: course.courses(u)["tmz"].times)(jnp.asarray([3.0, 28.0]))
    np.testing.assert_array_equal(slope, [[1, 0]] * 3 + [[1, 1]] * 3)
    with pytest.raises(ValueError, match="longer than the last offset"):
        ShiftedCycles("tmz", 2, interval=(2.0, 28.0), offsets=(0.0, 4.0))


# --- rows and calendar facts ---


def test_a_slot_may_stand_for_a_week_of_fractions():
    weeks = regular_slots("radiotherapy", 7.0, 7.0, 2, "Gy", (0.0, 1.0, 4.0))
    levels = DoseLevels((weeks, regular_slots("drug", 7.0, 7.0, 2)), ((0.0, 1.0, 2.0), (0.0, 1.0)))
    chosen = jnp.asarray([2.0, 1.0, 0.0, 1.0])
    course = levels.courses(chosen)["radiotherapy"]
    np.testing.assert_array_equal(course.times, [7.0, 8.0, 11.0, 14.0, 15.0, 18.0])
    np.testing.assert_array_equal(course.doses, [2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    assert levels.space.names == ("radiotherapy[7]", "radiotherapy[14]", "drug[7]", "drug[14]") and weeks.size == 2
    assert float(TotalDose(8.0).violation(chosen, levels)) == pytest.approx(1.0)
    np.testing.assert_array_equal(levels.of_doses((1.5, 1.0)), [1.0, 1.0, 1.0, 1.0])  # the nearest level below
    np.testing.assert_array_equal(OnOff((FIVE,), dose=2.0).of_doses((2.0, 1.9, 0.0, 2.5, 2.0)), [1, 0, 0, 1, 1])
    np.testing.assert_array_equal(SlotDoses((FIVE,)).of_doses(0.3), np.full(5, 0.3))
    np.testing.assert_array_equal(weekday_slots("radiotherapy", 0.0, 7).days, [0, 1, 2, 3, 4, 7, 8])
    for days, offsets in (((0.0, 7.0), (0.0, 7.0)), ((0.0, 7.0), (1.0, 0.0)), ((0.0, 7.0), ())):
        with pytest.raises(ValueError, match="blocks that end before the next"):
            Slots("drug", days, offsets=offsets)
    with pytest.raises(ValueError, match="an interval above 0"):
        regular_slots("drug", 0.0, 0.0, 3)


def test_fractions_given_before_count_in_the_limits_of_slots():
    slots = SlotDoses((weekday_slots("radiotherapy", 1.0, 5),), high=3.0, earlier=(2.0, 2.0))
    doses = jnp.full(5, 2.0)
    assert float(TotalDose(14.0).violation(doses, slots)) == pytest.approx(0.0)
    effect = 7 * 2.0 * (1.0 + 2.0 / 3.0)
    assert float(EffectiveDose(effect).violation(doses, slots)) == pytest.approx(0.0)
    assert slots.describe(doses)["earlier_dose_gy"] == 4.0


def test_cycles_after_concurrent_treatment_wait():
    cycles = cycles_after("drug", 7.0, (47.0, 75.0), cycles=2, dose=2.0, interval=(21.0, 28.0), offsets=(0.0, 4.0))
    np.testing.assert_array_equal(cycles.space.lower, [54.0, 21.0])
    np.testing.assert_array_equal(cycles.space.upper, [82.0, 28.0])
    course = cycles.courses(jnp.asarray([54.0, 28.0]))["drug"]
    np.testing.assert_array_equal(course.times, [54.0, 58.0, 82.0, 86.0])
    assert cycles.space.integer.all() and float(course.doses.sum()) == 8.0


def test_affine_limits_become_rows_and_single_ones_become_bounds():
    region = Region.of(WEEKS, (TotalDose(60.0), FractionDose(3.0, 0.5), StartWindow(2.0, 9.0), EffectiveDose(100.0)))
    np.testing.assert_allclose(region.lower, [0.5] * 6 + [2.0])
    np.testing.assert_allclose(region.upper, [3.0] * 6 + [9.0])
    np.testing.assert_allclose(region.coupling.matrix, [[5.0] * 6 + [0.0]])
    np.testing.assert_allclose(region.coupling.bound, [60.0])
    assert region.curved == (3,)
    plan = np.asarray([2.0] * 6 + [5.0])
    assert region.contains(plan) and not region.contains(plan + 0.1)
    np.testing.assert_array_equal(region.keeps(np.stack([plan, plan + 0.1])), [True, False])


def test_calendar_facts_hold_on_slots():
    days = OnOff((Slots("drug", tuple(range(14))),))
    region = Region.of(days, (Weekdays(), LockOut(1.0, 2.0), MinimumInterval(3.0), CumulativeDose("drug", 3.0)))
    np.testing.assert_array_equal(np.flatnonzero(region.upper == 0.0), [1, 2, 5, 6, 12, 13])
    spaced, close = np.zeros(14), np.zeros(14)
    spaced[[0, 3, 7]] = 1.0
    close[[7, 9]] = 1.0
    four = np.zeros(14)
    four[[0, 3, 7, 10]] = 1.0
    assert region.contains(spaced) and not region.contains(close) and not region.contains(four)
    half = spaced.copy()
    half[3] = 0.5
    assert not region.contains(half)


def test_calendar_facts_hold_where_times_move():
    cycles = ShiftedCycles("drug", 3, start=(0.0, 6.0), interval=(7.0, 9.0))
    region = Region.of(cycles, (Weekdays(), LockOut(14.0, 15.0)))
    kept = {(s, i) for s in range(7) for i in range(7, 10) if region.contains(np.asarray([s, i], float))}
    expected = {
        (s, i)
        for s in range(7)
        for i in range(7, 10)
        if all((s + k * i) % 7 < 5 and not 14 <= s + k * i <= 15 for k in range(3))
    }
    assert kept == expected and 0 < len(kept) < 21


def test_levels_keep_a_shortest_interval():
    region = Region.of(LEVELS, (MinimumInterval(14.0),))
    assert region.contains(np.asarray([2.0, 0.0, 1.0, 0.0, 2.0]))
    assert not region.contains(np.asarray([2.0, 1.0, 0.0, 0.0, 0.0]))


def test_a_cumulative_dose_may_count_in_a_window_only():
    region = Region.of(LEVELS, (CumulativeDose("drug", 1.0, window=(0.0, 14.0)),))
    assert region.contains(np.asarray([1.0, 1.0, 0.0, 2.0, 2.0]))
    assert not region.contains(np.asarray([1.0, 1.0, 1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="an agent that the plan decides on"):
        Region.of(LEVELS, (CumulativeDose("other", 1.0),))


# --- nearest decisions ---

LIMITS = (TotalDose(60.0), FractionDose(3.0, 0.5), EffectiveDose(100.0), StartWindow(0.0, 14.0))
SET = FeasibleSet(LIMITS, WEEKS)
NEAREST = Nearest.of(Region.of(WEEKS, LIMITS))
LINEAR = Nearest.of(Region.of(WEEKS, LIMITS[:2] + LIMITS[3:]))
TARGETS = st.lists(st.floats(-5, 15), min_size=7, max_size=7)


@settings(max_examples=25, deadline=None)
@given(TARGETS)
def test_projection_of_the_general_region_is_the_exact_one_of_weekly_fractions(target):
    y = np.asarray(target)
    ours = NEAREST.project(y)
    exact = np.asarray(WEEKS.vector(SET.project(PlanVariables(jnp.asarray(y[:-1]), y[-1]))))
    np.testing.assert_allclose(ours, exact, atol=2e-4)
    assert NEAREST.region.excess(ours) <= 1e-9


@settings(max_examples=40, deadline=None)
@given(TARGETS)
def test_projection_on_rows_is_inside_and_nearest(target):
    y, region = np.asarray(target), LINEAR.region
    found = LINEAR.project(y)
    assert region.excess(found) <= 1e-9
    theirs = minimize(
        lambda u: 0.5 * np.sum((u - y) ** 2),
        np.append(np.ones(6), 1.0),
        jac=lambda u: u - y,
        bounds=list(zip(region.lower, region.upper, strict=True)),
        constraints={"type": "ineq", "fun": lambda u: 60.0 - 5.0 * u[:6].sum()},
        options={"maxiter": 300, "ftol": 1e-14},
    )
    assert np.sum((found - y) ** 2) <= theirs.fun * 2.0 * (1 + 1e-7) + 1e-7


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 3), min_size=5, max_size=5), st.sampled_from([1.0, 2.0, 3.5]))
def test_nearest_whole_numbers_are_those_of_a_search_of_all(target, limit):
    y = np.asarray(target)
    region = Region.of(LEVELS, (CumulativeDose("drug", limit),))
    found = Nearest.of(region).whole(y)
    every = np.stack(np.meshgrid(*[np.arange(3.0)] * 5, indexing="ij"), axis=-1).reshape(-1, 5)
    kept = every[region.keeps(every)]
    assert found is not None and region.contains(found)
    assert np.abs(found - y).sum() <= np.abs(kept - y).sum(axis=1).min() + 1e-7


def test_curved_limits_of_whole_numbers_are_kept():
    doses = DoseLevels((Slots("radiotherapy", tuple(range(8)), "Gy"),), (0.0, 1.0, 2.0, 3.0))
    nearest = Nearest.of(Region.of(doses, (EffectiveDose(20.0),)))
    found = nearest.whole(np.full(8, 2.4))
    assert found is not None and nearest.region.contains(found) and found.sum() >= 8.0


# --- the impossible ---


def test_an_infeasible_problem_names_the_limit_and_the_closest_relaxation():
    limits = (TotalDose(20.0), FractionDose(3.0, 1.0), StartWindow(0.0, 0.0))
    with pytest.raises(Infeasible, match="fraction_dose cannot be met") as found:
        check_feasible(Region.of(WEEKS, limits))
    error = found.value
    assert error.excess == {"fraction_dose": pytest.approx(1.0 / 3.0, rel=1e-6)}  # 2/3 Gy, 30 times
    assert error.alone == {
        "fraction_dose": pytest.approx(1.0 / 3.0, rel=1e-6),
        "total_dose": pytest.approx(10.0, rel=1e-6),
    }
    assert "total_dose by 10 Gy" in str(error)
    loosened = Region.of(WEEKS, error.relaxation)
    assert loosened.contains(check_feasible(loosened))
    check_feasible(Region.of(WEEKS, (TotalDose(30.0), *limits[1:])))
    with pytest.raises(Infeasible):
        check_feasible(Region.of(WEEKS, (TotalDose(29.9), *limits[1:])))


def test_an_infeasible_effective_dose_is_named_too():
    limits = (EffectiveDose(30.0), FractionDose(3.0, 1.0), StartWindow(0.0, 0.0), TotalDose(60.0))
    with pytest.raises(Infeasible) as found:
        check_feasible(Region.of(WEEKS, limits))
    assert found.value.alone["effective_dose"] == pytest.approx(10.0, rel=1e-4)  # 30 x 1 Gy: 40 Gy
    check_feasible(Region.of(WEEKS, found.value.relaxation))


def test_whole_numbers_make_a_problem_infeasible_that_is_feasible_without():
    at_least = FractionDose(high=3.0, low=1.5)
    levels = DoseLevels((Slots("radiotherapy", (0.0, 1.0), "Gy"),), (0.0, 2.0))
    with pytest.raises(Infeasible):
        check_feasible(Region.of(levels, (at_least, TotalDose(3.2))))
    check_feasible(Region.of(levels, (at_least, TotalDose(3.2))).relaxed())
