"""Grids, domains and the finite-volume operator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumortwin.geometry import (
    Domain,
    Faces,
    Grid,
    Tissue,
    add_ring,
    divergence,
    drop_ring,
    face_conductances,
    spectral_bound,
)

SHAPE = (5, 4, 6)
SEEDS = st.integers(0, 2**32 - 1)


def _rotation(random: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return q


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_millimetres_and_voxels_are_inverse_and_spacing_is_that_of_the_affine(seed):
    random = np.random.default_rng(seed)
    spacing = random.uniform(0.3, 7.0, 3)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = _rotation(random) * spacing, random.normal(scale=100, size=3)
    grid = Grid(SHAPE, affine)
    np.testing.assert_allclose(grid.spacing, spacing, atol=1e-8)
    np.testing.assert_allclose(grid.cell_volume, abs(np.linalg.det(affine[:3, :3])), rtol=1e-6)
    index = random.uniform(-5, 5, (7, 3))
    np.testing.assert_allclose(grid.to_index(grid.to_world(index)), index, atol=1e-8)
    start = tuple(int(v) for v in random.integers(-3, 3, 3))
    np.testing.assert_allclose(
        grid.crop(start, (2, 2, 2)).to_world(index), grid.to_world(index + np.array(start)), atol=1e-8
    )
    coarse = grid.coarsen((2, 1, 3))
    assert coarse.shape == (3, 4, 2)
    np.testing.assert_allclose(coarse.to_world(np.zeros(3)), grid.to_world(np.array([0.5, 0.0, 1.0])), atol=1e-8)


def test_same_space_compares_affines_not_only_shapes():
    grid = Grid.from_spacing(SHAPE, (1.0, 1.0, 1.0))
    flipped = Grid(SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert grid.same_space(Grid.from_spacing(SHAPE, (1.0, 1.0, 1.0))) and not grid.same_space(flipped)
    assert hash(grid) == hash(Grid.from_spacing(SHAPE, (1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    "shape, affine",
    [
        ((4, 4), np.eye(4)),
        ((4, 0, 4), np.eye(4)),
        (SHAPE, np.zeros((4, 4))),
        (SHAPE, np.full((4, 4), np.nan)),
        (SHAPE, np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
    ],
)
def test_impossible_grids_are_refused(shape, affine):
    with pytest.raises(ValueError, match="required.*received"):
        Grid(shape, affine)


def test_masks_and_tissues_of_another_shape_are_refused():
    grid = Grid.from_spacing(SHAPE, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="mask"):
        Domain(grid, np.ones((5, 4, 5), bool))
    with pytest.raises(ValueError, match="white_matter"):
        Tissue(Domain(grid, np.ones(SHAPE, bool)), {"white_matter": np.ones((5, 4, 5))})


@jax.jit
def _change(u, d, mask):
    domain = Domain(Grid.from_spacing(SHAPE, (1.0, 1.5, 3.0)), mask)
    return divergence(add_ring(jnp.where(mask, u, 0.0)), face_conductances(d, domain))


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, share=st.floats(0.2, 1.0))
def test_diffusion_conserves_mass_is_symmetric_and_stays_in_the_mask(seed, share):
    random = np.random.default_rng(seed)
    mask = random.random(SHAPE) < share
    d, u, v = random.random((3, *SHAPE))
    lu, lv = np.asarray(_change(u, d, mask)), np.asarray(_change(v, d, mask))
    assert abs(lu.sum()) < 1e-12
    assert np.all(lu[~mask] == 0)
    np.testing.assert_allclose(np.sum(v * mask * lu), np.sum(u * mask * lv), atol=1e-12)
    assert np.sum(u * mask * lu) <= 1e-14  # dissipative
    bound = spectral_bound(float(d.max()), (1.0, 1.5, 3.0))
    assert np.linalg.norm(lu) <= bound * np.linalg.norm(u * mask) * (1 + 1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_harmonic_mean_is_exact_across_a_jump(axis):
    """Steady flux through white | gray matter: the exact piecewise-linear density has no divergence, to rounding."""
    shape, spacing = [1, 1, 1], [1.0, 1.0, 1.0]
    shape[axis], spacing[axis] = 10, 0.7
    grid = Grid.from_spacing(shape, spacing)
    d = np.where(np.arange(10) < 4, 0.65, 0.065)
    x = (np.arange(10) + 0.5) * 0.7
    face = 4 * 0.7
    u = np.where(x < face, x / 0.65, face / 0.65 + (x - face) / 0.065)  # flux 1 everywhere
    domain = Domain(grid, np.ones(shape, bool))
    inner = {}
    for mean in ("harmonic", "arithmetic"):
        faces = face_conductances(jnp.asarray(d.reshape(shape)), domain, mean=mean)
        inner[mean] = np.asarray(divergence(add_ring(jnp.asarray(u.reshape(shape))), faces)).reshape(10)[1:-1]
    assert np.abs(inner["harmonic"]).max() < 1e-12
    assert np.abs(inner["arithmetic"]).max() > 0.1


def test_the_faces_of_each_axis_are_made_of_that_axis():
    """A diffusivity that varies along one axis only must change the faces of that axis in that order alone."""
    grid = Grid.from_spacing((3, 3, 3), (1.0, 2.0, 4.0))
    domain = Domain(grid, np.ones((3, 3, 3), bool))
    for axis in range(3):
        ramp = np.moveaxis(np.broadcast_to(np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1), (3, 3, 3)), 0, axis)
        faces = face_conductances(jnp.asarray(ramp.copy()), domain)
        along = np.moveaxis(np.asarray(faces[axis]), axis, 0)[1:3, 2, 2]
        np.testing.assert_allclose(along, np.array([4.0 / 3.0, 8.0 / 3.0]) / grid.spacing[axis] ** 2)
        for other in {0, 1, 2} - {axis}:
            values = np.moveaxis(np.asarray(faces[other]), axis, 0)[1:4, 2, 2]
            np.testing.assert_allclose(values, np.array([1.0, 2.0, 4.0]) / grid.spacing[other] ** 2)


def test_ring_and_back():
    u = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(np.asarray(drop_ring(add_ring(u))), np.asarray(u))
    assert float(add_ring(u).sum()) == float(u.sum())
    assert isinstance(Faces(u, u, u).scaled(2.0), Faces)
