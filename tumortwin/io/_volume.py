"""One NIfTI file in, one array on a `Grid` out: every promise about a volume is checked here, at the door."""

import dataclasses
import gzip
import io
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from tumortwin import units
from tumortwin._errors import InputError
from tumortwin._files import atomic_path
from tumortwin.geometry import Grid

VolumeKind: TypeAlias = Literal["structural", "mask", "labels", "adc", "probability"]

# Multiply by this to reach the canonical 1e-3 mm^2/s.
ADC_UNITS: Mapping[str, float] = MappingProxyType({"mm^2/s": 1e3, units.ADC: 1.0, "1e-6 mm^2/s": 1e-3})
# Median ADC of a head lies near 0.8 (brain) with free water at 3; a factor of 1000 falls far outside this range.
ADC_PLAUSIBLE_MEDIAN = (0.1, 5.0)
# A resampled probability may leave [0, 1] by rounding alone.
PROBABILITY_SLACK = 1e-6
SPACING_AGREEMENT = 0.01
NIFTI2_HEADER = 540  # bytes
MM_PER_UNIT: Mapping[str, float] = MappingProxyType({"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 1e-3})
QUANTITY: Mapping[str, str] = MappingProxyType({"adc": "ADC", "probability": "probability", "labels": "label"})


@dataclasses.dataclass(frozen=True)
class Volume:
    """An array [x y z] with the grid it stands on and the file it came from.

    `array`: bool for a mask, int16 for labels, float32 otherwise (ADC in 1e-3 mm^2/s).
    """

    array: np.ndarray
    grid: Grid
    path: Path


def read_volume(path: str | os.PathLike[str], *, kind: VolumeKind, adc_unit: str | None = None) -> Volume:
    """Read one NIfTI volume and check what its kind promises; the file's own affine and orientation are kept.

    `kind`: `structural` (any finite value), `mask` (0 and 1), `labels` (whole numbers >= 0), `adc` (>= 0, needs
    `adc_unit`, one of `ADC_UNITS`, returned in 1e-3 mm^2/s), `probability` ([0, 1]). A fourth axis of length 1 is
    dropped; any other 4-D file is refused. Spatial units of meters or microns are converted to mm.

    **Raises:** `InputError` for a file that is missing, cut short or no NIfTI; for NaN or infinity anywhere; values the
    kind forbids; zero, missing or negative spacing; a missing, sheared or singular affine; an implausible ADC unit.
    """
    path = Path(path)
    if (kind == "adc") != (adc_unit is not None):
        raise ValueError(f"required: adc_unit exactly when kind='adc'; received: kind={kind!r}, adc_unit={adc_unit!r}")
    image = _load(path)
    array = _squeeze(path, _values(path, image))
    grid = _grid(path, array.shape, _affine(path, image))
    _check_finite(path, array)
    return Volume(_of_kind(path, array, kind, adc_unit), grid, path)


def write_volume(
    path: str | os.PathLike[str], array: np.ndarray, grid: Grid, *, description: str = "", dtype: type = np.float32
) -> Path:
    """Write `array` [x y z] on `grid` as NIfTI-1: float32 (or a stated `dtype`), mm and s, qform = sform = affine.

    Written under a temporary name and renamed, so a reader never sees half a file.
    """
    import nibabel as nib

    path = Path(path)
    values = np.asarray(array)
    if values.shape != grid.shape:
        raise ValueError(f"required: an array of the grid's shape {grid.shape}; received: {values.shape}")
    image = nib.Nifti1Image(values.astype(dtype), grid.affine_array)
    image.set_sform(grid.affine_array, code="scanner")
    image.set_qform(grid.affine_array, code="scanner")
    header = cast(Any, image.header)
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = description.encode("ascii", "replace")[:79]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
    return path


def _load(path: Path) -> Any:
    """The image, after the header as it stands in the file was checked: nibabel mends a zero spacing in silence."""
    import nibabel as nib

    content = _content(path)
    try:
        is_second = int.from_bytes(content[:4], "little") == NIFTI2_HEADER or (
            int.from_bytes(content[:4], "big") == NIFTI2_HEADER
        )
        kind = nib.Nifti2Image if is_second else nib.Nifti1Image
        raw = kind.header_class.from_fileobj(io.BytesIO(content), check=False)
        _check_magic(raw)
        _check_header(path, raw)
        return kind.from_bytes(content)
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None


def _content(path: Path) -> bytes:
    """All bytes of the file, decompressed to the end, so that a missing tail or a flipped bit is noticed."""
    if not path.is_file():
        raise InputError(
            file=path,
            required="a NIfTI file (.nii or .nii.gz)",
            received="a folder" if path.is_dir() else "no such file",
            advice="check the name and the folder; file names are case-sensitive",
        )
    if not path.name.endswith((".nii", ".nii.gz")):
        raise _unreadable(path, ValueError("the name ends in neither .nii nor .nii.gz"))
    try:
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as stream:
            return stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _check_magic(raw: Any) -> None:
    magic = bytes(raw["magic"]).rstrip(b"\x00\r\n\x1a")
    if magic not in (b"n+1", b"n+2"):
        raise ValueError(f"no NIfTI magic in the header: {magic!r}")


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return InputError(
        file=path,
        required="a complete NIfTI file (.nii or .nii.gz)",
        received=f"{path.stat().st_size} bytes that cannot be read as one ({reason[:200]})",
        advice="copy or download the file again; DICOM must be converted first (for example with dcm2niix)",
    )


def _values(path: Path, image: Any) -> np.ndarray:
    try:
        array = np.asanyarray(image.dataobj)
    except Exception as error:
        raise _unreadable(path, error) from None
    if array.dtype.kind not in "biuf":
        raise InputError(
            file=path,
            required="real numbers, one a voxel",
            received=f"data type {array.dtype}",
            advice="save one scalar channel; color and complex images cannot be used",
        )
    return array


def _check_header(path: Path, raw: Any) -> None:
    sizes = np.asarray(raw["pixdim"][1:4], dtype=float)
    if not np.isfinite(sizes).all() or (sizes <= 0).any():
        raise InputError(
            file=path,
            required="a positive voxel spacing on three axes",
            received=f"pixdim {tuple(float(s) for s in sizes)}",
            advice="write the true voxel size in mm into the header (nibabel: header.set_zooms), or export it again",
        )
    if int(raw["qform_code"]) <= 0 and int(raw["sform_code"]) <= 0:
        raise InputError(
            file=path,
            required="an affine: qform_code or sform_code above 0",
            received="a header without orientation (both codes are 0), so left and right are unknown",
            advice="export again with orientation, or set it (nibabel: image.set_sform(affine, code=1))",
        )


def _affine(path: Path, image: Any) -> np.ndarray:
    """The affine in mm; its voxel size must be the header's."""
    affine = np.array(image.affine, dtype=float)
    sizes = np.asarray(image.header.get_zooms()[:3], dtype=float)
    affine_sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if (affine_sizes > 0).all() and not np.allclose(affine_sizes, sizes, rtol=SPACING_AGREEMENT):
        raise InputError(
            file=path,
            required="one voxel size: pixdim and affine that agree within 1 %",
            received=f"pixdim {_millimeters(sizes)}, affine {_millimeters(affine_sizes)}",
            advice="find out which is right and write the header again",
        )
    affine[:3] *= MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0)
    return affine


def _squeeze(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(
            file=path,
            required="a 3-D volume",
            received=f"{array.ndim}-D data of shape {array.shape}",
            advice="save one time point or one channel a file",
        )
    return array


def _grid(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Grid:
    if np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) < 3:
        received = "a singular affine"
    else:
        try:
            return Grid(shape, affine)
        except ValueError as error:
            received = str(error)
    raise InputError(
        file=path,
        required="an invertible affine with perpendicular axes, in mm",
        received=received,
        advice="resample the image to a rectangular grid first (for example with SimpleITK)",
    )


def _check_finite(path: Path, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            file=path,
            required="a finite number in every voxel",
            received=f"{int(bad.sum())} NaN or infinite voxels, the first at {first}",
            advice="find out what they mean; fill the background with 0 and cut a hole out of the mask, not the image",
        )


def _of_kind(path: Path, array: np.ndarray, kind: VolumeKind, adc_unit: str | None) -> np.ndarray:
    if kind == "structural":
        return array.astype(np.float32)
    if array.min() < 0:
        raise InputError(
            file=path,
            required=f"{QUANTITY.get(kind, kind)} values of 0 or more",
            received=f"{int((array < 0).sum())} negative voxels, minimum {float(array.min()):g}",
            advice="only structural images may be negative; check that this is the right file",
        )
    if kind == "adc":
        return _adc(path, array, str(adc_unit))
    if kind == "probability":
        if array.max() > 1 + PROBABILITY_SLACK:
            raise InputError(
                file=path,
                required="probabilities in [0, 1]",
                received=f"maximum {float(array.max()):g}",
                advice="divide by the full scale (100 for per cent, 255 for bytes) and save again",
            )
        return np.minimum(array, 1).astype(np.float32)
    return _whole_numbers(path, array, kind)


def _whole_numbers(path: Path, array: np.ndarray, kind: VolumeKind) -> np.ndarray:
    whole = np.rint(array)
    if not np.array_equal(whole, array) or whole.max() > (1 if kind == "mask" else np.iinfo(np.int16).max):
        odd = np.unique(array[(array != 0) & (array != 1)])[:5]
        raise InputError(
            file=path,
            required="a binary mask (0 and 1)" if kind == "mask" else "whole-number labels",
            received=f"values such as {', '.join(f'{v:g}' for v in odd)}",
            advice="threshold it, or give it as labels; resample masks with nearest neighbor",
        )
    return whole.astype(bool) if kind == "mask" else whole.astype(np.int16)


def _adc(path: Path, array: np.ndarray, adc_unit: str) -> np.ndarray:
    if adc_unit not in ADC_UNITS:
        raise InputError(
            file=path,
            required=f"adc_unit: one of {', '.join(map(repr, ADC_UNITS))}",
            received=repr(adc_unit),
            advice="look the unit up in the scanner's export; it is never guessed",
        )
    positive = array[array > 0]
    if positive.size == 0:
        raise InputError(
            file=path,
            required="an ADC map with values above 0",
            received="zero everywhere",
            advice="leave the file out: a visit without ADC is allowed",
        )
    median = float(np.median(positive))
    low, high = ADC_PLAUSIBLE_MEDIAN
    if not low <= median * ADC_UNITS[adc_unit] <= high:
        fits = [name for name, scale in ADC_UNITS.items() if low <= median * scale <= high]
        raise InputError(
            file=path,
            required=f"a median ADC between {low} and {high} x {units.ADC}",
            received=f"median {median:g} in the file, read as {adc_unit}",
            advice=f"adc_unit: {fits[0]}" if fits else "check that this file is an ADC map",
        )
    return (array * ADC_UNITS[adc_unit]).astype(np.float32)


def _millimeters(sizes: np.ndarray) -> str:
    return " x ".join(f"{float(s):.4g}" for s in sizes)
