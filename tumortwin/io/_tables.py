"""The door for long-format tables: a file and what it promises in, a `Table` in canonical units out."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from tumortwin._errors import InputError
from tumortwin.io._table import DoseHistory, Readings, Table, piecewise
from tumortwin.io._table_checks import below, check_cells, check_rows, missing, number, recorded
from tumortwin.io._table_file import Rows, read_rows
from tumortwin.io._table_schema import Covariate, Dose, Quantity, TableSchema
from tumortwin.io._table_units import canonical, days_per

JOIN = "/"
_NAMED = 3


def read_table(path: str | os.PathLike[str], schema: TableSchema) -> Table:
    """Read a `.csv`, `.tsv`, `.txt` or `.parquet` file that holds one row a visit, check it, convert its units.

    Rows of a subject that are out of order are sorted by time (the time says where a row belongs, nothing is lost) and
    noted. Columns that the schema does not name are ignored. A subject with a single reading is kept.

    `table.notes` names: subjects that were sorted, rows that were merged, rows without a reading, subjects whose every
    reading is an interval, subjects with a single reading or none.

    **Raises:** `InputError` (file, line, column; required, received, what to try) for a file or column that is missing,
    a cell that is no number, NaN or infinity, a value below the minimum, two rows of one subject at one time, a
    covariate that changes, no rows or no reading at all.
    """
    rows = read_rows(path, schema.columns, schema.separator)
    check_cells(rows, schema)
    names = [JOIN.join(parts) for parts in zip(*(rows.cells[c] for c in schema.subject), strict=True)]
    scale = days_per(schema.time_unit, schema.time)
    days = np.array([float(word) for word in rows.cells[schema.time]]) * scale
    notes: list[str] = []
    if schema.repeats == "merge":
        rows, names, days = _merged(rows, names, days, schema, notes)
    check_rows(rows, names, days, {name: c.column for name, c in schema.covariates.items()})
    subjects = tuple(dict.fromkeys(names))
    index = {name: i for i, name in enumerate(subjects)}
    row_subject = np.array([index[name] for name in names])
    order = np.lexsort((days, row_subject))
    _note_order(order, row_subject, subjects, notes)
    quantities = {name: _readings(rows, q, order) for name, q in schema.quantities.items()}
    if not any(q.measured.any() for q in quantities.values()):
        raise InputError(
            file=rows.path,
            required="at least one reading",
            received=f"{len(names)} rows, every one without a measurement",
            advice="check the columns and the entries that `missing` declares",
        )
    row_subject, row_day = row_subject[order], days[order]
    for name, readings in quantities.items():
        notes += _remarks(name, readings, row_subject, subjects)
    return Table(
        subjects=subjects,
        row_subject=row_subject,
        row_day=row_day,
        quantities=quantities,
        doses={n: _history(rows, d, order, row_subject, row_day, len(subjects)) for n, d in schema.doses.items()},
        covariates={n: _covariate(rows, c, names, subjects) for n, c in schema.covariates.items()},
        notes=tuple(notes),
        source=rows.path,
    )


def _merged(
    rows: Rows, names: list[str], days: np.ndarray, schema: TableSchema, notes: list[str]
) -> tuple[Rows, list[str], np.ndarray]:
    """The rows without those that repeat an earlier one in every declared column."""
    seen: set[tuple[str, ...]] = set()
    keep = []
    for i in range(len(names)):
        row = (names[i], repr(float(days[i])), *(rows.cells[c][i] for c in schema.columns if c != schema.time))
        if row not in seen:
            keep.append(i)
        seen.add(row)
    if len(keep) == len(names):
        return rows, names, days
    notes.append(f"{len(names) - len(keep)} rows that repeat another one in every declared column were merged with it")
    cells = {c: [rows.cells[c][i] for i in keep] for c in rows.cells}
    return Rows(rows.path, cells, [rows.lines[i] for i in keep], rows.place), [names[i] for i in keep], days[keep]


def _readings(rows: Rows, quantity: Quantity, order: np.ndarray) -> Readings:
    unit, scale = canonical(quantity.unit, quantity.column)
    words = [rows.cells[quantity.column][i] for i in order.tolist()]
    own = quantity.recorded or quantity.missing or quantity.less_than
    special = {word: found for word in set(words) if (found := _special(word, quantity)) is not None} if own else {}
    value = np.array([np.nan if word in special else float(word) for word in words])
    lower, upper = _interval(value, quantity, _at_limit(rows, quantity, order))
    for i, word in enumerate(words):
        if word in special:
            value[i], lower[i], upper[i] = special[word]
    measured = ~np.isnan(value)
    kept = [np.where(measured, column, 0.0) * scale for column in (value, lower, upper)]
    return Readings(unit, kept[0], kept[1], kept[2], measured)


def _special(word: str, quantity: Quantity) -> tuple[float, float, float] | None:
    """(value, lower, upper) of an entry with a meaning of its own, in the column's unit; NaN for "not measured"."""
    index = recorded(word, quantity)
    if index is not None:
        entry = quantity.recorded[index]
        value = number(word)
        return (0.5 * (entry.low + entry.high) if value is None else value), entry.low, entry.high
    if missing(word, quantity):
        return np.nan, np.nan, np.nan
    limit = below(word, quantity)
    return None if limit is None else (limit, float(quantity.minimum or 0.0), limit)


