"""The projection: feasible, idempotent, nearest (against SLSQP), and refusing the impossible."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tumortwin.control import (
    EffectiveDose,
    FeasibleSet,
    FractionDose,
    PlanVariables,
    StartWindow,
    TotalDose,
    WeeklyFractions,
)
from tumortwin.control._rounding import deliverable

WEEKS = WeeklyFractions()
TARGETS = st.lists(st.floats(-5, 15), min_size=6, max_size=6)
CONSTRAINTS = (TotalDose(60.0), FractionDose(3.0, 0.5), EffectiveDose(100.0), StartWindow(0.0, 14.0))
SET = FeasibleSet(CONSTRAINTS, WEEKS)
project = eqx.filter_jit(SET.project)


def nearest_by_slsqp(y):
    n, r = 5, 3.0
    found = minimize(
        lambda d: 0.5 * np.sum((d - y) ** 2),
        np.full(6, 1.0),
        jac=lambda d: d - y,
        bounds=[(0.5, 3.0)] * 6,
        constraints=[
            {"type": "ineq", "fun": lambda d: 60.0 - n * d.sum()},
            {"type": "ineq", "fun": lambda d: 100.0 - n * np.sum(d * (1 + d / r))},
        ],
        options={"maxiter": 300, "ftol": 1e-14},
    )
    return found.x


@settings(max_examples=60, deadline=None)
@given(TARGETS, st.floats(-30, 40))
def test_projection_keeps_every_limit_exactly_and_is_idempotent(target, day):
    found = project(PlanVariables(jnp.asarray(target), day))
    for constraint in CONSTRAINTS:
        assert float(constraint.violation(found, WEEKS)) <= 1e-12
    again = project(found)
    np.testing.assert_allclose(again.weekly_fraction_dose, found.weekly_fraction_dose, atol=1e-10)
    assert float(again.start_day) == float(found.start_day)


@settings(max_examples=25, deadline=None)
@given(TARGETS)
def test_projection_is_the_nearest_plan(target):
    y = np.asarray(target)
    found = np.asarray(project(PlanVariables(jnp.asarray(y), 0.0)).weekly_fraction_dose)
    theirs = nearest_by_slsqp(y)
    assert np.sum((found - y) ** 2) <= np.sum((theirs - y) ** 2) * (1 + 1e-7) + 1e-7
    np.testing.assert_allclose(found, theirs, atol=2e-3)


def test_a_plan_within_the_limits_is_left_alone():
    inside = PlanVariables(jnp.asarray([2.5, 1.0, 0.5, 1.5, 2.0, 1.9]), 3.0)
    np.testing.assert_array_equal(project(inside).weekly_fraction_dose, inside.weekly_fraction_dose)


def test_one_budget_alone_shifts_all_weeks_equally():
    only_total = FeasibleSet((TotalDose(60.0), FractionDose(10.0), StartWindow(0.0, 0.0)), WEEKS)
    found = only_total.project(PlanVariables(jnp.asarray([5.0, 4.0, 3.0, 2.0, 1.0, 3.0]), 0.0))
    np.testing.assert_allclose(found.weekly_fraction_dose, [4.0, 3.0, 2.0, 1.0, 0.0, 2.0], atol=1e-12)


TWO_TISSUES = (EffectiveDose(97.0, 3.0), EffectiveDose(120.0, 2.0), FractionDose(3.5), StartWindow(0.0, 0.0))


@pytest.mark.parametrize("pull", [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.2, 0.9)])
def test_two_normal_tissues_keep_their_own_limits(pull):
    """A point where both BED limits bind, moved outward along their normals: the projection leads back to it."""
    both = FeasibleSet(TWO_TISSUES, WEEKS)
    half = np.sqrt(1.7**2 - 1.18)
    corner = np.repeat([1.7 + half, 1.7 - half], 3)  # sum d 10.2, sum d^2 27.6
    normals = np.stack([1.0 + 2.0 * corner / 3.0, 1.0 + corner])
    found = both.project(PlanVariables(corner + np.asarray(pull) @ normals, 0.0))
    for limit in TWO_TISSUES:
        assert float(limit.violation(found, WEEKS)) <= 1e-12
    np.testing.assert_allclose(found.weekly_fraction_dose, corner, atol=1e-6)


def test_the_tightest_of_two_limits_on_one_tissue_counts():
    pair = (EffectiveDose(100.0), EffectiveDose(80.0), FractionDose(3.0), StartWindow(0.0, 0.0))
    found = FeasibleSet(pair, WEEKS).project(WEEKS.uniform(3.0, 0.0))
    assert float(EffectiveDose(80.0).violation(found, WEEKS)) == pytest.approx(0.0, abs=1e-9)


def test_earlier_fractions_use_up_the_budgets():
    after = WeeklyFractions(earlier=(2.0,) * 15)  # 30 Gy, BED_3 50 Gy
    half = after.uniform(1.0, 0.0)
    assert float(TotalDose(60.0).violation(half, after)) == pytest.approx(0.0)
    assert float(EffectiveDose(100.0).violation(half, after)) == pytest.approx(30.0 * 4.0 / 3.0 - 50.0)
    left = FeasibleSet((TotalDose(60.0), EffectiveDose(85.0), FractionDose(3.0), StartWindow(0.0, 0.0)), after)
    found = left.project(after.uniform(2.0, 0.0))
    bed = after.fraction_doses(found)
    assert float(jnp.sum(bed * (1.0 + bed / 3.0))) == pytest.approx(35.0) and float(bed.sum()) < 30.0
    spent = WeeklyFractions(earlier=(2.0,) * 31)
    with pytest.raises(ValueError, match="earlier fractions leave"):
        FeasibleSet((TotalDose(60.0), FractionDose(3.0), StartWindow(0.0, 0.0)), spent)


# --- start days ---


def test_start_days_keep_the_weekday_of_the_standard_of_care():
    window = FeasibleSet((FractionDose(3.0), StartWindow(31.0, 52.0)), WEEKS)
    allowed = set()
    for day in np.linspace(31.0, 52.0, 50):
        found = deliverable(window, WEEKS.uniform(2.0, day), 0.01, 7.0, 35.0)
        days = [float(v.start_day) for v in found]
        assert days and len(set(days)) == len(days) <= 2
        assert all((d - 35.0) % 7.0 == 0.0 and 31.0 <= d <= 52.0 for d in days)
        assert min(abs(d - day) for d in days) <= 7.0
        allowed |= set(days)
    assert allowed == {35.0, 42.0, 49.0}
    with pytest.raises(ValueError, match="whole number of steps"):
        deliverable(
            FeasibleSet((FractionDose(3.0), StartWindow(36.0, 41.0)), WEEKS), WEEKS.uniform(2.0, 37.0), 0.01, 7.0, 35.0
        )


def test_weeks_already_given_are_held():
    given_so_far = FractionDose(high=(2.0, 2.0, 3.0, 3.0, 3.0, 3.0), low=(2.0, 2.0, 0.0, 0.0, 0.0, 0.0))
    held = FeasibleSet((TotalDose(60.0), given_so_far, StartWindow(0.0, 0.0)), WEEKS)
    found = held.project(PlanVariables(jnp.asarray([0.0, 9.0, 9.0, 9.0, 0.0, 0.0]), 0.0))
    np.testing.assert_allclose(found.weekly_fraction_dose, [2, 2, 3, 3, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        ((TotalDose(20.0), FractionDose(3.0, 1.0), StartWindow(0.0, 0.0)), "lowest weekly doses within the budgets"),
        ((TotalDose(60.0), StartWindow(0.0, 0.0)), "a highest fraction dose"),
        ((TotalDose(60.0), FractionDose(3.0)), "window for the start day"),
        ((FractionDose(2.0, 2.5), StartWindow(0.0, 0.0)), "low <= high"),
    ],
)
def test_impossible_limits_are_refused(constraints, words):
    with pytest.raises(ValueError, match=words):
        FeasibleSet(constraints, WEEKS)
