"""A surrogate proposes and the model corrects: the closed form comes out, whatever the surrogate."""

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import pytest
from normal_case import PATHS, Killed, agrees

from tumortwin.inference import (
    DelayedAcceptanceCalibrator,
    Hamiltonian,
    Posterior,
    Problem,
    RandomWalk,
    SmcCalibrator,
    calibrate,
)

KEY = jax.random.key(0)
SHIFT, STRETCH = 0.1, 0.1
SETTINGS = {
    "inner": 12,
    "search": SmcCalibrator(particles=100),
    "draws": 1500,
    "warmup": 50,
    "chunk": 775,
    "vectorized": True,
}


def biased(model: linear.Line, days: tuple[float, ...]) -> jax.Array:
    """Off by a standard deviation of the posterior, and too sure of the slope."""
    return linear.solve(model, days) + SHIFT + STRETCH * model.slope * jnp.asarray(days)[:, None]


def holed(model: linear.Line, days: tuple[float, ...]) -> jax.Array:
    return jnp.where(model.offset > EDGE, jnp.nan, linear.solve(model, days))


MEAN, COVARIANCE = linear.exact(linear.problem())
SD = np.sqrt(np.diag(COVARIANCE))
EDGE = MEAN[0] + 0.5 * SD[0]


def surrogate(solve) -> Problem:
    return dataclasses.replace(linear.problem(), solve=solve)


@cache
def found(solve, **changed) -> Posterior:
    calibrator = DelayedAcceptanceCalibrator(surrogate(solve), **{**SETTINGS, **changed})
    return calibrate(linear.problem(), calibrator, key=KEY)


@pytest.mark.parametrize(("kernel", "inner"), [(RandomWalk(), 12), (Hamiltonian(), 3)])
def test_a_wrong_surrogate_costs_solves_and_not_truth(kernel, inner):
    posterior = found(biased, kernel=kernel, inner=inner)
    # By the surrogate alone the answer would be another one, in closed form too.
    rows = linear.design() + np.outer(np.repeat(linear.DAYS, 5), [0.0, STRETCH])
    values = np.concatenate([np.asarray(datum.values) for datum in linear.problem().data]) - SHIFT
    precision = rows.T @ rows / linear.NOISE**2 + np.diag(linear.PRIOR_SD**-2)
    alone = np.linalg.solve(precision, rows.T @ values / linear.NOISE**2 + linear.PRIOR_MEAN / linear.PRIOR_SD**2)
    assert abs(alone[0] - MEAN[0]) > 0.7 * SD[0]
    agrees(posterior, (MEAN, COVARIANCE))
    rows = np.stack([posterior.draws[path].ravel() for path in PATHS])
    expected = COVARIANCE[0, 1] / np.prod(SD)
    assert np.corrcoef(rows)[0, 1] == pytest.approx(expected, abs=0.08)
    said = posterior.diagnostics
    assert said["r_hat"] < 1.02 and 0.2 < said["second_stage_accepted"] < 0.9
    assert said["outside_surrogate"] == 0.0 and said["sample_reliable"] == 1.0
    # Every outer step is one solve at most, and one that went nowhere is none.
    total = 4 * (SETTINGS["warmup"] + SETTINGS["draws"])
    assert total * said["first_stage_moved"] * 0.9 < said["solves"] < total
    asked = said["surrogate_solves"] + said["surrogate_gradients"]
    assert asked > 0.9 * inner * said["solves"]
    assert (said["surrogate_gradients"] > 0.9 * inner * said["solves"]) == isinstance(kernel, Hamiltonian)
    assert said["solves_per_effective_draw"] == pytest.approx(said["solves"] / said["ess"])


@pytest.mark.parametrize(("kernel", "inner"), [(RandomWalk(), 12), (Hamiltonian(), 3)])
def test_a_surrogate_that_is_the_model_is_always_accepted(kernel, inner):
    posterior = found(linear.solve, kernel=kernel, inner=inner)
    agrees(posterior, (MEAN, COVARIANCE))
    assert posterior.diagnostics["second_stage_accepted"] == 1.0
    assert posterior.diagnostics["direct_accepted"] < 0.8  # a plain step may be refused
    assert posterior.diagnostics["ess"] > found(biased, kernel=kernel, inner=inner).diagnostics["ess"]


def test_where_the_surrogate_is_zero_the_chain_gets_by_plain_steps_and_says_so():
    posterior = found(holed, direct=0.4, draws=4600)
    beyond = 0.5 * math.erfc(0.5 / math.sqrt(2.0))  # of the posterior
    assert posterior.diagnostics["outside_surrogate"] == pytest.approx(beyond, abs=0.05)
    assert np.mean(posterior.draws["offset"] > EDGE) == posterior.diagnostics["outside_surrogate"]
    assert posterior.diagnostics["sample_reliable"] == 0.0
    agrees(posterior, (MEAN, COVARIANCE))


def test_a_chain_that_was_killed_ends_with_the_same_numbers():
    calibrator = DelayedAcceptanceCalibrator(surrogate(biased), **{**SETTINGS, "draws": 100, "chunk": 30})
    whole = calibrate(linear.problem(), calibrator, key=KEY)
    assert whole.draws["offset"].shape == (4, 100)
    for saves in (1, 3):
        memory = Killed(saves)
        with pytest.raises(KeyboardInterrupt):
            calibrate(linear.problem(), calibrator, key=KEY, checkpoint=memory)
        resumed = calibrate(linear.problem(), calibrator, key=KEY, checkpoint=memory)
        for path in PATHS:
            np.testing.assert_array_equal(whole.draws[path], resumed.draws[path])
        assert whole.diagnostics == resumed.diagnostics


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="0 < direct < 1"):
        DelayedAcceptanceCalibrator(linear.problem(), direct=0.0)
    impossible = surrogate(lambda model, days: jnp.nan * linear.solve(model, days))
    with pytest.raises(FloatingPointError, match="a surrogate that is not zero"):
        calibrate(linear.problem(), DelayedAcceptanceCalibrator(impossible, **SETTINGS), key=KEY)
    with pytest.raises(FloatingPointError, match="at which the model's density is not zero"):
        calibrate(impossible, DelayedAcceptanceCalibrator(linear.problem(), **SETTINGS), key=KEY)
