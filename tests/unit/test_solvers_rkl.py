"""The RKL2 step: stability, monotonicity, symmetry, and its hand-written adjoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.geometry import Domain, Faces, Grid, add_ring, drop_ring, face_conductances, spectral_bound
from tumortwin.solvers import diffuse, stage_count
from tumortwin.solvers._rkl import diffuse_plain, stage_weight

SHAPE, SPACING = (6, 7, 5), (1.0, 1.5, 3.0)
RANDOM = np.random.default_rng(3)
MASK = RANDOM.random(SHAPE) < 0.8
DIFFUSIVITY = RANDOM.uniform(0.05, 0.6, SHAPE)


def _faces(step: float, stages: int, diffusivity=DIFFUSIVITY) -> Faces:
    domain = Domain(Grid.from_spacing(SHAPE, SPACING), jnp.asarray(MASK))
    return face_conductances(jnp.asarray(diffusivity), domain).scaled(step * stage_weight(stages))


def _field(seed: int) -> jax.Array:
    return add_ring(jnp.asarray(np.random.default_rng(seed).random(SHAPE) * MASK))


def _matrix(step: float) -> np.ndarray:
    """div(D grad) as a dense matrix, face by face."""
    n = int(np.prod(SHAPE))
    index = np.arange(n).reshape(SHAPE)
    matrix = np.zeros((n, n))
    for axis, h in enumerate(SPACING):
        for i in np.ndindex(*SHAPE):
            j = list(i)
            j[axis] += 1
            if j[axis] < SHAPE[axis] and MASK[i] and MASK[tuple(j)]:
                a, b = DIFFUSIVITY[i], DIFFUSIVITY[tuple(j)]
                k, p, q = 2 * a * b / (a + b) / h**2, index[i], index[tuple(j)]
                matrix[p, q] += k
                matrix[q, p] += k
                matrix[p, p] -= k
                matrix[q, q] -= k
    return step * matrix


def test_the_step_is_the_legendre_polynomial_of_the_operator():
    step, stages = 4.0, 4
    w, b = 4 / (stages**2 + stages - 2), (stages**2 + stages - 2) / (2 * stages * (stages + 1))
    values, vectors = np.linalg.eigh(_matrix(step))
    polynomial = np.polynomial.legendre.Legendre.basis(stages)(1 + w * values)
    u = _field(0)
    expected = vectors @ ((1 - b + b * polynomial) * (vectors.T @ np.asarray(drop_ring(u)).reshape(-1)))
    found = np.asarray(drop_ring(diffuse(u, _faces(step, stages), stages))).reshape(-1)
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("bound", [0.1, 1.0, 5.0, 17.3, 60.0])
def test_the_stage_count_is_the_least_stable_one(bound):
    s = stage_count(bound)
    assert s >= 2 and (s * s + s - 2) / 2 >= bound - 1e-12
    assert s == 2 or ((s - 1) ** 2 + (s - 1) - 2) / 2 < bound


def test_smooth_densities_stay_between_their_bounds_and_rough_ones_keep_their_mass():
    step = 12.0
    stages = stage_count(step * spectral_bound(float(DIFFUSIVITY.max()), SPACING))
    run = jax.jit(lambda u: diffuse(u, _faces(step, stages), stages))
    x = np.indices(SHAPE) * np.array(SPACING).reshape(3, 1, 1, 1)
    for seed in range(6):
        random = np.random.default_rng(seed)
        squares = ((x - random.uniform(1, 5, 3).reshape(3, 1, 1, 1)) ** 2).sum(0)
        smooth = np.asarray(drop_ring(run(add_ring(jnp.asarray(np.exp(-squares / 8.0) * MASK)))))
        assert smooth.min() >= -1e-14 and smooth.max() <= 1 + 1e-14
        rough = add_ring(jnp.asarray((random.random(SHAPE) < 0.4) * MASK * 1.0))
        after = np.asarray(drop_ring(run(rough)))
        assert after.min() > -0.1 and after.max() < 1.1
        assert abs(after.sum() - float(rough.sum())) < 1e-12


def test_the_hand_written_adjoint_is_that_of_plain_automatic_differentiation():
    step, stages = 3.0, 5
    u, target, faces = _field(1), _field(2), _faces(3.0, stages)

    def loss(kernel, u, faces):
        return jnp.sum(jnp.sin(3 * kernel(u, faces, stages)) * target)

    fast = jax.jit(jax.grad(lambda u, f: loss(diffuse, u, f), (0, 1)))(u, faces)
    plain = jax.jit(jax.grad(lambda u, f: loss(diffuse_plain, u, f), (0, 1)))(u, faces)
    inside = np.pad(MASK, 1)
    np.testing.assert_allclose(np.where(inside, fast[0], 0), np.where(inside, plain[0], 0), atol=1e-12)
    open_faces = jax.tree.map(lambda f: np.asarray(f) > 0, faces)
    for a, b, is_open in zip(fast[1], plain[1], open_faces, strict=True):
        np.testing.assert_allclose(np.where(is_open, a, 0), np.where(is_open, b, 0), atol=1e-12)
    assert step > 0


def test_forward_mode_is_the_transpose_of_reverse_mode():
    stages = 3
    u, faces = _field(4), _faces(1.0, stages)
    du, w = _field(5), _field(6)
    dfaces = jax.tree.map(lambda f: f * 0.1, faces)
    _, tangent = jax.jvp(lambda u, f: diffuse_plain(u, f, stages), (u, faces), (du, dfaces))
    _, pull = jax.vjp(lambda u, f: diffuse(u, f, stages), u, faces)
    cotangents = pull(w)
    backward = sum(
        float(jnp.sum(a * b)) for a, b in zip(jax.tree.leaves(cotangents), jax.tree.leaves((du, dfaces)), strict=True)
    )
    assert float(jnp.sum(w * tangent)) == pytest.approx(backward, rel=1e-12)
