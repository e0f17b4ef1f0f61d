"""Leave-one-out against closed forms, a point that cannot be left out, and weights of models."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from scipy import stats

from tumortwin.inference import (
    LeaveOneOut,
    Measurements,
    PopulationProblem,
    Posterior,
    Varying,
    leave_one_measurement_out,
    pareto_leave_one_out,
    stacking_weights,
)
from tumortwin.observation import AdditiveError
from tumortwin.params import parameter

NOISE, WIDE = 0.7, 3.0


def exact_draws(values, n, rng):
    """Of the mean of normal values with known noise and prior N(0, WIDE^2)."""
    precision = values.size / NOISE**2 + 1 / WIDE**2
    return rng.normal(values.sum() / NOISE**2 / precision, precision**-0.5, n)


def left_out(values):
    """log p(y_i | y_-i) in closed form."""
    found = []
    for i, value in enumerate(values):
        others = np.delete(values, i)
        precision = others.size / NOISE**2 + 1 / WIDE**2
        mean = others.sum() / NOISE**2 / precision
        found.append(stats.norm.logpdf(value, mean, np.sqrt(NOISE**2 + 1 / precision)))
    return np.asarray(found)


def test_leaving_a_measurement_out_is_the_closed_form_of_a_normal_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(1.0, NOISE, 12)
    draws = exact_draws(values, 8000, rng)
    found = pareto_leave_one_out(stats.norm.logpdf(values, draws[:, None], NOISE))
    np.testing.assert_allclose(found.elpd, left_out(values), atol=0.02)
    assert found.k_hat.max() < 0.5
    # Weighted draws of a wider sample are the same posterior.
    wide = rng.normal(values.mean(), 0.5, 20000)
    log_weights = stats.norm.logpdf(values, wide[:, None], NOISE).sum(axis=1) + stats.norm.logpdf(wide, 0, WIDE)
    log_weights -= stats.norm.logpdf(wide, values.mean(), 0.5)
    weighted = pareto_leave_one_out(
        stats.norm.logpdf(values, wide[:, None], NOISE), log_weights - np.logaddexp.reduce(log_weights)
    )
    np.testing.assert_allclose(weighted.elpd, left_out(values), atol=0.03)


def test_a_point_that_the_others_do_not_expect_asks_for_a_refit():
    rng = np.random.default_rng(1)
    values = np.append(rng.normal(1.0, NOISE, 12), 14.0)
    draws = exact_draws(values, 4000, rng)
    found = pareto_leave_one_out(stats.norm.logpdf(values, draws[:, None], NOISE))
    assert found.k_hat[-1] > 0.7 > found.k_hat[:-1].max()


class Level(eqx.Module):
    level: Array = parameter(unit="1")


def test_measurements_of_subjects_are_left_out_one_by_one():
    """Subjects far apart from each other (effects free): every subject is a normal mean of its own."""
    rng = np.random.default_rng(2)
    values = rng.normal(0.5, NOISE, (3, 6))
    valid = np.ones((3, 6))
    valid[1, 4:] = 0.0
    data = Measurements(jnp.zeros((3, 6)), jnp.asarray(values), jnp.asarray(values), jnp.asarray(valid))
    varying = {"level": Varying(dist.Normal(0.0, 1.0), dist.HalfNormal(1.0), scale="identity")}
    error = AdditiveError(jnp.asarray(1.0))

    def flat(model, data):
        return jnp.broadcast_to(model.level[:, None], data.times.shape)

    problem = PopulationProblem(Level(jnp.asarray(0.0)), varying, error, {"sd": dist.LogNormal(0.0, 1.0)}, data, flat)
    n = 4000
    rows = [values[i][valid[i] > 0] for i in range(3)]
    levels = np.stack([exact_draws(row, n, rng) for row in rows], axis=1)
    draws = {"subject.level": levels[None], "residual.sd": np.full((1, n), NOISE)}
    found = leave_one_measurement_out(problem, Posterior(draws, None, {}, ""), draws=n, key=jax.random.key(0))
    np.testing.assert_allclose(found.elpd, np.concatenate([left_out(row) for row in rows]), atol=0.05)


def scores(*columns):
    return {f"m{k}": LeaveOneOut(np.log(np.asarray(c, float)), np.zeros(len(c))) for k, c in enumerate(columns)}


def test_two_models_are_weighted_by_the_closed_form():
    """Densities (a, b) and (c, d): sum of (p - q) / (w p + (1 - w) q) = 0, linear in w for two points."""
    a, b, c, d = 0.9, 0.4, 0.2, 0.5
    weight = -((a - b) * d + (c - d) * b) / (2 * (a - b) * (c - d))
    assert 0 < weight < 1
    found = stacking_weights(scores([a, c], [b, d]))
    assert found.weights["m0"] == pytest.approx(weight, abs=1e-5)
    mixed = np.log(weight * a + (1 - weight) * b) + np.log(weight * c + (1 - weight) * d)
    assert found.elpd == pytest.approx(mixed, abs=1e-9)


def test_the_weights_are_those_of_arviz():
    """Of four models' scores of 60 points, by `compare(method="stacking")` of arviz 0.22."""
    rng = np.random.default_rng(5)
    table = np.exp(rng.normal(size=(60, 4)) * [0.5, 1.0, 1.0, 0.3] + [0.0, 0.1, -0.4, -1.0])
    found = stacking_weights(scores(*table.T))
    assert list(found.weights.values()) == pytest.approx([0.39754620, 0.57045430, 0.03199950, 0.0], abs=2e-3)


def test_what_is_worse_everywhere_gets_nothing_and_twins_share():
    rng = np.random.default_rng(0)
    one, other = np.exp(rng.normal(size=(2, 50)))
    found = stacking_weights(scores(one, 0.5 * one))
    assert found.weights["m1"] < 1e-4
    alone = stacking_weights(scores(one, other))
    twins = stacking_weights(scores(one, other, one))
    assert twins.elpd == pytest.approx(alone.elpd, abs=1e-5)
    assert twins.weights["m0"] + twins.weights["m2"] == pytest.approx(alone.weights["m0"], abs=1e-3)
    assert sum(twins.weights.values()) == pytest.approx(1.0)


def test_scores_that_cannot_be_compared_are_refused():
    shaky = scores([1.0, 2.0], [2.0, 1.0])
    shaky["m1"] = LeaveOneOut(shaky["m1"].elpd, np.asarray([0.9, 0.1]))
    assert stacking_weights(shaky).unreliable == {"m0": 0.0, "m1": 0.5}
    with pytest.raises(ValueError, match="two or more models scored on the same points"):
        stacking_weights(scores([1.0, 2.0]))
    with pytest.raises(ValueError, match="same points; received: {'m0': 2, 'm1': 1}"):
        stacking_weights({**scores([1.0, 2.0]), "m1": LeaveOneOut(np.zeros(1), np.zeros(1))})
    with pytest.raises(ValueError, match="finite score of every point"):
        bad = LeaveOneOut(np.asarray([-np.inf, 0.0]), np.zeros(2))
        stacking_weights({"a": bad, "b": bad})
