"""Scores of probabilities against brute force, known limits, and forecasts that are right or wrong by design."""

import numpy as np
import pytest

from tumortwin.metrics import auc, auc_difference, brier, recalibration, spiegelhalter


def drawn(seed=0, n=4000, shift=0.0, slope=1.0):
    """Stated probabilities, and events of which `logit P = shift + slope logit p`."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.0, 1.2, n)
    return 1 / (1 + np.exp(-logit)), rng.random(n) < 1 / (1 + np.exp(-shift - slope * logit))


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(3)
    p, y = rng.integers(0, 7, 60) / 7, rng.random(60) < 0.3
    gaps = p[y][:, None] - p[~y]
    assert auc(p, y) == pytest.approx(np.mean((gaps > 0) + 0.5 * (gaps == 0)), abs=1e-14)
    assert auc(1 - p, y) == pytest.approx(1 - auc(p, y), abs=1e-14)
    assert np.isnan(auc(p, np.zeros(60, bool)))


def test_brier_of_the_prevalence_is_its_variance():
    y = np.arange(10) < 3
    assert brier(np.full(10, 0.3), y) == pytest.approx(0.21)
    assert brier(y.astype(float), y) == 0.0


@pytest.mark.parametrize(("slope", "shift", "calibrated"), [(1.0, 0.0, True), (0.5, 0.0, False), (1.0, 0.6, False)])
def test_spiegelhalter_tells_right_from_wrong(slope, shift, calibrated):
    assert (abs(spiegelhalter(*drawn(slope=slope, shift=shift))) < 1.96) == calibrated


def test_spiegelhalter_is_standard_normal_when_calibrated():
    z = np.asarray([spiegelhalter(*drawn(seed, 150)) for seed in range(400)])
    assert abs(z.mean()) < 4 / np.sqrt(400)
    assert abs(z.std() - 1) < 4 / np.sqrt(800)
    assert np.isnan(spiegelhalter(np.full(4, 0.5), np.array([True, False, True, False])))


@pytest.mark.parametrize(("shift", "slope"), [(0.0, 1.0), (0.5, 0.6)])
def test_recalibration_finds_the_line_it_was_drawn_from(shift, slope):
    line = recalibration(*drawn(5, 20_000, shift, slope))
    assert abs(line.slope - slope) < 4 * line.slope_error
    assert abs(line.intercept - shift) < 4 * line.intercept_error


def test_recalibration_refuses_separated_events():
    with pytest.raises(ValueError, match="separate"):
        recalibration(np.array([0.1, 0.2, 0.7, 0.8]), np.array([False, False, True, True]))


def test_the_difference_of_a_forecaster_to_itself_is_nothing_and_to_a_worse_one_is_not():
    p, y = drawn(7, 300)
    subject, rng = np.arange(300) // 3, np.random.default_rng(0)
    same = auc_difference(p, p, y, subject, rng=rng, resamples=50)
    assert (same.difference, same.low, same.high, same.used) == (0.0, 0.0, 0.0, 50)
    worse = auc_difference(p, np.random.default_rng(1).random(300), y, subject, rng=rng, resamples=300)
    assert worse.low > 0
    assert worse.low < worse.difference < worse.high
