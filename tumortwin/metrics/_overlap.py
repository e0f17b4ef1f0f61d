"""How well two masks agree: overlap, surface distance, volume. Host arrays; distances in millimetres.

| | both empty | one empty |
|---|---|---|
| `dice` | 1 | 0 |
| `hausdorff95` | 0 mm | infinity |
| `volume_similarity` | 1 | 0 |

Two empty masks agree: no tumor was forecast and none was seen. A distance to nothing is infinite, not a missing value.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from tumortwin.metrics._types import NpMask


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient, 2 |A and B| / (|A| + |B|), in [0, 1]; 1 when both masks are empty, 0 when one is.

    **Reference:** Dice, Ecology 26 (1945).
    """
    a, b = _pair(first, second)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def volume_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """1 - | |A| - |B| | / (|A| + |B|), in [0, 1], blind to position; 1 when both masks are empty, 0 when one is.

    **Reference:** Taha and Hanbury, BMC Med Imaging 15 (2015).
    """
    a, b = _pair(first, second)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 1.0 - abs(int(a.sum()) - int(b.sum())) / total


def surface_distances(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distances [mm] from every surface voxel of each mask to the nearest surface voxel of the other.

    A surface voxel belongs to the mask and has a face neighbor that does not (the edge of the array counts as outside).
    Distances are between voxel centers. Both masks must be non-empty.
    """
    a, b = _pair(first, second)
    if not (a.any() and b.any()):
        raise ValueError("required: two masks with at least one voxel each; received: an empty mask")
    box = bounding_box(a | b, 0)
    surface_a, surface_b = _surface(a[box]), _surface(b[box])
    steps = [float(s) for s in spacing]
    to_b = np.asarray(ndimage.distance_transform_edt(~surface_b, sampling=steps))[surface_a]
    to_a = np.asarray(ndimage.distance_transform_edt(~surface_a, sampling=steps))[surface_b]
    return to_b, to_a


def hausdorff95(first: np.ndarray, second: np.ndarray, spacing: Sequence[float], percentile: float = 95.0) -> float:
    """The larger of the two 95th percentiles of the directed surface distances [mm].

    0 when both masks are empty, infinity when one is. Some tools pool both directions before taking the percentile; the
    larger of the two, as here, is never smaller than that by more than the shorter surface's share.

    **Reference:** Huttenlocher et al., IEEE Trans Pattern Anal Mach Intell 15 (1993); definition of Maier-Hein et al.,
    "Metrics reloaded", Nat Methods 21 (2024).
    """
    a, b = _pair(first, second)
    if not a.any() and not b.any():
        return 0.0
    if not (a.any() and b.any()):
        return float("inf")
    to_b, to_a = surface_distances(a, b, spacing)
    return float(max(np.percentile(to_b, percentile), np.percentile(to_a, percentile)))


def bounding_box(mask: NpMask, margin: int) -> tuple[slice, ...]:
    """The smallest box of a mask that is not empty, `margin` voxels wider on every side where the array goes on."""
    box = []
    for axis, size in enumerate(mask.shape):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, size)))
    return tuple(box)


def _surface(mask: NpMask) -> NpMask:
    return mask & ~np.asarray(ndimage.binary_erosion(mask, border_value=0), dtype=bool)


def _pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(
            f"required: two bool masks of one shape; received: {a.dtype} {a.shape} and {b.dtype} {b.shape}; "
            "try: threshold probabilities first, resample to one grid"
        )
    return a, b
