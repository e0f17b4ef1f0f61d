"""Irradiated glioma cells (`glioma_rt_invitro_9L`): two weeks of confluence from the first reading."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.hybrid_ablation.rows import NETWORK, Law, Rows, Task, quarter
from experiments.liu2022_radiotherapy.culture import DETECTION, Wells, wells_of
from experiments.liu2022_radiotherapy.population import (
    COUNT,
    FLOOR,
    MEDIANS,
    OF_DENSITY,
    PARAMETERS,
    SPREADS,
    density,
    scale,
    unscale,
)
from tumortwin.io import Table
from tumortwin.models import DelayedDeath, InputRange, Network, PerCapitaClosure, RelativeClosure

from experiments.hybrid_ablation.blank import Blank  # isort: skip

GRID = 12.0  # [h]


def wells(table: Table, *, leave_out: bool) -> Task:
    """The authors' split, or (`leave_out`) one schedule at a time; the calibration wells are a quarter of the wells
    that may be learned from."""
    known = wells_of(table).every(GRID)
    count = int(known.fractions.max())
    number = np.arange(count)[None, :]
    given = np.where(number < known.fractions[:, None], known.dose[:, None], 0.0)
    rows = Rows(
        np.maximum(known.start, DETECTION), known.days[:, 1:], np.asarray(scale(known.seen))[:, 1:],
        known.valid[:, 1:].astype(float), np.broadcast_to(number.astype(float), given.shape), given,
        np.zeros(len(known)), density(known.start)[:, None], density(known.start)[:, None],
    )  # fmt: skip
    subject = known.names.astype(str)
    return Task(
        name="glioma_rt_invitro_9L" + ("_schedule_left_out" if leave_out else ""),
        unit="confluence",
        law=LAW,
        rows=rows,
        subject=subject,
        asked=np.ones(len(known), bool) if leave_out else known.held_out,
        pool=np.broadcast_to(
            shared_hours(np.asarray(known.schedule), np.asarray(rows.valid) > 0)
            if leave_out
            else np.arange(rows.seen.shape[1]),
            rows.seen.shape,
        ),
        raw=known.seen[:, 1:],
        back=unscale,
        parts=lambda seed: _schedules(known, subject, seed) if leave_out else _split(known, subject, seed),
    )


def shared_hours(schedules: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The hour whose errors a forecast has: its own, or, where one schedule alone was read then, the last before it
    at which several were: wells of the schedule that is left out have no others to be calibrated on."""
    hours = np.arange(valid.shape[1])
    shared = np.asarray([np.unique(schedules[valid[:, hour]]).size > 1 for hour in hours])
    return np.maximum.accumulate(np.where(shared, hours, 0))


def _split(known: Wells, subject: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    calibrating = quarter(subject, ~known.held_out, seed)
    yield ~known.held_out & ~calibrating, calibrating, known.held_out


def _schedules(known: Wells, subject: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for k, schedule in enumerate(sorted(set(known.schedule))):
        tested = known.schedule == schedule
        calibrating = quarter(subject, ~tested, 100 * seed + k)
        yield ~tested & ~calibrating, calibrating, tested


def _mechanism(z: Array, rows: Rows) -> DelayedDeath:
    """The mechanism of liu2022_radiotherapy with parameters common to all wells, and a slope on the first reading."""
    logs = MEDIANS + SPREADS * z[:COUNT]
    own = logs[:, None] + (OF_DENSITY * z[COUNT:])[:, None] * jnp.asarray(rows.own).T
    given = dict(zip(PARAMETERS, jnp.exp(own), strict=True))
    return DelayedDeath(**{**given, "start": jnp.asarray(rows.start) * given["start"]})


def _closure(kind: str, key: Array) -> Any:
    if kind == NETWORK:
        inputs = InputRange.of([0.02, 2.0, 1.0], [1.0, 20.0, 14.0])
        return PerCapitaClosure(Network.create(4, 1, 12, 2, key=key), inputs, jnp.asarray(2.0), ("size",))
    inputs = InputRange.of([0.02] * 5, [1.0] * 5)
    return RelativeClosure(Network.create(6, 5, 12, 2, key=key), inputs, jnp.asarray(0.9))


def _blank(rows: Rows) -> Blank:
    return Blank(jnp.asarray(rows.start))


def _hold(burden: Array) -> Array:
    return jnp.log(jnp.maximum(burden, 0.0) + FLOOR)


LAW = Law(2 * COUNT, _mechanism, _blank, _closure, 2, 0.15, _hold, 64)
