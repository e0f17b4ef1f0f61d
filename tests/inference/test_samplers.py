"""SMC, variational inference and Pathfinder against a posterior in closed form; bad samples are called bad."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from tumortwin.inference import (
    MapCalibrator,
    Measurements,
    NutsCalibrator,
    PathfinderCalibrator,
    PopulationProblem,
    Prior,
    Problem,
    SmcCalibrator,
    SviCalibrator,
    Varying,
    calibrate,
)
from tumortwin.inference._pathfinder import LowRankNormal, inverse_hessians
from tumortwin.inference._smc_moves import KERNELS
from tumortwin.observation import AdcObservation, AdditiveError, Datum
from tumortwin.params import parameter

PATHS = ("offset", "slope")
NORMAL: Any = stats.multivariate_normal


class Killed:
    """A checkpoint that raises after `limit` saves, as a kill would."""

    def __init__(self, limit):
        self.kept, self.left = {}, limit

    def save(self, name, arrays):
        self.kept[name] = {key: np.array(value) for key, value in arrays.items()}
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def load(self, name):
        return self.kept.get(name)


def agrees(posterior, problem, errors=4.5):
    mean, covariance = linear.exact(problem)
    for i, path in enumerate(PATHS):
        assert abs(posterior.mean(path) - mean[i]) < errors * posterior.monte_carlo_error[path]
        assert posterior.monte_carlo_error[path] < 0.1 * np.sqrt(covariance[i, i])
        assert posterior.sd(path) == pytest.approx(np.sqrt(covariance[i, i]), rel=0.12)


def log_evidence(problem, days):
    """Of the data of the first `days`, by the normal law of all values together."""
    rows = linear.design()[: 5 * days]
    values = np.concatenate([np.asarray(datum.values) for datum in problem.data])[: 5 * days]
    covariance = (rows * linear.PRIOR_SD**2) @ rows.T + linear.NOISE**2 * np.eye(len(values))
    return NORMAL.logpdf(values, rows @ linear.PRIOR_MEAN, covariance)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_smc_finds_the_posterior_and_the_evidence_of_every_day(kernel):
    problem = linear.problem()
    posterior = calibrate(problem, SmcCalibrator(particles=800, kernel=kernel), key=jax.random.key(0))
    agrees(posterior, problem)
    found = posterior.diagnostics
    assert found["sample_reliable"] == 1.0 and found["correlation_left"] < 0.15 and found["least_ess"] >= 399
    exact = [log_evidence(problem, k) for k in range(1, 5)]
    np.testing.assert_allclose(np.cumsum(posterior.info["log_score_by_day"]), exact, atol=5 * found["log_evidence_sd"])
    assert found["log_evidence"] == pytest.approx(exact[-1], abs=4 * found["log_evidence_sd"])
    assert found["log_evidence_sd"] < 0.15


def test_smc_resumes_bit_for_bit_and_says_when_particles_did_not_move():
    problem, settings = linear.problem(), SmcCalibrator(particles=800, chunk=4)
    whole = calibrate(problem, settings, key=jax.random.key(1))
    for saves in (1, 5):
        memory = Killed(saves)
        with pytest.raises(KeyboardInterrupt):
            calibrate(problem, settings, key=jax.random.key(1), checkpoint=memory)
        resumed = calibrate(problem, settings, key=jax.random.key(1), checkpoint=memory)
        for path in PATHS:
            np.testing.assert_array_equal(whole.draws[path], resumed.draws[path])
        assert whole.diagnostics == resumed.diagnostics
    stiff = calibrate(problem, SmcCalibrator(particles=800, chunk=4, sweeps=1), key=jax.random.key(1))
    assert stiff.diagnostics["sample_reliable"] == 0.0
    assert stiff.monte_carlo_error["slope"] > 1.1 * whole.monte_carlo_error["slope"]
    assert "have not forgotten" in stiff.statement


def test_the_terms_are_the_density_and_padding_is_none():
    problem = linear.problem(weight=0.3)
    z = problem.sample_prior(1, key=jax.random.key(0))[0]
    assert problem.log_prior(z) + jnp.sum(problem.log_terms(z)) == pytest.approx(float(problem.log_density(z)))
    np.testing.assert_array_equal(problem.term_days, linear.DAYS)
    assert len(set(problem.term_names())) == 4
    assert problem.term_names() != linear.problem(seed=1).term_names()


def lines(model, data):
    return model.offset[:, None] + model.slope[:, None] * data.times


def population():
    """Two subjects, the second with a reading less."""
    times = jnp.asarray([[0.0, 1.0, 3.0], [0.5, 2.0, 2.0]])
    values, valid = 1.0 + 0.5 * times, jnp.asarray([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    varying = {
        "offset": Varying(dist.Normal(1.0, 1.0), dist.HalfNormal(0.5), scale="identity"),
        "slope": Varying(dist.LogNormal(-0.7, 0.5)),
    }
    data = Measurements(times, values, values, valid)
    model = linear.build(linear.Line, 1.0, 0.5)
    return PopulationProblem(model, varying, AdditiveError(jnp.asarray(0.3)), {}, data, lines)


def test_the_terms_of_a_population_are_its_measurements():
    problem = population()
    z = problem.sample_prior(1, key=jax.random.key(0))[0]
    terms = problem.log_terms(z)
    assert terms[5] == 0.0 and np.isnan(problem.term_days[5])
    np.testing.assert_array_equal(problem.term_days[:5], [0.0, 1.0, 3.0, 0.5, 2.0])
    assert problem.log_prior(z) + jnp.sum(terms) == pytest.approx(float(problem.log_density(z)))
    names = problem.term_names()
    assert len(set(names)) == 6 and names[5] == "padding"
    assert names[3] == "subject 1 day 0.5 [1.25, 1.25]"
    with pytest.raises(ValueError, match="weigh_by=None for a PopulationProblem"):
        calibrate(problem, SmcCalibrator(weigh_by=MapCalibrator()), key=jax.random.key(0))


def test_smc_first_estimates_the_weights_of_images_where_asked():
    """Data without a spacing keep their weights; the stage is run and its checkpoint fits."""
    problem, settings = linear.problem(weight=0.4), SmcCalibrator(particles=800, weigh_by=MapCalibrator())
    memory = Killed(3)
    with pytest.raises(KeyboardInterrupt):
        calibrate(problem, settings, key=jax.random.key(4), checkpoint=memory)
    posterior = calibrate(problem, settings, key=jax.random.key(4), checkpoint=memory)
    agrees(posterior, problem)
    assert set(posterior.info["weights"].values()) == {0.4}
    assert np.isnan(list(posterior.info["correlation_volume_mm3"].values())).all()


def excluded(model, days):
    return jnp.full((len(days), 5), jnp.nan) * model.slope


def test_data_that_exclude_every_particle_are_an_error():
    given = linear.problem()
    problem = Problem(given.model, given.observations, given.prior, given.data, excluded)
    with pytest.raises(FloatingPointError, match="data of day 0 do not exclude"):
        calibrate(problem, SmcCalibrator(particles=100), key=jax.random.key(0))


def test_pathfinder_finds_the_closed_form():
    problem = linear.problem()
    posterior = calibrate(problem, PathfinderCalibrator(paths=2), key=jax.random.key(0))
    agrees(posterior, problem)
    assert posterior.diagnostics["k_hat"] < 0.7 and posterior.diagnostics["sample_reliable"] == 1.0
    assert posterior.diagnostics["elbo"] == pytest.approx(log_evidence(problem, 4), abs=0.1)
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


class Two(eqx.Module):
    """Two numbers of which only the sum is seen."""

    a: jax.Array = parameter(unit="1")
    b: jax.Array = parameter(unit="1")


def total(model, days):
    return jnp.broadcast_to(model.a + model.b, (len(days), 1))


RIDGE = Problem(
    linear.build(Two, 0.0, 0.0),
    {"x": linear.build(AdcObservation, 0.1)},
    Prior({"a": dist.Normal(0.0, 3.0), "b": dist.Normal(0.0, 3.0)}),
    (Datum(0.0, "x", np.asarray([1.0])),),
    total,
)
GUIDE = SviCalibrator(rank=1, steps=600, chunk=300, bound_draws=4, draws=1000)


def test_the_variational_posterior_resumes_and_finds_the_closed_form():
    problem = linear.problem()
    posterior = calibrate(problem, GUIDE, key=jax.random.key(2))
    agrees(posterior, problem)
    assert posterior.diagnostics["k_hat"] < 0.7 and posterior.diagnostics["sample_reliable"] == 1.0
    assert posterior.diagnostics["elbo"] == pytest.approx(log_evidence(problem, 4), abs=0.3)
    memory = Killed(1)
    with pytest.raises(KeyboardInterrupt):
        calibrate(problem, GUIDE, key=jax.random.key(2), checkpoint=memory)
    resumed = calibrate(problem, GUIDE, key=jax.random.key(2), checkpoint=memory)
    np.testing.assert_array_equal(posterior.draws["slope"], resumed.draws["slope"])


def test_a_guide_without_the_ridge_and_a_search_cut_off_are_called_bad():
    """Without correlations the guide is as narrow as the sum is known: k = 1 - (ratio of the precisions) = .999."""
    flat = calibrate(RIDGE, SviCalibrator(rank=0, steps=600, chunk=300, draws=2000), key=jax.random.key(0))
    cut = calibrate(RIDGE, PathfinderCalibrator(paths=1, draws=1000, steps=1), key=jax.random.key(0))
    for posterior, words in ((flat, "The guide misses"), (cut, "a place to start from")):
        assert posterior.diagnostics["k_hat"] > 0.7
        assert posterior.diagnostics["sample_reliable"] == 0.0
        assert words in posterior.statement
    assert flat.log_weights is None and flat.sd("a") < 0.3 * 3 / np.sqrt(2)
    whole = calibrate(RIDGE, PathfinderCalibrator(paths=1, draws=1000), key=jax.random.key(0))
    assert whole.diagnostics["sample_reliable"] == 1.0
    assert whole.sd("a") == pytest.approx(3 / np.sqrt(2), rel=0.1)


def test_nuts_starts_from_pathfinder():
    problem = linear.problem()
    sampler = NutsCalibrator(
        laplace=None, start=PathfinderCalibrator(paths=2), warmup=60, draws=250, chunk=155, dense=True
    )
    posterior = calibrate(problem, sampler, key=jax.random.key(0))
    agrees(posterior, problem)
    assert posterior.diagnostics["r_hat"] < 1.02 and 0 < posterior.diagnostics["start_gradients"] < 60
    with pytest.raises(ValueError, match="laplace=None"):
        NutsCalibrator(start=PathfinderCalibrator())


def test_settings_that_mean_nothing_are_refused():
    for build, word in (
        (lambda: SmcCalibrator(kernel="gibbs"), "kernel among"),
        (lambda: SmcCalibrator(particles=10), "50 particles"),
        (lambda: PathfinderCalibrator(paths=0), "one path"),
        (lambda: SviCalibrator(rank=-1), "rank at least 0"),
    ):
        with pytest.raises(ValueError, match=word):
            build()
