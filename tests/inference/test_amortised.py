"""Posteriors learned once for all patients: against the closed form of a linear model with normal errors."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from scipy import stats

from tumortwin.inference import Prior, Problem, calibrate
from tumortwin.observation import Datum
from tumortwin.surrogates import (
    AmortisedCalibrator,
    AmortisedPosterior,
    BankSimulator,
    FreshSimulator,
    ProjectedData,
    Training,
    _amortised_calibrator,
    counted,
    leading_modes,
    observed_values,
    predicted_values,
    simulation_bank,
    train_amortised,
)

BATCH = 128
DESIGN = linear.design()
PRIOR = linear.prior()  # made outside of any compiled function
TRAINING = Training(steps=900, chunk=300, layers=2, width=24, depth=1, learning_rate=8e-3)
KEY = jax.random.key(0)
NAMES = ("offset", "slope")


class Lines(eqx.Module):
    """A batch of lines of the prior with their data; offsets below `highest` of the prior's sds only. The batch of the
    key `broken` is not finite."""

    highest: Array = eqx.field(default=np.inf, converter=jnp.asarray)
    broken: Array = eqx.field(default=(0, 0), converter=lambda key: jnp.asarray(key, jnp.uint32))

    def __call__(self, key: Array) -> tuple[Array, Array]:
        z_key, noise_key = jax.random.split(key)
        highest = jnp.stack([self.highest, jnp.asarray(jnp.inf)])
        z = jax.random.truncated_normal(z_key, -np.inf, jnp.broadcast_to(highest, (BATCH, 2)))
        x = jax.vmap(PRIOR.constrain)(z)
        mean = jnp.stack([x["offset"], x["slope"]], axis=1) @ DESIGN.T
        values = mean + linear.NOISE * jax.random.normal(noise_key, mean.shape)
        return z, jnp.where(jnp.all(jax.random.key_data(key) == self.broken), jnp.nan, values)


@cache
def projected() -> ProjectedData:
    return leading_modes(np.random.default_rng(0).normal(size=(50, 2)) @ DESIGN.T)


class Kept:
    """Checkpoints in memory: all that were saved, and the one that is found."""

    def __init__(self, found: dict[str, np.ndarray] | None = None) -> None:
        self.found, self.saved = found, []

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        self.saved.append(arrays)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        return self.found


@cache
def trained() -> tuple[AmortisedPosterior, np.ndarray, Kept]:
    kept = Kept()
    return *train_amortised(Lines(), projected(), TRAINING, key=KEY, checkpoint=kept), kept


def moments(problem: Problem, **settings) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    calibrator = AmortisedCalibrator(trained()[0], draws=2000, **settings)
    found = calibrate(problem, calibrator, key=jax.random.key(1))
    mean, sd = (np.asarray([float(f(name)) for name in NAMES]) for f in (found.mean, found.sd))
    return mean, sd, found.diagnostics


@pytest.mark.slow
@pytest.mark.parametrize("truth", [(1.4, -0.2), (-1.5, 0.4)])
def test_one_network_serves_every_patient(truth):
    problem = linear.problem(3, truth)
    mean, covariance = linear.exact(problem)
    sd = np.sqrt(np.diag(covariance))
    raw_mean, raw_sd, raw = moments(problem, corrected=False)
    np.testing.assert_allclose((raw_mean - mean) / sd, 0.0, atol=0.3)
    np.testing.assert_allclose(raw_sd / sd, 1.0, atol=0.25)
    assert raw["inside"] == 1.0 and "k_hat" not in raw
    right_mean, right_sd, right = moments(problem)
    np.testing.assert_allclose((right_mean - mean) / sd, 0.0, atol=0.1)
    np.testing.assert_allclose(right_sd / sd, 1.0, atol=0.06)
    assert right["k_hat"] < 0.7 and right["ess"] > 1000 and right["sample_reliable"] == 1.0


@pytest.mark.slow
def test_the_loss_is_what_the_posterior_leaves_open():
    """The mean of -log q is, at best, the entropy of the posterior: in closed form for normal ones."""
    _, covariance = linear.exact(linear.problem())
    scale = linear.PRIOR_SD  # z is in units of the prior's spread
    best = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance / np.outer(scale, scale))[1]
    losses = trained()[1]
    assert losses.size == 3 and best - 0.06 < losses[-1] < best + 0.2
    assert losses[0] > losses[-1]


def test_data_that_were_never_simulated_are_flagged_and_corrected_or_called_unreliable():
    narrow, _ = train_amortised(Lines(highest=0.0), projected(), TRAINING, key=KEY)
    inside, beyond = linear.problem(3, (0.0, -0.5)), linear.problem(3, (6.5, -0.5))
    assert not narrow.outside(observed_values(inside))
    assert narrow.outside(observed_values(beyond))
    said = calibrate(beyond, AmortisedCalibrator(narrow, draws=500, rounds=0), key=jax.random.key(1)).diagnostics
    assert said["inside"] == 0.0 and said["sample_reliable"] == 0.0 and said["draws"] == 500
    # Twenty sds away no proposal gets there, and it says so.
    lost = calibrate(beyond, AmortisedCalibrator(narrow, draws=500, rounds=4), key=jax.random.key(1)).diagnostics
    assert lost["sample_reliable"] == 0.0 and lost["proposals"] == 5.0
    # A few sds away the network alone is wrong, and further proposals put it right.
    problem = linear.problem(3, (1.5, -0.5))
    mean, covariance = linear.exact(problem)
    sd = np.sqrt(np.diag(covariance))
    plain = calibrate(problem, AmortisedCalibrator(narrow, draws=500, rounds=0), key=jax.random.key(1)).diagnostics
    found = calibrate(problem, AmortisedCalibrator(narrow, draws=500), key=jax.random.key(1))
    assert plain["sample_reliable"] == 0.0 and found.diagnostics["sample_reliable"] == 1.0
    got = np.asarray([float(found.mean(name)) for name in NAMES])
    np.testing.assert_allclose((got - mean) / sd, 0.0, atol=0.12)
    np.testing.assert_allclose([float(found.sd(name)) for name in NAMES] / sd, 1.0, atol=0.12)


def test_a_correction_without_a_single_solve_is_an_error(monkeypatch):
    monkeypatch.setattr(_amortised_calibrator, "log_density_batch", lambda problem, rows: jnp.full(len(rows), -jnp.inf))
    with pytest.raises(FloatingPointError, match="received: 0 of 100; try"):
        calibrate(linear.problem(), AmortisedCalibrator(trained()[0], draws=100, chunk=50), key=KEY)


def test_a_correction_that_was_killed_ends_with_the_same_numbers():
    narrow, problem = trained()[0], linear.problem(3, (0.0, -0.5))
    calibrator = AmortisedCalibrator(narrow, draws=100, chunk=50, least_effective=200.0, rounds=3)
    kept = Kept()
    whole = calibrate(problem, calibrator, key=KEY, checkpoint=kept)
    assert whole.diagnostics["proposals"] > 1 and whole.diagnostics["draws"] == len(whole.weights.ravel()) > 100
    again = calibrate(problem, calibrator, key=KEY, checkpoint=Kept(kept.saved[2]))
    np.testing.assert_array_equal(whole.weights, again.weights)
    np.testing.assert_array_equal(whole.draws["slope"], again.draws["slope"])


def test_projected_data_hold_all_that_the_data_say():
    """Of a linear model with normal errors: two data sets with the same features have the same posterior."""
    features, problem = projected(), linear.problem()
    assert features.modes.shape == (2, 20)
    np.testing.assert_allclose(features.modes @ features.modes.T, np.eye(2), atol=1e-12)
    values = observed_values(problem)
    _, _, basis = np.linalg.svd(DESIGN.T)
    moved = values + 0.4 * basis[-1]  # at right angles to every mean that the model can have
    first, second = features(values), features(moved)
    np.testing.assert_allclose(first[:2], second[:2], atol=1e-12)
    apart = np.asarray(values) - np.asarray(features.center)
    rest = apart - features.modes.T @ (features.modes @ apart)
    assert float(first[2]) == pytest.approx(np.log(np.sqrt(np.mean(rest**2))))
    with pytest.raises(ValueError, match="1 not finite"):
        leading_modes(np.asarray([[0.0, 1.0], [np.nan, 1.0], [2.0, 1.0]]))


def test_one_program_trains_every_chunk():
    traced = []

    def simulate(key: Array) -> tuple[Array, Array]:
        traced.append(key)
        return Lines()(key)

    short = Training(steps=3, chunk=1, layers=1, width=4, depth=1)
    after = []
    train_amortised(simulate, projected(), short, key=KEY, progress=lambda step, steps: after.append(len(traced)))
    assert after[0] > 0 and after == [after[0]] * 3


def test_a_training_that_was_killed_ends_with_the_same_numbers():
    whole, losses, kept = trained()
    resumed, again = train_amortised(Lines(), projected(), TRAINING, key=KEY, checkpoint=Kept(kept.saved[1]))
    np.testing.assert_array_equal(losses, again)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        if eqx.is_array(one):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="received: one of another"):
        train_amortised(Lines(), projected(), TRAINING, key=jax.random.key(5), checkpoint=Kept(kept.saved[1]))


def test_data_that_are_not_finite_are_refused_with_their_batch():
    steps = jax.random.split(jax.random.fold_in(jax.random.fold_in(KEY, 2), 1), TRAINING.chunk)
    later = Kept(trained()[2].saved[0])  # from the second chunk on
    with pytest.raises(ValueError, match="on batch 302"):
        train_amortised(Lines(broken=jax.random.key_data(steps[2])), projected(), TRAINING, key=KEY, checkpoint=later)
    first = jax.random.split(jax.random.fold_in(KEY, 0), 8)[0]
    with pytest.raises(ValueError, match="in the pilot"):
        train_amortised(Lines(broken=jax.random.key_data(first)), projected(), TRAINING, key=KEY)


def test_a_network_of_other_parameters_is_refused():
    wrong = eqx.tree_at(lambda n: n.z_center, trained()[0], jnp.zeros(3))
    with pytest.raises(ValueError, match="required: a problem of 3 parameters"):
        calibrate(linear.problem(), AmortisedCalibrator(wrong), key=jax.random.key(0))
    with pytest.raises(ValueError, match="multiple of chunk"):
        AmortisedCalibrator(trained()[0], draws=100, chunk=33)


def noisy_problem(weight: float = 1.0) -> Problem:
    """The line with an unknown size of the noise, and one value that does not count."""
    given = linear.problem(weight=weight)
    both = {**given.prior.distributions, "observation.image.noise_sd": dist.LogNormal(jnp.log(0.3), 0.4)}
    data = (Datum(0.0, "image", np.zeros(5), np.asarray([1, 1, 0, 1, 1]), weight), *given.data[1:])
    return Problem(given.model, given.observations, Prior(both), data, given.solve)


@pytest.mark.slow
def test_batches_of_a_bank_are_those_of_the_model_with_noise_drawn_anew():
    problem = noisy_problem()
    z, predictions = simulation_bank(problem, 4096, chunk=1024, key=KEY)
    assert predictions.shape == (4096, 19)
    fresh = eqx.filter_jit(FreshSimulator(problem, 8192))(jax.random.key(1))
    banked = eqx.filter_jit(BankSimulator(problem, z, predictions, 8192))(jax.random.key(2))
    for one, other in zip(fresh, banked, strict=True):
        size = np.asarray(one).std(axis=0)
        np.testing.assert_allclose((one.mean(axis=0) - other.mean(axis=0)) / size, 0.0, atol=0.07)
        np.testing.assert_allclose(other.std(axis=0) / size, 1.0, atol=0.06)
    # The noise of a draw is the size that its own z says, not that of the member.
    rows = jax.vmap(lambda own: predicted_values(problem, counted(problem), own))(banked[0])
    sd = jax.vmap(problem.prior.constrain)(banked[0])["observation.image.noise_sd"]
    scaled = (banked[1] - rows) / sd[:, None]
    rms = np.sqrt(np.mean(np.square(scaled), axis=1))
    np.testing.assert_allclose(rms.mean(), stats.chi.mean(19) / np.sqrt(19), atol=0.01)
    assert np.corrcoef(np.abs(banked[1] - rows).mean(axis=1), sd)[0, 1] > 0.8


def test_a_bank_goes_on_where_it_was_and_refuses_what_it_cannot_hold():
    problem = noisy_problem()
    kept = Kept()
    whole = simulation_bank(problem, 60, chunk=20, key=KEY, checkpoint=kept)
    again = simulation_bank(problem, 60, chunk=20, key=KEY, checkpoint=Kept(kept.saved[0]))
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="weight 1"):
        FreshSimulator(noisy_problem(0.5))
    failing = eqx.tree_at(lambda p: p.solve, problem, lambda model, days: jnp.nan * linear.solve(model, days))
    with pytest.raises(ValueError, match="20 that failed, the first member 0"):
        simulation_bank(failing, 20, chunk=20, key=KEY)
