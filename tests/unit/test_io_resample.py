"""Resampling through affines: orientation never changes what is where."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from tumortwin.geometry import Grid
from tumortwin.io import read_volume, resample_volume, write_volume

BASE = Grid.from_spacing((5, 6, 4), (1.0, 2.0, 3.5), origin=(-3.0, 8.0, 1.0))
VALUES = np.random.default_rng(0).normal(size=BASE.shape).astype(np.float32)


def reorient(array: np.ndarray, grid: Grid, order: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, Grid]:
    """The same world-space content with index axes permuted and reversed (worked out here, by hand)."""
    moved = np.transpose(array, order)
    affine = grid.affine_array[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            moved = np.flip(moved, axis)
            affine[:3, 3] += affine[:3, axis] * (moved.shape[axis] - 1)
            affine[:3, axis] *= -1
    return np.ascontiguousarray(moved), Grid(moved.shape, affine)


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    flips=st.tuples(*[st.booleans()] * 3),
    how=st.sampled_from(["nearest", "linear"]),
)
def test_any_reorientation_is_undone_exactly(order, flips, how) -> None:
    moved, grid = reorient(VALUES, BASE, order, flips)
    np.testing.assert_array_equal(resample_volume(moved, grid, BASE, interpolation=how), VALUES)


@settings(max_examples=10, deadline=None)
@given(order=st.sampled_from(list(itertools.permutations(range(3)))), flips=st.tuples(*[st.booleans()] * 3))
def test_a_file_in_any_orientation_keeps_its_content_in_the_world(tmp_path_factory, order, flips) -> None:
    moved, grid = reorient(VALUES, BASE, order, flips)
    folder: Path = tmp_path_factory.mktemp("orientation")
    volume = read_volume(write_volume(folder / "a.nii.gz", moved, grid), kind="structural")
    for index in ((0, 0, 0), (4, 2, 3), (1, 5, 2)):
        there = np.rint(volume.grid.to_index(BASE.to_world(np.array(index)))).astype(int)
        assert volume.array[tuple(there)] == VALUES[index]


def test_linear_agrees_with_an_independent_interpolator() -> None:
    fine = Grid.from_spacing((7, 9, 8), (0.5, 1.1, 0.9), origin=(-2.7, 9.1, 2.0))
    world = fine.to_world(np.moveaxis(np.indices(fine.shape), 0, -1))
    axes = [BASE.affine_array[i, 3] + BASE.spacing[i] * np.arange(BASE.shape[i]) for i in range(3)]
    expected = RegularGridInterpolator(axes, VALUES)(world)
    got = resample_volume(VALUES, BASE, fine, interpolation="linear")
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_outside_is_background_and_masks_stay_masks() -> None:
    mask = VALUES > 0
    beside = Grid.from_spacing(BASE.shape, BASE.spacing, origin=(500.0, 0.0, 0.0))
    moved = resample_volume(mask, BASE, beside, interpolation="nearest")
    assert moved.dtype == bool and not moved.any()


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="source's shape"):
        resample_volume(VALUES[1:], BASE, BASE, interpolation="nearest")
