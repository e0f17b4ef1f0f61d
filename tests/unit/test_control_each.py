"""Many patients planned side by side: plans as good as those of a controller for one, and within their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.control import (
    Curve,
    CVaR,
    EffectiveDose,
    FractionDose,
    GroupedRisk,
    LogisticTimeToProgression,
    PlanningProblem,
    PlanVariables,
    ScipyGradient,
    StartWindow,
    TotalDose,
    WeeklyFractions,
    optimize,
    plan_each,
)
from tumortwin.treatments import log_kill

WEEKS = WeeklyFractions(n_weeks=4)
PATIENTS, DRAWS = 3, 5
CAPPED = (FractionDose(3.0, (2.0, 0.0, 0.0, 0.0)), TotalDose(40.0), StartWindow(5.0, 5.0))
BY_EFFECT = (FractionDose(4.0), EffectiveDose(66.0), StartWindow(5.0, 5.0))
STARTS = np.asarray([[2.0] * 4, [2.0, 0.0, 3.0, 3.0], [0.5, 1.0, 2.0, 4.0]])


def burden(draw, schedule):
    """K / N: less one it falls exponentially, times exp(kill) at a fraction."""
    course = schedule.radiotherapy
    first = 1.0 + (draw["capacity"] - 1.0) * jnp.exp(-draw["rate"] * course.times[0])

    def give(y, event):
        grown = 1.0 + (y - 1.0) * jnp.exp(-draw["rate"] * event[0])
        return grown * jnp.exp(log_kill(event[1], draw["alpha"], 10.0)), None

    last, _ = jax.lax.scan(give, first, (jnp.diff(course.times, prepend=course.times[0]), course.doses))
    size = draw["capacity"] / jnp.stack([first, last])
    ends = jnp.stack([course.times[0], course.times[-1]])
    return Curve(ends, size, parameters={"growth_rate": draw["rate"], "carrying_capacity": draw["capacity"]})


def draws(seed=0):
    rng = np.random.default_rng(seed)
    middle = {"rate": 0.05, "alpha": 0.06, "capacity": 6.0}
    return {
        name: jnp.asarray(
            value * np.exp(0.4 * rng.normal(size=(PATIENTS, 1)) + 0.15 * rng.normal(size=(PATIENTS, DRAWS)))
        )
        for name, value in middle.items()
    }


def problem(constraints, risk=None, drawn=None):
    objective = LogisticTimeToProgression(5.0, 185.0)
    return PlanningProblem(burden, drawn, WEEKS, objective, risk or CVaR(0.8), constraints, sequential=False)


def one_at_a_time(constraints, drawn, risk=None):
    plan = optimize(problem(constraints, risk, drawn), ScipyGradient(random=2), key=jax.random.key(0))
    return plan.risk["value"]


@pytest.mark.slow
@pytest.mark.parametrize("constraints", [CAPPED, BY_EFFECT])
def test_each_plan_is_as_good_as_that_of_sequential_quadratic_programming(constraints):
    drawn = draws()
    found = plan_each(problem(constraints), drawn, starts=STARTS)
    for patient in range(PATIENTS - 1):
        alone = one_at_a_time(constraints, jax.tree.map(lambda leaf, at=patient: leaf[at], drawn))
        assert found.risk[patient] <= alone + 2e-3
        at = PlanVariables(jnp.asarray(found.doses[patient]), jnp.asarray(5.0))
        assert max(float(c.violation(at, WEEKS)) for c in constraints) <= 1e-9


def test_a_plan_is_never_worse_than_its_starts_and_keeps_a_tighter_limit_of_its_own():
    drawn, tighter = draws(1), np.asarray([40.0, 36.0, 31.0])
    found = plan_each(problem(CAPPED), drawn, starts=STARTS, total_dose=tighter)
    np.testing.assert_array_less(5.0 * found.doses.sum(axis=1), tighter + 1e-9)
    stay = plan_each(problem(CAPPED), drawn, starts=STARTS, total_dose=tighter, max_steps=0)
    assert (found.risk <= stay.risk).all() and (found.risk < stay.risk).any()
    less = plan_each(problem(BY_EFFECT), drawn, starts=STARTS, effective_dose=np.asarray([66.0, 60.0, 50.0]))
    effect = 5.0 * (less.doses + less.doses**2 / 3.0).sum(axis=1)
    np.testing.assert_allclose(effect, [66.0, 60.0, 50.0], rtol=1e-9)


def test_the_common_plan_has_the_smallest_mean_risk_and_personal_plans_are_never_worse():
    drawn = draws(2)
    pooled = jax.tree.map(jnp.ravel, drawn)
    together = jax.tree.map(lambda leaf: leaf[None], pooled)
    risk = GroupedRisk(CVaR(0.8), PATIENTS)
    common = plan_each(problem(BY_EFFECT, risk), together, starts=STARTS)
    assert common.risk[0] == pytest.approx(one_at_a_time(BY_EFFECT, pooled, risk), abs=2e-3)
    personal = plan_each(problem(BY_EFFECT), drawn, starts=np.concatenate([STARTS[:2], common.doses]))
    assert personal.risk.mean() <= common.risk[0] + 1e-9


def test_the_grouped_risk_is_the_mean_of_the_risks():
    values = jnp.asarray(np.random.default_rng(3).normal(size=12))
    weights = jnp.asarray(np.random.default_rng(4).uniform(size=12))
    alone = [float(CVaR(0.5)(values[k : k + 4])) for k in (0, 4, 8)]
    assert float(GroupedRisk(CVaR(0.5), 3)(values)) == pytest.approx(np.mean(alone))
    weighted = [float(CVaR(0.5)(values[k : k + 4], weights[k : k + 4])) for k in (0, 4, 8)]
    assert float(GroupedRisk(CVaR(0.5), 3)(values, weights)) == pytest.approx(np.mean(weighted))
    with pytest.raises(ValueError, match="5 equal groups"):
        GroupedRisk(CVaR(0.5), 5)(values)


def test_a_start_day_that_may_move_is_refused():
    with pytest.raises(ValueError, match="fixed start day"):
        plan_each(problem((*CAPPED[:2], StartWindow(5.0, 9.0))), draws(), starts=STARTS)
