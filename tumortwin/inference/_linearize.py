"""Derivatives of a forward solve by central differences, one solve after another."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from tumortwin.inference._problem import Problem

# In units of the prior's spread: large against the noise of single-precision fields, small against the curvature.
STEP = 0.01


def central_difference_jacobian(
    fn: Callable[[Array], PyTree], z: Float[Array, " parameter"], step: float = STEP
) -> tuple[PyTree, PyTree]:
    """`fn(z)` and its Jacobian, a leading axis `parameter` on every leaf.

    $$ J_i = \\frac{f(z + h e_i) - f(z - h e_i)}{2h} + O(h^2) $$

    The `2p + 1` evaluations run one after another inside one `lax.map`, so `fn` is compiled once.
    """
    moves = step * jnp.eye(z.shape[0], dtype=z.dtype)
    values = jax.lax.map(fn, jnp.concatenate([z[None], z + moves, z - moves]))
    size = z.shape[0]

    def difference(leaf: Array) -> Array:
        return (leaf[1 : 1 + size] - leaf[1 + size :]) / (2 * step)

    return jax.tree.map(lambda leaf: leaf[0], values), jax.tree.map(difference, values)


def central_difference_jvp(fn: Callable[..., Array], step: float = STEP) -> Callable[..., Array]:
    """`fn(z, *constants)` with a forward derivative in `z` by central differences.

    For a few parameters this is the cheapest Jacobian of a PDE solve, and `fn` need not be differentiable by JAX at all
    (a `custom_vjp` inside it blocks `jvp`). The rule forms the whole Jacobian from the primal point, so that
    `jax.linearize` and `jax.jacfwd` pay `2p + 1` evaluations once, however many tangents follow.

    `constants` are pytrees of arrays; the derivative with respect to them is taken to be zero.
    """
    wrapped = jax.custom_jvp(fn)

    @wrapped.defjvp
    def _rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        z, *constants = primals
        value, jacobian = central_difference_jacobian(lambda point: fn(point, *constants), z, step)
        return value, jnp.tensordot(tangents[0], jacobian, axes=1).astype(value.dtype)

    return wrapped


class Linearization(eqx.Module):
    """The problem around one point, in the coordinates of the prior.

    `information` is the Fisher information of the power likelihood, `J^T W J` with the expected information `W` of
    every voxel (and `2 n` for the log of a free noise scale); `curvature` that of the prior; `gradient` the derivative
    of the log density; `residuals` the unweighted deviance residuals of every datum.
    """

    z: Float[Array, " parameter"]
    log_density: Float[Array, ""]
    gradient: Float[Array, " parameter"]
    information: Float[Array, "parameter parameter"]
    curvature: Float[Array, " parameter"]
    residuals: tuple[Array, ...]


@eqx.filter_jit
def linearize(problem: Problem, z: Float[Array, " parameter"], step: float = STEP) -> Linearization:
    """Fisher information, gradient and residuals at `z` from `2p + 1` forward solves."""

    def evaluate(point: Array) -> tuple[tuple[Array, ...], Array, Array]:
        predictions, observations = problem.predict(problem.prior.constrain(point))
        scales = jnp.stack([observations[d.channel].log_scale() for d in problem.data])
        terms = problem.likelihood_terms(predictions, observations)
        return predictions, scales, problem.log_prior(point) + jnp.sum(terms)

    (predictions, _, log_density), (slopes, scale_slopes, gradient) = central_difference_jacobian(evaluate, z, step)
    _, observations = problem.bind(problem.prior.constrain(z))
    information = jnp.zeros((z.shape[0], z.shape[0]), z.dtype)
    residuals = []
    for k, datum in enumerate(problem.data):
        observation = observations[datum.channel]
        expected = observation.information(predictions[k]) * datum.valid
        rows = slopes[k].reshape(z.shape[0], -1)
        weighted = (rows * jnp.ravel(expected)[None, :]) @ rows.T
        count = jnp.sum(datum.valid, dtype=z.dtype)
        scale = 2 * count * jnp.outer(scale_slopes[:, k], scale_slopes[:, k])
        information = information + datum.weight * (weighted.astype(z.dtype) + scale)
        residuals.append(observation.residual(predictions[k], datum.values))
    curvature = problem.prior.curvature(z)
    return Linearization(z, log_density, gradient, information, curvature, tuple(residuals))
