"""Units that a table may be written in, and the factor to the canonical one: converted at the door, once."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tumortwin import units
from tumortwin._errors import InputError

DAYS_PER_MONTH = 30.4375  # a twelfth of a Julian year
MINUTES_PER_DAY = 1440.0
DAYS_PER_YEAR = 365.25

TIME_UNITS: Mapping[str, float] = MappingProxyType(
    {
        "minute": 1.0 / MINUTES_PER_DAY,
        "hour": 1.0 / units.HOURS_PER_DAY,
        units.TIME: 1.0,
        "week": float(units.DAYS_PER_WEEK),
        "month": DAYS_PER_MONTH,
        "year": DAYS_PER_YEAR,
    }
)
"""Days in one unit of time. A month is a twelfth of 365.25 days."""

QUANTITY_UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "mm": (units.LENGTH, 1.0),
        "cm": (units.LENGTH, 10.0),
        "mm^3": (units.VOLUME, 1.0),
        "cm^3": (units.VOLUME, units.MM3_PER_ML),
        "mL": (units.VOLUME, units.MM3_PER_ML),
        "ng/mL": ("ng/mL", 1.0),
        "ug/L": ("ng/mL", 1.0),
        "ug/mL": ("ng/mL", 1000.0),
        "nmol/L": ("nmol/L", 1.0),
        "mg/L": ("mg/L", 1.0),
        "mg": ("mg", 1.0),
        "mg/kg": ("mg/kg", 1.0),
        "mg/day": ("mg/day", 1.0),
        "g": ("g", 1.0),
        "kg": ("g", 1000.0),
        "Gy": (units.DOSE, 1.0),
        "1e9/L": ("1e9/L", 1.0),
        "g/L": ("g/L", 1.0),
        "g/dL": ("g/L", 10.0),
        units.FRACTION: (units.FRACTION, 1.0),
        "%": (units.FRACTION, 0.01),
        **{name: (units.TIME, days) for name, days in TIME_UNITS.items()},
    }
)
"""Unit as written -> (canonical unit, factor). A unit that is not here is refused, never guessed."""


def days_per(unit: str, where: str) -> float:
    """Days in one `unit`. **Raises:** `InputError` for a unit of time that is not known; `where` names the place."""
    if unit not in TIME_UNITS:
        raise _unknown(unit, where, TIME_UNITS)
    return TIME_UNITS[unit]


def canonical(unit: str, where: str) -> tuple[str, float]:
    """`(canonical unit, factor)` of `unit`. **Raises:** `InputError` for a unit that is not known."""
    if unit not in QUANTITY_UNITS:
        raise _unknown(unit, where, QUANTITY_UNITS)
    return QUANTITY_UNITS[unit]


def _unknown(unit: str, where: str, known: Iterable[str]) -> InputError:
    names = list(known)
    near = difflib.get_close_matches(str(unit), names, n=3, cutoff=0.4)
    return InputError(
        file=None,
        required=f"{where}: a known unit ({', '.join(names)})",
        received=repr(unit),
        advice=f"did you mean {' or '.join(map(repr, near))}?" if near else "convert the column, or ask for the unit",
    )
