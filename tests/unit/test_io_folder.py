"""A user's own patient: the example loads, and each mistake is one clear error."""

import copy
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io import atlas_tissue, load_folder_patient, read_volume, write_example_patient, write_volume

DOCS = Path(__file__).resolve().parents[2] / "docs" / "use" / "own-patient.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_example_patient(tmp_path / "patient")


def edit(folder: Path, change) -> None:
    """Change the YAML by a function of its content."""
    content = yaml.safe_load((folder / "patient.yaml").read_text())
    content = change(content) or content
    (folder / "patient.yaml").write_text(yaml.safe_dump(content))


def put(*keys: Any, value: Any):
    """A change that sets one entry."""

    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = copy.deepcopy(value)  # type: ignore[index]

    return change


def rewrite(folder: Path, name: str, change) -> None:
    volume = read_volume(folder / name, kind="structural")
    write_volume(folder / name, change(volume.array), volume.grid)


def refused(folder: Path, *words: str) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        load_folder_patient(folder)
    message = str(caught.value)
    for word in ("required:", "received:", "try:", *words):
        assert word in message, message
    assert sorted(folder.rglob("*")) == before


def test_the_example_loads_in_canonical_units(folder: Path) -> None:
    patient = load_folder_patient(folder)
    first, second = patient.scans
    assert (first.day, second.day) == (0.0, 60.0)
    assert set(first.masks) == {"t1gd", "flair"} and set(second.masks) == {"t1gd"}
    assert first.adc is not None and first.adc_valid is not None and second.adc is None
    assert np.unique(first.adc[first.masks["flair"]]) == pytest.approx([1.2])  # 1e-3 mm^2/s
    np.testing.assert_array_equal(first.adc_valid, first.masks["flair"])
    schedule = patient.schedule
    assert schedule.radiotherapy.times.tolist()[:6] == [7.0, 8.0, 9.0, 10.0, 11.0, 14.0]
    assert float(schedule.radiotherapy.doses.sum()) == pytest.approx(60.0)
    assert schedule.drugs["temozolomide"].times.tolist() == list(range(7, 49))
    assert float(schedule.resections[0].removed.max()) == pytest.approx(0.9)
    total = sum(patient.tissue.values())
    np.testing.assert_allclose(np.asarray(total)[patient.domain], 1.0, atol=1e-6)
    assert not np.asarray(total)[~patient.domain].any()
    assert not patient.domain[~patient.brain].any()
    assert patient.anatomy.min() < 0  # structural images may be negative


def test_the_page_shows_the_example_that_is_tested(folder: Path) -> None:
    shown = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.S)
    assert shown is not None and shown.group(1) == (folder / "patient.yaml").read_text()


def test_normal_brain_is_not_read_as_dense_tumor(folder: Path) -> None:
    patient = load_folder_patient(folder)
    first = patient.scans[0]
    assert first.adc is not None and first.adc_valid is not None
    normal = patient.brain & ~first.masks["flair"]
    assert first.adc[normal].mean() == pytest.approx(0.8)  # what the observation model takes for pure tumor
    assert not first.adc_valid[normal].any()
    edit(folder, lambda content: content["visits"][0]["masks"].pop("flair") and None)
    first = load_folder_patient(folder).scans[0]
    np.testing.assert_array_equal(first.adc_valid, first.masks["t1gd"])
    edit(folder, put("visits", 0, "adc_valid", value="brain.nii.gz"))
    np.testing.assert_array_equal(load_folder_patient(folder).scans[0].adc_valid, patient.brain)


def test_an_adc_without_outline_needs_adc_valid(folder: Path) -> None:
    edit(folder, put("visits", 1, value={"day": 60, "adc": "day0_adc.nii.gz", "adc_unit": "1e-6 mm^2/s"}))
    refused(folder, "visits[1]", "adc_valid", "flair or t1gd")
    edit(folder, put("visits", 1, "adc_valid", value="day0_flair.nii.gz"))
    assert load_folder_patient(folder).scans[1].adc_valid is not None


