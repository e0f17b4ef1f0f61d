"""All that a controller may know: draws, the burden they lead to under a schedule, objective, risk and limits."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._decision import AbstractParametrization
from tumortwin.control._feasible import FeasibleSet
from tumortwin.control._objective import AbstractObjective, Curve
from tumortwin.control._outcome import AbstractOutcomeLimit
from tumortwin.control._region import Region
from tumortwin.control._risk import AbstractRisk

Burden = Callable[[PyTree, Any], Curve]


class PlanningProblem(eqx.Module):
    """Minimise risk over draws of objective(burden(draw, schedule(variables))) within the constraints.

    The draws are fixed (sample average approximation with common random numbers): the problem is deterministic, so two
    plans are compared on the same tumors.

    **Arguments:** `burden`: one draw and one schedule (what `parametrization.schedule` returns) -> `Curve`;
    differentiable in the doses and, if times may move, in the times, for the controllers that use gradients. `draws`: a
    pytree (such as path -> array) whose leaves have the leading axis [draw]; `weights` [draw] or None. `sequential`:
    draws one after another (`lax.map`: 3-D solves) or all at once (`vmap`: closed forms). `constraints` are limits on
    the decision; `outcome_limits` are limits on what it leads to over the draws (white cells, body weight: a risk or a
    probability), known only after a solve.

    **Good values:** 32-64 draws with CVaR 0.8; fresh draws for the comparison.
    """

    burden: Burden
    draws: PyTree
    parametrization: AbstractParametrization
    objective: AbstractObjective
    risk: AbstractRisk
    constraints: tuple[AbstractConstraint, ...] = eqx.field(converter=tuple)
    weights: Float[Array, " draw"] | None = None
    sequential: bool = eqx.field(static=True, default=True)
    outcome_limits: tuple[AbstractOutcomeLimit, ...] = eqx.field(converter=tuple, default=())

    @property
    def n_draws(self) -> int:
        """Number of draws (static)."""
        return jax.tree.leaves(self.draws)[0].shape[0]

    @property
    def feasible_set(self) -> FeasibleSet:
        """The set of weekly fractions that keep every constraint, with its exact projection."""
        return FeasibleSet(self.constraints, self.parametrization)

    @property
    def region(self) -> Region:
        """The set of decisions that keep every constraint, for any parametrisation."""
        return Region.of(self.parametrization, self.constraints)

    def curve(self, variables: PyTree, draw: PyTree) -> Curve:
        """What one draw goes through under `variables`."""
        found = self.burden(draw, self.parametrization.schedule(variables))
        return found.with_given(self.parametrization.courses(variables))

    def loss(self, variables: PyTree, draw: PyTree) -> Float[Array, ""]:
        """The objective of one draw under `variables`."""
        return self.objective(self.curve(variables, draw))

    def over_draws(self, function: Callable[[PyTree], Any]) -> Any:
        """`function` of every draw, leaves with the leading axis [draw]."""
        return jax.lax.map(function, self.draws) if self.sequential else jax.vmap(function)(self.draws)

    def curves(self, variables: PyTree) -> Curve:
        """The burden curve of every draw, leaves [draw time]."""
        return self.over_draws(lambda draw: self.curve(variables, draw))

    def losses(self, variables: PyTree) -> Float[Array, " draw"]:
        """The objective of every draw."""
        return self.over_draws(lambda draw: self.loss(variables, draw))

    def judged(self, variables: PyTree) -> tuple[Float[Array, ""], Float[Array, " limit"]]:
        """Risk, and the residual of every outcome limit (zero or less where it is kept); each draw solved once."""
        every = (self.objective, *(limit.objective for limit in self.outcome_limits))

        def one(draw: PyTree) -> Array:
            found = self.curve(variables, draw)
            return jnp.stack([objective(found) for objective in every])

        values = self.over_draws(one)
        residuals = [limit.residual(values[:, k + 1], self.weights) for k, limit in enumerate(self.outcome_limits)]
        return self.risk(values[:, 0], self.weights), jnp.asarray(residuals).reshape(len(residuals))

    def with_draws(self, draws: PyTree, weights: Float[Array, " draw"] | None = None) -> "PlanningProblem":
        """The same problem on other draws."""
        return dataclasses.replace(self, draws=draws, weights=weights)

    def with_constraints(self, constraints: Sequence[AbstractConstraint]) -> "PlanningProblem":
        """The same problem within other limits on the decision."""
        return dataclasses.replace(self, constraints=tuple(constraints))

    def with_outcome_limits(self, limits: Sequence[AbstractOutcomeLimit]) -> "PlanningProblem":
        """The same problem within other limits on the outcome."""
        return dataclasses.replace(self, outcome_limits=tuple(limits))

    def kept(self, usable: np.ndarray) -> "PlanningProblem":
        """The same problem with only the draws marked `usable` (bool [draw])."""
        chosen = np.flatnonzero(usable)
        draws = jax.tree.map(lambda leaf: leaf[chosen], self.draws)
        return self.with_draws(draws, None if self.weights is None else self.weights[chosen])
