"""The words of patient.yaml, checked: unknown keys, wrong types and missing entries are errors that help."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumortwin._errors import InputError, unknown_key

FILE = "patient.yaml"
PATIENT_KEYS = (
    "id", "brain", "anatomy", "tissue", "resample", "visits", "treatments", "source", "assumptions",
)  # fmt: skip
VISIT_KEYS = ("day", "masks", "adc", "adc_unit", "adc_valid")
TISSUE_KEYS = ("white_matter", "gray_matter")
TREATMENT_KEYS = ("radiotherapy", "temozolomide", "resection")
RADIOTHERAPY_KEYS = ("days", "doses", "start", "fractions", "dose", "start_weekday")
DRUG_KEYS = ("days", "doses", "first_day", "last_day", "dose")
RESECTION_KEYS = ("day", "mask", "removed")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, read with the safe loader.

    **Raises:** `InputError` for a missing file, broken YAML or something that is no mapping.
    """
    import yaml

    if not path.is_file():
        raise InputError(
            file=path,
            required=f"a patient's folder with {FILE} in it",
            received="no such file" if path.parent.is_dir() else f"no folder {path.parent}",
            advice="see docs/use/own-patient.md for a full example",
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            file=path, required="valid YAML in UTF-8", received=reason[:300], advice="mend the line it names"
        ) from None
    return mapping(content, FILE, PATIENT_KEYS, path)


def mapping(value: Any, where: str, allowed: Sequence[str], file: Path, required: Sequence[str] = ()) -> dict[str, Any]:
    """`value` as a mapping with known keys only; the nearest names are offered for an unknown one."""
    if not isinstance(value, Mapping):
        raise wrong_type(where, "a mapping (`key: value` lines)", value, file)
    for key in value:
        if key not in allowed:
            raise unknown_key(key, where, allowed, file=file)
    for key in required:
        if key not in value:
            raise InputError(
                file=file, required=f"`{key}` in {where}", received="no such key", advice=f"add `{key}:` to {where}"
            )
    return dict(value)


def number(value: Any, where: str, file: Path) -> float:
    """A finite number (a bool is none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(where, "a number", value, file)
    if not math.isfinite(value):
        raise wrong_type(where, "a finite number", value, file)
    return float(value)


def count(value: Any, where: str, file: Path) -> int:
    """A whole number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wrong_type(where, "a whole number of 0 or more", value, file)
    return value


def numbers(value: Any, where: str, file: Path) -> list[float]:
    """A list of finite numbers."""
    if not isinstance(value, list):
        raise wrong_type(where, "a list of numbers", value, file)
    return [number(v, f"{where}[{i}]", file) for i, v in enumerate(value)]


def text(value: Any, where: str, file: Path) -> str:
    """A non-empty text."""
    if not isinstance(value, str) or not value.strip():
        raise wrong_type(where, "a text", value, file)
    return value


def flag(value: Any, where: str, file: Path) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise wrong_type(where, "true or false", value, file)
    return value


def items(value: Any, where: str, file: Path) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise wrong_type(where, "a list (lines that begin with `-`)", value, file)
    return value


def wrong_type(where: str, required: str, value: Any, file: Path) -> InputError:
    """The error for a value of the wrong kind."""
    return InputError(
        file=file,
        required=f"`{where}`: {required}",
        received=f"{type(value).__name__} {value!r}"[:200],
        advice="see docs/use/own-patient.md for a full example",
    )
