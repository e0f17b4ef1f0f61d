"""What is known exactly: linear-quadratic control, schedules that cannot matter, risks and gradients in closed form."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tumortwin.control import (
    AbstractObjective,
    AbstractParametrization,
    CumulativeDose,
    Curve,
    CVaR,
    DoseLevels,
    EffectiveDose,
    Exhaustive,
    LogBurden,
    LogisticTimeToProgression,
    Mean,
    OptaxProjected,
    PlanningProblem,
    PlanVariables,
    RockafellarUryasev,
    ScipyGradient,
    ShiftedCycles,
    SlotDoses,
    Slots,
    WeeklyFractions,
    complication_probability,
    judged_vectors,
    logistic_time_to_progression,
    optimize,
    organ_tolerances,
    vector_gradient,
)
from tumortwin.treatments import survival

ONE = {"x": jnp.zeros(1)}

# --- scalar linear-quadratic control ---

STEPS, DT, A, B, Q, R, LAST, FIRST = 8, 0.5, 0.3, 1.2, 1.0, 0.4, 2.0, 1.5
HOLD = np.exp(A * DT), B * (np.exp(A * DT) - 1.0) / A  # zero-order hold


class GivenCost(AbstractObjective):
    """The cost that the burden function has summed up already."""

    name: ClassVar[str] = "cost"
    gain_unit: ClassVar[str] = "1"

    def __call__(self, curve: Curve):
        return curve.parameter("cost")


def linear_quadratic(draw, schedule):
    inputs = schedule.drugs["input"].doses

    def step(x, u):
        return HOLD[0] * x + HOLD[1] * u, Q * x**2 + R * u**2

    last, costs = jax.lax.scan(step, jnp.asarray(FIRST) + draw["x"], inputs)
    total = jnp.sum(costs) + LAST * last**2
    return Curve(jnp.arange(2.0), jnp.ones(2), parameters={"cost": total})


def riccati():
    """The optimal inputs and cost by the backward Riccati recursion."""
    p, gains = LAST, []
    for _ in range(STEPS):
        gain = HOLD[1] * p * HOLD[0] / (R + HOLD[1] ** 2 * p)
        gains.append(gain)
        p = Q + HOLD[0] ** 2 * p - gain * HOLD[1] * p * HOLD[0]
    x, inputs = FIRST, []
    for gain in reversed(gains):
        inputs.append(-gain * x)
        x = HOLD[0] * x + HOLD[1] * inputs[-1]
    return np.asarray(inputs), p * FIRST**2


def lqr_problem():
    slots = SlotDoses((Slots("input", tuple(DT * np.arange(STEPS))),), high=10.0, low=-10.0)
    return PlanningProblem(linear_quadratic, ONE, slots, GivenCost(), Mean(), (), sequential=False)


@pytest.mark.parametrize("method", ["SLSQP", "L-BFGS-B"])
def test_linear_quadratic_inputs_are_those_of_riccati(method):
    inputs, cost = riccati()
    found = optimize(lqr_problem(), ScipyGradient(method, tolerance=1e-15))
    np.testing.assert_allclose(found.variables, inputs, atol=1e-6)
    assert found.risk["value"] == pytest.approx(cost, rel=1e-10)


def test_linear_quadratic_cost_by_projected_steps():
    _, cost = riccati()
    found = optimize(lqr_problem(), OptaxProjected(steps=300, learning_rate=0.02))
    assert found.risk["value"] == pytest.approx(cost, rel=1e-5)


# --- what no schedule can change, and what it can ---

DAYS = (0.0, 5.0, 11.0, 18.0, 30.0)
END = 45.0
DOSED = DoseLevels((Slots("drug", DAYS),), (0.0, 1.0, 2.0))
GROWTHS = {
    "exponential": lambda n, draw, days: n * jnp.exp(draw["rate"] * days),
    "gompertz": lambda n, draw, days: jnp.exp(jnp.log(n) * jnp.exp(-draw["rate"] * days)),
    "logistic": lambda n, draw, days: 1.0 / (1.0 + (1.0 / n - 1.0) * jnp.exp(-draw["rate"] * days)),
}
DRAWS = {
    "rate": jnp.asarray([0.02, 0.05, 0.09]),
    "kill": jnp.asarray([0.4, 0.7, 0.3]),
    "initial": jnp.asarray([0.2, 0.1, 0.3]),
}


def treated(growth, kill):
    """Growth between doses; `kill(n, dose, draw)` at a dose. The capacity is one."""

    def model(draw, schedule):
        course = schedule.drugs["drug"]

        def give(carry, event):
            day, n = carry
            before = growth(n, draw, event[0] - day)
            after = kill(before, event[1], draw)
            return (event[0], after), (jnp.stack([event[0]] * 2), jnp.stack([before, after]))

        (last, n), (days, sizes) = jax.lax.scan(give, (jnp.zeros(()), draw["initial"]), (course.times, course.doses))
        end = jnp.asarray([END])
        days, sizes = jnp.append(days.ravel(), end), jnp.append(sizes.ravel(), growth(n, draw, end - last))
        return Curve(days, sizes)

    return model


def log_kill(n, dose, draw):
    return n * jnp.exp(-draw["kill"] * dose)


def norton_simon(growth):
    """N' = f(N)(1 - L u): a dose turns the flow of f back by L u days."""
    return lambda n, dose, draw: growth(n, draw, -10.0 * draw["kill"] * dose)


