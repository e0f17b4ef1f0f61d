"""One NIfTI file: what is read is what was written, and every bad file is refused by name."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io import read_volume, write_volume

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 0, 3.0, -4], [0, 1.5, 0, 7], [0, 0, 0, 1]])
PIXDIM_OFFSET = 76  # of the NIfTI-1 header: eight float32


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE, unit: str = "mm", code: int = 1) -> Path:
    image = nib.Nifti1Image(array, affine)
    if affine is not None:
        image.set_sform(affine, code=code)
        image.set_qform(affine if code == 0 else None, code=0)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


@pytest.fixture
def ramp() -> np.ndarray:
    return np.arange(60, dtype=np.float32).reshape(3, 4, 5)


def refused(path: Path, *words: str, kind: Any = "structural", **kwargs: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(path, kind=kind, **kwargs)
    message = str(caught.value)
    assert str(path) in message
    for word in ("required:", "received:", "try:", *words):
        assert word in message, message


def test_a_volume_comes_back_with_its_affine(tmp_path: Path, ramp: np.ndarray) -> None:
    grid = Grid(ramp.shape, AFFINE)
    volume = read_volume(write_volume(tmp_path / "a.nii.gz", ramp - 30, grid), kind="structural")
    np.testing.assert_array_equal(volume.array, ramp - 30)
    assert volume.grid.same_space(grid)
    assert volume.grid.spacing == (2.0, 1.5, 3.0)


def test_written_files_say_millimeters_seconds_and_both_forms(tmp_path: Path, ramp: np.ndarray) -> None:
    path = write_volume(tmp_path / "a.nii.gz", ramp, Grid(ramp.shape, AFFINE))
    image: Any = nib.load(path)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert image.get_data_dtype() == np.float32
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
    np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("meter", 1e3), ("micron", 1e-3)])
def test_spatial_units_become_millimeters(tmp_path: Path, ramp: np.ndarray, unit: str, factor: float) -> None:
    volume = read_volume(save(tmp_path / "a.nii", ramp, unit=unit), kind="structural")
    np.testing.assert_allclose(volume.grid.affine_array[:3], AFFINE[:3] * factor)


def test_a_fourth_axis_of_length_one_is_dropped_and_a_longer_one_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    assert read_volume(save(tmp_path / "a.nii", ramp[..., None]), kind="structural").grid.shape == (3, 4, 5)
    refused(save(tmp_path / "b.nii", np.stack([ramp, ramp], axis=-1)), "3-D", "4-D", "(3, 4, 5, 2)")


def test_missing_folder_foreign_and_misnamed_files_are_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    refused(tmp_path / "none.nii.gz", "no such file")
    refused(tmp_path, "a folder")
    for name, content in {
        "text.nii": b"not an image " * 40,
        "text.nii.gz": gzip.compress(b"not an image " * 40),
        "plain.nii.gz": b"not gzip at all" * 40,
        "empty.nii.gz": b"",
        "scan.dcm": b"DICM" * 100,
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "complete NIfTI")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, -4])
def test_a_truncated_gz_is_refused_wherever_it_is_cut(tmp_path: Path, keep: float) -> None:
    noise = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep) if keep < 0 else int(keep * len(content))])
    refused(path, "complete NIfTI")


def test_a_truncated_nii_and_a_flipped_bit_are_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "a.nii", ramp)
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "complete NIfTI")
    packed = save(tmp_path / "b.nii.gz", ramp)
    content = bytearray(packed.read_bytes())
    content[-6] ^= 1  # the checksum
    packed.write_bytes(bytes(content))
    refused(packed, "complete NIfTI")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["structural", "probability", "mask", "labels"])
def test_nan_and_infinity_are_refused_anywhere(tmp_path: Path, ramp: np.ndarray, bad: float, kind: str) -> None:
    ramp[:] = 0
    ramp[2, 1, 3] = bad
    refused(save(tmp_path / "a.nii", ramp), "(2, 1, 3)", "1 NaN or infinite", kind=kind)


def test_only_structural_volumes_may_be_negative(tmp_path: Path, ramp: np.ndarray) -> None:
    path = save(tmp_path / "a.nii", ramp / 100 - 0.1)
    assert read_volume(path, kind="structural").array.min() < 0
    refused(path, "0 or more", "minimum -0.1", kind="probability")
    refused(path, "ADC", "negative", kind="adc", adc_unit="mm^2/s")
    refused(path, "negative", kind="mask")
    refused(path, "negative", kind="labels")


def test_probabilities_above_one_and_gray_masks_are_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    refused(save(tmp_path / "a.nii", ramp), "maximum 59", kind="probability")
    refused(save(tmp_path / "b.nii", ramp / 59), "binary mask", kind="mask")
    refused(save(tmp_path / "c.nii", (ramp > 9) * np.float32(2)), "values such as 2", kind="mask")
    refused(save(tmp_path / "d.nii", ramp + 0.5), "whole-number", kind="labels")
    mask = read_volume(save(tmp_path / "e.nii", (ramp > 9).astype(np.uint8)), kind="mask")
    assert mask.array.dtype == bool and mask.array.sum() == 50
    assert read_volume(save(tmp_path / "f.nii", ramp), kind="labels").array.dtype == np.int16


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_zero_negative_and_missing_spacing_are_refused(tmp_path: Path, ramp: np.ndarray, value: float) -> None:
    path = save(tmp_path / "a.nii", ramp)
    content = bytearray(path.read_bytes())
    content[PIXDIM_OFFSET + 8 : PIXDIM_OFFSET + 12] = np.float32(value).tobytes()
    path.write_bytes(bytes(content))
    refused(path, "positive voxel spacing", f"{value}")


def test_a_file_without_orientation_or_with_two_voxel_sizes_is_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    refused(save(tmp_path / "a.nii", ramp, code=0), "left and right are unknown")
    path = save(tmp_path / "b.nii", ramp)
    content = bytearray(path.read_bytes())
    content[PIXDIM_OFFSET + 4 : PIXDIM_OFFSET + 8] = np.float32(5.0).tobytes()
    path.write_bytes(bytes(content))
    refused(path, "agree", "5 x 1.5 x 3")


def test_sheared_singular_and_broken_affines_are_refused(tmp_path: Path, ramp: np.ndarray) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    refused(save(tmp_path / "a.nii", ramp, sheared), "perpendicular", "sheared")
    for name, column in {"singular": [1.0, 0, 0], "zero": [0.0, 0, 0], "nan": [np.nan, 0, 0]}.items():
        affine = np.eye(4)
        affine[:3, 2] = column
        image = nib.Nifti1Image(ramp, np.eye(4))
        for row, key in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[key] = affine[row]
        image.header["sform_code"] = 1
        path = tmp_path / f"{name}.nii"
        header, body = bytearray(image.header.binaryblock), ramp.tobytes(order="F")
        header[108:112] = np.float32(352).tobytes()
        header[344:348] = b"n+1\0"
        path.write_bytes(bytes(header) + b"\0" * 4 + body)
        refused(path, "affine")


@pytest.mark.parametrize(("unit", "scale"), [("mm^2/s", 1e-3), ("1e-3 mm^2/s", 1.0), ("1e-6 mm^2/s", 1e3)])
def test_adc_becomes_canonical_from_each_unit(tmp_path: Path, unit: str, scale: float) -> None:
    canonical = np.random.default_rng(1).uniform(0.6, 2.0, size=(4, 4, 4))
    volume = read_volume(save(tmp_path / "a.nii", canonical * scale), kind="adc", adc_unit=unit)
    np.testing.assert_allclose(volume.array, canonical, rtol=1e-5)


def test_a_wrong_adc_unit_is_noticed_and_the_right_one_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.full((3, 3, 3), 800.0))
    refused(path, "800", "adc_unit: 1e-6 mm^2/s", kind="adc", adc_unit="mm^2/s")
    refused(path, "'um^2/ms'", kind="adc", adc_unit="um^2/ms")
    refused(save(tmp_path / "b.nii", np.zeros((3, 3, 3))), "zero everywhere", kind="adc", adc_unit="mm^2/s")
    with pytest.raises(ValueError, match="adc_unit"):
        read_volume(path, kind="adc")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, ramp: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid(ramp.shape, AFFINE)
    path = write_volume(tmp_path / "a.nii.gz", ramp, grid)

    def full_disk(image, name) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full_disk)
    with pytest.raises(InputError, match="room on the disk"):
        write_volume(path, ramp + 1, grid)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_volume(path, kind="structural").array, ramp)
    assert list(tmp_path.iterdir()) == [path]


def test_nifti_2_and_scaled_integers_are_read(tmp_path: Path, ramp: np.ndarray) -> None:
    nib.save(nib.Nifti2Image(ramp, AFFINE), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "two.nii.gz", kind="structural").array, ramp)
    image = nib.Nifti1Image(ramp / 100, AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scaled.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "scaled.nii", kind="structural").array, ramp / 100, atol=1e-4)


def test_a_color_image_is_refused(tmp_path: Path) -> None:
    rgb = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(tmp_path / "rgb.nii", rgb), "one a voxel")
