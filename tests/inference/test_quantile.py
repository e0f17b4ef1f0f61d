"""The quantile coordinate of truncated normal priors, beside SciPy's quantiles and densities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from tumortwin.inference import Prior
from tumortwin.inference._quantile import Quantile

# location, scale, low, high: ends on both sides, both above, both below, one far away
CASES = {
    "both": (0.1, 0.05, 0.04, 0.5),
    "above": (0.0, 1.0, 3.0, 5.0),
    "below": (2.0, 0.5, -1.0, -0.5),
    "wide": (-3.0, 2.0, -40.0, 4.0),
}
T = np.asarray([-6.0, -2.5, -0.3, 0.0, 0.8, 3.0, 6.0])


def entry_of(case):
    location, scale, low, high = CASES[case]
    return dist.TruncatedNormal(location, scale, low=low, high=high)


def scipy_of(case) -> Any:
    location, scale, low, high = CASES[case]
    return stats.truncnorm((low - location) / scale, (high - location) / scale, location, scale)


@pytest.mark.parametrize("case", CASES)
def test_a_coordinate_is_the_normal_deviate_of_the_quantile(case):
    prior, theirs, (_, scale, *_) = Prior({"x": entry_of(case)}), scipy_of(case), CASES[case]
    value = jax.jit(jax.vmap(lambda t: prior.constrain(t)["x"]))(jnp.asarray(T)[:, None])
    # From the lower tail below the middle, from the upper one above it: neither loses digits.
    expected = np.where(T < 0, theirs.ppf(stats.norm.cdf(T)), theirs.isf(stats.norm.sf(T)))
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9 * scale)
    back = jax.jit(jax.vmap(lambda x: prior.unconstrain({"x": x})[0]))(jnp.asarray(value))
    np.testing.assert_allclose(back[1:-1], T[1:-1], atol=1e-6)
    log_density = jax.jit(jax.vmap(prior.log_density))(jnp.asarray(T)[:, None])
    np.testing.assert_allclose(log_density, stats.norm.logpdf(T), rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_slope_carries_one_density_to_the_other(case):
    prior, theirs = Prior({"x": entry_of(case)}), scipy_of(case)
    inner = T[1:-1]
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda t: prior.constrain(t[None])["x"])))(jnp.asarray(inner))
    np.testing.assert_allclose(slope, stats.norm.pdf(inner) / theirs.pdf(np.asarray(value)), rtol=1e-6)


def test_slopes_in_the_ends_and_curvature_are_those_of_differences():
    point, step = np.asarray([0.4, -0.5, 1.3]), 1e-5

    def value(p):
        return Quantile(jnp.asarray(0.2), jnp.asarray(2.0), p[1], p[2]).value(p[0])

    gradient = jax.jit(jax.grad(value))
    moves = step * np.eye(3)
    slopes = [(value(jnp.asarray(point + m)) - value(jnp.asarray(point - m))) / (2 * step) for m in moves]
    np.testing.assert_allclose(gradient(jnp.asarray(point)), slopes, rtol=1e-7)
    curvature = [(gradient(jnp.asarray(point + m)) - gradient(jnp.asarray(point - m))) / (2 * step) for m in moves]
    np.testing.assert_allclose(jax.jit(jax.hessian(value))(jnp.asarray(point)), curvature, rtol=1e-6, atol=1e-8)


def test_far_out_the_value_stays_between_the_ends_and_the_slope_is_finite():
    prior = Prior({"x": entry_of("both")})
    far = jnp.asarray([-300.0, -40.0, -9.0, 9.0, 40.0, 300.0])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda t: prior.constrain(t[None])["x"])))(far)
    assert np.all((value >= 0.04) & (value <= 0.5)) and np.all(np.diff(value) >= 0)
    assert np.all(np.isfinite(slope)) and np.all(slope >= 0)


def test_vectors_and_expanded_distributions_go_entry_by_entry_others_keep_their_transform():
    ends = jnp.asarray([0.04, -1.0]), jnp.asarray([0.5, 1.0])
    vector = dist.TruncatedNormal(jnp.asarray([0.1, 0.0]), jnp.asarray([0.05, 1.0]), low=ends[0], high=ends[1])
    prior = Prior({"a": vector, "b": dist.TruncatedNormal(0.1, 0.05, low=0.04, high=0.5).expand([2])})
    values = prior.constrain(jnp.asarray([0.7, -0.2, 0.7, -0.2]))
    alone = scipy_of("both").ppf(stats.norm.cdf([0.7, -0.2]))
    np.testing.assert_allclose(values["b"], alone, rtol=1e-10)
    np.testing.assert_allclose(values["a"], [alone[0], stats.truncnorm(-1, 1).ppf(stats.norm.cdf(-0.2))], rtol=1e-10)
    for other in (dist.Normal(0.0, 1.0), dist.Uniform(0.0, 1.0), dist.TruncatedNormal(0.0, 1.0, low=0.5)):
        assert Quantile.of(other) is None
