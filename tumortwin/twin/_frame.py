"""From a patient's voxels to the model's: blocks of voxels, inside a window around the tumor, and back again."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import Array

from tumortwin.geometry import Domain, Grid, Tissue, Window, block_mean, travel_distance, window_around, window_of_shape
from tumortwin.metrics import signed_distance
from tumortwin.twin._patient import Patient


@dataclasses.dataclass(frozen=True)
class ModelFrame:
    """The grid on which a patient's tumor is simulated.

    A model voxel is a block of `factors` patient voxels; the blocks of a window around the tumor make the model's grid.
    Block means conserve volume exactly, so a mask becomes the share of a block that it covers.

    **Arguments:** `source` the patient's grid; `factors` voxels a block and axis; `window` the box, in blocks;
    `margin` [mm] and `bucket` from which the window was made, or None for one of a given shape (`around_again`).
    """

    source: Grid
    factors: tuple[int, int, int]
    window: Window
    margin: float | None = 25.0
    bucket: int = 8

    @classmethod
    def around(cls, patient: Patient, *, spacing: float = 3.0, margin: float = 25.0, bucket: int = 8) -> "ModelFrame":
        """The frame around everything outlined in the patient's scans.

        **Arguments:** `spacing` [mm] wanted edge of a model voxel (the block that comes nearest, never finer than the
        patient's voxel); `margin` [mm] of domain kept around the outlined tumor; `bucket`: window sides are multiples
        of it, so that patients share compiled programs.

        **Good values:** 3 mm for inference, 2 mm for a forecast; margin 25 mm for a forecast of half a year.

        **Raises:** `ValueError` when no scan outlines a tumor.
        """
        return cls._of(patient, block_factors(patient.grid, spacing), margin, bucket)

    @classmethod
    def of_shape(cls, patient: Patient, shape: tuple[int, int, int], *, spacing: float = 4.0) -> "ModelFrame":
        """The frame of `shape` model voxels about the middle of everything outlined in the patient's scans.

        For a surrogate that was trained on boxes of one shape: a neural operator's is 32^3 voxels of 4 mm. The voxel is
        the block that comes nearest to `spacing`: exactly that where the patient's voxel divides it.

        **Raises:** `ValueError` when no scan outlines a tumor, or the box does not hold what they outline.
        """
        return cls._of_shape(patient, block_factors(patient.grid, spacing), shape)

    @classmethod
    def _of_shape(cls, patient: Patient, factors: tuple[int, int, int], shape: tuple[int, int, int]) -> "ModelFrame":
        window = window_of_shape(block_mean(_outlined(patient), factors) > 0, shape)
        return cls(patient.grid, factors, window, None)

    def around_again(self, patient: Patient) -> "ModelFrame":
        """A frame of the same voxels around what the patient's scans outline now, with the same margin and bucket, or
        of the same shape where it was made of one."""
        if self.margin is None:
            return self._of_shape(patient, self.factors, self.window.shape)
        return self._of(patient, self.factors, self.margin, self.bucket)

    @classmethod
    def _of(cls, patient: Patient, factors: tuple[int, int, int], margin: float, bucket: int) -> "ModelFrame":
        coarse = block_mean(_outlined(patient), factors) > 0
        window = window_around(coarse, margin, patient.grid.coarsen(factors), bucket=bucket)
        return cls(patient.grid, factors, window, margin, bucket)

    @property
    def grid(self) -> Grid:
        """The model's grid."""
        return self.window.grid(self.source.coarsen(self.factors))

    @property
    def box(self) -> Window:
        """The window in patient voxels."""
        x, y, z = (s * f for s, f in zip(self.window.start, self.factors, strict=True))
        a, b, c = (n * f for n, f in zip(self.window.shape, self.factors, strict=True))
        return Window((x, y, z), (a, b, c))

    def coarse(self, field: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Block means of a field on the patient's grid, cut to the window; `fill` beyond the patient's array."""
        values = np.asarray(self.box.crop(np.asarray(field, np.float32), fill=fill))
        return block_mean(values, self.factors, fill)

    def fine(self, field: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """A model field on the patient's grid, linear between voxel centers; `fill` outside the window."""
        # Centres of patient voxels in model indices, one axis at a time (the grids share their axes).
        axes = [
            (np.arange(n) - (f - 1) / 2.0) / f - s
            for n, f, s in zip(self.source.shape, self.factors, self.window.start, strict=True)
        ]
        out = np.full(self.source.shape, fill, np.float32)
        keep = [np.flatnonzero((a >= -0.5) & (a <= n - 0.5)) for a, n in zip(axes, field.shape, strict=True)]
        if any(k.size == 0 for k in keep):
            return out
        values = np.asarray(field, np.float32)
        for axis in range(3):
            values = _interpolate(values, axes[axis][keep[axis]], axis)
        out[np.ix_(*keep)] = values
        return out

    def tissue(self, patient: Patient, dtype: type = np.float32) -> Tissue:
        """The patient's tissue on the model's grid (shape and spacing; its place is `grid`).

        A block belongs to the domain when at least half of it does.
        """
        covered = self.coarse(patient.domain.astype(np.float32))
        mask = covered >= 0.5
        safe = np.where(mask, covered, 1.0)
        fields: dict[str, Array | np.ndarray] = {
            name: np.where(mask, self.coarse(np.asarray(value, np.float32)) / safe, 0.0).astype(dtype)
            for name, value in patient.tissue.items()
        }
        # Without the patient's origin: equal shapes share one compiled program. The place is `self.grid`.
        grid = Grid.from_spacing(self.grid.shape, self.grid.spacing)
        return Tissue(Domain(grid, mask), fields)

    def distance(self, mask: np.ndarray) -> np.ndarray:
        """Signed distance [mm] to a mask's edge, positive outside, block means; +inf for an empty mask."""
        return block_mean(self._distance(mask), self.factors)

    def travel(self, mask: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """Signed travel distance [mm] from a mask's edge on the patient's voxels of the box; +inf for an empty mask.

        **Arguments:** `speed` [1] of a front on the patient's grid, positive (`travel_distance`).
        """
        distance = self._distance(mask)
        if not np.isfinite(distance).any():
            return distance
        around = np.asarray(self.box.crop(speed, fill=float(speed.min())))
        return travel_distance(distance, around, self.source.spacing)

    def _distance(self, mask: np.ndarray) -> np.ndarray:
        """Signed distance [mm] to a mask's smoothed edge on the patient's voxels of the box; +inf for an empty mask."""
        inside = np.asarray(self.box.crop(mask))
        if not inside.any():
            return np.full(self.box.shape, np.inf, np.float32)
        smooth = smooth_outline(inside, self.source)
        return signed_distance(smooth, self.source.spacing, to_edge=True).astype(np.float32)

    def parts(self, fields: Sequence[np.ndarray], domain: np.ndarray, count: int = 4) -> list[np.ndarray]:
        """Of each field in the box `count` of the patient's voxels in every block [part x y z], the same for all.

        Those of the block's voxels inside the `domain` that stand at equal steps when sorted by the sum of the fields:
        their mean stands for the mean over the block of whatever is computed from the fields. (+inf counts as 0.)
        """
        inside = self._by_block(np.asarray(self.box.crop(domain)))
        blocks = [self._by_block(field) for field in fields]
        score = np.sum([np.where(np.isfinite(block), block, 0.0) for block in blocks], axis=0)
        counted = np.where(inside.any(axis=0), inside, True)
        order = np.argsort(np.where(counted, score, np.inf), axis=0)
        steps = (np.arange(min(count, len(order))) + 0.5) / min(count, len(order))
        ranks = np.floor(steps[:, None, None, None] * counted.sum(axis=0)).astype(int)
        chosen = np.take_along_axis(order, ranks, axis=0)
        return [np.take_along_axis(block, chosen, axis=0).astype(np.float32) for block in blocks]

    def _by_block(self, field: np.ndarray) -> np.ndarray:
        """A field of the box with the voxels of a block first: [voxel x y z]."""
        sides = [v for n, f in zip(self.window.shape, self.factors, strict=True) for v in (n, f)]
        return field.reshape(sides).transpose(1, 3, 5, 0, 2, 4).reshape(-1, *self.window.shape)


def _outlined(patient: Patient) -> np.ndarray:
    seen = patient.outlined
    if not seen.any():
        raise ValueError(
            "required: a tumor outlined in at least one scan; received: empty masks only; try: a scan with an outline"
        )
    return seen.astype(np.float32)


def smooth_outline(mask: np.ndarray, grid: Grid, width: float = 1.2) -> np.ndarray:
    """A smooth mask of the same volume: the level set of the mask blurred by `width` [mm] that is as large.

    An outline wanders about the level set of the density it follows; distances to its bumps and dents are biased
    towards the edge. (The half-level of the blurred mask would lose volume where the outline is convex.)
    """
    smooth = scipy.ndimage.gaussian_filter(mask.astype(np.float32), [width / h for h in grid.spacing])
    count = int(mask.sum())
    level = np.partition(smooth.ravel(), smooth.size - count)[smooth.size - count]
    return smooth >= max(float(level), float(np.finfo(np.float32).tiny))


def block_factors(grid: Grid, spacing: float) -> tuple[int, int, int]:
    """Voxels a block and axis that bring the voxel edge nearest to `spacing` [mm]."""
    x, y, z = (max(1, round(spacing / h)) for h in grid.spacing)
    return (x, y, z)


def _interpolate(values: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along one axis, constant beyond the first and last sample."""
    n = values.shape[axis]
    clipped = np.clip(positions, 0.0, n - 1.0)
    low = np.minimum(np.floor(clipped).astype(int), max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    share_shape = [1, 1, 1]
    share_shape[axis] = -1
    share = (clipped - low).astype(np.float32).reshape(share_shape)
    return np.take(values, low, axis) * (1.0 - share) + np.take(values, high, axis) * share