def drug_problem(model, parametrization: AbstractParametrization = DOSED, constraints=(), risk=None):
    return PlanningProblem(
        model, DRAWS, parametrization, LogBurden(END), Mean() if risk is None else risk, constraints, sequential=False
    )


def spread_at_equal_dose(model):
    """Largest difference of the risk among all schedules of the same total dose."""
    every = np.asarray(list(itertools.product(range(3), repeat=5)), dtype=float)
    risks, _ = judged_vectors(drug_problem(model), every)
    totals = every.sum(axis=1)
    return max(np.ptp(risks[totals == t]) for t in np.unique(totals))


def test_log_kill_with_exponential_growth_depends_on_total_dose_alone():
    model = treated(GROWTHS["exponential"], log_kill)
    assert spread_at_equal_dose(model) < 1e-10
    limit = (CumulativeDose("drug", 4.0),)
    by_levels = optimize(drug_problem(model, DOSED, limit), Exhaustive())
    continuous = SlotDoses((Slots("drug", DAYS),), high=2.0)
    by_doses = optimize(drug_problem(model, continuous, limit, CVaR(0.5)), ScipyGradient())
    uniform = drug_problem(model, continuous, limit, CVaR(0.5))
    even = float(uniform.risk(uniform.losses(jnp.full(5, 0.8))))
    assert by_doses.risk["value"] == pytest.approx(even, abs=1e-8)  # no optimiser may gain
    assert by_levels.toxicity["drug_total"] == 4.0


@pytest.mark.parametrize("growth", ["exponential", "gompertz", "logistic"])
def test_norton_simon_kill_depends_on_total_dose_alone_for_any_growth(growth):
    assert spread_at_equal_dose(treated(GROWTHS[growth], norton_simon(GROWTHS[growth]))) < 1e-9


def test_log_kill_with_gompertz_growth_does_depend_on_the_schedule():
    assert spread_at_equal_dose(treated(GROWTHS["gompertz"], log_kill)) > 0.1


# --- fractionation ---


@pytest.mark.parametrize(("tumor_alpha_beta", "many"), [(10.0, True), (1.5, False)])
def test_the_best_fractionation_at_equal_normal_tissue_effect_flips_with_alpha_beta(tumor_alpha_beta, many):
    """Six slots, BED_3 <= 30 Gy: alpha/beta 10 asks for many small fractions, 1.5 for few large ones."""

    def model(draw, schedule):
        course = schedule.radiotherapy
        left = jnp.prod(survival(course.doses, 0.1, tumor_alpha_beta))
        return Curve(jnp.asarray([0.0, END]), jnp.stack([jnp.asarray(1.0), left]) + 0.0 * draw["x"])

    slots = SlotDoses((Slots("radiotherapy", tuple(range(6)), "Gy"),), high=9.0)
    case = PlanningProblem(model, ONE, slots, LogBurden(END), Mean(), (EffectiveDose(30.0, 3.0),), sequential=False)
    found = optimize(case, ScipyGradient(random=3), key=jax.random.key(1))
    doses = np.sort(np.asarray(found.variables))
    assert found.constraints[0]["violation"] <= 1e-9 and found.constraints[0]["active"]
    if many:  # all equal: d (1 + d / 3) = 5
        np.testing.assert_allclose(doses, (-3.0 + np.sqrt(9.0 + 60.0)) / 2.0, atol=1e-3)
    else:  # as few as the cap allows: one fraction of the root of d (1 + d / 3) = 30
        np.testing.assert_allclose(doses, [0.0] * 5 + [(-3.0 + np.sqrt(9.0 + 360.0)) / 2.0], atol=1e-3)


def test_complication_probabilities():
    brain = organ_tolerances()["brain"]
    assert float(complication_probability(60.0, brain)) == pytest.approx(0.5, abs=1e-12)
    assert float(complication_probability(50.0, brain)) == pytest.approx(0.13326, abs=5e-6)


