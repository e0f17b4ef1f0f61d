"""The promises of a `TableSchema`, written as pandera checks; the first that is broken becomes an error that helps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tumortwin._errors import InputError
from tumortwin.io._table_file import Rows
from tumortwin.io._table_schema import Quantity, TableSchema

SUBJECT = "subject"
_DIGITS = set("0123456789")
_SHOWN = 80


class _Promise(NamedTuple):
    """What is checked of one cell, and how a broken promise is put. Any finite number of `enough` or more keeps it."""

    holds: Callable[[str], bool]
    required: str
    advice: str
    enough: float = math.inf


def check_cells(rows: Rows, schema: TableSchema) -> None:
    """Every cell is what its column promises: a name, a number in range, a declared word, or an allowed blank.

    **Raises:** `InputError` for the first broken cell of the file, with the number of further ones.
    """
    promises: dict[str, list[_Promise]] = {name: [] for name in schema.columns}
    for name in schema.subject:
        promises[name].append(_Promise(bool, "the name of a subject", "fill in the cell, or remove the row"))
    promises[schema.time] += _number(frozenset())
    for quantity in schema.quantities.values():
        promises[quantity.column] += _measured(quantity)
        if quantity.limit_column is not None:
            promises[quantity.limit_column].append(_FLAG)
    for dose in schema.doses.values():
        words = frozenset() if dose.blank is None else frozenset({""})
        advice = "a `blank` level in the declaration says what a blank cell means"
        promises[dose.column] += [*_number(words, blank=advice), _at_least(0.0, words, lambda word: False)]
    for covariate in schema.covariates.values():
        promises[covariate.column] += _number(frozenset()) if covariate.unit is not None else [_NOT_BLANK]
    _validate(rows, promises)


def check_rows(rows: Rows, subjects: Sequence[str], days: np.ndarray, covariates: Mapping[str, str]) -> None:
    """One row a subject and time; one value of each covariate a subject.

    `covariates`: name in the table -> column of the file. **Raises:** `InputError` for the first broken row.
    """
    import pandas as pd
    import pandera.pandas as pa

    frame = pd.DataFrame({SUBJECT: list(subjects), "day": days}, index=list(rows.lines))
    for name, column in covariates.items():
        frame[f"covariate {name}"] = list(rows.cells[column])
    checks = [pa.Check(lambda f: ~f.duplicated([SUBJECT, "day"]), name="twice")]
    checks += [pa.Check(_constant(f"covariate {name}"), name=f"covariate {name}") for name in covariates]
    cases = _failures(frame, pa.DataFrameSchema(checks=checks))
    if not cases:
        return
    line, check = min((line, check) for line, _, check in cases)
    at = list(rows.lines).index(line)
    mine = np.array([s == subjects[at] for s in subjects])
    if check == "twice":
        first = int(np.flatnonzero(mine & (days == days[at]))[0])
        raise InputError(
            file=rows.path,
            required=f"{rows.place} {line}: one row a subject and time",
            received=f"subject {subjects[at]!r} a second time at {days[at]:g} day (first in {rows.place} "
            f"{rows.lines[first]}){_more(len(cases))}",
            advice="decide which is right; `repeats: merge` joins rows that agree in every declared column",
        )
    column = covariates[check.removeprefix("covariate ")]
    values = list(dict.fromkeys(str(v) for v, is_mine in zip(rows.cells[column], mine, strict=True) if is_mine))
    raise InputError(
        file=rows.path,
        required=f"{rows.place} {line}, column {column!r}: one value a subject",
        received=f"{', '.join(map(repr, values[:3]))} of subject {subjects[at]!r}{_more(len(cases))}",
        advice="a column that changes over time is a dose or a quantity; or `subject` needs a further column",
    )


def number(word: str) -> float | None:
    """The number that a cell holds, None when it holds none. `nan` and `inf` count as numbers here."""
    if "_" in word:
        return None
    try:
        return float(word)
    except ValueError:
        return None


def below(word: str, quantity: Quantity) -> float | None:
    """The limit in an entry such as `<0.1`, None for any other entry."""
    if quantity.less_than and word.startswith("<"):
        return number(word[1:].strip())
    return None


def missing(word: str, quantity: Quantity) -> bool:
    """Whether a cell means "not measured", as a number or word for word."""
    return any(_matches(word, entry) for entry in quantity.missing)


def recorded(word: str, quantity: Quantity) -> int | None:
    """The index of the `Recorded` entry that a cell matches, as a number or word for word."""
    return next((i for i, known in enumerate(quantity.recorded) if _matches(word, known.entry)), None)


def _matches(word: str, entry: float | str) -> bool:
    return entry == word if isinstance(entry, str) else entry == number(word)


def _constant(column: str) -> Callable[[Any], Any]:
    return lambda frame: frame[column] == frame.groupby(SUBJECT)[column].transform("first")


def _number(words: frozenset[str], *, blank: str = "fill in the cell, or remove the row") -> list[_Promise]:
    def is_number(word: str) -> bool:
        return word in words or number(word) is not None

    def is_finite(word: str) -> bool:
        value = number(word)
        return word in words or value is None or math.isfinite(value)

    listed = "" if not words else " or " + " or ".join(repr(w) if w else "a blank cell" for w in sorted(words))
    return [
        _Promise(is_number, f"a number{listed}", f"{blank}; decimals are written with a point", -math.inf),
        _Promise(is_finite, f"a finite number{listed}", blank, -math.inf),
    ]


def _measured(quantity: Quantity) -> list[_Promise]:
    def special(word: str) -> bool:
        return missing(word, quantity) or recorded(word, quantity) is not None or below(word, quantity) is not None

    advice = "a cell without a measurement: name its entry in `missing`; below a limit: `recorded` or `limit`"
    promises = [
        _Promise(_either(special, p.holds), p.required, advice, p.enough)
        for p in _number(frozenset(map(str, quantity.missing)))
    ]
    if quantity.minimum is not None:
        promises.append(_at_least(quantity.minimum, frozenset(), special))
    return promises


def _either(first: Callable[[str], bool], second: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda word: first(word) or second(word)


def _at_least(minimum: float, words: frozenset[str], special: Callable[[str], bool]) -> _Promise:
    def holds(word: str) -> bool:
        value = number(word)
        return word in words or special(word) or value is None or not value < minimum

    return _Promise(
        holds, f"a value of {minimum:g} or more", "check the sign; `minimum: null` lets any number through", minimum
    )


_FLAG = _Promise(lambda word: number(word) in (0.0, 1.0), "0 (measured) or 1 (at its limit)", "fill in the cell")
_NOT_BLANK = _Promise(bool, "a value of the covariate", "fill in the cell, or do not declare the column")


def _validate(rows: Rows, promises: Mapping[str, list[_Promise]]) -> None:
    import pandas as pd
    import pandera.pandas as pa

    frame = pd.DataFrame({name: list(rows.cells[name]) for name in promises}, index=list(rows.lines), dtype=object)
    columns = {
        name: pa.Column(object, [_cell_check(promise, str(i)) for i, promise in enumerate(listed)])
        for name, listed in promises.items()
    }
    cases = _failures(frame, pa.DataFrameSchema(columns))
    if not cases:
        return
    order = list(promises)
    line, column, check = min(cases, key=lambda case: (case[0], order.index(case[1]), case[2]))
    promise = promises[column][int(check)]
    word = str(frame.at[line, column])
    comma = "," in word and bool(_DIGITS & set(word))
    raise InputError(
        file=rows.path,
        required=f"{rows.place} {line}, column {column!r}: {promise.required}",
        received=f"{repr(word[:_SHOWN]) if word else 'a blank cell'}{_more(len({c[:2] for c in cases}))}",
        advice="write decimals with a point" if comma else promise.advice,
    )


def _cell_check(promise: _Promise, name: str) -> Any:
    import pandera.pandas as pa

    def holds(column: Any) -> Any:
        values = _plain(column)
        if values is not None and (values >= promise.enough).all():
            return values >= promise.enough
        known = {word: promise.holds(word) for word in set(column)}
        return column.map(known).astype(bool)

    return pa.Check(holds, name=name)


def _plain(column: Any) -> Any:
    """The numbers of a column of words when every one is a finite number, else None."""
    try:
        values = column.astype(float)
    except ValueError:
        return None
    return values if np.isfinite(values).all() and not column.str.contains("_", regex=False).any() else None


def _failures(frame: Any, schema: Any) -> list[tuple[int, str, str]]:
    """(line, column, name of the check) of everything that pandera found."""
    import pandera.pandas as pa

    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        found = error.failure_cases
        return [
            (int(line), str(column), str(check))
            for line, column, check in zip(found["index"], found["column"], found["check"], strict=True)
        ]
    return []


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
