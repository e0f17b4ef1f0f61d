"""Overlap and surface distance, against hand-made masks and an all-pairs computation."""

import numpy as np
import pytest

from tumortwin.metrics import dice, hausdorff95, surface_distances, volume_similarity

EMPTY = np.zeros((6, 5, 4), dtype=bool)


def ball(center, radius, shape=(14, 12, 9)):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return ((index - np.asarray(center)) ** 2).sum(-1) <= radius**2


def brute_surface(mask):
    padded = np.pad(mask, 1)
    inner = np.ones_like(mask)
    for axis in range(3):
        for shift in (-1, 1):
            inner &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    return np.argwhere(mask & ~inner)


def brute_distances(a, b, spacing):
    pa, pb = brute_surface(a) * spacing, brute_surface(b) * spacing
    pairs = np.linalg.norm(pa[:, None, :] - pb[None, :, :], axis=-1)
    return pairs.min(1), pairs.min(0)


def test_dice_and_volume_similarity_by_hand():
    a, b = EMPTY.copy(), EMPTY.copy()
    a[0, 0, :4] = True
    b[0, 0, 1:4] = True
    b[1, 0, :3] = True
    assert dice(a, b) == pytest.approx(2 * 3 / 10)
    assert volume_similarity(a, b) == pytest.approx(1 - 2 / 10)


def test_empty_masks_have_stated_answers():
    one = EMPTY.copy()
    one[2, 2, 2] = True
    assert (dice(EMPTY, EMPTY), hausdorff95(EMPTY, EMPTY, (1.0, 1.0, 1.0)), volume_similarity(EMPTY, EMPTY)) == (
        1.0,
        0.0,
        1.0,
    )
    for a, b in ((one, EMPTY), (EMPTY, one)):
        assert (dice(a, b), hausdorff95(a, b, (1.0, 1.0, 1.0)), volume_similarity(a, b)) == (0.0, np.inf, 0.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.9375, 0.9375, 6.5), (1.0, 2.0, 3.0)])
def test_surface_distances_match_all_pairs_on_anisotropic_voxels(spacing):
    a, b = ball((5, 5, 4), 3.2), ball((7, 6, 4), 2.1)
    for ours, theirs in zip(surface_distances(a, b, spacing), brute_distances(a, b, np.asarray(spacing)), strict=True):
        np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-12)
    to_b, to_a = brute_distances(a, b, np.asarray(spacing))
    expected = max(np.percentile(to_b, 95), np.percentile(to_a, 95))
    assert hausdorff95(a, b, spacing) == pytest.approx(expected)


def test_hausdorff_of_a_shift_is_the_shift_in_mm_and_symmetric():
    a = np.zeros((20, 10, 10), dtype=bool)
    a[2:8, 3:7, 3:7] = True
    b = np.roll(a, 4, axis=0)
    assert hausdorff95(a, b, (2.5, 1.0, 1.0)) == pytest.approx(10.0)
    assert hausdorff95(a, b, (2.5, 1.0, 1.0)) == hausdorff95(b, a, (2.5, 1.0, 1.0))


def test_permuting_axes_changes_nothing():
    a, b, spacing = ball((5, 5, 4), 3.2), ball((7, 6, 4), 2.1), (1.0, 2.0, 3.0)
    order = (2, 0, 1)
    turned = tuple(spacing[i] for i in order)
    assert hausdorff95(a.transpose(order), b.transpose(order), turned) == pytest.approx(hausdorff95(a, b, spacing))


def test_probabilities_and_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=r"required: two bool masks.*try: threshold"):
        dice(np.full((2, 2, 2), 0.5), np.ones((2, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="one shape"):
        dice(EMPTY, EMPTY[:-1])
