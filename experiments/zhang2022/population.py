"""The population of the other patients: what all share, and how two parameters vary between them.

Free in a patient: the growth scale c (of both growth rates) and the resistant share at the first visit. Shared: the
sensitive share at the first visit, the competition, and the noise. Virtual patients on a fixed design cover both; each
real patient's likelihood of each virtual one is computed once, and leaving a patient out is then a sum without him.
"""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp
from scipy.stats import qmc

from experiments.zhang2022.bank import records
from experiments.zhang2022.visits import Visits
from tumortwin.models import SensitiveResistant

MONTH = 30.0  # [day]
SENSITIVE_RATE, RESISTANT_RATE = 0.0156, 0.0091  # [1/day] at growth scale 1 (Zhang et al. 2022)
REDUCTION = 0.95  # of the capacity under the drug (the same)
SCALES, SHARES = (0.1, 10.0), (1e-5, 0.3)  # what the design covers: growth scale; resistant share of the capacity
STARTS = (0.3, 0.45, 0.6)  # sensitive share of the capacity at the first visit
COMPETITIONS = (2.0, 4.0, 8.0)
NOISES = (0.05, 0.1, 0.2)  # of a reading, log sd
DRIFTS = (0.3, 0.45, 0.65)  # of the level, log sd in a month
MEMORIES = (180.0, 720.0, 2880.0)  # of the level [day]
FLOOR = 0.03  # of the first PSA: additive error, which decides for the lowest readings
ITERATIONS = 15  # of expectation-maximization
LEAST_VARIANCE = 0.02  # of a population of log values: none is narrower than some 15 %


class Noise(eqx.Module):
    """`noise` and `floor` of a reading, `drift` [1/sqrt(month)] and `memory` [day] of the level; scalars."""

    noise: Array
    drift: Array
    memory: Array
    floor: Array


class Filtered(eqx.Module):
    """Of every visit and virtual patient, once its reading is known: log-likelihood so far, mean and variance of the
    log level; and the variance of a reading about it. [visit, virtual] all."""

    log_likelihood: Float[Array, "visit virtual"]
    mean: Float[Array, "visit virtual"]
    variance: Float[Array, "visit virtual"]
    scatter: Float[Array, "visit virtual"]


def reading_variance(burden: Array, first: Array, error: Noise) -> Array:
    """Variance of a log reading about level + log burden: a share, and a floor that matters for a small burden."""
    return error.noise**2 + (error.floor * first / burden) ** 2


def level_step(elapsed: Array, error: Noise) -> tuple[Array, Array]:
    """What is kept of the level after `elapsed` [day], and the variance that is added."""
    kept = jnp.exp(-elapsed / error.memory)
    return kept, error.drift**2 * error.memory / (2 * MONTH) * (1.0 - kept**2)


