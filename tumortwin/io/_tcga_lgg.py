"""One pre-operative scan in SRI24 space (FLAIR, T1c, fused labels), with tissue from the SRI24 label map."""

import os
from pathlib import Path

import numpy as np

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io._checks import check_first_visit, clip_to_brain, on_grid
from tumortwin.io._resample import resample_volume
from tumortwin.io._roots import require_file
from tumortwin.io._volume import Volume, read_volume
from tumortwin.metrics import dice
from tumortwin.treatments import Schedule
from tumortwin.twin import Patient, Scan

FOLDER = "tcga_lgg_static"
ATLAS = "sub-mni152_tissue-with-antsN4_space-sri.nii.gz"
ATLAS_FOLDER = "brain_atlas"
LABELS_SUFFIX = "mav"
CSF, GRAY_MATTER, WHITE_MATTER = 1, 2, 3
CORE, EDEMA, ENHANCING = 1, 2, 4


def load_tcga_lgg(
    root: str | os.PathLike[str],
    id: str | None = None,
    *,
    labels: str = LABELS_SUFFIX,
    folder: str = FOLDER,
    atlas: str | os.PathLike[str] | None = None,
) -> Patient:
    """A single-visit patient from `root/folder` (or `root`): `ID_ID_fla_bet`, `ID_ID_t1c_bet` and `ID_<labels>`.

    `id` may be left out when the folder holds one patient. `atlas`: SRI24 tissue labels (0 background, 1 CSF, 2 gray,
    3 white matter); by default in `brain_atlas` under or beside `root`. It is resampled through the affines: atlas and
    patient have the same shape and different orientations.

    Channels: `t1gd` = labels 1 and 4 (core), `flair` = 1, 2 and 4. Domain = (gray or white matter, or tumor) inside the
    patient's own brain (FLAIR or T1c not zero); tumor outside the atlas' gray and white matter counts as white matter,
    its share is in `facts`.

    **Raises:** `InputError` for a missing or bad file, spaces that disagree, unknown labels, no tumor.
    """
    id = _single_id(root, folder, labels) if id is None else id
    names = (f"{id}_{id}_fla_bet.nii.gz", f"{id}_{id}_t1c_bet.nii.gz", f"{id}_{labels}.nii.gz")
    paths = [require_file(root, f"{folder}/{name}", name) for name in names]
    flair, t1c = (read_volume(path, kind="structural") for path in paths[:2])
    segmentation = read_volume(paths[2], kind="labels")
    grid = flair.grid
    classes = on_grid(segmentation, grid, interpolation="nearest")
    brain = (flair.array != 0) | (on_grid(t1c, grid, interpolation="linear") != 0)
    masks, tumor, facts = _masks(classes, brain, segmentation.path)
    check_first_visit(Scan(0.0, masks), file=segmentation.path)
    atlas_path = sri24_labels(root) if atlas is None else Path(atlas)
    tissue, domain, atlas_facts = _anatomy(read_volume(atlas_path, kind="labels"), grid, brain, tumor)
    facts |= atlas_facts
    return Patient(
        id=id,
        grid=grid,
        brain=brain,
        domain=domain,
        tissue=tissue,
        anatomy=flair.array,
        scans=(Scan(0.0, masks),),
        schedule=Schedule(),
        assumptions=_assumptions(bool((classes == ENHANCING).any()), labels, facts),
        facts=facts,
        channel_words={"t1gd": "tumor core"},
        source="TCIA TCGA-LGG (CC BY 3.0), skull-stripped in SRI24 space, labels fused by BraTS Toolkit",
    )


def sri24_labels(root: str | os.PathLike[str]) -> Path:
    """The tissue labels of the SRI24 space: in the atlas folder under `root` or beside it, or in `root`."""
    return require_file(root, f"{ATLAS_FOLDER}/{ATLAS}", f"../{ATLAS_FOLDER}/{ATLAS}", ATLAS)


def _single_id(root: str | os.PathLike[str], folder: str, labels: str) -> str:
    place = Path(root) / folder
    place = place if place.is_dir() else Path(root)
    suffix = f"_{labels}.nii.gz"
    found = sorted(p.name.removesuffix(suffix) for p in place.glob(f"*{suffix}"))
    if len(found) == 1:
        return found[0]
    if not found:
        require_file(root, f"{folder}/<patient.id>{suffix}")
    raise InputError(
        file=place,
        required="patient.id, because the folder holds several patients",
        received="no patient.id",
        advice=f"patient.id=one of {', '.join(found[:10])}",
    )


def _masks(
    classes: np.ndarray, brain: np.ndarray, path: Path
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, float]]:
    unknown = sorted(set(np.unique(classes).tolist()) - {0, CORE, EDEMA, ENHANCING})
    if unknown:
        raise InputError(
            file=path,
            required=f"labels 0, {CORE} (core), {EDEMA} (edema), {ENHANCING} (enhancing)",
            received=f"label {unknown[0]}",
            advice="recode the segmentation to the BraTS labels",
        )
    whole, outside = clip_to_brain(classes > 0, brain, file=path, what="the tumor labels")
    core = ((classes == CORE) | (classes == ENHANCING)) & brain
    facts = {f"label_{value}_voxels": float((classes == value).sum()) for value in (CORE, EDEMA, ENHANCING)}
    return {"t1gd": core, "flair": whole}, whole, facts | {"tumor_outside_brain": outside}


def _anatomy(
    atlas: Volume, grid: Grid, brain: np.ndarray, tumor: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, float]]:
    labels = resample_volume(atlas.array, atlas.grid, grid, interpolation="nearest")
    gray, white = labels == GRAY_MATTER, labels == WHITE_MATTER
    domain = (gray | white | tumor) & brain
    adopted = tumor & ~(gray | white)
    white_matter = ((white & brain) | adopted).astype(np.float32)
    count = max(int(tumor.sum()), 1)
    facts = {
        "dice_brain_by_affine": dice(brain, labels > 0),
        "tumor_share_white_matter": float((tumor & white).sum() / count),
        "tumor_share_gray_matter": float((tumor & gray).sum() / count),
        "tumor_share_csf": float((tumor & (labels == CSF)).sum() / count),
        "tumor_share_outside_atlas": float((tumor & (labels == 0)).sum() / count),
        "tumor_share_outside_tissue": float(adopted.sum() / count),
    }
    if atlas.grid.shape == grid.shape:
        facts["dice_brain_by_voxel_index"] = dice(brain, atlas.array > 0)
    return {"white_matter": white_matter, "gray_matter": (gray & domain).astype(np.float32)}, domain, facts


def _assumptions(enhancing: bool, labels: str, facts: dict[str, float]) -> tuple[str, ...]:
    core = (
        "The core channel (`t1gd`) is necrotic, non-enhancing and enhancing core together (labels 1 and 4)."
        if enhancing
        else "There is no enhancing label: the core channel (`t1gd`) is the non-enhancing core (label 1), which stands "
        "where contrast enhancement would stand in a glioblastoma."
    )
    return (
        core,
        f"The labels are automatic (fusion {labels!r}), not drawn by a radiologist.",
        f"Tissue is the SRI24 atlas through the affines, not this patient's own (whole-brain Dice "
        f"{facts['dice_brain_by_affine']:.3f}); the brain is the patient's own.",
        f"{facts['tumor_share_outside_tissue']:.1%} of the tumor lies outside the atlas' gray and white matter and "
        "counts as white matter.",
        "One scan identifies the ratio of D and rho, not each of them.",
        "No treatment is recorded before or at this scan.",
    )
