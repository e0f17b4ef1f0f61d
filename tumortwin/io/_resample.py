"""From one grid to another through the affines, on the host. Voxel indices of two grids are never compared."""

from typing import Literal, TypeAlias

import numpy as np
from scipy import ndimage

from tumortwin.geometry import Grid

Interpolation: TypeAlias = Literal["nearest", "linear"]
ORDER = {"nearest": 0, "linear": 1}


def resample_volume(
    array: np.ndarray, source: Grid, target: Grid, *, interpolation: Interpolation, outside: float = 0.0
) -> np.ndarray:
    r"""Values of `array` (on `source`) at the voxel centers of `target`.

    $$ i_{source} = A_{source}^{-1} A_{target}\, i_{target} $$

    `nearest` for labels and masks (the dtype is kept), `linear` for images (float32); `outside` where the target leaves
    the source. Exact when the grids differ by axis flips and permutations only.
    """
    if array.shape != source.shape:
        raise ValueError(f"required: an array of the source's shape {source.shape}; received: {array.shape}")
    if source.same_space(target):
        return array.copy()
    matrix = np.linalg.inv(source.affine_array) @ target.affine_array
    # A flip of whole voxels must not turn into an interpolation by rounding of the inverse.
    rounded = np.rint(matrix)
    matrix = np.where(np.abs(matrix - rounded) < 1e-6, rounded, matrix)
    values = array if interpolation == "nearest" else array.astype(np.float32)
    carried = values.astype(np.uint8) if values.dtype == bool else values
    moved = ndimage.affine_transform(
        carried,
        matrix[:3, :3],
        offset=matrix[:3, 3],  # pyright: ignore[reportArgumentType]
        output_shape=target.shape,
        order=ORDER[interpolation],
        mode="constant",
        cval=outside,
    )
    return moved.astype(values.dtype)
