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


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """Draws [draw] of one patient: `curve` [draw, time] at the last known and the hidden days, and the log sd."""

    curve: np.ndarray
    noise: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """`shared` [node, shared] and `free` [virtual, 2], logs of the parameters, each equally likely beforehand."""

    shared: Float[np.ndarray, "node shared"]
    free: Float[np.ndarray, "virtual two"]


def design(nodes: int, virtual: int) -> Design:
    """Sobol points of the priors."""

    def points(priors: dict[str, tuple[float, float]], size: int) -> np.ndarray:
        unit = qmc.Sobol(len(priors), scramble=False).random(size) + 0.5 / size
        median, spread = np.array(list(priors.values())).T
        return np.log(median) + spread * norm.ppf(unit)

    return Design(points(SHARED, nodes), points(FREE, virtual))


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
        self.weight = np.exp(joint - np.asarray(logsumexp(joint)))

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
