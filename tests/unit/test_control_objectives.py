"""Objectives on curves whose values are known, their gradients, and the units they ask for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from tumortwin.control import (
    AreaUnderBurden,
    BurdenAtDay,
    ChanceLimit,
    CompleteResponse,
    Curve,
    CVaR,
    DrugUsed,
    GivenDose,
    Nadir,
    RelativeLoss,
    ResistantFraction,
    RiskLimit,
    RockafellarUryasev,
    TimeToProgression,
    WorstCase,
    probability_within,
)
from tumortwin.treatments import Course

DAYS = jnp.asarray([0.0, 4.0, 4.0, 10.0, 20.0])
BURDEN = jnp.asarray([100.0, 150.0, 30.0, 30.0, 90.0])
CURVE = Curve(
    DAYS,
    BURDEN,
    quantities={
        "white_cells": jnp.asarray([6.0, 5.0, 2.0, 1.0, 4.0]),
        "resistant": jnp.asarray([1.0, 2.0, 2.0, 6.0, 30.0]),
        "body_weight": jnp.asarray([20.0, 21.0, 21.0, 17.0, 19.0]),
    },
    given={"drug": Course(jnp.asarray([4.0, 8.0]), jnp.asarray([1.0, 0.5]))},
    units={"burden": "mm^3", "resistant": "mm^3", "white_cells": "1e9/L"},
)


def by_quadrature(start, end):
    def size(day):
        return float(jnp.exp(CURVE.log_burden(day)))

    knots = [start, *(d for d in (4.0, 10.0, 20.0) if start < d < end), end]
    return sum(quad(size, a, b - 1e-12)[0] for a, b in zip(knots, knots[1:], strict=False))


@pytest.mark.parametrize(("start", "end"), [(0.0, 20.0), (2.0, 7.0), (4.0, 10.0)])
def test_area_under_the_burden_is_that_of_quadrature(start, end):
    assert float(AreaUnderBurden(start, end)(CURVE)) == pytest.approx(by_quadrature(start, end), rel=1e-8)


def test_area_has_a_gradient_on_level_pieces():
    def area(scale):
        return AreaUnderBurden(0.0, 20.0)(Curve(DAYS, BURDEN * scale))

    assert float(jax.grad(area)(1.0)) == pytest.approx(float(area(1.0)), rel=1e-10)  # homogeneous of degree one


def test_burden_on_a_day_and_named_states_between_days():
    assert float(BurdenAtDay(4.0)(CURVE)) == pytest.approx(30.0)  # after the dose
    assert float(BurdenAtDay(15.0)(CURVE)) == pytest.approx(np.sqrt(30.0 * 90.0))
    assert float(CURVE.value("white_cells", 7.0)) == pytest.approx(1.5)
    assert float(ResistantFraction(10.0)(CURVE)) == pytest.approx(0.2)


def test_complete_response_exact_and_soft():
    gone = Curve(DAYS, BURDEN * jnp.asarray([1, 1, 1, 1, 0.1]), units={"burden": "mm^3"})
    assert float(CompleteResponse(20.0)(gone)) == 0.0 and float(CompleteResponse(20.0)(CURVE)) == 1.0
    edge = Curve(DAYS, BURDEN / 9.0, units={"burden": "mm^3"})
    assert float(CompleteResponse(20.0)(edge)) == 0.0  # 10 mm^3 is 0.01 cm^3: complete
    assert float(CompleteResponse(20.0, softness=0.3)(edge)) == pytest.approx(0.5)
    soft = [float(CompleteResponse(20.0, softness=s)(CURVE)) for s in (1.0, 0.3, 0.01)]
    assert soft == sorted(soft) and soft[-1] == pytest.approx(1.0)


def test_units_are_asked_for():
    with pytest.raises(ValueError, match="the unit of 'burden'"):
        CompleteResponse(20.0)(Curve(DAYS, BURDEN))
    with pytest.raises(ValueError, match="a burden in mm"):
        CompleteResponse(20.0)(Curve(DAYS, BURDEN, units={"burden": "1e9 cells"}))
    with pytest.raises(ValueError, match="1e9/L"):
        Nadir("resistant", 0.0, 20.0)(CURVE)
    mixed = Curve(DAYS, BURDEN, {"resistant": BURDEN}, units={"burden": "mm^3", "resistant": "1e9 cells"})
    with pytest.raises(ValueError, match="in the unit of the burden"):
        ResistantFraction(10.0)(mixed)
    with pytest.raises(ValueError, match="a quantity of the curve"):
        ResistantFraction(10.0, "unknown")(CURVE)


def test_nadir_and_weight_loss():
    assert float(Nadir("white_cells", 0.0, 20.0)(CURVE)) == -1.0
    assert float(Nadir("white_cells", 12.0, 20.0)(CURVE)) == pytest.approx(-1.6)  # at the start of the window
    assert float(Nadir("white_cells", 0.0, 3.0)(CURVE)) == pytest.approx(-5.25)
    soft = float(Nadir("white_cells", 0.0, 20.0, softness=0.05)(CURVE))
    assert -1.0 - 0.05 * np.log(7) <= soft <= -1.0
    assert float(RelativeLoss("body_weight", 0.0, 20.0)(CURVE)) == pytest.approx(0.15)
    assert float(RelativeLoss("body_weight", 0.0, 3.0)(CURVE)) == 0.0  # nothing lost yet
    gradient = jax.grad(
        lambda low: Nadir("w", 0.0, 20.0, softness=0.5, unit="1")(
            Curve(DAYS, BURDEN, {"w": jnp.asarray([6.0, 5.0, 2.0, 1.0, 4.0]).at[3].set(low)}, units={"w": "1"})
        )
    )(1.0)
    assert -1.0 < float(gradient) < -0.5


def test_given_doses_count():
    assert float(GivenDose("drug")(CURVE)) == 1.5
    with pytest.raises(ValueError, match="decides on"):
        GivenDose("other")(CURVE)


# --- risks by a threshold, and limits on outcomes ---

LOSSES = st.lists(st.floats(-100, 100), min_size=9, max_size=9)
LEVELS = st.sampled_from([0.0, 0.1, 0.5, 0.8, 0.95])


@settings(max_examples=40, deadline=None)
@given(LOSSES, LEVELS, st.floats(-120, 120))
def test_the_threshold_form_is_the_sorted_estimator_at_its_minimum(values, level, other):
    z, risk = jnp.asarray(values), RockafellarUryasev(level)
    exact = float(CVaR(level)(z))
    assert float(risk(z)) == pytest.approx(exact, abs=1e-8)
    assert float(risk.at(other, z)) >= exact - 1e-8
    assert float(risk.at(risk.threshold(z), z)) == pytest.approx(exact, abs=1e-8)


@settings(max_examples=20, deadline=None)
@given(LOSSES, st.sampled_from([0.5, 0.8]))
def test_the_smooth_threshold_form_is_above_and_near(values, level):
    z, soft = jnp.asarray(values), RockafellarUryasev(level, 0.05)
    exact = float(CVaR(level)(z))
    assert exact - 1e-9 <= float(soft(z)) <= exact + 0.05 * np.log(2.0) / (1.0 - level) + 1e-9
    weight = jax.grad(soft)(z)
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-6) and float(weight.min()) >= 0.0


def test_threshold_form_with_weights_repeats_draws():
    z, w = jnp.asarray([3.0, -1.0, 7.0, 2.0]), np.asarray([2, 3, 1, 4])
    for risk in (RockafellarUryasev(0.7), RockafellarUryasev(0.7, 0.1)):
        assert float(risk(z, jnp.asarray(w, dtype=float))) == pytest.approx(float(risk(jnp.repeat(z, w))), abs=1e-9)
    assert float(WorstCase()(z)) == 7.0
    assert float(WorstCase()(z, jnp.asarray([1.0, 1.0, 0.0, 1.0]))) == 3.0
    np.testing.assert_array_equal(jax.grad(WorstCase())(z), [0.0, 0.0, 1.0, 0.0])


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.floats(-100, 100), st.sampled_from([0.5, 0.75, 0.9]))
def test_the_surrogate_of_a_chance_limit_is_conservative(values, limit, probability):
    z, chance = jnp.asarray(values), ChanceLimit(GivenDose("drug"), limit, probability)
    exact = ChanceLimit(GivenDose("drug"), limit, probability, exact=True)
    found = probability_within(z, limit)
    assert found == pytest.approx(np.mean(np.asarray(values) <= limit))
    assert (float(exact.residual(z)) <= 0.0) == (found >= probability - 1e-9)
    if float(chance.residual(z)) <= 0.0:
        assert found >= probability - 1e-9 and chance.checked(z)["kept"]
    assert float(chance.residual(z)) >= float(exact.residual(z)) - 1e-9


def test_a_risk_limit_is_the_risk_less_the_limit():
    z = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    limit = RiskLimit(GivenDose("drug"), CVaR(0.5), 3.0)
    assert float(limit.residual(z)) == pytest.approx(0.5)
    assert limit.checked(z) == {"value": pytest.approx(3.5), "kept": False}


def test_progression_may_be_a_factor_above_the_reference_or_above_the_first_reading():
    """Doubling every 10 days from 1 at day 0: 1.5 is reached after 10 log2(1.5) days, 4 (a first reading) after 20."""
    days = jnp.linspace(0.0, 40.0, 41)
    curve = Curve(days, 2.0 ** (days / 10.0), parameters={"first_burden": jnp.asarray(4.0)})
    sharp: dict[str, Any] = {"reference_day": 0.0, "horizon": 40.0, "softness": 1e-4}
    assert float(TimeToProgression(**sharp, factor=1.5)(curve)) == pytest.approx(-10.0 * np.log2(1.5), abs=1e-2)
    assert float(TimeToProgression(**sharp, reference="first_burden")(curve)) == pytest.approx(-20.0, abs=1e-2)
    with pytest.raises(ValueError, match="a parameter of the curve"):
        TimeToProgression(**sharp, reference="nadir")(curve)
    with pytest.raises(ValueError, match="a factor above 0"):
        TimeToProgression(**sharp, factor=0.0)


def test_drug_used_is_the_area_under_a_level_that_holds():
    days = jnp.asarray([0.0, 5.0, 15.0, 20.0])
    curve = Curve(days, jnp.ones(4), quantities={"exposure": jnp.asarray([1.0, 0.0, 0.5, 0.5])})
    assert float(DrugUsed(0.0, 20.0)(curve)) == 5.0 + 0.5 * 5.0
    assert float(DrugUsed(2.0, 16.0)(curve)) == 3.0 + 0.5 * 1.0
    with pytest.raises(ValueError, match="a quantity of the curve"):
        DrugUsed(0.0, 20.0)(CURVE)
