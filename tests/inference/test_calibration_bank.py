"""The bank of simulations of the calibration experiment, on a linear model whose posterior is known."""

import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from experiments.calibration.bank import BankCalibrator, noise_grid
from tumortwin.inference import Prior, Problem, calibrate

NOISE_PATH, LOW, HIGH = "observation.image.noise_sd", 0.02, 3.0


@pytest.fixture(scope="module")
def case():
    given = linear.problem(seed=3)
    noise = {NOISE_PATH: dist.LogNormal(np.log(0.4), 0.5)}
    prior = Prior({**given.prior.distributions, **noise})
    problem = Problem(given.model, given.observations, prior, given.data, linear.solve)
    rng = np.random.default_rng(0)
    values = linear.PRIOR_MEAN + linear.PRIOR_SD * rng.normal(size=(40_000, 2))
    log_noise, log_prior = noise_grid(problem, NOISE_PATH, LOW, HIGH)
    named = {"offset": values[:, 0], "slope": values[:, 1]}
    bank = BankCalibrator(named, values @ linear.design().T, log_noise, log_prior, NOISE_PATH, draws=20_000)
    return problem, calibrate(problem, bank, key=jax.random.key(0))


def exact(problem):
    """Posterior of the noise on a grid, and mean and variance of (offset, slope) integrated over it."""
    seen = np.concatenate([np.asarray(d.values) for d in problem.data])
    rows, sigmas = linear.design(), np.exp(np.linspace(np.log(LOW), np.log(HIGH), 2000))
    middle, spread = rows @ linear.PRIOR_MEAN, rows @ np.diag(linear.PRIOR_SD**2) @ rows.T
    log_density, means, squares = [], [], []
    for sigma in sigmas:
        family = stats.multivariate_normal(np.asarray(middle), spread + sigma**2 * np.eye(seen.size))
        of_noise = stats.lognorm.logpdf(sigma, 0.5, scale=0.4) + np.log(sigma)  # a grid of the logarithm
        log_density.append(family.logpdf(seen) + of_noise)
        covariance = np.linalg.inv(rows.T @ rows / sigma**2 + np.diag(linear.PRIOR_SD**-2))
        mean = covariance @ (rows.T @ seen / sigma**2 + linear.PRIOR_MEAN / linear.PRIOR_SD**2)
        means.append(mean)
        squares.append(np.diag(covariance) + mean**2)
    weights = np.exp(np.asarray(log_density) - np.logaddexp.reduce(log_density))
    mean = weights @ np.asarray(means)
    return sigmas, weights, mean, weights @ np.asarray(squares) - mean**2


def test_the_bank_gives_the_posterior_of_the_closed_form(case):
    problem, posterior = case
    sigmas, weights, mean, variance = exact(problem)
    assert posterior.diagnostics["ess"] > 200
    for i, path in enumerate(("offset", "slope")):
        assert posterior.mean(path) == pytest.approx(mean[i], abs=0.2 * np.sqrt(variance[i]))
        assert posterior.sd(path) == pytest.approx(np.sqrt(variance[i]), rel=0.1)
    ends = np.interp([0.025, 0.5, 0.975], np.cumsum(weights), sigmas)
    found = [posterior.quantile(NOISE_PATH, level) for level in (0.025, 0.5, 0.975)]
    np.testing.assert_allclose(found, ends, rtol=0.04)


def test_the_grid_of_the_noise_carries_its_prior(case):
    problem, _ = case
    points, log_prior = noise_grid(problem, NOISE_PATH, LOW, HIGH)
    assert np.trapezoid(np.exp(log_prior), points) == pytest.approx(1.0, abs=1e-4)
    assert points[np.argmax(log_prior)] == pytest.approx(np.log(0.4), abs=points[1] - points[0])
    assert jnp.isfinite(log_prior).all()
