"""Schedules, radiobiology and the log-kill path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumortwin.treatments import (
    Course,
    LogKill,
    Resection,
    Schedule,
    biologically_effective_dose,
    equivalent_dose_2gy,
    log_kill,
    repopulated_dose,
    survival,
    weekday_fractions,
)


def test_survival_values_of_the_literature():
    """2 Gy at alpha 0.05 /Gy, alpha/beta 10 Gy: 0.88692044; thirty of them: 0.02732372."""
    one = float(survival(jnp.asarray([2.0]), 0.05, 10.0)[0])
    assert one == pytest.approx(0.88692044, abs=5e-9)
    assert one**30 == pytest.approx(0.02732372, abs=5e-9)


def test_biologically_effective_doses():
    thirty, twenty_five = jnp.full(30, 2.0), jnp.full(25, 2.0)
    assert float(biologically_effective_dose(thirty, 10.0)) == pytest.approx(72.0)
    assert float(biologically_effective_dose(twenty_five, 10.0)) == pytest.approx(60.0)
    assert float(biologically_effective_dose(thirty, 3.0)) == pytest.approx(100.0)
    assert float(equivalent_dose_2gy(thirty, 7.0)) == pytest.approx(60.0)
    assert float(repopulated_dose(thirty, 0.3, 10.0, 20.0, 28.0, 3.0)) == pytest.approx(72.0)
    lost = 72.0 - float(repopulated_dose(thirty, 0.3, 10.0, 40.0, 28.0, 3.0))
    assert lost == pytest.approx(np.log(2.0) * 12.0 / 0.9)


@pytest.mark.parametrize("alpha_beta", [2.0, 10.0])
def test_equal_effect_schedules_survive_equally_and_the_order_flips_with_alpha_beta(alpha_beta):
    conventional, hypofractionated = jnp.full(30, 2.0), jnp.full(15, 3.4)
    late = biologically_effective_dose(hypofractionated, 2.0) > biologically_effective_dose(conventional, 2.0)
    early = biologically_effective_dose(hypofractionated, 10.0) > biologically_effective_dose(conventional, 10.0)
    assert bool(late) and not bool(early)
    one = jnp.asarray([5.0])
    n = biologically_effective_dose(conventional, alpha_beta) / biologically_effective_dose(one, alpha_beta)
    assert float(n * log_kill(one, 0.05, alpha_beta)[0]) == pytest.approx(
        float(jnp.sum(log_kill(conventional, 0.05, alpha_beta)))
    )


@settings(deadline=None, max_examples=50)
@given(start=st.integers(-20, 400), weekday=st.integers(0, 6), n=st.integers(0, 40))
def test_fractions_fall_on_weekdays(start, weekday, n):
    times = np.asarray(weekday_fractions(float(start), n, 2.0, weekday).times)
    assert times.shape == (n,)
    days = (times - start + weekday) % 7
    assert np.all(days < 5) and np.all(np.diff(times) >= 1)
    assert n == 0 or times[0] - start <= 2
    assert n < 2 or times[-1] - times[0] <= 7 * (n // 5 + 1)


def test_schedules_are_checked_and_kept_in_order():
    with pytest.raises(ValueError, match="one dose a time"):
        Course(jnp.zeros(2), jnp.zeros(3))
    late, early = Resection(30.0, jnp.ones((1, 1, 1))), Resection(3.0, jnp.ones((1, 1, 1)))
    assert [r.time for r in Schedule(resections=[late, early]).resections] == [3.0, 30.0]
    described = Schedule(weekday_fractions(0.0, 2, 2.0), {"drug": Course(jnp.ones(1), jnp.ones(1))}).describe()
    assert described["radiotherapy"] == {"times": [0.0, 1.0], "doses": [2.0, 2.0]}
    assert described["drugs"]["drug"]["times"] == [1.0] and described["resections"] == []
    assert not weekday_fractions(0.0, 2, 2.0).doses.weak_type  # one compiled program for default and fitted doses


PATH = LogKill(
    1.0,
    60.0,
    jnp.asarray([0.5, 1.0, 4.0, 4.0, 9.0]),
    jnp.asarray([7.0, 0.1, 0.2, 0.3, 0.4]),
    jnp.asarray([0.0, 3.0, 3.0]),
    jnp.asarray([0.5, 0.6, 0.7]),
    jnp.asarray([9.2, 9.2, 0.2]),
)
_between = jax.jit(lambda a, b: PATH.evaluate(a, b))


@settings(deadline=None, max_examples=50)
@given(times=st.lists(st.floats(1.0, 60.0), min_size=3, max_size=3).map(sorted))
def test_log_kill_adds_up_over_intervals(times):
    a, b, c = (jnp.asarray(t) for t in times)
    whole = float(_between(a, c))
    assert whole == pytest.approx(float(_between(a, b)) + float(_between(b, c)), abs=1e-12)
    assert whole >= -1e-12


def test_intervals_are_closed_on_the_left():
    def between(a, b):
        return float(_between(jnp.asarray(a), jnp.asarray(b)))

    drug = between(1.0, 1.0 + 1e-9)
    assert drug == pytest.approx(0.1, abs=1e-6)  # the fraction on day 1 counts, that of day 0.5 is history
    quiet = PATH.evaluate(jnp.asarray(4.0), jnp.asarray(4.0))
    assert float(quiet) == 0.0
    before, after = between(3.9999999, 4.0), between(4.0, 4.0000001)
    assert before < 1e-6 and after == pytest.approx(0.5, abs=1e-6)  # both fractions of one moment count


def test_drug_kill_is_the_integral_of_its_concentration():
    t = np.linspace(1.0, 20.0, 400001)
    middle = 0.5 * (t[1:] + t[:-1])
    rate = np.zeros_like(middle)
    for tau, kappa, k in zip((0.0, 3.0, 3.0), (0.5, 0.6, 0.7), (9.2, 9.2, 0.2), strict=True):
        rate += np.where(middle >= tau, kappa * k * np.exp(-k * np.maximum(middle - tau, 0)), 0)
    drugs = LogKill(1.0, 60.0, jnp.zeros(0), jnp.zeros(0), PATH.drug_times, PATH.drug_log_kills, PATH.elimination_rates)
    exact = float(drugs.evaluate(jnp.asarray(1.0), jnp.asarray(20.0)))
    assert exact == pytest.approx(float(np.sum(rate) * (t[1] - t[0])), rel=2e-4)
