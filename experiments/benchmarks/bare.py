"""The same solve without Diffrax: a bare `lax.scan` over the very steps that `simulate` would take."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import diffrax
import jax
import jax.numpy as jnp

from tumortwin.models import ReactionDiffusion
from tumortwin.solvers import FixedSteps, simulate
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
    return _Answer(jnp.stack([y] * (saveat.subs.ts.shape[0] + 1)))


def final(schedule: Schedule, day: float, solver: FixedSteps, *, bare: bool = False, plain: bool = False) -> Callable:
    """`model -> density at day`: by `simulate` or the bare loop; `plain` for the kernel without our adjoint."""

    def run(model: ReactionDiffusion) -> jax.Array:
        def solve() -> jax.Array:
            out = simulate(model, schedule, [day], solver, estimate_error=False, forward_mode=plain)
            return out.states.density[-1]

        if not bare:
            return solve()
        with patch.object(diffrax, "diffeqsolve", _scan):
            return solve()

    return run
