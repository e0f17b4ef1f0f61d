"""What of a surrogate is no array's content, by kind, and the empty surrogate that is made of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tumortwin.geometry import Domain, Grid, Tissue
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
from tumortwin.surrogates import (
    SUMMARY,
    ErrorModel,
    FnoSurrogate,
    OperatorSettings,
    ParameterDomain,
    PodSurrogate,
    ReducedOperators,
    begin_networks,
)

_MECHANISMS = {kind.__name__: kind for kind in (Diffusion, LogisticProliferation, RadiotherapyResponse)}


# --- what every kind has ---


def _model_structure(model: ReactionDiffusion) -> dict[str, Any]:
    return {
        "shape": list(model.tissue.grid.shape),
        "affine": [list(row) for row in model.tissue.grid.affine],
        "tissue": sorted(model.tissue.fields),
        "dtype": str(model.initial.state(model.tissue).density.dtype),
        "front_correction": model.front_correction,
        "mechanisms": {
            name: {"kind": type(m).__name__, "drug": m.drug if isinstance(m, DrugResponse) else None}
            for name, m in sorted(model.mechanisms.items())
        },
    }


def _model_skeleton(s: Mapping[str, Any]) -> ReactionDiffusion:
    shape, zero = tuple(s["shape"]), jnp.zeros(())
    field = jnp.zeros(shape, jnp.dtype(s["dtype"]))
    tissue = Tissue(Domain(Grid(shape, s["affine"]), np.zeros(shape, bool)), {name: field for name in s["tissue"]})
    mechanisms: dict[str, AbstractMechanism] = {}
    for name, mechanism in s["mechanisms"].items():
        is_drug = mechanism["kind"] == DrugResponse.__name__
        kind = DrugResponse if is_drug else _MECHANISMS[mechanism["kind"]]
        mechanisms[name] = kind(zero, drug=mechanism["drug"]) if is_drug else kind(zero)  # type: ignore[call-arg]
    return ReactionDiffusion(mechanisms, tissue, GivenDensity(field), s["front_correction"])


def _conscience_structure(surrogate: PodSurrogate | FnoSurrogate) -> dict[str, Any]:
    return {
        "paths": list(surrogate.domain.paths),
        "points": surrogate.domain.points.shape[0],
        "neighbors": surrogate.domain.neighbors,
        "levels": sorted(surrogate.levels),
        "max_step": surrogate.solver.max_step,
        "max_diffusivity": surrogate.solver.max_diffusivity,
        "horizon": surrogate.horizon,
    }


def _conscience_skeleton(
    s: Mapping[str, Any],
) -> tuple[ParameterDomain, ErrorModel, dict[str, jax.Array], FixedSteps]:
    zero, vector = jnp.zeros(()), jnp.zeros(len(s["paths"]))
    points = jnp.zeros((s["points"], len(s["paths"])))
    return (
        ParameterDomain(vector, vector, points, vector, vector, zero, tuple(s["paths"]), s["neighbors"]),
        ErrorModel(zero, {name: zero for name in ("mass", *s["levels"])}, zero, zero, zero, zero),
        {name: zero for name in s["levels"]},
        FixedSteps(s["max_step"], s["max_diffusivity"]),
    )


# --- reduced-order models ---


def _pod_structure(surrogate: PodSurrogate) -> dict[str, Any]:
    """All of a surrogate that is no array's content."""
    model, operators = surrogate.model, surrogate.operators
    return {
        **_model_structure(model),
        "reduced_dtype": str(operators.crowding.dtype),
        "modes": operators.size,
        "near": surrogate.near.shape[0],
        "degree": operators.diffusion.shape[0],
        "sketch": operators.sketched_crowding.shape[0],
        **_conscience_structure(surrogate),
        "substeps": surrogate.substeps,
    }


def _pod_skeleton(s: Mapping[str, Any]) -> PodSurrogate:
    """A surrogate of the structure, its arrays empty."""
    shape, dtype, reduced = tuple(s["shape"]), jnp.dtype(s["dtype"]), jnp.dtype(s["reduced_dtype"])
    r, pairs = s["modes"], s["modes"] * (s["modes"] + 1) // 2
    domain, error, levels, solver = _conscience_skeleton(s)
    return PodSurrogate(
        _model_skeleton(s),
        jnp.zeros((r, *shape), dtype),
        jnp.zeros(s["near"], int),
        jnp.zeros((r, s["near"]), dtype),
        jnp.zeros(r),
        ReducedOperators(
            jnp.zeros((s["degree"], r, r), reduced),
            jnp.zeros((r, pairs), reduced),
            jnp.zeros((s["degree"], s["sketch"], r), reduced),
            jnp.zeros((s["sketch"], pairs), reduced),
            jnp.zeros(2, reduced),
        ),
        domain,
        error,
        levels,
        solver,
        s["substeps"],
        s["horizon"],
    )


# --- neural operators ---


def _fno_structure(surrogate: FnoSurrogate) -> dict[str, Any]:
    networks = surrogate.networks
    return {
        **_model_structure(surrogate.model),
        **_conscience_structure(surrogate),
        "modes": networks.blocks[0].spectral.shape[1],
        "width": networks.lift.bias.shape[1],
        "blocks": len(networks.blocks),
        "members": surrogate.members,
        "hidden": networks.reader[0].bias.shape[1],
        "weights": str(networks.dtype),
        "given": sorted(surrogate.largest_doses),
    }


def _fno_skeleton(s: Mapping[str, Any]) -> FnoSurrogate:
    sizes = {name: s[name] for name in ("modes", "width", "blocks", "members", "hidden")}
    networks = begin_networks(OperatorSettings(**sizes), key=jax.random.key(0), dtype=jnp.dtype(s["weights"]))
    vector = jnp.zeros(SUMMARY)
    doses, rest = {name: jnp.zeros(()) for name in s["given"]}, _conscience_skeleton(s)
    return FnoSurrogate(_model_skeleton(s), networks, vector, vector, vector, vector, doses, *rest, s["horizon"])


class Kind(NamedTuple):
    """How a kind of surrogate is written down, and made again. `version`: of what is written, from 1."""

    version: int
    structure: Callable[[Any], dict[str, Any]]
    skeleton: Callable[[Mapping[str, Any]], Any]


KINDS = {
    PodSurrogate.__name__: Kind(2, _pod_structure, _pod_skeleton),
    FnoSurrogate.__name__: Kind(3, _fno_structure, _fno_skeleton),
}
