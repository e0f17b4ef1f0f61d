"""SMC against a posterior and an evidence in closed form; what particles refuse; terms of every kind of problem."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import numpyro.distributions as dist
import pytest
from normal_case import PATHS, Killed, Regression, agrees, line

from tumortwin.inference import (
    LaplaceCalibrator,
    MapCalibrator,
    Measurements,
    NutsCalibrator,
    PathfinderCalibrator,
    PopulationProblem,
    PsisCalibrator,
    SmcCalibrator,
    SviCalibrator,
    Varying,
    assimilate,
    calibrate,
)
from tumortwin.inference._smc_moves import KERNELS
from tumortwin.observation import AdditiveError

SMC = SmcCalibrator(particles=800, chunk=4)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_smc_finds_the_posterior_and_the_evidence_of_every_day(kernel):
    problem = line()
    posterior = calibrate(problem, SmcCalibrator(particles=800, kernel=kernel), key=jax.random.key(0))
    agrees(posterior, problem.exact())
    found = posterior.diagnostics
    assert found["sample_reliable"] == 1.0 and found["correlation_left"] < 0.15 and found["least_ess"] >= 399
    assert posterior.info["days"] == [0.0, 1.0, 2.5, 4.0]
    exact = [problem.log_evidence(day) for day in posterior.info["days"]]
    np.testing.assert_allclose(np.cumsum(posterior.info["log_score_by_day"]), exact, atol=5 * found["log_evidence_sd"])
    assert found["log_evidence"] == pytest.approx(exact[-1], abs=4 * found["log_evidence_sd"])
    assert found["log_evidence_sd"] < 0.15


def test_smc_resumes_bit_for_bit_and_says_when_particles_did_not_move():
    problem = line()
    whole = calibrate(problem, SMC, key=jax.random.key(1))
    for saves in (1, 5):
        memory = Killed(saves)
        with pytest.raises(KeyboardInterrupt):
            calibrate(problem, SMC, key=jax.random.key(1), checkpoint=memory)
        resumed = calibrate(problem, SMC, key=jax.random.key(1), checkpoint=memory)
        for path in PATHS:
            np.testing.assert_array_equal(whole.draws[path], resumed.draws[path])
        assert whole.diagnostics == resumed.diagnostics
    stiff = calibrate(problem, SmcCalibrator(particles=800, chunk=4, sweeps=1), key=jax.random.key(1))
    assert stiff.diagnostics["sample_reliable"] == 0.0
    assert stiff.monte_carlo_error["slope"] > 1.1 * whole.monte_carlo_error["slope"]
    assert "have not forgotten" in stiff.statement


def test_particles_go_on_with_new_terms_and_cannot_forget():
    """Three days, then all with some late; the same again; a term gone; another likelihood."""
    every, key = line(), jax.random.key(3)
    first = assimilate(None, every.only([2, 3, 5]), SMC, key=key)
    assert first.version == 1 and first.history[0].days == (1.0, 2.5, 4.0) and not first.history[0].late
    found = assimilate(first, every, SMC, key=key)  # a second value of day 2.5 among them
    assert found.version == 2 and found.history[1].late and found.history[1].days == (0.0, 2.5)
    assert first.version == 1
    agrees(found.posterior(every, SMC), every.exact())
    total = sum(update.log_score for update in found.history)
    assert total == pytest.approx(every.log_evidence(), abs=0.4)
    assert assimilate(found, every, SMC, key=key) is found
    with pytest.raises(ValueError, match="received a problem without: 0.0"):
        assimilate(found, every.only([2, 3, 4, 5]), SMC, key=key)
    noisier = eqx.tree_at(lambda p: p.noise, every, jnp.asarray(0.4))
    with pytest.raises(ValueError, match="to have the likelihood it had"):
        assimilate(first, noisier, SMC, key=key)


@pytest.mark.slow
def test_the_terms_of_images_are_their_visits_and_smc_may_estimate_their_weights_first():
    """Data without a spacing keep their weights; the stage is run and its checkpoint fits."""
    problem, settings = linear.problem(weight=0.4), SmcCalibrator(particles=800, weigh_by=MapCalibrator())
    z = problem.sample_prior(1, key=jax.random.key(0))[0]
    terms = jax.jit(lambda z: (problem.log_prior(z) + jnp.sum(problem.log_terms(z)), problem.log_density(z)))(z)
    assert float(terms[0]) == pytest.approx(float(terms[1]))
    np.testing.assert_array_equal(problem.term_days, linear.DAYS)
    assert len(set(problem.term_names())) == 4
    assert problem.term_names() != linear.problem(seed=1).term_names()
    memory = Killed(3)
    with pytest.raises(KeyboardInterrupt):
        calibrate(problem, settings, key=jax.random.key(4), checkpoint=memory)
    posterior = calibrate(problem, settings, key=jax.random.key(4), checkpoint=memory)
    agrees(posterior, linear.exact(problem))
    assert set(posterior.info["weights"].values()) == {0.4}
    assert np.isnan(list(posterior.info["correlation_volume_mm3"].values())).all()


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
    assert float(problem.log_prior(z) + jnp.sum(terms)) == pytest.approx(float(problem.log_density(z)))
    names = problem.term_names()
    assert len(set(names)) == 6 and names[5] == "padding"
    assert names[3] == "subject 1 day 0.5 [1.25, 1.25]"
    with pytest.raises(ValueError, match="weigh_by=None for a PopulationProblem"):
        calibrate(problem, SmcCalibrator(weigh_by=MapCalibrator()), key=jax.random.key(0))


def test_a_population_has_no_mode():
    for calibrator in (MapCalibrator(), LaplaceCalibrator(), PsisCalibrator()):
        with pytest.raises(ValueError, match="required: a problem with a mode; received: a PopulationProblem"):
            calibrate(population(), calibrator, key=jax.random.key(0))


def test_data_that_exclude_every_particle_are_an_error():
    problem = eqx.tree_at(lambda p: p.values, line(), jnp.full(6, jnp.nan))
    with pytest.raises(FloatingPointError, match="data of day 0 do not exclude"):
        calibrate(problem, SMC, key=jax.random.key(0))


def test_settings_that_mean_nothing_are_refused():
    for build, word in (
        (lambda: SmcCalibrator(kernel="gibbs"), "kernel among"),
        (lambda: SmcCalibrator(particles=10), "50 particles"),
        (lambda: PathfinderCalibrator(paths=0), "one path"),
        (lambda: SviCalibrator(rank=-1), "rank at least 0"),
    ):
        with pytest.raises(ValueError, match=word):
            build()


class Half(Regression):
    """Fails (no density) where the slope is below its prior mean."""

    def log_terms(self, z: jax.Array) -> jax.Array:
        return jnp.where(z[1] > 0, super().log_terms(z), jnp.nan)


def test_no_chain_starts_where_the_model_fails():
    """Half of the prior fails; the data are far inside the other half, so the posterior is the closed form."""
    whole = line(days=(0.0, 0.5, 1.0, 2.5, 3.0, 4.0))
    values = whole.rows @ (whole.mean + whole.spread * jnp.asarray([0.3, 1.5]))
    fields = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    half = Half(**{**fields, "values": values})
    exact, spread = half.exact()
    away = (exact[1] - float(whole.mean[1])) / np.sqrt(spread[1, 1])
    assert away > 4  # of a sd: hardly any posterior mass is cut off
    nuts = NutsCalibrator(laplace=None, chains=8, warmup=200, draws=200, chunk=200, tree_depth=6)
    posterior = calibrate(half, nuts, key=jax.random.key(3))
    assert posterior.diagnostics["divergences"] <= 16 and posterior.diagnostics["r_hat"] < 1.05
    agrees(posterior, half.exact())
    nowhere = eqx.tree_at(lambda p: p.values, whole, jnp.full(6, jnp.nan))
    with pytest.raises(FloatingPointError, match="0 of 8 chains after 100 points each"):
        calibrate(nowhere, nuts, key=jax.random.key(0))
