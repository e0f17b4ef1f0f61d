"""The reduced tumor in time: the solver's own splitting, on a few numbers in place of a field."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.geometry import spectral_bound
from tumortwin.models import ReactionDiffusion
from tumortwin.solvers import FixedSteps, Phase, diffusion_matrix, flow_coefficients, stage_count, tabulate
from tumortwin.surrogates.pod._operators import ReducedOperators
from tumortwin.treatments import LogKill


class ReducedState(NamedTuple):
    """Coefficients of the modes, the estimated L2 norm of what they are off by [sqrt(voxel)], and the norm of what they
    `missed` of the start, grown and killed alone; a trajectory stacks times in front."""

    coefficients: Float[Array, "*time mode"]
    error: Float[Array, "*time"]
    missed: Float[Array, "*time"]


def advance(
    operators: ReducedOperators,
    sums: Float[Array, " mode"],
    model: ReactionDiffusion,
    kill: LogKill,
    start: ReducedState,
    days: tuple[float, ...],
    solver: FixedSteps,
    substeps: int,
) -> ReducedState:
    """The reduced states at `days` from day 0, on the steps that `simulate` takes with `solver`.

    $$ a^{n+1} = e^{h D A}\\, g\\, b(c), \\qquad b' = -B(b, b),\\; b(0) = a^n $$

    Kill and growth are uniform in space, so they are exact on the modes: the gain g and the crowding c of a step are
    those of the solver (`flow_coefficients`), every fraction and dose at its own time. Crowding is integrated by
    `substeps` steps of the classical Runge-Kutta method in c; diffusion by the solver's own Legendre polynomial (RKL2),
    of the reduced matrix.

    The error estimate follows the residual r, what the projection leaves out of every step:

    $$ E^{n+1} = \\frac{g\\,E^n}{(1 + c\\,\\bar u)^2} + |r^n|, \\qquad
       r = (1 - \\Phi\\Phi^T)\\,(h D\\,\\nabla\\cdot d \\nabla - g c\\, u)\\,u, \\qquad
       \\bar u = \\frac{\\int u^2}{2 \\int u} $$

    as diffusion never enlarges an L2 norm, and the slope of g u / (1 + c u), growth and crowding together, is g / (1 +
    c u)^2. At which density the errors lie is not known: u_bar is half of the mean density of the mass, the middle of a
    front. With 0 in its place E would be an upper bound (up to the time step, the sketch and negative densities), but
    one that is most pessimistic for the fastest tumors; what the modes miss of the start itself, which may lie ahead of
    any front, is followed that way beside it (`missed`). A conformal quantile turns the estimate into a bound, whatever
    it is worth (`ErrorModel`).

    **Arguments:** `sums` of the modes over all voxels.
    """
    dtype = operators.crowding.dtype
    sums = sums.astype(dtype)
    diffusivity, rate = model.diffusion.white_matter.astype(dtype), model.proliferation.local_rate().astype(dtype)
    matrix, remainder = operators.at_ratio(jnp.log(rate / diffusivity))
    found = [jax.tree.map(lambda x: x[None], start)] if days[0] == 0.0 else []
    state = start
    spacing = model.tissue.grid.spacing
    for phase in solver.phases(0.0, days, ()):
        stages = stage_count(phase.step * spectral_bound(solver.max_diffusivity, spacing))
        propagator = diffusion_matrix(phase.step * diffusivity * matrix, stages)
        spread = (0.5 * phase.step * diffusivity) * remainder
        saved, state = _phase(
            operators, sums, propagator, spread, _flows(kill, rate, phase, dtype), state, phase, substeps
        )
        found.append(saved)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)


class _Flows(NamedTuple):
    """Gain and crowding [step] of what lies between two diffusions, and of the second half of every step."""

    joined: tuple[Array, Array]
    second: tuple[Array, Array]


def _flows(kill: LogKill, rate: Float[Array, ""], phase: Phase, dtype: Any) -> _Flows:
    edges = phase.edges
    middles = np.stack([edges[:-1], 0.5 * (edges[:-1] + edges[1:])], axis=1).reshape(-1)
    halves = tabulate(kill, jnp.asarray(np.append(middles, edges[-1])))
    gain, crowding = flow_coefficients(rate, halves, dtype)
    # The second half of a step and the first of the next are one flow: u -> g u / (1 + c u) is a group.
    before_gain = jnp.concatenate([jnp.ones(1, dtype), gain[1:-1:2]])
    before_crowding = jnp.concatenate([jnp.zeros(1, dtype), crowding[1:-1:2]])
    joined = (before_gain * gain[0::2], before_crowding + before_gain * crowding[0::2])
    return _Flows(joined, (gain[1::2], crowding[1::2]))


def _phase(
    operators: ReducedOperators,
    sums: Float[Array, " mode"],
    propagator: Float[Array, "mode mode"],
    spread: Float[Array, "sketch mode"],
    flows: _Flows,
    start: ReducedState,
    phase: Phase,
    substeps: int,
) -> tuple[ReducedState, ReducedState]:
    """The states at the saves of a phase, and at its end."""

    def step(state: ReducedState, flow: tuple[Array, Array]) -> tuple[ReducedState, ReducedState]:
        grown, crowded = react(operators, sums, state, *flow, substeps)
        moved = propagator @ grown.coefficients
        outside = spread @ (grown.coefficients + moved) - crowded
        after = ReducedState(moved, grown.error + _norm(outside), grown.missed)
        return after, after

    _, states = jax.lax.scan(step, start, flows.joined)
    asked = np.asarray([int(np.argmin(abs(phase.edges - s))) - 1 for s in (*phase.saves, phase.end)])
    chosen, last = jax.tree.map(lambda x: x[asked], (states, flows.second))
    whole, outside = jax.vmap(lambda state, g, c: react(operators, sums, state, g, c, substeps))(chosen, *last)
    whole = whole._replace(error=whole.error + jax.vmap(_norm)(outside))
    return jax.tree.map(lambda x: x[:-1], whole), jax.tree.map(lambda x: x[-1], whole)


def _norm(x: Float[Array, " sketch"]) -> Float[Array, ""]:
    """The L2 norm, with a gradient (zero) where it is zero."""
    square = jnp.sum(x**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def react(
    operators: ReducedOperators,
    sums: Float[Array, " mode"],
    state: ReducedState,
    gain: Float[Array, ""],
    crowding: Float[Array, ""],
    substeps: int,
) -> tuple[ReducedState, Float[Array, " sketch"]]:
    """Growth and kill of one interval, and the sketch of what crowding puts outside of the modes."""
    b = state.coefficients
    width = crowding / substeps

    def slope(x: Array) -> Array:
        return -(operators.crowding @ operators.pairs(x))

    for _ in range(substeps):
        k1 = slope(b)
        k2 = slope(b + 0.5 * width * k1)
        k3 = slope(b + 0.5 * width * k2)
        k4 = slope(b + width * k3)
        b = b + width / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    middle = 0.5 * (state.coefficients + b)
    outside = operators.sketched_crowding @ operators.pairs(middle) * (gain * crowding)
    error = gain * state.error / (1.0 + crowding * _front(state, sums)) ** 2
    return ReducedState(gain * b, error, gain * state.missed), outside


def _front(state: ReducedState, sums: Float[Array, " mode"]) -> Float[Array, ""]:
    """Half of the mean density of the mass, within [0, 1/2]."""
    mass = state.coefficients @ sums
    mean = jnp.sum(state.coefficients**2) / jnp.where(mass > 0, mass, jnp.inf)
    return 0.5 * jnp.clip(mean, 0.0, 1.0)
