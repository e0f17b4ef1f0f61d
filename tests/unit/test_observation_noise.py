"""Every observation: its residual is its likelihood, its information the variance of its score, its tails finite."""

import dataclasses
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tumortwin.geometry import level_of_edge, smaller_difference, steepness
from tumortwin.observation import (
    AdcObservation,
    Datum,
    GliomaMaskObservation,
    MaskObservation,
    VolumeObservation,
    adc_from_cellularity,
    cellularity_from_adc,
)


def build(kind: Any, *values: float) -> Any:
    """A module from plain numbers."""
    return kind(*(jnp.asarray(value, dtype=float) for value in values))


CASES = {
    "mask": (build(MaskObservation, 0.3, 0.7), jnp.asarray([-2.0, -0.3, 0.4, 1.7])),
    "glioma mask": (build(GliomaMaskObservation, 0.4, 0.06), jnp.asarray([-1.2, -0.3, 0.4, 1.1])),
    "adc": (build(AdcObservation, 0.1), jnp.asarray([0.0, 0.2, 0.9, 1.0])),
    "adc with an edge": (build(AdcObservation, 0.1, 0.6), jnp.asarray([0.0, 0.2, 0.5, 1.0])),
    "volume": (build(partial(VolumeObservation, 27.0), 0.3, 0.7, 0.1), jnp.asarray([1e2, 5e3, 3e4, 2e5])),
}


@pytest.mark.parametrize("name", CASES)
def test_half_the_squared_residual_is_the_negative_log_likelihood(name):
    """Together with the log scale; the difference is a constant of the datum: the same at every prediction."""
    observation, predictions = CASES[name]
    values = observation.noise(predictions).sample(jax.random.key(1))
    if "mask" in name:
        values = jnp.asarray([0.0, 1.0, 0.25, 0.8])
    shifted = predictions * 1.1 + 0.05

    def constant(eta):
        scale = observation.log_scale(eta)
        return -observation.noise(eta).log_prob(values) - observation.residual(eta, values) ** 2 / 2 - scale

    np.testing.assert_allclose(constant(predictions), constant(shifted), atol=1e-10)
    higher = predictions + 10.0 * jnp.abs(predictions) + 1.0
    assert (observation.residual(higher, values) < observation.residual(predictions, values)).all()


@pytest.mark.parametrize("name", CASES)
def test_information_is_the_variance_of_the_score(name):
    observation, predictions = CASES[name]
    draws = jax.vmap(observation.noise(predictions).sample)(jax.random.split(jax.random.key(2), 40_000))

    def score(values):
        return jax.grad(lambda eta: jnp.sum(observation.noise(eta).log_prob(values)))(predictions)

    measured = np.var(np.asarray(jax.vmap(score)(draws)), axis=0)
    # A scale that changes with the prediction tells of it as well (`linearize` adds it for all parameters at once).
    tilt = jax.grad(lambda eta: jnp.sum(observation.log_scale(eta)))(predictions)
    np.testing.assert_allclose(measured, observation.information(predictions) + 2 * tilt**2, rtol=0.06)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.float64, 1e-11)])
def test_the_probit_keeps_its_tails(dtype, tolerance):
    eta = jnp.asarray([-30.0, -12.0, -5.0, 0.0, 5.0, 12.0, 30.0], dtype)
    observation = build(MaskObservation, 0.3, 0.7)
    for value in (0.0, 1.0):

        def log_probability(x, datum=value):
            return observation.noise(x).log_prob(jnp.asarray(datum, dtype))

        log_prob = jax.jit(log_probability)(eta)
        exact = norm.logcdf(np.asarray(eta, float)) if value else norm.logsf(np.asarray(eta, float))
        assert jnp.asarray(log_prob).dtype == dtype
        np.testing.assert_allclose(log_prob, exact, rtol=tolerance, atol=tolerance)
        slope = jax.jit(jax.vmap(jax.grad(log_probability)))(eta)
        assert np.isfinite(slope).all()
    tail = np.asarray(eqx.filter_jit(observation.information)(jnp.asarray([-6.0, 6.0], dtype)))
    exact = norm.pdf(6.0) ** 2 / (norm.cdf(6.0) * norm.sf(6.0))
    np.testing.assert_allclose(tail, [exact, exact], rtol=1e-4)


def test_empty_and_full_voxels_have_finite_predictions_and_slopes():
    observation = build(MaskObservation, 0.3, 0.7, 1e-4)
    density = jnp.asarray([0.0, 1e-12, 0.3, 1.0 - 6e-8, 1.0], jnp.float32)
    eta = observation.predict(density)
    slope = jax.jit(jax.vmap(jax.grad(observation.predict)))(density)
    assert eta.dtype == jnp.float32
    assert np.isfinite(eta).all() and (np.asarray(slope) > 0).all()
    exact = (np.log(1e-4) - np.log(1 - 1e-4) - np.log(0.3 / 0.7)) / 0.7
    np.testing.assert_allclose(eta[0], exact, rtol=1e-5)


def test_the_glioma_form_is_the_published_one():
    observation = build(GliomaMaskObservation, 0.4, 0.06)
    density = jnp.asarray([0.2, 0.35, 0.4, 0.5])
    scaled = (np.asarray(density) - 0.4) / 0.06
    probability = 0.5 + 0.5 * np.sign(scaled) * (1 - np.exp(-(scaled**2)))
    log_prob = observation.noise(observation.predict(density)).log_prob(jnp.ones(4))
    np.testing.assert_allclose(np.exp(log_prob), probability, rtol=1e-9)


