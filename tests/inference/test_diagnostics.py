"""Pareto smoothing, correlation volume, identifiability in words, calibration and coverage."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import numpyro.distributions as dist
import pytest
from pair_case import pair
from scipy import stats
from scipy.ndimage import gaussian_filter

from tumortwin.inference import (
    LaplaceCalibrator,
    Prior,
    Problem,
    PsisCalibrator,
    calibrate,
    correlation_volume,
    coverage,
    covers,
    identifiability_of_draws,
    pareto_smooth,
    ranks,
    reweight,
    uniformity,
)
from tumortwin.inference._correlation import shared_residuals
from tumortwin.inference._identifiability import _listed
from tumortwin.observation import AdcObservation, Datum
from tumortwin.params import parameter


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_k_hat_is_the_shape_of_the_tail(shape):
    ratios = np.log(stats.genpareto.rvs(shape, size=20_000, random_state=1) + 1e-6)
    log_weights, k_hat = pareto_smooth(ratios)
    assert k_hat == pytest.approx(shape, abs=0.12)
    assert np.exp(log_weights).sum() == pytest.approx(1.0)


def zhang_stephens(x: list[float]) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto sample as in Zhang & Stephens (2009), sums written out; the shape then
    drawn to .5 by ten observations, the grid begun at 30, as in Vehtari et al. (2024)."""
    n, m = len(x), 30 + math.floor(math.sqrt(len(x)))
    quartile = x[math.floor(n / 4 + 0.5) - 1]
    grid = [1 / x[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * quartile) for j in range(1, m + 1)]

    def k_of(theta: float) -> float:
        return -sum(math.log(1 - theta * value) for value in x) / n

    levels = [n * (math.log(theta / k_of(theta)) + k_of(theta) - 1) for theta in grid]
    weights = [1 / sum(math.exp(other - mine) for other in levels) for mine in levels]
    theta = sum(t * w for t, w in zip(grid, weights, strict=True))
    k = k_of(theta)
    return (n * -k + 10 * 0.5) / (n + 10), k / theta


