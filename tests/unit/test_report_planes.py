"""Left is left, whatever the order of the voxels."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from tumortwin import report as r
from tumortwin.report import _planes as planes

POINT = np.array([-20.0, 10.0, 30.0])  # the patient's left, front, top
SHAPE, SPACING = (40, 50, 60), np.array([2.0, 2.0, 2.0])
BOX = planes.Box(np.array([-40.0, -50.0, -60.0]), np.array([38.0, 48.0, 58.0]))


def blob(order: tuple[int, ...], signs: tuple[int, ...]) -> r.Image:
    """A blob at `POINT` in an image whose voxel axes are permuted and flipped."""
    world_axes = np.eye(3)[list(order)] * np.array(signs)[:, None]  # row i: direction of voxel axis i
    affine = np.eye(4)
    affine[:3, :3] = (world_axes * 2.0).T
    shape = tuple(SHAPE[o] for o in order)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2 - [1.0, 1.0, 1.0]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    away = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - POINT, axis=-1)
    return r.Image(np.exp(-((away / 5.0) ** 2)), affine)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("plane", planes.PLANES, ids=lambda p: p.name)
def test_every_plane_finds_the_blob_in_millimetres(
    order: tuple[int, ...], signs: tuple[int, ...], plane: planes.Plane
) -> None:
    shown = planes.cut(blob(order, signs), plane, float(POINT[plane.cut]), BOX, step=1.0)
    row, column = np.unravel_index(np.nanargmax(shown.values), shown.values.shape)
    assert abs(shown.across[column] - POINT[plane.across]) <= 1.0
    assert abs(shown.up[row] - POINT[plane.up]) <= 1.0


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1)], ids=["RAS", "LAS"])
def test_the_left_of_the_patient_is_on_the_right_under_the_letter_l(signs: tuple[int, ...]) -> None:
    image = blob((0, 1, 2), signs)
    for plane, side in ((planes.AXIAL, "L"), (planes.CORONAL, "L"), (planes.SAGITTAL, "A")):
        axes = Figure().subplots()
        anatomy = r.Anatomy(image)
        planes.show_background(
            axes, anatomy, plane, float(POINT[plane.cut]), BOX, step=2.0, gray=planes.window(anatomy)
        )
        planes.finish(axes, plane, BOX)
        x, _ = axes.transData.transform((POINT[plane.across], POINT[plane.up]))
        middle = axes.transAxes.transform((0.5, 0.5))[0]
        letters = {t.get_text(): axes.transAxes.transform(t.get_position())[0] for t in axes.texts}
        assert np.sign(x - middle) == np.sign(letters[side] - middle), plane.name
        x_of_right = axes.transData.transform((30.0, 0.0))[0]
        if plane.across == 0:
            assert x_of_right < middle < x and letters["R"] < middle < letters["L"]


def test_outside_the_image_is_nothing_and_the_edge_voxel_is_whole() -> None:
    image = r.Image(np.ones((4, 4, 4)), np.diag([2.0, 2.0, 2.0, 1.0]))
    box = planes.Box(np.full(3, -3.0), np.full(3, 9.0))
    shown = planes.cut(image, planes.AXIAL, 3.0, box, step=0.5)
    inside = np.isfinite(shown.values)
    covered = shown.across[inside.any(axis=0)]
    assert covered.min() == -1.0 and covered.max() == 7.0
    assert np.allclose(shown.values[inside], 1.0)


def test_box_and_center_follow_the_affine() -> None:
    values = np.zeros((5, 5, 5))
    values[1, 2, 3] = values[2, 2, 3] = 1.0
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = [10.0, 0.0, 0.0]
    image = r.Image(values, affine)
    box = planes.box_of(image, values > 0)
    assert np.allclose(box.low, [6.0, 6.0, 12.0]) and np.allclose(box.high, [8.0, 6.0, 12.0])
    assert np.allclose(planes.center_of(image, values > 0), [7.0, 6.0, 12.0])


def test_a_contour_that_is_not_there_is_not_drawn() -> None:
    axes = Figure().subplots()
    empty = r.Image(np.zeros((4, 4, 4)), np.eye(4))
    box = planes.Box(np.zeros(3), np.full(3, 3.0))
    assert not planes.contour(axes, empty, planes.AXIAL, 1.0, box, step=1.0)
