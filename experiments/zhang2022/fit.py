"""The fit: two free parameters a patient, (S0, R0), to the PSA over the patient's maximum, in true days.

It uses the whole record and its maximum. It says what the equations can follow, not what they foresee.
"""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.zhang2022.bank import records
from experiments.zhang2022.population import REDUCTION, RESISTANT_RATE, SENSITIVE_RATE
from experiments.zhang2022.visits import Visits
from tumortwin.models import SensitiveResistant
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import StepHistory

GROWTH_SCALES = (1.0, 7.0 / 6.0, 4.0 / 3.0)  # shared; true days of the published fit: 8 / 6
COMPETITIONS = (2.0, 4.0, 6.0, 8.0)  # shared; published: 6
LEAST, MOST = 1e-4, 1.0  # S0 and R0 over the capacity (published bounds: 1 to 10 000 of 10 000)
COARSE, FINE, ROUNDS = 24, 11, 4


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """`start` [patient, 2]: S0, R0; the shared `growth_scale` and `competition`; `curve` and `rmse` of the PSA over its
    maximum by the adaptive solver; `difference`: the largest of its curve and the split one."""

    start: np.ndarray
    growth_scale: float
    competition: float
    curve: np.ndarray
    rmse: np.ndarray
    difference: float


def fit(visits: Visits) -> Fit:
    """The best shared pair on a small grid, then each patient's (S0, R0) on grids that shrink about the best."""
    axis = np.linspace(np.log(LEAST), np.log(MOST), COARSE)
    coarse = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    everyone = np.broadcast_to(coarse, (len(visits.names), *coarse.shape))
    found = {
        pair: np.asarray(_errors(visits, everyone, *pair)) for pair in itertools.product(GROWTH_SCALES, COMPETITIONS)
    }
    pair = min(found, key=lambda shared: found[shared].min(axis=1).mean())
    best = coarse[found[pair].argmin(axis=1)]
    width = axis[1] - axis[0]
    for _ in range(ROUNDS):
        offsets = np.linspace(-width, width, FINE)
        near = best[:, None] + np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 2)
        near = np.clip(near, np.log(LEAST), np.log(MOST))  # the bounds of the search
        best = near[np.arange(len(near)), np.asarray(_errors(visits, near, *pair)).argmin(axis=1)]
        width = 2.0 * width / (FINE - 1)
    return _finished(visits, best, *pair)


def _finished(visits: Visits, best: np.ndarray, growth_scale: float, competition: float) -> Fit:
    """What is reported comes from the adaptive solver."""
    edges = jnp.asarray(visits.days)
    history = StepHistory(edges, jnp.concatenate([jnp.zeros_like(edges[:, :1]), jnp.asarray(visits.on)], axis=1))
    solved = eqx.filter_jit(simulate_compartment)(model_of(best, growth_scale, competition), edges, history)
    if not bool(solved.succeeded.all()):
        raise ArithmeticError(f"required: a solution for every patient; received: {solved.result}")
    curve = _relative(np.asarray(solved.burden), visits.valid)
    split = np.asarray(_curves(visits, best[:, None], growth_scale, competition))[..., 0]
    rmse = np.sqrt(np.sum(np.where(visits.valid, curve - visits.relative, 0.0) ** 2, axis=1) / visits.counts)
    difference = np.abs(np.where(visits.valid, curve - _relative(split, visits.valid), 0.0)).max()
    return Fit(np.exp(best), growth_scale, competition, curve, rmse, float(difference))


def model_of(log_start: np.ndarray | Array, growth_scale: float, competition: float) -> SensitiveResistant:
    """The published model in units of its capacity."""
    start = jnp.exp(jnp.asarray(log_start))
    return SensitiveResistant(
        start[..., 0],
        start[..., 1],
        jnp.asarray(SENSITIVE_RATE * growth_scale),
        jnp.asarray(RESISTANT_RATE * growth_scale),
        jnp.asarray(competition),
        jnp.asarray(1.0),
        jnp.asarray(REDUCTION),
    )


def _relative(burden: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return burden / np.where(valid, burden, 0.0).max(axis=1, keepdims=True)


def _curves(
    visits: Visits, points: Float[np.ndarray, "patient virtual two"], growth_scale: float, competition: float
) -> Float[Array, "patient visit virtual"]:
    return _records_of_all(
        jnp.asarray(points), jnp.asarray(visits.days), jnp.asarray(visits.on), jnp.asarray([growth_scale, competition])
    )


@eqx.filter_jit
def _records_of_all(points: Array, days: Array, on: Array, shared: Array) -> Array:
    def one(patient: tuple[Array, Array, Array]) -> Array:
        start, when, drug = patient
        scale = jnp.broadcast_to(shared[0], start.shape[:1])
        model = SensitiveResistant(
            jnp.exp(start[:, 0]),
            jnp.exp(start[:, 1]),
            SENSITIVE_RATE * scale,
            RESISTANT_RATE * scale,
            shared[1],
            jnp.asarray(1.0),
            jnp.asarray(REDUCTION),
        )
        sensitive, resistant = records(model, when, drug)
        return sensitive + resistant

    return jax.lax.map(one, (points, days, on))


def _errors(visits: Visits, points: np.ndarray, growth_scale: float, competition: float) -> np.ndarray:
    """RMSE [patient, virtual] of the PSA over the maximum."""
    curve = np.asarray(_curves(visits, points, growth_scale, competition))
    valid = visits.valid[..., None]
    relative = curve / np.where(valid, curve, 0.0).max(axis=1, keepdims=True)
    squares = np.where(valid, relative - visits.relative[..., None], 0.0) ** 2
    return np.sqrt(squares.sum(axis=1) / visits.counts[:, None])
