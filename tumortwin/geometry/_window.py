"""A box of voxels around a tumor: the part of the grid in which a solve is worth its cost.

Shapes are rounded up to a multiple of a *bucket*, so that patients, visits and moved windows share one compiled
program. The box may leave the array; what lies outside is filled.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from tumortwin._types import NpMask
from tumortwin.geometry._grid import Grid


class Window(eqx.Module):
    """A box of `shape` voxels that begins at voxel `start` of a larger array; both static, `start` may be negative.

    **Raises:** `ValueError` for a shape that is not three positive integers.
    """

    start: tuple[int, int, int] = eqx.field(static=True)
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if len(self.start) != 3 or len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"required: three starts and three positive sizes; received: {self.start}, {self.shape}")

    def crop(self, array: Shaped[Array | np.ndarray, "*batch x y z"], fill: float | int = 0) -> Array | np.ndarray:
        """The box out of the last three axes of `array`; NumPy stays NumPy. Voxels outside the array are `fill`."""
        inner, outer = [], []
        for begin, size, length in zip(self.start, self.shape, array.shape[-3:], strict=True):
            low, high = min(max(begin, 0), length), min(max(begin + size, 0), length)
            inner.append(slice(low, high))
            before = min(max(-begin, 0), size)
            outer.append((before, size - before - (high - low)))
        return _pad(array[(..., *inner)], outer, fill)

    def embed(
        self, array: Shaped[Array | np.ndarray, "*batch x y z"], full_shape: tuple[int, ...], fill: float | int = 0
    ) -> Array | np.ndarray:
        """The inverse of `crop`: the box in an array of `full_shape` (three sizes) that is `fill` elsewhere."""
        if array.shape[-3:] != self.shape:
            raise ValueError(f"required: an array of the window's shape {self.shape}; received: {array.shape[-3:]}")
        back = (-self.start[0], -self.start[1], -self.start[2])
        return Window(back, (int(full_shape[0]), int(full_shape[1]), int(full_shape[2]))).crop(array, fill)

    def grid(self, grid: Grid) -> Grid:
        """The box as a grid of its own, at its place in the scanner's space."""
        return grid.crop(self.start, self.shape)

    def moved(self, origin: "Window") -> "Window":
        """This window, given in voxels of the window `origin`, in voxels of the array `origin` was cut from."""
        x, y, z = (a + b for a, b in zip(self.start, origin.start, strict=True))
        return Window((x, y, z), self.shape)


def _pad(array: Array | np.ndarray, widths: list[tuple[int, int]], fill: float | int) -> Array | np.ndarray:
    all_widths = [(0, 0)] * (array.ndim - 3) + widths
    if isinstance(array, np.ndarray):
        return np.pad(array, all_widths, constant_values=fill)
    return jnp.pad(array, all_widths, constant_values=fill)


def window_around(
    mask: NpMask, margin_mm: float | int, grid: Grid, bucket: int = 8, limits: NpMask | None = None
) -> Window:
    """The smallest window that holds `mask` with `margin_mm` to spare, its shape rounded up to a multiple of `bucket`.

    **Arguments:** `mask` on `grid`, not empty; `margin_mm` [mm], the same distance along every axis whatever the voxel;
    `limits` a mask (the domain) beyond whose bounding box the margin need not reach. The voxels that rounding adds are
    put where the array has room, on both sides alike; only a box larger than the array leaves it.

    **Good values:** margin 25 mm for 120 days of glioma growth; bucket 8 (16 for fewer programs).

    **Raises:** `ValueError` for an empty mask, a mask of another shape, or a margin or bucket out of range.
    """
    found = np.asarray(mask, dtype=bool)
    if found.shape != grid.shape or (limits is not None and np.shape(limits) != grid.shape):
        raise ValueError(f"required: masks of the grid's shape {grid.shape}; received: {found.shape}")
    if not found.any():
        raise ValueError("required: a mask with at least one voxel; received: an empty one")
    if not (margin_mm >= 0 and bucket >= 1):
        raise ValueError(f"required: margin >= 0 mm and bucket >= 1; received: {margin_mm}, {bucket}")
    start, shape = [], []
    for axis, (length, spacing) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        first, last = _extent(found, axis)
        margin = int(np.ceil(margin_mm / spacing - 1e-9))
        low, high = first - margin, last + 1 + margin
        least, most = (0, length) if limits is None else _reach(np.asarray(limits, dtype=bool), axis, first, last)
        low, high = max(low, least), min(high, most)
        size = -(-(high - low) // bucket) * bucket
        begin = low - (size - (high - low)) // 2
        begin = min(max(begin, 0), length - size) if size <= length else (length - size) // 2
        start.append(begin)
        shape.append(size)
    return Window((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))


def window_of_shape(mask: NpMask, shape: tuple[int, int, int]) -> Window:
    """The window of a given shape whose middle is that of the bounding box of `mask`, to half a voxel, wherever the
    array ends.

    **Raises:** `ValueError` for an empty mask, or one that does not fit.
    """
    found = np.asarray(mask, dtype=bool)
    if not found.any():
        raise ValueError("required: a mask with at least one voxel; received: an empty one; try: another threshold")
    ends = [_extent(found, axis) for axis in range(3)]
    sizes = tuple(last + 1 - first for first, last in ends)
    if any(size > n for size, n in zip(sizes, shape, strict=True)):
        raise ValueError(
            f"required: a mask that fits into {shape} voxels; received: one across {sizes}; try: a larger window"
        )
    x, y, z = ((first + last + 1 - n) // 2 for (first, last), n in zip(ends, shape, strict=True))
    return Window((x, y, z), shape)


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    where = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(where[0]), int(where[-1])


def _reach(limits: np.ndarray, axis: int, first: int, last: int) -> tuple[int, int]:
    if not limits.any():
        return first, last + 1
    low, high = _extent(limits, axis)
    return min(low, first), max(high, last) + 1
