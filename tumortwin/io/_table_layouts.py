"""Layouts of the public tables: a declaration of `configs/table/` and where its files lie under the data root."""

import dataclasses
import datetime
import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tumortwin._errors import InputError
from tumortwin._paths import shipped
from tumortwin.io._roots import find_data_root, require_file
from tumortwin.io._table import DoseHistory, Table
from tumortwin.io._table_schema import SCHEMA_KEYS, TableSchema, known_keys, schema_from
from tumortwin.io._tables import read_table

PLACE_KEYS = ("label", "folder", "file", "courses")
OWN = "own"  # the choice of `table` that asks for a declaration: no layout
_COURSE = re.compile(r"(?P<kind>[cr])\d*_days")
_COURSES = {"c": "temozolomide", "r": "radiotherapy"}


@dataclasses.dataclass(frozen=True)
class TableLayout:
    """A `schema` and the file it describes: `folder`/`file` under the data root (or `file` in it). `courses`: a JSON
    file of treatment courses beside it (`read_courses`)."""

    name: str
    folder: str
    file: str
    schema: TableSchema
    courses: str | None = None


def table_layouts() -> list[str]:
    """The names of the layouts that ship with the package."""
    return sorted(path.stem for path in shipped("configs").glob("table/*.yaml") if path.stem != OWN)


def table_layout(name: str | os.PathLike[str]) -> TableLayout:
    """The layout of that name, or the one in a YAML file of your own.

    **Raises:** `InputError` for a name that is not there (the nearest are offered) or a declaration that is wrong.
    """
    import yaml

    own = Path(name)
    path = own if own.suffix in (".yaml", ".yml") else shipped("configs") / "table" / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(str(name), table_layouts(), n=3, cutoff=0.4)
        raise InputError(
            file=path if path == own else None,
            required=f"a layout: {', '.join(table_layouts())}, or a .yaml file",
            received=repr(str(name)),
            advice=f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else "docs/use/tables.md shows how to write one",
        )
    try:
        return layout_from(yaml.safe_load(path.read_text(encoding="utf-8")), name=path.stem)
    except yaml.YAMLError as error:
        raise InputError(
            file=path,
            required="valid YAML",
            received=" ".join(str(error).split())[:300],
            advice="mend the line it names",
        ) from None


def layout_from(declaration: Mapping[str, Any], *, name: str = "table") -> TableLayout:
    """The layout that a mapping declares: the keys of `schema_from`, `folder`, `file`, and perhaps `courses` and
    a `label` (what runs on the table are named after).

    **Raises:** `InputError` that names the key.
    """
    known_keys(declaration, f"table={name}", (*PLACE_KEYS, *SCHEMA_KEYS), ("folder", "file"))
    schema = schema_from({key: value for key, value in declaration.items() if key not in PLACE_KEYS})
    return TableLayout(name, str(declaration["folder"]), str(declaration["file"]), schema, declaration.get("courses"))


def load_table(
    layout: str | TableLayout, root: str | os.PathLike[str] | None = None, *, file: str | None = None
) -> Table:
    """The table of a layout under the data root `root` (None: looked for as `find_data_root` says).

    `file`: another file of the same columns, under `root` or its folder.

    **Raises:** `InputError` for data that is not there, and as `read_table`.
    """
    chosen = layout if isinstance(layout, TableLayout) else table_layout(layout)
    place = find_data_root(root)
    name = file or chosen.file
    table = read_table(require_file(place, f"{chosen.folder}/{name}", name), chosen.schema)
    if chosen.courses is None:
        return table
    return read_courses(table, require_file(place, f"{chosen.folder}/{chosen.courses}", chosen.courses))


def read_courses(table: Table, path: str | os.PathLike[str]) -> Table:
    """The table with the treatment courses of a JSON file: {subject: {treatments: {c_days: [start, end], ...}}}.

    Days are those of the table. `c_days`, `c2_days`, ... are courses of temozolomide, `r_days`, ... of radiotherapy:
    doses of level 1 from start to end, 0 else. Covariates: `surgery_day` (from the date `s`, by the offset between a
    course's dates and its days; NaN without) and `temozolomide_doses` (NaN without). Further subjects are ignored.

    **Raises:** `InputError` for a file that is missing or no JSON, a subject without an entry, a course without a start
    before its end, courses of one kind that overlap.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            file=path, required="courses as JSON", received=f"{type(error).__name__}: {error}", advice="mend the file"
        ) from None
    plans = [_plan(content, subject, path) for subject in table.subjects]
    doses = {name: _dose(plans, kind, table.subjects, path) for kind, name in _COURSES.items()}
    covariates = {
        "surgery_day": np.array([_surgery(p) for p in plans]),
        "temozolomide_doses": np.array([float(p.get("nb_tmz_doses", np.nan)) for p in plans]),
    }
    return dataclasses.replace(table, doses={**table.doses, **doses}, covariates={**table.covariates, **covariates})


def _plan(content: Any, subject: str, path: Path) -> Mapping[str, Any]:
    entry = content.get(subject) if isinstance(content, Mapping) else None
    plan = entry.get("treatments") if isinstance(entry, Mapping) else None
    if not isinstance(plan, Mapping):
        raise InputError(
            file=path,
            required=f"`treatments` of subject {subject!r}",
            received="no such entry",
            advice='a subject without treatment has an empty one: {"treatments": {}}',
        )
    return plan


def _dose(plans: list[Mapping[str, Any]], kind: str, subjects: tuple[str, ...], path: Path) -> DoseHistory:
    edges, levels = [], []
    for subject, plan in zip(subjects, plans, strict=True):
        courses = sorted(
            _course(plan[key], f"{subject}: {key}", path)
            for key in plan
            if (match := _COURSE.fullmatch(key)) is not None and match["kind"] == kind
        )
        for (_, end), (start, _) in zip(courses, courses[1:], strict=False):
            if start < end:
                raise _bad_course(
                    path, f"{subject}: courses that do not overlap", f"one from {start:g}, one to {end:g}"
                )
        edges.append(np.array([day for course in courses for day in course]))
        levels.append(np.array([1.0, 0.0] * len(courses)))
    return DoseHistory("1", tuple(edges), tuple(levels))


def _course(value: Any, where: str, path: Path) -> tuple[float, float]:
    numbers = isinstance(value, list) and all(isinstance(v, int | float) and np.isfinite(v) for v in value)
    if not numbers or len(value) != 2 or not value[0] < value[1]:
        raise _bad_course(path, f"{where}: [start, end] in days, start before end", repr(value))
    return float(value[0]), float(value[1])


def _bad_course(path: Path, required: str, received: str) -> InputError:
    return InputError(file=path, required=required, received=received, advice="check the dates of the courses")


def _surgery(plan: Mapping[str, Any]) -> float:
    """Day of the surgery, by the offset between the dates of a course and its days; NaN when that is not known."""
    for key in plan:
        dates = plan.get(key.removesuffix("_days"))
        if _COURSE.fullmatch(key) and dates and plan.get("s"):
            start, surgery = (datetime.date.fromisoformat(text) for text in (dates[0], plan["s"]))
            return float(plan[key][0]) + float((surgery - start).days)
    return float("nan")
