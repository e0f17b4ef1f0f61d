"""Spectral projected gradient on the risk: few evaluations, every iterate within the limits."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin.control._controller import AbstractController
from tumortwin.control._evaluate import losses, risk_gradient, risk_of, sample_risk
from tumortwin.control._feasible import FeasibleSet
from tumortwin.control._plan import Plan, make_plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._rounding import deliverable
from tumortwin.control._schedule import PlanVariables
from tumortwin.control._starts import default_starts

SUFFICIENT_DECREASE = 1e-4
SHORTEST_STEP, LONGEST_STEP = 1e-6, 1e3


class Outcome(enum.Enum):
    """Why a descent ended; the value is the message of a report."""

    RUNNING = "running"
    CONVERGED = "converged: the projected gradient is below the tolerance"
    STALLED = "stalled: no descent along the projected gradient (a kink of the risk, or the precision of the solver)"
    SPENT = "spent: the evaluation budget is used up; try: a larger max_gradients"


@dataclasses.dataclass(frozen=True)
class Descent:
    """One descent. `point` and `gradient` [week + 1] in scaled variables (Gy; start day over its scale).

    `unit`: one over the largest entry of the first gradient, so that a step of `unit` moves 1 Gy at first.
    """

    start: str
    point: np.ndarray
    value: float
    gradient: np.ndarray
    step_length: float
    unit: float
    residual: float
    steps: int = 0
    outcome: Outcome = Outcome.RUNNING


@dataclasses.dataclass(frozen=True)
class Search:
    """All descents, and the evaluations so far: `gradients` of the risk and `values` without gradient."""

    descents: tuple[Descent, ...]
    gradients: int
    values: int

    @property
    def best(self) -> Descent:
        """The descent with the lowest risk."""
        return min(self.descents, key=lambda d: d.value)


class ProjectedGradient(AbstractController):
    """Projected gradient with Barzilai-Borwein step lengths and a monotone line search, from several starts.

    $$ d_k = P(x_k - \\lambda_k \\nabla f(x_k)) - x_k, \\qquad x_{k+1} = x_k + t_k d_k $$

    The feasible set is convex and x_k and x_k + d_k lie in it, so no iterate ever violates a constraint. Every start
    takes `probe_steps` steps; then the lowest goes on, and after it the next, each until the projected gradient (the
    displacement of a step that moved 1 Gy at its start) is below `tolerance` or its line search fails, or until
    `max_gradients` gradients of the risk are spent. A risk gradient is one forward solve of every draw (done
    already after a line search) and one reverse solve of every draw that carries weight.

    **Arguments:** `reference`: the plan to start from and to beat; `tolerance` [Gy]; `start_scale` [day] that counts
    like 1 Gy; `start_step` [day], counted from the start of `reference`, and `dose_step` [Gy] of the deliverable plan.

    **Good values:** tolerance 0.01 Gy with 3-D float32 solves, 1e-4 Gy with closed forms; `start_step` 7 keeps the
    weekday.

    **Limits:** the risk is not convex in LQ doses (larger fractions kill more), so this finds a local optimum; the
    starts are the corners where the best plans lie (mathematical). A plan is best among what was tried, not a proven
    optimum.

    **Reference:** Birgin, Martinez and Raydan, "Nonmonotone spectral projected gradient methods on convex sets",
    SIAM J Optim 10 (2000).
    """

    reference: PlanVariables
    tolerance: float = eqx.field(static=True, converter=float, default=1e-2)
    max_gradients: int = eqx.field(static=True, default=40)
    probe_steps: int = eqx.field(static=True, default=3)
    max_backtracks: int = eqx.field(static=True, default=6)
    start_scale: float = eqx.field(static=True, converter=float, default=7.0)
    start_step: float = eqx.field(static=True, converter=float, default=1.0)
    dose_step: float = eqx.field(static=True, converter=float, default=0.01)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Search:
        del key
        if problem.outcome_limits:
            raise ValueError(
                "required: limits on the decision alone, for projected gradients; received: limits on the outcome; "
                'try: ScipyGradient("SLSQP")'
            )
        feasible = problem.feasible_set
        starts = default_starts(feasible, self.reference)
        points = {name: self._pack(v) for name, v in starts.items()}
        distinct: dict[str, np.ndarray] = {}
        for name, point in points.items():
            if all(np.abs(point - other).max() > self.tolerance for other in distinct.values()):
                distinct[name] = point
        chosen = list(distinct.items())[: self.max_gradients]
        descents = tuple(self._begin(problem, feasible, name, point) for name, point in chosen)
        return Search(descents, gradients=len(descents), values=0)

    def step(self, problem: PlanningProblem, state: Search) -> Search:
        running = [d for d in state.descents if d.outcome is Outcome.RUNNING]
        probing = [d for d in running if d.steps < self.probe_steps]
        current = min(probing, key=lambda d: d.steps) if probing else min(running, key=lambda d: d.value)
        moved, gradients, values = self._advance(problem, current)
        descents = tuple(moved if d is current else d for d in state.descents)
        return Search(descents, state.gradients + gradients, state.values + values)

    def terminate(self, problem: PlanningProblem, state: Search) -> bool:
        del problem
        running = any(d.outcome is Outcome.RUNNING for d in state.descents)
        return state.gradients >= self.max_gradients or not running

    def info(self, state: Search) -> Mapping[str, Any]:
        best = state.best
        spent = best.outcome is Outcome.RUNNING and state.gradients >= self.max_gradients
        return {
            "risk": best.value,
            "start": best.start,
            "outcome": (Outcome.SPENT if spent else best.outcome).value,
            "converged": best.outcome is Outcome.CONVERGED,
            "projected_gradient_gy": best.residual,
            "gradient_evaluations": state.gradients,
            "value_evaluations": state.values,
            "starts": {d.start: {"risk": d.value, "steps": d.steps, "outcome": d.outcome.name} for d in state.descents},
        }

    def postprocess(self, problem: PlanningProblem, state: Search, name: str) -> Plan:
        feasible = problem.feasible_set
        found, anchor = self._unpack(state.best.point), float(self.reference.start_day)
        candidates = deliverable(feasible, found, self.dose_step, self.start_step, anchor)
        values = [sample_risk(problem, v) for v in candidates]
        chosen = int(np.nanargmin(values))
        convergence = dict(self.info(state)) | {"rounding_cost": values[chosen] - state.best.value}
        return make_plan(problem, candidates[chosen], name=name, value=values[chosen], convergence=convergence)

    def variables(self, descent: Descent) -> PlanVariables:
        """The plan at which a descent stands."""
        return self._unpack(descent.point)

    def _pack(self, variables: PlanVariables) -> np.ndarray:
        start = np.asarray(variables.start_day, dtype=float) / self.start_scale
        return np.append(np.asarray(variables.weekly_fraction_dose, dtype=float), start)

    def _unpack(self, point: np.ndarray) -> PlanVariables:
        return PlanVariables(jnp.asarray(point[:-1]), jnp.asarray(point[-1] * self.start_scale))

    def _gradient(
        self, problem: PlanningProblem, point: np.ndarray, known: Array | None = None
    ) -> tuple[float, np.ndarray]:
        value, gradient = risk_gradient(problem, self._unpack(point), known)
        packed = self._pack(gradient)
        packed[-1] *= self.start_scale**2  # chain rule: day = scale * variable
        return value, packed

    def _project(self, feasible: FeasibleSet, point: np.ndarray) -> np.ndarray:
        return self._pack(feasible.project(self._unpack(point)))

    def _begin(self, problem: PlanningProblem, feasible: FeasibleSet, name: str, point: np.ndarray) -> Descent:
        value, gradient = self._gradient(problem, point)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            raise ValueError(
                f"required: a finite risk and gradient at the start {name!r}; received: risk {value}, gradient "
                f"{gradient}; try: PlanningProblem.kept(usable) to leave out draws whose solve fails"
            )
        largest = np.abs(gradient).max()
        unit = 1.0 / largest if largest > 0.0 else 1.0
        residual = np.abs(self._project(feasible, point - unit * gradient) - point).max()
        outcome = Outcome.CONVERGED if residual <= self.tolerance else Outcome.RUNNING
        return Descent(name, point, value, gradient, unit, unit, float(residual), outcome=outcome)

    def _advance(self, problem: PlanningProblem, now: Descent) -> tuple[Descent, int, int]:
        """One step of a descent, with the gradients and values it took."""
        feasible = problem.feasible_set
        direction = self._project(feasible, now.point - now.step_length * now.gradient) - now.point
        slope = float(now.gradient @ direction)
        length, tried = 1.0, 0
        while tried <= self.max_backtracks and slope < 0.0:
            point = now.point + length * direction
            found = losses(problem, self._unpack(point))[0]
            value = risk_of(problem, found)
            tried += 1
            if value <= now.value + SUFFICIENT_DECREASE * length * slope:
                return self._accepted(problem, feasible, now, point, found), 1, tried
            length *= 0.5
        return dataclasses.replace(now, outcome=Outcome.STALLED, steps=now.steps + 1), 0, tried

    def _accepted(
        self, problem: PlanningProblem, feasible: FeasibleSet, now: Descent, point: np.ndarray, known: Array
    ) -> Descent:
        value, gradient = self._gradient(problem, point, known)
        moved, turned = point - now.point, gradient - now.gradient
        curvature = float(moved @ turned)
        length = float(moved @ moved) / curvature if curvature > 0.0 else LONGEST_STEP * now.unit
        length = float(np.clip(length, SHORTEST_STEP * now.unit, LONGEST_STEP * now.unit))
        residual = float(np.abs(self._project(feasible, point - now.unit * gradient) - point).max())
        outcome = Outcome.CONVERGED if residual <= self.tolerance else Outcome.RUNNING
        return Descent(now.start, point, value, gradient, length, now.unit, residual, now.steps + 1, outcome)
