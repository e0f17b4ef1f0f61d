"""Plan variables become a schedule, with gradients; constraints and toxicity know the standard of care."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.control import (
    EffectiveDose,
    FractionDose,
    PlanVariables,
    StartWindow,
    TotalDose,
    WeeklyFractions,
    complication_probability,
    generalized_equivalent_dose,
    organ_tolerances,
    toxicity,
)
from tumortwin.treatments import (
    Course,
    Schedule,
    biologically_effective_dose,
    equivalent_dose_2gy,
    log_kill,
    repopulated_dose,
    survival,
    weekday_fractions,
)


def test_standard_of_care_is_thirty_weekday_fractions():
    weeks = WeeklyFractions()
    course = weeks.schedule(weeks.uniform(2.0, 7.0)).radiotherapy
    expected = weekday_fractions(7.0, 30, 2.0)
    np.testing.assert_array_equal(course.times, expected.times)
    np.testing.assert_array_equal(course.doses, expected.doses)


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4])
def test_weekends_are_kept_whatever_the_first_weekday(first):
    weeks = WeeklyFractions(n_weeks=2, first_weekday=first)
    course = weeks.schedule(weeks.uniform(2.0, 0.0)).radiotherapy
    np.testing.assert_array_equal(course.times, weekday_fractions(0.0, 10, 2.0, start_weekday=first).times)


def test_drugs_move_with_the_start_and_fixed_treatment_does_not():
    temozolomide = Course(jnp.arange(42.0), jnp.ones(42))
    before = Schedule(
        Course(jnp.asarray([1.0]), jnp.asarray([5.0])), {"temozolomide": Course(jnp.asarray([2.0]), jnp.ones(1))}
    )
    weeks = WeeklyFractions(concurrent={"temozolomide": temozolomide}, fixed=before)
    schedule = weeks.schedule(weeks.uniform(2.0, 30.0))
    assert schedule.radiotherapy.size == 31 and schedule.radiotherapy.times[0] == 1.0
    np.testing.assert_array_equal(schedule.drugs["temozolomide"].times, np.append(2.0, 30.0 + np.arange(42)))
    moved = jax.jacobian(lambda day: weeks.schedule(PlanVariables(jnp.full(6, 2.0), day)).drugs["temozolomide"].times)
    np.testing.assert_array_equal(moved(jnp.asarray(30.0)), np.append(0.0, np.ones(42)))


def test_every_fraction_of_a_week_carries_its_dose_and_gradient():
    weeks = WeeklyFractions(n_weeks=3, fractions_per_week=2)
    doses = jnp.asarray([1.0, 0.0, 3.0])
    np.testing.assert_array_equal(weeks.fraction_doses(PlanVariables(doses, 0.0)), [1, 1, 0, 0, 3, 3])
    gradient = jax.grad(lambda d: jnp.sum(weeks.fraction_doses(PlanVariables(d, 0.0)) ** 2))(doses)
    np.testing.assert_array_equal(gradient, [4.0, 0.0, 12.0])


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="1-5 fractions"):
        WeeklyFractions(fractions_per_week=6)
    with pytest.raises(ValueError, match="6 weekly fraction doses"):
        WeeklyFractions().schedule(PlanVariables(jnp.ones(5), 0.0))


def test_linear_quadratic_closed_forms():
    assert float(survival(jnp.asarray(2.0), 0.05, 10.0)) == pytest.approx(0.88692044, abs=1e-8)
    assert float(survival(jnp.asarray(2.0), 0.05, 10.0)) ** 30 == pytest.approx(0.02732372, abs=1e-8)
    doses = jnp.full(30, 2.0)
    assert float(jnp.sum(log_kill(doses, 0.05, 10.0))) == pytest.approx(
        0.05 * float(biologically_effective_dose(doses, 10.0))
    )
    assert float(biologically_effective_dose(doses, 10.0)) == pytest.approx(72.0)
    assert float(biologically_effective_dose(jnp.full(25, 2.0), 10.0)) == pytest.approx(60.0)
    assert float(biologically_effective_dose(doses, 3.0)) == pytest.approx(100.0)
    assert float(equivalent_dose_2gy(doses, 3.0)) == pytest.approx(60.0)
    three = jnp.full(20, 3.0)
    n = equivalent_dose_2gy(three, 3.0) / 2.0
    assert float(n * 2.0 * (1 + 2.0 / 3.0)) == pytest.approx(float(biologically_effective_dose(three, 3.0)))
    assert float(repopulated_dose(doses, 0.3, 10.0, 39.0, 28.0, 4.0)) == pytest.approx(72 - np.log(2) * 11 / 1.2)
    assert float(repopulated_dose(doses, 0.3, 10.0, 20.0, 28.0, 4.0)) == pytest.approx(72.0)


def test_standard_of_care_meets_its_own_limits_with_equality():
    weeks = WeeklyFractions()
    plan = weeks.uniform(2.0, 3.0)
    for constraint in (TotalDose(60.0), EffectiveDose(100.0), FractionDose(2.0), StartWindow(0.0, 3.0)):
        assert float(constraint.violation(plan, weeks)) == pytest.approx(0.0, abs=1e-12)
    assert float(TotalDose(55.0).violation(plan, weeks)) == pytest.approx(5.0)
    assert float(FractionDose(3.0, 2.5).violation(plan, weeks)) == pytest.approx(0.5)
    assert float(StartWindow(4.0, 9.0).violation(plan, weeks)) == pytest.approx(1.0)
    assert toxicity(weeks.fraction_doses(plan)).describe() == pytest.approx(
        {"total_dose_gy": 60, "bed_3_gy": 100, "eqd2_3_gy": 60, "bed_10_gy": 72, "max_fraction_dose_gy": 2}
    )


def test_complication_probability_and_its_constants():
    organs = organ_tolerances()
    brain = organs["brain"]
    assert float(complication_probability(brain.td50, brain)) == pytest.approx(0.5)
    assert float(complication_probability(50.0, brain)) == pytest.approx(0.13326, abs=5e-6)
    for organ in organs.values():
        assert organ.citation.strip() and organ.endpoint.strip()
        rising = [float(complication_probability(d, organ)) for d in (10.0, 30.0, 50.0, 70.0)]
        assert rising == sorted(rising)


def test_generalized_equivalent_dose_between_mean_and_maximum():
    combined = jax.jit(generalized_equivalent_dose)
    doses, volumes = jnp.asarray([0.0, 20.0, 60.0]), jnp.asarray([2.0, 1.0, 1.0])
    assert float(combined(doses, volumes, 1.0)) == pytest.approx(20.0)
    assert float(combined(doses, volumes, 1e-3)) == pytest.approx(60.0, rel=2e-3)
    assert float(combined(jnp.full(4, 33.0), jnp.ones(4), 0.25)) == pytest.approx(33.0)
    assert float(combined(jnp.zeros(2), jnp.ones(2), 0.25)) == 0.0
    by_hand = (0.25 * 20.0**4 + 0.25 * 60.0**4) ** 0.25
    assert float(combined(doses, volumes, 0.25)) == pytest.approx(by_hand)
    assert np.isfinite(jax.jit(jax.grad(generalized_equivalent_dose))(doses, volumes, 0.25)).all()