# --- progression ---


def standard_course(draw, schedule):
    course = schedule.radiotherapy
    rate, alpha = draw["rate"], draw["alpha"]

    def fraction(carry, event):
        day, n = carry
        before = 1.0 / (1.0 + (1.0 / n - 1.0) * jnp.exp(-rate * (event[0] - day)))
        after = before * survival(event[1], alpha, 10.0)
        return (event[0], after), (jnp.stack([event[0]] * 2), jnp.stack([before, after]))

    _, (days, burden) = jax.lax.scan(fraction, (jnp.zeros(()), jnp.asarray(0.2)), (course.times, course.doses))
    return Curve(days.ravel(), burden.ravel(), parameters={"growth_rate": rate, "carrying_capacity": jnp.asarray(1.0)})


TWIN = {"rate": jnp.asarray([0.05]), "alpha": jnp.asarray([0.05])}
WEEKS = WeeklyFractions()


def progression(horizon=500.0):
    objective = LogisticTimeToProgression(0.0, horizon)
    return PlanningProblem(standard_course, TWIN, WEEKS, objective, Mean(), (), sequential=False)


def test_closed_form_time_to_progression_of_the_standard_of_care():
    assert float(progression().losses(WEEKS.uniform(2.0, 0.0))[0]) == pytest.approx(-79.2051, abs=5e-5)
    assert float(progression(60.0).losses(WEEKS.uniform(2.0, 0.0))[0]) == -60.0  # nothing beyond the horizon
    value = logistic_time_to_progression(39.0, 0.0324035, 0.2, 0.05, 1.0)
    assert float(value) == pytest.approx(79.2051, abs=1e-4)
    early = logistic_time_to_progression(39.0, 0.3, 0.2, 0.05, 1.0)  # never fell below: extrapolated backwards
    assert float(early) < 39.0


def test_gradient_in_the_dose_matches_central_differences():
    case = progression()
    at = np.append([2.0, 2.5, 1.5, 2.0, 1.0, 2.5], 0.0)
    _, slope = vector_gradient(case, at)

    def value(vector):
        return float(case.losses(WEEKS.variables(jnp.asarray(vector)))[0])

    for week in (0, 3, 5):
        h = 1e-4 * np.eye(7)[week]
        difference = (value(at + h) - value(at - h)) / 2e-4
        assert slope[week] == pytest.approx(difference, rel=1e-6)


def test_gradient_in_the_time_matches_central_differences():
    cycles = ShiftedCycles("drug", 4, start=(0.0, 9.0), interval=(5.0, 10.0), whole_days=False)
    case = drug_problem(treated(GROWTHS["gompertz"], log_kill), cycles)
    at = np.asarray([2.3, 7.1])
    value, slope = vector_gradient(case, at)
    for k in (0, 1):
        h = 1e-4 * np.eye(2)[k]
        sides = [float(case.risk(case.losses(jnp.asarray(at + s * h)))) for s in (1.0, -1.0)]
        assert slope[k] == pytest.approx((sides[0] - sides[1]) / 2e-4, rel=1e-4)
    assert value == pytest.approx(float(case.risk(case.losses(jnp.asarray(at)))))


# --- superquantiles ---

NORMAL = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)


@pytest.mark.parametrize("risk", [CVaR(0.95), RockafellarUryasev(0.95)], ids=lambda r: r.name)
def test_superquantiles_of_known_distributions(risk):
    assert float(risk(jnp.asarray(NORMAL))) == pytest.approx(2.06271, abs=5e-5)
    assert float(risk(jnp.asarray(np.exp(0.5 * NORMAL)))) == pytest.approx(2.85859, abs=2e-4)


def test_superquantile_is_monotone_from_the_mean():
    z = jnp.asarray(NORMAL[::200] ** 3)
    found = [float(CVaR(level)(z)) for level in (0.0, 0.3, 0.6, 0.9, 0.99)]
    assert found[0] == pytest.approx(float(Mean()(z)), abs=1e-12)
    assert all(b > a for a, b in itertools.pairwise(found))


def test_level_zero_is_the_mean_problem():
    model = treated(GROWTHS["gompertz"], log_kill)
    limit = (CumulativeDose("drug", 4.0),)
    ours, theirs = (optimize(drug_problem(model, DOSED, limit, risk), Exhaustive()) for risk in (CVaR(0.0), Mean()))
    np.testing.assert_array_equal(ours.variables, theirs.variables)


def test_a_moved_plan_is_still_a_plan_of_weekly_fractions():
    packed = WEEKS.vector(PlanVariables(jnp.full(6, 2.0), 3.0))
    np.testing.assert_array_equal(packed, [2.0] * 6 + [3.0])
