"""Daily decisions on the published Lotka-Volterra patient, against the regression values of its rules.

S' = rS S (1 - N/K)(1 - dD u) - dS S, R' = rR R (1 - N/K) - dR R; progression when N > 1.2 N(0) on the morning of a day.
Patient and law: Gallagher et al., "Mathematical model-driven deep learning enables personalized adaptive therapy",
Cancer Res 84 (2024). The days below were computed by an independent program.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.control import (
    AbstractFeedbackPolicy,
    AbstractObjective,
    ConstantPolicy,
    CovarianceAdaptation,
    Curve,
    Exhaustive,
    HysteresisPolicy,
    Mean,
    PlanningProblem,
    PolicyThresholds,
    grid_process,
    optimize,
    value_iteration,
)

SENSITIVE, RESISTANT = 0.42567, 4.25675e-6
RATES = {"rS": 0.027, "rR": 0.0207928, "dS": 0.00786822, "dR": 0.00786822, "dD": 1.5}
PROGRESSION = 1.2
LONGEST = 6000


def rates(state, dose):
    s, r = state
    room = 1.0 - (s + r)
    change = (
        RATES["rS"] * s * room * (1.0 - RATES["dD"] * dose) - RATES["dS"] * s,
        RATES["rR"] * r * room - RATES["dR"] * r,
    )
    return jnp.stack(change)


def one_day(state, dose, steps=2):
    """A day by the classical Runge-Kutta method (to 1e-10 at these rates)."""
    h = 1.0 / steps
    for _ in range(steps):
        a = rates(state, dose)
        b = rates(state + 0.5 * h * a, dose)
        c = rates(state + 0.5 * h * b, dose)
        d = rates(state + h * c, dose)
        state = state + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
    return state


def days_to_progression(policy: AbstractFeedbackPolicy):
    """The day on whose morning the burden first exceeds 1.2 of the first."""
    first = jnp.asarray([SENSITIVE, RESISTANT])

    def going(carry):
        state, _, day = carry
        return (jnp.sum(state) <= PROGRESSION * jnp.sum(first)) & (day < LONGEST)

    def step(carry):
        state, memory, day = carry
        memory, dose = policy.decide(memory, jnp.sum(state))
        return one_day(state, dose), memory, day + 1

    return jax.lax.while_loop(going, step, (first, policy.start(jnp.sum(first)), jnp.asarray(0)))[2]


@pytest.mark.parametrize(
    ("policy", "days"),
    [
        (ConstantPolicy(0.0), 29),
        (ConstantPolicy(1.0), 1076),
        (HysteresisPolicy(0.5, 1.0), 1844),
        (HysteresisPolicy(0.8, 1.0), 2384),
        (HysteresisPolicy(0.8, 0.8), 2038),
    ],
)
def test_rules_reach_their_published_days(policy, days):
    assert int(jax.jit(days_to_progression)(policy)) == days


class MinusDays(AbstractObjective):
    """Minus the days to progression that the burden function has counted."""

    name: ClassVar[str] = "minus_days"
    gain_unit: ClassVar[str] = "day"

    def __call__(self, curve: Curve):
        return -curve.parameter("days")


def closed_loop(draw, policy):
    days = days_to_progression(policy).astype(float) + 0.0 * draw
    return Curve(jnp.arange(2.0), jnp.ones(2), parameters={"days": days})


def threshold_problem(parametrization):
    return PlanningProblem(closed_loop, jnp.zeros(1), parametrization, MinusDays(), Mean(), (), sequential=False)


@pytest.mark.parametrize(
    "controller", [Exhaustive(points=9), CovarianceAdaptation(evaluations=64, population=8)], ids=["grid", "cma"]
)
def test_the_best_single_threshold_hugs_the_progression_line(controller):
    """It lives longest by letting the tumor grow to just below progression: within 2 % of dynamic programming."""
    single = PolicyThresholds(stop=(0.8, 1.19), width=(0.0, 0.0))
    found = optimize(threshold_problem(single), controller, key=jax.random.key(3))
    assert float(found.variables[0]) > 1.18
    assert 4730 <= -found.risk["value"] <= 4827


@pytest.mark.slow
def test_dynamic_programming_beats_every_threshold():
    """The optimum of daily decisions, 4827 +- 5 days, by value iteration on a grid of (burden, ln resistant)."""
    first = SENSITIVE + RESISTANT

    def morning(state, dose):
        burden, resistant = state[0], jnp.exp(state[1])
        reached = one_day(jnp.stack([jnp.maximum(burden - resistant, 0.0), resistant]), dose)
        return jnp.stack([jnp.sum(reached), jnp.log(reached[1])])

    process, states = grid_process(
        morning,
        lambda state, dose: -jnp.ones(()),
        [np.linspace(0.30, PROGRESSION * first, 241), np.linspace(np.log(4e-6), np.log(PROGRESSION * first), 241)],
        np.asarray([0.0, 1.0]),
        ended=lambda state: state[0] > PROGRESSION * first * (1.0 + 1e-12),
    )
    found = value_iteration(process, tolerance=1e-6)
    start = np.asarray([first, np.log(RESISTANT)])
    value = _interpolated(states, found.value, start)
    assert -value == pytest.approx(4827, abs=15)


def _interpolated(states, values, at):
    axes = [np.unique(states[:, d]) for d in range(2)]
    table = values.reshape([a.size for a in axes])
    along = [np.interp(at[1], axes[1], row) for row in table]
    return float(np.interp(at[0], axes[0], along))
