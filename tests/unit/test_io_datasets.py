"""The public data sets, on synthetic stand-ins of the same layout: laterality, domains, atlas, registration."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io import (
    Gate,
    atlas_tissue,
    load_atlas_anatomy,
    load_gbm_progression,
    load_tcga_lgg,
    register_rigid,
    write_volume,
)

SHAPE = (20, 22, 12)
# The orientations of the real files: the atlas RAS, the patient LPS, one common world.
ATLAS_GRID = Grid.from_spacing(SHAPE, (1.0, 1.0, 1.0), origin=(-19.0, 0.0, 0.0))
PATIENT_GRID = Grid(SHAPE, np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 21.0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]))
MIDDLE = -9.5  # x [mm] of the midline


def world(grid: Grid) -> np.ndarray:
    return grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))


def inside_head(points: np.ndarray) -> np.ndarray:
    center, radii = np.array([MIDDLE, 10.0, 5.5]), np.array([8.5, 9.0, 5.0])
    return np.linalg.norm((points - center) / radii, axis=-1) <= 1


def ball(points: np.ndarray, center: tuple[float, float, float], radius: float) -> np.ndarray:
    return np.linalg.norm(points - np.array(center), axis=-1) <= radius


def write_tcga(root: Path, id: str = "PHANTOM-1", labels: np.ndarray | None = None) -> Path:
    """A head whose left half (x < midline) is white and right half gray; the tumor is on the left, high in y."""
    there, here = world(ATLAS_GRID), world(PATIENT_GRID)
    head = inside_head(there)
    atlas = np.where(there[..., 0] < MIDDLE, 3, 2) * head
    atlas[head & ball(there, (-13.0, 13.0, 5.0), 1.1)] = 1  # CSF within the tumor
    name = "brain_atlas/sub-mni152_tissue-with-antsN4_space-sri.nii.gz"
    write_volume(root / name, atlas, ATLAS_GRID)
    if labels is None:
        labels = ball(here, (-13.0, 13.0, 5.0), 3.2) * 2
        labels[ball(here, (-13.0, 13.0, 5.0), 2.0)] = 1
    brain = inside_head(here)
    for suffix, values in {f"{id}_fla_bet": -50.0 * brain, f"{id}_t1c_bet": 700.0 * brain, "mav": labels}.items():
        write_volume(root / "tcga_lgg_static" / f"{id}_{suffix}.nii.gz", values, PATIENT_GRID)
    return root


def test_left_stays_left_through_the_affines(tmp_path: Path) -> None:
    patient = load_tcga_lgg(write_tcga(tmp_path))
    tumor = patient.scans[0].masks["flair"]
    assert world(patient.grid)[tumor][:, 0].max() < MIDDLE
    assert patient.tissue["white_matter"][tumor].all() and not patient.tissue["gray_matter"][tumor].any()
    right = patient.brain & (world(patient.grid)[..., 0] > MIDDLE)
    assert patient.tissue["gray_matter"][right].all()
    assert patient.facts["tumor_share_gray_matter"] == 0.0
    assert patient.facts["dice_brain_by_affine"] == 1.0


def test_tumor_in_csf_is_counted_as_white_matter_and_reported(tmp_path: Path) -> None:
    patient = load_tcga_lgg(write_tcga(tmp_path))
    tumor = patient.scans[0].masks["flair"]
    share = patient.facts["tumor_share_csf"]
    assert share == pytest.approx(7 / tumor.sum())
    assert patient.facts["tumor_share_outside_tissue"] == share
    assert patient.domain[tumor].all()
    assert any("counts as white matter" in sentence for sentence in patient.assumptions)


def test_channels_follow_the_labels(tmp_path: Path) -> None:
    here = world(PATIENT_GRID)
    labels = ball(here, (-13.0, 13.0, 5.0), 3.2) * 2
    labels[ball(here, (-13.0, 13.0, 5.0), 2.0)] = 1
    patient = load_tcga_lgg(write_tcga(tmp_path, labels=labels))
    np.testing.assert_array_equal(patient.scans[0].masks["t1gd"], labels == 1)
    np.testing.assert_array_equal(patient.scans[0].masks["flair"], labels > 0)
    assert "no enhancing label" in patient.assumptions[0]
    labels[ball(here, (-13.0, 13.0, 5.0), 1.1)] = 4
    patient = load_tcga_lgg(write_tcga(tmp_path, labels=labels))
    np.testing.assert_array_equal(patient.scans[0].masks["t1gd"], (labels == 1) | (labels == 4))
    assert "no enhancing label" not in patient.assumptions[0]


def test_another_patient_of_the_layout_needs_its_id_only_when_there_are_two(tmp_path: Path) -> None:
    write_tcga(tmp_path, "OTHER-2")
    assert load_tcga_lgg(tmp_path).id == "OTHER-2"
    assert load_tcga_lgg(tmp_path / "tcga_lgg_static").id == "OTHER-2"
    write_tcga(tmp_path, "OTHER-3")
    assert load_tcga_lgg(tmp_path, "OTHER-3").id == "OTHER-3"
    with pytest.raises(InputError, match="OTHER-2, OTHER-3"):
        load_tcga_lgg(tmp_path)
    with pytest.raises(InputError, match="NOBODY"):
        load_tcga_lgg(tmp_path, "NOBODY")
    with pytest.raises(InputError, match=r"registry\.yaml"):
        load_tcga_lgg(tmp_path / "nowhere")


def test_empty_unknown_and_stray_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="first visit"):
        load_tcga_lgg(write_tcga(tmp_path, labels=np.zeros(SHAPE)))
    with pytest.raises(InputError, match="label 3"):
        load_tcga_lgg(write_tcga(tmp_path, labels=np.full(SHAPE, 3)))
    with pytest.raises(InputError, match="outside the patient's own brain mask"):
        load_tcga_lgg(write_tcga(tmp_path, labels=np.ones(SHAPE)))


def test_the_atlas_is_the_benchmark_s() -> None:
    grid, t1, gray, white, brain = load_atlas_anatomy()
    assert grid.shape == (197, 233, 189) and grid.spacing == (1.0, 1.0, 1.0)
    for values in (t1, gray, white):
        assert values.dtype == np.float32 and 0 <= values.min() and values.max() <= 1
    assert brain.shape == grid.shape
    assert int((gray + white >= 0.5).sum()) == 1_729_575  # problem P2


def test_atlas_tissue_is_normalized_and_keeps_its_place() -> None:
    atlas = atlas_tissue(4)
    total = atlas.gray_matter + atlas.white_matter
    np.testing.assert_allclose(total[atlas.domain], 1.0, atol=1e-6)
    assert not total[~atlas.domain].any() and not (atlas.domain & ~atlas.brain).any()
    assert atlas.grid.spacing == (4.0, 4.0, 4.0)
    center = atlas.grid.to_world(np.argwhere(atlas.domain)).mean(axis=0)
    assert abs(center[0]) < 1.0  # the template is symmetric about x = 0
    with pytest.raises(InputError, match="whole number"):
        atlas_tissue(1.5)


# Registration and the two-visit patient

HEAD_GRID = Grid.from_spacing((56, 56, 12), (3.0, 3.0, 9.0))
HEAD_CENTER = np.array([82.5, 82.5, 49.5])


def head(points: np.ndarray, tumor_radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A T1-like head: bright scalp, dark skull, brain with an off-center dark ventricle; and its tumor mask."""
    radius = np.linalg.norm((points - HEAD_CENTER) / np.array([66.0, 76.0, 80.0]), axis=-1)
    image = np.where(radius < 1.0, 3000.0, 20.0)
    image[radius < 0.93] = 150.0
    image[radius < 0.85] = 1300.0
    image[ball(points, (95.0, 70.0, 50.0), 12.0)] = 500.0
    mask = ball(points, (60.0, 100.0, 50.0), tumor_radius)
    image[mask] = 2500.0
    return ndimage.gaussian_filter(image, 0.5), mask


