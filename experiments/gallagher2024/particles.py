"""What is known of a patient at a visit: particles over (rS, rR, R0), weighed by the readings, renewed by moves."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.gallagher2024.population import VISIT, log_prior, tumors
from experiments.gallagher2024.tumor import State, held

STEPS = 2  # Runge-Kutta steps an interval
MOVES = 2  # Metropolis moves after a resampling
STEP = 2.38**2 / 3.0  # of a random walk in three dimensions


class Particles(NamedTuple):
    """Logs of the parameters, the state that each has reached, and log weights, of every patient."""

    theta: Float[Array, "patient particle parameter"]
    state: State
    log_weight: Float[Array, "patient particle"]


class Record(NamedTuple):
    """What was given and read so far: `dose` in the interval from a visit, `reading` (ln of the measured burden) at its
    end, and `information`, one over the variance of ln (0: nothing is learned)."""

    dose: Float[Array, "patient visit"]
    reading: Float[Array, "patient visit"]
    information: Float[Array, ""]


def started(theta: Float[Array, "particle parameter"], patients: int) -> Particles:
    """The same particles of the prior for every patient."""
    every = jnp.broadcast_to(theta, (patients, *theta.shape))
    return Particles(every, tumors(every).initial(), jnp.zeros(every.shape[:2], theta.dtype))


def effective(particles: Particles) -> Float[Array, " patient"]:
    """Effective number of particles."""
    share = jax.nn.softmax(particles.log_weight, axis=1)
    return 1.0 / jnp.sum(share**2, axis=1)


def _gain(state: State, reading: Array, information: Array) -> Array:
    off = reading[:, None] - jnp.log(state.sensitive + state.resistant)
    return jnp.where(information > 0.0, -0.5 * information * off**2, 0.0)


@eqx.filter_jit
def learned(particles: Particles, record: Record, visit: Array) -> Particles:
    """One interval on: the states under the dose that was given, the weights by the reading at its end."""
    model = tumors(particles.theta)
    state, _ = held(model, particles.state, record.dose[:, visit][:, None], days=VISIT, steps=STEPS)
    gain = _gain(state, record.reading[:, visit], record.information)
    return Particles(particles.theta, state, particles.log_weight + gain)


def _history(theta: Array, record: Record, visits: Array) -> tuple[State, Array]:
    """The state after the first `visits` intervals and the log posterior there."""
    model = tumors(theta)

    def interval(k: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, fit = carry
        state, _ = held(model, state, record.dose[:, k][:, None], days=VISIT, steps=STEPS)
        return state, fit + _gain(state, record.reading[:, k], record.information)

    return jax.lax.fori_loop(0, visits, interval, (model.initial(), log_prior(theta)))


def resampled(log_weight: Float[Array, "patient particle"], n: int, start: Array) -> Array:
    """Systematic resampling: indices [patient n] of equally weighted particles; `start` in [0, 1)."""
    share = jnp.cumsum(jax.nn.softmax(log_weight, axis=1), axis=1)
    at = (jnp.arange(n) + start) / n * share[:, -1:]
    return jnp.minimum(jax.vmap(jnp.searchsorted)(share, at), log_weight.shape[1] - 1)


def picked(particles: Particles, index: Array) -> tuple[Array, State]:
    """Parameters and states of the particles at `index` [patient n]."""
    theta = jnp.take_along_axis(particles.theta, index[..., None], axis=1)
    return theta, jax.tree.map(lambda leaf: jnp.take_along_axis(leaf, index, axis=1), particles.state)


@eqx.filter_jit
def renewed(particles: Particles, record: Record, visits: Array, key: Array) -> Particles:
    """Where fewer than half of the particles are effective: resampled, and moved by Metropolis steps that leave the
    posterior given all `visits` readings as it is. The random numbers are the same for all patients."""
    weak = effective(particles) < 0.5 * particles.theta.shape[1]
    start_key, *keys = jax.random.split(key, 1 + MOVES)
    share = jax.nn.softmax(particles.log_weight, axis=1)
    center = jnp.einsum("pm,pmi->pi", share, particles.theta)
    off = particles.theta - center[:, None]
    spread = jnp.einsum("pm,pmi,pmj->pij", share, off, off)
    root = jnp.linalg.cholesky(STEP * spread + 1e-9 * jnp.eye(3, dtype=off.dtype))
    index = resampled(particles.log_weight, off.shape[1], jax.random.uniform(start_key, dtype=off.dtype))
    theta, state = picked(particles, index)
    _, fit = _history(theta, record, visits)
    for move_key in keys:
        normal_key, accept_key = jax.random.split(move_key)
        step = jax.random.normal(normal_key, off.shape[1:], off.dtype)
        proposed = theta + jnp.einsum("pij,mj->pmi", root, step)
        reached, value = _history(proposed, record, visits)
        taken = jnp.log(jax.random.uniform(accept_key, off.shape[1:2], off.dtype)) < value - fit
        theta = jnp.where(taken[..., None], proposed, theta)
        state = jax.tree.map(lambda a, b, t=taken: jnp.where(t, a, b), reached, state)
        fit = jnp.where(taken, value, fit)
    new = Particles(theta, state, jnp.zeros_like(particles.log_weight))

    def chosen(a: Array, b: Array) -> Array:
        return jnp.where(weak.reshape(-1, *([1] * (a.ndim - 1))), a, b)

    return jax.tree.map(chosen, new, particles)
