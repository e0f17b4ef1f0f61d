"""What plans lead to, compiled: one program for the curves of any plan and draws, one for the gradient of a draw.

Search, comparison and report all go through here, so that a solve is compiled once however many draws are asked for.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin._chunks import in_chunks, side_by_side
from tumortwin.control._objective import AbstractObjective, Curve
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._risk import AbstractRisk


def curves(problem: PlanningProblem, variables: PyTree) -> Curve:
    """The burden curve of every draw, leaves [draw time]; one draw after another, or all at once."""
    bare = problem.with_constraints(()).with_outcome_limits(()).with_draws(None)
    if not problem.sequential:
        return _curves(bare, problem.draws, variables)
    return in_chunks(lambda draws: _curves(bare, draws, variables), problem.draws)


def losses(
    problem: PlanningProblem, variables: PyTree, objectives: Sequence[AbstractObjective] | None = None
) -> Float[Array, "objective draw"]:
    """Every objective (by default the problem's alone) of every draw, each draw solved once."""
    every = (problem.objective,) if objectives is None else tuple(objectives)
    return losses_of(every, curves(problem, variables))


def losses_of(objectives: Sequence[AbstractObjective], found: Curve) -> Float[Array, "objective draw"]:
    """Every objective of curves that are there already, leaves [draw time]."""
    return _judged(tuple(objectives), found)


def sample_risk(problem: PlanningProblem, variables: PyTree) -> float:
    """Risk of `variables` on the draws of the problem."""
    return risk_of(problem, losses(problem, variables)[0])


def risk_of(problem: PlanningProblem, known: Float[Array, " draw"]) -> float:
    """Risk of losses that are known."""
    return float(_shares(problem.risk, known, problem.weights)[0])


def risk_gradient(
    problem: PlanningProblem, variables: PyTree, known: Float[Array, " draw"] | None = None
) -> tuple[float, PyTree]:
    """Risk and its gradient; `known`: the losses of the draws under `variables` where they have been solved already
    (of use one draw after another).

    $$ \\nabla_v R(\\ell_1(v), \\dots) = \\sum_s \\frac{\\partial R}{\\partial \\ell_s} \\nabla_v \\ell_s $$

    One draw after another, a draw without weight in the risk (all outside the tail of a CVaR) is not differentiated:
    forward solves of all draws, reverse solves of few.
    """
    if not problem.sequential:
        value, gradient = _all_at_once(problem.with_constraints(()).with_outcome_limits(()), variables)
        return float(value), gradient
    bare = problem.with_constraints(()).with_outcome_limits(()).with_draws(None)
    values = losses(problem, variables)[0] if known is None else known
    value, shares = _shares(problem.risk, values, problem.weights)
    shares = np.asarray(shares)
    tail = [int(row) for row in np.flatnonzero(shares)]

    def gradient_of(row: int) -> PyTree:
        return _loss_gradient(bare, variables, jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[row]), draws))

    draws = problem.draws
    gradients = side_by_side(gradient_of, tail)
    zero = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), variables)
    total = jax.tree.map(
        lambda start, *each: start + sum(shares[r] * g for r, g in zip(tail, each, strict=True)), zero, *gradients
    )
    return float(value), jax.tree.map(jnp.asarray, total)


@eqx.filter_jit
def _curves(problem: PlanningProblem, draws: PyTree, variables: PyTree) -> Curve:
    return problem.with_draws(draws).curves(variables)


@eqx.filter_jit
def _judged(objectives: tuple[AbstractObjective, ...], found: Curve) -> Float[Array, "objective draw"]:
    return jnp.stack([jax.vmap(objective)(found) for objective in objectives])


@eqx.filter_jit
def _shares(risk: AbstractRisk, values: Array, weights: Array | None) -> tuple[Array, Array]:
    """The risk, and its derivative in the loss of every draw."""
    return jax.value_and_grad(lambda z: risk(z, weights))(values)


@eqx.filter_jit
def _loss_gradient(problem: PlanningProblem, variables: PyTree, draw: PyTree) -> PyTree:
    return jax.grad(problem.loss)(variables, draw)


@eqx.filter_jit
def _all_at_once(problem: PlanningProblem, variables: PyTree) -> tuple[Array, PyTree]:
    return jax.value_and_grad(lambda v: problem.risk(problem.losses(v), problem.weights))(variables)


def vector_gradient(problem: PlanningProblem, vector: Float[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " n"]]:
    """Risk and its gradient [n] in the decision vector."""
    parametrization = problem.parametrization
    value, gradient = risk_gradient(problem, parametrization.variables(jnp.asarray(vector)))
    return value, np.asarray(parametrization.vector(gradient), dtype=float)


def judged_vectors(
    problem: PlanningProblem, vectors: Float[np.ndarray, "m n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m limit"]]:
    """Risk and residuals of the outcome limits of many decisions: one program for any number of them.

    All draws at once: decisions are solved in chunks of `CHUNK_OF_PLANS`, side by side. One draw after another: one
    decision after another.
    """
    bare = problem.with_constraints(())
    if problem.sequential:
        return _one_by_one(problem, vectors)
    risks, residuals = in_chunks(lambda part: _judged_many(bare, part), vectors, CHUNK_OF_PLANS)
    return np.asarray(risks), np.asarray(residuals)


CHUNK_OF_PLANS = 64


def _one_by_one(problem: PlanningProblem, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    limits = problem.outcome_limits
    objectives = (problem.objective, *(limit.objective for limit in limits))
    risks, residuals = np.zeros(len(vectors)), np.zeros((len(vectors), len(limits)))
    for row, vector in enumerate(vectors):
        values = losses(problem, problem.parametrization.variables(jnp.asarray(vector)), objectives)
        risks[row] = risk_of(problem, values[0])
        residuals[row] = [float(b.residual(values[k + 1], problem.weights)) for k, b in enumerate(limits)]
    return risks, residuals


@eqx.filter_jit
def _judged_many(problem: PlanningProblem, vectors: Array) -> tuple[Array, Array]:
    return jax.vmap(lambda u: problem.judged(problem.parametrization.variables(u)))(vectors)


def outcome_residuals(
    problem: PlanningProblem, vector: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " limit"], Float[np.ndarray, "limit n"]]:
    """The residuals of the outcome limits and their derivatives in the decision vector."""
    values, slopes = _limits_and_slopes(problem.with_constraints(()), jnp.asarray(vector))
    return np.asarray(values), np.asarray(slopes)


@eqx.filter_jit
def _limits_and_slopes(problem: PlanningProblem, vector: Array) -> tuple[Array, Array]:
    def residuals(u: Array) -> Array:
        return problem.judged(problem.parametrization.variables(u))[1]

    return residuals(vector), jax.jacrev(residuals)(vector)
