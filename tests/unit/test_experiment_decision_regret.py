"""The courses are equally toxic, and a regret is what it says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import surrogate_case

from experiments.decision_regret.mass import RHO, D, kills, learn_masses, log_masses
from experiments.decision_regret.planners import by_pde, by_surrogate
from experiments.decision_regret.regret import regrets
from experiments.decision_regret.run import JUDGED, TRUTH, fraction_stake, judged
from experiments.decision_regret.schedules import ALPHA_BETA, BED_3, STANDARD, equally_toxic, options
from tumortwin.cli_train_reduced import TrainingCase
from tumortwin.inference import Training
from tumortwin.params import set_parameters
from tumortwin.solvers import simulate
from tumortwin.treatments import Schedule, weekday_fractions

ALPHA, SENSITIVITY = "mechanisms.radiotherapy.alpha", "mechanisms.chemotherapy.sensitivity"


@functools.cache
def case() -> TrainingCase:
    """The tiny tumor of the tests of surrogates."""
    tiny = surrogate_case
    return TrainingCase(
        tiny.model(),
        tiny.prior(),
        tiny.SCHEDULE,
        tiny.SOLVER,
        tiny.SNAPSHOT_DAYS,
        tiny.DAYS,
        tiny.LEVELS,
        tiny.SETTINGS,
    )


def test_every_course_is_as_toxic_as_the_standard_of_care_and_of_one_shape():
    choices = options()
    assert len({option.name for option in choices}) == len(choices) == 48
    for option in choices:
        fractions, drug = option.schedule.radiotherapy, option.schedule.drugs["temozolomide"]
        assert float(jnp.sum(fractions.doses * (1.0 + fractions.doses / ALPHA_BETA))) == pytest.approx(BED_3, rel=1e-12)
        assert (fractions.size, drug.size, float(drug.doses.sum())) == (30, 42, 42.0)
        assert (np.diff(fractions.times) > 0).all() and set(np.mod(fractions.times, 7.0).tolist()) == {0, 1, 2, 3, 4}
    standard = next(option.schedule for option in choices if option.name == STANDARD)
    np.testing.assert_allclose(standard.radiotherapy.doses, 2.0, rtol=1e-12)
    assert float(standard.radiotherapy.times[0]) == float(standard.drugs["temozolomide"].times[0]) == 35.0


def test_weights_are_only_scaled():
    doses = equally_toxic(np.array([1.0, 3.0]))
    assert doses[1] == pytest.approx(3.0 * doses[0])


def test_regret_is_none_for_the_truth_and_all_for_its_opposite():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 10)) + np.arange(6.0)[:, None] * 5.0
    right, wrong = regrets(truth, truth, 4), regrets(-truth, truth, 4)
    assert right.personal.shape == (6,) and (right.personal == 0.0).all() and right.common == 0.0
    np.testing.assert_allclose(wrong.personal, 1.0)
    assert wrong.common == 1.0 and wrong.common_choice == 5
    # A shift of what is said, or of the truth, changes no choice.
    assert regrets(truth + 3.0, truth - 7.0, 4).common == 0.0


def test_regret_is_the_share_of_what_is_at_stake():
    truth = np.array([[0.0, 0.0], [1.0, 1.0], [4.0, 4.0]])
    said = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])  # takes the second
    found = regrets(said, truth, 1)
    assert found.personal.tolist() == [0.25] and found.common == 0.25


def test_who_has_no_answer_for_a_course_does_not_choose_it():
    truth = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    said = np.where(np.arange(3)[:, None] == 0, np.inf, truth)
    found = regrets(said, truth, 1)
    assert found.common_choice == 1 and (found.personal_choice == 1).all()
    silent = regrets(np.full((3, 3), np.nan), truth, 1)
    assert silent.common == 1.0 and (silent.personal == 1.0).all()


def test_a_common_choice_is_judged_by_what_is_beyond_that_of_the_yardstick():
    truth = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [4.0, 4.0, 4.0]])  # the planning draw says the first
    found = {name: regrets(truth, truth, 1) for name in (TRUTH, JUDGED)}
    target = {"at_most": 0.01, "unit": "1", "source": ""}
    lines = judged("x", found, {"personal_regret": target, "common_regret": target}, judge=True)
    values = {line.name: (line.value, line.ok, line.target) for line in lines}
    assert values[f"x_{TRUTH}_common_regret"] == (0.25, True, None)
    assert values[f"x_{JUDGED}_common_regret"] == (0.0, True, "<= 0.01")
    assert values[f"x_{JUDGED}_personal_regret"] == (0.0, True, "<= 0.01")


def test_equal_toxicity_is_not_equal_kill():
    stake = fraction_stake({ALPHA: np.full(3, 0.035)}, options())
    assert stake == pytest.approx(0.035 * (72.0 - 69.3), rel=0.05)


def test_the_kill_of_the_mass_is_that_of_the_voxels():
    values = {D: [1e-6], RHO: [1e-9], ALPHA: [0.05], SENSITIVITY: [0.3]}
    days, found = kills(case(), {p: np.asarray(v) for p, v in values.items()}, case().schedule)
    still = set_parameters(case().model, {p: v[0] for p, v in values.items()})
    solved = simulate(still, case().schedule, (0.0, 40.0), case().solver, estimate_error=False)
    start, end = np.asarray(solved.states.density).sum(axis=(1, 2, 3))
    assert days.shape == found.shape == (1, 10)
    assert np.log(start / end) == pytest.approx(found.sum(), rel=1e-5)


def test_masses_are_learned_from_samples_and_asked_about_other_courses():
    settings = Training(rate=0.01, epochs=2)
    learned = learn_masses(case(), [surrogate_case.training()], settings, key=jax.random.key(0), checkpoint=None)
    assert set(learned) == {"mechanism", "network", "hybrid"}
    values = {p: np.asarray(v)[:3] for p, v in surrogate_case.training().design.values.items()}
    twice = Schedule(weekday_fractions(10.0, 5, 4.0), case().schedule.drugs)
    for made in learned.values():
        once, more = (log_masses(case(), made, values, schedule) for schedule in (case().schedule, twice))
        assert once.shape == (3, len(case().days)) and np.isfinite(once).all() and (more < once).all()


def test_a_surrogate_that_vouches_for_nothing_leaves_every_tumor_to_the_model():
    surrogate = surrogate_case.calibrated()
    values = {p: np.asarray(v)[:3] for p, v in surrogate_case.training().design.values.items()}
    truth, _ = by_pde(case().model, case().solver, case().days)(values, case().schedule)
    alone, checked = by_surrogate(surrogate, case().days)
    said, none = alone(values, case().schedule)
    known, some = checked(values, case().schedule)
    assert none == 0.0 and some < 1.0
    np.testing.assert_allclose(said, truth, atol=0.05)
    np.testing.assert_allclose(known, truth, atol=0.05)
    timid = surrogate.with_error(dataclasses.replace(surrogate.error, tolerance=jnp.asarray(0.0)))
    left, every = by_surrogate(timid, case().days)[1](values, case().schedule)
    assert every == 1.0
    np.testing.assert_allclose(left, truth, rtol=1e-12)
