"""Means over blocks of voxels: what a coarse grid sees of a fine one. Host arrays."""

from collections.abc import Sequence

import numpy as np


def block_mean(field: np.ndarray, factors: Sequence[int], fill: float = 0.0) -> np.ndarray:
    """Means over blocks of `factors` voxels; a last, partial block is filled up with `fill`.

    Sums are in double precision; a floating-point field keeps its type. The blocks are those of `Grid.coarsen`.
    """
    padding = [(0, -n % f) for n, f in zip(field.shape, factors, strict=True)]
    padded = np.pad(field, padding, constant_values=fill)
    shape = [v for n, f in zip(padded.shape, factors, strict=True) for v in (n // f, f)]
    means = padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float64)
    return means.astype(field.dtype) if np.issubdtype(field.dtype, np.floating) else means
