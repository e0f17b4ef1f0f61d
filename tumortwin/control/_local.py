"""One local minimum of the risk within a region, by SciPy's SLSQP or L-BFGS-B with gradients of JAX."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from tumortwin.control._evaluate import outcome_residuals, vector_gradient
from tumortwin.control._nearest import Nearest
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._robust_risk import RockafellarUryasev

SLSQP, LBFGSB = "SLSQP", "L-BFGS-B"

FLAT = 1e-10
"""Projected gradient (scaled: the first is one) at which L-BFGS-B stops."""


@dataclasses.dataclass(frozen=True)
class LocalMinimum:
    """Where a descent ended: `vector` (admissible), the solver's own `message`, and the `gradients` it took."""

    vector: np.ndarray
    message: str
    converged: bool
    gradients: int


def local_minimum(
    problem: PlanningProblem,
    nearest: Nearest,
    start: Float[np.ndarray, " n"],
    *,
    method: str = SLSQP,
    max_iterations: int = 200,
    tolerance: float = 1e-9,
) -> LocalMinimum:
    """Minimise the risk from `start` within the region of `nearest`, integrality left out.

    Components are scaled by the width of their bounds and the risk by its first gradient. Rows and curved limits, and
    the limits on the outcome, are constraints of SLSQP with their derivatives. A `RockafellarUryasev` risk of draws
    that are solved all at once is minimised jointly over its threshold and the plan. The end point is projected on the
    region: it keeps every limit on the decision.

    **Raises:** `ValueError` for limits other than bounds with L-BFGS-B, and for a start without a finite risk.
    """
    region = nearest.region
    if method == LBFGSB and (region.coupling.bound.size or region.curved or problem.outcome_limits):
        raise ValueError(
            "required: bounds as the only limits, for L-BFGS-B; received: limits that couple components; "
            'try: ScipyGradient("SLSQP")'
        )
    width = np.where(region.upper > region.lower, region.upper - region.lower, 1.0)
    first = nearest.project(np.asarray(start, dtype=float))
    goal = _Goal.of(problem, region.lower, width, first)
    found = minimize(
        goal.value_and_slope,
        goal.packed(first),
        jac=True,
        method=method,
        bounds=goal.bounds(region.upper),
        constraints=_limits(problem, nearest, goal) if method == SLSQP else (),
        options={"maxiter": max_iterations, "ftol": tolerance} | ({"gtol": FLAT} if method == LBFGSB else {}),
    )
    vector = nearest.project(goal.decision(found.x))
    return LocalMinimum(vector, str(found.message), bool(found.success), goal.gradients)


@dataclasses.dataclass
class _Goal:
    """The scaled risk of scaled components (and threshold), counted."""

    problem: PlanningProblem
    lower: np.ndarray
    width: np.ndarray
    scale: float
    joint: bool
    threshold: float
    spread: float
    gradients: int = 0

    @classmethod
    def of(cls, problem: PlanningProblem, lower: np.ndarray, width: np.ndarray, first: np.ndarray) -> "_Goal":
        joint = isinstance(problem.risk, RockafellarUryasev) and not problem.sequential
        goal = cls(problem, lower, width, 1.0, joint, 0.0, 1.0)
        if joint:
            assert isinstance(problem.risk, RockafellarUryasev)
            values = np.asarray(_losses(problem.with_constraints(()).with_outcome_limits(()), jnp.asarray(first)))
            goal.threshold = float(problem.risk.threshold(jnp.asarray(values), problem.weights))
            goal.spread = max(float(np.ptp(values)), 1e-12)
        value, slope = goal.value_and_slope(goal.packed(first))
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            raise ValueError(
                f"required: a finite risk and gradient at the start; received: risk {value}, gradient "
                f"{slope.tolist()}; try: PlanningProblem.kept(usable) to leave out draws whose solve fails"
            )
        goal.scale = 1.0 / max(float(np.abs(slope).max()), 1e-12)
        return goal

    def packed(self, vector: np.ndarray) -> np.ndarray:
        scaled = (vector - self.lower) / self.width
        return np.append(scaled, 0.0) if self.joint else scaled

    def decision(self, x: np.ndarray) -> np.ndarray:
        return self.lower + self.width * (x[:-1] if self.joint else x)

    def bounds(self, upper: np.ndarray) -> np.ndarray:
        top = (upper - self.lower) / self.width
        found = np.stack([np.zeros(top.size), top], axis=1)
        return np.concatenate([found, [[-np.inf, np.inf]]]) if self.joint else found

    def value_and_slope(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.gradients += 1
        if not self.joint:
            value, slope = vector_gradient(self.problem, self.decision(x))
            return value * self.scale, slope * self.width * self.scale
        bare = self.problem.with_constraints(()).with_outcome_limits(())
        threshold = self.threshold + self.spread * x[-1]
        value, (by_vector, by_threshold) = _joint(bare, jnp.asarray(self.decision(x)), jnp.asarray(threshold))
        slope = np.append(np.asarray(by_vector) * self.width, float(by_threshold) * self.spread)
        return float(value) * self.scale, slope * self.scale


@eqx.filter_jit
def _losses(problem: PlanningProblem, vector: Array) -> Array:
    return problem.losses(problem.parametrization.variables(vector))


@eqx.filter_jit
def _joint(problem: PlanningProblem, vector: Array, threshold: Array) -> tuple[Array, tuple[Array, Array]]:
    risk = problem.risk
    assert isinstance(risk, RockafellarUryasev)

    def value(u: Array, t: Array) -> Array:
        return risk.at(t, problem.losses(problem.parametrization.variables(u)), problem.weights)

    return jax.value_and_grad(value, argnums=(0, 1))(vector, threshold)


def _limits(problem: PlanningProblem, nearest: Nearest, goal: _Goal) -> list[dict]:
    """The limits as SLSQP takes them: functions of the scaled components that are zero or more inside."""
    region, rows = nearest.region, nearest.region.coupling

    def scaled(slopes: np.ndarray) -> np.ndarray:
        found = -slopes * goal.width
        return np.concatenate([found, np.zeros((len(found), 1))], axis=1) if goal.joint else found

    limits = []
    if rows.bound.size:
        matrix = scaled(rows.matrix)
        limits.append(
            {
                "type": "ineq",
                "fun": lambda x: rows.bound - rows.matrix @ goal.decision(x),
                "jac": lambda x: matrix,
            }
        )
    if region.curved:
        limits.append(
            {
                "type": "ineq",
                "fun": lambda x: -region.curved_residuals(goal.decision(x)),
                "jac": lambda x: scaled(region.curved_jacobian(goal.decision(x))),
            }
        )
    if problem.outcome_limits:
        limits.append(
            {
                "type": "ineq",
                "fun": lambda x: -outcome_residuals(problem, goal.decision(x))[0],
                "jac": lambda x: scaled(outcome_residuals(problem, goal.decision(x))[1]),
            }
        )
    return limits
