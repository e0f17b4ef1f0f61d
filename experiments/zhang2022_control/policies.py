"""Virtual patients under a rule at visits, for two classes of models; a patient is a weighting of them."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp
from scipy.stats import qmc

from experiments.zhang2022.bank import advance, records
from experiments.zhang2022.population import Node, design, filtered, population, virtual
from experiments.zhang2022.visits import Visits
from tumortwin.control import AbstractFeedbackPolicy, HysteresisPolicy
from tumortwin.models import IndependentClones, SensitiveResistant

VISIT = 28.0  # [day] between two decisions
HORIZON = 65  # visits: five years
PROGRESSION = 1.2  # of the first PSA (Gallagher et al. 2024)
START, DRIFT, MEMORY, NOISE = 0.45, 0.45, 720.0, 0.1  # middle of the design of experiments/zhang2022
STOPS, WIDTHS = (0.2, 0.35, 0.5, 0.65, 0.8, 1.0), (0.0, 0.2, 0.5)
NEVER = 1e-9  # a stop threshold that is never reached: continuous drug
# [1/day], [1/day], [1/day], [1]: growth and kill of sensitive cells, growth and share of resistant ones
CLONES = ((2e-3, 0.05), (5e-3, 0.2), (2e-4, 0.02), (1e-4, 0.5))

Cells = tuple[Array, Array]
Advance = Callable[[Cells, Array], Cells]


@dataclasses.dataclass(frozen=True, eq=False)
class Bank:
    """Of every virtual patient: time to progression [policy, virtual] in days, share of that time on the drug; and the
    posterior `weights` [patient, virtual]."""

    days: Float[np.ndarray, "policy virtual"]
    on: Float[np.ndarray, "policy virtual"]
    weights: Float[np.ndarray, "patient virtual"]


def policies() -> tuple[list[str], Array, Array]:
    """Names, stop and restart: continuous drug, the trial's rule, then all thresholds of the grid."""
    pairs = [(NEVER, 1.0), (0.5, 1.0)] + [(s, s + w) for s in STOPS for w in WIDTHS]
    names = ["continuous", "adaptive", *(f"stop_{a:g}_restart_{b:g}" for a, b in pairs[2:])]
    stop, restart = (jnp.asarray(column) for column in zip(*pairs, strict=True))
    return names, stop, restart


def followed(policy: AbstractFeedbackPolicy, cells: Cells, move: Advance) -> tuple[Array, Array]:
    """`(days, on)` [virtual]: to the first visit at which the PSA is above 1.2 of the first, or the horizon."""
    first = cells[0] + cells[1]

    def visit(now: tuple, _: None) -> tuple[tuple, None]:
        cells, memory, free, days, on = now
        memory, dose = jax.vmap(policy.decide)(memory, cells[0] + cells[1])
        days, on = days + VISIT * free, on + VISIT * free * dose
        cells = move(cells, dose)
        return (cells, memory, free * (cells[0] + cells[1] <= PROGRESSION * first), days, on), None

    zero = jnp.zeros_like(first)
    begun = (cells, jax.vmap(policy.start)(first), jnp.ones_like(first), zero, zero)
    (_, _, _, days, on), _ = jax.lax.scan(visit, begun, None, length=HORIZON)
    return days, on / days


@eqx.filter_jit
def _all(stop: Array, restart: Array, cells: Cells, move: Advance) -> tuple[Array, Array]:
    return jax.lax.map(lambda pair: followed(HysteresisPolicy(*pair), cells, move), (stop, restart))


def competition_bank(visits: Visits, competition: float, size: int) -> Bank:
    """Sensitive and resistant cells that compete (the planner's class)."""
    points = design(size)
    model = virtual(points, START, competition)
    curves = [records(model, jnp.asarray(d), jnp.asarray(o)) for d, o in zip(visits.days, visits.on, strict=True)]
    _, stop, restart = policies()
    cells = (jnp.broadcast_to(model.start_sensitive, (size,)), model.start_resistant)
    days, on = _all(stop, restart, cells, eqx.Partial(_compete, model))
    return Bank(np.asarray(days), np.asarray(on), _weights(visits, [s + r for s, r in curves], points))


def _compete(model: SensitiveResistant, cells: Cells, dose: Array) -> Cells:
    return advance(model, cells, jnp.asarray(VISIT), dose)


def clones_bank(visits: Visits, size: int) -> Bank:
    """Two clones that leave each other alone (another class), weighted by the same PSA."""
    low, high = np.log(np.array(CLONES)).T
    points = low + (high - low) * (qmc.Sobol(4, scramble=False).random(size) + 0.5 / size)
    growth, kill, resistant, share = jnp.exp(jnp.asarray(points)).T
    model = IndependentClones(growth, kill, resistant, share)
    curves = [_clone_record(model, jnp.asarray(d), jnp.asarray(o)) for d, o in zip(visits.days, visits.on, strict=True)]
    _, stop, restart = policies()
    days, on = _all(stop, restart, (1.0 - share, share), eqx.Partial(_separate, model, duration=jnp.asarray(VISIT)))
    return Bank(np.asarray(days), np.asarray(on), _weights(visits, curves, points))


def _separate(model: IndependentClones, cells: Cells, dose: Array, duration: Array) -> Cells:
    sensitive = cells[0] * jnp.exp((model.growth_rate - model.drug_kill * dose) * duration)
    return sensitive, cells[1] * jnp.exp(model.resistant_rate * duration)


@eqx.filter_jit
def _clone_record(model: IndependentClones, days: Array, on: Array) -> Float[Array, "visit virtual"]:
    first = (1.0 - model.resistant_share, model.resistant_share)

    def visit(cells: Cells, interval: tuple[Array, Array]) -> tuple[Cells, Array]:
        after = _separate(model, cells, interval[1], interval[0])
        return after, after[0] + after[1]

    _, later = jax.lax.scan(visit, first, (jnp.diff(days), on[:-1]))
    return jnp.concatenate([jnp.ones((1, later.shape[1])), later])


def _weights(visits: Visits, curves: list[Array], points: np.ndarray) -> Float[np.ndarray, "patient virtual"]:
    """Posterior of every patient: the noise of experiments/zhang2022, the population by expectation-maximization."""
    error = Node(START, 1.0, NOISE, DRIFT, MEMORY).error
    found = []
    for i, curve in enumerate(curves):
        psa, days, valid = (jnp.asarray(a[i], float) for a in (visits.psa, visits.days, visits.valid))
        burden = jnp.maximum(curve, 1e-12)
        found.append(np.asarray(filtered(burden, psa, days, valid, error).log_likelihood[-1]))
    likelihood = np.array(found)
    if points.shape[1] == 2:
        learned = population(likelihood[None], points)
        away = points - learned.mean[0]
        likelihood = likelihood - 0.5 * np.einsum("va,ab,vb->v", away, np.linalg.inv(learned.covariance[0]), away)
    return np.exp(likelihood - np.asarray(logsumexp(likelihood, axis=1, keepdims=True)))
