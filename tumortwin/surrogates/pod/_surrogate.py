"""The reduced-order model of one anatomy, with its error test."""

import dataclasses
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tumortwin.models import ReactionDiffusion, TumorState
from tumortwin.params import get_parameter
from tumortwin.solvers import RESULTS, FixedSteps, Trajectory
from tumortwin.surrogates._base import MASS, AbstractSurrogate, Quantities, density_quantities, same_model
from tumortwin.surrogates._domain import ParameterDomain
from tumortwin.surrogates._error import ErrorModel
from tumortwin.surrogates.pod._advance import ReducedState, advance
from tumortwin.surrogates.pod._operators import ReducedOperators
from tumortwin.treatments import Schedule

# What one product of coefficients is made of stays in the cache.
CASES_AT_ONCE = 64
# Times the resolution of a number: what the modes miss of a start that is one of them.
ROUNDING = 100.0


class PodSurrogate(AbstractSurrogate):
    """Galerkin reduced-order model of Fisher-Kolmogorov growth under radiotherapy and drugs, for one anatomy.

    $$ u(x, t) \\approx \\sum_i a_i(t)\\,\\varphi_i(x), \\qquad
       \\dot a = D A(\\kappa)\\,a + \\rho\\,(a - B(a, a)) - \\dot\\Lambda(t)\\,a $$

    The equations are the model's own, projected (`ReducedOperators`, `advance`): growth and kill are exact on the
    modes, the logistic term is an exact quadratic form, no point of it is sampled. Any schedule of fractions and drug
    doses may be asked for, of any start on this anatomy; whether the modes hold what comes of it is what the residual
    says.

    **It vouches for an answer** (`result` successful) when the parameters are inside `domain`, log(rho / D) is within
    the range of the operators, the diffusivity below the solver's bound, the reduced state finite and not larger than
    a full box, the error bound (`ErrorModel` of the residual's estimate, the start's projection error included) at all
    days below `error.tolerance`, and what the modes miss of the start, grown with nothing that damps it, below
    `error.floor`: the factor of the bound was learned from one start and says nothing of others. All of it is known
    from the few coefficients, before any field is made.

    **Arguments:** `modes` orthonormal, zero outside of the domain; `near` voxels (flat) in which volumes are counted,
    `near_modes` the modes there, `mode_sums` their sums over all voxels; `levels` name -> density [1] whose volumes are
    quantities; `solver` whose steps are taken; `substeps` of crowding within a step; `horizon` [day] the longest course
    that was held against the model.

    **Limits:** one anatomy, growth alike everywhere, no resection (convenience); fronts that move far beyond where
    those of the training moved, or a start elsewhere, need other modes (mathematical): rejected, or `enlarged`.
    """

    model: ReactionDiffusion
    modes: Float[Array, "mode x y z"]
    near: Int[Array, " near"]
    near_modes: Float[Array, "mode near"]
    mode_sums: Float[Array, " mode"]
    operators: ReducedOperators
    domain: ParameterDomain
    error: ErrorModel
    levels: dict[str, Float[Array, ""]]
    solver: FixedSteps
    substeps: int = eqx.field(static=True)
    horizon: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.model.proliferation.local_rate().ndim != 0:
            raise ValueError("required: growth alike everywhere, as its rate is asked about; received: a field rho(x)")

    def __call__(self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float]) -> Trajectory:
        """The states of `model` from its own start; the result says whether they may be used.

        The density is projected onto [0, 1]. The truth lies in it, so no state is further off for it.
        """
        reduced, estimate = self.reduced(model, schedule, ts)
        density = jnp.clip(self.field(reduced.coefficients), 0.0, 1.0)
        result = self.judge(model, reduced, estimate)
        bound = self.error.density_bound(estimate)
        return Trajectory(jnp.asarray(ts, float), TumorState(density), result, bound, {"modes": self.operators.size})

    def quantities(
        self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float], start: ReducedState | None = None
    ) -> Quantities:
        """Mass and volumes at `ts`; `start`, when it is there already (`begin`), is not computed again."""
        days = tuple(float(t) for t in ts)
        whole = days if days[0] == 0.0 else (0.0, *days)
        reduced, estimate = self.reduced(model, schedule, whole, start)
        values = self.read(reduced.coefficients)
        inside = self.judge(model, reduced, estimate) == RESULTS.successful
        bounds = {n: self.error.quantity_bound(n, estimate, v, v[0]) for n, v in values.items()}
        kept = len(whole) - len(days)
        values, bounds = ({n: v[kept:] for n, v in found.items()} for found in (values, bounds))
        return Quantities(values, bounds, self.error.density_bound(estimate)[kept:], inside)

    def many(self, values: Mapping[str, Array], schedule: Schedule, ts: Sequence[float]) -> Quantities:
        """`quantities` of many sets of parameters, whose volumes are counted block by block of voxels."""
        days = tuple(float(t) for t in ts)
        whole = days if days[0] == 0.0 else (0.0, *days)
        return _many(self, dict(values), schedule, whole, len(whole) - len(days))

    def inside(self, model: ReactionDiffusion) -> Bool[Array, ""]:
        """Whether the parameters are inside the domain, and within what the operators and the step are good for."""
        diffusivity, rate = model.diffusion.white_matter, model.proliferation.local_rate()
        ratio = jnp.log(rate / diffusivity)
        low, high = self.operators.log_ratio
        known = self.domain.contains({path: get_parameter(model, path) for path in self.domain.paths})
        return known & (ratio >= low) & (ratio <= high) & (diffusivity <= self.solver.max_diffusivity)

    def check(self, model: ReactionDiffusion) -> None:
        """That `model` has the same mechanisms on the same voxels and tissue.

        **Raises:** `ValueError` otherwise. Values must be concrete: call it once, outside of compiled code.
        """
        same_model(self.model, model)

    def begin(self, model: ReactionDiffusion) -> ReducedState:
        """The start of a model in the modes, and the norm of what they do not hold of it."""
        density = model.initial.state(model.tissue).density.astype(self.modes.dtype)
        found = self.project(density[None])
        return ReducedState(found.coefficients[0], found.error[0], found.missed[0])

    def project(self, density: Float[Array, "time x y z"]) -> ReducedState:
        """Densities in the modes, and the norm of what they do not hold of each."""
        flat, modes = density.reshape(len(density), -1), self.modes.reshape(len(self.modes), -1)
        coefficients = jnp.matmul(flat, modes.T, precision="highest")
        rest = jnp.linalg.norm(flat - coefficients @ modes, axis=1)
        rounding = ROUNDING * jnp.finfo(flat.dtype).eps * jnp.linalg.norm(flat, axis=1)
        missed = jnp.where(rest > rounding, rest, 0.0)
        dtype = self.operators.crowding.dtype
        return ReducedState(coefficients.astype(dtype), rest.astype(dtype), missed.astype(dtype))

    def reduced(
        self, model: ReactionDiffusion, schedule: Schedule, ts: Sequence[float], start: ReducedState | None = None
    ) -> tuple[ReducedState, Float[Array, " time"]]:
        """The reduced states at `ts`, and the estimate of their relative L2 error.

        **Raises:** `ValueError` for days out of order, beyond the horizon, or a resection.
        """
        days = tuple(float(t) for t in ts)
        if not days or days[0] < 0.0 or days[-1] > self.horizon + 1e-9 or (np.diff(days) <= 0).any():
            raise ValueError(
                f"required: increasing days from 0 to the surrogate's horizon, {self.horizon:g}; received: {days}"
            )
        if schedule.resections:
            raise ValueError("required: a schedule without resections; received: one with; try: the model itself")
        kill = model.log_kill(schedule, 0.0, days[-1])
        begun = self.begin(model) if start is None else start
        found = advance(self.operators, self.mode_sums, model, kill, begun, days, self.solver, self.substeps)
        size = jnp.linalg.norm(found.coefficients, axis=1)
        return found, found.error / jnp.where(size > 0, size, 1.0)

    def field(self, coefficients: Float[Array, "time mode"]) -> Float[Array, "time x y z"]:
        """The densities of reduced states, as the modes give them."""
        return jnp.tensordot(coefficients.astype(self.modes.dtype), self.modes, 1)

    def read(self, coefficients: Float[Array, "time mode"]) -> dict[str, Float[Array, " time"]]:
        """Mass and volumes of reduced states [mm^3]."""
        cell = self.model.tissue.grid.cell_volume
        states = coefficients.astype(self.near_modes.dtype)
        levels = jnp.stack([level.astype(states.dtype) for level in self.levels.values()])
        counts = _counts(states, self.near_modes, levels) * cell
        mass = (coefficients.astype(self.mode_sums.dtype) @ self.mode_sums) * cell
        return {MASS: mass.astype(states.dtype)} | {name: counts[:, i] for i, name in enumerate(self.levels)}

    def read_field(self, states: TumorState) -> dict[str, Float[Array, " time"]]:
        """The same of densities [time x y z]."""
        return density_quantities(states.density, self.levels, self.model.tissue.grid.cell_volume)

    def judge(self, model: ReactionDiffusion, reduced: ReducedState, estimate: Float[Array, " time"]) -> RESULTS:
        """Whether the surrogate vouches for reduced states."""
        full_box = np.sqrt(np.prod(self.modes.shape[1:]))
        finite = jnp.all(jnp.isfinite(reduced.coefficients)) & jnp.all(jnp.isfinite(reduced.error))
        bounded = jnp.max(jnp.abs(reduced.coefficients)) <= full_box
        size = jnp.linalg.norm(reduced.coefficients, axis=1)
        held = jnp.all(reduced.missed <= self.error.floor * size)
        right = self.inside(model) & bounded & held
        right = right & (jnp.max(self.error.density_bound(estimate)) <= self.error.tolerance)
        result = RESULTS.where(right, RESULTS.successful, RESULTS.outside_domain)
        return RESULTS.where(finite, result, RESULTS.nonfinite)

    def first(self, count: int) -> "PodSurrogate":
        """The surrogate of the first `count` modes, held against no case yet.

        Its residual lacks what the modes left out now held; `fit_pod` with fewer modes has it whole.
        """
        level, tolerance, voxel = (float(x) for x in (self.error.level, self.error.tolerance, self.error.voxel))
        error = ErrorModel.uncalibrated(self.quantity_names, level, tolerance, voxel)
        return dataclasses.replace(
            self,
            modes=self.modes[:count],
            near_modes=self.near_modes[:count],
            mode_sums=self.mode_sums[:count],
            operators=self.operators.first(count),
            error=error,
        )

    @property
    def quantity_names(self) -> tuple[str, ...]:
        """What `quantities` returns."""
        return (MASS, *sorted(self.levels))

    def with_error(self, error: ErrorModel) -> "PodSurrogate":
        """The same surrogate with another error model."""
        return dataclasses.replace(self, error=error)

    def with_domain(self, domain: ParameterDomain) -> "PodSurrogate":
        """The same surrogate with another domain."""
        return dataclasses.replace(self, domain=domain)

    def values_of(self, model: ReactionDiffusion) -> Mapping[str, Array]:
        """The parameters of a model that the domain is about."""
        return {path: get_parameter(model, path) for path in self.domain.paths}