ANGLE, SHIFT = 5.0, (4.0, -3.0, 0.0)


def moved_forward(points: np.ndarray) -> np.ndarray:
    """Where the motion carries points of the first scan."""
    c, s = np.cos(np.radians(ANGLE)), np.sin(np.radians(ANGLE))
    return (points - HEAD_CENTER) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]).T + HEAD_CENTER + np.array(SHIFT)


def moved_points() -> np.ndarray:
    """The points of the first scan that the voxels of the second show (the inverse motion)."""
    c, s = np.cos(np.radians(ANGLE)), np.sin(np.radians(ANGLE))
    return (world(HEAD_GRID) - HEAD_CENTER - np.array(SHIFT)) @ np.array(
        [[c, -s, 0], [s, c, 0], [0, 0, 1.0]]
    ) + HEAD_CENTER


def write_gbm(root: Path, id: str = "p77") -> Path:
    for time, points, radius in (("Pre", world(HEAD_GRID), 14.0), ("Post", moved_points(), 18.0)):
        image, mask = head(points, radius)
        write_volume(root / f"{id}_{time}_Scan_T1.nii.gz", image, HEAD_GRID)
        write_volume(root / f"{id}_{time}_Mask.nii.gz", mask, HEAD_GRID)
    return root


def test_registration_recovers_a_known_motion_and_repeats_itself() -> None:
    fixed, _ = head(world(HEAD_GRID), 14.0)
    moving, mask = head(moved_points(), 14.0)
    found = register_rigid(fixed, moving, HEAD_GRID, file=None)
    points = HEAD_CENTER + 60.0 * np.vstack([np.eye(3), -np.eye(3)])
    got = np.array([found.transform.TransformPoint(tuple(point)) for point in points.tolist()])
    error = np.linalg.norm(got - moved_forward(points), axis=1)
    assert error.max() < 1.5  # half a voxel; the motion itself is 3 to 10 mm
    assert found.disagreement < 1.5
    _, expected = head(world(HEAD_GRID), 14.0)
    back = found.move_mask(mask)
    assert 2 * (back & expected).sum() / (back.sum() + expected.sum()) > 0.9
    again = register_rigid(fixed, moving, HEAD_GRID, file=None)
    assert again.transform.GetParameters() == found.transform.GetParameters()


