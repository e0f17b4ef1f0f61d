"""Tumor windows: what is cropped comes back where it was, shapes fall in buckets, millimetres stay millimetres."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumortwin.geometry import Grid, Window, window_around, window_of_shape

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
STARTS = st.tuples(*[st.integers(-6, 8)] * 3)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, start=STARTS, size=SHAPES)
def test_crop_agrees_with_an_index_by_index_copy(shape, start, size):
    array = np.arange(np.prod(shape), dtype=float).reshape(shape) + 1.0
    window = Window(start, size)
    expected = np.full(size, -7.0)
    for index in np.ndindex(*size):
        source = tuple(np.add(index, start))
        if all(0 <= s < n for s, n in zip(source, shape, strict=True)):
            expected[index] = array[source]
    np.testing.assert_array_equal(window.crop(array, fill=-7.0), expected)
    back = window.embed(expected, shape, fill=-7.0)
    inside = window.embed(np.ones(size, bool), shape)
    np.testing.assert_array_equal(back, np.where(inside, array, -7.0))


def test_leading_axes_and_dtypes_are_kept():
    window = Window((1, -1, 0), (2, 3, 4))
    fields = np.arange(2 * 60, dtype=np.float32).reshape(2, 3, 4, 5)
    cropped = window.crop(fields)
    assert isinstance(cropped, np.ndarray) and cropped.shape == (2, 2, 3, 4) and cropped.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(window.crop(jnp.asarray(fields), fill=2)), window.crop(fields, fill=2))
    assert window.crop(np.ones((3, 4, 5), bool)).dtype == bool
    assert window.embed(jnp.ones((2, 2, 3, 4), jnp.float32), (3, 4, 5)).dtype == jnp.float32


def test_a_window_keeps_its_place_in_the_scanner():
    affine = np.array([[0.0, 0.0, -3.0, 90.0], [1.5, 0.0, 0.0, -60.0], [0.0, 2.0, 0.0, -70.0], [0.0, 0.0, 0.0, 1.0]])
    grid, window = Grid((20, 21, 22), affine), Window((-2, 5, 7), (8, 8, 16))
    index = np.array([3, 4, 5])
    np.testing.assert_allclose(window.grid(grid).to_world(index), grid.to_world(index + np.array(window.start)))
    assert Window((1, 2, 3), (4, 4, 4)).moved(window).start == (-1, 7, 10)


@settings(deadline=None, max_examples=60)
@given(
    points=st.lists(st.tuples(*[st.floats(0, 0.999)] * 3), max_size=4),
    shape=st.tuples(*[st.integers(6, 30)] * 3),
    margin=st.floats(0.0, 12.0),
    bucket=st.sampled_from([1, 8, 16]),
)
def test_the_window_holds_the_mask_and_its_margin(points, shape, margin, bucket):
    mask = np.zeros(shape, bool)
    for point in points:
        mask[tuple(int(p * n) for p, n in zip(point, shape, strict=True))] = True
    grid = Grid.from_spacing(mask.shape, (1.0, 1.5, 3.0))
    if not mask.any():
        with pytest.raises(ValueError, match="at least one voxel"):
            window_around(mask, margin, grid, bucket)
        return
    window = window_around(mask, margin, grid, bucket)
    assert all(n % bucket == 0 for n in window.shape)
    where = np.argwhere(mask)
    for axis in range(3):
        first, last = where[:, axis].min(), where[:, axis].max()
        low, high = window.start[axis], window.start[axis] + window.shape[axis]
        reach = margin / grid.spacing[axis] - 1e-6
        assert low <= max(first - reach, 0) and high >= min(last + 1 + reach, mask.shape[axis])
        if window.shape[axis] <= mask.shape[axis]:
            assert low >= 0 and high <= mask.shape[axis]


def test_limits_stop_the_margin_but_never_cut_the_mask():
    grid = Grid.from_spacing((40, 40, 40), (1.0, 1.0, 1.0))
    mask, domain = np.zeros((2, 40, 40, 40), bool)
    mask[18:22, 18:22, 18:22] = True
    domain[10:30, 10:30, 19:21] = True
    window = window_around(mask, 12.0, grid, bucket=1, limits=domain)
    assert window.shape == (20, 20, 4) and window.start == (10, 10, 18)


def test_two_tumors_of_nearly_one_size_share_a_shape():
    grid = Grid.from_spacing((64, 64, 64), (1.0, 1.0, 1.0))
    shapes = set()
    for size in (5, 6, 7):
        mask = np.zeros(grid.shape, bool)
        mask[20 : 20 + size, 30 : 30 + size, 25 : 25 + size] = True
        shapes.add(window_around(mask, 8.0, grid).shape)
    assert len(shapes) == 1


def test_a_window_of_a_shape_has_the_tumor_in_its_middle_wherever_the_array_ends():
    mask = np.zeros((10, 10, 10), bool)
    mask[0:3, 4:6, 9] = True
    window = window_of_shape(mask, (5, 4, 3))
    assert window == Window((-1, 3, 8), (5, 4, 3))
    assert np.array_equal(np.asarray(window.crop(mask)), np.pad(mask[0:4, 3:7, 8:10], ((1, 0), (0, 0), (0, 1))))
    with pytest.raises(ValueError, match="one across"):
        window_of_shape(mask, (2, 4, 4))
    with pytest.raises(ValueError, match="at least one voxel"):
        window_of_shape(~mask & mask, (2, 4, 4))


@pytest.mark.parametrize("start, shape", [((0, 0, 0), (0, 1, 1)), ((0, 0, 0), (4, -4, 4))])
def test_bad_windows_are_refused(start, shape):
    with pytest.raises(ValueError, match="required"):
        Window(start, shape)


def test_bad_requests_are_refused():
    grid = Grid.from_spacing((8, 8, 8), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="shape"):
        window_around(np.ones((8, 8, 7), bool), 1.0, grid)
    with pytest.raises(ValueError, match="margin"):
        window_around(np.ones((8, 8, 8), bool), -1.0, grid)
    with pytest.raises(ValueError, match="shape"):
        Window((0, 0, 0), (2, 2, 2)).embed(np.ones((3, 2, 2)), (8, 8, 8))