# A block of densities that stays in the cache.
_VOXELS_AT_ONCE, _STATES_AT_ONCE = 256, 512


@eqx.filter_jit
def _many(
    surrogate: PodSurrogate, values: dict[str, Array], schedule: Schedule, days: tuple[float, ...], skipped: int
) -> Quantities:
    start = surrogate.begin(surrogate.model)

    def one(row: dict[str, Array]) -> tuple[Array, Array, Array]:
        model = surrogate.at(row)
        reduced, estimate = surrogate.reduced(model, schedule, days, start)
        return reduced.coefficients, estimate, surrogate.judge(model, reduced, estimate) == RESULTS.successful

    coefficients, estimate, inside = jax.lax.map(one, values, batch_size=CASES_AT_ONCE)
    coefficients, estimate = coefficients[:, skipped:], estimate[:, skipped:]
    found = surrogate.read(coefficients.reshape(-1, coefficients.shape[-1]))
    found = {name: value.reshape(coefficients.shape[:2]) for name, value in found.items()}
    first = {name: value[0] for name, value in surrogate.read(start.coefficients[None]).items()}
    bounds = {
        name: jax.vmap(lambda e, v, n=name: surrogate.error.quantity_bound(n, e, v, first[n]))(estimate, value)
        for name, value in found.items()
    }
    return Quantities(found, bounds, jax.vmap(surrogate.error.density_bound)(estimate), inside)


