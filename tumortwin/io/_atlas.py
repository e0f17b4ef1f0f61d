"""The ICBM152 2009a anatomy (T1, gray and white matter at 1 mm) that ships inside the nilearn wheel."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

from tumortwin._errors import InputError
from tumortwin.geometry import Grid, block_mean
from tumortwin.io._volume import Volume, read_volume

PATTERN = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
NAMES = ("t1", "gm", "wm")
FULL_SCALE = 255.0
# Tumor lives where gray and white matter together are at least this probable.
TISSUE_THRESHOLD = 0.5
SOURCE = "ICBM152 2009a nonlinear symmetric template (Fonov et al. 2011), from the nilearn package"


@dataclasses.dataclass(frozen=True)
class AtlasAnatomy:
    """Anatomy on one grid: `t1` in [0, 1]; `gray_matter` and `white_matter` fractions that add up to 1 in `domain` and
    are 0 outside; `brain` (T1 > 0). `grid` is RAS+, MNI space."""

    grid: Grid
    t1: np.ndarray
    gray_matter: np.ndarray
    white_matter: np.ndarray
    brain: np.ndarray
    domain: np.ndarray

    @property
    def tissue(self) -> dict[str, np.ndarray]:
        """The tissue fractions by the names a `Patient` uses."""
        return {"white_matter": self.white_matter, "gray_matter": self.gray_matter}


def load_atlas_anatomy() -> tuple[Grid, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`(grid, t1, gray, white, brain)`: 197 x 233 x 189 voxels of 1 mm; T1 and probabilities in [0, 1], brain = T1 > 0.

    **Raises:** `InputError` when the installed nilearn package does not hold the maps.
    """
    t1, gray, white = (_read(name) for name in NAMES)
    scaled = [(v.array / FULL_SCALE).astype(np.float32) for v in (t1, gray, white)]
    return t1.grid, scaled[0], scaled[1], scaled[2], t1.array > 0


def atlas_files() -> list[Path]:
    """The files that `load_atlas_anatomy` reads, for the identity of a run."""
    return [_folder() / PATTERN.format(name) for name in NAMES]


def atlas_tissue(spacing: float | int = 1.0) -> AtlasAnatomy:
    """The atlas at `spacing` [mm], a whole number: block means of the 1 mm maps, tissue where gray + white >= 1/2.

    $$ f_{w} = w / (g + w) \\text{ where } g + w \\ge 1/2, \\text{ else } 0 $$

    and likewise for gray matter. A last, partial block is padded with background.

    **Raises:** `InputError` for a spacing that is not a whole number of millimeters.
    """
    factor = round(spacing)
    if factor < 1 or abs(factor - spacing) > 1e-9:
        raise InputError(
            file=None,
            required="a whole number of millimeters as the atlas' spacing",
            received=f"{spacing:g} mm",
            advice="1, 2, 3 or 4",
        )
    grid, t1, gray, white, brain = load_atlas_anatomy()
    t1, gray, white = (block_mean(a, (factor,) * 3) for a in (t1, gray, white))
    total = gray + white
    domain = total >= TISSUE_THRESHOLD
    safe = np.where(domain, total, 1.0)
    return AtlasAnatomy(
        grid=grid.coarsen((factor,) * 3),
        t1=t1,
        gray_matter=np.where(domain, gray / safe, 0.0).astype(np.float32),
        white_matter=np.where(domain, white / safe, 0.0).astype(np.float32),
        brain=(block_mean(brain, (factor,) * 3) >= 0.5) | domain,
        domain=domain,
    )


def _read(name: str) -> Volume:
    return read_volume(_folder() / PATTERN.format(name), kind="structural")


def _folder() -> Path:
    """`nilearn/datasets/data` as installed, found without importing nilearn."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            file=None,
            required="the nilearn package, which carries the ICBM152 maps",
            received="nilearn is not installed",
            advice="pip install nilearn",
        )
    return Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
