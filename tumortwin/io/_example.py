"""A tiny synthetic patient folder, to copy from and to test with."""

import os
from pathlib import Path

import numpy as np

from tumortwin._files import write_text
from tumortwin.geometry import Grid
from tumortwin.io._volume import write_volume

EXAMPLE_YAML = """\
id: example
source: synthetic ellipsoids
brain: brain.nii.gz              # the space of this mask is the patient's space
anatomy: t1.nii.gz               # background of the figures; may be negative
tissue:                          # or: homogeneous, or: atlas (patient in MNI space)
  white_matter: wm.nii.gz        # probabilities in [0, 1]
  gray_matter: gm.nii.gz
visits:
  - day: 0                       # days are counted from the first visit
    masks: {t1gd: day0_t1gd.nii.gz, flair: day0_flair.nii.gz}
    adc: day0_adc.nii.gz
    adc_unit: 1e-6 mm^2/s        # or mm^2/s, or 1e-3 mm^2/s; never guessed; counts inside the outline
  - day: 60
    masks: {t1gd: day60_t1gd.nii.gz}
treatments:
  radiotherapy: {start: 7, fractions: 30, dose: 2.0, start_weekday: 0}   # Gy, Monday to Friday
  temozolomide:
    - {first_day: 7, last_day: 48, dose: 1.0}                            # multiples of the reference dose
  resection: {day: 3, mask: cavity.nii.gz, removed: 0.9}
"""
SHAPE = (16, 18, 10)
SPACING = (2.0, 2.0, 4.0)


def write_example_patient(path: str | os.PathLike[str]) -> Path:
    """Write a folder that `load_folder_patient` reads: an ellipsoidal brain, an off-center tumor, two visits.

    The grid is left-posterior-superior and anisotropic, so nothing works by luck of the axes.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (15.0, 17.0, -18.0)
    grid = Grid(SHAPE, affine)
    world = grid.to_world(np.moveaxis(np.indices(SHAPE), 0, -1))

    def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
        return np.linalg.norm(world - np.asarray(center), axis=-1) <= radius

    brain = np.linalg.norm(world / np.array([14.0, 16.0, 17.0]), axis=-1) <= 1
    white = ball((0.0, 0.0, 0.0), 10.0)
    tumor = (4.0, 2.0, 1.0)
    small, large, later = (ball(tumor, r) & brain for r in (4.0, 6.5, 5.5))
    fields = {
        "brain": brain,
        "t1": np.where(brain, 100.0 + 20.0 * white, -5.0),
        "wm": 0.9 * white * brain,
        "gm": 0.9 * (brain & ~white),
        "day0_t1gd": small,
        "day0_flair": large,
        "day0_adc": np.where(brain, 800.0 + 400.0 * large, 0.0),
        "day60_t1gd": later,
        "cavity": small,
    }
    for name, values in fields.items():
        write_volume(folder / f"{name}.nii.gz", values, grid)
    write_text(folder / "patient.yaml", EXAMPLE_YAML)
    return folder
