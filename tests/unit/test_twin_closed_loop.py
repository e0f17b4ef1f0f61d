"""Plans that are revised at every visit, on patients of two kinds: those that the drug helps, and those it harms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import HalfNormal, Normal
from test_twin_cohort import LAW

from tumortwin.control import (
    BurdenAtDay,
    ChanceLimit,
    DrugUsed,
    Exhaustive,
    LogBurden,
    Mean,
    OnOff,
    PolicyThresholds,
    plan,
    regular_slots,
)
from tumortwin.inference import Measurements, PopulationProblem, Posterior, Varying, log_normal
from tumortwin.observation import LogNormalError
from tumortwin.twin import BurdenCurves, Decision, closed_loop, subject_problem

VISITS, HORIZON = (0.0, 20.0, 40.0), 60.0
HELPED, HARMED = 0.06, -0.01  # [1/day] kill of sensitive cells: of half the draws, in any order
DRAWS, PATIENTS = 20, 8


def problem_of() -> PopulationProblem:
    seen = jnp.full((1, 1), 9.0)
    data = Measurements(jnp.zeros((1, 1)), seen, seen, jnp.ones((1, 1)))
    varying = {"drug_kill": Varying(Normal(0.0, 0.1), HalfNormal(0.1))}
    error = LogNormalError(jnp.asarray(0.02))
    return PopulationProblem(LAW, varying, error, {"log_sd": log_normal(0.02, 0.5)}, data, BurdenCurves())


def posterior(kinds=(HELPED, HARMED)) -> Posterior:
    kill = np.random.default_rng(0).permutation(np.resize(kinds, 4 * DRAWS)).reshape(2, 2 * DRAWS, 1)
    return Posterior({"subject.drug_kill": kill, "residual.log_sd": np.full(kill.shape[:2], 0.02)}, None, {}, "")


def trial(told: Posterior, objective=None, limits=(), parametrization=None):
    decided = OnOff((regular_slots("drug", 0.0, 20.0, 3),)) if parametrization is None else parametrization
    wanted = LogBurden(HORIZON) if objective is None else objective
    decision = Decision(decided, wanted, Mean(), tuple(limits), HORIZON, VISITS, "ng/mL")
    problem, keys = problem_of(), jax.random.split(jax.random.key(0), 3)
    planning = subject_problem(problem, told, decision, 0, 0.0, n_draws=2 * DRAWS, key=keys[0])
    first = plan(planning, controller=Exhaustive(points=2), key=keys[1])
    found = closed_loop(
        problem, told, planning, first, jnp.ones(3), Exhaustive(points=2),
        subject=0, day=0.0, objectives=[DrugUsed(0.0, HORIZON)], patients=PATIENTS, pool=2 * DRAWS, key=keys[2],
    )  # fmt: skip
    return first, found


def final(kill: float, days_on: float) -> float:
    return float(np.log(0.9 * np.exp(0.01 * HORIZON - kill * days_on) + 0.1 * np.exp(0.002 * HORIZON)))


def test_patients_that_the_drug_harms_are_found_at_the_first_reading_and_stop():
    first, found = trial(posterior())
    assert np.asarray(first.variables).tolist() == [1.0, 1.0, 1.0]  # on average it helps
    kinds = found.courses.sum(axis=1)
    assert sorted(set(kinds.tolist())) == [1.0, 3.0] and found.changed == np.mean(kinds == 1.0)
    assert np.all(found.courses[:, 0] == 1.0) and found.refused == 0
    main, used = found.objectives["log_burden"], found.objectives["drug_used"]
    each = final(HARMED, 60.0) - final(HARMED, 20.0)  # what stopping on day 20 is worth
    assert each > 0.3 and main.gain.mean == pytest.approx(found.changed * each, rel=1e-6)
    assert main.open_loop - main.closed_loop == pytest.approx(main.gain.mean)
    assert main.standard == pytest.approx(main.open_loop) and used.gain.mean == pytest.approx(40.0 * found.changed)
    # The readings tell the two kinds apart, and of one kind nothing more is there to know: its draws weigh the same.
    counts = {kind: set(np.round(found.effective[kinds == kind], 3).tolist()) for kind in (1.0, 3.0)}
    assert all(len(count) == 1 for count in counts.values())
    assert sum(count.pop() for count in counts.values()) == pytest.approx(2 * DRAWS, abs=0.01)
    words = found.describe()
    assert f"{PATIENTS} virtual patients" in words and "drug used" in words and "too few" not in words
    stored = found.to_json()
    assert stored["objectives"]["log_burden"]["gain_of_revising"]["low"] > 0.0 and stored["statement"] == words


def test_where_nothing_can_be_learned_the_plan_stays_as_it_is():
    first, found = trial(posterior((HELPED,)))
    np.testing.assert_array_equal(found.courses, np.broadcast_to(np.asarray(first.variables), found.courses.shape))
    assert found.changed == 0.0 and found.objectives["log_burden"].gain.mean == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(found.effective, 2 * DRAWS)


@pytest.mark.slow
def test_where_no_rest_of_the_course_keeps_the_limits_the_one_before_is_kept_to():
    """The least drug for which a third of the draws end small: none does it for those that it harms."""
    small = float(np.exp(final(HELPED, 60.0))) * LAW.start
    limit = ChanceLimit(BurdenAtDay(HORIZON), 1.01 * float(small), probability=0.3, exact=True)
    first, found = trial(posterior(), objective=DrugUsed(0.0, HORIZON), limits=[limit])
    np.testing.assert_array_equal(found.courses, np.broadcast_to(np.asarray(first.variables), found.courses.shape))
    harmed = found.refused // 2  # at two visits each
    assert 0 < harmed < PATIENTS and found.refused == 2 * harmed
    assert f"At {found.refused} visits no plan kept the limits" in found.describe()


@pytest.mark.slow
def test_a_rule_is_feedback_already():
    with pytest.raises(ValueError, match="slots of one drug(.|\n)*PolicyThresholds"):
        trial(posterior(), parametrization=PolicyThresholds((0.5, 0.6), (0.0, 0.1)))
