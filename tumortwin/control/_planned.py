"""From draws, objective, risk and limits to a plan in one call."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tumortwin.control._branch_and_bound import BranchAndBound
from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._controller import AbstractController, OnStep, optimize
from tumortwin.control._covariance_adaptation import CovarianceAdaptation
from tumortwin.control._decision import AbstractParametrization
from tumortwin.control._exhaustive import Exhaustive
from tumortwin.control._objective import AbstractObjective
from tumortwin.control._outcome import AbstractOutcomeLimit
from tumortwin.control._plan import Plan
from tumortwin.control._policy import PolicyThresholds
from tumortwin.control._problem import Burden, PlanningProblem
from tumortwin.control._risk import AbstractRisk
from tumortwin.control._rounded import RelaxAndRound
from tumortwin.control._scipy_gradient import ScipyGradient
from tumortwin.inference import Posterior

SMALL = 20_000
"""Decisions that are simply all tried."""

FEW = 12
"""Whole components up to which a tree is searched."""


def plan(
    source: PlanningProblem | Posterior,
    objective: AbstractObjective | None = None,
    risk: AbstractRisk | None = None,
    constraints: Sequence[AbstractConstraint | AbstractOutcomeLimit] | None = None,
    *,
    burden: Burden | None = None,
    parametrization: AbstractParametrization | None = None,
    n_draws: int = 64,
    sequential: bool = False,
    controller: AbstractController | None = None,
    name: str = "recommended",
    on_step: OnStep | None = None,
    key: Array,
) -> Plan:
    """The plan for a posterior, or for a planning problem, whatever the model: ODE, PDE or surrogate.

    With a posterior, `n_draws` equal-weight draws are taken from its first half (`Posterior.halves`): the other half is
    left for `compare`. With a problem, its own parts stand unless given here.

    **Arguments:** `constraints`: limits on the decision and on its outcome, in one list; `burden` and `parametrization`
    as of `PlanningProblem` (required with a posterior); `controller`, by default `suitable_controller`; `key` for the
    draws and for searches that draw random numbers.

    **Raises:** `Infeasible` with the limit that cannot be met and the closest that can; `ValueError` for parts missing.

    **Good values:** 64 draws with CVaR 0.8.
    """
    draw_key, search_key = jax.random.split(key)
    problem = _problem(source, objective, risk, burden, parametrization, n_draws, sequential, draw_key)
    if isinstance(source, PlanningProblem):
        problem = _with_parts(problem, objective, risk)
    if constraints is not None:
        problem = problem.with_constraints([c for c in constraints if isinstance(c, AbstractConstraint)])
        problem = problem.with_outcome_limits([c for c in constraints if isinstance(c, AbstractOutcomeLimit)])
    chosen = suitable_controller(problem) if controller is None else controller
    return optimize(problem, chosen, name=name, on_step=on_step, key=search_key)


def suitable_controller(problem: PlanningProblem) -> AbstractController:
    """A controller for the kind of decision: all decisions where they are few, branch and bound or rounding for whole
    numbers (by their number), SLSQP for continuous components, CMA-ES where whole and continuous ones are mixed, and
    for rules, which have no gradient."""
    region = problem.region.bounded()
    whole = region.space.integer
    if whole.all():
        size = math.prod(int(n) for n in region.upper - region.lower + 1.0)
        if size <= SMALL:
            return Exhaustive()
        return BranchAndBound() if region.size <= FEW and not problem.sequential else RelaxAndRound()
    if whole.any() or isinstance(problem.parametrization, PolicyThresholds):
        return CovarianceAdaptation()
    return ScipyGradient()


def _problem(
    source: PlanningProblem | Posterior,
    objective: AbstractObjective | None,
    risk: AbstractRisk | None,
    burden: Burden | None,
    parametrization: AbstractParametrization | None,
    n_draws: int,
    sequential: bool,
    key: Array,
) -> PlanningProblem:
    if isinstance(source, PlanningProblem):
        return source
    parts: dict[str, Any] = {
        "objective": objective,
        "risk": risk,
        "burden": burden,
        "parametrization": parametrization,
    }
    missing = [part for part, value in parts.items() if value is None]
    if missing:
        raise ValueError(
            "required: objective, risk, burden and parametrization, for a plan over a posterior; received: no "
            f"{', '.join(missing)}"
        )
    drawn = source.halves()[0].resample(n_draws, key=key)
    draws = {path: jnp.asarray(value) for path, value in drawn.items()}
    return PlanningProblem(draws=draws, constraints=(), sequential=sequential, **parts)


def _with_parts(
    problem: PlanningProblem, objective: AbstractObjective | None, risk: AbstractRisk | None
) -> PlanningProblem:
    return PlanningProblem(
        problem.burden,
        problem.draws,
        problem.parametrization,
        problem.objective if objective is None else objective,
        problem.risk if risk is None else risk,
        problem.constraints,
        problem.weights,
        problem.sequential,
        problem.outcome_limits,
    )
