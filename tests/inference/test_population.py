"""Hierarchical models: densities against NumPyro, coordinates, a closed form, and what is refused."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.infer.util import potential_energy
from scipy import stats

from tumortwin.inference import (
    LaplaceCalibrator,
    Measurements,
    NutsCalibrator,
    PopulationProblem,
    Varying,
    calibrate,
    leave_one_subject_out,
    marginal_log_likelihoods,
)
from tumortwin.observation import AdditiveError, CombinedError, LogNormalError
from tumortwin.params import parameter


class Growth(eqx.Module):
    """size = start exp(rate t)."""

    rate: Array = parameter(unit="1/day")
    start: Array = parameter(unit="mm^3")


def solve(model, data):
    return model.start[..., None] * jnp.exp(jnp.broadcast_to(model.rate, (data.subjects,))[:, None] * data.times)


def padded(rows, fill="last"):
    width = max(map(len, rows))
    return np.stack([np.append(row, np.full(width - len(row), row[-1] if fill == "last" else 0.0)) for row in rows])


ROWS = ([0.0, 1.0, 2.0], [0.0, 3.0], [1.0], [0.0, 1.0, 2.5, 4.0])


def measurements(values=None):
    times = padded([np.asarray(row) for row in ROWS])
    valid = padded([np.ones(len(row)) for row in ROWS], "zero")
    values = 10.0 * np.exp(0.2 * times) + np.arange(4.0)[:, None] if values is None else values
    doubled = values.copy()
    doubled[0, 0] += 4.0  # one censored value
    arrays = map(jnp.asarray, (times, values, doubled, valid))
    return Measurements(*arrays, covariates={"arm": jnp.asarray([-0.5, -0.5, 0.5, 0.5])})


def population(centered=(False, False), correlated=("rate", "start"), data=None):
    varying = {
        "rate": Varying(
            dist.LogNormal(np.log(0.2), 0.7),
            dist.HalfNormal(0.4),
            centered=centered[0],
            covariates={"arm": dist.Normal(0.0, 0.5)},
        ),
        "start": Varying(dist.LogNormal(np.log(10.0), 0.5), dist.HalfNormal(0.3), centered=centered[1]),
    }
    model = Growth(jnp.asarray(0.1), jnp.asarray(1.0))
    error = CombinedError(jnp.asarray(1.0), jnp.asarray(0.1))
    priors = {"sd": dist.LogNormal(0.0, 1.0), "cv": dist.LogNormal(np.log(0.1), 1.0)}
    data = measurements() if data is None else data
    return PopulationProblem(model, varying, error, priors, data, solve, correlated, concentration=2.0)


def some(given, seed):
    """Four points of the prior: one number of them, so that one program draws them for every test."""
    return given.sample_prior(4, key=jax.random.key(seed))


def test_the_density_is_that_of_the_numpyro_model():
    """NumPyro's own potential in its own coordinates, which the prior's are shifted and stretched from."""
    given = population()
    points = some(given, 0)
    n = given.prior.size

    @jax.jit
    def by_numpyro(z):
        t = {p: given.prior.center[p] + given.prior.scale[p] * z[i] for i, p in enumerate(given.prior.paths)}
        free = {**t, "correlation": z[n : n + 1], "effects": z[n + 1 :].reshape(4, 2)}
        stretched = sum(jnp.sum(jnp.log(s)) for s in given.prior.scale.values())
        return stretched - potential_energy(given.numpyro_model(), (), {}, free)

    ours = jax.jit(jax.vmap(given.log_density))(points)
    np.testing.assert_allclose(ours, [by_numpyro(z) for z in points], rtol=1e-10)


CENTERINGS = ((True, True), (True, False), (False, True))


@pytest.mark.parametrize("correlated", [("rate", "start"), ()], ids=["correlated", "independent"])
def test_centering_changes_the_coordinates_and_nothing_else(correlated):
    """The same draws of the prior; densities differ by the Jacobian of the effects alone."""
    free = population((False, False), correlated)
    z = some(free, 1)
    values, density = jax.jit(jax.vmap(lambda p: (free.constrain(p), free.log_density(p))))(z)
    for centering in CENTERINGS:
        other = population(centering, correlated)
        moved = some(other, 1)
        there, found = jax.jit(jax.vmap(lambda p, other=other: (other.constrain(p), other.log_density(p))))(moved)
        assert set(there) == set(values)
        for path, value in values.items():
            np.testing.assert_allclose(there[path], value, rtol=1e-9, err_msg=path)
        jacobian = sum(
            4 * jnp.log(values[f"between.{p}"]) for p, on in zip(("rate", "start"), centering, strict=True) if on
        )
        if correlated and centering[1]:  # the second is what the first leaves open
            jacobian += 4 * 0.5 * jnp.linalg.slogdet(values["correlation"])[1]
        np.testing.assert_allclose(found, density - jacobian, rtol=1e-9)


@pytest.mark.slow
def test_subjects_follow_the_typical_value_their_covariate_and_their_correlation():
    given = population()
    z = given.sample_prior(4000, key=jax.random.key(2))
    values = jax.jit(jax.vmap(given.constrain))(z)
    centers = jnp.log(values["typical.rate"])[:, None]
    shift = values["covariate.rate.arm"][:, None] * given.data.covariates["arm"][None, :]
    rate = (jnp.log(values["subject.rate"]) - centers - shift) / values["between.rate"][:, None]
    start = jnp.log(values["subject.start"] / values["typical.start"][:, None]) / values["between.start"][:, None]
    for column in (rate, start):
        assert stats.kstest(np.asarray(column[:, 0]), "norm").pvalue > 0.001
    product = np.asarray(rate[:, 0] * start[:, 0] - values["correlation"][:, 0, 1])
    assert abs(product.mean()) < 4 * product.std() / np.sqrt(4000)


def test_padding_and_a_likelihood_s_gradient():
    """Whatever stands in padding, times too, changes neither the density nor its gradient."""
    given = population()
    changed = eqx.tree_at(
        lambda p: (p.data.lower, p.data.upper, p.data.times),
        given,
        tuple(
            jnp.where(given.data.valid > 0, a, a + 7.0) for a in (given.data.lower, given.data.upper, given.data.times)
        ),
    )
    z = some(given, 3)[0]
    with_slope = eqx.filter_jit(lambda p, z: jax.value_and_grad(p.log_density)(z))
    both = [with_slope(p, z) for p in (given, changed)]
    for a, b in zip(*both, strict=True):
        np.testing.assert_array_equal(a, b)
    h = 1e-5
    for i in (0, 3, given.prior.size, given.size - 1):
        step = h * jnp.eye(given.size)[i]
        slope = (with_slope(given, z + step)[0] - with_slope(given, z - step)[0]) / (2 * h)
        assert float(both[0][1][i]) == pytest.approx(float(slope), rel=1e-5)


def _normal(x: Any, mean: Any, covariance: Any) -> Any:
    family: Any = stats.multivariate_normal
    return family.logpdf(np.asarray(x), np.asarray(mean), np.asarray(covariance))


class Level(eqx.Module):
    level: Array = parameter(unit="1")


SPREAD, NOISE, WIDE, KNOWN = 1.5, 0.8, 10.0, 1e-3


def normal_hierarchy():
    """y_ij ~ N(theta_i, s^2), theta_i ~ N(mu, w^2), s and w all but known: everything is normal in closed form."""
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, SPREAD, 8)[:, None] + NOISE * rng.normal(size=(8, 3))
    data = Measurements(jnp.zeros((8, 3)), jnp.asarray(values), jnp.asarray(values), jnp.ones((8, 3)))
    spread = dist.LogNormal(np.log(SPREAD), KNOWN)
    varying = {"level": Varying(dist.Normal(0.0, WIDE), spread, scale="identity", centered=True)}
    priors = {"sd": dist.LogNormal(np.log(NOISE), KNOWN)}

    def flat(model, data):
        return jnp.broadcast_to(model.level[:, None], data.times.shape)

    error = AdditiveError(jnp.asarray(1.0))
    return values, PopulationProblem(Level(jnp.asarray(0.0)), varying, error, priors, data, flat)


@pytest.fixture(scope="module")
def sampled():
    values, given = normal_hierarchy()
    sampler = NutsCalibrator(laplace=None, warmup=300, draws=700, chunk=500)
    return values, given, calibrate(given, sampler, key=jax.random.key(4))


@pytest.mark.slow
def test_nuts_finds_the_closed_form_of_a_normal_hierarchy(sampled):
    values, _, posterior = sampled
    assert posterior.diagnostics["r_hat"] < 1.02 and posterior.diagnostics["ess"] > 400
    n, m = values.shape
    marginal = SPREAD**2 + NOISE**2 / m
    precision = n / marginal + 1 / WIDE**2
    mean, sd = values.mean(axis=1).sum() / marginal / precision, precision**-0.5
    error = 4 * posterior.monte_carlo_error["typical.level"]
    assert posterior.mean("typical.level") == pytest.approx(mean, abs=float(error))
    assert posterior.sd("typical.level") == pytest.approx(sd, rel=0.1)
    share = SPREAD**2 / marginal
    theta = share * values.mean(axis=1) + (1 - share) * mean
    spreads = np.sqrt(share * NOISE**2 / m + ((1 - share) * sd) ** 2)
    np.testing.assert_array_less(
        np.abs(posterior.mean("subject.level") - theta), 4 * posterior.monte_carlo_error["subject.level"]
    )
    np.testing.assert_allclose(posterior.sd("subject.level"), spreads, rtol=0.12)
    assert "typical.level (0%" in posterior.statement and "Prior-driven" in posterior.statement


def test_leaving_a_subject_out_is_the_closed_form_of_a_normal_hierarchy(sampled):
    """Given mu a subject is normal with covariance s^2 I + w^2 1 1^T; without it mu has the posterior of the others."""
    values, given, posterior = sampled
    n, m = values.shape
    covariance = NOISE**2 * np.eye(m) + SPREAD**2
    drawn = {p: jnp.asarray(v) for p, v in posterior.resample(200, key=jax.random.key(5)).items()}
    found = marginal_log_likelihoods(given, drawn, 2000, jax.random.key(6))
    exact = [[_normal(row, np.full(m, mu), covariance) for row in values] for mu in np.asarray(drawn["typical.level"])]
    np.testing.assert_allclose(found, exact, atol=0.15)
    loo = leave_one_subject_out(given, posterior, draws=1000, points=400, key=jax.random.key(7))
    marginal = SPREAD**2 + NOISE**2 / m
    for i in range(n):
        others = np.delete(values, i, axis=0)
        precision = (n - 1) / marginal + 1 / WIDE**2
        mean = others.mean(axis=1).sum() / marginal / precision
        left = _normal(values[i], np.full(m, mean), covariance + 1 / precision)
        assert loo.elpd[i] == pytest.approx(left, abs=0.1)
    assert loo.k_hat.max() < 0.7
    worse = dataclasses.replace(loo, elpd=loo.elpd - np.arange(n))
    assert loo.difference(worse) == pytest.approx((n * (n - 1) / 2, np.arange(n).std(ddof=1) * np.sqrt(n)))


def test_new_subjects_are_of_the_population():
    given = population()
    z = some(given, 8)[0]
    values = given.constrain(z)
    drawn = given.new_subjects(values, 4000, key=jax.random.key(9))
    logs = np.stack([np.log(drawn[p] / values[f"typical.{p}"]) / values[f"between.{p}"] for p in ("rate", "start")])
    for row in logs:
        assert stats.kstest(row, "norm").pvalue > 0.001
    correlation = np.asarray(np.corrcoef(logs))
    assert correlation[0, 1] == pytest.approx(float(values["correlation"][0, 1]), abs=0.06)
    # The density of subjects where they stand is that of the prior's effects.
    scaled = given.scaled(values)
    there = given.log_population(values, scaled)
    location = np.stack([given._location(values, p) for p in given.effects], axis=1)
    units = (np.asarray(scaled) - location) / np.asarray([values[f"between.{p}"] for p in given.effects])
    expected = _normal(units, np.zeros(2), values["correlation"])
    expected -= float(sum(jnp.log(values[f"between.{p}"]) for p in given.effects))
    np.testing.assert_allclose(there, expected, rtol=1e-9)
    moved = given.with_scaled(values, scaled)
    np.testing.assert_allclose(moved["subject.rate"], values["subject.rate"], rtol=1e-12)


def test_what_does_not_fit_is_refused_by_name():
    given = population()
    with pytest.raises(ValueError, match="at least two different parameters"):
        population(correlated=("rate",))
    with pytest.raises(ValueError, match="a scale among"):
        Varying(dist.LogNormal(0.0, 1.0), scale="cube")
    with pytest.raises(KeyError, match="try one of: rate"):
        PopulationProblem(given.model, {"rat": given.varying["rate"]}, given.residual, {}, given.data, solve)
    bare = eqx.tree_at(lambda d: d.covariates, given.data, {})
    with pytest.raises(KeyError, match="covariate 'arm'"):
        population(data=bare)
    with pytest.raises(ValueError, match="one shape"):
        eqx.tree_at(lambda d: d.valid, given.data, jnp.zeros((2, 2))).__check_init__()
    zero = eqx.tree_at(lambda d: (d.lower, d.upper), given.data, (given.data.lower * 0, given.data.upper * 0))
    with pytest.raises(ValueError, match=r"subject 0, measurement 0\) and 9 more; try: an interval"):
        error, priors = LogNormalError(jnp.asarray(0.1)), {"log_sd": dist.LogNormal(0.0, 1.0)}
        PopulationProblem(given.model, given.varying, error, priors, zero, solve)
    with pytest.raises(ValueError, match="laplace=None"):
        calibrate(given, NutsCalibrator(laplace=LaplaceCalibrator()), key=jax.random.key(0))
