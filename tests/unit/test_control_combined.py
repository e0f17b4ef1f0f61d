"""Radiotherapy and drugs decided together: one vector, one schedule, the limits of each and of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control_case import END

from tumortwin.control import (
    Combined,
    CovarianceAdaptation,
    CumulativeDose,
    Curve,
    DoseLevels,
    EffectiveDose,
    FractionDose,
    LockOut,
    LogBurden,
    Mean,
    OfPart,
    PlanningProblem,
    PlanVariables,
    Region,
    ShiftedCycles,
    Slots,
    StartWindow,
    TotalDose,
    WeeklyFractions,
    optimize,
    suitable_controller,
)
from tumortwin.treatments import Course

WEEKS = WeeklyFractions(n_weeks=2, concurrent={"temozolomide": Course(jnp.arange(10.0), jnp.ones(10))})
CYCLES = ShiftedCycles("drug", 2, dose=1.0, start=(0.0, 4.0), interval=(7.0, 9.0))
LEVELS = DoseLevels((Slots("other", (3.0, 10.0)),), (0.0, 0.5, 1.0))
BOTH = Combined({"radiation": WEEKS, "drug": CYCLES, "other": LEVELS})
LIMITS = (
    TotalDose(24.0),
    EffectiveDose(40.0),
    OfPart("radiation", FractionDose(3.0)),
    OfPart("radiation", StartWindow(0.0, 3.0)),
    OfPart("other", LockOut(9.0, 11.0)),
    CumulativeDose("other", 1.0),
)


def test_parts_pack_into_one_vector_and_one_schedule():
    vector = jnp.asarray([2.0, 1.5, 1.0, 3.0, 8.0, 1.0, 2.0])
    variables = BOTH.variables(vector)
    np.testing.assert_array_equal(BOTH.vector(variables), vector)
    assert isinstance(variables["radiation"], PlanVariables)
    assert BOTH.space.names[2:5] == ("radiation.start_day", "drug.start", "drug.interval")
    schedule = BOTH.schedule(variables)
    assert schedule.radiotherapy.size == 10 and set(schedule.drugs) == {"temozolomide", "drug", "other"}
    np.testing.assert_array_equal(schedule.drugs["drug"].times, [3.0, 11.0])
    np.testing.assert_array_equal(schedule.drugs["other"].doses, [0.5, 1.0])
    assert schedule.drugs["temozolomide"].times[0] == 1.0
    cost = BOTH.cost(variables)
    assert cost["total_dose_gy"] == pytest.approx(17.5) and cost["drug_total"] == 2.0
    with pytest.raises(ValueError, match="each agent in one"):
        Combined({"a": LEVELS, "b": LEVELS})
    with pytest.raises(ValueError, match="the part 'surgery'"):
        Region.of(BOTH, (OfPart("surgery", TotalDose(1.0)),))


def test_limits_of_a_part_are_rows_of_the_whole():
    region = Region.of(BOTH, LIMITS)
    np.testing.assert_allclose(region.upper, [3.0, 3.0, 3.0, 4.0, 9.0, 2.0, 0.0])
    np.testing.assert_array_equal(region.space.integer, [False] * 3 + [True] * 4)
    assert region.curved == (1,)
    assert region.contains(np.asarray([2.4, 2.0, 0.0, 0.0, 7.0, 2.0, 0.0]))
    assert not region.contains(np.asarray([2.4, 2.5, 0.0, 0.0, 7.0, 2.0, 0.0]))


@pytest.mark.slow
def test_a_mixed_decision_is_planned_within_all_limits():
    def burden(draw, schedule):
        kill = draw["alpha"] * jnp.sum(schedule.radiotherapy.doses)
        drug = schedule.drugs["drug"]
        late = jnp.sum(drug.doses * jnp.exp(-0.05 * (drug.times - 8.0) ** 2))  # best around day 8
        left = 1.0 - kill - 0.5 * late - 0.3 * jnp.sum(schedule.drugs["other"].doses)
        return Curve(jnp.asarray([0.0, END]), jnp.stack([jnp.asarray(1.0), jnp.exp(left)]))

    case = PlanningProblem(
        burden, {"alpha": jnp.asarray([0.05, 0.1])}, BOTH, LogBurden(END), Mean(), LIMITS, sequential=False
    )
    assert isinstance(suitable_controller(case), CovarianceAdaptation)
    found = optimize(case, CovarianceAdaptation(evaluations=350), key=jax.random.key(0))
    assert all(entry["violation"] <= 1e-9 for entry in found.constraints)
    even = (-3.0 + np.sqrt(9.0 + 48.0)) / 2.0  # d (1 + d / 3) = 4 in each of ten fractions
    np.testing.assert_allclose(found.variables["radiation"].weekly_fraction_dose, even, atol=0.1)
    best = max(sum(np.exp(-0.05 * (s + k * i - 8.0) ** 2) for k in range(2)) for s in range(5) for i in range(7, 10))
    start, interval = (float(v) for v in found.variables["drug"])
    assert sum(np.exp(-0.05 * (start + k * interval - 8.0) ** 2) for k in range(2)) == pytest.approx(best, abs=0.05)
    np.testing.assert_array_equal(found.variables["other"], [2.0, 0.0])