def test_adc_and_cellularity_are_inverse():
    """A voxel of 1.2e-3 mm^2/s with water 3.0 and minimum 0.6: (3.0 - 1.2) / (3.0 - 0.6) = 0.75."""
    assert float(cellularity_from_adc(jnp.asarray(1.2), water=3.0, minimum=0.6)) == pytest.approx(0.75)
    assert float(adc_from_cellularity(jnp.asarray(0.75), water=3.0, minimum=0.6)) == pytest.approx(1.2)
    with pytest.raises(ValueError, match="multiplied by 1000"):
        cellularity_from_adc(jnp.asarray(1.2e-3), water=3.0e-3, minimum=0.6)


def test_the_volume_of_a_sharp_sphere():
    axis = np.arange(24) - 11.5
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    density = jnp.asarray(1 / (1 + np.exp((radius - 8.0) / 0.1)))
    volume = build(partial(VolumeObservation, 27.0), 0.5, 0.2, 0.1).predict(density)
    assert float(volume) == pytest.approx(27.0 * np.sum(radius < 8.0), rel=0.01)


def test_a_datum_refuses_what_cannot_be_used():
    values = np.ones((2, 2, 2))
    values[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite values where valid in datum 'flair' of day 3"):
        Datum(3.0, "flair", values)
    valid = np.isfinite(values)
    assert np.isfinite(np.asarray(Datum(3.0, "flair", values, valid).values)).all()
    with pytest.raises(ValueError, match="at least one valid"):
        Datum(3.0, "flair", np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="shape"):
        Datum(3.0, "flair", np.ones(3), np.ones(2))


def test_a_shift_belongs_to_one_visit_and_moves_the_edge_by_its_logit():
    mask = MaskObservation(jnp.asarray(0.3), jnp.asarray(0.7), shift=jnp.asarray([0.0, 0.5]))
    density = jnp.asarray([0.1, 0.4, 0.9])
    plain = build(MaskObservation, 0.3, 0.7).predict(density)
    np.testing.assert_allclose(mask.at_visit(0).predict(density), plain, rtol=1e-12)
    np.testing.assert_allclose(mask.at_visit(1).predict(density), plain + 0.5 / 0.7, rtol=1e-12)
    np.testing.assert_allclose(mask.at_visit(None).predict(density), plain, rtol=1e-12)
    both = jax.vmap(lambda visit: mask.at_visit(visit).predict(density))(jnp.arange(2))
    np.testing.assert_allclose(both[1] - both[0], 0.5 / 0.7, rtol=1e-12)
    for name in ("adc", "volume", "glioma mask"):
        assert CASES[name][0].at_visit(3) is CASES[name][0]


@pytest.mark.parametrize("steepness", [0.3, 1.5, 4.0])
def test_a_coarse_voxel_holds_the_share_of_its_own_fine_ones(steepness):
    """A field whose logit is linear: from the means of coarse voxels back to the share outlined of each."""
    width, places = 0.7, np.arange(-4, 5)
    fine = places[:, None] + 0.3 + (np.arange(400) + 0.5) / 400 - 0.5
    wanted = norm.cdf(steepness * fine).mean(axis=1)
    density = jnp.asarray((1 / (1 + np.exp(-width * steepness * fine))).mean(axis=1)).reshape(-1, 1, 1)
    coarse = MaskObservation(jnp.asarray(0.5), jnp.asarray(width), jnp.asarray(0.0), within_voxel=True)
    plain = dataclasses.replace(coarse, within_voxel=False)
    near, far = (np.abs(norm.cdf(np.asarray(o.predict(density)).ravel()) - wanted).max() for o in (coarse, plain))
    assert near < 0.03 and near < 0.7 * far
    assert (np.diff(np.asarray(coarse.predict(density)).ravel()) > 0).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_level_of_an_edge_is_found_from_its_mean(dtype):
    """Against a quadrature of the mean; flat edges give the logit, thick ones the share of the voxel behind them."""
    levels, slopes = np.meshgrid([-7.0, -2.0, 0.0, 0.5, 4.0], [1e-3, 0.5, 3.0, 12.0])
    t, w = np.polynomial.legendre.leggauss(60)
    mean = (0.5 * w / (1 + np.exp(-(levels[..., None] + 0.5 * t * slopes[..., None])))).sum(-1)
    rest = (0.5 * w / (1 + np.exp(levels[..., None] + 0.5 * t * slopes[..., None]))).sum(-1)
    found = jax.jit(level_of_edge)(*(jnp.asarray(a, dtype) for a in (mean, rest, slopes)))
    tolerance = 2e-3 if dtype == jnp.float32 else 1e-8
    assert found.dtype == dtype
    np.testing.assert_allclose(found, levels, atol=tolerance)


def test_steepness_counts_the_smaller_differences_and_has_a_slope_everywhere():
    field = jnp.asarray(np.add.outer(3.0 * np.arange(4), 4.0 * np.arange(5))[:, :, None])
    np.testing.assert_allclose(steepness(field), 5.0, rtol=1e-6)
    flat = jax.jit(jax.grad(lambda f: jnp.sum(steepness(f))))(jnp.zeros((2, 3, 4)))
    assert np.isfinite(np.asarray(flat)).all()


def test_the_smaller_difference_looks_away_from_a_jump():
    field = jnp.asarray([0.0, 1.0, 3.0, 103.0, 104.0])
    np.testing.assert_array_equal(smaller_difference(field, 0), [1.0, 1.0, 2.0, 1.0, 1.0])
    np.testing.assert_array_equal(smaller_difference(field[None], 0), np.zeros((1, 5)))
