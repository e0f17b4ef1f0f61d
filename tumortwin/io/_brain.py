"""A brain mask from one T1-weighted scan with the skull on. A crude stand-in for a real skull stripper, and said so."""

from typing import Any

import numpy as np
from scipy import ndimage

from tumortwin.geometry import Grid

# All lengths in mm. Scalp and skull are thicker than DEPTH; OPENING cuts the bridges to eyes and muscles; CLOSING takes
# in sulci, ventricles and a resection cavity; no part of the head deeper than CORE is anything but brain.
DEPTH = 6.0
OPENING = 5.0
CLOSING = 20.0
CORE = 30.0
# Intensities of brain tissue, in units of the median of the core.
TISSUE_RANGE = (0.6, 1.6)
HISTOGRAM_BINS = 256


def estimate_brain(scan: np.ndarray, grid: Grid, seed: np.ndarray) -> np.ndarray:
    """Brain mask of a T1-weighted head scan, slice by slice along the thickest axis.

    Head = largest component over half of Otsu's threshold, holes filled; brain = voxels of brain-like intensity deeper
    than `DEPTH` in the head, opened, largest component, closed, holes filled. `seed` (the first visit's tumor mask) is
    brain by definition.

    **Limits (for convenience):** keeps part of the skull base and loses thin cortex near the vertex; good enough for a
    zero-flux boundary, not for volumetry.
    """
    slices = int(np.argmax(grid.spacing))
    image = np.moveaxis(np.asarray(scan, dtype=np.float32), slices, 2)
    tumor = np.moveaxis(seed, slices, 2)
    spacing = tuple(s for axis, s in enumerate(grid.spacing) if axis != slices)
    head = _fill(_largest(image > 0.5 * otsu_threshold(np.minimum(image, np.percentile(image, 95.0)))))
    inside = _erode(head, DEPTH, spacing)
    core = _erode(head, CORE, spacing) & (image > 0)
    level = float(np.median(image[core if core.any() else head]))
    low, high = TISSUE_RANGE
    tissue = (((image > low * level) & (image < high * level)) | tumor) & inside
    opened = _dilate(_largest(_erode(tissue, OPENING, spacing)), OPENING, spacing) & inside
    closed = _close(opened | tumor, CLOSING, spacing)
    brain = (_fill(closed) & inside) | tumor
    return np.moveaxis(brain, 2, slices)


def otsu_threshold(values: np.ndarray) -> float:
    """The threshold that maximises the variance between the two classes it makes (Otsu 1979)."""
    counts, edges = np.histogram(values, HISTOGRAM_BINS)
    centers = (edges[1:] + edges[:-1]) / 2
    weight, moment = np.cumsum(counts)[:-1], np.cumsum(counts * centers)[:-1]
    total, mean = counts.sum(), (counts * centers).sum() / counts.sum()
    rest = np.maximum(total - weight, 1)
    between = (mean * weight - moment) ** 2 / np.maximum(weight * rest, 1)
    return float(centers[np.argmax(between)])


def _largest(mask: np.ndarray) -> np.ndarray:
    labeled: Any = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    parts, count = labeled
    if count == 0:
        return mask
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def _fill(mask: np.ndarray) -> np.ndarray:
    slices = [np.asarray(ndimage.binary_fill_holes(mask[:, :, k])) for k in range(mask.shape[2])]
    return np.stack(slices, axis=2)


def _distance_in(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance [mm] of each true voxel to the nearest false one of its slice; the outside of the array is false."""
    padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)))
    slices = [
        np.asarray(ndimage.distance_transform_edt(padded[:, :, k], sampling=spacing)) for k in range(mask.shape[2])
    ]
    return np.stack(slices, axis=2)[1:-1, 1:-1]


def _erode(mask: np.ndarray, radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    return _distance_in(mask, spacing) > radius


def _dilate(mask: np.ndarray, radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    distances = np.full(mask.shape, np.inf)
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        distances[:, :, k] = ndimage.distance_transform_edt(~mask[:, :, k], sampling=spacing)
    return distances <= radius


def _close(mask: np.ndarray, radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    x, y = (int(np.ceil(radius / s)) + 1 for s in spacing)
    padded = np.pad(mask, ((x, x), (y, y), (0, 0)))
    return _erode(_dilate(padded, radius, spacing), radius, spacing)[x:-x, y:-y]
