"""All that a controller may know: draws, the burden they lead to under a schedule, objective, risk and limits."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._feasible import FeasibleSet
from tumortwin.control._objective import AbstractObjective, Curve
from tumortwin.control._risk import AbstractRisk
from tumortwin.control._schedule import PlanVariables, WeeklyFractions
from tumortwin.treatments import Schedule

Burden = Callable[[PyTree, Schedule], Curve]


class PlanningProblem(eqx.Module):
    """Minimise risk over draws of objective(burden(draw, schedule(variables))) within the constraints.

    The draws are fixed (sample average approximation with common random numbers): the problem is deterministic, so two
    plans are compared on the same tumors.

    **Arguments:** `burden`: one draw and one `Schedule` -> `Curve`; differentiable in the doses and, if the start day
    may move, in the times. `draws`: a pytree (such as path -> array) whose leaves have the leading axis [draw];
    `weights` [draw] or None. `sequential`: draws one after another (`lax.map`: 3-D solves) or all at once (`vmap`:
    closed forms).

    **Good values:** 32-64 draws with CVaR 0.8; fresh draws for the comparison.
    """

    burden: Burden
    draws: PyTree
    parametrization: WeeklyFractions
    objective: AbstractObjective
    risk: AbstractRisk
    constraints: tuple[AbstractConstraint, ...] = eqx.field(converter=tuple)
    weights: Float[Array, " draw"] | None = None
    sequential: bool = eqx.field(static=True, default=True)

    @property
    def n_draws(self) -> int:
        """Number of draws (static)."""
        return jax.tree.leaves(self.draws)[0].shape[0]

    @property
    def feasible_set(self) -> FeasibleSet:
        """The set of plans that keep every constraint."""
        return FeasibleSet(self.constraints, self.parametrization)

    def loss(self, variables: PlanVariables, draw: PyTree) -> Float[Array, ""]:
        """The objective of one draw under `variables`."""
        return self.objective(self.burden(draw, self.parametrization.schedule(variables)))

    def over_draws(self, function: Callable[[PyTree], Any]) -> Any:
        """`function` of every draw, leaves with the leading axis [draw]."""
        return jax.lax.map(function, self.draws) if self.sequential else jax.vmap(function)(self.draws)

    def curves(self, variables: PlanVariables) -> Curve:
        """The burden curve of every draw, leaves [draw time]."""
        schedule = self.parametrization.schedule(variables)
        return self.over_draws(lambda draw: self.burden(draw, schedule))

    def losses(self, variables: PlanVariables) -> Float[Array, " draw"]:
        """The objective of every draw."""
        return self.over_draws(lambda draw: self.loss(variables, draw))

    def with_draws(self, draws: PyTree, weights: Float[Array, " draw"] | None = None) -> "PlanningProblem":
        """The same problem on other draws."""
        return PlanningProblem(
            self.burden,
            draws,
            self.parametrization,
            self.objective,
            self.risk,
            self.constraints,
            weights,
            self.sequential,
        )

    def with_constraints(self, constraints: tuple[AbstractConstraint, ...]) -> "PlanningProblem":
        """The same problem within other limits."""
        return PlanningProblem(
            self.burden,
            self.draws,
            self.parametrization,
            self.objective,
            self.risk,
            constraints,
            self.weights,
            self.sequential,
        )

    def kept(self, usable: np.ndarray) -> "PlanningProblem":
        """The same problem with only the draws marked `usable` (bool [draw])."""
        chosen = np.flatnonzero(usable)
        draws = jax.tree.map(lambda leaf: leaf[chosen], self.draws)
        return self.with_draws(draws, None if self.weights is None else self.weights[chosen])
