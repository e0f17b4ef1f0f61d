"""The plan: what to give and when, how it was found, what it risks, and what it costs in toxicity."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._decision import AbstractParametrization
from tumortwin.control._evaluate import losses, sample_risk
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._schedule import PlanVariables

ACTIVE_WITHIN = 0.05
"""A constraint counts as active when it is met to this much (Gy, day): the rounding of a deliverable plan."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One treatment plan.

    `variables` and `parametrization` say what is given; `toxicity` what it costs (names that end in `_gy` are doses
    [Gy], the others have no unit); `risk` measure, objective,
    value and number of draws **on the draws it was chosen with** (optimistic: judge a plan by `compare` on fresh
    draws); `constraints` one entry a limit, those on the outcome after those on the decision; `convergence` how the
    search ended.
    """

    name: str
    variables: PyTree
    parametrization: AbstractParametrization
    toxicity: Mapping[str, float]
    risk: Mapping[str, Any]
    constraints: tuple[Mapping[str, Any], ...]
    convergence: Mapping[str, Any]

    @property
    def weekly_fraction_dose(self) -> tuple[float, ...]:
        """Dose a fraction [Gy] of every week, of a plan of weekly fractions."""
        return tuple(float(d) for d in self._weekly.weekly_fraction_dose)

    @property
    def start_day(self) -> float:
        """Day of the first fraction, of a plan of weekly fractions."""
        return float(self._weekly.start_day)

    @property
    def _weekly(self) -> PlanVariables:
        if not isinstance(self.variables, PlanVariables):
            raise ValueError(
                f"required: a plan of weekly fractions; received: one of {type(self.parametrization).__name__}; "
                "try: plan.variables and plan.to_json()"
            )
        return self.variables

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, names and lists; what is not finite becomes None."""
        return jsonable(
            {
                "name": self.name,
                **self.parametrization.describe(self.variables),
                "toxicity": dict(self.toxicity),
                "convergence": dict(self.convergence),
            }
        )

    def describe(self) -> str:
        """One sentence for a report."""
        return f"{self.name}: {self.parametrization.sentence(self.variables)}"


def constraint_entry(
    constraint: AbstractConstraint, variables: PyTree, parametrization: AbstractParametrization
) -> dict[str, Any]:
    """How one constraint stands under a plan: limit, violation, whether it is active."""
    violation = float(constraint.violation(variables, parametrization))
    return {
        "name": constraint.name,
        "unit": constraint.unit,
        **constraint.describe(),
        "violation": violation,
        "active": violation > -ACTIVE_WITHIN,
    }


def outcome_entries(problem: PlanningProblem, variables: PyTree) -> list[dict[str, Any]]:
    """How every outcome limit stands under a plan: its residual, and what it says without surrogate."""
    limits = problem.outcome_limits
    if not limits:
        return []
    values = losses(problem, variables, [limit.objective for limit in limits])
    entries = []
    for limit, found in zip(limits, values, strict=True):
        violation = float(limit.residual(found, problem.weights))
        entries.append(
            {
                "name": limit.name,
                "unit": limit.objective.gain_unit,
                **limit.describe(),
                "violation": violation,
                "active": violation > -ACTIVE_WITHIN,
                **limit.checked(found, problem.weights),
            }
        )
    return entries


def make_plan(
    problem: PlanningProblem,
    variables: PyTree,
    *,
    name: str,
    value: float | None = None,
    convergence: Mapping[str, Any] | None = None,
) -> Plan:
    """A `Plan` of `variables`; its risk is computed unless `value` is given. Not optimized: a reference plan too."""
    value = sample_risk(problem, variables) if value is None else value
    parametrization = problem.parametrization
    return Plan(
        name=name,
        variables=variables,
        parametrization=parametrization,
        toxicity=dict(parametrization.cost(variables)),
        risk={
            "objective": problem.objective.name,
            **problem.risk.describe(),
            "value": value,
            "n_draws": problem.n_draws,
        },
        constraints=(
            *(constraint_entry(c, variables, parametrization) for c in problem.constraints),
            *outcome_entries(problem, variables),
        ),
        convergence=dict(convergence or {}),
    )


def jsonable(item: Any) -> Any:
    """The same nest of mappings and sequences with floats that JSON can hold: NaN and infinity become None."""
    if isinstance(item, Mapping):
        return {str(k): jsonable(v) for k, v in item.items()}
    if isinstance(item, list | tuple):
        return [jsonable(v) for v in item]
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    return item
