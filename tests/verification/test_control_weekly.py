"""Weekly fractions by the general controllers: as good as projected gradients, delivered in whole steps."""

import jax
import numpy as np
import pytest
from test_control_logistic import SOC, burden, draws

from tumortwin.control import (
    CovarianceAdaptation,
    CVaR,
    Delivered,
    EffectiveDose,
    FractionDose,
    MeanLogBurden,
    PlanningProblem,
    ProjectedGradient,
    RiskLimit,
    ScipyGradient,
    StartWindow,
    WeeklyFractions,
    make_plan,
    optimize,
)

WEEKS = WeeklyFractions()
LIMITS = (FractionDose(3.0), EffectiveDose(100.0), StartWindow(1.0, 16.0))


def case(limits=()):
    return PlanningProblem(
        burden, draws(16), WEEKS, MeanLogBurden(0.0, 200.0), CVaR(0.8), LIMITS, sequential=False, outcome_limits=limits
    )


@pytest.fixture(scope="module")
def projected():
    return optimize(case(), ProjectedGradient(WEEKS.uniform(2.0, 9.0), start_step=7.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "loss"),
    [(ScipyGradient(starts=3), 0.01), (CovarianceAdaptation(evaluations=700), 0.1)],
    ids=["slsqp", "cma"],
)
def test_other_searches_find_the_plan_of_projected_gradients(projected, search, loss):
    reference = WEEKS.uniform(2.0, 9.0)
    found = optimize(case(), Delivered(search, reference, start_step=7.0, dose_step=0.05), key=jax.random.key(2))
    gain = make_plan(case(), reference, name="reference").risk["value"] - projected.risk["value"]
    assert gain > 0.0
    assert found.risk["value"] <= projected.risk["value"] + loss * gain + 1e-3
    assert found.start_day in {2.0, 9.0, 16.0}
    steps = np.asarray(found.weekly_fraction_dose) / 0.05
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert all(entry["violation"] <= 1e-9 for entry in found.constraints)


def test_rounding_refuses_limits_that_it_could_break():
    limit = RiskLimit(MeanLogBurden(0.0, 100.0), CVaR(0.8), 0.0)
    with pytest.raises(ValueError, match="limits on the decision alone"):
        optimize(case((limit,)), Delivered(ScipyGradient(), SOC))
    with pytest.raises(ValueError, match="limits on the outcome"):
        optimize(case((limit,)), ProjectedGradient(SOC))