def test_a_registration_that_fails_its_gate_is_refused_with_the_numbers() -> None:
    fixed, _ = head(world(HEAD_GRID), 14.0)
    with pytest.raises(InputError, match=r"correlation 1\.000 -> "):
        register_rigid(fixed, fixed, HEAD_GRID, file="post.nii.gz")
    moving, _ = head(moved_points(), 14.0)
    with pytest.raises(InputError, match="mm apart"):
        register_rigid(fixed, moving, HEAD_GRID, gate=Gate(tolerance=0.0), file="post.nii.gz")


def test_two_visits_are_registered_masked_and_explained(tmp_path: Path) -> None:
    patient = load_gbm_progression(write_gbm(tmp_path), "p77", 90, voxel_size=(3, 3, 9))
    first, second = patient.scans
    assert (first.day, second.day) == (0.0, 90.0)
    assert patient.grid.spacing == (3.0, 3.0, 9.0)
    assert patient.facts["dice_persistence"] > patient.facts["dice_persistence_unregistered"] > 0
    expected = 2 * 14.0**3 / (14.0**3 + 18.0**3)  # concentric balls
    assert patient.facts["dice_persistence"] == pytest.approx(expected, abs=0.05)
    assert second.volume("t1gd", patient.grid) > first.volume("t1gd", patient.grid)
    assert patient.facts["registration_correlation_after"] > patient.facts["registration_correlation_before"]
    text = " ".join(patient.assumptions)
    for words in ("3 x 3 x 9 mm", "Left and right cannot be verified", "homogeneous", "prior", "rigidly"):
        assert words in text


def test_the_brain_mask_is_brain_and_knows_nothing_of_the_second_visit(tmp_path: Path) -> None:
    root = write_gbm(tmp_path)
    before = load_gbm_progression(root, "p77", 90.0, voxel_size=(3.0, 3.0, 9.0))
    radius = np.linalg.norm((world(HEAD_GRID) - HEAD_CENTER) / np.array([66.0, 76.0, 80.0]), axis=-1)
    truth = radius < 0.85
    overlap = 2 * (before.brain & truth).sum() / (before.brain.sum() + truth.sum())
    assert overlap > 0.93
    assert not (before.brain & (radius > 1.0)).any()
    _, poisoned = head(moved_points(), 6.0)
    write_volume(root / "p77_Post_Mask.nii.gz", poisoned, HEAD_GRID)
    after = load_gbm_progression(root, "p77", 90.0, voxel_size=(3.0, 3.0, 9.0))
    np.testing.assert_array_equal(after.domain, before.domain)
    np.testing.assert_array_equal(after.scans[0].masks["t1gd"], before.scans[0].masks["t1gd"])


@pytest.mark.parametrize("size", [(0.0, 1.0, 1.0), (1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_a_bad_voxel_size_is_refused(tmp_path: Path, size: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="voxel_size"):
        load_gbm_progression(write_gbm(tmp_path), "p77", 90.0, voxel_size=size)


def test_a_bad_interval_an_absent_scan_and_an_empty_first_mask_are_refused(tmp_path: Path) -> None:
    root = write_gbm(tmp_path)
    for interval in (-5.0, 0.0):
        with pytest.raises(InputError, match="required"):
            load_gbm_progression(root, "p77", interval)
    with pytest.raises(InputError, match="p78_Pre_Scan_T1"):
        load_gbm_progression(root, "p78", 90.0)
    write_volume(root / "p77_Pre_Mask.nii.gz", np.zeros(HEAD_GRID.shape), HEAD_GRID)
    with pytest.raises(InputError, match="first visit"):
        load_gbm_progression(root, "p77", 90.0, voxel_size=(3.0, 3.0, 9.0))
