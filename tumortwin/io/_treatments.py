"""The `treatments` part of patient.yaml becomes a `Schedule`, checked before any array is made."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tumortwin import units
from tumortwin._errors import InputError
from tumortwin.io import _patient_yaml as words
from tumortwin.io._checks import check_doses
from tumortwin.treatments import Course, Resection, Schedule, weekday_fractions

MONDAY = 0
LARGEST_FRACTION = 30.0  # [Gy]; radiosurgery in one fraction gives 15-24 Gy


def read_treatments(value: Any, file: Path, read_mask: Callable[[str, str], np.ndarray]) -> Schedule:
    """Schedule of `treatments:`; `read_mask(name, key)` brings a mask file onto the patient's grid.

    Radiotherapy: `days` and `doses` [Gy] (a list or one number), or `start`, `fractions`, `dose` and `start_weekday`
    (0 = Monday, the weekday of day `start`) for weekdays only. Temozolomide: `days` and `doses`, or `first_day`,
    `last_day` and `dose` for every day between, as one course or a list of courses; the dose is the multiple of the
    reference daily dose of the drug model. Resection: `day`, `mask` and `removed` (share, 1 by default), one or a list.

    **Raises:** `InputError` for unknown keys, wrong types, doses before day 0, negative or disordered doses.
    """
    if value is None:
        return Schedule()
    plan = words.mapping(value, "treatments", words.TREATMENT_KEYS, file)
    radiotherapy = None
    if plan.get("radiotherapy") is not None:
        entry = words.mapping(plan["radiotherapy"], "treatments.radiotherapy", words.RADIOTHERAPY_KEYS, file)
        days, doses = _fractions(entry, file)
        radiotherapy = _course("treatments.radiotherapy", days, doses, file)
        if max(doses, default=0.0) > LARGEST_FRACTION:
            raise InputError(
                file=file,
                required=f"treatments.radiotherapy: Gy a fraction, up to {LARGEST_FRACTION:g}",
                received=f"{max(doses):g}",
                advice="give the dose of one fraction in Gy (2 Gy is 200 cGy), not the total",
            )
    drugs = {}
    if plan.get("temozolomide") is not None:
        drugs["temozolomide"] = _drug("treatments.temozolomide", plan["temozolomide"], file)
    entries = _as_list(plan.get("resection"))
    resections = [_resection(entry, f"treatments.resection[{i}]", file, read_mask) for i, entry in enumerate(entries)]
    _distinct_days([r.time for r in resections], file)
    return Schedule(radiotherapy=radiotherapy, drugs=drugs, resections=resections)


def _fractions(entry: Mapping[str, Any], file: Path) -> tuple[list[float], list[float]]:
    where = "treatments.radiotherapy"
    if "days" in entry:
        _exclusive(entry, ("start", "fractions", "dose", "start_weekday"), where, file)
        return _listed(entry, where, file)
    words.mapping(entry, where, words.RADIOTHERAPY_KEYS, file, required=("start", "fractions", "dose"))
    _exclusive(entry, ("doses",), where, file)
    weekday = words.count(entry.get("start_weekday", MONDAY), f"{where}.start_weekday", file)
    if weekday >= units.DAYS_PER_WEEK:
        raise words.wrong_type(f"{where}.start_weekday", "0 (Monday) to 6 (Sunday)", weekday, file)
    start, dose = (words.number(entry[key], f"{where}.{key}", file) for key in ("start", "dose"))
    course = weekday_fractions(start, words.count(entry["fractions"], f"{where}.fractions", file), dose, weekday)
    return np.asarray(course.times, float).tolist(), [dose] * course.size


def _drug(where: str, value: Any, file: Path) -> Course:
    times: list[float] = []
    doses: list[float] = []
    for i, course in enumerate(_as_list(value)):
        here = f"{where}[{i}]"
        entry = words.mapping(course, here, words.DRUG_KEYS, file)
        if "days" in entry:
            _exclusive(entry, ("first_day", "last_day", "dose"), here, file)
            days, amounts = _listed(entry, here, file)
        else:
            words.mapping(entry, here, words.DRUG_KEYS, file, required=("first_day", "last_day", "dose"))
            _exclusive(entry, ("doses",), here, file)
            days, amounts = _daily(entry, here, file)
        times, doses = times + days, doses + amounts
    return _course(where, times, doses, file)


def _daily(entry: Mapping[str, Any], where: str, file: Path) -> tuple[list[float], list[float]]:
    first, last, dose = (words.number(entry[key], f"{where}.{key}", file) for key in ("first_day", "last_day", "dose"))
    if last < first:
        raise InputError(
            file=file,
            required=f"{where}: last_day not before first_day",
            received=f"first_day {first:g}, last_day {last:g}",
            advice="swap them",
        )
    days = [first + i for i in range(int(last - first) + 1)]
    return days, [dose] * len(days)


def _listed(entry: Mapping[str, Any], where: str, file: Path) -> tuple[list[float], list[float]]:
    words.mapping(entry, where, tuple(entry), file, required=("doses",))
    days = words.numbers(entry["days"], f"{where}.days", file)
    given = entry["doses"]
    if isinstance(given, list):
        return days, words.numbers(given, f"{where}.doses", file)
    return days, [words.number(given, f"{where}.doses", file)] * len(days)


def _course(where: str, times: list[float], doses: list[float], file: Path) -> Course:
    check_doses(where, times, doses, file=file)
    return Course(np.asarray(times, float), np.asarray(doses, float))


def _resection(value: Any, where: str, file: Path, read_mask: Callable[[str, str], np.ndarray]) -> Resection:
    entry = words.mapping(value, where, words.RESECTION_KEYS, file, required=("day", "mask"))
    day = words.number(entry["day"], f"{where}.day", file)
    share = words.number(entry.get("removed", 1.0), f"{where}.removed", file)
    if not 0.0 <= share <= 1.0:
        raise words.wrong_type(f"{where}.removed", "a share in [0, 1]", share, file)
    if day < 0:
        raise InputError(
            file=file,
            required=f"{where}: no resection before the first scan (day 0)",
            received=f"day {day:g}",
            advice="the first scan already shows the cavity: leave it out",
        )
    mask = read_mask(entry["mask"], f"{where}.mask")
    return Resection(day, share * mask.astype(np.float32))


def _distinct_days(days: list[float], file: Path) -> None:
    if len(set(days)) != len(days):
        raise InputError(
            file=file, required="one resection a day", received=f"days {days}", advice="join the masks of one operation"
        )


def _exclusive(entry: Mapping[str, Any], others: tuple[str, ...], where: str, file: Path) -> None:
    clash = [key for key in others if key in entry]
    if clash:
        raise InputError(
            file=file,
            required=f"{where}: either a list (`days`, `doses`) or a rule, not both",
            received=f"`{clash[0]}` beside `{'days' if 'days' in entry else 'start or first_day'}`",
            advice="remove one of the two forms",
        )


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
