"""Two scans of a glioblastoma after chemoradiation: `ID_{Pre,Post}_{Scan_T1,Mask}.nii.gz`, no voxel size."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io._brain import estimate_brain
from tumortwin.io._checks import check_first_visit, check_visit_days, clip_to_brain, on_grid
from tumortwin.io._registration import Gate, Registration, register_rigid
from tumortwin.io._roots import require_file
from tumortwin.io._volume import Volume, VolumeKind, read_volume
from tumortwin.metrics import dice
from tumortwin.treatments import Schedule
from tumortwin.twin import Patient, Scan
from tumortwin.units import MM3_PER_ML

FOLDER = "gbm_brain_tumor_progression"
CHANNEL = "t1gd"
# Field of view 240 mm over 256 pixels and a 5 mm slice with a 1.5 mm gap: common at the source, written nowhere.
ASSUMED_VOXEL_SIZE = (0.9375, 0.9375, 6.5)
# The files keep the pixel order of axial DICOM slices, columns to the patient's left and rows to the back.
AXIS_SIGNS = (-1.0, -1.0, 1.0)


def load_gbm_progression(
    root: str | os.PathLike[str],
    id: str,
    interval_days: float | int,
    *,
    voxel_size: Sequence[float | int] = ASSUMED_VOXEL_SIZE,
    gate: Gate | None = None,
    folder: str = FOLDER,
) -> Patient:
    """One patient with two visits: days 0 (Pre) and `interval_days` (Post), channel `t1gd`, homogeneous tissue.

    Files lie in `root/folder` or in `root`. Their headers say 1 x 1 x 1 mm, so `voxel_size` [mm] comes from the
    configuration. Post is registered onto Pre (`register_rigid`; the gate's numbers are in `facts`); the brain mask is
    estimated from the Pre scan, so nothing of the second visit leaks into the first.

    **Raises:** `InputError` for a missing or bad file, a voxel size or an interval that is not positive, two scans of
    different shape, a registration that fails its gate, a mask outside the brain, an empty first mask.
    """
    check_visit_days((0.0, float(interval_days)), file=Path(root) / folder)
    kinds: dict[str, VolumeKind] = {"Scan_T1": "structural", "Mask": "mask"}
    volumes = {
        (time, what): _read(root, folder, f"{id}_{time}_{what}.nii.gz", kind)
        for time in ("Pre", "Post")
        for what, kind in kinds.items()
    }
    first = volumes["Pre", "Scan_T1"]
    grid = _grid(first, voxel_size)
    scan, mask, later_scan, later_mask = (on_grid(v, first.grid, interpolation="nearest") for v in volumes.values())
    check_first_visit(Scan(0.0, {CHANNEL: mask}), file=volumes["Pre", "Mask"].path)
    motion = register_rigid(scan, later_scan, grid, gate=gate, file=volumes["Post", "Scan_T1"].path)
    moved = motion.move_mask(later_mask)
    brain = estimate_brain(scan, grid, mask)
    mask, _ = clip_to_brain(mask, brain, file=volumes["Pre", "Mask"].path, what="the first mask")
    moved, outside = clip_to_brain(moved, brain, file=volumes["Post", "Mask"].path, what="the registered second mask")
    facts = motion.facts() | {
        "dice_persistence_unregistered": dice(mask, later_mask),
        "dice_persistence": dice(mask, moved),
        "second_mask_outside_brain": outside,
        "second_mask_volume_change_by_registration": float(moved.sum() / max(int(later_mask.sum()), 1) - 1),
        "brain_volume_ml": float(brain.sum() * grid.cell_volume / MM3_PER_ML),
        "cell_volume_mm3": grid.cell_volume,
    }
    return Patient(
        id=id,
        grid=grid,
        brain=brain,
        domain=brain,
        tissue={"white_matter": brain.astype(np.float32)},
        anatomy=scan,
        scans=(Scan(0.0, {CHANNEL: mask}), Scan(float(interval_days), {CHANNEL: moved})),
        schedule=Schedule(),
        assumptions=_assumptions(grid, interval_days, motion, facts["brain_volume_ml"]),
        facts=facts,
        source="TCIA Brain-Tumor-Progression (Schmainda and Prah 2018, doi 10.7937/K9/TCIA.2018.15quzvnb), CC BY 3.0",
    )


def _read(root: str | os.PathLike[str], folder: str, name: str, kind: VolumeKind) -> Volume:
    return read_volume(require_file(root, f"{folder}/{name}", name), kind=kind)


def _grid(volume: Volume, voxel_size: Sequence[float | int]) -> Grid:
    sizes = [float(v) for v in voxel_size]
    if len(sizes) != 3 or not all(math.isfinite(v) and v > 0 for v in sizes):
        raise InputError(
            file=volume.path,
            required="patient.voxel_size: three positive lengths in mm",
            received=str(sizes),
            advice=f"the files carry no voxel size; the assumed one is {list(ASSUMED_VOXEL_SIZE)}",
        )
    shape = volume.array.shape
    affine = np.diag([*(sign * size for sign, size in zip(AXIS_SIGNS, sizes, strict=True)), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2.0)
    return Grid(shape, affine)


def _assumptions(grid: Grid, interval_days: float | int, motion: Registration, brain_ml: float) -> tuple[str, ...]:
    x, y, z = grid.spacing
    return (
        f"The files carry no voxel size: {x:g} x {y:g} x {z:g} mm is assumed. An error of 10 % in one edge is an error "
        "of 10 % in every volume, and D in mm^2/day scales with the square of the in-plane edge.",
        "The files carry no orientation: rows run to the back and columns to the patient's left, as in axial DICOM. "
        "Left and right cannot be verified.",
        f"The interval of {interval_days:g} days comes from de-identified dates.",
        f"The second scan was registered rigidly onto the first (image correlation {motion.correlation_before:.3f} -> "
        f"{motion.correlation_after:.3f}, two starts {motion.disagreement:.2f} mm apart); deformation of the brain "
        "between the visits is not modeled.",
        "The brain mask is estimated from the first scan and its tissue taken as homogeneous white matter; sulci and "
        f"ventricles are not excluded. At the assumed voxel size it holds {brain_ml:.0f} mL; an adult brain has "
        "1100 to 1600 mL.",
        "The treatment between the two scans is not recorded in these files: none is modeled.",
        "One earlier scan does not identify the growth rate: it is informed by the prior.",
    )
