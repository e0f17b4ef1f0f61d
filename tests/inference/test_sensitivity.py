"""Sobol indices of the Ishigami function in closed form, of an inert parameter, and of what cannot be done."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from tumortwin.inference import Prior, sobol_indices

A, B = 7.0, 0.1


def prior(n=3):
    return Prior({f"x{i}": dist.Uniform(-np.pi, np.pi) for i in range(n)})


def ishigami(values):
    x, y, z = (values[f"x{i}"] for i in range(3))
    return jnp.stack([jnp.sin(x) + A * jnp.sin(y) ** 2 + B * z**4 * jnp.sin(x), y])


def test_indices_of_the_ishigami_function_are_within_two_percent():
    """D1 = (1 + B pi^4 / 5)^2 / 2, D2 = A^2 / 8, D13 = B^2 pi^8 (1/18 - 1/50)."""
    found = sobol_indices(ishigami, prior(), 4096, key=jax.random.key(0))
    parts = 0.5 * (1 + B * np.pi**4 / 5) ** 2, A**2 / 8, B**2 * np.pi**8 * (1 / 18 - 1 / 50)
    variance = sum(parts)
    first = np.asarray([parts[0], parts[1], 0.0]) / variance
    total = np.asarray([parts[0] + parts[2], parts[1], parts[2]]) / variance
    np.testing.assert_allclose(found.first[:, 0], first, atol=0.02 * first.max())
    np.testing.assert_allclose(found.total[:, 0], total, rtol=0.02)
    # The second output is its one parameter and nothing else.
    np.testing.assert_allclose(found.first[:, 1], [0, 1, 0], atol=0.01)
    low, high = found.total_interval
    assert (low[:, 0] < total).all() and (total < high[:, 0]).all()
    # SciPy's estimates of the same evaluations.
    random = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0))))
    points = 2 * np.pi * stats.qmc.Sobol(6, rng=random).random(4096).T - np.pi

    def evaluated(x):
        return np.stack([np.sin(x[0]) + A * np.sin(x[1]) ** 2 + B * x[2] ** 4 * np.sin(x[0]), x[1]])

    mixed = np.stack([np.where(np.arange(3)[:, None] == i, points[3:], points[:3]) for i in range(3)])
    of_scipy = stats.sobol_indices(
        func={
            "f_A": evaluated(points[:3]),
            "f_B": evaluated(points[3:]),
            "f_AB": np.stack([evaluated(x) for x in mixed]),
        },
        n=4096,
    )
    np.testing.assert_allclose(found.first, of_scipy.first_order.T, atol=1e-6)
    np.testing.assert_allclose(found.total, of_scipy.total_order.T, atol=1e-6)
    assert found.names == ("x0", "x1", "x2")


def test_a_parameter_that_does_nothing_has_a_total_of_zero():
    found = sobol_indices(lambda v: v["x0"][None] * 2, prior(2), 256, key=jax.random.key(1))
    assert found.total[:, 0] == pytest.approx([1.0, 0.0], abs=0.02)


def test_other_distributions_than_uniform_ones():
    """A sum of independent terms: shares of the variance."""
    spread = Prior({"a": dist.Normal(1.0, 3.0), "b": dist.LogNormal(0.0, 0.5)})
    found = sobol_indices(lambda v: (v["a"] + 4 * v["b"])[None], spread, 1024, key=jax.random.key(2))
    of_b = 16 * (np.exp(0.25) - 1) * np.exp(0.25)
    assert found.first[:, 0] == pytest.approx(np.asarray([9, of_b]) / (9 + of_b), abs=0.02)


def test_a_function_that_fails_somewhere_and_a_vector_are_refused():
    with pytest.raises(ValueError, match="a finite output everywhere in the prior; received: .* try: a narrower prior"):
        sobol_indices(lambda v: jnp.log(v["x0"])[None], prior(1), 64, key=jax.random.key(0))
    with pytest.raises(ValueError, match="scalar parameters; received vectors: x"):
        sobol_indices(lambda v: v["x"], Prior({"x": dist.Normal().expand([2])}), 64, key=jax.random.key(0))
