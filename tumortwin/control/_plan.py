"""The plan: what to give and when, how it was found, what it risks, and what it costs in toxicity."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._evaluate import sample_risk
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._schedule import PlanVariables, WeeklyFractions
from tumortwin.control._toxicity import toxicity

ACTIVE_WITHIN = 0.05
"""A constraint counts as active when it is met to this much (Gy, day): the rounding of a deliverable plan."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One treatment plan.

    `variables` and `parametrization` say what is given; `toxicity` its dose summary [Gy]; `risk` measure, objective,
    value and number of draws **on the draws it was chosen with** (optimistic: judge a plan by `compare` on fresh
    draws); `constraints` one entry a limit; `convergence` how the search ended.
    """

    name: str
    variables: PlanVariables
    parametrization: WeeklyFractions
    toxicity: Mapping[str, float]
    risk: Mapping[str, Any]
    constraints: tuple[Mapping[str, Any], ...]
    convergence: Mapping[str, Any]

    @property
    def weekly_fraction_dose(self) -> tuple[float, ...]:
        """Dose a fraction [Gy] of every week."""
        return tuple(float(d) for d in self.variables.weekly_fraction_dose)

    @property
    def start_day(self) -> float:
        """Day of the first fraction."""
        return float(self.variables.start_day)

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
        doses = ", ".join(f"{d:.2f}" for d in self.weekly_fraction_dose)
        dose = self.toxicity
        return (
            f"{self.name}: first fraction on day {self.start_day:g}, {self.parametrization.fractions_per_week} "
            f"fractions a week of {doses} Gy (week 1 to {self.parametrization.n_weeks}); "
            f"total {dose['total_dose_gy']:.1f} Gy, "
            f"normal-tissue BED {dose['bed_3_gy']:.1f} Gy (alpha/beta 3), largest fraction "
            f"{dose['max_fraction_dose_gy']:.2f} Gy"
        )


def constraint_entry(
    constraint: AbstractConstraint, variables: PlanVariables, parametrization: WeeklyFractions
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


def make_plan(
    problem: PlanningProblem,
    variables: PlanVariables,
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
        toxicity=toxicity(parametrization.fraction_doses(variables)).describe(),
        risk={
            "objective": problem.objective.name,
            **problem.risk.describe(),
            "value": value,
            "n_draws": problem.n_draws,
        },
        constraints=tuple(constraint_entry(c, variables, parametrization) for c in problem.constraints),
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
