"""Scores of samples against closed forms, double loops and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest

from tumortwin.metrics import (
    central_interval,
    clopper_pearson,
    concordance,
    correlation,
    coverage,
    crps,
    crps_gaussian,
    interval_score,
    probability_integral_transform,
    quantile,
    wilson,
)


def crps_double_loop(x, y, w):
    w = w / w.sum()
    return np.sum(w * np.abs(x - y)) - 0.5 * np.sum(w[:, None] * w[None, :] * np.abs(x[:, None] - x[None, :]))


@pytest.mark.parametrize("observed", [-3.0, 0.0, 0.7, 4.0])
def test_crps_of_a_normal_sample_is_the_closed_form(observed):
    levels = (np.arange(20_000) + 0.5) / 20_000
    sample = stats.norm.ppf(levels, loc=0.3, scale=1.7)
    assert crps(sample, observed) == pytest.approx(crps_gaussian(0.3, 1.7, observed), rel=2e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), st.floats(-60, 60), st.randoms(use_true_random=False))
def test_weighted_crps_matches_the_double_loop(values, observed, random):
    x = np.asarray(values)
    w = np.asarray([random.random() + 1e-3 for _ in values])
    assert crps(x, observed, w) == pytest.approx(crps_double_loop(x, observed, w), abs=1e-9)
    assert crps(x, observed, w) >= -1e-9


def test_integer_weights_are_repeated_draws():
    x, w = np.asarray([1.0, 5.0, 2.0]), np.asarray([3, 1, 2])
    repeated = np.repeat(x, w)
    assert crps(x, 2.5, w) == pytest.approx(crps(repeated, 2.5))
    assert probability_integral_transform(x, 2.0, w) == pytest.approx((3 + 0.5 * 2) / 6)


def test_crps_of_a_point_forecast_is_the_absolute_error():
    assert crps(np.asarray([7.0]), 4.5) == 2.5
    assert crps(np.asarray([7.0]), 4.5, fair=True) == 2.5


def test_fair_crps_of_a_small_ensemble_is_unbiased():
    rng = np.random.default_rng(1)
    truth, ensembles = rng.standard_normal(4000), rng.standard_normal((4000, 4))
    fair = np.mean([crps(e, y, fair=True) for e, y in zip(ensembles, truth, strict=True)])
    plain = np.mean([crps(e, y) for e, y in zip(ensembles, truth, strict=True)])
    assert fair == pytest.approx(1 / np.sqrt(np.pi), abs=0.03)  # E CRPS of a perfect standard normal forecast
    assert plain > 1.15 / np.sqrt(np.pi)


def test_non_finite_draws_are_refused_not_dropped():
    with pytest.raises(ValueError, match="1 not finite"):
        crps(np.asarray([1.0, np.nan]), 0.0)


def test_intervals_and_their_score():
    sample = np.arange(1000.0)
    low, high = central_interval(sample, 0.9)
    assert (low, high) == (pytest.approx(49.5), pytest.approx(949.5))
    assert float(quantile(sample, 0.5)) == pytest.approx(499.5)
    assert interval_score(2.0, 5.0, 3.0, 0.9) == 3.0
    assert interval_score(2.0, 5.0, 1.0, 0.9) == pytest.approx(3.0 + 20.0)
    assert interval_score(2.0, 5.0, 5.5, 0.9) == pytest.approx(3.0 + 10.0)


def test_weighted_quantiles_of_integer_weights_are_those_of_repeated_draws():
    rng = np.random.default_rng(0)
    draws, counts = rng.normal(size=20_000), rng.integers(0, 6, 20_000)
    levels = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
    repeated = np.quantile(np.repeat(draws, counts), levels, method="hazen")
    assert np.allclose(quantile(draws, levels, counts.astype(float)), repeated, atol=0.01)
    assert np.allclose(quantile(draws, levels), np.quantile(draws, levels, method="hazen"), atol=1e-12)
    assert np.allclose(quantile(draws, levels, np.full(20_000, 0.3)), quantile(draws, levels), atol=1e-12)


def test_weighted_quantiles_of_importance_weights_move_the_distribution():
    draws = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    weights = np.exp(draws - 0.5)  # density ratio N(1, 1) / N(0, 1)
    found = quantile(draws, np.array([0.025, 0.5, 0.975]), weights)
    assert np.allclose(found, [1 - 1.96, 1.0, 1 + 1.96], atol=0.01)


def test_a_draw_of_no_weight_says_nothing_and_all_of_them_are_refused():
    sample, weights = np.asarray([1.0, 2.9, 3.0]), np.asarray([0.5, 0.0, 0.5])
    assert float(quantile(sample, 0.5, weights)) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="non-negative weights"):
        quantile(np.ones(3), 0.5, np.zeros(3))


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 10), (57, 60), (10, 10)])
def test_proportion_intervals_match_scipy(k, n):
    for ours, method in ((wilson(k, n), "wilson"), (clopper_pearson(k, n), "exact")):
        theirs = binomtest(k, n).proportion_ci(0.95, method=method)
        assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9))


def test_coverage_counts_the_ends_as_inside():
    found = coverage(np.asarray([0.0, 0.0, 2.0]), np.asarray([1.0, 1.0, 3.0]), np.asarray([1.0, 2.0, 2.0]))
    assert (found.value, found.trials) == (pytest.approx(2 / 3), 3)


def test_concordance_by_hand_and_against_a_bias():
    x, y = np.asarray([1.0, 2.0, 3.0, 4.0]), np.asarray([1.5, 2.5, 3.5, 4.5])
    assert concordance(x, y) == pytest.approx(2 * 1.25 / (1.25 + 1.25 + 0.25))
    assert correlation(x, y) == pytest.approx(1.0)
    assert concordance(x, x) == pytest.approx(1.0)
    assert concordance(x, -x + 5.0) == pytest.approx(-1.0)
    assert concordance(x, np.full(4, 2.0)) == 0.0
    assert np.isnan(correlation(x, np.full(4, 2.0)))
    assert np.isnan(concordance(np.ones(3), np.ones(3)))
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(50), rng.standard_normal(50)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
