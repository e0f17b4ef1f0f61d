"""Travel distance of fronts: exact where it can be, right to the scheme's order elsewhere, faster where fronts are."""

import numpy as np
import pytest

from tumortwin.geometry import travel_distance

SIDE = 40


def ball(radius=8.0, spacing=(1.0, 1.0, 1.0)):
    """Signed distance to a ball in the middle."""
    axes = [(np.arange(round(SIDE / h)) + 0.5) * h - SIDE / 2 for h in spacing]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.sqrt(x**2 + y**2 + z**2) - radius


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0)])
def test_at_the_reference_speed_it_is_the_distance(spacing):
    exact = ball(spacing=spacing)
    found = travel_distance(exact, np.ones_like(exact), spacing)
    near = np.abs(exact) < 7
    assert np.abs(found - exact)[near].max() < 0.9 and np.abs(found - exact)[near].mean() < 0.3
    assert (np.sign(found) == np.sign(exact)).all()
    slow = travel_distance(exact, np.full_like(exact, 0.5), spacing)
    np.testing.assert_allclose(slow, 2.0 * found, atol=0.05)


def test_finer_voxels_are_nearer():
    errors = []
    for h in (2.0, 1.0, 0.5):
        exact = ball(spacing=(h, h, h))
        found = travel_distance(exact, np.ones_like(exact), (h, h, h))
        errors.append(np.abs(found - exact)[np.abs(exact) < 7].mean())
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def test_a_plane_through_two_media_is_exact_and_a_detour_is_taken():
    x = np.broadcast_to((np.arange(30) - 4.5)[:, None, None], (30, 12, 5)).astype(float)
    speed = np.where(x < 10, 1.0, 0.25)
    found = travel_distance(x, speed, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(found[15:, 3, 2], 10.0 + 4.0 * (x[15:, 3, 2] - 10.0), atol=2.1)
    np.testing.assert_allclose(np.diff(found[16:, 3, 2]), 4.0, atol=1e-3)
    gap = np.where(np.abs(np.arange(12) - 9.5)[None, :, None] < 2, 1.0, speed)  # a fast channel on one side
    around = travel_distance(x, gap, (1.0, 1.0, 1.0))
    # Along the channel, then across five voxels of a medium four times as slow (refracted): 20.5 + 5 sqrt(15).
    assert around[25, 3, 2] == pytest.approx(20.5 + 5 * np.sqrt(15.0), rel=0.02)
    assert found[25, 3, 2] > 50 and (around <= found + 1e-3).all()


def test_the_reach_cuts_and_a_speed_of_zero_is_refused():
    exact = ball()
    assert np.abs(travel_distance(exact, np.ones_like(exact), (1.0, 1.0, 1.0), reach=5.0)).max() == 5.0
    with pytest.raises(ValueError, match="positive speed"):
        travel_distance(exact, np.where(exact > 0, 1.0, 0.0), (1.0, 1.0, 1.0))


def test_a_distance_that_does_not_settle_is_an_error(monkeypatch):
    """Nothing changes by less than a negative number: the iteration runs out."""
    monkeypatch.setattr("tumortwin.geometry._eikonal._SETTLED", -1.0)
    line = np.arange(7.0).reshape(7, 1, 1) - 3.0  # a shape that no other test has compiled
    with pytest.raises(FloatingPointError, match="travel distances that settle"):
        travel_distance(line, np.ones_like(line), (1.0, 1.0, 1.0))
