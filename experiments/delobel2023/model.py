"""A framework persister model of low-grade glioma under temozolomide, and its posterior on a design of parameters.

It is `tumortwin.models.Persister` with a level that is constant within a course. It is not the model of the paper, and
the published fits used the volumes that are hidden here: no prior comes from them.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp
from scipy.stats import norm, qmc

from experiments.delobel2023.record import Records, padded
from tumortwin.models import Persister
from tumortwin.observation import LogNormalError
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import StepHistory

# Median and log sd. Free in each patient. Growth: the mean diameter of an untreated low-grade glioma grows by some 4 mm
# a year (Mandonnet et al., Ann. Neurol. 53 (2003) 524), in volume 3 x 4 / 42 a year at 42 mm (39 cm^3). Regrowth of
# what the drug has made resistant: a few times faster.
FREE = {"growth_rate": (0.0008, 0.6), "resistant_rate": (0.0024, 0.6)}  # [1/day]
# Shared. A course of a year kills or turns most sensitive cells: (0.3 + 0.15) x 365 x 5/28 / 8.318 = 3.5 in log; dying
# cells stay visible for months; persisters wake within months of the last
# dose, or become resistant.
SHARED = {
    "clearance_rate": (0.004, 0.5),  # [1/day]
    "kill_rate": (0.3, 0.5),  # [1/day at the level just after a dose]
    "persistence_rate": (0.15, 0.5),  # the same
    "resistance_rate": (0.1, 1.0),  # the same
    "reversion_rate": (0.02, 1.0),  # [1/day]
}
NOISES = (0.1, 0.16, 0.25)  # log sd of a volume: segmentation of FLAIR; and of what the model misses


LEAST_CARRIERS = 20.0  # nodes, of the next round's covariance: four times the dimension
WIDER = 1.5  # covariance of the next round over that of the weighted nodes


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """Draws [draw] of one patient: `curve` [draw, time] at the last known and the hidden days, and the log sd."""

    curve: np.ndarray
    noise: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """`shared` [node, 5] and `free` [virtual, 2], logs of the parameters. The free ones are equally likely beforehand;
    of the nodes `log_importance` [node] is the log ratio of the prior to what they were drawn from."""

    shared: Float[np.ndarray, "node shared"]
    free: Float[np.ndarray, "virtual two"]
    log_importance: Float[np.ndarray, " node"]


def _sobol(size: int, dimension: int) -> np.ndarray:
    """Normal quantiles of the first points of a Sobol sequence."""
    power = (size - 1).bit_length()
    unit = qmc.Sobol(dimension, scramble=False).random_base2(power) + 0.5 / 2**power
    return norm.ppf(unit[:size])


def _prior(priors: dict[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of the log parameters."""
    median, spread = np.array(list(priors.values())).T
    return np.log(median), spread


def design(nodes: int, virtual: int) -> Design:
    """Sobol points of the priors."""
    (center, spread), (free_center, free_spread) = _prior(SHARED), _prior(FREE)
    shared = center + spread * _sobol(nodes, center.size)
    free = free_center + free_spread * _sobol(virtual, free_center.size)
    return Design(shared, free, np.zeros(nodes))


def nearer(weighed: "Weighed", chosen: Design) -> Design:
    """As many nodes again, where the posterior is: four in five from a normal distribution about the weighted nodes,
    one in five from the prior, so that no ratio exceeds five.

    The weights are tempered until `LEAST_CARRIERS` nodes carry them: a few nodes know no covariance.

    **Reference:** Cappe, Guillin, Marin & Robert, J. Comput. Graph. Stat. 13 (2004) 907 (population Monte Carlo);
    Owen & Zhou, J. Am. Stat. Assoc. 95 (2000) 135 (defensive mixtures).
    """
    center, spread = _prior(SHARED)
    count, dimension = chosen.shared.shape
    weight = _tempered(weighed.log_weight, min(LEAST_CARRIERS, count / 2))
    mean = weight @ chosen.shared
    away = chosen.shared - mean
    covariance = WIDER * np.einsum("n,na,nb->ab", weight, away, away)
    of_prior = count // 5
    share = of_prior / count
    near = mean + _sobol(count - of_prior, dimension) @ np.linalg.cholesky(covariance).T
    shared = np.concatenate([near, center + spread * _sobol(of_prior, dimension)])
    log_prior = norm.logpdf(shared, center, spread).sum(axis=1)
    root = np.linalg.cholesky(covariance)
    unit = np.linalg.solve(root, (shared - mean).T).T
    log_about = norm.logpdf(unit).sum(axis=1) - np.log(np.diag(root)).sum()
    mixture = np.logaddexp(np.log(1.0 - share) + log_about, np.log(share) + log_prior)
    return Design(shared, chosen.free, log_prior - mixture)


