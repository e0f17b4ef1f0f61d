"""A surrogate in the place of the solver, with the model itself behind it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tumortwin.inference import Problem
from tumortwin.models import ReactionDiffusion
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.surrogates._base import AbstractSurrogate
from tumortwin.treatments import Schedule


class StandIn(eqx.Module):
    """`(model, days) -> density [time x y z]`, as `Problem.solve` wants it: the surrogate's where it vouches for it.

    Elsewhere the model itself, solved with `solver`; without a `solver` NaN, which is a failed solve (probability zero
    to a calibrator). Compiled, only one of the two is computed, unless it is `vmap`ped. Made by `stand_in`.
    """

    surrogate: AbstractSurrogate
    schedule: Schedule
    solver: FixedSteps | None = None

    def __call__(self, model: ReactionDiffusion, days: tuple[float, ...]) -> Float[Array, "time x y z"]:
        """The densities at `days`."""
        return self.trajectory(model, days)[0]

    def trajectory(
        self, model: ReactionDiffusion, days: tuple[float, ...]
    ) -> tuple[Float[Array, "time x y z"], Bool[Array, ""]]:
        """The densities at `days`, and whether the model had to be solved for them (or they failed)."""
        found = self.surrogate(model, self.schedule, days)
        density = found.states.density
        if self.solver is None:
            return jnp.where(found.succeeded, density, jnp.nan), ~found.succeeded
        solver = self.solver

        def itself(asked: ReactionDiffusion) -> Array:
            solved = simulate(asked, self.schedule, days, solver, estimate_error=False)
            return jnp.where(solved.succeeded, solved.states.density, jnp.nan).astype(density.dtype)

        return jax.lax.cond(found.succeeded, lambda _: density, itself, model), ~found.succeeded


def stand_in(problem: Problem, surrogate: AbstractSurrogate, *, fall_back: bool = True) -> Problem:
    """The problem with the surrogate in the place of its solver: a calibrator does not know which it got.

    **Arguments:** `problem` whose solve is on a fixed `schedule` with a `solver`, as the twin's is; `fall_back`: solve
    the model itself where the surrogate does not vouch for its answer (else that is a failed solve).

    **Raises:** `ValueError` for a problem of another anatomy or other mechanisms (`AbstractSurrogate.check`).
    """
    surrogate.check(problem.model)
    schedule, solver = problem.solve.schedule, problem.solve.solver  # type: ignore[attr-defined]
    solve = StandIn(surrogate, schedule, solver if fall_back else None)
    return dataclasses.replace(problem, solve=solve)