def test_tissue_may_be_homogeneous(folder: Path) -> None:
    edit(folder, put("tissue", value="homogeneous"))
    patient = load_folder_patient(folder)
    np.testing.assert_array_equal(patient.domain, patient.brain)
    np.testing.assert_array_equal(patient.tissue["white_matter"] == 1, patient.brain)
    assert any("homogeneous" in sentence for sentence in patient.assumptions)


def test_tissue_may_be_the_atlas_for_a_patient_in_mni_space(tmp_path: Path) -> None:
    atlas = atlas_tissue(4)
    grid = Grid(atlas.grid.shape, atlas.grid.affine_array @ np.diag([-1.0, 1, 1, 1]) + _end_of_x(atlas.grid))
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    tumor = np.linalg.norm(world - np.array([-30.0, -20.0, 20.0]), axis=-1) < 9.0
    write_volume(tmp_path / "brain.nii.gz", atlas.brain[::-1], grid)
    write_volume(tmp_path / "mask.nii.gz", tumor & atlas.brain[::-1], grid)
    visits = [{"day": 0, "masks": {"t1gd": "mask.nii.gz"}}]
    content = {"id": "mni", "brain": "brain.nii.gz", "tissue": "atlas", "visits": visits}
    (tmp_path / "patient.yaml").write_text(yaml.safe_dump(content))
    patient = load_folder_patient(tmp_path)
    assert patient.facts["dice_brain_by_affine"] > 0.95
    both = patient.domain & atlas.domain[::-1]
    assert both.sum() > 0.9 * atlas.domain.sum()
    difference = np.abs(patient.tissue["white_matter"] - atlas.white_matter[::-1])[both]
    assert difference.mean() < 0.15  # a point sample of the 1 mm maps against their block mean


def _end_of_x(grid: Grid) -> np.ndarray:
    """What moves the origin to the other end of the first axis."""
    shift = np.zeros((4, 4))
    shift[:3, 3] = grid.affine_array[:3, 0] * (grid.shape[0] - 1)
    return shift


def test_tumor_without_tissue_becomes_white_matter_and_is_reported(folder: Path) -> None:
    rewrite(folder, "wm.nii.gz", lambda a: a * 0)
    patient = load_folder_patient(folder)
    share = patient.facts["tumor_share_outside_tissue"]
    assert 0.9 < share <= 1.0
    assert patient.tissue["white_matter"][patient.scans[0].masks["t1gd"]].all()
    assert any("counts as white matter" in sentence for sentence in patient.assumptions)


def test_a_later_scan_changes_nothing_but_itself(folder: Path) -> None:
    honest = load_folder_patient(folder)
    rewrite(folder, "wm.nii.gz", lambda a: a * 0)
    hollow = load_folder_patient(folder)
    rewrite(folder, "day60_t1gd.nii.gz", lambda a: np.asarray(honest.brain, np.float32))
    poisoned = load_folder_patient(folder)
    np.testing.assert_array_equal(poisoned.domain, hollow.domain)
    for name in hollow.tissue:
        np.testing.assert_array_equal(poisoned.tissue[name], hollow.tissue[name])


def test_later_and_single_channel_empty_masks_are_observations(folder: Path) -> None:
    for name in ("day0_t1gd.nii.gz", "day60_t1gd.nii.gz"):
        rewrite(folder, name, lambda a: a * 0)
    patient = load_folder_patient(folder)
    assert not patient.scans[0].masks["t1gd"].any() and not patient.scans[1].masks["t1gd"].any()
    rewrite(folder, "day0_flair.nii.gz", lambda a: a * 0)
    refused(folder, "at least one mask at the first visit", "t1gd, flair")


