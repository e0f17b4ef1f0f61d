"""The planning path: event times are step edges, traced, so a schedule's times have exact gradients.

The number of steps and the order of events are static, taken from a *reference* schedule; the lengths of the steps
between events depend on the traced times. Each fraction falls, whole, on the edge at which its step begins.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.geometry import add_ring, drop_ring, spectral_bound
from tumortwin.models import ReactionDiffusion, TumorState
from tumortwin.solvers._rkl import log_carrier, stage_count
from tumortwin.solvers._simulate import ring_closure, ring_rate, solve_on_edges
from tumortwin.solvers._strang import StepCoefficients
from tumortwin.solvers._trajectory import Trajectory, judge
from tumortwin.treatments import Schedule


class MovingEdges(eqx.Module):
    """The static part of a moving-edge solve: which event follows which, and how many steps lie between them.

    `knots`: reference times of all edges that mean something (t0, fractions, save times), in order; `owners`: for each
    knot the index of its fraction or -1; `substeps`: steps between consecutive knots; `longest` [day]: the longest step
    for which the stage count is stable.

    **Good values:** `max_step` 8 days; `stretch` 2 (a gap may double before it is refused); `min_gap` 1e-3 days.
    """

    knots: tuple[float, ...] = eqx.field(static=True)
    owners: tuple[int, ...] = eqx.field(static=True)
    substeps: tuple[int, ...] = eqx.field(static=True)
    saves: tuple[int, ...] = eqx.field(static=True)
    longest: float = eqx.field(static=True)
    max_diffusivity: float = eqx.field(static=True)
    min_gap: float = eqx.field(static=True)

    @classmethod
    def from_schedule(
        cls,
        reference: Schedule,
        ts: Sequence[float],
        *,
        t0: float = 0.0,
        max_step: float = 8.0,
        max_diffusivity: float = 1.0,
        stretch: float = 2.0,
        min_gap: float = 1e-3,
        save_fractions: Sequence[int] = (),
    ) -> "MovingEdges":
        """The edges of `reference` (concrete times) with states saved at `ts` [day], and just before the fractions
        whose indices are in `save_fractions`.

        **Raises:** `ValueError` when two fractions of the reference, or a fraction and a save time, collide, when one
        lies outside (t0, last save time), or when the schedule holds a resection (a jump in space: use `simulate`).
        """
        if reference.resections:
            raise ValueError("required: a schedule without resection on the moving-edge path; try: `simulate`")
        fractions = [float(t) for t in np.asarray(reference.radiotherapy.times)]
        marks = [(float(t), -1) for t in ts] + [(t, i) for i, t in enumerate(fractions)]
        marks.sort()
        knots, owners = [t0, *(t for t, _ in marks)], [-1, *(i for _, i in marks)]
        gaps = np.diff(knots)
        if gaps.size == 0 or gaps.min() < min_gap or owners[-1] != -1:
            raise ValueError(
                f"required: fractions and save times at least {min_gap} days apart, after day {t0} and before the last "
                f"save time; received fractions {fractions} and save times {list(ts)}"
            )
        substeps = tuple(max(1, math.ceil(gap / max_step - 1e-9)) for gap in gaps)
        kept = {int(i) % max(len(fractions), 1) for i in save_fractions}
        saves = tuple(i for i, owner in enumerate(owners) if i > 0 and (owner == -1 or owner in kept))
        longest = stretch * float(max(gap / n for gap, n in zip(gaps, substeps, strict=True)))
        return cls(tuple(knots), tuple(owners), substeps, saves, longest, max_diffusivity, min_gap)

    def times(self, schedule: Schedule) -> Float[Array, " knot"]:
        """The knots with the fraction times of `schedule` in place of the reference's."""
        owners = np.asarray(self.owners)
        if schedule.radiotherapy.size != int(owners.max()) + 1:
            raise ValueError(
                f"required: the reference's {int(owners.max()) + 1} fractions; received: {schedule.radiotherapy.size}"
            )
        fixed = jnp.asarray(self.knots)
        if schedule.radiotherapy.size == 0:
            return fixed
        times = schedule.radiotherapy.times.astype(fixed.dtype)
        return jnp.where(jnp.asarray(owners >= 0), times[np.maximum(owners, 0)], fixed)

    def in_order(self, knots: Float[Array, " knot"]) -> Bool[Array, ""]:
        """Whether all knots are `min_gap` apart, in the reference's order, and no step is longer than `longest`."""
        gaps = jnp.diff(knots)
        lengths = gaps / jnp.asarray(self.substeps, knots.dtype)
        return (jnp.min(gaps) >= self.min_gap) & (jnp.max(lengths) <= self.longest * (1.0 + 1e-9))


def simulate_moving(model: ReactionDiffusion, schedule: Schedule, edges: MovingEdges) -> Trajectory:
    """Solve with the schedule's fraction times as traced step edges.

    **Returns:** a `Trajectory` whose `result` is `colliding_events` when two knots come nearer than `min_gap` or change
    order or a step grows beyond what the stage count allows. `error_estimate` is NaN: the difference to `simulate` is
    the estimate (`path_difference`).
    """
    y0 = add_ring(model.initial.state(model.tissue).density)
    wanted = edges.times(schedule)
    # Events out of order cannot be stepped through: such a solve runs on the reference's edges and is a failed result.
    in_order = edges.in_order(wanted)
    knots = jnp.where(in_order, wanted, jnp.asarray(edges.knots, wanted.dtype))
    gaps = jnp.diff(knots)
    pieces = [knots[i] + gaps[i] * jnp.arange(n, dtype=knots.dtype) / n for i, n in enumerate(edges.substeps)]
    all_edges = jnp.concatenate([*pieces, knots[-1:]])
    stages = stage_count(edges.longest * spectral_bound(edges.max_diffusivity, model.tissue.grid.spacing))
    diffusivity = model.diffusion.white_matter
    faces = model.relative_faces().scaled(jax.lax.stop_gradient(diffusivity).astype(y0.dtype))
    args = StepCoefficients(faces, ring_rate(model, y0), log_carrier(diffusivity), ring_closure(model))
    kill = model.log_kill(schedule, knots[0], knots[-1])
    steps_before = np.concatenate([[0], np.cumsum(edges.substeps)])
    states = solve_on_edges(y0, all_edges, [int(steps_before[i]) for i in edges.saves], args, kill, stages)
    density = drop_ring(states)
    result = judge(density, jnp.max(diffusivity) <= edges.max_diffusivity, in_order)
    stats = {"steps": sum(edges.substeps), "stages": stages, "phases": 1}
    return Trajectory(
        knots[jnp.asarray(edges.saves)], TumorState(density), result, jnp.full(len(edges.saves), jnp.nan), stats
    )


def path_difference(fast: Trajectory, moving: Trajectory) -> Float[Array, " time"]:
    """Relative L2 difference of two trajectories at their (equal) save times."""
    a, b = fast.states.density, moving.states.density
    off = jnp.sqrt(jnp.sum((a - b) ** 2, axis=(1, 2, 3)))
    size = jnp.sqrt(jnp.sum(b**2, axis=(1, 2, 3)))
    return off / jnp.where(size > 0, size, 1.0)
