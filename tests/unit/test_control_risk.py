"""Risk measures against closed forms, sorted loops and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tumortwin.control import CVaR, Entropic, Mean, Quantile, RockafellarUryasev, WorstCase

LOSSES = st.lists(st.floats(-100, 100), min_size=9, max_size=9)  # one size: one compilation


def published_estimator(values, level):
    """Descending sample, k = ceil(n (1 - level)), q = Z_(k), q + sum_{j<k}(Z_(j) - q) / (n (1 - level))."""
    z = np.sort(np.asarray(values))[::-1]
    tail = z.size * (1 - level)
    k = int(np.ceil(tail - 1e-9))
    q = z[k - 1]
    return q + np.sum(z[: k - 1] - q) / tail


@pytest.mark.parametrize(("level", "expected"), [(0.8, 1.39981), (0.9, 1.75498), (0.95, 2.06271)])
def test_cvar_of_the_standard_normal(level, expected):
    n = 200_000
    sample = jnp.asarray(stats.norm.ppf((np.arange(n) + 0.5) / n))
    assert float(CVaR(level)(sample)) == pytest.approx(expected, abs=5e-5)
    assert expected == pytest.approx(stats.norm.pdf(stats.norm.ppf(level)) / (1 - level), abs=6e-6)


def test_cvar_of_a_lognormal():
    n = 200_000
    sample = jnp.asarray(np.exp(0.5 * stats.norm.ppf((np.arange(n) + 0.5) / n)))
    assert float(CVaR(0.95)(sample)) == pytest.approx(2.85859, abs=2e-4)


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.sampled_from([0.0, 0.1, 0.5, 0.8, 0.95]))
def test_cvar_is_the_published_estimator_and_bounds_the_quantile(values, level):
    z = jnp.asarray(values)
    found = float(CVaR(level)(z))
    assert found == pytest.approx(published_estimator(values, level), abs=1e-9)
    assert found >= float(Quantile(level)(z)) - 1e-9
    assert found >= float(Mean()(z)) - 1e-9
    assert found <= max(values) + 1e-9


@settings(max_examples=25, deadline=None)
@given(LOSSES)
def test_cvar_rises_with_its_level_from_the_mean_to_the_worst(values):
    z = jnp.asarray(values)
    levels = [0.0, 0.2, 0.5, 0.9, 1 - 1e-6]
    found = [float(CVaR(a)(z)) for a in levels]
    assert found[0] == pytest.approx(np.mean(values), abs=1e-9)
    assert all(b >= a - 1e-9 for a, b in zip(found, found[1:], strict=False))
    assert found[-1] == pytest.approx(max(values), abs=1e-4)


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.7), Quantile(0.6), Entropic(0.3)])
def test_integer_weights_are_repeated_draws(risk):
    z, w = jnp.asarray([3.0, -1.0, 7.0, 2.0]), np.asarray([2, 3, 1, 4])
    assert float(risk(z, jnp.asarray(w, dtype=float))) == pytest.approx(float(risk(jnp.repeat(z, w))))


RISKS = [Mean(), CVaR(0.7), Quantile(0.6), Entropic(0.3), WorstCase(), RockafellarUryasev(0.7)]


@settings(max_examples=25, deadline=None)
@given(LOSSES, st.permutations(range(9)), st.sampled_from(RISKS))
def test_the_order_of_the_draws_changes_nothing(values, order, risk):
    z = jnp.asarray(values)
    assert float(risk(z[jnp.asarray(order)])) == pytest.approx(float(risk(z)), abs=1e-9)


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.7), Quantile(0.6), Entropic(0.3)])
def test_gradient_is_a_probability_over_draws_and_matches_differences(risk):
    z = jnp.asarray([3.0, -1.0, 7.0, 2.0, 0.5, 4.0, 6.0])
    gradient = jax.grad(risk)(z)
    assert float(gradient.sum()) == pytest.approx(1.0) and float(gradient.min()) >= 0.0
    step = 1e-5 * jnp.eye(z.size)
    differences = [(risk(z + e) - risk(z - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(gradient, differences, atol=1e-7)


def test_only_tail_draws_carry_gradient_and_the_atom_is_split():
    gradient = jax.grad(CVaR(0.75))(jnp.arange(6.0))
    np.testing.assert_allclose(gradient, [0, 0, 0, 0, 1 / 3, 2 / 3], atol=1e-12)


def test_entropic_between_mean_and_worst():
    z = jnp.asarray([0.0, 1.0, 4.0])
    assert float(Entropic(1e-6)(z)) == pytest.approx(5 / 3, abs=1e-5)
    assert float(Entropic(200.0)(z)) == pytest.approx(4.0, abs=1e-2)


def test_levels_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"level in \[0, 1\)"):
        CVaR(1.0)
