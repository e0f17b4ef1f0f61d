"""CAR T-cells and dexamethasone on glioblastoma lines (`cart_dex_glioma`): six days of impedance from the first one."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.hybrid_ablation.blank import Blank
from experiments.hybrid_ablation.rows import NETWORK, Law, Rows, Task, rotation
from tumortwin.io import Table
from tumortwin.models import Carrgo, InputRange, Network, PerCapitaClosure

FOLDS = 4
FIRST, GRID = 1.0, 0.25  # [day] of the start, and between the readings that are asked
SMALLEST = 1e-8  # [ng/mL] a decade below the smallest dose of dexamethasone
DECADES = 5.0
WIDTH = 0.2  # [cell index] at which the scale turns from linear to logarithmic
BINS = 3  # of the horizon, within which errors are pooled: a dozen calibration curves are too few for each day
NAMES = 7


def immune(table: Table) -> Task:
    """Every pair of wells from the reading nearest to day 1, when the cells are attached, on a grid of six hours."""
    seen = table.padded("cell_index")
    last = float(np.min(np.max(np.where(seen.valid, seen.times, 0.0), axis=1)))
    days = np.arange(FIRST, last + 1e-9, GRID)
    curves = np.stack([np.interp(days, seen.times[s, ok], seen.values[s, ok]) for s, ok in enumerate(seen.valid)])
    about = table.covariates
    dose = about["dexamethasone"].astype(float)
    level = np.where(dose > 0, np.log10(np.maximum(dose, SMALLEST) / SMALLEST) / DECADES, 0.0)
    lines = sorted(set(about["line"]))
    line = np.array([lines.index(name) for name in about["line"]], float)
    own = (line - line.mean())[:, None] * (2.0 if len(lines) > 1 else 0.0)
    count, cells = len(curves), about["car_t_cells"].astype(float)
    later = np.broadcast_to(days[1:] - FIRST, curves[:, 1:].shape)
    rows = Rows(
        np.maximum(curves[:, 0], 0.01), later, _scale(curves[:, 1:]), np.ones(later.shape), np.zeros((count, 1)),
        cells[:, None], level, own, own,
    )  # fmt: skip
    subject = np.array(table.subjects, object).astype(str)
    asked = np.ones(count, bool)
    return Task(
        name="cart_dex_glioma",
        unit="cell_index",
        law=LAW,
        rows=rows,
        subject=subject,
        asked=asked,
        pool=(np.broadcast_to(np.arange(later.shape[1]), later.shape) * BINS) // later.shape[1],
        raw=curves[:, 1:],
        back=lambda h: WIDTH * np.sinh(h),
        parts=lambda seed: rotation(subject, asked, FOLDS, seed),
    )


def _scale(index: np.ndarray) -> np.ndarray:
    return np.arcsinh(index / WIDTH)


def _mechanism(z: Array, rows: Rows) -> Carrgo:
    """CARRGO with a mean and a difference of the lines; dexamethasone by its level (0 without, 1 for the most)."""
    line = jnp.asarray(rows.own)[:, 0]
    own = z[:NAMES, None] + 0.5 * z[NAMES:, None] * line[None, :]
    return Carrgo(
        growth_rate=1.1 * jnp.exp(0.5 * own[0]),
        carrying_capacity=5.3 * jnp.exp(0.3 * own[1]),
        kill_rate=10.0 * jnp.exp(0.7 * own[2]),
        expansion_rate=0.5 * own[3],
        effector_death=0.3 * jnp.exp(0.7 * own[4]),
        tumor_drug_kill=0.3 * own[5],
        effector_drug_kill=0.3 * own[6],
        start_tumor=jnp.asarray(rows.start),
        start_effector=jnp.zeros_like(line),
    )


def _closure(kind: str, key: Array) -> Any:
    if kind == NETWORK:
        inputs = InputRange.of([0.05, 0.02, 1.0], [6.0, 0.3, 6.0], 1.0)
        return PerCapitaClosure(Network.create(5, 1, 12, 2, key=key), inputs, jnp.asarray(3.0), ("size",))
    inputs = InputRange.of([0.05, 0.02], [6.0, 1.0], 1.0)
    return PerCapitaClosure(Network.create(4, 2, 12, 2, key=key), inputs, jnp.asarray(2.0))


def _blank(rows: Rows) -> Blank:
    return Blank(jnp.asarray(rows.start))


def _hold(burden: Array) -> Array:
    return jnp.arcsinh(burden / WIDTH)


LAW = Law(2 * NAMES, _mechanism, _blank, _closure, 2, 0.1, _hold, 24)
