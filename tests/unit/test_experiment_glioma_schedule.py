"""The joint schedule of radiotherapy and drug: its limits are those of the standard of care."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.glioma_schedule.decision import DECISION, DRUG_DAYS, FRACTIONS, LIMITS, SLOTS, STANDARD
from tumortwin.control import Curve, LogBurden, Mean, PlanningProblem, ScipyGradient, optimize


def test_the_standard_of_care_uses_up_every_limit():
    for limit in LIMITS:
        assert float(np.max(limit.residuals(jnp.asarray(STANDARD), DECISION))) == pytest.approx(0.0, abs=1e-9)
    courses = DECISION.courses(jnp.asarray(STANDARD))
    assert float(courses["temozolomide"].doses.sum()) == DRUG_DAYS and courses["radiotherapy"].size == FRACTIONS


def problem():
    """Log-kill by total doses alone: no schedule within the limits is better than the standard of care."""

    def burden(draw, schedule):
        kill = 0.1 * schedule.radiotherapy.doses.sum() + draw["drug"] * schedule.drugs["temozolomide"].doses.sum()
        return Curve(jnp.asarray([0.0, 100.0]), jnp.stack([jnp.asarray(1.0), jnp.exp(-kill)]))

    draws = {"drug": jnp.asarray([0.01, 0.02])}
    return PlanningProblem(burden, draws, DECISION, LogBurden(100.0), Mean(), LIMITS, sequential=False)


def test_a_search_begins_where_it_is_told_to_and_gains_nothing_where_nothing_can_be_gained():
    found = optimize(problem(), ScipyGradient(start=tuple(STANDARD), max_iterations=5))
    standard = float(Mean()(problem().losses(jnp.asarray(STANDARD))))
    assert found.risk["value"] == pytest.approx(standard, abs=1e-7)
    assert found.convergence["starts"] == 1


def test_a_start_of_another_length_is_refused():
    with pytest.raises(ValueError, match=rf"a start of {FRACTIONS + SLOTS} components"):
        optimize(problem(), ScipyGradient(start=(1.0, 2.0)))
