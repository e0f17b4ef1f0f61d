"""Tissue fractions of a folder patient: from files, from an atlas in the patient's space, or homogeneous."""

import os
from pathlib import Path

import numpy as np

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io._atlas import TISSUE_THRESHOLD, atlas_tissue
from tumortwin.io._checks import check_fractions
from tumortwin.io._resample import resample_volume
from tumortwin.metrics import dice

# Two heads in one space overlap by more than this; a patient in scanner space does not.
MIN_ATLAS_DICE = 0.75


def homogeneous_tissue(brain: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[str, ...]]:
    """`(tissue, domain, assumptions)`: white matter everywhere in the brain mask."""
    sentence = "Tissue is homogeneous: one diffusivity in the whole brain mask; ventricles are not excluded."
    return {"white_matter": brain.astype(np.float32)}, brain, (sentence,)


def tissue_from_fractions(
    fields: dict[str, np.ndarray], brain: np.ndarray, tumor: np.ndarray, *, file: str | os.PathLike[str] | None
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, float]]:
    """`(tissue, domain, facts)` from segmented fractions: domain = (sum >= 1/2, or first tumor) inside the brain.

    Fractions are scaled to add up to 1 in the domain; a tumor voxel without tissue becomes white matter and is counted
    in `facts`. Only the first visit's tumor may be passed: a later one would leak into the forecast.
    """
    check_fractions(fields, brain, file=file)
    total = np.asarray(sum(fields.values()))
    segmented = (total >= TISSUE_THRESHOLD) & brain
    adopted = tumor & brain & ~segmented
    scale = np.where(segmented, total, 1.0)
    tissue = {name: np.where(segmented, value / scale, 0.0).astype(np.float32) for name, value in fields.items()}
    tissue.setdefault("white_matter", np.zeros(brain.shape, np.float32))
    tissue["white_matter"][adopted] = 1.0
    domain = segmented | adopted
    check_fractions(tissue, domain, file=file)
    facts = {"tumor_share_outside_tissue": float(adopted.sum() / max(int(tumor.sum()), 1))}
    return tissue, domain, facts


def atlas_fractions(
    grid: Grid, brain: np.ndarray, *, file: str | os.PathLike[str] | None
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """ICBM152 gray and white matter on the patient's grid, through the affines: the patient must be in MNI space.

    **Raises:** `InputError` when the atlas' brain and the patient's overlap too little for one space.
    """
    atlas = atlas_tissue(1.0)
    there = resample_volume(atlas.brain, atlas.grid, grid, interpolation="nearest")
    overlap = dice(brain, there)
    if overlap < MIN_ATLAS_DICE:
        raise InputError(
            file=file,
            required=f"a patient in MNI space for `tissue: atlas` (brain Dice of at least {MIN_ATLAS_DICE})",
            received=f"brain Dice {overlap:.3f} through the affines",
            advice="register the images to the ICBM152 template first, or give tissue files, or `tissue: homogeneous`",
        )
    fields = {
        name: np.clip(resample_volume(value, atlas.grid, grid, interpolation="linear"), 0.0, 1.0)
        for name, value in atlas.tissue.items()
    }
    return fields, {"dice_brain_by_affine": overlap}


def inside(folder: Path, name: object, *, file: Path, key: str) -> Path:
    """The file `name` of a patient's folder; it must stay inside, also after symbolic links.

    **Raises:** `InputError` for an absolute path, `..`, or a link that leads out.
    """
    text = str(name)
    relative = Path(text)
    escapes = relative.is_absolute() or ".." in relative.parts or not isinstance(name, str) or not text
    if not escapes:
        root = folder.resolve()
        escapes = not (root / relative).resolve().is_relative_to(root)
    if escapes:
        raise InputError(
            file=file,
            required=f"`{key}`: a file inside the patient's folder, by a relative path",
            received=repr(name),
            advice="copy the file into the folder; absolute paths, `..` and links that lead out are refused",
        )
    return folder / relative
