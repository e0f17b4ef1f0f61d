"""What a long-format table promises: which column is the subject, the time, a quantity, a dose, a covariate."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from tumortwin._errors import InputError, unknown_key
from tumortwin.io._table_units import canonical, days_per

Repeats: TypeAlias = Literal["refuse", "merge"]
REPEATS = ("refuse", "merge")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What one entry of a column stands for: any value in [`low`, `high`], in the column's unit.

    `entry`: the number or the words in the file, such as `0` or `TOO SMALL TO MEASURE`.
    """

    entry: float | str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise _wrong("recorded", "low < high, both finite", f"[{self.low}, {self.high}] for {self.entry!r}")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A measured column. All numbers are in the column's own `unit`.

    `minimum`: smaller values are refused (None: any number). `missing`: numbers or words that mean "not measured" (`""`
    is a blank cell); such a row is kept for its doses and counts as no reading. `rounding`: width of the steps that the
    values were rounded to; a value v then stands for [v - rounding/2, v + rounding/2], never below `minimum`.
    `limit`: quantification limit; smaller values stand for [`minimum`, `limit`]. `limit_column`: a column of 0 and 1;
    where it is 1 the value is itself a limit and stands for [`minimum`, value]. `less_than`: entries such as `<0.1`
    stand for [`minimum`, 0.1]. `recorded`: entries with a meaning of their own; they win over the rest.

    **Good values:** diameters of RECIST target lesions: `rounding=1`, `Recorded(0, 0, 5)` in mm.
    """

    column: str
    unit: str
    minimum: float | None = 0.0
    missing: tuple[float | str, ...] = ()
    rounding: float = 0.0
    limit: float | None = None
    limit_column: str | None = None
    less_than: bool = False
    recorded: tuple[Recorded, ...] = ()

    def __post_init__(self) -> None:
        canonical(self.unit, f"unit of {self.column!r}")
        if not (math.isfinite(self.rounding) and self.rounding >= 0):
            raise _wrong(f"rounding of {self.column!r}", "a finite width of 0 or more", repr(self.rounding))
        below = self.limit is not None or self.limit_column is not None or self.less_than
        if below and self.minimum is None:
            raise _wrong(f"minimum of {self.column!r}", "a minimum, because values below a limit need one", "none")
        if self.limit is not None and not self.limit > float(self.minimum or 0.0):
            raise _wrong(f"limit of {self.column!r}", f"a limit above the minimum {self.minimum}", repr(self.limit))


@dataclasses.dataclass(frozen=True)
class Dose:
    """A column whose level holds from its row's time on, until the next row of the subject; 0 before the first row.

    `blank`: the level that a blank cell stands for; None refuses blank cells.
    """

    column: str
    unit: str = "1"
    blank: float | None = None

    def __post_init__(self) -> None:
        canonical(self.unit, f"unit of {self.column!r}")


@dataclasses.dataclass(frozen=True)
class Covariate:
    """A column with one value a subject: a number when it has a `unit`, else a word."""

    column: str
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.unit is not None:
            canonical(self.unit, f"unit of {self.column!r}")


@dataclasses.dataclass(frozen=True)
class TableSchema:
    """The columns of a long-format table: one row a visit of a subject.

    `subject`: the columns that together name a subject (joined with `/`). `time`, `time_unit`: times of any sign, in
    minute, hour, day, week, month or year. `quantities`, `doses`, `covariates`: by the name that the `Table` uses.
    `repeats`: two rows of one subject at one time are refused, or merged (`merge`) when they agree in every declared
    column. `separator`: of a text file; None means `,` for `.csv` and a tab for `.tsv` and `.txt`.

    **Raises:** `InputError` for a unit that is not known, no subject column, or no quantity.
    """

    subject: tuple[str, ...]
    time: str
    time_unit: str
    quantities: Mapping[str, Quantity]
    doses: Mapping[str, Dose] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    covariates: Mapping[str, Covariate] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    repeats: Repeats = "refuse"
    separator: str | None = None

    def __post_init__(self) -> None:
        days_per(self.time_unit, f"unit of {self.time!r}")
        if not self.subject or isinstance(self.subject, str):
            raise _wrong("subject", "a tuple of one column or more", repr(self.subject))
        if not self.quantities:
            raise _wrong("quantities", "at least one measured column", "none")
        if self.repeats not in REPEATS:
            raise _wrong("repeats", f"one of {', '.join(REPEATS)}", repr(self.repeats))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that must be in the file, each once."""
        quantities = self.quantities.values()
        names = [
            *self.subject,
            self.time,
            *(q.column for q in quantities),
            *(q.limit_column for q in quantities if q.limit_column is not None),
            *(d.column for d in self.doses.values()),
            *(c.column for c in self.covariates.values()),
        ]
        return tuple(dict.fromkeys(names))


