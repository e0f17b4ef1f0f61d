"""Inner kernels on a bent ridge: reversible step by step, and only one of the two gets along it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from banana_case import banana

from tumortwin.inference import DelayedAcceptanceCalibrator, Hamiltonian, RandomWalk, SmcCalibrator, calibrate

ERRORS = 4.5
FACTOR = jnp.asarray([[0.9, 0.0], [0.2, 0.5]])
EDGE = 0.8
BEND = 0.7
SEARCH = SmcCalibrator(particles=100)


def step(kernel, density, z, scale, seed):
    """One step from every row of `z`, and the chances."""

    def one(row, key):
        moved = kernel.move(density, FACTOR, jnp.asarray(scale), kernel.begin(density, row, density(row)), key=key)
        return moved.spot.z, moved.chance

    return jax.jit(jax.vmap(one))(jnp.asarray(z), jax.random.split(jax.random.key(seed), len(z)))


def holds(x, y):
    """Largest number of standard errors by which the law of (x, y) is not that of (y, x)."""

    def seen(z):
        along, across = z.T
        off = across - BEND * (along**2 - 1.0)
        return np.stack([np.ones(len(z)), along, across, along**2, across**2, along * across, off, off**2])

    before, after = seen(x), seen(y)
    gaps = before[:, None] * after[None] - after[:, None] * before[None]
    upper = gaps[np.triu_indices(len(gaps), 1)]  # the first row, against ones: each column keeps its mean
    return float(np.max(np.abs(upper.mean(axis=1)) * np.sqrt(len(x)) / upper.std(axis=1)))


@pytest.mark.parametrize(("kernel", "scale"), [(RandomWalk(), 0.8), (Hamiltonian(time=1.5, spread=0.5), 0.55)])
def test_a_step_is_reversible_for_the_density(kernel, scale):
    target = banana(BEND, 0.3)
    x = target.draws(20_000, np.random.default_rng(0))
    y, chance = step(kernel, target.log_density, x, scale, 1)
    assert 0.2 < float(chance.mean()) < 0.9  # refusals matter
    assert holds(x, np.asarray(y)) < ERRORS

    # The same with a hole, at whose edge neither value nor slope is finite.
    def holed(z):
        return jnp.where(z[0] > EDGE, jnp.nan, target.log_density(z))

    inside = x[x[:, 0] < EDGE]
    y, _ = step(kernel, holed, inside, scale, 2)
    assert np.max(np.asarray(y)[:, 0]) < EDGE
    assert holds(inside, np.asarray(y)) < ERRORS


def test_a_step_is_not_reversible_for_another_density():
    target = banana(BEND, 0.3)
    x = target.draws(20_000, np.random.default_rng(0))
    other = dataclasses.replace(target, width=jnp.asarray(0.36))
    for kernel, scale in ((RandomWalk(), 0.8), (Hamiltonian(time=1.5), 0.55)):
        y, _ = step(kernel, other.log_density, x, scale, 1)
        assert holds(x, np.asarray(y)) > ERRORS


def test_a_short_step_along_a_trajectory_keeps_the_energy():
    target = banana(BEND, 0.3)
    x = target.draws(200, np.random.default_rng(1))
    errors = []
    for scale in (0.04, 0.02):
        kernel = Hamiltonian(time=1e3, longest=round(0.8 / scale), spread=0.0)  # always the same time
        _, chance = step(kernel, target.log_density, x, scale, 3)
        errors.append(float(np.mean(-np.log(np.asarray(chance)))))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.25)  # leapfrog is of second order


def test_trajectories_get_along_a_thin_bent_ridge_and_a_walk_does_not():
    ridge = banana(BEND, 0.01)
    settings = {"draws": 200, "warmup": 20, "chunk": 220, "vectorized": True, "search": SEARCH}

    def found(kernel, inner):
        calibrator = DelayedAcceptanceCalibrator(ridge, kernel=kernel, inner=inner, **settings)
        return calibrate(ridge, calibrator, key=jax.random.key(0))

    walked = found(RandomWalk(), 300)
    assert walked.diagnostics["r_hat"] > 1.1 and walked.diagnostics["sample_reliable"] == 0.0
    assert walked.diagnostics["second_stage_accepted"] == 1.0  # the surrogate is the model
    assert walked.diagnostics["surrogate_gradients"] == 0.0
    followed = found(Hamiltonian(wanted=0.95), 4)
    said = followed.diagnostics
    assert said["second_stage_accepted"] == 1.0
    assert said["r_hat"] < 1.02 and said["ess"] > 200 and said["sample_reliable"] == 1.0
    along, weights, across = ridge.exact()
    x, y = followed.draws["along"], followed.draws["across"]
    error = np.sqrt(weights @ along**2 / said["ess"])
    assert abs(x.mean()) < ERRORS * error
    assert y.mean() == pytest.approx(weights @ across, abs=ERRORS * 0.7 * np.sqrt(2.0 / said["ess"]))
    assert np.std(y - BEND * (x**2 - 1.0)) == pytest.approx(0.01, rel=0.2)
    assert x.min() < -1.7 and x.max() > 1.7  # both ends


def test_gradients_are_counted():
    ridge, chains, tuning, inner, outer, longest = banana(0.4, 0.5), 2, 10, 3, 20, 5
    calibrator = DelayedAcceptanceCalibrator(
        ridge,
        kernel=Hamiltonian(time=1e6, longest=longest),  # every trajectory is as long as it may be
        inner=inner,
        direct=1e-9,
        search=SEARCH,
        tuning=tuning,
        chains=chains,
        warmup=0,
        draws=outer,
        chunk=outer,
    )
    said = calibrate(ridge, calibrator, key=jax.random.key(0)).diagnostics
    expected = chains * (tuning * longest + 1) + chains * outer * (inner * longest + 1)
    assert said["surrogate_gradients"] == expected


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="0 < wanted < 1"):
        Hamiltonian(wanted=1.0)
