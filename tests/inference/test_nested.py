"""Effects nested in groups against one dense normal distribution."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tumortwin.inference import marginalized, root_of, updated

RNG = np.random.default_rng(3)
SIZE, GROUPS, READINGS = 3, 4, 5


def covariance(scale: float) -> np.ndarray:
    a = RNG.normal(size=(SIZE, SIZE))
    return scale * (a @ a.T + 0.3 * np.eye(SIZE))


TOP, WITHIN = covariance(1.0), covariance(0.4)
DESIGN = RNG.normal(size=(GROUPS, READINGS, SIZE))
NOISE = 0.3
SEEN = RNG.normal(size=(GROUPS, READINGS))
INFORMATION = [(jnp.asarray(d.T @ d / NOISE), jnp.asarray(d.T @ y / NOISE)) for d, y in zip(DESIGN, SEEN, strict=True)]


def dense() -> tuple[np.ndarray, np.ndarray]:
    """Covariance of all readings, and of the first group's coefficients with them."""
    blocks = [
        [a @ (TOP + (i == j) * WITHIN) @ b.T + (i == j) * NOISE * np.eye(READINGS) for j, b in enumerate(DESIGN)]
        for i, a in enumerate(DESIGN)
    ]
    return np.block(blocks), np.concatenate([(TOP + (j == 0) * WITHIN) @ b.T for j, b in enumerate(DESIGN)], axis=1)


def summed(passed: Any) -> Any:
    return tuple(jnp.sum(jnp.stack(part), axis=0) for part in zip(*passed, strict=True))


def test_what_groups_say_of_their_parent_is_the_marginal_likelihood():
    passed, gains = zip(*[marginalized(i, root_of(jnp.asarray(WITHIN))) for i in INFORMATION], strict=True)
    total = summed(passed)
    _, last = marginalized(total, root_of(jnp.asarray(TOP)))
    constant = -0.5 * np.sum(SEEN**2) / NOISE - 0.5 * SEEN.size * np.log(2 * np.pi * NOISE)
    normal: Any = multivariate_normal
    expected = normal(cov=dense()[0]).logpdf(SEEN.ravel())
    assert float(sum(gains) + last) + constant == pytest.approx(expected, rel=1e-10)


def test_a_group_knows_its_own_data_and_its_siblings():
    passed = [marginalized(i, root_of(jnp.asarray(WITHIN)))[0] for i in INFORMATION]
    mean, spread = updated(jnp.zeros(SIZE), jnp.asarray(TOP), summed(passed[1:]))
    mean, spread = updated(mean, spread + WITHIN, INFORMATION[0])
    total, across = dense()
    np.testing.assert_allclose(mean, across @ np.linalg.solve(total, SEEN.ravel()), rtol=1e-8)
    np.testing.assert_allclose(spread, TOP + WITHIN - across @ np.linalg.solve(total, across.T), rtol=1e-7, atol=1e-10)


def test_a_coefficient_without_variance_stays_and_nothing_known_changes_nothing():
    flat = jnp.diag(jnp.asarray([1.0, 0.0, 2.0]))
    mean, spread = updated(jnp.ones(SIZE), flat, INFORMATION[0])
    assert float(mean[1]) == pytest.approx(1.0, abs=1e-9) and float(spread[1, 1]) < 1e-11
    nothing = (jnp.zeros((SIZE, SIZE)), jnp.zeros(SIZE))
    same, wide = updated(jnp.ones(SIZE), jnp.asarray(TOP), nothing)
    np.testing.assert_allclose(same, 1.0)
    np.testing.assert_allclose(wide, TOP, rtol=1e-9)
    _, gained = marginalized(nothing, root_of(jnp.asarray(TOP)))
    assert float(gained) == 0.0