def test_a_file_in_another_space_is_refused_or_resampled_as_configured(folder: Path) -> None:
    original = load_folder_patient(folder)
    volume = read_volume(folder / "day60_t1gd.nii.gz", kind="mask")
    flipped = volume.grid.affine_array.copy()
    flipped[:3, 3] = volume.grid.to_world(np.array([volume.grid.shape[0] - 1.0, 0, 0]))
    flipped[:3, 0] *= -1
    write_volume(folder / "day60_t1gd.nii.gz", volume.array[::-1], Grid(volume.grid.shape, flipped))
    refused(folder, "day60_t1gd.nii.gz", "affine", "resample: true")
    edit(folder, put("resample", value=True))
    patient = load_folder_patient(folder)
    np.testing.assert_array_equal(patient.scans[1].masks["t1gd"], original.scans[1].masks["t1gd"])


def test_a_file_of_another_shape_is_refused(folder: Path) -> None:
    volume = read_volume(folder / "day60_t1gd.nii.gz", kind="mask")
    grid = volume.grid.crop((0, 0, 0), (16, 18, 9))
    write_volume(folder / "day60_t1gd.nii.gz", volume.array[:, :, :9], grid)
    refused(folder, "(16, 18, 10)", "(16, 18, 9)")


def test_a_mask_outside_the_brain_is_refused_and_a_rim_is_dropped(folder: Path) -> None:
    patient = load_folder_patient(folder)

    def rim(a: np.ndarray) -> np.ndarray:
        a = a.copy()
        a[tuple(np.argwhere(~patient.brain)[0])] = 1  # 1 of 45 voxels
        return a

    rewrite(folder, "day60_t1gd.nii.gz", rim)
    later = load_folder_patient(folder)
    assert not (later.scans[1].masks["t1gd"] & ~later.brain).any()
    assert later.facts["outside_brain_t1gd_day_60"] == pytest.approx(1 / 45)
    assert any("outside the brain" in sentence for sentence in later.assumptions)
    rewrite(folder, "day60_t1gd.nii.gz", lambda a: np.ones_like(a))
    refused(folder, "day60_t1gd.nii.gz", "5%", "outside the patient's own brain mask")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("visits", 1, "day", value=-3), ("time order", "day -3 after day 0")),
        (put("visits", 1, "day", value=0.4), ("one visit a day", "two visits on day 0")),
        (put("visits", 0, "day", value=5), ("day 0 at the first visit", "subtract 5")),
        (put("visits", 1, "day", value=float("nan")), ("visits[1].day", "finite")),
        (put("visits", 1, "day", value="soon"), ("visits[1].day", "a number", "soon")),
        (put("visits", value=[]), ("at least one visit",)),
        (put("visits", value={"day": 0}), ("visits", "a list")),
        (put("treatments", "radiotherapy", "start", value=-2), ("before the first scan", "day -2")),
        (put("treatments", "radiotherapy", "dose", value=-2.0), ("0 or more", "-2")),
        (put("treatments", "radiotherapy", "dose", value=float("inf")), ("finite",)),
        (put("treatments", "radiotherapy", "dose", value=200), ("Gy a fraction, up to 30", "200", "cGy")),
        (put("visits", 0, "masks", "t2", value="day0_t1gd.nii.gz"), ("t1gd and flair", "'t2'")),
        (put("treatments", "radiotherapy", value={"days": [1, 2], "doses": [2.0]}), ("2 days and 1 doses",)),
        (put("treatments", "radiotherapy", value={"days": [2, 1], "doses": 2.0}), ("increasing", "day 1 after day 2")),
        (put("treatments", "radiotherapy", value={"days": [2, 2], "doses": 2.0}), ("increasing",)),
        (put("treatments", "radiotherapy", "days", value=[1]), ("not both",)),
        (put("treatments", "radiotherapy", value={"start": 1, "fractions": 3}), ("`dose`",)),
        (put("treatments", "radiotherapy", "start_weekday", value=7), ("Monday",)),
        (put("treatments", "temozolomide", value={"first_day": 5, "last_day": 2, "dose": 1}), ("last_day",)),
        (put("treatments", "temozolomide", value={"days": [-1], "doses": 1}), ("before the first scan",)),
        (put("treatments", "resection", "day", value=-1), ("resection", "before the first scan")),
        (put("treatments", "resection", "removed", value=1.5), ("[0, 1]",)),
        (put("treatments", "chemo", value={}), ("`chemo`", "temozolomide")),
        (put("brian", value="brain.nii.gz"), ("`brian`", "'brain'")),
        (put("visits", 0, "adc_units", value="mm^2/s"), ("`adc_units`", "'adc_unit'")),
        (put("visits", 0, "adc_unit", value="mm^2/s"), ("1e-6 mm^2/s", "day0_adc.nii.gz")),
        (put("tissue", value="homogenous"), ("homogeneous",)),
        (put("tissue", "wm", value="wm.nii.gz"), ("`wm`", "white_matter")),
        (put("tissue", value="atlas"), ("MNI", "brain Dice")),
        (put("resample", value="yes please"), ("true or false",)),
        (put("id", value=7), ("`id`", "a text")),
        (lambda content: {k: v for k, v in content.items() if k != "brain"}, ("`brain`", "add")),
        (lambda content: [1, 2], ("a mapping",)),
    ],
)
def test_mistakes_in_the_yaml_are_named(folder: Path, change, words: tuple[str, ...]) -> None:
    edit(folder, change)
    refused(folder, "patient.yaml" if "day0_adc.nii.gz" not in words else "day0_adc.nii.gz", *words)


