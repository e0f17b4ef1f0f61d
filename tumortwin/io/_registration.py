"""Rigid registration of a later scan onto an earlier one, with a gate that says whether it can be believed."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tumortwin._errors import InputError
from tumortwin.geometry import Grid

HISTOGRAM_BINS = 50
SAMPLING_SEED = 1
MAX_ITERATIONS = 200
FIRST_STEP = 1.0
LAST_STEP = 1e-3
# Coarse to fine: shrink factor, smoothing [mm].
PYRAMID = ((4, 3.0), (2, 1.5), (1, 0.0))
# Voxels sampled a level. On 256 x 256 x 24 voxels a third of the time of sampling a quarter of them.
MAX_SAMPLES = 80_000


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a registration must show. `tolerance` [mm]: how far the two initialisations may differ, root mean square
    over the corners of the bounding box of the fixed image; `min_gain`: the least rise of the image correlation.

    **Good values:** 2 mm on voxels of 1 x 1 x 6.5 mm; any rise at all.
    """

    tolerance: float = 2.0
    min_gain: float = 0.0


@dataclasses.dataclass(frozen=True)
class Registration:
    """A rigid motion from fixed to moving points [mm, frame of the grid's axes] and the numbers of its gate."""

    grid: Grid
    transform: Any
    correlation_before: float
    correlation_after: float
    disagreement: float
    rotation_deg: float
    translation_mm: float

    def move_image(self, image: np.ndarray) -> np.ndarray:
        """A moving image on the fixed grid, linear, 0 outside."""
        import SimpleITK as sitk

        picture = to_sitk(image, self.grid)
        return _from_sitk(sitk.Resample(picture, picture, self.transform, sitk.sitkLinear, 0.0))

    def move_mask(self, mask: np.ndarray) -> np.ndarray:
        """A moving mask on the fixed grid: linear, then >= 1/2 (keeps volume better than nearest on thick slices)."""
        return self.move_image(mask.astype(np.float32)) >= 0.5

    def facts(self) -> dict[str, float]:
        """The gate's numbers for results.json."""
        return {
            "registration_correlation_before": self.correlation_before,
            "registration_correlation_after": self.correlation_after,
            "registration_disagreement_mm": self.disagreement,
            "registration_rotation_deg": self.rotation_deg,
            "registration_translation_mm": self.translation_mm,
        }


def register_rigid(
    fixed: np.ndarray, moving: np.ndarray, grid: Grid, *, gate: Gate | None = None, file: str | os.PathLike[str] | None
) -> Registration:
    r"""The rigid motion that carries `moving` onto `fixed` (both on `grid`), by Mattes mutual information.

    Gradient descent over three Euler angles and three shifts, three resolutions, at most `MAX_SAMPLES` voxels on a
    regular lattice, one thread: the same numbers every time. It starts twice, from matching array centers and from
    matching centers of mass; the start that ends with the better metric is kept.

    **Raises:** `InputError`, with the numbers, when the image correlation does not rise or the two starts end more than
    `gate.tolerance` apart.

    **Reference:** Mattes et al. 2003, IEEE TMI 22:120.
    """
    import SimpleITK as sitk

    gate = Gate() if gate is None else gate
    kinds = sitk.CenteredTransformInitializerFilter
    with _single_thread():
        starts = [_descend(fixed, moving, grid, kind) for kind in (kinds.GEOMETRY, kinds.MOMENTS)]
    (_, best), (_, other) = sorted(starts, key=lambda pair: pair[0])
    found = Registration(
        grid=grid,
        transform=best,
        correlation_before=correlation(fixed, moving),
        correlation_after=0.0,
        disagreement=_disagreement(best, other, grid),
        rotation_deg=_rotation(best),
        translation_mm=_center_shift(best, grid),
    )
    found = dataclasses.replace(found, correlation_after=correlation(fixed, found.move_image(moving)))
    if found.correlation_after - found.correlation_before <= gate.min_gain or not found.disagreement <= gate.tolerance:
        raise InputError(
            file=file,
            required=(
                f"a registration that raises the image correlation by more than {gate.min_gain:g} and whose two starts "
                f"agree within {gate.tolerance:g} mm"
            ),
            received=(
                f"correlation {found.correlation_before:.3f} -> {found.correlation_after:.3f}, the two starts "
                f"{found.disagreement:.2f} mm apart"
            ),
            advice="check that both scans are of one patient and one sequence, or register them yourself beforehand",
        )
    return found


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two images over all voxels; 0 when one of them is constant."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / scale if scale > 0 else 0.0


def to_sitk(array: np.ndarray, grid: Grid) -> Any:
    """A SimpleITK image in the frame of the grid's own axes (both scans share it, so left and right play no part)."""
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(array, dtype=np.float32).T))
    picture.SetSpacing(grid.spacing)
    return picture


def _from_sitk(picture: Any) -> np.ndarray:
    import SimpleITK as sitk

    return np.ascontiguousarray(sitk.GetArrayFromImage(picture).T)


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """The metric's threads follow SimpleITK's process-wide number; the order of their sums would tell."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _descend(fixed: np.ndarray, moving: np.ndarray, grid: Grid, start: Any) -> tuple[float, Any]:
    import SimpleITK as sitk

    a, b = to_sitk(fixed, grid), to_sitk(moving, grid)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    shares = [min(1.0, MAX_SAMPLES * shrink**3 / fixed.size) for shrink, _ in PYRAMID]
    method.SetMetricSamplingPercentagePerLevel(shares, SAMPLING_SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(FIRST_STEP, LAST_STEP, MAX_ITERATIONS, 0.5, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in PYRAMID])
    method.SetSmoothingSigmasPerLevel([sigma for _, sigma in PYRAMID])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    transform = sitk.CenteredTransformInitializer(a, b, sitk.Euler3DTransform(), start)
    method.SetInitialTransform(transform, True)
    method.Execute(a, b)
    return float(method.GetMetricValue()), sitk.Euler3DTransform(transform)


def _corners(grid: Grid) -> np.ndarray:
    ends = np.asarray(grid.spacing) * (np.asarray(grid.shape) - 1)
    return np.array([[x, y, z] for x in (0.0, ends[0]) for y in (0.0, ends[1]) for z in (0.0, ends[2])])


def _disagreement(a: Any, b: Any, grid: Grid) -> float:
    """Root mean square distance [mm] between the images of the box's eight corners under two motions."""
    gaps = [
        np.subtract(a.TransformPoint(corner), b.TransformPoint(corner))
        for corner in map(tuple, _corners(grid).tolist())
    ]
    return float(np.sqrt(np.mean(np.sum(np.square(gaps), axis=1))))


def _center_shift(transform: Any, grid: Grid) -> float:
    center = _corners(grid).mean(axis=0)
    return float(np.linalg.norm(np.subtract(transform.TransformPoint(tuple(center.tolist())), center)))


def _rotation(transform: Any) -> float:
    matrix = np.asarray(transform.GetMatrix()).reshape(3, 3)
    return float(np.degrees(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1.0, 1.0))))
