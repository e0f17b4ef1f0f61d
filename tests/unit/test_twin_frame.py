"""The model's grid: blocks conserve volume, come back without shift, know distance and domain."""

import dataclasses

import numpy as np
import pytest
import twin_case as case

from tumortwin.geometry import Grid, Window, block_mean
from tumortwin.metrics import signed_distance
from tumortwin.twin import ModelFrame, Scan
from tumortwin.twin._frame import block_factors, smooth_outline

FINE = Grid.from_spacing((21, 22, 23), (2.0, 2.0, 2.0), origin=(-7.0, 5.0, 11.0))


@pytest.mark.parametrize("start, shape", [((0, 0, 0), (11, 11, 12)), ((-3, -2, -1), (16, 16, 16))])
def test_block_means_conserve_volume_with_partial_blocks_and_beyond_the_array(start, shape):
    frame = ModelFrame(FINE, (2, 2, 2), Window(start, shape))
    mask = np.random.default_rng(0).random(FINE.shape) < 0.3
    share = frame.coarse(mask)
    assert share.shape == frame.grid.shape == shape
    assert share.sum(dtype=float) * frame.grid.cell_volume == mask.sum() * FINE.cell_volume


def test_blocks_lie_where_their_voxels_lie():
    frame = ModelFrame(FINE, (2, 2, 2), Window((-1, 2, 3), (8, 6, 4)))
    mask = np.zeros(FINE.shape, bool)
    mask[4:6, 8:10, 10:12] = True
    (block,) = np.argwhere(frame.coarse(mask) == 1.0)
    middle = FINE.to_world(np.argwhere(mask)).mean(axis=0)
    np.testing.assert_allclose(frame.grid.to_world(block), middle)


def test_going_coarse_and_fine_again_keeps_a_linear_field_inside():
    frame = ModelFrame(FINE, (2, 2, 2), Window((1, 1, 1), (8, 8, 8)))
    world = FINE.to_world(np.moveaxis(np.indices(FINE.shape), 0, -1))
    field = world @ np.array([0.5, -1.0, 0.25]) + 3.0
    back = frame.fine(frame.coarse(field), fill=-99.0)
    inside = (slice(3, 17),) * 3  # half a block from the window's surface and further
    np.testing.assert_allclose(back[inside], field[inside], atol=1e-4)
    assert (back[:2] == -99.0).all() and (back[18:] == -99.0).all()


def test_factors_follow_the_voxel_and_never_refine():
    assert block_factors(Grid.from_spacing((8, 8, 8), (1.0, 1.0, 3.0)), 3.0) == (3, 3, 1)
    assert block_factors(Grid.from_spacing((8, 8, 8), (0.9, 2.0, 7.0)), 2.0) == (2, 1, 1)
    frame = ModelFrame(Grid.from_spacing((12, 12, 4), (1.0, 1.0, 3.0)), (3, 3, 1), Window((0, 0, 0), (4, 4, 4)))
    assert frame.grid.spacing == (3.0, 3.0, 3.0)


def test_a_block_is_domain_when_half_of_it_is_and_its_tissue_is_that_of_its_domain():
    domain = np.zeros((8, 8, 8), bool)
    domain[:4] = True
    domain[4, 0:2, 0:2] = True  # half of the block (2, 0, 0)
    domain[4, 2, 2] = True  # an eighth of the block (2, 1, 1)
    grid = Grid.from_spacing((8, 8, 8), (4.0, 4.0, 4.0))
    frame = ModelFrame(grid, (2, 2, 2), Window((0, 0, 0), (4, 4, 4)))
    one = dataclasses.replace(case.patient(), grid=grid, domain=domain, tissue={"white_matter": 0.6 * domain})
    tissue = frame.tissue(one)
    mask = np.asarray(tissue.domain.mask)
    assert mask[:2].all() and mask[2, 0, 0] and not mask[2, 1, 1] and not mask[3].any()
    np.testing.assert_allclose(np.asarray(tissue.fields["white_matter"]), 0.6 * mask, rtol=1e-6)
    assert tissue.grid.spacing == frame.grid.spacing


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0)])
def test_distance_to_a_ball(spacing):
    grid = Grid.from_spacing([round(40 / h) for h in spacing], spacing)
    exact = case.distance_to((19.5, 19.5, 19.5), grid) - 10.0
    found = signed_distance(exact <= 0, grid.spacing, to_edge=True)
    assert np.abs(found - exact)[np.abs(exact) < 8].max() < 0.9 * max(spacing)
    assert abs(np.mean((found - exact)[np.abs(exact) < 8])) < 0.25  # a quarter of the finest voxel


def test_distance_of_an_empty_mask_is_infinite():
    frame = case.frame(case.patient())
    assert np.isposinf(frame.distance(np.zeros(case.GRID.shape, bool))).all()


def test_travel_is_distance_over_speed_and_infinite_without_an_outline():
    one = case.patient()
    frame, speed = case.frame(one), np.full(case.GRID.shape, 0.5)
    flair = one.scans[0].masks["flair"]
    slow, plain = frame.travel(flair, speed), frame.travel(flair, np.ones_like(speed))
    np.testing.assert_allclose(slow, 2.0 * plain, atol=0.05)
    assert slow.shape == frame.box.shape
    assert np.isposinf(frame.travel(np.zeros(case.GRID.shape, bool), speed)).all()