def test_a_missing_adc_unit_a_missing_file_and_broken_yaml_are_named(folder: Path, tmp_path: Path) -> None:
    edit(folder, lambda content: content["visits"][0].pop("adc_unit") and None)
    refused(folder, "adc_unit")
    (folder / "patient.yaml").write_text("id: [unclosed")
    refused(folder, "valid YAML")
    with pytest.raises(InputError, match="no folder"):
        load_folder_patient(tmp_path / "nobody")
    (folder / "patient.yaml").unlink()
    refused(folder, "own-patient.md")


@pytest.mark.parametrize("name", ["../secret.nii.gz", "/etc/passwd", "sub/../../x.nii.gz", "", 3])
def test_paths_stay_in_the_folder(folder: Path, name: Any) -> None:
    (folder.parent / "secret.nii.gz").write_bytes((folder / "brain.nii.gz").read_bytes())
    edit(folder, put("anatomy", value=name))
    refused(folder, "inside the patient's folder", "`anatomy`")


def test_links_that_lead_out_are_refused_and_inner_ones_followed(folder: Path) -> None:
    (folder.parent / "secret.nii.gz").write_bytes((folder / "t1.nii.gz").read_bytes())
    os.symlink(folder.parent / "secret.nii.gz", folder / "link.nii.gz")
    edit(folder, put("anatomy", value="link.nii.gz"))
    refused(folder, "links that lead out")
    os.symlink(folder / "t1.nii.gz", folder / "inner.nii.gz")
    edit(folder, put("anatomy", value="inner.nii.gz"))
    load_folder_patient(folder)


def test_yaml_builds_no_python_objects(folder: Path) -> None:
    (folder / "patient.yaml").write_text("id: !!python/object/apply:os.system ['true']\n")
    refused(folder, "valid YAML")


def test_one_course_a_list_of_courses_and_free_days(folder: Path) -> None:
    courses = [{"days": [3, 5], "doses": [1.0, 2.0]}, {"first_day": 10, "last_day": 12, "dose": 0.5}]
    edit(folder, put("treatments", "temozolomide", value=courses))
    edit(folder, put("treatments", "radiotherapy", value={"days": [10.0, 10.25], "doses": 1.2}))
    schedule = load_folder_patient(folder).schedule
    assert schedule.drugs["temozolomide"].times.tolist() == [3, 5, 10, 11, 12]
    assert schedule.drugs["temozolomide"].doses.tolist() == [1.0, 2.0, 0.5, 0.5, 0.5]
    assert schedule.radiotherapy.times.tolist() == [10.0, 10.25]


def test_no_treatment_at_all_is_an_empty_schedule(folder: Path) -> None:
    edit(folder, lambda content: content.pop("treatments") and None)
    schedule = load_folder_patient(folder).schedule
    assert schedule.radiotherapy.size == 0 and schedule.drugs == {} and schedule.resections == ()
