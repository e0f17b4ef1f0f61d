"""A finished surrogate on disk: `surrogate.eqx` (arrays) and `spec.json` (what they are of, and their checksum)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from tumortwin._errors import InputError
from tumortwin._files import atomic_path
from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.io._store import PathLike, existing
from tumortwin.models import (
    AbstractMechanism,
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.solvers import FixedSteps
from tumortwin.surrogates import ErrorModel, ParameterDomain, PodSurrogate, ReducedOperators

ARRAYS, SPEC = "surrogate.eqx", "spec.json"
FORMAT = 1
_MECHANISMS = {kind.__name__: kind for kind in (Diffusion, LogisticProliferation, RadiotherapyResponse)}


def write_surrogate(folder: PathLike, surrogate: PodSurrogate, facts: Mapping[str, Any]) -> Path:
    """Write a surrogate: arrays without any code, and the specification from which `read_surrogate` rebuilds it.

    **Arguments:** `facts`: how it was made (seed, samples, error on held-out cases): numbers, text, lists, mappings.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        with open(temporary / ARRAYS, "wb") as handle:
            eqx.tree_serialise_leaves(handle, surrogate)
        spec = {
            "format": FORMAT,
            "kind": type(surrogate).__name__,
            "sha256": _digest(temporary / ARRAYS),
            "structure": _structure(surrogate),
            "facts": dict(facts),
        }
        (temporary / SPEC).write_text(json.dumps(spec, indent=1, sort_keys=True), encoding="utf-8")
    return Path(folder)


def read_surrogate(folder: PathLike) -> tuple[PodSurrogate, dict[str, Any]]:
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
    if known[:2] != (FORMAT, PodSurrogate.__name__):
        raise _unusable(place / SPEC, f"format {FORMAT} of {PodSurrogate.__name__}", f"format {known[0]} of {known[1]}")
    file = place / ARRAYS
    found = _digest(file) if file.is_file() else "no such file"
    if found != known[2]:
        raise _unusable(file, f"arrays of SHA-256 {known[2]}", found)
    try:
        with open(file, "rb") as handle:
            surrogate = eqx.tree_deserialise_leaves(handle, _skeleton(spec["structure"]))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _unusable(place / SPEC, "a specification that fits its arrays", f"{error}"[:200]) from None
    return surrogate, spec["facts"]


def _unusable(file: Path, required: str, received: str) -> InputError:
    return InputError(file=file, required=required, received=received, advice="copy it again, or `tumortwin train`")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _structure(surrogate: PodSurrogate) -> dict[str, Any]:
    """All of a surrogate that is no array's content."""
    model, operators = surrogate.model, surrogate.operators
    return {
        "shape": list(model.tissue.grid.shape),
        "affine": [list(row) for row in model.tissue.grid.affine],
        "tissue": sorted(model.tissue.fields),
        "dtype": str(surrogate.modes.dtype),
        "reduced_dtype": str(operators.crowding.dtype),
        "front_correction": model.front_correction,
        "mechanisms": {
            name: {"kind": type(m).__name__, "drug": m.drug if isinstance(m, DrugResponse) else None}
            for name, m in sorted(model.mechanisms.items())
        },
        "modes": operators.size,
        "near": surrogate.near.shape[0],
        "degree": operators.diffusion.shape[0],
        "sketch": operators.sketched_crowding.shape[0],
        "paths": list(surrogate.domain.paths),
        "points": surrogate.domain.points.shape[0],
        "neighbors": surrogate.domain.neighbors,
        "levels": sorted(surrogate.levels),
        "max_step": surrogate.solver.max_step,
        "max_diffusivity": surrogate.solver.max_diffusivity,
        "substeps": surrogate.substeps,
        "horizon": surrogate.horizon,
    }


def _skeleton(s: Mapping[str, Any]) -> PodSurrogate:
    """A surrogate of the structure, its arrays empty."""
    shape, dtype, reduced = tuple(s["shape"]), jnp.dtype(s["dtype"]), jnp.dtype(s["reduced_dtype"])
    r, p, pairs = s["modes"], len(s["paths"]), s["modes"] * (s["modes"] + 1) // 2
    field, zero = jnp.zeros(shape, dtype), jnp.zeros(())
    tissue = Tissue(Domain(Grid(shape, s["affine"]), np.zeros(shape, bool)), {name: field for name in s["tissue"]})
    mechanisms: dict[str, AbstractMechanism] = {}
    for name, mechanism in s["mechanisms"].items():
        is_drug = mechanism["kind"] == DrugResponse.__name__
        kind = DrugResponse if is_drug else _MECHANISMS[mechanism["kind"]]
        mechanisms[name] = kind(zero, drug=mechanism["drug"]) if is_drug else kind(zero)  # type: ignore[call-arg]
    vector = jnp.zeros(p)
    return PodSurrogate(
        ReactionDiffusion(mechanisms, tissue, GivenDensity(field), s["front_correction"]),
        jnp.zeros((r, *shape), dtype),
        jnp.zeros(s["near"], int),
        jnp.zeros((r, s["near"]), dtype),
        jnp.zeros(r, dtype),
        ReducedOperators(
            jnp.zeros((s["degree"], r, r), reduced),
            jnp.zeros((r, pairs), reduced),
            jnp.zeros((s["degree"], s["sketch"], r), reduced),
            jnp.zeros((s["sketch"], pairs), reduced),
            jnp.zeros(2, reduced),
        ),
        ParameterDomain(
            vector, vector, jnp.zeros((s["points"], p)), vector, vector, zero, tuple(s["paths"]), s["neighbors"]
        ),
        ErrorModel(zero, {name: zero for name in ("mass", *s["levels"])}, zero, zero, zero),
        {name: zero for name in s["levels"]},
        FixedSteps(s["max_step"], s["max_diffusivity"]),
        s["substeps"],
        s["horizon"],
    )
