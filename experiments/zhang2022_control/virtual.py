"""Virtual patients of two classes of models, and what each real patient's record says of them.

A posterior is a weighting of virtual patients by the whole record of PSA (noise: that of `experiments/zhang2022`). One
half of the virtual patients is there for planning, the other for judging: no plan is judged on what it was chosen with.
The first and the second half of a Sobol sequence each cover the whole range (every second point does not).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp
from scipy.stats import qmc

from experiments.zhang2022.bank import advance
from experiments.zhang2022.population import Node, design, filtered, population, virtual
from experiments.zhang2022.visits import Visits
from tumortwin.models import ClonesState, IndependentClones, SensitiveResistant

START, DRIFT, MEMORY, NOISE = 0.45, 0.45, 720.0, 0.1  # middle of the design of experiments/zhang2022
# [1/day], [1/day], [1/day], [1]: growth and kill of sensitive cells, growth and share of resistant ones
CLONES = ((2e-3, 0.05), (5e-3, 0.2), (2e-4, 0.02), (1e-4, 0.5))
SUBSTEPS = 24  # between two visits

Model = SensitiveResistant | IndependentClones
Cells = tuple[Array, Array]


def started(model: Model) -> Cells:
    """Sensitive and resistant cells at the first visit."""
    first = model.initial()
    return first.sensitive, first.resistant


def moved(model: Model, cells: Cells, dose: Array, duration: Array, substeps: int = SUBSTEPS) -> Cells:
    """The cells `duration` [day] later, elementwise."""
    if isinstance(model, SensitiveResistant):
        return advance(model, cells, duration, dose, substeps)
    later = model.advance(ClonesState(*cells), duration, dose)
    return later.sensitive, later.resistant


@dataclasses.dataclass(frozen=True, eq=False)
class Bank:
    """A class of models: virtual patients (leaves [virtual]) and the `weights` [patient virtual] of every patient."""

    model: Model
    weights: Float[np.ndarray, "patient virtual"]

    def half(self, which: int) -> "Bank":
        """One half of the virtual patients: 0 for planning, 1 for judging."""
        size = self.weights.shape[1] // 2
        part = slice(which * size, (which + 1) * size)
        weights = self.weights[:, part]
        return Bank(jax.tree.map(lambda leaf: leaf[part], self.model), weights / weights.sum(axis=1, keepdims=True))

    @property
    def effective(self) -> Float[np.ndarray, " patient"]:
        """Effective number of virtual patients of each patient."""
        return 1.0 / np.sum(self.weights**2, axis=1)

    def drawn(self, patient: int, count: int) -> Model:
        """`count` equally weighted virtual patients of a posterior, without chance."""
        at = (np.arange(count) + 0.5) / count
        share = np.cumsum(self.weights[patient])
        chosen = np.minimum(np.searchsorted(share, at * share[-1]), share.size - 1)
        return jax.tree.map(lambda leaf: leaf[chosen], self.model)


def competition(visits: Visits, strength: float, size: int) -> Bank:
    """Sensitive and resistant cells that compete (the planner's class); the population by expectation-maximization."""
    points = design(size)
    model = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size,)), virtual(points, START, strength))
    likelihood = _likelihood(visits, model)
    learned = population(likelihood[None], points)
    away = points - learned.mean[0]
    prior = -0.5 * np.einsum("va,ab,vb->v", away, np.linalg.inv(learned.covariance[0]), away)
    return Bank(model, _weights(likelihood + prior))


def clones(visits: Visits, size: int) -> Bank:
    """Two clones that leave each other alone (another class), by the same PSA and a flat prior."""
    low, high = np.log(np.array(CLONES)).T
    points = low + (high - low) * (qmc.Sobol(4, scramble=False).random(size) + 0.5 / size)
    growth, kill, resistant, share = jnp.exp(jnp.asarray(points)).T
    model = IndependentClones(growth, kill, resistant, share, jnp.ones(size))
    return Bank(model, _weights(_likelihood(visits, model)))


@eqx.filter_jit
def record(model: Model, days: Float[Array, " visit"], on: Float[Array, " visit"]) -> Float[Array, "visit virtual"]:
    """Burden of virtual patients at one patient's visits, under his drug."""
    first = started(model)

    def visit(cells: Cells, interval: tuple[Array, Array]) -> tuple[Cells, Array]:
        after = moved(model, cells, interval[1], interval[0])
        return after, after[0] + after[1]

    _, later = jax.lax.scan(visit, first, (jnp.diff(days), on[:-1]))
    return jnp.concatenate([(first[0] + first[1])[None], later])


def _likelihood(visits: Visits, model: Model) -> Float[np.ndarray, "patient virtual"]:
    error = Node(START, 1.0, NOISE, DRIFT, MEMORY).error
    found = []
    for i in range(len(visits.names)):
        psa, days, on, valid = (jnp.asarray(a[i], float) for a in (visits.psa, visits.days, visits.on, visits.valid))
        burden = jnp.maximum(record(model, days, on), 1e-12)
        found.append(np.asarray(filtered(burden, psa, days, valid, error).log_likelihood[-1]))
    return np.array(found)


def _weights(log_weight: Float[np.ndarray, "patient virtual"]) -> Float[np.ndarray, "patient virtual"]:
    return np.exp(log_weight - np.asarray(logsumexp(log_weight, axis=1, keepdims=True)))