@eqx.filter_jit
def filtered(
    burden: Float[Array, "visit virtual"],
    psa: Float[Array, " visit"],
    days: Float[Array, " visit"],
    valid: Float[Array, " visit"],
    error: Noise,
) -> Filtered:
    """Kalman filter of the level between a model's burden and the PSA, for every virtual patient at once.

    $$ \\log\\frac{y_j}{y_0} = \\log\\frac{f(t_j)}{f(t_0)} + \\ell_j + e_j, \\qquad
       d\\ell = -\\frac{\\ell}{T}\\,dt + \\tau\\,dW $$

    The unit of the PSA is that of the first reading, which is spent on it: neither a future maximum nor a third
    parameter is needed. The level carries what the last readings said about the model into the forecast, and is
    forgotten with T.
    """
    gap = jnp.log(psa / psa[0])[:, None] - jnp.log(burden / burden[:1])
    scatter = reading_variance(burden, burden[:1], error)

    def visit(
        now: tuple[Array, Array, Array], new: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
        mean, variance, total = now
        z, elapsed, of_reading, there = new
        kept, added = level_step(elapsed, error)
        mean, ahead = kept * mean, kept**2 * variance + added
        spread = ahead + of_reading
        gain = jnp.where(there > 0, ahead / spread, 0.0)
        miss = z - mean
        total += jnp.where(there > 0, -0.5 * (miss**2 / spread + jnp.log(2 * jnp.pi * spread)), 0.0)
        after = (mean + gain * miss, (1 - gain) * ahead, total)
        return after, after

    first = (gap[0], scatter[0], jnp.zeros_like(gap[0]))
    _, rest = jax.lax.scan(visit, first, (gap[1:], jnp.diff(days), scatter[1:], valid[1:]))
    mean, variance, total = (jnp.concatenate([a[None], b]) for a, b in zip(first, rest, strict=True))
    return Filtered(total, mean, variance, scatter)


@dataclasses.dataclass(frozen=True)
class Node:
    """One choice of what is shared."""

    start: float
    competition: float
    noise: float
    drift: float
    memory: float

    @property
    def error(self) -> Noise:
        """Its noise as arrays."""
        return Noise(*(jnp.asarray(x) for x in (self.noise, self.drift, self.memory, FLOOR)))


def nodes() -> list[Node]:
    """The design of what is shared."""
    return [Node(*choice) for choice in itertools.product(STARTS, COMPETITIONS, NOISES, DRIFTS, MEMORIES)]


def design(size: int) -> Float[np.ndarray, "virtual two"]:
    """Log growth scale and log resistant share of the virtual patients: a Sobol sequence over what is covered."""
    unit = qmc.Sobol(2, scramble=False).random(size) + 0.5 / size
    low, high = np.log(np.array([SCALES, SHARES])).T
    return low + (high - low) * unit


def virtual(points: Float[np.ndarray, "virtual two"], start: float, competition: float) -> SensitiveResistant:
    """The model of virtual patients, in units of the capacity."""
    scale, share = jnp.exp(jnp.asarray(points)).T
    return SensitiveResistant(
        jnp.full_like(scale, start),
        share,
        SENSITIVE_RATE * scale,
        RESISTANT_RATE * scale,
        jnp.asarray(competition),
        jnp.asarray(1.0),
        jnp.asarray(REDUCTION),
    )


@eqx.filter_jit
def _totals(model: SensitiveResistant, errors: Noise, days: Array, on: Array, psa: Array, valid: Array) -> Array:
    def one(days: Array, on: Array, psa: Array, valid: Array) -> Array:
        sensitive, resistant = records(model, days, on)
        each = lambda e: filtered(sensitive + resistant, psa, days, valid, e).log_likelihood[-1]  # noqa: E731
        return jax.lax.map(each, errors)

    return jax.lax.map(lambda a: one(*a), (days, on, psa, valid))


def likelihoods(
    visits: Visits, points: Float[np.ndarray, "virtual two"], advance: object = None
) -> Float[np.ndarray, "node patient virtual"]:
    """Log-likelihood of every patient's whole record under every virtual patient at every node."""
    arrays = [jnp.asarray(a, float) for a in (visits.days, visits.on, visits.psa, visits.valid)]
    noise, drift, memory = jnp.asarray(list(itertools.product(NOISES, DRIFTS, MEMORIES))).T
    errors = Noise(noise, drift, memory, jnp.full_like(noise, FLOOR))
    found = []
    for start, competition in itertools.product(STARTS, COMPETITIONS):
        totals = _totals(virtual(points, start, competition), errors, *arrays)
        found.append(np.asarray(totals).transpose(1, 0, 2))
        if callable(advance):
            advance()
    return np.concatenate(found)


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """`weight` [node]; of each node the `mean` [node, 2] and `covariance` [node, 2, 2] of the two log parameters."""

    weight: Float[np.ndarray, " node"]
    mean: Float[np.ndarray, "node two"]
    covariance: Float[np.ndarray, "node two two"]


def population(
    found: Float[np.ndarray, "node patient virtual"], points: Float[np.ndarray, "virtual two"]
) -> Population:
    """Maximum marginal likelihood of a normal population at each node, by expectation-maximization over the design; the
    nodes weighted by what they reach."""
    count = found.shape[0]
    mean = np.broadcast_to(points.mean(axis=0), (count, 2)).copy()
    covariance = np.broadcast_to(np.diag(points.var(axis=0)), (count, 2, 2)).copy()
    marginal = np.zeros(count)
    for _ in range(ITERATIONS):
        prior = log_prior(points, mean, covariance)
        joint = prior[:, None, :] + found
        each = np.asarray(logsumexp(joint, axis=2))
        marginal = each.sum(axis=1)
        share = np.exp(joint - each[..., None]).mean(axis=1)
        mean = share @ points
        centered = points[None] - mean[:, None]
        covariance = np.einsum("hv,hva,hvb->hab", share, centered, centered) + LEAST_VARIANCE * np.eye(2)
    return Population(np.exp(marginal - np.asarray(logsumexp(marginal))), mean, covariance)


def log_prior(points: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> Float[np.ndarray, "node virtual"]:
    """Log weight of every virtual patient under the population of each node; they sum to 1."""
    centered = points[None] - mean[:, None]
    distance = np.einsum("hva,hab,hvb->hv", centered, np.linalg.inv(covariance), centered)
    return -0.5 * distance - np.asarray(logsumexp(-0.5 * distance, axis=1, keepdims=True))
