"""Projected first-order descent with any optimiser of optax."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from tumortwin.control._candidate import Candidate, better, judged_one, plan_of
from tumortwin.control._controller import AbstractController
from tumortwin.control._evaluate import vector_gradient
from tumortwin.control._nearest import Nearest
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem

MOMENTUM = 0.9
LAST_RATE = 1e-3
"""The learning rate falls to this share of the first (cosine decay)."""


@dataclasses.dataclass(frozen=True)
class Walk:
    """The admissible `vector` of now, the `optimizer`'s own state, and the `best` decision so far.

    `unit`: one over the largest entry of the first scaled gradient.
    """

    nearest: Nearest
    vector: np.ndarray
    unit: float
    optimizer: Any
    best: Candidate | None
    steps: int


def momentum_descent(learning_rate: Any) -> Any:
    """Gradient descent with Nesterov momentum."""
    return optax.sgd(learning_rate, momentum=MOMENTUM, nesterov=True)


class OptaxProjected(AbstractController):
    """u <- P(u + update): a step of an optax optimiser, then the nearest admissible decision.

    Components are scaled by the width of their bounds and the risk by its first gradient; the learning rate decays as a
    cosine. Every iterate keeps every limit on the decision.

    **Arguments:** `optimizer`, from a learning rate (or a schedule of it) to a gradient transformation; `learning_rate`
    (share of the bounds a step); `steps`.

    **Good values:** momentum (the default), 0.05, 100-300 steps. Not optax.adam where a limit couples components: it
    moves all of them alike, and the projection takes that back.

    **Raises:** `ValueError` for whole numbers, and for limits on the outcome (`ScipyGradient` minds them).

    **Limits:** first-order: hundreds of gradients where SLSQP takes tens (convenience: for noisy gradients).

    **Reference:** DeepMind, The DeepMind JAX Ecosystem (2020).
    """

    optimizer: Callable[..., Any] = eqx.field(static=True, default=momentum_descent)
    learning_rate: float = eqx.field(static=True, converter=float, default=0.05)
    steps: int = eqx.field(static=True, default=200)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Walk:
        del key
        region = problem.region.bounded()
        if region.space.integer.any() or problem.outcome_limits:
            raise ValueError(
                "required: components that vary continuously and limits on the decision alone; received: whole numbers "
                "or limits on the outcome; try: BranchAndBound() or ScipyGradient()"
            )
        nearest = Nearest.of(region)
        start = nearest.project(0.5 * (region.lower + region.upper))
        _, gradient = vector_gradient(problem, start)
        largest = float(np.abs(gradient * (region.upper - region.lower)).max())
        if not np.isfinite(largest):
            raise ValueError(
                f"required: a finite gradient at the start; received: {gradient.tolist()}; "
                "try: PlanningProblem.kept(usable) to leave out draws whose solve fails"
            )
        unit = 1.0 / largest if largest > 0.0 else 1.0
        return Walk(nearest, start, unit, self._rule().init(jnp.zeros(region.size)), judged_one(problem, start), 0)

    def step(self, problem: PlanningProblem, state: Walk) -> Walk:
        region = state.nearest.region
        width = region.upper - region.lower
        _, gradient = vector_gradient(problem, state.vector)
        updates, optimizer = self._rule().update(
            jnp.asarray(gradient * width * state.unit), state.optimizer, jnp.zeros(region.size)
        )
        vector = state.nearest.project(state.vector + width * np.asarray(updates))
        best = better([state.best, judged_one(problem, vector)])
        return Walk(state.nearest, vector, state.unit, optimizer, best, state.steps + 1)

    def terminate(self, problem: PlanningProblem, state: Walk) -> bool:
        del problem
        return state.steps >= self.steps

    def info(self, state: Walk) -> Mapping[str, Any]:
        return {
            "risk": math.inf if state.best is None else state.best.risk,
            "outcome": "all steps were taken",
            "converged": False,
            "gradient_evaluations": state.steps,
        }

    def postprocess(self, problem: PlanningProblem, state: Walk, name: str) -> Plan:
        return plan_of(problem, state.nearest.region, state.best, name=name, convergence=self.info(state))

    def _rule(self) -> Any:
        return self.optimizer(optax.cosine_decay_schedule(self.learning_rate, self.steps, LAST_RATE))
