"""Error models: the density of an exact value, the probability of an interval, in both tails."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from tumortwin.observation import (
    AdditiveError,
    CombinedError,
    LogNormalError,
    ProportionalError,
    log_ndtr_between,
)

ERRORS = {
    "additive": (AdditiveError(jnp.asarray(3.0)), lambda f: stats.norm(f, 3.0)),
    "proportional": (ProportionalError(jnp.asarray(0.2)), lambda f: stats.norm(f, 0.2 * f)),
    "combined": (CombinedError(jnp.asarray(3.0), jnp.asarray(0.2)), lambda f: stats.norm(f, np.hypot(3.0, 0.2 * f))),
    "log_normal": (LogNormalError(jnp.asarray(0.3)), lambda f: stats.lognorm(0.3, scale=f)),
}
likelihood = eqx.filter_jit(lambda error, f, low, high: error.log_likelihood(f, low, high))


@pytest.mark.parametrize("name", ERRORS)
def test_exact_values_and_intervals_have_the_probability_of_scipy(name):
    error, reference = ERRORS[name]
    curve = np.asarray([5.0, 20.0, 20.0, 20.0, 40.0])
    low = np.asarray([6.0, 20.0, 19.5, 0.0, 45.0])
    high = np.asarray([6.0, 20.0, 20.5, 5.0, np.inf])
    found = likelihood(error, *map(jnp.asarray, (curve, low, high)))
    for f, a, b, value in zip(curve, low, high, found, strict=True):
        one = reference(f)
        if a == b:
            exact = one.logpdf(a)
        elif np.isinf(b):
            exact = one.logsf(a)
        else:
            exact = np.log(integrate.quad(one.pdf, a, b, epsabs=1e-14)[0])
        assert float(value) == pytest.approx(exact, rel=1e-7), (f, a, b)


@pytest.mark.parametrize("name", ERRORS)
def test_readings_beside_an_interval_have_the_same_density_as_without_one(name):
    """The tails are left out where there is no interval; neither value nor gradient may tell."""
    error, reference = ERRORS[name]
    curve, low, high = (jnp.asarray(x) for x in ([5.0, 20.0, 40.0], [6.0, 19.0, 30.0], [6.0, 19.0, 50.0]))
    slope = jax.jit(jax.value_and_grad(lambda f, a, b: jnp.sum(error.log_likelihood(f, a, b)[:2])))
    (with_one, first), (without, second) = slope(curve, low, high), slope(curve, low, low)
    expected = reference(5.0).logpdf(6.0) + reference(20.0).logpdf(19.0)
    assert float(without) == pytest.approx(expected, rel=1e-10) == float(with_one)
    np.testing.assert_allclose(first, second, rtol=1e-12)


@pytest.mark.parametrize("name", ERRORS)
def test_gradients_are_those_of_central_differences_also_for_what_is_not_used(name):
    error, _ = ERRORS[name]
    low, high = jnp.asarray([6.0, 0.0, 30.0, 4.0]), jnp.asarray([6.0, 5.0, jnp.inf, 4.5])

    @jax.jit
    def total(f):
        return jnp.sum(error.log_likelihood(jnp.full(4, f), low, high))

    h = 1e-5
    difference = (total(9.0 + h) - total(9.0 - h)) / (2 * h)
    assert float(jax.grad(total)(9.0)) == pytest.approx(float(difference), rel=1e-6)


def test_intervals_far_out_on_either_side_keep_their_digits():
    low = np.asarray([-40.0, 30.0, -5.0, 1.0, -np.inf, 10.0, -np.inf])
    high = np.asarray([-39.9, 30.1, 5.0, 1.001, -20.0, np.inf, np.inf])
    found = np.asarray(jax.jit(log_ndtr_between)(low, high))
    # The tail beyond a is mirrored: log(sf(a) - sf(b)) from the survival function on the right.
    a, b = np.where(low < 0, -high, low), np.where(low < 0, -low, high)
    exact = stats.norm.logsf(a) + np.log(-np.expm1(stats.norm.logsf(b) - stats.norm.logsf(a)))
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)  # JAX's log_ndtr(-20) is off by 2e-11
    slopes = jax.jit(jax.vmap(jax.grad(log_ndtr_between, argnums=(0, 1))))(low, high)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_a_zero_under_a_log_normal_error_is_an_interval():
    error, _ = ERRORS["log_normal"]
    zero, five = jnp.zeros(()), jnp.asarray(5.0)
    below = stats.lognorm(0.3, scale=10.0).logcdf(5.0)
    assert float(likelihood(error, jnp.asarray(10.0), zero, five)) == pytest.approx(below, rel=1e-9)
