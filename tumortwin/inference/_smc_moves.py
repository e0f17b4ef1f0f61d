"""Metropolis kernels that move all particles at once, in the coordinates of their own covariance."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.inference._problem import AbstractProblem

DEGREES = 5.0  # of the independent proposal: heavier tails than the particles
WIDER = 1.1  # and a little wider
# A scale changes by at most a factor e for a sweep that accepts all or nothing more than wanted.
GAIN = 1.0
SPREAD_OF_STEPS = 0.2  # of the leapfrog steps between sweeps, so that no orbit closes


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The acceptance at which a scale stops changing, and where it starts for `p` parameters."""

    acceptance: float
    first_scale: Callable[[int], float]


# Roberts & Rosenthal (2001), Stat. Sci. 16:351, for the first; Beskos et al. (2013), Bernoulli 19:1501, for the last.
KERNELS = {
    "random_walk": Kernel(0.234, lambda p: 2.38 / p**0.5),
    "independent": Kernel(1.0, lambda p: 1.0),
    "hmc": Kernel(0.8, lambda p: 0.7 / p**0.25),
}


class Moves(eqx.Module):
    """The target of a rejuvenation (`exponents` [term]) and its coordinates, `z = mean + factor x`.

    `origin` [particle parameter]: where the particles were; they move until their correlation with it is below
    `enough` in every coordinate.
    """

    exponents: Float[Array, " term"]
    mean: Float[Array, " parameter"]
    factor: Float[Array, "parameter parameter"]
    origin: Float[Array, "particle parameter"]
    enough: Float[Array, ""]


class Moved(NamedTuple):
    """Particles after some sweeps."""

    z: Array
    scale: Array
    acceptance: Array
    correlation: Array
    sweeps: Array


@eqx.filter_jit
def log_terms_of(problem: AbstractProblem, vectorized: bool, z: Array) -> Array:
    """The log-likelihood [particle, term]; NaN where the model failed."""
    return jax.vmap(problem.log_terms)(z) if vectorized else jax.lax.map(problem.log_terms, z)


def tempered(problem: AbstractProblem, exponents: Array, z: Array) -> Array:
    """Log of prior x terms to their exponents; -inf where the model fails on a term that counts."""
    terms = problem.log_terms(z)
    counted = exponents > 0
    value = problem.log_prior(z) + jnp.sum(jnp.where(counted, exponents * jnp.where(counted, terms, 0.0), 0.0))
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)


@eqx.filter_jit
def moved(
    problem: AbstractProblem,
    settings: tuple[str, int, bool],
    given: Moves,
    z: Array,
    scale: Array,
    limit: Array,
    key: Array,
) -> Moved:
    """At most `limit` sweeps of all particles (Metropolis, so that the target stays), the scale adapted after each.

    **Arguments:** `settings`: kernel, leapfrog steps, whether particles move side by side.
    """
    name, leapfrog, vectorized = settings

    def target(x: Array) -> Array:
        return tempered(problem, given.exponents, given.mean + given.factor @ x)

    proposer = {"random_walk": _walk, "independent": _independent, "hmc": _hamiltonian}[name]

    def one(x: Array, value: Array, step: Array, particle_key: Array) -> tuple[Array, Array, Array]:
        propose_key, accept_key = jax.random.split(particle_key)
        there, found, log_ratio = proposer(target, x, value, step, leapfrog, propose_key)
        chance = jnp.where(jnp.isfinite(found), jnp.minimum(jnp.exp(jnp.minimum(log_ratio, 0.0)), 1.0), 0.0)
        chance = jnp.where(jnp.isnan(chance), 0.0, chance)
        accepted = jax.random.uniform(accept_key) < chance
        return jnp.where(accepted, there, x), jnp.where(accepted, found, value), chance

    def map_all(function: Any, *arrays: Array) -> Any:
        return jax.vmap(function)(*arrays) if vectorized else jax.lax.map(lambda row: function(*row), arrays)

    def sweep(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        x, values, step, _, _, done, now = carry
        now, jitter_key, move_key = jax.random.split(now, 3)
        jittered = step * (1 + SPREAD_OF_STEPS * jax.random.uniform(jitter_key, minval=-1.0)) if name == "hmc" else step
        x, values, chance = map_all(
            lambda *row: one(row[0], row[1], jittered, row[2]), x, values, jax.random.split(move_key, x.shape[0])
        )
        accepted = jnp.mean(chance)
        step = step * jnp.exp(GAIN * (accepted - KERNELS[name].acceptance)) if name != "independent" else step
        return x, values, step, accepted, _largest_correlation(start, x), done + 1, now

    def going(carry: tuple[Array, ...]) -> Array:
        return (carry[5] < limit) & ((carry[4] >= given.enough) | (carry[5] == 0))

    start = _whitened(given, given.origin)
    x = _whitened(given, z)
    values = map_all(target, x)
    first = (x, values, scale, jnp.ones(()), jnp.ones(()), jnp.zeros((), int), key)
    x, _, scale, accepted, correlation, sweeps, _ = jax.lax.while_loop(going, sweep, first)
    return Moved(given.mean[None] + x @ given.factor.T, scale, accepted, correlation, sweeps)


def _whitened(given: Moves, z: Array) -> Array:
    return jax.scipy.linalg.solve_triangular(given.factor, (z - given.mean[None]).T, lower=True).T


def _largest_correlation(before: Array, after: Array) -> Array:
    """The largest correlation over coordinates between two positions of the particles."""
    a, b = before - jnp.mean(before, axis=0)[None], after - jnp.mean(after, axis=0)[None]
    spread = jnp.sqrt(jnp.sum(a**2, axis=0) * jnp.sum(b**2, axis=0))
    return jnp.max(jnp.sum(a * b, axis=0) / jnp.where(spread > 0, spread, 1.0))


Target = Callable[[Array], Array]
Proposed = tuple[Array, Array, Array]


def _walk(target: Target, x: Array, value: Array, step: Array, _: int, key: Array) -> Proposed:
    there = x + step * jax.random.normal(key, x.shape)
    found = target(there)
    return there, found, found - value


def _independent(target: Target, x: Array, value: Array, step: Array, _: int, key: Array) -> Proposed:
    """A Student-t about the particles' mean, whatever `x` is."""
    del step
    normal_key, chi_key = jax.random.split(key)
    chi = 2 * jax.random.gamma(chi_key, DEGREES / 2)
    there = WIDER * jax.random.normal(normal_key, x.shape) * jnp.sqrt(DEGREES / chi)
    found = target(there)
    return there, found, found - value + _log_student(x) - _log_student(there)


def _log_student(x: Array) -> Array:
    return -0.5 * (DEGREES + x.size) * jnp.log1p(jnp.sum((x / WIDER) ** 2) / DEGREES)


def _hamiltonian(target: Target, x: Array, value: Array, step: Array, leapfrog: int, key: Array) -> Proposed:
    """`leapfrog` steps with identity mass (the coordinates are white)."""
    slope = jax.grad(target)
    momentum = jax.random.normal(key, x.shape)

    def leap(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        place, speed, force = carry
        speed = speed + 0.5 * step * force
        place = place + step * speed
        force = slope(place)
        return (place, speed + 0.5 * step * force, force), None

    (there, speed, _), _ = jax.lax.scan(leap, (x, momentum, slope(x)), None, length=leapfrog)
    found = target(there)
    return there, found, found - value - 0.5 * (jnp.sum(speed**2) - jnp.sum(momentum**2))
