"""JSON as the run directory keeps it: arrays are lists, what is not finite is null, files appear whole."""

import json
import math
import os
from pathlib import Path
from typing import Any

from tumortwin._errors import InputError
from tumortwin._files import write_text


def plain(value: Any) -> Any:
    """`value` in the words of JSON: arrays become lists, NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    to_list = getattr(value, "tolist", None)
    return plain(to_list()) if callable(to_list) else str(value)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file; `InputError` names a file that is not one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            file=path,
            required="a readable JSON file",
            received=f"{type(error).__name__}: {error}",
            advice="check the path; a file of a run directory is made again by deleting it and repeating the command",
        ) from error
