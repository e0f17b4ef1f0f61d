"""A tumor whose growth lacks, in the mechanism, a term that is there in truth."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import solve_ivp

from experiments.hybrid_ablation.learned import Forecaster, all_kinds, predicted
from experiments.hybrid_ablation.rows import NETWORK, Law, Rows
from tumortwin.inference import Checkpoint, Training
from tumortwin.models import Exponential, InputRange, Logistic, Network, PerCapitaClosure, RelativeClosure, rate_of

from tumortwin.models import VolumeState  # isort: skip

CAPACITY, RATE, THRESHOLD, DECELERATION = 1000.0, 0.25, 150.0, 0.09  # [mm^3], [1/day], [mm^3], [1/day]
KNOWN_TO = 0.1  # log-sd to which the capacity is known beforehand
NOISE = 0.05  # log-sd of a reading
TRAIN, TEST = 32, 40  # subjects
STARTS = (10.0, 150.0)  # [mm^3]
WINDOW, HORIZON, EVERY = 18.0, 60.0, 2.0  # [day]


def _allee(volume: np.ndarray) -> np.ndarray:
    return RATE * (1.0 - volume / CAPACITY) * volume / (volume + THRESHOLD)


def _gompertz(volume: np.ndarray) -> np.ndarray:
    return DECELERATION * np.log(CAPACITY / volume)


TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"allee": _allee, "gompertz": _gompertz}
"""Growth per volume [1/day]: logistic times V / (V + A), a weak Allee effect; and Gompertz's."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Of one truth and seed: the absolute log error of each test subject after the window (later) and within it, the
    relative error of the recovered rate on the range of the training data, and the curves for the figure."""

    later: dict[str, Float[np.ndarray, " subject"]]
    within: dict[str, Float[np.ndarray, " subject"]]
    recovered: dict[str, float]
    sizes: np.ndarray
    rates: dict[str, np.ndarray]
    top: float


def study(
    truth: str, seed: int, settings: Training, *, key: Array, checkpoint: Checkpoint | None = None, name: str = "x"
) -> Result:
    """Train on `TRAIN` subjects until day `WINDOW`, forecast `TEST` others until `HORIZON`."""
    rng = np.random.default_rng([seed, sorted(TRUTHS).index(truth)])
    rows, curves = subjects(truth, rng)
    early = np.asarray(rows.days) <= WINDOW
    train = np.arange(TRAIN + TEST) < TRAIN
    columns = early[0]
    known = rows.where(train)
    known = Rows(**{**vars(known), **{k: getattr(known, k)[:, columns] for k in ("days", "seen", "valid")}})
    names = np.array([f"{i:03d}" for i in range(TRAIN)])
    found = all_kinds(LAW, known, names, settings, key=key, checkpoint=checkpoint, name=name, warm=False)
    later, within, recovered, rates = {}, {}, {}, {}
    top = float(np.exp(np.asarray(known.seen).max()))
    sizes = np.geomspace(STARTS[0], top, 60)
    wide = np.geomspace(STARTS[0], 1.1 * CAPACITY, 90)
    for kind, (made, parameters) in found.items():
        off = np.abs(predicted(made, parameters, rows) - curves)[~train]
        later[kind] = np.where(early[~train], 0.0, off).sum(axis=1) / (~early[~train]).sum(axis=1)
        within[kind] = np.where(early[~train], off, 0.0).sum(axis=1) / early[~train].sum(axis=1)
        said, true = _per_volume(made, parameters, rows, sizes), TRUTHS[truth](sizes)
        recovered[kind] = float(np.linalg.norm(said - true) / np.linalg.norm(true))
        rates[kind] = _per_volume(made, parameters, rows, wide)
    return Result(later, within, recovered, wide, {**rates, "truth": TRUTHS[truth](wide)}, top)


def subjects(truth: str, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    """Readings of all subjects on all days, and the curves without noise, both as logarithms."""
    count = TRAIN + TEST
    starts = np.exp(rng.uniform(np.log(STARTS[0]), np.log(STARTS[1]), count))
    days = np.arange(EVERY, HORIZON + 1e-9, EVERY)
    slope = lambda _, x: TRUTHS[truth](np.exp(x))  # noqa: E731
    solved = solve_ivp(slope, (0.0, HORIZON), np.log(starts), t_eval=days, rtol=1e-9, atol=1e-10)
    curves = solved.y
    seen = curves + NOISE * rng.standard_normal(curves.shape)
    none = np.zeros((count, 0))
    days = np.broadcast_to(days, curves.shape)
    # What is known of the capacity is itself off, by as much as it says.
    capacity = np.full((count, 1), CAPACITY * np.exp(KNOWN_TO * rng.standard_normal()))
    return Rows(starts, days, seen, np.ones(curves.shape), none, none, np.zeros(count), capacity, none), curves


def _mechanism(z: Array, rows: Rows) -> Logistic:
    """Logistic growth; its capacity is known from elsewhere (`own`), its rate roughly."""
    start = jnp.asarray(rows.start)
    rate = 0.2 * jnp.exp(0.5 * z[0]) * jnp.ones_like(start)
    return Logistic(rate, jnp.asarray(rows.own)[:, 0] * jnp.exp(KNOWN_TO * z[1]), start)


def _closure(kind: str, key: Array) -> Any:
    inputs = InputRange.of([STARTS[0]], [CAPACITY])
    net = Network.create(1, 1, 12, 2, key=key)
    if kind == NETWORK:
        return PerCapitaClosure(net, inputs, jnp.asarray(0.6))
    return RelativeClosure(net, inputs, jnp.asarray(0.95))


def _per_volume(made: Forecaster, parameters: dict[str, Array], known: Rows, sizes: np.ndarray) -> np.ndarray:
    """What a forecaster says of growth per volume [1/day]."""
    none = np.zeros((sizes.size, 0))
    own = np.broadcast_to(np.asarray(known.own)[0], (sizes.size, 1))
    rows = Rows(sizes, none, none, none, none, none, np.zeros(sizes.size), own, none)
    model = made.model(parameters, jax.tree.map(jnp.asarray, rows))
    state = VolumeState(jnp.asarray(sizes))
    return np.asarray(rate_of(model, state, jnp.zeros(sizes.size)).volume) / sizes


def _blank(rows: Rows) -> Exponential:
    return Exponential(jnp.zeros_like(jnp.asarray(rows.start)), jnp.asarray(rows.start))


def _hold(burden: Array) -> Array:
    return jnp.log(burden)


LAW = Law(2, _mechanism, _blank, _closure, 1, NOISE, _hold, 32)
