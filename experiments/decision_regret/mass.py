"""Mechanism, network and hybrid without space: the mass of the tumor alone, learned from the surrogate's own training.

A kill is the same in every voxel, so its effect on the mass is exact: M -> M e^{-kill}. What the mass does not know is
the growth, rho int u (1 - u): that depends on the front. The mechanism has logistic growth there, the hybrid a network
on it, the network nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.hybrid_ablation.learned import Forecaster, all_kinds, predicted
from experiments.hybrid_ablation.rows import NETWORK, Law, Rows
from tumortwin.cli_train_reduced import TrainingCase
from tumortwin.inference import Checkpoint, Training
from tumortwin.models import Exponential, InputRange, Logistic, Network, PerCapitaClosure, RelativeClosure
from tumortwin.params import get_parameter, set_parameters
from tumortwin.surrogates import Samples
from tumortwin.treatments import Schedule

D, RHO = "mechanisms.diffusion.white_matter", "mechanisms.proliferation.rate"
TOLERANCE = 0.02  # of the logarithm of a mass
LARGEST_RATE = 0.2  # [1/day] that the network alone may say
Learned = tuple[Forecaster, dict[str, Array]]


def kills(case: TrainingCase, values: Mapping[str, np.ndarray], schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Days and log-kills [draw event]: every fraction, and every dose of the drug as if it acted at once."""
    times, found = [], []
    for row in range(len(values[RHO])):
        model: Any = set_parameters(case.model, {p: jnp.asarray(v[row]) for p, v in values.items()})
        drug = model.mechanisms["chemotherapy"]
        given = schedule.drugs[drug.drug]
        radiation = model.mechanisms["radiotherapy"].log_kill(schedule.radiotherapy.doses)
        each = drug.sensitivity * given.doses / drug.elimination_rate
        times.append(np.concatenate([schedule.radiotherapy.times, given.times]))
        found.append(np.concatenate([radiation, each]))
    return np.asarray(times), np.asarray(found)


def rows_of(
    case: TrainingCase,
    values: Mapping[str, np.ndarray],
    schedule: Schedule,
    days: Iterable[float],
    mass: Float[np.ndarray, "draw time"] | None,
) -> Rows:
    """The tumors of some draws under one schedule; `mass` [mm^3] where it is known."""
    tissue = case.model.tissue
    cell = tissue.grid.cell_volume
    count, asked = len(values[RHO]), np.asarray(list(days))
    start = float(np.asarray(case.model.initial.state(tissue).density).sum() * cell)
    room = float(np.asarray(tissue.domain.mask).sum() * cell)
    shape = (count, asked.size)
    seen = np.zeros(shape) if mass is None else np.log(mass)
    given_days, given = kills(case, values, schedule)
    middle = {p: float(np.asarray(get_parameter(case.model, p))) for p in (D, RHO)}
    features = np.stack([np.log(values[p] / middle[p]) for p in (D, RHO)], axis=1)
    own = np.stack([values[RHO], np.full(count, room)], axis=1)
    return Rows(
        np.full(count, start), np.broadcast_to(asked, shape), seen, np.full(shape, float(mass is not None)),
        given_days, given, np.zeros(count), own, features,
    )  # fmt: skip


def learn_masses(
    case: TrainingCase, samples: Iterable[Samples], settings: Training, *, key: Array, checkpoint: Checkpoint | None
) -> dict[str, Learned]:
    """Mechanism, network and hybrid from the masses of the training samples."""
    cell = case.model.tissue.grid.cell_volume
    parts, values = [], []
    for found in samples:
        parts.append(found.density[found.succeeded].sum(axis=(2, 3, 4), dtype=float) * cell)
        values.append({p: np.asarray(v)[found.succeeded] for p, v in found.design.values.items()})
        days = found.days
    drawn = {p: np.concatenate([v[p] for v in values]) for p in values[0]}
    rows = rows_of(case, drawn, case.schedule, days, np.concatenate(parts))
    names = np.array([f"{i:04d}" for i in range(len(rows.start))])
    return all_kinds(law_of(rows), rows, names, settings, key=key, checkpoint=checkpoint, name="mass")


def law_of(rows: Rows) -> Law:
    """The law of a mass in a box of tissue; the network is told the logarithms of D and rho."""
    lowest, room = float(np.exp(rows.seen.min())), float(rows.own[0, 1])
    inputs = InputRange.of([lowest], [room])

    def closure(kind: str, key: Array) -> Any:
        net = Network.create(3, 1, 16, 2, key=key)
        if kind == NETWORK:
            return PerCapitaClosure(net, inputs, jnp.asarray(LARGEST_RATE))
        return RelativeClosure(net, inputs, jnp.asarray(0.95))

    return Law(2, _mechanism, _blank, closure, 1, TOLERANCE, _hold, 32)


def _mechanism(z: Array, rows: Rows) -> Logistic:
    """Logistic growth at the tumor's own rho, up to a box full of cells; both known to half a logarithm."""
    own, scale = jnp.asarray(rows.own), jnp.exp(0.5 * z)
    return Logistic(own[:, 0] * scale[0], own[:, 1] * scale[1], jnp.asarray(rows.start))


def _blank(rows: Rows) -> Exponential:
    return Exponential(jnp.zeros_like(jnp.asarray(rows.start)), jnp.asarray(rows.start))


def _hold(burden: Array) -> Array:
    return jnp.log(burden)


def log_masses(
    case: TrainingCase, learned: Learned, values: Mapping[str, np.ndarray], schedule: Schedule
) -> Float[np.ndarray, "draw day"]:
    """Logarithms of the masses [mm^3] on the days of the case."""
    made, parameters = learned
    rows = rows_of(case, values, schedule, case.days, None)
    return np.asarray(predicted(made, jax.tree.map(jnp.asarray, parameters), rows))