def smoothed(ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto smoothing on the weights themselves, with SciPy's distribution."""
    weights = np.exp(ratios - ratios.max())
    count = math.ceil(min(ratios.size / 5, 3 * math.sqrt(ratios.size)))
    largest = np.argsort(weights)[-count:]
    cutoff = np.sort(weights)[-count - 1]
    shape, scale = zhang_stephens(sorted(weights[largest] - cutoff))
    places = (np.arange(count) + 0.5) / count
    weights[largest] = np.minimum(cutoff + stats.genpareto.ppf(places, shape, scale=scale), 1.0)
    return np.log(weights / weights.sum()), shape


def test_smoothing_agrees_with_an_implementation_of_its_own():
    for seed, scale in enumerate((0.5, 1.5, 3.0)):
        ratios = np.random.default_rng(seed).normal(size=1000) * scale
        expected, k_expected = smoothed(ratios)
        log_weights, k_hat = pareto_smooth(ratios)
        assert k_hat == pytest.approx(float(k_expected), abs=1e-6)
        np.testing.assert_allclose(log_weights, np.asarray(expected), atol=1e-6)


@pytest.mark.parametrize("ball", [False, True])
def test_the_correlation_volume_of_a_gaussian_field(ball):
    """White noise smoothed with sigma: rho = exp(-d^2 / 4 sigma^2), volume (4 pi sigma^2)^(3/2)."""
    shape, spacing, sigma = (48, 48, 32), (1.0, 1.0, 2.0), 1.5
    rng, found = np.random.default_rng(4), []
    axes = [(np.arange(n) - n / 2 + 0.5) * h for n, h in zip(shape, spacing, strict=True)]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    valid = (radius < 23) if ball else np.ones(shape)
    for _ in range(6):
        field = gaussian_filter(rng.normal(size=shape), [sigma / h for h in spacing], mode="wrap")
        found.append(correlation_volume(np.where(valid > 0, field, np.nan), np.asarray(valid), spacing))
    assert np.median(found) == pytest.approx((4 * np.pi * sigma**2) ** 1.5, rel=0.25)


def test_white_noise_voxels_are_independent():
    field = np.random.default_rng(0).normal(size=(24, 24, 24))
    assert correlation_volume(field, np.ones(field.shape), (3.0, 3.0, 3.0)) == pytest.approx(27.0, rel=0.1)


class Level(eqx.Module):
    """A constant field."""

    level: jax.Array = parameter(unit="1")


def _level(model, days):
    return jnp.broadcast_to(model.level, (len(days), 24, 24, 24))


def test_reweighting_repairs_the_error_of_a_mean_of_correlated_voxels():
    """The sd of a mean over a correlated field is sd sqrt(V_corr / V); independent voxels claim V_voxel for V_corr."""
    rng = np.random.default_rng(2)
    noise = gaussian_filter(rng.normal(size=(24, 24, 24)), 1.0, mode="wrap")
    noise *= 0.1 / noise.std()
    prior = Prior({"level": dist.Normal(0.5, 1.0)})
    data = (Datum(0.0, "image", 0.4 + noise),)
    problem = Problem(
        linear.build(Level, 0.0), {"image": linear.build(AdcObservation, 0.1)}, prior, data, _level, (1.0, 1.0, 1.0)
    )
    posterior = calibrate(problem, LaplaceCalibrator(), key=jax.random.key(0))
    honest = 0.1 * np.sqrt((4 * np.pi) ** 1.5 / 24**3)
    assert posterior.sd("level") == pytest.approx(honest, rel=0.25)
    again, volumes = reweight(problem, jnp.asarray(posterior.info["map_z"]))
    assert float(again.weights[0]) == pytest.approx(1.0 / volumes[0])


def test_one_scan_identifies_the_ratio_only_and_two_identify_both():
    one = calibrate(pair((0.0,)), LaplaceCalibrator(), key=jax.random.key(0))
    assert "Only jointly identified" in one.statement
    assert "diffusivity / growth" in one.statement
    assert "prior decides the split" in one.statement
    bounded = calibrate(pair((0.0,), bounded=True), LaplaceCalibrator(), key=jax.random.key(0))
    assert "diffusivity / growth" in bounded.statement
    two = calibrate(pair((0.0, 60.0)), LaplaceCalibrator(), key=jax.random.key(0))
    assert "Every parameter is identified" in two.statement
    assert "jointly" not in two.statement


def test_a_parameter_the_data_do_not_touch_is_said_to_be_its_prior():
    given = linear.problem()
    quiet = Problem(given.model, given.observations, given.prior, given.data[:1], linear.solve)  # day 0: no slope
    posterior = calibrate(quiet, LaplaceCalibrator(), key=jax.random.key(0))
    assert "say little about slope (100 %)" in posterior.statement
    left = posterior.info["identifiability"]["variance_left"]
    assert left["slope"] == pytest.approx(1.0, abs=1e-6) and left["offset"] < 0.05


@pytest.mark.slow
def test_simulation_based_calibration_of_a_conjugate_model():
    """Truth from the prior, data from the model: ranks are uniform, intervals cover; overconfidence is caught."""
    rng = np.random.default_rng(11)
    calibrator = PsisCalibrator(laplace=LaplaceCalibrator(), batch=500, chunk=500, least_effective=100.0)
    found = {"right": [], "wrong": []}
    inside = {"offset": [], "slope": []}
    for seed in range(60):
        truth = linear.PRIOR_MEAN + linear.PRIOR_SD * rng.normal(size=2)
        named = {"offset": truth[0], "slope": truth[1]}
        problem = linear.problem(seed=seed, truth=tuple(truth))
        right = calibrate(problem, calibrator, key=jax.random.key(seed))
        found["right"] += [float(v) for v in ranks(right, named).values()]
        for path, value in covers(right, named).items():
            inside[path].append(bool(value))
        proud = problem.with_weights(jnp.full(4, 25.0))
        found["wrong"] += [
            float(v) for v in ranks(calibrate(proud, calibrator, key=jax.random.key(seed)), named).values()
        ]
    assert uniformity(found["right"])[1] > 0.01
    assert uniformity(found["wrong"])[1] < 1e-6
    report = coverage(inside)
    assert report["pooled"].share >= 0.88 and report["offset"].high > 0.95
    assert report["pooled"].total == 120


def test_residuals_that_images_share_are_counted_once():
    random = np.random.default_rng(0)
    shape, valid = (12, 12, 12), np.ones((12, 12, 12))
    common = random.standard_normal(shape)
    np.testing.assert_allclose(shared_residuals([(common, valid)] * 3), 3.0)
    alone = [(random.standard_normal(shape), valid) for _ in range(3)]
    np.testing.assert_allclose(shared_residuals(alone), 1.0, atol=0.1)
    mixed = shared_residuals([(common + field, valid) for field, _ in alone])
    np.testing.assert_allclose(mixed, 2.0, atol=0.15)  # half of the variance is common
    np.testing.assert_allclose(shared_residuals([(common, valid), (-common, valid)]), 1.0)
    half = valid.copy()
    half[6:] = 0
    garbage = np.where(half > 0, common, np.nan)
    one, other = shared_residuals([(common, valid), (garbage, half)])
    assert one == other == pytest.approx(1 + np.sqrt(np.sum(common[:6] ** 2) / np.sum(common**2)))
    assert shared_residuals([(common, valid), (common[:5], valid[:5])]).tolist() == [1.0, 1.0]


def test_the_entries_of_a_vector_are_named_together():
    left = np.square([0.1, 0.98, 0.74, 0.74, 0.78])
    labels = ["rate", "pattern[0]", "pattern[1]", "shift[0]", "width"]
    assert _listed([0, 1, 2, 3], labels, left) == ["rate (10 %)", "pattern[0, 1] (74-98 %)", "shift[0] (74 %)"]
    assert _listed([2, 3], ["", "", "a[4]", "a[7]"], left) == ["a[4, 7] (74 %)"]


def test_what_is_identified_is_said_from_the_draws_not_from_a_curvature():
    """Draws that are a known share of the prior's spread, along a known direction, weighted ones too."""
    given = linear.problem()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20000, 2)) @ np.diag([0.2, 0.9]) + np.asarray([0.3, -0.2])
    found = identifiability_of_draws(given, z, np.ones(len(z)), key=jax.random.key(0))
    np.testing.assert_allclose(np.sqrt(found.variance_left), [0.2, 0.9], rtol=0.04)
    assert "Identified by the data (posterior sd as a share of the prior's): offset (20 %)" in found.statement
    assert "little about slope" in found.statement and "most of the prior's spread is left" in found.statement
    # The same posterior as a weighted sample of a wider one.
    wide = rng.normal(size=(200000, 2))
    log_weights = stats.norm.logpdf(wide, [0.3, -0.2], [0.2, 0.9]).sum(1) - stats.norm.logpdf(wide).sum(1)
    weighted = identifiability_of_draws(given, wide, np.exp(log_weights), key=jax.random.key(0))
    np.testing.assert_allclose(weighted.variance_left, found.variance_left, rtol=0.1)
