"""The same solve without Diffrax: a bare `lax.scan` over the very steps that `simulate` would take."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import diffrax
import jax
import jax.numpy as jnp

from tumortwin.geometry import add_ring, drop_ring, spectral_bound
from tumortwin.models import ReactionDiffusion
from tumortwin.solvers import FixedSteps, simulate, stage_count
from tumortwin.solvers._reaction import react, tabulate
from tumortwin.solvers._rkl import diffuse_plain, stage_weight
from tumortwin.treatments import Schedule


class _Answer:
    def __init__(self, ys: Any) -> None:
        self.ys = ys


def _scan(
    terms: Any, solver: Any, *, y0: Any, args: Any, stepsize_controller: Any, saveat: Any, **rest: Any
) -> _Answer:
    """Stands in for `diffeqsolve` when the only state saved is the last."""
    del rest
    edges = stepsize_controller.ts

    @jax.checkpoint
    def step(y: Any, ends: Any) -> tuple[Any, None]:
        return solver.step(terms, ends[0], ends[1], y, args, None, False)[0], None

    y, _ = jax.lax.scan(step, y0, (edges[:-1], edges[1:]))
    saved = 1 if saveat.subs.ts is None else saveat.subs.ts.shape[0]
    return _Answer(jnp.stack([y] * saved))


def final(schedule: Schedule, day: float, solver: FixedSteps, *, bare: bool = False) -> Callable:
    """`model -> density at day`, by `simulate` or by the bare loop."""

    def run(model: ReactionDiffusion) -> jax.Array:
        def solve() -> jax.Array:
            return simulate(model, schedule, [day], solver, estimate_error=False).states.density[-1]

        if not bare:
            return solve()
        with patch.object(diffrax, "diffeqsolve", _scan):
            return solve()

    return run


def plain(schedule: Schedule, day: float, solver: FixedSteps) -> Callable:
    """`model -> density at day`, written down as one would: a scan over half growth, diffusion, half growth.

    The same steps and stages, derivatives left to JAX, which keeps all stages of all steps (recomputing each step in
    reverse saves that memory and takes a fifth longer).
    """
    (phase,) = solver.phases(0.0, [day], [])

    def run(model: ReactionDiffusion) -> jax.Array:
        stages = stage_count(phase.step * spectral_bound(solver.max_diffusivity, model.tissue.grid.spacing))
        halves = tabulate(model.log_kill(schedule, 0.0, day), jnp.linspace(0.0, day, 2 * phase.n_steps + 1))
        y = add_ring(model.initial.state(model.tissue).density)
        factor = (model.diffusion.white_matter * phase.step * stage_weight(stages)).astype(y.dtype)
        faces, rate = model.relative_faces().scaled(factor), model.proliferation.rate.astype(y.dtype)

        def step(y: jax.Array, pair: Any) -> tuple[jax.Array, None]:
            first, second = (jax.tree.map(lambda leaf, k=k: leaf[k], pair) for k in (0, 1))
            y = react(y, rate, first, forward_mode=True)
            return react(diffuse_plain(y, faces, stages), rate, second, forward_mode=True), None

        pairs = jax.tree.map(lambda leaf: leaf.reshape(phase.n_steps, 2, *leaf.shape[1:]), halves)
        return drop_ring(jax.lax.scan(step, y, pairs)[0])

    return run
