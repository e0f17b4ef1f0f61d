"""Forecasts of a cohort against closed forms; what is kept of them; when a posterior is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import HalfNormal, LogNormal

from tumortwin.inference import Measurements, PopulationProblem, Posterior, Varying, log_normal, unsupported
from tumortwin.io import read_curves, write_curves
from tumortwin.models import IndependentClones
from tumortwin.observation import LogNormalError, PoissonCounts
from tumortwin.treatments import StepHistory
from tumortwin.twin import BurdenCurves, forecast_cohort

START = np.asarray([12.0, 30.0])
DRUG = StepHistory.courses(jnp.asarray([[0.0], [10.0]]), jnp.asarray([[20.0], [30.0]]))
LAW = IndependentClones(*map(jnp.asarray, (0.01, 0.04, 0.002, 0.1)))
DRAWS = 400


def problem_of() -> PopulationProblem:
    times = jnp.asarray([[0.0, 5.0], [0.0, 0.0]])
    data = Measurements(times, jnp.full((2, 2), 9.0), jnp.full((2, 2), 9.0), jnp.ones((2, 2)), given=DRUG)
    varying = {"start": Varying(LogNormal(jnp.log(20.0), 1.0), HalfNormal(0.5))}
    error = LogNormalError(jnp.asarray(0.2))
    return PopulationProblem(LAW, varying, error, {"log_sd": log_normal(0.2, 0.5)}, data, BurdenCurves())


def posterior_of(start: np.ndarray) -> Posterior:
    draws = {"subject.start": np.broadcast_to(start, (2, 50, 2)), "residual.log_sd": np.full((2, 50), 0.3)}
    return Posterior(draws, None, {}, "")


def test_every_subject_is_forecast_under_its_own_treatment_and_with_the_error_of_a_reading():
    days = np.asarray([[8.0, 25.0, 25.0], [40.0, 3.0, 12.0]])  # in any order
    found = forecast_cohort(problem_of(), posterior_of(START), days, n_draws=DRAWS, key=jax.random.key(1))
    on = np.stack([np.minimum(days[0], 20.0), np.clip(days[1] - 10.0, 0.0, 20.0)])  # days under the drug so far
    exact = START[:, None] * (0.9 * np.exp(0.01 * days - 0.04 * on) + 0.1 * np.exp(0.002 * days))
    np.testing.assert_allclose(found.curve, np.broadcast_to(exact, found.curve.shape), rtol=1e-10)
    noise = np.log(found.predictive) - np.log(exact)
    assert np.abs(noise.mean(axis=0)).max() < 4 * 0.3 / np.sqrt(DRAWS)
    np.testing.assert_allclose(noise.std(axis=0), 0.3, rtol=0.15)
    assert np.abs(np.corrcoef(noise.reshape(DRAWS, -1).T) - np.eye(6)).max() < 0.25  # new errors, each its own
    assert found.failed == 0


def test_draws_that_cannot_be_solved_are_counted_and_too_many_are_refused():
    days = np.asarray([[8.0], [40.0]])
    start = np.broadcast_to(START, (2, 50, 2)).copy()
    start[0, 0, 1] = np.inf
    posterior = Posterior({**posterior_of(START).draws, "subject.start": start}, None, {}, "")
    found = forecast_cohort(problem_of(), posterior, days, n_draws=100, key=jax.random.key(0))
    assert found.failed == 1 and found.curve.shape == (99, 2, 1) and np.isfinite(found.predictive).all()
    start[0, :, 1] = np.inf
    with pytest.raises(ValueError, match="50 of 100"):
        forecast_cohort(problem_of(), posterior, days, n_draws=100, key=jax.random.key(0))


def test_curves_come_back_as_they_were_kept(tmp_path):
    days, curve = np.arange(6.0).reshape(2, 3), np.random.default_rng(0).normal(size=(4, 2, 3))
    write_curves(tmp_path / "forecast.zarr", ["b", "a"], days, {"curve": curve}, "ng/mL", {"hidden": 1})
    again, curves, attrs = read_curves(tmp_path / "forecast.zarr")
    np.testing.assert_array_equal(again, days)
    np.testing.assert_array_equal(curves["curve"], curve)
    assert attrs == {"hidden": 1, "subjects": ["b", "a"], "unit": "ng/mL"}


def test_readings_without_a_density_are_found_before_anything_is_sampled():
    lower, upper = jnp.asarray([[0.0, 3.0, 2.5]]), jnp.asarray([[0.0, 200.0, 2.5]])
    for error, wrong in (
        (LogNormalError(jnp.asarray(0.2)), [True, False, False]),
        (PoissonCounts(), [False, True, True]),
    ):
        data = Measurements(jnp.zeros((1, 3)), lower, upper, jnp.ones((1, 3)))
        assert unsupported(error, data).tolist() == [wrong]
        padded = Measurements(jnp.zeros((1, 3)), lower, upper, jnp.zeros((1, 3)))
        assert not unsupported(error, padded).any()


def test_a_log_normal_prior_is_known_by_its_median():
    prior = log_normal(3.0, 0.5)
    assert float(jnp.exp(jnp.mean(jnp.log(prior.sample(jax.random.key(0), (20_000,)))))) == pytest.approx(3.0, rel=0.02)
    with pytest.raises(ValueError, match="median > 0"):
        log_normal(0.0, 1.0)