def schema_from(declaration: Mapping[str, Any]) -> TableSchema:
    """The schema that a mapping declares, such as a file of `configs/table/`.

    Keys: `subject` (a column or a list), `time: {column, unit}`, `quantities`, `doses`, `covariates` (name -> fields
    of `Quantity`, `Dose`, `Covariate`), `repeats`, `separator`.

    **Raises:** `InputError` that names an unknown or missing key, or a value of the wrong kind.
    """
    known_keys(declaration, "the declaration of a table", SCHEMA_KEYS, ("subject", "time", "quantities"))
    subject, time = declaration["subject"], declaration["time"]
    known_keys(time, "time", ("column", "unit"), ("column", "unit"))
    return TableSchema(
        subject=(subject,) if isinstance(subject, str) else tuple(map(str, subject)),
        time=str(time["column"]),
        time_unit=str(time["unit"]),
        quantities=_parts(declaration, "quantities", _quantity),
        doses=_parts(declaration, "doses", lambda name, node: _build(Dose, name, node)),
        covariates=_parts(declaration, "covariates", lambda name, node: _build(Covariate, name, node)),
        repeats=declaration.get("repeats") or "refuse",
        separator=declaration.get("separator"),
    )


SCHEMA_KEYS = ("subject", "time", "quantities", "doses", "covariates", "repeats", "separator")


def _parts(declaration: Mapping[str, Any], key: str, build: Any) -> Mapping[str, Any]:
    nodes = declaration.get(key) or {}
    if not isinstance(nodes, Mapping):
        raise _wrong(key, "a mapping from names to columns", repr(nodes))
    return MappingProxyType({str(name): build(f"{key}.{name}", node) for name, node in nodes.items()})


def _quantity(name: str, node: Any) -> Quantity:
    known_keys(node, name, _fields(Quantity), ("column", "unit"))
    given = dict(node)
    recorded = given.pop("recorded", None) or ()
    missing = given.pop("missing", None) or ()
    return _build(
        Quantity,
        name,
        {
            **given,
            "recorded": tuple(_build(Recorded, f"{name}.recorded", r) for r in recorded),
            "missing": tuple("" if m is None else m for m in missing),
        },
    )


def _build(kind: Any, name: str, node: Any) -> Any:
    required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    known_keys(node, name, _fields(kind), required)
    for field in dataclasses.fields(kind):
        value = node.get(field.name)
        if value is not None and not _fits(value, str(field.type)):
            raise _wrong(f"{name}.{field.name}", _words(str(field.type)), f"{type(value).__name__} {value!r}")
    return kind(**{str(key): value for key, value in node.items()})


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is of the kind that a field's annotation names; a whole number passes for a number."""
    if isinstance(value, bool):
        return "bool" in annotation
    return any(name in annotation and isinstance(value, kind) for name, (kind, _) in _KINDS.items())


def _words(annotation: str) -> str:
    return " or ".join(words for name, (_, words) in _KINDS.items() if name in annotation)


_KINDS: Mapping[str, tuple[Any, str]] = MappingProxyType(
    {
        "tuple": (tuple, "a list"),
        "float": ((int, float), "a number"),
        "str": (str, "a word"),
        "bool": (bool, "true or false"),
    }
)


def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind))


def known_keys(node: Any, where: str, allowed: Sequence[str], required: Sequence[str]) -> None:
    """Refuses what is no mapping, an unknown key (the nearest are offered) and a missing one."""
    if not isinstance(node, Mapping):
        raise _wrong(where, "a mapping (`key: value` lines)", f"{type(node).__name__} {node!r}")
    for key in node:
        if key not in allowed:
            raise unknown_key(key, where, allowed, file=None)
    for key in required:
        if node.get(key) is None:
            raise _wrong(where, f"`{key}`", "no such key")


def _wrong(where: str, required: str, received: str) -> InputError:
    return InputError(
        file=None, required=f"{where}: {required}", received=received, advice="docs/use/tables.md shows a declaration"
    )