def _interval(value: np.ndarray, quantity: Quantity, at_limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What plain numbers stand for: themselves, the step they were rounded to, or anything below a limit."""
    floor = -np.inf if quantity.minimum is None else quantity.minimum
    half = 0.5 * quantity.rounding
    lower = np.maximum(value - half, floor) if half else value.copy()
    upper = value + half
    if quantity.limit is not None:
        small = value < quantity.limit
        lower[small], upper[small] = floor, quantity.limit
    lower[at_limit], upper[at_limit] = floor, value[at_limit]
    return lower, upper


def _at_limit(rows: Rows, quantity: Quantity, order: np.ndarray) -> np.ndarray:
    if quantity.limit_column is None:
        return np.zeros(len(order), bool)
    flags = rows.cells[quantity.limit_column]
    return np.array([float(flags[i]) == 1.0 for i in order.tolist()])


def _history(
    rows: Rows, dose: Dose, order: np.ndarray, row_subject: np.ndarray, row_day: np.ndarray, count: int
) -> DoseHistory:
    unit, scale = canonical(dose.unit, dose.column)
    words = rows.cells[dose.column]
    level = np.array([float(words[i]) if words[i] else float(dose.blank or 0.0) for i in order.tolist()]) * scale
    pieces = [piecewise(row_day[row_subject == s], level[row_subject == s]) for s in range(count)]
    return DoseHistory(unit, tuple(e for e, _ in pieces), tuple(v for _, v in pieces))


def _covariate(rows: Rows, covariate: Covariate, names: Sequence[str], subjects: Sequence[str]) -> np.ndarray:
    words = dict(zip(names, rows.cells[covariate.column], strict=True))
    if covariate.unit is None:
        return np.array([words[s] for s in subjects])
    return np.array([float(words[s]) for s in subjects]) * canonical(covariate.unit, covariate.column)[1]


def _note_order(order: np.ndarray, row_subject: np.ndarray, subjects: Sequence[str], notes: list[str]) -> None:
    """Names the subjects whose rows were not in time order."""
    moved = [subjects[s] for s in range(len(subjects)) if (np.diff(order[row_subject[order] == s]) < 0).any()]
    if moved:
        notes.append(f"the rows of {_some(moved)} were not in time order and were sorted")


def _remarks(name: str, readings: Readings, row_subject: np.ndarray, subjects: Sequence[str]) -> list[str]:
    count = len(subjects)
    total = np.bincount(row_subject[readings.measured], minlength=count)
    interval = readings.measured & (readings.lower < readings.upper)
    only = [s for s, n, i in zip(subjects, total, np.bincount(row_subject[interval], minlength=count), strict=True)
            if n and n == i]  # fmt: skip
    blank = int((~readings.measured).sum())
    found: Mapping[str, list[str]] = {
        "every reading is an interval": only if len(only) < count else [],
        "a single reading": [s for s, n in zip(subjects, total, strict=True) if n == 1],
        "no reading": [s for s, n in zip(subjects, total, strict=True) if n == 0],
    }
    notes = [f"{name}: {what} for {_some(who)}" for what, who in found.items() if who]
    if len(only) == count:
        notes.append(f"{name}: every reading of every subject is an interval")
    return [*notes, f"{name}: {blank} of {len(readings.measured)} rows hold no reading"] if blank else notes


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_NAMED]))
    return shown if len(names) <= _NAMED else f"{len(names)} subjects ({shown}, ...)"
