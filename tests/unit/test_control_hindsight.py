"""What a plan lost: against the oracle for a known truth, and against closed-form posteriors under other priors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control_case import SLOTS, draws, problem
from scipy.stats import norm

from tumortwin.control import (
    CumulativeDose,
    Curve,
    DoseLevels,
    Exhaustive,
    LogBurden,
    Mean,
    PlanningProblem,
    ScipyGradient,
    SlotDoses,
    Slots,
    make_plan,
    optimize,
    prior_sensitivity,
    regret,
)

KEY = jax.random.key(0)
LEVELS = DoseLevels(SLOTS, (0.0, 0.5, 1.0, 2.0))
LIMITS = (CumulativeDose("drug", 4.0),)
TRUTH = jax.tree.map(lambda leaf: leaf[0], draws(4, 3))


def loss_of_truth(decision) -> float:
    case = problem(LEVELS, LIMITS)
    return float(case.loss(jnp.asarray(decision, float), TRUTH))


@pytest.mark.slow
def test_regret_is_the_distance_to_the_best_of_all_decisions():
    case = problem(LEVELS, LIMITS)
    chosen = optimize(case, Exhaustive())
    found = regret(case, chosen, TRUTH, Exhaustive(), key=KEY)
    doses = np.asarray([0.0, 0.5, 1.0, 2.0])
    allowed = [d for d in itertools.product(range(4), repeat=5) if doses[list(d)].sum() <= 4.0]
    every = jax.jit(jax.vmap(lambda d: case.loss(d, TRUTH)))(jnp.asarray(allowed, float))
    assert found.best == pytest.approx(float(every.min()), abs=1e-12)
    assert found.value == pytest.approx(loss_of_truth(chosen.variables) - float(every.min()), abs=1e-12)
    assert found.to_json()["best_plan"]["name"] == "best for the truth" and found.unit == "ln"
    nothing = make_plan(case, jnp.zeros(5), name="nothing")
    assert regret(case, nothing, TRUTH, Exhaustive(), key=KEY).value > found.value + 0.5


def test_regret_of_the_best_plan_is_zero_and_never_less():
    case = problem(LEVELS, LIMITS)
    own = case.with_draws(jax.tree.map(lambda leaf: leaf[None], TRUTH))
    best = optimize(own, Exhaustive())
    assert regret(case, best, TRUTH, Exhaustive(), key=KEY).value == 0.0

    class Lazy(Exhaustive):
        def postprocess(self, problem, state, name):
            return make_plan(problem, jnp.zeros(5), name=name)

    found = regret(case, best, TRUTH, Lazy(), key=KEY)
    assert found.value == 0.0
    np.testing.assert_array_equal(found.best_plan.variables, best.variables)


# --- a normal mean: prior N(4, 1), one datum 7 with sd 2; the best dose under a squared loss is the posterior mean ---

PRIOR, DATUM = (4.0, 1.0), (7.0, 2.0)


def posterior(power: float) -> tuple[float, float]:
    precision = power / PRIOR[1] ** 2 + 1.0 / DATUM[1] ** 2
    return (power * PRIOR[0] / PRIOR[1] ** 2 + DATUM[0] / DATUM[1] ** 2) / precision, precision**-0.5


def miss(draw, schedule):
    return Curve(jnp.asarray([0.0, 1.0]), jnp.stack([1.0, jnp.exp((schedule.drugs["drug"].doses[0] - draw["x"]) ** 2)]))


def normal_case(size: int = 2000) -> PlanningProblem:
    mean, sd = posterior(1.0)
    x = jnp.asarray(norm.ppf((np.arange(size) + 0.5) / size, mean, sd))
    one = SlotDoses((Slots("drug", (0.5,)),), high=20.0)
    return PlanningProblem(miss, {"x": x}, one, LogBurden(1.0), Mean(), (), sequential=False)


def test_plans_under_other_priors_are_those_of_the_closed_form():
    case = normal_case()
    chosen = optimize(case, ScipyGradient())
    assert float(chosen.variables[0]) == pytest.approx(posterior(1.0)[0], abs=1e-3)
    density = norm.logpdf(np.asarray(case.draws["x"]), *PRIOR)
    powers = (0.5, 1.5)
    found = prior_sensitivity(case, chosen, density, ScipyGradient(), powers=powers, key=KEY)
    for index, power in enumerate(powers):
        mean, sd = posterior(power)
        assert float(found.plans[index].variables[0]) == pytest.approx(mean, abs=0.03)
        assert found.best[index] == pytest.approx(sd**2, rel=0.05)  # the variance that no dose can avoid
        assert found.regret[index] == pytest.approx((mean - posterior(1.0)[0]) ** 2, rel=0.15)
        assert found.moved[index] == pytest.approx(abs(mean - posterior(1.0)[0]), abs=0.03)
    assert found.reliable.all() and (found.effective > 1000.0).all()
    assert found.to_json()["powers"] == [0.5, 1.5]


def test_draws_that_a_narrow_prior_held_together_say_nothing_without_it():
    case = normal_case(200)
    chosen = optimize(case, ScipyGradient())
    density = norm.logpdf(np.asarray(case.draws["x"]), 4.0, 0.25)
    found = prior_sensitivity(case, chosen, density, ScipyGradient(), powers=(0.05, 1.5), key=KEY)
    assert found.reliable.tolist() == [False, True]


@pytest.mark.parametrize(
    ("density", "powers", "words"),
    [
        (np.zeros(3), (0.5,), "each of 200 draws"),
        (np.full(200, -np.inf), (0.5,), "200 not finite"),
        (np.zeros(200), (0.0, 2.0), "powers above zero"),
    ],
)
def test_refusals(density, powers, words):
    case = normal_case(200)
    with pytest.raises(ValueError, match=words):
        prior_sensitivity(
            case, make_plan(case, jnp.ones(1), name="x"), density, ScipyGradient(), powers=powers, key=KEY
        )
