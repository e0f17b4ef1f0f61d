"""Derivatives of a forward solve by central differences, one solve after another."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin.inference._problem import Group, Problem
from tumortwin.observation import AbstractObservation

Seen = tuple[tuple[Array, ...], dict[str, AbstractObservation]]
Scaled = tuple[tuple[Array, ...], tuple[Array, ...]]

# In units of the prior's spread: large against the noise of single-precision fields, small against the curvature.
STEP = 0.01


def central_difference_jacobian(
    fn: Callable[[Array], PyTree],
    z: Float[Array, " parameter"],
    step: float = STEP,
    entries: np.ndarray | None = None,
) -> PyTree:
    """The Jacobian of `fn` at `z`, a leading axis on every leaf: all parameters, or those at `entries`.

    $$ J_i = \\frac{f(z + h e_i) - f(z - h e_i)}{2h} + O(h^2) $$

    The `2p` evaluations run one after another inside one `lax.map`, so `fn` is compiled once.
    """
    chosen = np.arange(z.shape[0]) if entries is None else entries
    moves = step * jnp.eye(z.shape[0], dtype=z.dtype)[chosen]
    values = jax.lax.map(fn, jnp.concatenate([z[None] + moves, z[None] - moves]))
    return jax.tree.map(lambda leaf: (leaf[: chosen.size] - leaf[chosen.size :]) / (2 * step), values)


class Linearization(eqx.Module):
    """The problem around one point, in the coordinates of the prior.

    - `log_density` and its `gradient`;
    - `information`, the Gauss-Newton Hessian of the power likelihood, `J^T W J`, with the Fisher information `W` of a
      voxel (the Laplace approximation); `observed`, the same with its observed information `-d^2 log p / d eta^2`
      where that is positive (the search for the mode: for a probit it does not vanish far from the fit);
    - `curvature` of the prior (diagonal).
    """

    z: Float[Array, " parameter"]
    log_density: Float[Array, ""]
    gradient: Float[Array, " parameter"]
    information: Float[Array, "parameter parameter"]
    observed: Float[Array, "parameter parameter"]
    curvature: Float[Array, " parameter"]


def linearize(problem: Problem, z: Float[Array, " parameter"], *, step: float = STEP) -> Linearization:
    """Gradient and Gauss-Newton Hessians at `z` from `2p + 1` forward solves, `p` the parameters that move the states.

    $$ g = -\\nabla \\log \\pi - \\sum_k w_k J_k^T \\partial_\\eta \\log p, \\qquad
       F = \\sum_k w_k \\left( J_k^T W_k J_k + 2 \\sum_i \\nabla \\log s_{ki} \\nabla \\log s_{ki}^T \\right) $$

    `J` by central differences of the predictions; everything after the solve is exact. A noise scale `s` has
    information 2 an observation in `log s`, whether it is free or changes with the prediction (observed information
    holds the latter already: it counts twice there, which shortens steps and moves no mode).
    """

    moving, observing = problem.entries()

    def with_scales(seen: Seen) -> Scaled:
        predictions, observations = seen
        pairs = zip(problem.groups(), predictions, strict=True)
        return predictions, tuple(observations[group.channel].log_scale(eta) for group, eta in pairs)

    def solve(point: Array) -> tuple[tuple[Array, ...], Scaled]:
        values = problem.prior.constrain(point)
        states = problem.visits(values)
        return states, with_scales(problem.observe(states, values))

    def loss(predictions: tuple[Array, ...], point: Array) -> Array:
        _, observations = problem.bind(problem.prior.constrain(point))
        return -problem.log_prior(point) - jnp.sum(problem.likelihood_terms(predictions, observations))

    states, (predictions, _), by_moving = _around(solve, z, step, moving)

    def look(point: Array) -> Scaled:
        return with_scales(problem.observe(states, problem.prior.constrain(point)))

    by_observing = central_difference_jacobian(look, z, step, observing)
    order = np.argsort(np.concatenate([moving, observing]))
    slopes, scale_slopes = jax.tree.map(lambda a, b: jnp.concatenate([a, b])[order], by_moving, by_observing)
    value, (by_prediction, gradient) = jax.value_and_grad(loss, argnums=(0, 1))(predictions, z)
    _, observations = problem.bind(problem.prior.constrain(z))
    information = observed = jnp.zeros((z.shape[0], z.shape[0]), z.dtype)
    for k, group in enumerate(problem.groups()):
        rows = slopes[k].reshape(z.shape[0], -1)
        gradient = gradient + (rows @ jnp.ravel(by_prediction[k])).astype(z.dtype)
        fisher, seen = _information(observations[group.channel], group, predictions[k])
        counted = (group.valid * group.spread(group.weight)).astype(fisher.dtype)
        information = information + _squared(rows, fisher * counted).astype(z.dtype)
        observed = observed + _squared(rows, seen * counted).astype(z.dtype)
        if scale_slopes[k].ndim > 1:  # a scalar scale is none
            of_scale = 2 * _squared(scale_slopes[k].reshape(z.shape[0], -1), counted).astype(z.dtype)
            information, observed = information + of_scale, observed + of_scale
    return Linearization(z, -value, -gradient, information, observed, problem.prior.curvature(z))


def _around(
    solve: Callable[[Array], tuple[PyTree, PyTree]], z: Array, step: float, entries: np.ndarray
) -> tuple[PyTree, PyTree, PyTree]:
    """What `solve` returns at `z`, and the Jacobian of its second part: one loop, so that a solve is compiled once."""
    moves = step * jnp.eye(z.shape[0], dtype=z.dtype)[entries]
    points = jnp.concatenate([z[None], z[None] + moves, z[None] - moves])
    first = jnp.arange(points.shape[0]) == 0

    def body(kept: PyTree, item: tuple[Array, Array]) -> tuple[PyTree, PyTree]:
        point, here = item
        states, seen = solve(point)
        return jax.tree.map(lambda new, old: jnp.where(here, new, old), states, kept), seen

    solve = jax.jit(solve)  # traced once for its shapes and for the loop
    shapes, _ = jax.eval_shape(solve, z)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    states, seen = jax.lax.scan(body, nothing, (points, first))
    n = entries.size
    slopes = jax.tree.map(lambda leaf: (leaf[1 : n + 1] - leaf[n + 1 :]) / (2 * step), seen)
    return states, jax.tree.map(lambda leaf: leaf[0], seen), slopes


def _squared(rows: Array, weights: Array) -> Array:
    """`rows diag(weights) rows^T`."""
    return (rows * jnp.ravel(weights)[None, :]) @ rows.T


def _information(observation: AbstractObservation, group: Group, prediction: Array) -> tuple[Array, Array]:
    """Information of every value about its prediction: expected, and observed where that is positive."""
    expected = observation.information(prediction)

    def score(point: Array) -> Array:
        return jax.grad(lambda eta: jnp.sum(observation.noise(eta).log_prob(group.values)))(point)

    curvature = -jax.jvp(score, (prediction,), (jnp.ones_like(prediction),))[1]
    return expected, jnp.where(curvature > 0, curvature, expected)


@eqx.filter_jit
def compiled_linearization(problem: Problem, z: Float[Array, " parameter"], step: float = STEP) -> Linearization:
    """`linearize`, compiled."""
    return linearize(problem, z, step=step)
