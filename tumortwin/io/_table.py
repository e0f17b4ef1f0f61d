"""A long-format table in canonical units: subjects, days, readings with their intervals, doses, covariates."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tumortwin._errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
    """One quantity, a number a row of the table, in `unit`.

    The truth lies in [`lower`, `upper`]; both equal `value` where the reading is exact. `measured` is False where the
    row has no reading of this quantity (the three numbers are 0 there).
    """

    unit: str
    value: Float[np.ndarray, " row"]
    lower: Float[np.ndarray, " row"]
    upper: Float[np.ndarray, " row"]
    measured: Bool[np.ndarray, " row"]


@dataclasses.dataclass(frozen=True, eq=False)
class DoseHistory:
    """Piecewise-constant levels of each subject, in `unit`: `levels[s][k]` holds from day `edges[s][k]` until the next
    edge, the last one for good; before the first edge the level is 0."""

    unit: str
    edges: tuple[Float[np.ndarray, " _"], ...]
    levels: tuple[Float[np.ndarray, " _"], ...]

    def padded(self) -> tuple[Float[np.ndarray, "subject piece"], Float[np.ndarray, "subject piece"]]:
        """`(edges, levels)` of one length; added edges are at +infinity and repeat the last level."""
        pieces = max((len(e) for e in self.edges), default=0)
        edges = np.full((len(self.edges), pieces), np.inf)
        levels = np.zeros_like(edges)
        for s, (edge, level) in enumerate(zip(self.edges, self.levels, strict=True)):
            edges[s, : len(edge)] = edge
            levels[s, : len(level)] = level
            levels[s, len(level) :] = level[-1] if len(level) else 0.0
        return edges, levels

    def at(self, subject: int, days: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """The level of the subject with index `subject` on `days`."""
        piece = np.searchsorted(self.edges[subject], days, side="right")
        return np.concatenate([[0.0], self.levels[subject]])[piece]


@dataclasses.dataclass(frozen=True, eq=False)
class Padded:
    """One quantity as arrays [subject, time], in time order from the left; `valid` is False where a row is padding.

    Padding repeats the subject's last day (so that days never decrease) and holds 0 in `values`, `lower`, `upper`.
    """

    quantity: str
    unit: str
    subjects: tuple[str, ...]
    times: Float[np.ndarray, "subject time"]
    values: Float[np.ndarray, "subject time"]
    lower: Float[np.ndarray, "subject time"]
    upper: Float[np.ndarray, "subject time"]
    valid: Bool[np.ndarray, "subject time"]

    @property
    def censored(self) -> Bool[np.ndarray, "subject time"]:
        """Where the reading is an interval, not a number."""
        return self.valid & (self.lower < self.upper)

    @property
    def counts(self) -> Int[np.ndarray, " subject"]:
        """Readings of each subject."""
        return self.valid.sum(axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Rows sorted by subject (in the order of the file) and day; nothing in it can be changed.

    `row_subject`: index into `subjects`; `row_day`: [day]. `quantities`, `doses`, `covariates` by name; a covariate has
    one value a subject (float in its canonical unit, or words). A subject may have no rows (after a split), never
    disappears, and keeps its place, so that arrays of two parts of one table line up. `notes`: what a reader of the
    numbers should know, in words.
    """

    subjects: tuple[str, ...]
    row_subject: Int[np.ndarray, " row"]
    row_day: Float[np.ndarray, " row"]
    quantities: Mapping[str, Readings]
    doses: Mapping[str, DoseHistory]
    covariates: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
    source: Path

    def __post_init__(self) -> None:
        for name in ("quantities", "doses", "covariates"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for array in _arrays(self):
            array.flags.writeable = False

    def padded(self, quantity: str | None = None) -> Padded:
        """The readings of `quantity` (None: the first) as arrays [subject, time].

        **Raises:** `InputError` for a quantity that the table does not have.
        """
        name = self._name(quantity)
        readings = self.quantities[name]
        rows = [np.flatnonzero((self.row_subject == s) & readings.measured) for s in range(len(self.subjects))]
        length = max((len(r) for r in rows), default=0)
        filled = {key: np.zeros((len(rows), length)) for key in ("times", "values", "lower", "upper")}
        valid = np.zeros((len(rows), length), bool)
        for s, mine in enumerate(rows):
            valid[s, : len(mine)] = True
            for key, source in zip(filled, (self.row_day, readings.value, readings.lower, readings.upper), strict=True):
                filled[key][s, : len(mine)] = source[mine]
            filled["times"][s, len(mine) :] = self.row_day[mine[-1]] if len(mine) else 0.0
        return Padded(name, readings.unit, self.subjects, valid=valid, **filled)

    def counts(self, quantity: str | None = None) -> Int[np.ndarray, " subject"]:
        """How many readings of `quantity` (None: the first) each subject has."""
        measured = self.quantities[self._name(quantity)].measured
        return np.bincount(self.row_subject[measured], minlength=len(self.subjects))

    def select(self, subjects: Iterable[str]) -> "Table":
        """The part of these subjects, in this order.

        **Raises:** `InputError` for a subject that the table does not have, or one that is named twice.
        """
        names = list(subjects)
        index = {name: i for i, name in enumerate(self.subjects)}
        strangers = [name for name in names if name not in index]
        if strangers or len(set(names)) != len(names):
            odd = strangers or [name for name in names if names.count(name) > 1]
            raise InputError(
                file=self.source,
                required=f"subjects of the table, each once ({', '.join(self.subjects[:5])}, ...)",
                received=", ".join(map(repr, odd[:5])),
                advice="`table.subjects` lists them",
            )
        chosen = np.array([index[name] for name in names], int)
        rows = np.concatenate([np.flatnonzero(self.row_subject == s) for s in chosen] or [np.zeros(0, int)])
        place = {int(s): i for i, s in enumerate(chosen)}
        return self._with(
            rows,
            subjects=tuple(names),
            row_subject=np.array([place[int(s)] for s in self.row_subject[rows]], int),
            doses={k: _of(d, chosen) for k, d in self.doses.items()},
            covariates={k: c[chosen] for k, c in self.covariates.items()},
        )

    def where(self, **values: Any) -> "Table":
        """The subjects whose covariates have these values, such as `where(split="training")`.

        **Raises:** `InputError` for a covariate that the table does not have, or no subject left.
        """
        keep = np.ones(len(self.subjects), bool)
        for name, value in values.items():
            if name not in self.covariates:
                raise self._stranger("covariate", name, self.covariates)
            keep &= self.covariates[name] == value
        if not keep.any():
            raise InputError(
                file=self.source,
                required=f"subjects with {values}",
                received=f"none of {len(self.subjects)}",
                advice="; ".join(f"{n}: {', '.join(map(str, np.unique(self.covariates[n])[:8]))}" for n in values),
            )
        return self.select(np.array(self.subjects, object)[keep])

    def with_at_least(self, readings: int, quantity: str | None = None) -> "Table":
        """The subjects with that many readings of `quantity` (None: the first) or more; a note counts the others."""
        keep = self.counts(quantity) >= readings
        left = self.select(np.array(self.subjects, object)[keep])
        note = f"{int((~keep).sum())} of {len(keep)} subjects with fewer than {readings} readings were left out"
        return dataclasses.replace(left, notes=(*left.notes, note)) if not keep.all() else left

    def split_subjects(self, held_out: Iterable[str]) -> "tuple[Table, Table]":
        """`(training, held out)` by subjects. Errors: as `select`."""
        names = list(held_out)
        return self.select([s for s in self.subjects if s not in set(names)]), self.select(names)

    def before(self, day: float | Float[np.ndarray, " subject"], *, future_doses: bool = True) -> "Table":
        """What was known before `day` (one, or one a subject): the rows earlier than it.

        Doses stay whole, because a forecast is made under a given treatment; `future_doses=False` forgets the levels
        that begin on `day` or later (where treatment follows the readings, a later level tells about them).
        """
        days = np.broadcast_to(np.asarray(day, float), (len(self.subjects),))
        doses = self.doses if future_doses else {k: _until(d, days) for k, d in self.doses.items()}
        return self._with(np.flatnonzero(self.row_day < days[self.row_subject]), doses=doses)

    def since(self, day: float | Float[np.ndarray, " subject"]) -> "Table":
        """The rows on `day` (one, or one a subject) or later."""
        days = np.broadcast_to(np.asarray(day, float), (len(self.subjects),))
        return self._with(np.flatnonzero(self.row_day >= days[self.row_subject]))

    def split_last(self, n: int, quantity: str | None = None, *, future_doses: bool = True) -> "tuple[Table, Table]":
        """`(training, held out)`: the last `n` readings of `quantity` (None: the first) of each subject are held out,
        with every row from the first of them on. Both parts keep all subjects.

        A subject with `n` readings or fewer has nothing held out, and a note says how many there are;
        `table.with_at_least(n + 1)` leaves them out. `future_doses`: as in `before`, for the training part.

        **Raises:** `InputError` for n < 1 or a quantity that the table does not have.
        """
        if n < 1:
            raise InputError(
                file=self.source, required="at least one reading held out", received=f"n = {n}", advice="n=1"
            )
        measured = self.quantities[self._name(quantity)].measured
        cuts = np.full(len(self.subjects), np.inf)
        for s in range(len(self.subjects)):
            days = self.row_day[(self.row_subject == s) & measured]
            if len(days) > n:
                cuts[s] = days[-n]
        short = int(np.isinf(cuts).sum())
        note = (f"{short} subjects with {n} readings or fewer have none held out",) if short else ()
        parts = (self.before(cuts, future_doses=future_doses), self.since(cuts))
        known, held = (dataclasses.replace(part, notes=(*part.notes, *note)) for part in parts)
        return known, held

    def _name(self, quantity: str | None) -> str:
        if quantity is None:
            return next(iter(self.quantities))
        if quantity not in self.quantities:
            raise self._stranger("quantity", quantity, self.quantities)
        return quantity

    def _stranger(self, kind: str, name: str, known: Mapping[str, Any]) -> InputError:
        return InputError(
            file=self.source,
            required=f"a {kind} of the table: {', '.join(known) or 'it has none'}",
            received=repr(name),
            advice=f"declare the column under that name, or choose another {kind}",
        )

    def _with(self, rows: np.ndarray, **changes: Any) -> "Table":
        kept: Callable[[np.ndarray], np.ndarray] = lambda array: array[rows]  # noqa: E731
        quantities = {
            name: Readings(r.unit, kept(r.value), kept(r.lower), kept(r.upper), kept(r.measured))
            for name, r in self.quantities.items()
        }
        base = {"row_subject": kept(self.row_subject), "row_day": kept(self.row_day), "quantities": quantities}
        return dataclasses.replace(self, **(base | changes))


def piecewise(
    days: Sequence[float] | np.ndarray, levels: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`(edges, levels)` of levels that hold from their day on, without the edges where nothing changes."""
    day, level = np.asarray(days, float), np.asarray(levels, float)
    changes = np.diff(level, prepend=0.0) != 0.0
    return day[changes], level[changes]


def _of(dose: DoseHistory, chosen: np.ndarray) -> DoseHistory:
    return DoseHistory(dose.unit, tuple(dose.edges[s] for s in chosen), tuple(dose.levels[s] for s in chosen))


def _until(dose: DoseHistory, days: np.ndarray) -> DoseHistory:
    counts = [int(np.searchsorted(e, d, side="left")) for e, d in zip(dose.edges, days, strict=True)]
    edges = tuple(e[:c] for e, c in zip(dose.edges, counts, strict=True))
    return DoseHistory(dose.unit, edges, tuple(v[:c] for v, c in zip(dose.levels, counts, strict=True)))


def _arrays(table: Table) -> Iterable[np.ndarray]:
    yield from (table.row_subject, table.row_day, *table.covariates.values())
    for readings in table.quantities.values():
        yield from (readings.value, readings.lower, readings.upper, readings.measured)
    for dose in table.doses.values():
        yield from (*dose.edges, *dose.levels)