def _counts(
    states: Float[Array, "state mode"], modes: Float[Array, "mode near"], levels: Float[Array, " level"]
) -> Float[Array, "state level"]:
    """Number of voxels above each level, blocks of states by blocks of voxels: no field is kept."""
    size = modes.shape[1]
    padded = jnp.pad(modes, ((0, 0), (0, -size % _VOXELS_AT_ONCE)))  # of density zero, above no level
    blocks = padded.reshape(len(modes), -1, _VOXELS_AT_ONCE).transpose(1, 0, 2)
    ones = jnp.ones((_VOXELS_AT_ONCE, 1), modes.dtype)

    def of_states(part: Float[Array, "part mode"]) -> Float[Array, "part level"]:
        def add(counts: Array, block: Array) -> tuple[Array, None]:
            density = part @ block
            above = [(density > level).astype(density.dtype) @ ones for level in levels]
            return counts + jnp.concatenate(above, axis=1), None

        return jax.lax.scan(add, jnp.zeros((len(part), len(levels)), modes.dtype), blocks)[0]

    rows = min(len(states), _STATES_AT_ONCE)
    filled = jnp.pad(states, ((0, -len(states) % rows), (0, 0))).reshape(-1, rows, states.shape[1])
    return jax.lax.map(of_states, filled).reshape(-1, len(levels))[: len(states)]
