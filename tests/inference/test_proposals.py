"""Refitted proposals against the moments of a known target, and the parts that many rows share a program through."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from tumortwin._chunks import _cores, in_chunks, side_by_side
from tumortwin.inference import Prior, truncated_log_normal
from tumortwin.inference._prior import _potential, _value
from tumortwin.inference._student import refitted, student_draws, student_log_density

SIZE, DEGREES = 6, 6.0
WIDER = 1 + 1.5 / np.sqrt(SIZE)


def weighted(n, center, spread):
    """Draws of a t about zero with the log-ratios of a normal target N(center, spread^2), independent entries."""
    z = student_draws(np.zeros(SIZE), np.eye(SIZE), DEGREES, n, key=jax.random.key(0))
    target = -0.5 * np.sum(((z - center) / spread) ** 2, axis=1)
    return z, target - student_log_density(z, np.zeros(SIZE), np.eye(SIZE), DEGREES)


def test_many_draws_give_the_moments_of_the_target():
    center, spread = np.linspace(-0.5, 0.5, SIZE), np.linspace(0.6, 1.2, SIZE)
    z, ratios = weighted(40_000, center, spread)
    mean, factor = refitted(z, ratios, np.zeros(SIZE), np.eye(SIZE))
    np.testing.assert_allclose(mean, center, atol=0.02)
    np.testing.assert_allclose(factor @ factor.T, WIDER * np.diag(spread**2), atol=0.04)


def test_few_effective_draws_leave_the_first_proposal_in_charge():
    """n effective draws move the mean by n / (k + n) of the way, k half a draw a parameter; the covariance less."""
    center = np.full(SIZE, 0.2)
    z, ratios = weighted(20, center, np.full(SIZE, 1.1))
    weights = np.exp(ratios - ratios.max()) / np.exp(ratios - ratios.max()).sum()
    n = 1 / np.sum(weights**2)
    assert n >= SIZE  # else the weights are flattened first
    mean, factor = refitted(z, ratios, np.zeros(SIZE), np.eye(SIZE))
    np.testing.assert_allclose(mean, n / (0.5 * SIZE + n) * (weights @ z), rtol=1e-10)
    off = z - weights @ z
    sample = (off * weights[:, None]).T @ off / (1 - 1 / n)
    held = 7.0 * SIZE
    np.testing.assert_allclose(factor @ factor.T, WIDER * (held * np.eye(SIZE) + n * sample) / (held + n), rtol=1e-10)


def test_one_heavy_draw_does_not_become_the_proposal():
    z, ratios = weighted(50, np.zeros(SIZE), np.ones(SIZE))
    ratios[7] += 40.0
    mean, factor = refitted(z, ratios, np.zeros(SIZE), np.eye(SIZE))
    assert np.linalg.norm(mean) < 0.7 * np.linalg.norm(z[7])
    assert np.linalg.eigvalsh(factor @ factor.T).min() > 0.5


def test_failed_solves_are_left_out_and_too_few_are_refused():
    z, ratios = weighted(200, np.zeros(SIZE), np.ones(SIZE))
    failed = np.where(np.arange(200) % 2, ratios, -np.inf)
    for a, b in zip(
        *(refitted(*s, np.zeros(SIZE), np.eye(SIZE)) for s in ((z, failed), (z[1::2], ratios[1::2]))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    with pytest.raises(FloatingPointError, match="1 of 200"):
        refitted(z, np.where(np.arange(200) == 3, ratios, -np.inf), np.zeros(SIZE), np.eye(SIZE))


def test_the_proposal_moves_with_its_coordinates():
    """The same sample in other coordinates z' = A z + b gives the same proposal there."""
    rng = np.random.default_rng(0)
    z, ratios = weighted(400, np.full(SIZE, 0.3), np.full(SIZE, 0.8))
    lower, shift = np.tril(rng.normal(size=(SIZE, SIZE))) + 3 * np.eye(SIZE), rng.normal(size=SIZE)
    mean, factor = refitted(z, ratios, np.zeros(SIZE), np.eye(SIZE))
    moved, moved_factor = refitted(z @ lower.T + shift, ratios, shift, lower)
    np.testing.assert_allclose(moved, lower @ mean + shift, rtol=1e-8)
    np.testing.assert_allclose(moved_factor, lower @ factor, rtol=1e-8)


# --- priors as families ---

MIXED = {
    "b": truncated_log_normal(0.1, 0.5, 0.01, 1.0),
    "a": truncated_log_normal(2.0, 0.3, 0.5, 9.0),
    "e": dist.Normal(0.0, 1.0).expand([3]),
    "c": dist.Uniform(0.5, 0.9),
    "d": dist.Normal(1.0, 0.2),
    "f": dist.Normal(0.0, 1.0).expand([2]),
    "g": dist.Normal(-1.0, 0.5),
}


def test_a_prior_by_families_is_the_prior_one_by_one():
    prior = Prior(MIXED)
    assert sorted(map(sorted, (f.paths for f in prior.families))) == [["a", "b"], ["c"], ["d", "g"], ["e"], ["f"]]
    z = jax.random.normal(jax.random.key(1), (prior.size,))
    values, potential = prior.constrain(z), prior._potential(z)
    start = 0
    for path in prior.paths:  # the order of z is that of the paths
        stop = start + int(np.prod(prior.shapes[path]))
        t = prior.center[path] + prior.scale[path] * z[start:stop].reshape(prior.shapes[path])
        np.testing.assert_allclose(values[path], _value(prior.distributions[path], t), rtol=1e-14)
        one = _potential(prior.distributions[path], t)
        np.testing.assert_allclose(potential[start:stop], np.ravel(one), rtol=1e-12)
        start = stop
    assert start == prior.size


@pytest.mark.slow
def test_draws_by_families_are_those_one_by_one():
    prior, key = Prior(MIXED), jax.random.key(2)
    found = prior.sample((4, 2), key=key)
    for path, path_key in zip(prior.paths, jax.random.split(key, len(prior.paths)), strict=True):
        one = jax.vmap(prior.distributions[path].sample)(jax.random.split(path_key, 8))
        np.testing.assert_array_equal(found[path], np.reshape(one, (4, 2, *prior.shapes[path])))


# --- chunks ---


@pytest.mark.parametrize("rows", [1, 3, 8, 17])
def test_chunks_join_to_the_whole(rows):
    tree = {"x": jnp.arange(rows, dtype=float), "y": jnp.ones((rows, 2))}
    sizes = []

    def double(part):
        sizes.append(part["x"].shape[0])
        return jax.tree.map(lambda leaf: 2 * leaf, part)

    found = in_chunks(double, tree, 8)
    np.testing.assert_array_equal(found["x"], 2 * np.arange(rows))
    assert found["y"].shape == (rows, 2) and set(sizes) == {8}


def test_calls_side_by_side_keep_their_order_and_do_run_at_once():
    meeting = threading.Barrier(2, timeout=20)
    jitted = jax.jit(lambda x: 2.0 * x)

    def call(part):
        if part in (1, 2) and _cores() > 1:
            meeting.wait()  # only two that run at once get past
        return {"twice": jitted(jnp.asarray(float(part)))}

    found = side_by_side(call, range(5))
    assert [float(one["twice"]) for one in found] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert all(isinstance(one["twice"], np.ndarray) for one in found)


def test_an_error_in_a_call_is_raised():
    def call(part):
        if part == 3:
            raise FloatingPointError("the fourth")
        return jnp.asarray(part)

    with pytest.raises(FloatingPointError, match="the fourth"):
        side_by_side(call, range(5))
