"""Any search of weekly fractions, with its result rounded to what a clinic can deliver."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from tumortwin.control._controller import AbstractController
from tumortwin.control._evaluate import sample_risk
from tumortwin.control._plan import Plan, make_plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._rounding import deliverable
from tumortwin.control._schedule import PlanVariables


class Delivered(AbstractController):
    """`controller`, then whole steps of dose and whole steps of days from the start of a reference plan.

    Doses are rounded down and raised again where the limits allow; of the two start days nearest to the optimum the
    better one is taken. The limits stay kept.

    **Arguments:** `controller` of continuous decisions; `reference`, whose start day is the anchor of start days;
    `dose_step` [Gy]; `start_step` [day].

    **Good values:** 0.01 Gy; 7 days, so that the weekday is kept.

    **Raises:** `ValueError` for plans that are not weekly fractions, and for limits on the outcome, which rounding
    could break.
    """

    controller: AbstractController
    reference: PlanVariables
    dose_step: float = eqx.field(static=True, converter=float, default=0.01)
    start_step: float = eqx.field(static=True, converter=float, default=7.0)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Any:
        if problem.outcome_limits:
            raise ValueError(
                "required: limits on the decision alone, where the plan is rounded; received: limits on the outcome; "
                "try: DoseLevels, whose decisions can be delivered as they are"
            )
        _ = problem.feasible_set  # raises for plans that are not weekly fractions
        return self.controller.init(problem, key=key)

    def step(self, problem: PlanningProblem, state: Any) -> Any:
        return self.controller.step(problem, state)

    def terminate(self, problem: PlanningProblem, state: Any) -> bool:
        return self.controller.terminate(problem, state)

    def info(self, state: Any) -> Mapping[str, Any]:
        return self.controller.info(state)

    def postprocess(self, problem: PlanningProblem, state: Any, name: str) -> Plan:
        found = self.controller.postprocess(problem, state, name)
        anchor = float(self.reference.start_day)
        near = deliverable(problem.feasible_set, found.variables, self.dose_step, self.start_step, anchor)
        values = [sample_risk(problem, variables) for variables in near]
        chosen = int(np.nanargmin(values))
        convergence = dict(found.convergence) | {"rounding_cost": values[chosen] - found.risk["value"]}
        return make_plan(problem, near[chosen], name=name, value=values[chosen], convergence=convergence)