def test_parts_stand_for_the_mean_over_the_domain_of_each_block():
    one = case.patient()
    frame = dataclasses.replace(case.frame(one), factors=(2, 2, 2))
    frame = dataclasses.replace(frame, window=dataclasses.replace(frame.window, start=(0, 0, 0), shape=(10, 10, 10)))
    field = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    domain = np.ones((20, 20, 20), bool)
    domain[::2, ::2] = False
    other = np.where(np.arange(20)[:, None, None] < 10, np.inf, -field).astype(np.float32)
    every, both = frame.parts([field, other], domain, count=6)
    blocks = np.moveaxis(field.reshape(10, 2, 10, 2, 10, 2), (1, 3, 5), (0, 1, 2)).reshape(8, 10, 10, 10)
    inside = np.moveaxis(domain.reshape(10, 2, 10, 2, 10, 2), (1, 3, 5), (0, 1, 2)).reshape(8, 10, 10, 10)
    np.testing.assert_allclose(every.mean(0), np.mean(blocks, axis=0, where=inside), atol=1e-6)  # six in the domain
    np.testing.assert_array_equal(both[:, 5:], -every[:, 5:])
    assert np.isposinf(both[:, :5]).all()
    (two,) = frame.parts([field], np.zeros_like(domain), count=2)  # a block outside of the domain counts whole
    ordered = np.sort(blocks, axis=0)
    np.testing.assert_array_equal(two, ordered[[2, 6]])


def test_smoothing_an_outline_does_not_move_it():
    grid = Grid.from_spacing((40, 40, 40), (1.0, 1.0, 1.0))
    flat = np.zeros(grid.shape, bool)
    flat[:17] = True
    assert np.array_equal(smooth_outline(flat, grid), flat)
    bumpy = flat.copy()
    rows = np.arange(40)
    bumpy[17, (rows % 4 < 2)] = True  # bumps and dents of the same size about the same plane
    bumpy[16, (rows % 4 >= 2)] = False
    smooth = smooth_outline(bumpy, grid)
    assert abs(int(smooth.sum()) - int(flat.sum())) <= 0.01 * flat.sum()


def test_a_tiny_outline_survives_smoothing():
    grid = Grid.from_spacing((12, 12, 12), (1.0, 1.0, 1.0))
    tiny = np.zeros(grid.shape, bool)
    tiny[6, 6, 6] = True
    assert np.array_equal(smooth_outline(tiny, grid), tiny)


def test_the_frame_holds_every_outline_and_its_margin_within_the_domain():
    one = case.patient()
    frame = ModelFrame.around(one, spacing=4.0, margin=8.0, bucket=4)
    kept = np.asarray(frame.box.crop(case.ball(16.0 + 7.9)))
    assert kept.sum() == case.ball(16.0 + 7.9).sum()
    assert all(n % 4 == 0 for n in frame.grid.shape)
    empty = dataclasses.replace(one, scans=(dataclasses.replace(one.scans[0], masks={"t1gd": one.brain & False}),))
    with pytest.raises(ValueError, match="outlined"):
        ModelFrame.around(empty)


def test_a_partial_block_is_filled_not_dropped():
    np.testing.assert_allclose(block_mean(np.ones((3, 2, 2)), (2, 2, 2)).ravel(), [1.0, 0.5])


def test_a_frame_around_more_scans_keeps_its_voxels_margin_and_bucket():
    grid = Grid.from_spacing((40, 40, 12), (0.9, 0.9, 6.5))
    mask = np.zeros(grid.shape, bool)
    mask[18:22, 18:22, 5:7] = True
    first = dataclasses.replace(
        case.patient(), grid=grid, domain=np.ones(grid.shape, bool), scans=(Scan(0.0, {"t1gd": mask}),)
    )
    frame = ModelFrame.around(first, spacing=3.0, margin=6.0, bucket=4)
    assert frame.factors == (3, 3, 1)
    assert frame.around_again(first) == frame
    wider = mask.copy()
    wider[6:34] |= mask[18]
    more = dataclasses.replace(first, scans=(*first.scans, Scan(30.0, {"t1gd": wider})))
    again = frame.around_again(more)
    assert again == ModelFrame.around(more, spacing=3.0, margin=6.0, bucket=4)
    assert again.factors == (3, 3, 1) and again.window.shape[0] > frame.window.shape[0]


def test_a_frame_of_one_shape_stays_one_of_that_shape_when_the_tumor_grows():
    before, after = (case.patient([case.scan(0.0, 8.0, radius)]) for radius in (10.0, 22.0))
    frame = ModelFrame.of_shape(before, (12, 14, 12), spacing=4.0)
    assert frame.grid.shape == (12, 14, 12) and frame.grid.spacing == (4.0, 4.0, 4.0)
    share = frame.coarse(before.outlined)
    assert share.sum(dtype=float) * frame.grid.cell_volume == before.outlined.sum() * before.grid.cell_volume
    assert frame.around_again(after).grid.shape == (12, 14, 12)
    assert ModelFrame.around(before, spacing=4.0).around_again(after).grid.shape != (12, 14, 12)
    with pytest.raises(ValueError, match="fits into"):
        ModelFrame.of_shape(after, (8, 8, 8), spacing=4.0)
