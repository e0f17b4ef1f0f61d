"""A compartment twin takes in readings one by one: in any order, each once, and nothing that is not so."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from tumortwin.inference import SmcCalibrator
from tumortwin.models import Gompertz, Treated
from tumortwin.observation import LogNormalError
from tumortwin.twin import CompartmentTwin, Reading, Treatment

SETTINGS = SmcCalibrator(particles=600)
DAYS = (5.0, 8.0, 11.0, 14.0)


@pytest.fixture(scope="module")
def fresh():
    model = Treated(Gompertz(jnp.asarray(0.7), jnp.asarray(0.08)), alpha=jnp.asarray(0.1))
    prior = {"growth.growth_rate": dist.LogNormal(np.log(0.7), 0.2), "alpha": dist.LogNormal(np.log(0.1), 0.4)}
    treatment = Treatment(jnp.asarray([9.0, 10.0]), jnp.asarray([2.0, 2.0]))
    return CompartmentTwin.of("one", model, prior, LogNormalError(jnp.asarray(0.1)), treatment=treatment)


@pytest.fixture(scope="module")
def readings(fresh):
    """Of a subject that grows 10 % faster than the prior's middle."""
    model = Treated(Gompertz(jnp.asarray(0.77), jnp.asarray(0.08)), alpha=jnp.asarray(0.1))
    given, noise = fresh.problem.data.given, LogNormalError(jnp.asarray(0.1))
    truth = CompartmentTwin.of("truth", model, {"alpha": dist.LogNormal(np.log(0.1), 0.1)}, noise, treatment=given)
    curve = truth.forecast(np.asarray(DAYS), draws=1, key=jax.random.key(0))[0]
    factors = (1.05, 0.95, 1.02, 0.97)
    return [Reading.exact(day, v * factor) for day, v, factor in zip(DAYS, curve, factors, strict=True)]


def after(twin, readings, seed=0):
    for step, reading in enumerate(readings):
        twin = twin.assimilate(reading, SETTINGS, key=jax.random.key(100 * seed + step))
    return twin


@pytest.mark.slow
def test_versions_the_same_reading_twice_and_a_late_one(fresh, readings):
    twin = after(fresh, readings)
    assert twin.version == 4 and fresh.version == 0 and fresh.readings == ()
    again = twin.assimilate(readings[1], SETTINGS, key=jax.random.key(9))
    assert again is twin
    assert [update.late for update in twin.history] == [False] * 4
    shuffled = after(fresh, [readings[k] for k in (0, 2, 3, 1)], seed=1)
    assert [update.late for update in shuffled.history] == [False, False, False, True]
    assert shuffled.history[-1].days == (8.0,)
    one, other = twin.posterior(SETTINGS), shuffled.posterior(SETTINGS)
    for path in ("typical.growth.growth_rate", "typical.alpha"):
        error = np.hypot(one.monte_carlo_error[path], other.monte_carlo_error[path])
        assert abs(one.mean(path) - other.mean(path)) < 4.5 * error
        assert one.sd(path) == pytest.approx(float(other.sd(path)), rel=0.15)
    total = [sum(update.log_score for update in found.history) for found in (twin, shuffled)]
    assert total[0] == pytest.approx(total[1], abs=0.5)


def test_the_posterior_is_that_of_a_grid(fresh, readings):
    """Two parameters: the integral by quadrature."""
    twin = after(fresh, readings[:3])
    posterior = twin.posterior(SETTINGS)
    grid = np.stack(np.meshgrid(np.linspace(-4, 4, 81), np.linspace(-4, 4, 81), indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.asarray(jax.jit(jax.vmap(twin.problem.log_density))(jnp.asarray(grid)))
    weights = np.exp(density - density.max())
    weights /= weights.sum()
    values = np.asarray(
        jax.vmap(lambda z: jnp.stack(list(twin.problem.prior.constrain(z).values())))(jnp.asarray(grid))
    )
    for k, path in enumerate(twin.problem.prior.paths):
        exact = weights @ values[:, k]
        assert abs(posterior.mean(path) - exact) < 4.5 * posterior.monte_carlo_error[path]


def test_what_is_not_so_is_refused(fresh, readings):
    twin = after(fresh, readings[:1])
    with pytest.raises(ValueError, match="a second one of day 5"):
        twin.assimilate(Reading.exact(5.0, 1.0), SETTINGS, key=jax.random.key(0))
    with pytest.raises(ValueError, match="a day from 0 on"):
        twin.assimilate(Reading.exact(-1.0, 1.0), SETTINGS, key=jax.random.key(0))
    with pytest.raises(ValueError, match="required: 700 particles"):
        twin.assimilate(readings[1], SmcCalibrator(particles=700), key=jax.random.key(0))
    with pytest.raises(ValueError, match="a twin with a reading"):
        fresh.posterior(SETTINGS)


def test_another_past_is_refused_and_another_future_is_not(fresh, readings):
    """A dose before the last reading changes what was seen; one after it does not."""
    twin = after(fresh, readings[:2])

    def given(days):
        problem = eqx.tree_at(lambda p: p.data.given.dose_days, twin.problem, jnp.asarray(days))
        return dataclasses.replace(twin, problem=problem)

    with pytest.raises(ValueError, match="to have the likelihood it had"):
        given([6.0, 10.0]).assimilate(readings[2], SETTINGS, key=jax.random.key(0))
    assert given([9.5, 12.0]).assimilate(readings[2], SETTINGS, key=jax.random.key(0)).version == 3


def test_forecasts_narrow_and_noise_widens(fresh, readings):
    key, days = jax.random.key(1), np.asarray([16.0, 20.0])
    before = fresh.forecast(days, key=key)
    twin = after(fresh, readings)
    later = twin.forecast(days, key=key)
    assert before.shape == later.shape == (500, 2)
    assert np.all(np.log(later).std(axis=0) < 0.7 * np.log(before).std(axis=0))
    noisy = twin.forecast(days, noise=True, key=key)
    extra = np.log(noisy).var(axis=0) - np.log(later).var(axis=0)
    np.testing.assert_allclose(extra, 0.1**2, rtol=0.4)