def _tempered(log_weight: Float[np.ndarray, " node"], least: float) -> Float[np.ndarray, " node"]:
    """Weights to the largest power at most 1 with which at least so many nodes carry them."""
    for power in np.geomspace(1.0, 1e-3, 100):
        weight = np.exp(power * log_weight - np.asarray(logsumexp(power * log_weight)))
        if 1.0 / np.sum(weight**2) >= least:
            return weight
    return np.full(log_weight.size, 1.0 / log_weight.size)


@eqx.filter_jit
def _curves(shared: Array, free: Array, start: Array, times: Array, history: StepHistory) -> Array:
    """Volumes [node, patient, virtual, time]."""
    patients, count = start.size, free.shape[0]
    each = jnp.repeat(jnp.arange(patients), count)
    given = StepHistory(history.edges[each], history.levels[each])
    growth, regrowth = jnp.tile(jnp.exp(free), (patients, 1)).T

    def one(node: Array) -> Array:
        clearance, kill, persistence, resistance, reversion = jnp.exp(node)
        model = Persister(growth, regrowth, clearance, kill, persistence, resistance, start[each], reversion)
        burden = simulate_compartment(model, times[each], given).burden
        return burden.reshape(patients, count, -1)

    return jax.lax.map(one, shared)


class Weighed:
    """Every point of the design against the known volumes of all patients.

    The first volume is the start. With `carried` a forecast begins at the last known volume, not at the curve: it takes
    along what the model missed so far.
    """

    def __init__(self, records: Records, chosen: Design) -> None:
        self.records = records
        joined = [np.concatenate(pair) for pair in zip(records.known_days, records.hidden_days, strict=True)]
        times, _, _ = padded(joined, joined)
        start = jnp.asarray([volumes[0] for volumes in records.known])
        shared, free = jnp.asarray(chosen.shared), jnp.asarray(chosen.free)
        self.curves = np.asarray(_curves(shared, free, start, times, records.history))
        finite = np.isfinite(self.curves).all(axis=(2, 3))
        if not finite.all():
            raise ArithmeticError(f"required: volumes at every point; received: {(~finite).sum()} that are not finite")
        self.log_likelihood = np.stack([self._log_likelihood(noise) for noise in NOISES])
        each = np.asarray(logsumexp(self.log_likelihood, axis=3)) - np.log(chosen.free.shape[0])
        joint = each.sum(axis=2)
        joint += chosen.log_importance
        self.weight = np.exp(joint - np.asarray(logsumexp(joint)))
        self.log_weight = np.asarray(logsumexp(joint, axis=0))

    def _log_likelihood(self, noise: float) -> np.ndarray:
        """[node, patient, virtual] of the known volumes after the first."""
        error, found = LogNormalError(jnp.asarray(noise)), []
        for i, volumes in enumerate(self.records.known):
            curves = jnp.asarray(self.curves[:, i, :, 1 : volumes.size])
            seen = jnp.broadcast_to(jnp.asarray(volumes[1:]), curves.shape)
            found.append(np.asarray(error.log_likelihood(curves, seen, seen)).sum(axis=-1))
        return np.stack(found, axis=1)

    @property
    def effective(self) -> float:
        """How many points of what is shared carry the weight."""
        return float(1.0 / np.sum(self.weight.sum(axis=0) ** 2))

    def draws(self, patient: int, count: int, rng: np.random.Generator) -> Posterior:
        """Curves and noise of one patient given all known volumes of all."""
        within = self.log_likelihood[:, :, patient]
        within = np.exp(within - np.asarray(logsumexp(within, axis=2, keepdims=True)))
        joint = (self.weight[..., None] * within).ravel()
        position = (np.arange(count) + rng.uniform()) / count
        chosen = np.minimum(np.searchsorted(np.cumsum(joint), position), joint.size - 1)
        noise, node, virtual = np.unravel_index(rng.permutation(chosen), self.log_likelihood[:, :, patient].shape)
        return Posterior(self.curves[node, patient, virtual], np.asarray(NOISES)[noise])

    def forecast(self, patient: int, count: int, rng: np.random.Generator, *, carried: bool) -> np.ndarray:
        """Hidden volumes [draw, time] with their noise."""
        drawn, known = self.draws(patient, count, rng), self.records.known[patient]
        size, asked = known.size, self.records.hidden[patient].size
        future = drawn.curve[:, size : size + asked]
        noise = drawn.noise[:, None] * rng.standard_normal(future.shape)
        if carried:
            future = known[-1] * future / drawn.curve[:, size - 1 : size]
            noise = noise + drawn.noise[:, None] * rng.standard_normal((count, 1))
        return future * np.exp(noise)
