"""Where voxels are: shape, spacing and the affine that carries voxel indices to millimetres (RAS+)."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np


class Grid(eqx.Module):
    """A regular voxel grid in scanner space.

    $$ x_{mm} = A\\,(i, j, k, 1)^T $$

    with `A` the 4x4 RAS+ affine of the NIfTI file. Every field is static and hashable, so a grid may be closed over by
    a compiled function. Voxel *indices* of two grids never compare: use `resample`.

    **Arguments:** `shape` voxels per axis; `affine` 4x4, RAS+ mm. Spacing [mm] is the column norm of the affine.

    **Raises:** `ValueError` for a shape that is not three positive integers, or a singular, sheared or non-finite
    affine.
    """

    shape: tuple[int, int, int] = eqx.field(static=True)
    affine: tuple[tuple[float, ...], ...] = eqx.field(static=True)

    def __init__(self, shape: Sequence[int], affine: Sequence[Sequence[float]] | np.ndarray) -> None:
        matrix = np.asarray(affine, dtype=float)
        if len(shape) != 3 or any(int(n) < 1 for n in shape):
            raise ValueError(f"required: three positive voxel counts; received: shape {tuple(shape)}")
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError(f"required: a finite 4x4 affine; received: {matrix!r}")
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if (spacing <= 0).any():
            raise ValueError(f"required: a positive voxel spacing; received: {tuple(spacing)} mm from the affine")
        cosines = matrix[:3, :3] / spacing
        if not np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-3):
            raise ValueError(
                "required: an affine with perpendicular axes; received a sheared one; try: resample the image first"
            )
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        self.affine = tuple(tuple(float(v) for v in row) for row in matrix)

    @classmethod
    def from_spacing(
        cls, shape: Sequence[int], spacing: Sequence[float], origin: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> "Grid":
        """An axis-aligned grid (axes R, A, S) of the given spacing [mm], the centre of voxel 0 at `origin` [mm]."""
        affine = np.diag([*map(float, spacing), 1.0])
        affine[:3, 3] = origin
        return cls(shape, affine)

    @property
    def affine_array(self) -> np.ndarray:
        """The affine as a 4x4 array [mm]."""
        return np.asarray(self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths [mm] along the three index axes."""
        norms = np.linalg.norm(self.affine_array[:3, :3], axis=0)
        # Rounded to 1e-9 mm: the norm of an exact axis must not differ by an ulp between equal grids.
        x, y, z = (round(float(n), 9) for n in norms)
        return (x, y, z)

    @property
    def cell_volume(self) -> float:
        """Volume of one voxel [mm^3]."""
        return float(np.prod(self.spacing))

    def to_world(self, indices: np.ndarray) -> np.ndarray:
        """Voxel indices [..., 3] to millimetres [..., 3]."""
        affine = self.affine_array
        return np.asarray(indices) @ affine[:3, :3].T + affine[:3, 3]

    def to_index(self, points: np.ndarray) -> np.ndarray:
        """Millimetres [..., 3] to (fractional) voxel indices [..., 3]."""
        affine = self.affine_array
        return (np.asarray(points) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T

    def same_space(self, other: "Grid", tolerance: float = 1e-3) -> bool:
        """Whether both grids have the same shape and the same affine to `tolerance` [mm]."""
        return self.shape == other.shape and np.allclose(self.affine_array, other.affine_array, atol=tolerance)

    def crop(self, start: Sequence[int], shape: Sequence[int]) -> "Grid":
        """The grid of a box of voxels; `start` may be negative (the box may leave the grid)."""
        affine = self.affine_array.copy()
        affine[:3, 3] = self.to_world(np.asarray(start, dtype=float))
        return Grid(shape, affine)

    def coarsen(self, factors: Sequence[int]) -> "Grid":
        """The grid of blocks of `factors` voxels; a last, partial block is padded, never dropped."""
        shape = [-(-n // f) for n, f in zip(self.shape, factors, strict=True)]
        affine = self.affine_array.copy()
        affine[:3, :3] = affine[:3, :3] * np.asarray(factors, dtype=float)
        affine[:3, 3] = self.to_world((np.asarray(factors, dtype=float) - 1.0) / 2.0)
        return Grid(shape, affine)
