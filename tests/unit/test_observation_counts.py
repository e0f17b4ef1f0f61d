"""Counts: probabilities of single counts and intervals against SciPy, gradients, and what a problem refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tumortwin.observation import NegativeBinomialCounts, PoissonCounts
from tumortwin.observation._counts import WIDEST

MEAN = np.asarray([5.0, 0.3, 9.0, 15.0, 20.0, 4.0, 3.0])
LOWER = np.asarray([3.0, 0.0, 0.0, 20.0, 7.0, 0.0, 2.5])
UPPER = np.asarray([3.0, 0.0, 4.0, np.inf, 30.0, np.inf, 2.7])
KINDS = {
    "poisson": (PoissonCounts(), stats.poisson),
    "negative binomial": (NegativeBinomialCounts(jnp.asarray(0.5)), lambda mean: stats.nbinom(2.0, 2.0 / (2.0 + mean))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_intervals_of_counts_have_the_probability_of_scipy(kind):
    error, reference = KINDS[kind]
    found = error.log_likelihood(*map(jnp.asarray, (MEAN, LOWER, UPPER)))
    for mean, low, high, value in zip(MEAN, LOWER, UPPER, found, strict=True):
        one = reference(mean)
        inside = np.arange(int(np.ceil(low)), 400)
        share = one.pmf(inside[inside <= high]).sum()
        assert np.exp(float(value)) == pytest.approx(share, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_single_counts_agree_with_the_distribution_that_is_sampled(kind):
    error, _ = KINDS[kind]
    counts = jnp.arange(30.0)
    mine = error.log_likelihood(jnp.full(30, 7.0), counts, counts)
    np.testing.assert_allclose(mine, error.noise(jnp.asarray(7.0)).log_prob(counts), atol=1e-5)
    draws = error.noise(jnp.full(40_000, 7.0)).sample(jax.random.key(0))
    variance = 7.0 if kind == "poisson" else 7.0 + 0.5 * 49.0
    assert float(jnp.mean(draws)) == pytest.approx(7.0, abs=0.1)
    assert float(jnp.var(draws)) == pytest.approx(variance, rel=0.05)


def test_gradients_are_those_of_central_differences_also_for_what_is_not_used():
    low, high = jnp.asarray([6.0, 0.0, 30.0, 4.0, 0.0]), jnp.asarray([6.0, 5.0, jnp.inf, 8.0, jnp.inf])

    @jax.jit
    def total(mean, spread):
        return jnp.sum(NegativeBinomialCounts(spread).log_likelihood(jnp.full(5, mean), low, high))

    slopes, h = jax.grad(total, argnums=(0, 1))(9.0, 0.4), 1e-5
    assert float(slopes[0]) == pytest.approx(float(total(9.0 + h, 0.4) - total(9.0 - h, 0.4)) / (2 * h), rel=1e-6)
    assert float(slopes[1]) == pytest.approx(float(total(9.0, 0.4 + h) - total(9.0, 0.4 - h)) / (2 * h), rel=1e-6)


def test_little_overdispersion_is_a_poisson_count():
    counts = jnp.arange(12.0)
    near = NegativeBinomialCounts(jnp.asarray(1e-7)).log_likelihood(jnp.full(12, 4.0), counts, counts)
    np.testing.assert_allclose(near, PoissonCounts().log_likelihood(jnp.full(12, 4.0), counts, counts), atol=1e-5)


def test_an_interval_of_too_many_counts_is_no_number():
    wide = PoissonCounts().log_likelihood(jnp.asarray([9.0, 9.0]), jnp.zeros(2), jnp.asarray([WIDEST - 1.0, WIDEST]))
    assert np.isfinite(wide[0]) and np.isnan(wide[1])
