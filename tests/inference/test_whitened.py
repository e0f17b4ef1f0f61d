"""Whitened coordinates of a Gaussian posterior: exact mode and covariance, the same density, the floor, a refusal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from tumortwin.inference import AbstractProblem, whitened

MEAN = np.asarray([0.3, -1.0, 0.2])
COVARIANCE = np.asarray([[0.04, 0.01, 0.0], [0.01, 0.09, -0.02], [0.0, -0.02, 1.0]])


class Gaussian(AbstractProblem):
    """N(MEAN, covariance), seen from a standard normal prior."""

    covariance: Array

    @property
    def size(self):
        return 3

    @property
    def names(self):
        return ("a", "b", "c")

    @property
    def scalars(self):
        return self.names

    def log_density(self, z):
        off = z - jnp.asarray(MEAN)
        return -0.5 * off @ jnp.linalg.solve(self.covariance, off)

    def log_prior(self, z):
        return -0.5 * z @ z

    def log_terms(self, z):
        return (self.log_density(z) - self.log_prior(z))[None]

    @property
    def term_days(self):
        return np.zeros(1)

    def term_names(self):
        return ("all",)

    def constrain(self, z):
        return {name: z[k] for k, name in enumerate(self.names)}

    def sample_prior(self, n, *, key):
        return jax.random.normal(key, (n, 3))

    def prior_draws(self, n, *, key):
        return {name: np.asarray(self.sample_prior(n, key=key))[None, :, k] for k, name in enumerate(self.names)}


def test_a_gaussian_becomes_standard_normal():
    problem = Gaussian(jnp.asarray(COVARIANCE))
    white = whitened(problem)
    np.testing.assert_allclose(white.center, MEAN, atol=1e-4)
    np.testing.assert_allclose(white.factor @ white.factor.T, COVARIANCE, atol=1e-6)
    point = jnp.asarray([0.5, -0.7, 1.1])
    np.testing.assert_allclose(white.log_density(point), -0.5 * point @ point, atol=2e-3)
    moved = white.center + white.factor @ point
    np.testing.assert_allclose(list(white.constrain(point).values()), moved, rtol=1e-12)
    own, prior = (p.sample_prior(4, key=jax.random.key(0)) for p in (white, problem))
    np.testing.assert_allclose(white.center[None] + own @ white.factor.T, prior, rtol=1e-10)
    np.testing.assert_allclose(white.log_prior(point) + jnp.sum(white.log_terms(point)), white.log_density(point))
    assert (white.term_names(), white.term_days.tolist()) == (("all",), [0.0])
    assert white.size == len(white.names) == 3
    assert white.scalars == ()


def test_a_flat_direction_is_not_wider_than_twice_the_prior():
    white = whitened(Gaussian(jnp.diag(jnp.asarray([0.01, 0.01, 1e6]))))
    np.testing.assert_allclose(jnp.diagonal(white.factor), [0.1, 0.1, 2.0], rtol=1e-6)


def test_no_density_is_refused():
    with pytest.raises(ValueError, match="finite log density"):
        whitened(Gaussian(jnp.full((3, 3), jnp.nan)))
