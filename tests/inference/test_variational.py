"""Variational inference and Pathfinder against a posterior in closed form; bad Gaussians are called bad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from normal_case import NORMAL, Killed, agrees, line, ridge

from tumortwin.inference import NutsCalibrator, PathfinderCalibrator, SviCalibrator, calibrate
from tumortwin.inference._pathfinder import LowRankNormal, inverse_hessians

GUIDE = SviCalibrator(rank=1, steps=600, chunk=300, bound_draws=4, draws=1000)


def test_pathfinder_finds_the_closed_form():
    problem = line()
    posterior = calibrate(problem, PathfinderCalibrator(paths=2), key=jax.random.key(0))
    agrees(posterior, problem.exact())
    assert posterior.diagnostics["k_hat"] < 0.7 and posterior.diagnostics["sample_reliable"] == 1.0
    assert posterior.diagnostics["elbo"] == pytest.approx(problem.log_evidence(), abs=0.1)
    assert posterior.diagnostics["gradients"] < 60


def test_inverse_hessians_are_bfgs_and_the_gaussian_is_what_it_says():
    """Against the recursion written out, for a quadratic in 6 dimensions, and SciPy's density."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    hessian = root @ root.T + np.eye(6)
    points = np.concatenate([np.zeros((1, 6)), np.cumsum(rng.normal(size=(4, 6)), axis=0)])
    slopes = points @ hessian
    found = inverse_hessians(jnp.asarray(points), jnp.asarray(slopes), 3)
    last = LowRankNormal(found.mean[-1], found.alpha[-1], found.q[-1], found.lower[-1])
    dense = np.diag(np.asarray(last.alpha))
    for k in range(1, 4):
        s, y = points[k + 1] - points[k], slopes[k + 1] - slopes[k]
        turn = np.eye(6) - np.outer(s, y) / (s @ y)
        dense = turn @ dense @ turn.T + np.outer(s, s) / (s @ y)
    np.testing.assert_allclose(last.covariance(), dense, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(last.mean, points[-1] - dense @ slopes[-1], rtol=1e-7, atol=1e-9)
    z = rng.normal(size=(5, 6))
    exact = NORMAL.logpdf(z, np.asarray(last.mean), dense)
    np.testing.assert_allclose(last.log_density(jnp.asarray(z)), exact, rtol=1e-8)
    drawn = np.asarray(last.draw(jnp.asarray(np.eye(6))) - last.mean[None])
    np.testing.assert_allclose(drawn.T @ drawn, dense, rtol=1e-8, atol=1e-10)


def test_the_variational_posterior_resumes_and_finds_the_closed_form():
    problem = line()
    posterior = calibrate(problem, GUIDE, key=jax.random.key(2))
    agrees(posterior, problem.exact())
    assert posterior.diagnostics["k_hat"] < 0.7 and posterior.diagnostics["sample_reliable"] == 1.0
    assert posterior.diagnostics["elbo"] == pytest.approx(problem.log_evidence(), abs=0.3)
    memory = Killed(1)
    with pytest.raises(KeyboardInterrupt):
        calibrate(problem, GUIDE, key=jax.random.key(2), checkpoint=memory)
    resumed = calibrate(problem, GUIDE, key=jax.random.key(2), checkpoint=memory)
    np.testing.assert_array_equal(posterior.draws["slope"], resumed.draws["slope"])


@pytest.mark.slow
def test_a_guide_without_the_ridge_and_a_search_cut_off_are_called_bad():
    """Without correlations the guide is as narrow as the sum is known: k = 1 - (ratio of the precisions) = .999."""
    flat = calibrate(ridge(), SviCalibrator(rank=0, steps=600, chunk=300, draws=2000), key=jax.random.key(0))
    cut = calibrate(ridge(), PathfinderCalibrator(paths=1, draws=1000, steps=1), key=jax.random.key(0))
    for posterior, words in ((flat, "The guide misses"), (cut, "a place to start from")):
        assert posterior.diagnostics["k_hat"] > 0.7
        assert posterior.diagnostics["sample_reliable"] == 0.0
        assert words in posterior.statement
    assert flat.log_weights is None and flat.sd("offset") < 0.3 * 3 / np.sqrt(2)
    whole = calibrate(ridge(), PathfinderCalibrator(paths=1, draws=1000), key=jax.random.key(0))
    assert whole.diagnostics["sample_reliable"] == 1.0
    assert whole.sd("offset") == pytest.approx(3 / np.sqrt(2), rel=0.1)


def test_nuts_starts_from_pathfinder():
    problem = line()
    start = PathfinderCalibrator(paths=2)
    sampler = NutsCalibrator(laplace=None, start=start, warmup=60, draws=250, chunk=155, dense=True)
    posterior = calibrate(problem, sampler, key=jax.random.key(0))
    agrees(posterior, problem.exact())
    assert posterior.diagnostics["r_hat"] < 1.02 and 0 < posterior.diagnostics["start_gradients"] < 60
    with pytest.raises(ValueError, match="laplace=None"):
        NutsCalibrator(start=PathfinderCalibrator())
