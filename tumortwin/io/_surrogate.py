"""A finished surrogate on disk: `surrogate.eqx` (arrays) and `spec.json` (what they are of, and their checksum)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx

from tumortwin._errors import InputError
from tumortwin._files import atomic_path
from tumortwin.io._store import PathLike, existing
from tumortwin.io._surrogate_kinds import KINDS
from tumortwin.surrogates import AbstractSurrogate

ARRAYS, SPEC = "surrogate.eqx", "spec.json"


def write_surrogate(folder: PathLike, surrogate: AbstractSurrogate, facts: Mapping[str, Any]) -> Path:
    """Write a surrogate: arrays without any code, and the specification from which `read_surrogate` rebuilds it.

    **Arguments:** `facts`: how it was made (seed, samples, error on held-out cases): numbers, text, lists, mappings.
    """
    kind = KINDS[type(surrogate).__name__]
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        with open(temporary / ARRAYS, "wb") as handle:
            eqx.tree_serialise_leaves(handle, surrogate)
        spec = {
            "format": kind.version,
            "kind": type(surrogate).__name__,
            "sha256": _digest(temporary / ARRAYS),
            "structure": kind.structure(surrogate),
            "facts": dict(facts),
        }
        (temporary / SPEC).write_text(json.dumps(spec, indent=1, sort_keys=True), encoding="utf-8")
    return Path(folder)


def read_surrogate(folder: PathLike) -> tuple[AbstractSurrogate, dict[str, Any]]:
    """`(surrogate, facts)` as they were given to `write_surrogate`.

    **Raises:** `InputError` for a missing or incomplete folder, another format, or arrays whose checksum is not that of
    the specification: they were damaged or exchanged.
    """
    place = existing(folder, "of a surrogate")
    try:
        spec = json.loads((place / SPEC).read_text(encoding="utf-8"))
        known = spec["format"], spec["kind"], spec["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(place / SPEC, "a specification as `tumortwin train` writes it", f"{error}"[:200]) from None
    if known[1] not in KINDS or known[0] != KINDS[known[1]].version:
        required = " or ".join(f"format {kind.version} of {name}" for name, kind in KINDS.items())
        raise _unusable(place / SPEC, required, f"format {known[0]} of {known[1]}", "`tumortwin train` again")
    file = place / ARRAYS
    found = _digest(file) if file.is_file() else "no such file"
    if found != known[2]:
        raise _unusable(file, f"arrays of SHA-256 {known[2]}", found)
    try:
        with open(file, "rb") as handle:
            surrogate = eqx.tree_deserialise_leaves(handle, KINDS[known[1]].skeleton(spec["structure"]))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _unusable(place / SPEC, "a specification that fits its arrays", f"{error}"[:200]) from None
    return surrogate, spec["facts"]


def _unusable(
    file: Path, required: str, received: str, advice: str = "copy it again, or `tumortwin train`"
) -> InputError:
    return InputError(file=file, required=required, received=received, advice=advice)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
