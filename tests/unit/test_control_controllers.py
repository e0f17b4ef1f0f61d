"""Every controller on small closed-form problems: against the oracle of all decisions, within its limits, always."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control_case import CONTINUOUS, DAYS, END, SLOTS, burden, draws, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tumortwin.control import (
    AbstractController,
    BranchAndBound,
    ChanceLimit,
    CovarianceAdaptation,
    CumulativeDose,
    Curve,
    CVaR,
    DoseLevels,
    EffectiveDose,
    Exhaustive,
    FractionDose,
    Infeasible,
    LockOut,
    LogBurden,
    Mean,
    MinimumInterval,
    Nadir,
    OnOff,
    OptaxProjected,
    PlanningProblem,
    RecedingHorizon,
    RelaxAndRound,
    RiskLimit,
    RockafellarUryasev,
    ScipyGradient,
    ShiftedCycles,
    SlotDoses,
    Slots,
    TotalDose,
    WorstCase,
    compare,
    make_plan,
    optimize,
    plan,
    recommend,
    suitable_controller,
    vector_gradient,
)
from tumortwin.control._covariance_adaptation import searched
from tumortwin.control._recommendation import with_effect_of
from tumortwin.inference import Posterior

LEVELS = DoseLevels(SLOTS, (0.0, 0.5, 1.0, 2.0))
BUDGET = CumulativeDose("drug", 4.0)
KEY = jax.random.key(0)
WHOLE = [Exhaustive(), RelaxAndRound(), BranchAndBound(), CovarianceAdaptation(evaluations=600)]
REAL = [
    ScipyGradient(),
    ScipyGradient(random=2),
    OptaxProjected(steps=120),
    CovarianceAdaptation(evaluations=1500),
    Exhaustive(points=5),
]


def name_of(controller: AbstractController) -> str:
    return type(controller).__name__


@pytest.fixture(scope="module")
def best_whole():
    return optimize(problem(LEVELS, (BUDGET,)), Exhaustive())


@pytest.mark.parametrize("controller", WHOLE, ids=name_of)
def test_whole_numbers_reach_the_oracle(controller, best_whole):
    found = optimize(problem(LEVELS, (BUDGET,)), controller, key=KEY)
    spread = best_whole.convergence["worst_risk"] - best_whole.risk["value"]
    assert spread > 0.5
    assert found.risk["value"] <= best_whole.risk["value"] + 0.01 * spread
    assert found.risk["value"] >= best_whole.risk["value"] - 1e-9  # nothing beats the oracle
    assert all(entry["violation"] <= 1e-9 for entry in found.constraints)
    np.testing.assert_array_equal(found.variables, np.round(found.variables))


def test_the_oracle_solves_admissible_decisions_only_and_agrees_with_a_loop(best_whole):
    assert best_whole.convergence["decisions"] == 4**5
    case = problem(LEVELS, (BUDGET,))
    rng = np.random.default_rng(0)
    tried = rng.integers(0, 4, (30, 5)).astype(float)
    kept = tried[np.asarray([case.region.contains(v) for v in tried])]
    loop = [float(case.risk(case.losses(jnp.asarray(v)))) for v in kept[:10]]
    assert min(loop) >= best_whole.risk["value"] - 1e-12
    assert best_whole.convergence["solved"] < 4**5


@pytest.mark.parametrize("controller", REAL, ids=name_of)
def test_continuous_doses_reach_the_same_optimum(controller):
    case = problem(CONTINUOUS, (BUDGET, LockOut(7.0, 7.0)))
    reference = optimize(case, ScipyGradient())
    found = optimize(case, controller, key=KEY)
    start = make_plan(case, jnp.zeros(5), name="nothing").risk["value"]
    gain = start - reference.risk["value"]
    loss = {"Exhaustive": 0.05, "OptaxProjected": 0.005}.get(name_of(controller), 0.002)
    assert found.risk["value"] <= reference.risk["value"] + loss * gain
    assert all(entry["violation"] <= 1e-9 for entry in found.constraints)
    assert float(found.variables[1]) == 0.0  # locked out


def test_a_search_of_whole_numbers_solves_nothing_twice_and_begins_again():
    case = problem(OnOff(SLOTS), (CumulativeDose("drug", 2.0),))  # 16 of 32 decisions
    oracle = optimize(case, Exhaustive())
    alone, again = (
        optimize(case, CovarianceAdaptation(evaluations=300, restarts=r), key=KEY).convergence for r in (0, 3)
    )
    assert alone["strategies"] == 1 and again["strategies"] == 4 and alone["converged"] and again["converged"]
    assert alone["value_evaluations"] <= again["value_evaluations"] <= 16  # 8 and more are asked for in a generation
    assert alone["generations"] > 10
    assert again["risk"] == pytest.approx(oracle.risk["value"], abs=1e-12)


def test_bounds_alone_by_lbfgsb():
    case = problem(SlotDoses(SLOTS, high=(0.5, 1.0, 2.0, 0.0, 1.0)))
    found = optimize(case, ScipyGradient("L-BFGS-B"))
    np.testing.assert_allclose(found.variables, [0.5, 1.0, 2.0, 0.0, 1.0], atol=1e-6)  # more is better
    with pytest.raises(ValueError, match="SLSQP"):
        optimize(problem(CONTINUOUS, (BUDGET,)), ScipyGradient("L-BFGS-B"))


def test_the_stationary_point_of_slsqp_fulfils_the_kuhn_tucker_conditions():
    found = optimize(problem(CONTINUOUS, (BUDGET,), risk=Mean()), ScipyGradient())
    value, slope = vector_gradient(problem(CONTINUOUS, (BUDGET,), risk=Mean()), np.asarray(found.variables))
    inner = (np.asarray(found.variables) > 1e-6) & (np.asarray(found.variables) < 2.0 - 1e-6)
    assert inner.sum() >= 2 and value == pytest.approx(found.risk["value"])
    np.testing.assert_allclose(slope[inner], slope[inner].mean(), rtol=1e-3)  # one price of dose
    assert (slope < 0.0).all()


def test_threshold_and_plan_minimised_together_are_the_sorted_tail():
    joint = optimize(problem(CONTINUOUS, (BUDGET,), risk=RockafellarUryasev(0.5)), ScipyGradient())
    sorted_ = optimize(problem(CONTINUOUS, (BUDGET,), risk=CVaR(0.5)), ScipyGradient())
    judged = make_plan(problem(CONTINUOUS, (BUDGET,)), joint.variables, name="judged").risk["value"]
    assert judged == pytest.approx(joint.risk["value"], abs=1e-9)
    assert judged == pytest.approx(sorted_.risk["value"], abs=2e-4)


@pytest.mark.slow
def test_a_limit_on_white_cells_binds_and_is_kept():
    limit = RiskLimit(Nadir("white_cells", 0.0, END), CVaR(0.5), -2.5)
    free = optimize(problem(CONTINUOUS), ScipyGradient())
    held = optimize(problem(CONTINUOUS, limits=(limit,)), ScipyGradient())
    entry = held.constraints[-1]
    assert entry["name"] == "risk_limit" and entry["kept"] and entry["active"] and entry["violation"] <= 1e-9
    assert held.risk["value"] > free.risk["value"] and float(held.variables.sum()) < float(free.variables.sum())
    whole = optimize(problem(LEVELS, limits=(limit,)), RelaxAndRound())
    oracle = optimize(problem(LEVELS, limits=(limit,)), Exhaustive())
    assert whole.constraints[-1]["kept"] and oracle.risk["value"] <= whole.risk["value"]


def test_a_chance_limit_is_kept_by_its_surrogate_and_its_probability_is_reported():
    nadir = Nadir("white_cells", 0.0, END)
    surrogate = optimize(problem(LEVELS, limits=(ChanceLimit(nadir, -2.0, 0.75),)), Exhaustive())
    exact = optimize(problem(LEVELS, limits=(ChanceLimit(nadir, -2.0, 0.75, exact=True),)), Exhaustive())
    for found in (surrogate, exact):
        assert found.constraints[-1]["value"] >= 0.75 and found.constraints[-1]["kept"]
    assert exact.risk["value"] <= surrogate.risk["value"]  # the surrogate is conservative


@pytest.mark.slow
def test_an_outcome_that_cannot_be_had_is_infeasible_by_name():
    never = RiskLimit(Nadir("white_cells", 0.0, END), CVaR(0.5), -7.0)  # no treatment leaves 6
    for controller in (Exhaustive(), RelaxAndRound(), CovarianceAdaptation(evaluations=60)):
        with pytest.raises(Infeasible, match="risk_limit") as found:
            optimize(problem(LEVELS, limits=(never,)), controller, key=KEY)
        assert next(iter(found.value.excess.values())) == pytest.approx(1.0, abs=1e-6)


CONTROLLERS = [
    *WHOLE[:2],
    BranchAndBound(max_nodes=30),
    CovarianceAdaptation(evaluations=60),
    RecedingHorizon(Exhaustive(), (0.0, 10.0), DAYS, lambda visit, key: (draws(8, visit.index), None)),
]


@settings(max_examples=8, deadline=None)
@given(
    st.floats(0.0, 6.0),
    st.sampled_from([0.0, 8.0, 15.0]),
    st.sampled_from([(7.0, 7.0), (0.0, 14.0), (30.0, 31.0)]),
    st.integers(0, 4),
)
def test_no_controller_returns_a_plan_that_breaks_a_limit(budget, interval, closed, which):
    limits = (CumulativeDose("drug", budget), MinimumInterval(interval), LockOut(*closed))
    found = optimize(problem(LEVELS, limits), CONTROLLERS[which], key=KEY)
    index = np.asarray(found.variables)
    doses, days = np.asarray([0.0, 0.5, 1.0, 2.0])[index.astype(int)], np.asarray(SLOTS[0].days)
    assert doses.sum() <= budget + 1e-9
    assert (doses[(days >= closed[0]) & (days <= closed[1])] == 0.0).all()
    given_days = days[doses > 0.0]
    assert given_days.size < 2 or np.diff(given_days).min() >= interval


@pytest.mark.parametrize(
    ("controller", "decision"),
    [
        (Exhaustive(points=4), CONTINUOUS),
        (ScipyGradient(), CONTINUOUS),
        (OptaxProjected(steps=40), CONTINUOUS),
        (CovarianceAdaptation(evaluations=100), CONTINUOUS),
        (CovarianceAdaptation(evaluations=60), LEVELS),
        (RelaxAndRound(), LEVELS),
        (BranchAndBound(max_nodes=30), LEVELS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_order_of_the_draws_does_not_matter(controller, decision):
    case = problem(decision, (BUDGET,))
    order = np.random.default_rng(1).permutation(8)
    mixed = case.with_draws(jax.tree.map(lambda leaf: leaf[order], case.draws))
    ours, theirs = (optimize(p, controller, key=KEY) for p in (case, mixed))
    assert ours.risk["value"] == pytest.approx(theirs.risk["value"], abs=1e-7)


def test_infeasible_limits_are_refused_by_every_controller():
    limits = (CumulativeDose("drug", -1.0),)
    for controller in WHOLE:
        with pytest.raises(Infeasible, match="cumulative_dose"):
            optimize(problem(LEVELS, limits), controller, key=KEY)
    for controller in REAL:
        with pytest.raises(Infeasible, match="cumulative_dose"):
            optimize(problem(CONTINUOUS, limits), controller, key=KEY)


def test_moved_cycles_are_planned_and_their_calendar_kept():
    cycles = ShiftedCycles("drug", 3, start=(0.0, 7.0), interval=(5.0, 14.0))
    case = problem(cycles, (LockOut(10.0, 20.0),))
    found = optimize(case, suitable_controller(case))
    times = np.asarray(cycles.courses(found.variables)["drug"].times)
    assert not ((times >= 10.0) & (times <= 20.0)).any()
    assert isinstance(suitable_controller(case), Exhaustive)


def test_one_call_plans_over_a_posterior_and_over_a_problem():
    values = {path: np.asarray(v)[None] for path, v in draws(64).items()}
    posterior = Posterior(values, None, {}, "all is known")
    switch = OnOff(SLOTS, dose=1.0)
    found = plan(
        posterior, LogBurden(END), CVaR(0.8), (CumulativeDose("drug", 2.0),), burden=burden, parametrization=switch,
        n_draws=16, key=KEY,
    )  # fmt: skip
    assert found.risk["n_draws"] == 16 and float(jnp.sum(found.variables)) == 2.0
    assert "drug: 1 on day" in found.describe() and found.to_json()["on"] == np.asarray(found.variables).tolist()
    worst = plan(problem(switch, (CumulativeDose("drug", 2.0),)), risk=WorstCase(), key=KEY)
    assert worst.risk["measure"] == "worst_case"
    with pytest.raises(ValueError, match="no objective, risk"):
        plan(posterior, burden=burden, parametrization=switch, key=KEY)


def test_draws_one_after_another_give_the_same_plan():
    together = problem(OnOff(SLOTS), (CumulativeDose("drug", 2.0),), size=4)
    apart = PlanningProblem(
        burden, together.draws, together.parametrization, together.objective, together.risk, together.constraints
    )
    ours, theirs = (optimize(p, Exhaustive()) for p in (together, apart))
    np.testing.assert_array_equal(ours.variables, theirs.variables)
    assert ours.risk["value"] == pytest.approx(theirs.risk["value"], abs=1e-12)


# --- curved limits, and plans against plans ---


def fractions_left(draw, schedule):
    """Log burden after radiotherapy with exponential regrowth between fractions."""
    course = schedule.radiotherapy
    kill = draw["alpha"] * jnp.sum(course.doses * (1.0 + course.doses / 10.0))
    late = jnp.sum(course.doses * course.times)  # later doses act on a tumor that has grown
    return Curve(jnp.asarray([0.0, END]), jnp.stack([jnp.asarray(1.0), jnp.exp(0.9 - kill - 1e-3 * late)]))


RADIATION = SlotDoses((Slots("radiotherapy", tuple(float(d) for d in range(6)), "Gy"),), high=4.0)
CURVED = [ScipyGradient(max_iterations=30), OptaxProjected(steps=15), CovarianceAdaptation(evaluations=40)]


@settings(max_examples=8, deadline=None)
@given(st.floats(6.0, 40.0), st.floats(8.0, 60.0), st.floats(1.0, 4.0), st.integers(0, 2))
def test_no_controller_breaks_a_curved_limit(total, effect, cap, which):
    limits = (TotalDose(total), EffectiveDose(effect), FractionDose(cap, 0.2))
    case = PlanningProblem(
        fractions_left, {"alpha": jnp.asarray([0.1, 0.3])}, RADIATION, LogBurden(END), Mean(), limits, sequential=False
    )
    found = optimize(case, CURVED[which], key=KEY)
    doses = np.asarray(found.variables)
    assert doses.sum() <= total + 1e-9 and (doses * (1.0 + doses / 3.0)).sum() <= effect + 1e-9
    assert doses.min() >= 0.2 - 1e-9 and doses.max() <= cap + 1e-9


def test_a_search_without_gradients_leaves_out_what_limits_hold_at_one_value():
    limits = (TotalDose(6.0), FractionDose((2.0, 1.0) * 3, (0.0, 1.0) * 3))
    case = PlanningProblem(
        fractions_left, {"alpha": jnp.asarray([0.1, 0.3])}, RADIATION, LogBurden(END), Mean(), limits, sequential=False
    )
    controller = CovarianceAdaptation(evaluations=200)
    state = controller.init(case, key=KEY)
    np.testing.assert_array_equal(searched(state.nearest.region), [True, False] * 3)
    assert state.strategy.ask().shape == (3,)
    found = optimize(case, controller, key=KEY)
    np.testing.assert_array_equal(found.variables[1::2], 1.0)
    np.testing.assert_allclose(found.variables[::2], [0.0, 1.0, 2.0], atol=0.05)  # large and late fractions kill most


def test_plans_of_a_drug_are_compared_but_have_no_equal_effect_twin():
    case = problem(LEVELS, (BUDGET,))
    best = optimize(case, Exhaustive())
    nothing = make_plan(case, jnp.zeros(5), name="nothing")
    found = compare(case, best, nothing, draws=draws(64, 5), key=KEY)
    gain = found.entries["log_burden.expected_gain"]
    assert gain.value > 0.3 and gain.low is not None and gain.low > 0.0
    change = found.entries["toxicity.drug_total_change"]
    assert change.value == pytest.approx(4.0) and change.unit == "1"
    advised = recommend(case, Exhaustive(), jnp.zeros(5), fresh_draws=draws(8, 6), key=KEY)
    np.testing.assert_array_equal(advised.plan.variables, best.variables)
    assert advised.equal_effect_plan is None and advised.equal_effect_comparison is None
    with pytest.raises(ValueError, match="a plan of radiotherapy"):
        with_effect_of(case.constraints, nothing)
