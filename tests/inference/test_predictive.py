"""Replications of a model that is right and of one that is not; priors that expect tumors, and one that does not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from scipy import stats

from tumortwin.inference import (
    Measurements,
    PopulationProblem,
    Posterior,
    Varying,
    posterior_predictive,
    predictive_check,
    prior_plausibility,
    prior_predictive,
)
from tumortwin.observation import AdditiveError
from tumortwin.params import parameter

SUBJECTS, TIMES, NOISE = 6, 8, 0.5


class Level(eqx.Module):
    level: Array = parameter(unit="1")


def flat(model, data):
    return jnp.broadcast_to(model.level[:, None], data.times.shape)


def population(values, spread=1.0):
    shape = (SUBJECTS, TIMES)
    valid = np.ones(shape)
    valid[2, 5:] = 0.0
    data = Measurements(jnp.zeros(shape), jnp.asarray(values), jnp.asarray(values), jnp.asarray(valid))
    varying = {"level": Varying(dist.Normal(0.0, spread), dist.HalfNormal(1.0), scale="identity")}
    priors = {"sd": dist.LogNormal(np.log(NOISE), 0.3)}
    return PopulationProblem(Level(jnp.asarray(0.0)), varying, AdditiveError(jnp.asarray(1.0)), priors, data, flat)


def fitted(values, n=800):
    """Subjects' means with the noise known: a posterior in closed form (flat prior)."""
    rng = np.random.default_rng(1)
    levels = rng.normal(values.mean(axis=1), NOISE / np.sqrt(TIMES), (n, SUBJECTS))
    return Posterior({"subject.level": levels[None], "residual.sd": np.full((1, n), NOISE)}, None, {}, "")


STATISTICS = {
    "largest residual": lambda y: np.nanmax(np.abs(y - np.nanmean(y, axis=1, keepdims=True))),
    "spread": lambda y: np.nanstd(y - np.nanmean(y, axis=1, keepdims=True)),
}


def test_new_measurements_have_the_spread_of_level_and_noise():
    values = np.random.default_rng(0).normal(2.0, NOISE, (SUBJECTS, TIMES))
    made = posterior_predictive(population(values), fitted(values), 800, key=jax.random.key(0))
    assert made.shape == (800, SUBJECTS, TIMES) and np.isnan(made[:, 2, 5:]).all()
    assert np.isfinite(made[:, 2, :5]).all()
    residual = (made[:, 0] - values[0].mean()) / (NOISE * np.sqrt(1 + 1 / TIMES))
    assert residual.std() == pytest.approx(1.0, abs=0.03)
    assert stats.kstest(residual[:, 0], "norm").pvalue > 0.001


def test_a_check_passes_the_model_that_made_the_data_and_fails_another():
    rng = np.random.default_rng(3)
    good = rng.normal(2.0, NOISE, (SUBJECTS, TIMES))
    bad = 2.0 + NOISE * rng.standard_t(1.5, (SUBJECTS, TIMES))
    found = []
    for values in (good, bad):
        given = population(values)
        made = posterior_predictive(given, fitted(values), 800, key=jax.random.key(1))
        seen = np.where(given.data.valid > 0, values, np.nan)
        found.append(predictive_check(seen, made, STATISTICS))
    assert all(check.p_value > 0.01 for check in found[0].values())
    assert all(check.p_value < 0.01 and check.observed > check.high for check in found[1].values())
    with pytest.raises(ValueError, match="replications"):
        predictive_check(good[:2], made, STATISTICS)


def test_the_p_value_is_the_share_beyond_the_observed():
    made = np.arange(100.0)[:, None]
    found = predictive_check(np.asarray([95.0]), made, {"itself": lambda y: y[0]})["itself"]
    assert found.p_value == pytest.approx(2 * 0.05)
    assert predictive_check(np.asarray([49.5]), made, {"itself": lambda y: y[0]})["itself"].p_value == 1.0


def test_a_prior_is_plausible_where_it_expects_what_could_be():
    values = np.zeros((SUBJECTS, TIMES))
    tight, vague = (prior_predictive(population(values, spread), 400, key=jax.random.key(2)) for spread in (1.0, 50.0))
    inside = tight[np.isfinite(tight)]
    good, bad = prior_plausibility(inside, -10.0, 10.0), prior_plausibility(vague[np.isfinite(vague)], -10.0, 10.0)
    assert good.plausible and good.inside > 0.95 and good.failed == 0.0
    assert not bad.plausible and "Tighten the priors" in bad.statement and bad.below + bad.above > 0.5
    # In closed form: shares of a normal.
    drawn = np.append(np.random.default_rng(0).normal(0.0, 2.0, 100_000), [np.inf] * 100_000)
    half = prior_plausibility(drawn, -2.0, 4.0)
    assert half.failed == 0.5
    assert half.below == pytest.approx(0.5 * stats.norm.cdf(-1), abs=0.003)
    assert half.above == pytest.approx(0.5 * stats.norm.sf(2), abs=0.003)
    assert half.central == pytest.approx((-3.92, 3.92), abs=0.06)
    with pytest.raises(ValueError, match="low < high"):
        prior_plausibility(drawn, 1.0, 0.0)
