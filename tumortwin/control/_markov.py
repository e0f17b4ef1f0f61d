"""Dynamic programming on a small Markov decision process: exact feedback for a problem of few states."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

ROW_SUM = 1e-8


@dataclasses.dataclass(frozen=True)
class MarkovDecision:
    """A finite Markov decision process, by the few states that can follow a state.

    `successors` [action state branch]: indices of states; `probability` [action state branch] of each (sums below one
    end the process with what is missing); `cost` [action state] of taking an action in a state; infinite where it is
    forbidden. `MarkovDecision.dense` takes a full transition matrix.

    **Raises:** `ValueError` for probabilities out of range, or shapes that differ.
    """

    successors: Int[np.ndarray, "action state branch"]
    probability: Float[np.ndarray, "action state branch"]
    cost: Float[np.ndarray, "action state"]

    def __post_init__(self) -> None:
        total = self.probability.sum(axis=-1)
        fits = self.probability.shape[:2] == self.cost.shape and self.probability.shape == self.successors.shape
        if not fits or self.probability.min() < 0.0 or total.max() > 1.0 + ROW_SUM:
            raise ValueError(
                "required: successors and probabilities [action state branch] whose rows sum to one or less, and costs "
                f"[action state]; received: {self.successors.shape}, {self.probability.shape} with sums "
                f"{total.min():.4g} to {total.max():.4g}, and {self.cost.shape}"
            )

    @classmethod
    def dense(
        cls, transition: Float[np.ndarray, "action state next"], cost: Float[np.ndarray, "action state"]
    ) -> "MarkovDecision":
        """The process of a transition matrix."""
        following = np.broadcast_to(np.arange(transition.shape[-1]), transition.shape)
        return cls(following, transition, cost)

    def expected(self, value: Float[Array, " state"]) -> Float[Array, "action state"]:
        """The expectation of `value` in the next state."""
        return jnp.sum(jnp.asarray(self.probability) * value[jnp.asarray(self.successors)], axis=-1)


@dataclasses.dataclass(frozen=True)
class MarkovPolicy:
    """What to do and what it costs from there: `action` and `value`, [state] or, with a finite horizon, [step state]
    (values one step longer, the terminal cost last). `sweeps` taken, and the `residual` of the last."""

    action: Int[np.ndarray, "*step state"]
    value: Float[np.ndarray, "*step_ state"]
    sweeps: int
    residual: float


def finite_horizon(
    process: MarkovDecision, steps: int, terminal: Float[np.ndarray, " state"], discount: float = 1.0
) -> MarkovPolicy:
    """Backward induction over `steps` decisions.

    $$ V_T = terminal, \\qquad
        V_k(s) = \\min_a \\left[ c(a, s) + \\gamma \\sum_{s'} P(s' | a, s) V_{k+1}(s') \\right] $$

    **Reference:** Bellman, Dynamic Programming (1957).
    """
    cost = jnp.asarray(process.cost)

    def back(value: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        every = cost + discount * process.expected(value)
        lowest = jnp.min(every, axis=0)
        return lowest, (jnp.argmin(every, axis=0), lowest)

    _, (actions, values) = jax.lax.scan(back, jnp.asarray(terminal), None, length=steps, reverse=True)
    every = np.concatenate([np.asarray(values), np.asarray(terminal)[None, :]])
    return MarkovPolicy(np.asarray(actions), every, steps, 0.0)


def value_iteration(
    process: MarkovDecision, discount: float = 1.0, tolerance: float = 1e-9, max_sweeps: int = 100_000
) -> MarkovPolicy:
    """The stationary optimum: V = min_a [c + gamma P V], by sweeps until no value changes by more than `tolerance`.

    Converges for a discount below one, and without discount where every policy that matters ends (a stopping problem
    such as the time to progression).

    **Raises:** `ValueError` when it has not converged after `max_sweeps`.
    """
    cost = jnp.asarray(process.cost)

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, _, count = state
        new = jnp.min(cost + discount * process.expected(value), axis=0)
        return new, jnp.max(jnp.abs(new - value)), count + 1

    def going(state: tuple[Array, Array, Array]) -> Array:
        return (state[1] > tolerance) & (state[2] < max_sweeps)

    first = (jnp.zeros(cost.shape[1]), jnp.asarray(jnp.inf), jnp.asarray(0))
    value, residual, count = jax.lax.while_loop(going, sweep, first)
    if not float(residual) <= tolerance:
        raise ValueError(
            f"required: values that settle to {tolerance:g}; received: a change of {float(residual):.3g} after "
            f"{int(count)} sweeps; try: a discount below 1, or a process that ends under every policy"
        )
    action = jnp.argmin(cost + discount * process.expected(value), axis=0)
    return MarkovPolicy(np.asarray(action), np.asarray(value), int(count), float(residual))


def grid_process(
    move: Callable[[Array, Array], Array],
    cost: Callable[[Array, Array], Array],
    axes: Sequence[ArrayLike],
    actions: ArrayLike,
    ended: Callable[[Array], Array] | None = None,
) -> tuple[MarkovDecision, Float[np.ndarray, "state dim"]]:
    """A deterministic system on a grid as a Markov decision process, and the grid's states.

    A state that `move(state, action)` reaches between grid points is shared among the corners of its cell in the
    proportions of multilinear interpolation, which are probabilities; outside the grid it is clipped to it.

    **Arguments:** `move` and `cost` of one state [dim] and one action; `axes`: the rising grid values of every
    dimension; `actions` [action ...]; `ended(state)`: where the process is over (no cost, no next state; reaching such
    a state ends it).

    **Limits:** interpolation spreads the state a little every step (numerical diffusion): refine the grid until the
    value settles (mathematical). The number of states is the product of the axes' lengths.
    """
    grids = [np.asarray(axis, dtype=float) for axis in axes]
    states = np.stack([m.ravel() for m in np.meshgrid(*grids, indexing="ij")], axis=1)
    choices = jnp.asarray(actions)
    reached = np.asarray(jax.vmap(lambda a: jax.vmap(lambda s: move(s, a))(jnp.asarray(states)))(choices))
    costs = np.array(jax.vmap(lambda a: jax.vmap(lambda s: cost(s, a))(jnp.asarray(states)))(choices))
    over = np.zeros((2, *costs.shape), bool)
    if ended is not None:
        over[0] = np.asarray(jax.vmap(ended)(jnp.asarray(states)))[None, :]
        over[1] = np.asarray(jax.vmap(jax.vmap(ended))(jnp.asarray(reached)))
    shape = [g.size for g in grids]
    successors, weights = [], []
    for corner in np.ndindex(*([2] * len(grids))):
        weight, place = np.ones(reached.shape[:2]), []
        for d, (grid, upper) in enumerate(zip(grids, corner, strict=True)):
            at = np.clip(reached[..., d], grid[0], grid[-1])
            below = np.clip(np.searchsorted(grid, at, side="right") - 1, 0, grid.size - 2)
            share = (at - grid[below]) / (grid[below + 1] - grid[below])
            weight = weight * (share if upper else 1.0 - share)
            place.append(below + upper)
        successors.append(np.ravel_multi_index(place, shape))
        weights.append(weight)
    probability = np.stack(weights, axis=-1)
    probability[over[0] | over[1]] = 0.0
    costs[over[0]] = 0.0
    return MarkovDecision(np.stack(successors, axis=-1), probability, costs), states
