"""One neural operator for many anatomies, with its error bound and its domain."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.geometry import Faces, face_conductances
from tumortwin.models import ReactionDiffusion, TumorState
from tumortwin.params import get_parameter
from tumortwin.solvers import RESULTS, FixedSteps, Trajectory
from tumortwin.surrogates._base import MASS, AbstractSurrogate, Quantities, density_quantities, same_kind, same_ratio
from tumortwin.surrogates._domain import ParameterDomain
from tumortwin.surrogates._error import ErrorModel
from tumortwin.surrogates.fno._base_solution import summary_of
from tumortwin.surrogates.fno._operator import FourierOperator
from tumortwin.treatments import Schedule

# The base alone is right at day 0; the network has taken over after a few of these days.
HANDOVER = 2.0
# Densities are told apart down to here: the logit of the base is that of (a + f) / (1 - a + f).
LOGIT_FLOOR = 1e-4
FIELDS = 6
RADIOTHERAPY = "radiotherapy"
# A start within so many voxels of the middle of its box is in the middle.
MIDDLE = 2.0


class Asked(eqx.Module):
    """What a network is shown of one model: `start`, share of the white matter's diffusivity `relative`, `inside` the
    domain (1 or 0) [x y z]; of every day the `base` [time x y z], the standardized `summary` [time number], and the
    diffusion `reach` sqrt(D t) / h and `day` [time]."""

    start: Float[Array, "x y z"]
    relative: Float[Array, "x y z"]
    inside: Float[Array, "x y z"]
    faces: Faces
    base: Float[Array, "time x y z"]
    summary: Float[Array, "time number"]
    reach: Float[Array, " time"]
    day: Float[Array, " time"]


def asked_of(
    model: ReactionDiffusion,
    schedule: Schedule,
    days: Float[Array, " time"],
    center: Float[Array, " number"],
    scale: Float[Array, " number"],
    dtype: Any = jnp.float32,
) -> Asked:
    """The inputs of a network from a model and its treatment; `center` and `scale` of the summary."""
    summary, maps = summary_of(model, schedule, days)
    start = model.initial.state(model.tissue).density.astype(dtype)
    relative = model.diffusion.relative_diffusivity(model.tissue).astype(dtype)
    edge = model.tissue.grid.spacing[0]
    faces = face_conductances(relative, model.tissue.domain).scaled(jnp.asarray(edge**2, dtype))
    standard = ((summary - center[None]) / scale[None]).astype(dtype)
    inside = model.tissue.domain.mask.astype(dtype)
    reach = summary[:, 0].astype(dtype)
    return Asked(start, relative, inside, faces, maps(start), standard, reach, jnp.asarray(days, dtype))


def operator_density(network: FourierOperator, asked: Asked) -> Float[Array, "time x y z"]:
    """The densities that one network says.

    $$ u = m\\,\\big((1 - w)\\,a + w\\,\\sigma(\\ell(a) + z)\\big), \\qquad w = 1 - e^{-t/\\tau} $$

    with a growth and kill of the voxel alone (`Reacted`), z the network's field, m the domain. A mixture of numbers in
    [0, 1]: so is u; w = 0 and a = u_0 on day 0.
    """

    def one(row: tuple[Array, Array, Array, Array]) -> Array:
        base, summary, reach, day = row
        floor = jnp.asarray(LOGIT_FLOOR, base.dtype)
        logit = jnp.log(base + floor) - jnp.log1p(floor - base)
        spread = reach * _root(asked.relative)
        fields = jnp.stack([asked.start, base, logit / 10.0, asked.relative, asked.inside, spread / 3.0], axis=-1)
        moved = jax.nn.sigmoid(logit + network(fields, summary, asked.faces))
        taken = -jnp.expm1(-day / HANDOVER)
        return asked.inside * ((1.0 - taken) * base + taken * moved)

    # One after another: what one day is made of stays in the cache. For a slope it is computed again, which is faster
    # than keeping it, and takes the memory of one day instead of all.
    return jax.lax.map(jax.checkpoint(one), (asked.base, asked.summary, asked.reach, asked.day))


def member_densities(networks: FourierOperator, asked: Asked) -> Float[Array, "member time x y z"]:
    """The densities that each of the networks [member ...] says."""
    return jax.lax.map(lambda network: operator_density(network, asked), networks)


class FnoSurrogate(AbstractSurrogate):
    """A neural operator in the place of the solver, for any anatomy and start on boxes of its shape and voxel size.

    The density is the mean of the `networks`; their spread about it, relative to its norm, is the estimate of the
    error, and `error` makes a bound of it. **It vouches for an answer** when the parameters and the features of
    anatomy and start (`features_of`) are inside `domain`, the ratio of diffusivities is that of `model`, the summary
    of every day is within what was trained on (`lowest`, `highest`), no dose above the `largest_doses`, the diffusivity
    below the solver's bound, everything finite, and the bound at all days below `error.tolerance`. (The network is told
    of kills at four times, not of doses: the same kill in few large fractions is another course to the model.)

    **Arguments:** `model`: any model on that grid, the one that `at` changes (`on`: another patient's); `networks`,
    their leaves [member ...]; `center`,
    `scale`, `lowest`, `highest` of the summary [number]; `largest_doses` by "radiotherapy" or drug; `levels` name ->
    density [1] whose volumes are quantities;
    `solver` of the training; `horizon` [day].

    **Limits:** cubic voxels of one size; growth alike everywhere, no resection (convenience). A network knows what it
    was shown: outside of it the flag is all there is (mathematical).
    """

    model: ReactionDiffusion
    networks: FourierOperator
    center: Float[Array, " number"]
    scale: Float[Array, " number"]
    lowest: Float[Array, " number"]
    highest: Float[Array, " number"]
    largest_doses: dict[str, Float[Array, ""]]
    domain: ParameterDomain
    error: ErrorModel
    levels: dict[str, Float[Array, ""]]
    solver: FixedSteps
    horizon: float = eqx.field(static=True)

    def __call__(self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float]) -> Trajectory:
        """The states of `model` from its own start; the result says whether they may be used."""
        density, estimate, summary = self.answer(model, schedule, ts)
        result, bound = self.judge(model, schedule, density, estimate, summary), self.error.density_bound(estimate)
        days = tuple(float(t) for t in ts)
        return Trajectory(jnp.asarray(days), TumorState(density), result, bound, {"members": self.members})

    def answer(
        self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float]
    ) -> tuple[Float[Array, "time x y z"], Float[Array, " time"], Float[Array, "time number"]]:
        """The densities, the estimates of their relative L2 errors, and the standardized summary of every day.

        **Raises:** `ValueError` for days out of order or beyond the horizon, another grid, what `summary_of` refuses.
        """
        days = tuple(float(t) for t in ts)
        if not days or days[0] < 0.0 or days[-1] > self.horizon + 1e-9 or (np.diff(days) <= 0).any():
            raise ValueError(
                f"required: increasing days from 0 to the surrogate's horizon, {self.horizon:g}; received: {days}"
            )
        self.check(model)
        asked = asked_of(model, schedule, jnp.asarray(days), self.center, self.scale, self.networks.dtype)
        said = member_densities(self.networks, asked)
        mean = jnp.mean(said, axis=0)
        size = _root(jnp.sum(mean**2, axis=(1, 2, 3)))
        apart = jnp.mean(jnp.sum((said - mean[None]) ** 2, axis=(2, 3, 4)), axis=0)
        spread = _root(apart) / jnp.where(size > 0, size, 1.0)
        start = model.initial.state(model.tissue).density
        density = mean.astype(start.dtype)
        if days[0] == 0.0:
            density = density.at[0].set(start)
        at_start = jnp.asarray(days) == 0.0
        return density, jnp.where(at_start, 0.0, spread.astype(self.center.dtype)), asked.summary

    def judge(
        self,
        model: ReactionDiffusion,
        schedule: Schedule,
        density: Float[Array, "time x y z"],
        estimate: Float[Array, " time"],
        summary: Float[Array, "time number"],
    ) -> RESULTS:
        """Whether the surrogate vouches for an answer."""
        right = self.familiar(model, schedule, summary) & (
            jnp.max(self.error.density_bound(estimate)) <= self.error.tolerance
        )
        result = RESULTS.where(right, RESULTS.successful, RESULTS.outside_domain)
        return RESULTS.where(jnp.all(jnp.isfinite(density)), result, RESULTS.nonfinite)

    def familiar(
        self, model: ReactionDiffusion, schedule: Schedule, summary: Float[Array, "time number"]
    ) -> Bool[Array, ""]:
        """`inside`, and treatment and time (doses, and their standardized summary) within what was trained on."""
        within = jnp.all((summary >= self.lowest[None]) & (summary <= self.highest[None]))
        for name, given in doses_of(schedule).items():
            within &= jnp.all(given <= self.largest_doses.get(name, jnp.zeros(())))
        return self.inside(model) & within

    def inside(self, model: ReactionDiffusion) -> Bool[Array, ""]:
        """Whether parameters, anatomy and start are among those that it was trained on."""
        same_ratio = model.diffusion.gray_ratio == self.model.diffusion.gray_ratio
        bounded = model.diffusion.white_matter <= self.solver.max_diffusivity
        return self.domain.contains(self.values_of(model)) & same_ratio & bounded

    def values_of(self, model: ReactionDiffusion) -> Mapping[str, Array]:
        """What the domain is about: parameters by path, and the features of anatomy and start."""
        features = features_of(model)
        return {name: features[name] if name in features else get_parameter(model, name) for name in self.domain.paths}

    def quantities(self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float]) -> Quantities:
        """Mass and volumes at `ts`."""
        days = tuple(float(t) for t in ts)
        density, estimate, summary = self.answer(model, schedule, days)
        values = self.read_field(TumorState(density))
        first = self.read_field(TumorState(model.initial.state(model.tissue).density[None]))
        bounds = {n: self.error.quantity_bound(n, estimate, v, first[n][0]) for n, v in values.items()}
        inside = self.judge(model, schedule, density, estimate, summary) == RESULTS.successful
        return Quantities(values, bounds, self.error.density_bound(estimate), inside)

    def many(self, values: Mapping[str, Array], schedule: Schedule, ts: Sequence[float]) -> Quantities:
        """`quantities` of many sets of parameters, one after another."""
        return _many(self, dict(values), schedule, tuple(float(t) for t in ts))

    def read_field(self, states: TumorState) -> dict[str, Float[Array, " time"]]:
        """The quantities of densities [time x y z]."""
        return density_quantities(states.density, self.levels, self.model.tissue.grid.cell_volume)

    def check(self, model: ReactionDiffusion) -> None:
        """That `model` has the same mechanisms on voxels of the same number and size; its anatomy may be any.

        **Raises:** `ValueError` otherwise. Known before anything is traced.
        """
        same_kind(self.model, model)

    def on(self, model: ReactionDiffusion) -> "FnoSurrogate":
        """The surrogate with another patient's model as the one that `at` changes.

        **Raises:** `ValueError` as `check`, and for another ratio of diffusivities.
        """
        self.check(model)
        same_ratio(self.model, model)
        return dataclasses.replace(self, model=model)

    @property
    def members(self) -> int:
        """Number of networks."""
        return self.networks.lift.bias.shape[0]

    @property
    def quantity_names(self) -> tuple[str, ...]:
        """What `quantities` returns."""
        return (MASS, *sorted(self.levels))

    def with_error(self, error: ErrorModel) -> "FnoSurrogate":
        """The same surrogate with another error model."""
        return dataclasses.replace(self, error=error)


def doses_of(schedule: Schedule) -> dict[str, Float[Array, " event"]]:
    """Doses by what is given: "radiotherapy", or a drug."""
    return {RADIOTHERAPY: schedule.radiotherapy.doses} | {name: c.doses for name, c in schedule.drugs.items()}


def features_of(model: ReactionDiffusion) -> dict[str, Float[Array, ""]]:
    """Positive numbers that describe an anatomy and a start, unchanged by flips.

    Share of the box that is tissue and of the tissue that is white matter; how fine the anatomy is: the change of white
    matter from a tissue voxel to its neighbors (voxels that are not as large as is said are finer or coarser); mass
    [mm^3], radius of gyration [mm] and largest density of the start, the diffusivity where it is (relative to white
    matter), and the distance [mm] of its center from the nearest side of the box, at most that of two voxels from the
    middle (a tumor in the middle is no stranger). For an empty start some are not a number: outside of any domain.
    """
    tissue, grid = model.tissue, model.tissue.grid
    start = model.initial.state(tissue).density
    dtype = start.dtype
    mask = tissue.domain.mask.astype(dtype)
    mass = jnp.sum(start)
    relative = model.diffusion.relative_diffusivity(tissue).astype(dtype)
    white = tissue.fields["white_matter"].astype(dtype) * mask
    squares, clear = jnp.zeros((), dtype), []
    change = jnp.zeros((), dtype)
    for axis, (n, spacing) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        along = jnp.sum(start, axis=tuple(a for a in range(3) if a != axis)) / mass
        place = (jnp.arange(n, dtype=dtype) + 0.5) * spacing
        middle = jnp.sum(along * place)
        squares = squares + jnp.sum(along * (place - middle) ** 2)
        clear.append(jnp.minimum(jnp.minimum(middle, n * spacing - middle), (0.5 * n - MIDDLE) * spacing))
        ahead, behind = (jax.lax.slice_in_dim(mask, *ends, axis=axis) for ends in ((1, n), (0, n - 1)))
        change = change + jnp.sum(jnp.abs(jnp.diff(white, axis=axis)) * ahead * behind)
    return {
        "anatomy.tissue_share": jnp.mean(mask),
        "anatomy.white_share": jnp.sum(white) / jnp.sum(mask),
        "anatomy.change": change / jnp.sum(mask),
        "start.mass": mass * grid.cell_volume,
        "start.radius": jnp.sqrt(squares),
        "start.largest": jnp.max(start),
        "start.diffusivity": jnp.sum(start * relative) / mass,
        "start.clearance": jnp.min(jnp.stack(clear)),
    }


def _root(x: Array) -> Array:
    """The square root of numbers of at least 0; its slope at 0 is 0, not infinite."""
    above = x > 0
    return jnp.where(above, jnp.sqrt(jnp.where(above, x, 1.0)), 0.0)


@eqx.filter_jit
def _many(surrogate: FnoSurrogate, values: dict[str, Array], schedule: Schedule, days: tuple[float, ...]) -> Quantities:
    return jax.lax.map(lambda row: surrogate.quantities(surrogate.at(row), schedule, days), values)
