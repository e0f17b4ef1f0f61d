"""Volumes and treatments of each patient, made comparable: what is done about surgery and radiotherapy."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from tumortwin._errors import InputError
from tumortwin.inference import Measurements
from tumortwin.io import Table
from tumortwin.treatments import StepHistory

MEAN_LEVEL = 5.0 / 28.0 / 8.318  # of temozolomide in a course: 5 days of 28, gone at 8.318 /day (half-life 2 h)
# Six weeks of radiotherapy did as much as twelve cycles of temozolomide (Baumert et al., Lancet Oncol. 17 (2016) 1521,
# EORTC 22033-26033: progression-free survival not different), so that a day of the one counts as so many of the other.
RADIOTHERAPY = 12.0 * 28.0 / 42.0
CUBIC_CENTIMETERS = 1e-3  # of a mm^3
HELD_OUT = 2
LEAST_KNOWN = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Known and hidden volumes [cm^3] of the patients `names`, lists of arrays; `days` from the first reading that is
    used; `history` the level of treatment over those days; `notes`: what was left out and why."""

    names: tuple[str, ...]
    known_days: list[np.ndarray]
    known: list[np.ndarray]
    hidden_days: list[np.ndarray]
    hidden: list[np.ndarray]
    irradiated: list[np.ndarray]
    history: StepHistory
    notes: tuple[str, ...]

    def measurements(self) -> Measurements:
        """The known volumes as one rectangle."""
        times, values, valid = padded(self.known_days, self.known)
        return Measurements(times, values, values, valid, given=self.history)

    def asked(self) -> Measurements:
        """The last known day, then the hidden ones, as one rectangle without values."""
        days = [np.concatenate([k[-1:], h]) for k, h in zip(self.known_days, self.hidden_days, strict=True)]
        times, values, valid = padded(days, [np.ones_like(d) for d in days])
        return Measurements(times, values, values, valid, given=self.history)


def padded(days: list[np.ndarray], values: list[np.ndarray]) -> tuple[jnp.ndarray, jnp.ndarray, jnp.ndarray]:
    """`(times, values, valid)` [patient, time], padded by the last day."""
    length = max(d.size for d in days)
    times, filled, valid = (np.zeros((len(days), length)) for _ in range(3))
    for i, (day, value) in enumerate(zip(days, values, strict=True)):
        times[i, : day.size], times[i, day.size :] = day, day[-1]
        filled[i, : day.size], filled[i, day.size :] = value, value[-1]
        valid[i, : day.size] = 1.0
    return jnp.asarray(times), jnp.asarray(filled), jnp.asarray(valid)


def records_of(table: Table, *, drop: int = 0) -> Records:
    """The table split by time: the last two volumes of each patient hidden.

    `drop`: so many of the last volumes do not exist at all (for choosing the model without the hidden ones).

    A surgery within the record takes away a volume that the file does not tell: readings before it are left out. One
    after the last known reading, or one that leaves fewer than three known readings, makes a forecast meaningless: the
    patient is left out. Both are noted. Radiotherapy acts as `RADIOTHERAPY` courses of temozolomide at once.

    **Raises:** `InputError` when no patient is left.
    """
    rows, notes, parts = table.padded(), list(table.notes), []
    for i, name in enumerate(table.subjects):
        count = int(rows.counts[i]) - drop
        days, volumes = rows.times[i, : max(count, 0)], rows.values[i, : max(count, 0)] * CUBIC_CENTIMETERS
        surgery = float(table.covariates["surgery_day"][i])
        if days.size and days[0] < surgery <= days[-1]:
            notes.append(
                f"patient {name}: surgery on day {surgery:g} of unknown extent; {int((days <= surgery).sum())} "
                "readings before it are left out"
            )
            days, volumes = days[days > surgery], volumes[days > surgery]
        if days.size < LEAST_KNOWN + HELD_OUT:
            notes.append(f"patient {name}: left out, {days.size} comparable readings are too few")
            continue
        parts.append((i, name, days, volumes))
    if not parts:
        raise InputError(
            file=table.source,
            required=f"a patient with {LEAST_KNOWN + HELD_OUT} volumes or more after the last surgery",
            received="; ".join(notes),
            advice="longer records",
        )
    since = [days - days[0] for _, _, days, _ in parts]
    radiation = [table.doses["radiotherapy"].edges[i] for i, *_ in parts]
    return Records(
        tuple(name for _, name, _, _ in parts),
        [d[:-HELD_OUT] for d in since],
        [v[:-HELD_OUT] for *_, v in parts],
        [d[-HELD_OUT:] for d in since],
        [v[-HELD_OUT:] for *_, v in parts],
        [days[-HELD_OUT:] > (r[0] if r.size else np.inf) for (_, _, days, _), r in zip(parts, radiation, strict=True)],
        _history(table, [(i, days[0]) for i, _, days, _ in parts]),
        tuple(notes),
    )


def _history(table: Table, chosen: list[tuple[int, float]]) -> StepHistory:
    """The level of treatment, on each patient's own days."""
    drug, radiation = table.doses["temozolomide"], table.doses["radiotherapy"]
    edges, levels = [], []
    for i, first in chosen:
        own = np.unique(np.concatenate([drug.edges[i], radiation.edges[i]]))
        edges.append(own - first)
        levels.append(np.concatenate([[0.0], MEAN_LEVEL * (drug.at(i, own) + RADIOTHERAPY * radiation.at(i, own))]))
    length = max((e.size for e in edges), default=0)
    padded_edges = np.array([np.concatenate([e, np.full(length - e.size, np.inf)]) for e in edges])
    padded_levels = np.array([np.concatenate([v, np.full(length + 1 - v.size, v[-1])]) for v in levels])
    return StepHistory(jnp.asarray(padded_edges), jnp.asarray(padded_levels))
