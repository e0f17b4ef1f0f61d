"""Lesions under therapy (`laleh2022_lesions`): the next two diameters from those that are known."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.hybrid_ablation.blank import Blank
from experiments.hybrid_ablation.rows import NETWORK, Law, Rows, Task, rotation
from tumortwin.io import Table
from tumortwin.models import Claret, InputRange, Network, PerCapitaClosure

LEAST, HIDDEN, FOLDS = 6, 2, 3
SMALLEST, FLOOR = 5.0, 2.5  # [mm] below the first a lesion counts as vanished; its logarithm is that of the second
STEEPEST = 0.03  # [1/day] at which the slope of the last interval is held: two entries a few days apart say little
BOUND = 0.02  # [1/day] of what a network may say


def lesions(table: Table) -> Task:
    """Every reading after the second as the start of a forecast of the next two; the last two of a patient with six or
    more are what is tested (the split of the experiment laleh2022)."""
    rows = table.padded("diameter")
    counts = rows.counts
    place = [(s, k) for s in range(len(counts)) for k in range(1, counts[s] - 1)]
    subject, last = (np.array(x) for x in zip(*place, strict=True))
    asked = (counts[subject] >= LEAST) & (last == counts[subject] - HIDDEN - 1)
    later = np.minimum(last[:, None] + np.arange(1, HIDDEN + 1), counts[subject][:, None] - 1)
    valid = last[:, None] + np.arange(1, HIDDEN + 1) < counts[subject][:, None]
    raw = rows.values[subject[:, None], later]
    told, features = zip(*(_history(rows.times[s, : k + 1], rows.values[s, : k + 1]) for s, k in place), strict=True)
    days = rows.times[subject[:, None], later] - rows.times[subject, last][:, None]
    nothing = np.zeros((len(place), 0))
    known = Rows(
        _floored(rows.values[subject, last]), np.maximum(days, 0.0), np.log(_floored(raw)), valid.astype(float),
        nothing, nothing, np.ones(len(place)), np.array(told), np.array(features),
    )  # fmt: skip
    names = np.array([rows.subjects[s] for s in subject], object).astype(str)
    return Task(
        name="laleh2022_lesions",
        unit="log(1+mm)",
        law=LAW,
        rows=known,
        subject=names,
        asked=asked,
        pool=np.broadcast_to(np.arange(HIDDEN), raw.shape),
        raw=np.log1p(raw),
        back=_entry,
        parts=lambda seed: rotation(names, asked, FOLDS, seed),
    )


def _mechanism(z: Array, rows: Rows) -> Claret:
    """Claret's law: what the last interval said, shrunk, wears off towards a rate common to all."""
    slope = jnp.asarray(rows.own)[:, 0]
    growth = 0.002 * z[0] * jnp.ones_like(slope)
    return Claret(growth, -0.5 * (1.0 + z[1]) * slope, 0.02 * jnp.exp(0.7 * z[2]) * jnp.ones_like(slope), rows.start)


def _closure(kind: str, key: Array) -> Any:
    features = 6
    if kind == NETWORK:
        inputs = InputRange.of([3.0, 0.5, 10.0], [150.0, 1.0, 120.0])  # [mm], nothing is given, [day]
        return PerCapitaClosure(Network.create(3 + features, 1, 12, 2, key=key), inputs, jnp.asarray(BOUND), ("size",))
    inputs = InputRange.of([3.0, 0.05], [150.0, 1.0])
    return PerCapitaClosure(Network.create(2 + features, 1, 12, 2, key=key), inputs, jnp.asarray(BOUND), ("size",))


def _history(days: np.ndarray, diameters: np.ndarray) -> tuple[list[float], list[float]]:
    """The slope of the last interval [1/day], and what else the past says, of order one."""
    logs = np.log(_floored(diameters))
    last = float(np.clip((logs[-1] - logs[-2]) / max(days[-1] - days[-2], 1.0), -STEEPEST, STEEPEST))
    mean = float(np.clip((logs[-1] - logs[0]) / max(days[-1] - days[0], 1.0), -STEEPEST, STEEPEST))
    return [last], [
        100.0 * last,
        100.0 * mean,
        float(logs[-1] - logs.min()),
        float(logs[-1] - logs[0]),
        float(days[-1]) / 365.0 - 0.5,
        float(diameters[-1] == 0.0),
    ]


def _floored(diameter: np.ndarray) -> np.ndarray:
    return np.where(diameter < SMALLEST, FLOOR, diameter)


def _entry(h: np.ndarray) -> np.ndarray:
    """log(1 + diameter), with what is below 5 mm written down as 0."""
    diameter = np.exp(h)
    return np.log1p(np.where(diameter < SMALLEST, 0.0, diameter))


def _blank(rows: Rows) -> Blank:
    return Blank(jnp.asarray(rows.start))


def _hold(burden: Array) -> Array:
    return jnp.log(burden)


LAW = Law(3, _mechanism, _blank, _closure, 6, 0.15, _hold, 256)
