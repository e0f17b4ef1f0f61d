"""What a surrogate is: it stands for a model, is called like one, and says how far it may be trusted."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.models import ReactionDiffusion, TumorState
from tumortwin.params import get_parameter, set_parameters
from tumortwin.solvers import Trajectory
from tumortwin.treatments import Schedule

MASS = "mass"


class Quantities(eqx.Module):
    """What is asked of a tumor without its field, and how far off each number may be.

    `values` name -> [time]: `mass` [mm^3] and, for every level of the surrogate, the volume [mm^3] in which the density
    exceeds it; `bounds` name -> [time]: half-width of the interval around the value that holds the model's own answer
    with the surrogate's `level` of confidence, at all times together; `error` [time]: the same bound for the relative
    L2 error of the density; `inside`: whether the surrogate vouches for them (else they are not to be used). Of many
    draws (`many`) the draws come first.
    """

    values: dict[str, Float[Array, "*draw time"]]
    bounds: dict[str, Float[Array, "*draw time"]]
    error: Float[Array, "*draw time"]
    inside: Bool[Array, "*draw"]


class AbstractSurrogate(eqx.Module):
    """Stands for a model as a model stands for the patient: the same call as `simulate`, and a conscience.

    `surrogate(model, schedule, days)` returns a `Trajectory`, with the surrogate's error bound as its `error_estimate`
    and `RESULTS.outside_domain` as its `result` where the surrogate does not vouch for it. So whoever takes a failed
    solve for a failed solve (a calibrator gives it probability zero, a controller refuses it) treats a surrogate right
    without knowing that it has one; `StandIn` solves the model itself there.

    `model`: the model that it was trained on; its tissue is the anatomy, its start the start it was trained from. It
    is asked with models whose parameters differ (`at`), and with other anatomies and starts where its kind allows it.
    """

    model: eqx.AbstractVar[ReactionDiffusion]

    @abc.abstractmethod
    def __call__(self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float]) -> Trajectory:
        """The states of `model` under `schedule` at the concrete days `ts`, from the model's own start."""

    @abc.abstractmethod
    def quantities(self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float]) -> Quantities:
        """Mass and volumes at `ts`, without the field where that is cheaper."""

    @abc.abstractmethod
    def read_field(self, states: TumorState) -> dict[str, Float[Array, " time"]]:
        """The quantities of densities [time x y z]."""

    @abc.abstractmethod
    def inside(self, model: ReactionDiffusion) -> Bool[Array, ""]:
        """Whether the parameters of `model` are among those that it was trained on. Known before anything is solved."""

    @abc.abstractmethod
    def many(self, values: Mapping[str, Array], schedule: Schedule, ts: Sequence[float]) -> Quantities:
        """`quantities` of many sets of parameters (path -> [draw]), leaves [draw time], from the surrogate's start."""

    def at(self, values: Mapping[str, Any]) -> ReactionDiffusion:
        """The model with other parameter values (numbers or scalar arrays), by path."""
        return set_parameters(self.model, values)

    @abc.abstractmethod
    def check(self, model: ReactionDiffusion) -> None:
        """That `model` is one that this surrogate can stand for: the same mechanisms on the same voxels.

        **Raises:** `ValueError` for another grid spacing or shape, or other mechanisms, and for another tissue where
        the surrogate is one of a single anatomy.
        """


def density_quantities(
    density: Float[Array, "time x y z"], levels: Mapping[str, Float[Array, ""]], cell: float
) -> dict[str, Float[Array, " time"]]:
    """Mass, and the volume above every level, of densities on voxels of the volume `cell` [mm^3].

    The mass is added up in the default precision: a sum of 1e5 single numbers is off by 1e-5, more than a surrogate is.
    """
    found = {MASS: (jnp.sum(density, axis=(1, 2, 3), dtype=float) * cell).astype(density.dtype)}
    for name, level in levels.items():
        above = density > level.astype(density.dtype)
        found[name] = jnp.sum(above, axis=(1, 2, 3), dtype=density.dtype) * cell
    return found


def same_kind(known: ReactionDiffusion, asked: ReactionDiffusion) -> None:
    """`ValueError` when two models differ in their voxels or mechanisms. Works on traced models too."""
    for what, there, here in (
        ("grid shape", known.tissue.grid.shape, asked.tissue.grid.shape),
        ("grid spacing [mm]", known.tissue.grid.spacing, asked.tissue.grid.spacing),
        ("front correction", known.front_correction, asked.front_correction),
        ("mechanisms", kinds(known), kinds(asked)),
        ("tissue fields", sorted(known.tissue.fields), sorted(asked.tissue.fields)),
    ):
        if there != here:
            _refuse(what, there, here)


def same_model(known: ReactionDiffusion, asked: ReactionDiffusion) -> None:
    """`ValueError` when two models differ in more than what a surrogate of one anatomy is asked about."""
    same_kind(known, asked)
    fields = {"mask": (known.tissue.domain.mask, asked.tissue.domain.mask)}
    fields |= {name: (field, asked.tissue.fields[name]) for name, field in sorted(known.tissue.fields.items())}
    for name, (there, here) in fields.items():
        others = int(np.sum(np.asarray(there) != np.asarray(here)))
        if others:
            _refuse(f"anatomy ({name})", "voxel by voxel", f"{others} voxels that differ")
    same_ratio(known, asked)


def same_ratio(known: ReactionDiffusion, asked: ReactionDiffusion) -> None:
    """`ValueError` when two models differ in the ratio of diffusivities, which no surrogate varies."""
    ratio = "mechanisms.diffusion.gray_ratio"
    if float(get_parameter(known, ratio)) != float(get_parameter(asked, ratio)):
        _refuse("ratio of diffusivities", float(get_parameter(known, ratio)), float(get_parameter(asked, ratio)))


ADVICE = {
    "grid shape": "a box of that shape (`ModelFrame.of_shape`), the margin of the training, or train one for it",
    "grid spacing [mm]": "that spacing (`Twin.of(..., spacing=)`, where the voxel divides it), or train one for it",
    "mechanisms": "`GliomaSettings(pattern_modes=0)` where only the growth differs, or train one for these",
}


def _refuse(what: str, there: object, here: object) -> None:
    raise ValueError(
        f"required: the {what} that the surrogate was trained on, {there}; received: {here}; "
        f"try: {ADVICE.get(what, 'train one for it')}"
    )


def kinds(model: ReactionDiffusion) -> dict[str, str]:
    """The kind of every mechanism, by name."""
    return {name: type(mechanism).__name__ for name, mechanism in sorted(model.mechanisms.items())}
