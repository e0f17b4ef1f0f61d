"""What less of a second aim costs: the front of a recommendation, beside the standard of care and on fresh draws."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._controller import AbstractController
from tumortwin.control._evaluate import losses
from tumortwin.control._outcome import AbstractOutcomeLimit
from tumortwin.control._pareto import ParetoFront, ParetoPoint, pareto_front
from tumortwin.control._plan import Plan, jsonable
from tumortwin.control._problem import PlanningProblem

MARGIN = 0.05
"""The reference of the hypervolume lies beyond the worst point of each aim by this share of the span."""

ROUNDING = 1e-9
"""Risks that differ by less, relative to them or to 1, are equal."""


@dataclasses.dataclass(frozen=True)
class SecondAim:
    """What a plan costs beside its risk: the left side c(u) of a limit c(u) <= epsilon.

    `limit(epsilon)`: the limit; `shares` [1]: where it is put, as shares of what the recommended plan costs; `words`
    and `unit` of the cost.

    **Good values:** `EffectiveDose` or `TotalDose` for radiotherapy, `RiskLimit(DrugUsed(...), Mean(), epsilon)` for a
    drug; shares 0.4 to 0.9.

    **Raises:** `ValueError` for no share, or one outside [0, 1).
    """

    limit: Callable[[float], AbstractConstraint | AbstractOutcomeLimit]
    shares: tuple[float, ...]
    words: str
    unit: str

    def __post_init__(self) -> None:
        if not self.shares or not all(0.0 <= share < 1.0 for share in self.shares):
            raise ValueError(
                f"required: shares of 0 or more and below 1, one at least; received: {list(self.shares)}; "
                "try: 0.4, 0.6, 0.8"
            )

    def price(self, problem: PlanningProblem, variables: PyTree) -> float:
        """c(u) [unit], on the draws of the problem where it differs from draw to draw."""
        part = self.limit(0.0)
        if isinstance(part, AbstractConstraint):
            return float(part.violation(variables, problem.parametrization))
        values = losses(problem, variables, [part.objective])[0]
        return float(part.residual(values, problem.weights))


@dataclasses.dataclass(frozen=True)
class TradeOff:
    """The `front` of a recommendation: what the plans that cost less than the recommended one lead to.

    `standard` (risk, price) of the standard of care; `fresh` [point] and `standard_fresh`: the risks on draws that no
    plan was chosen with; `objective`, `risk_unit` and `risk` say what risk it is; `reference` (risk, price) of the
    `hypervolume`.
    """

    aim: SecondAim
    front: ParetoFront
    fresh: tuple[float, ...]
    standard: tuple[float, float]
    standard_fresh: float
    objective: str
    risk_unit: str
    risk: Mapping[str, Any]
    recommended: Plan

    @property
    def reference(self) -> tuple[float, float]:
        """A little worse, in each aim, than the worst of the front and the standard of care. It moves with the front:
        hypervolumes of two fronts compare only where it is the same."""
        every = np.concatenate([self.front.values, np.asarray([self.standard])])
        found = every.max(axis=0) + MARGIN * np.ptp(every, axis=0)
        return float(found[0]), float(found[1])

    @property
    def hypervolume(self) -> float:
        """The area between the front and the reference, in units of risk x price."""
        return self.front.hypervolume(self.reference)

    @property
    def enough(self) -> ParetoPoint | None:
        """The cheapest point whose risk on fresh draws is that of the standard of care or less."""
        most = self.standard_fresh + ROUNDING * max(1.0, abs(self.standard_fresh))
        good = [p for p, risk in zip(self.front.points, self.fresh, strict=True) if risk <= most]
        return min(good, key=lambda point: point.values[1], default=None)

    def relative(self, risk: float) -> float:
        """Of a log burden: exp(risk - that of the standard of care), both on fresh draws; else the risk itself."""
        return math.exp(risk - self.standard_fresh) if self.risk_unit == "ln" else risk

    @property
    def risk_words(self) -> str:
        """What `relative` gives, in words."""
        if self.risk_unit == "ln":
            return "burden, times that under the standard of care"
        return f"risk of {self.objective.replace('_', ' ')}, {self.risk_unit}"

    def to_json(self) -> dict[str, Any]:
        """The entry `front` of plan.json."""
        found = self.front.to_json()
        for entry, risk, point in zip(found["points"], self.fresh, self.front.points, strict=True):
            entry |= {"fresh_risk": risk, "recommended": point.plan is self.recommended}
        behind = [{"epsilon": p.epsilon, "risk": p.values[0], "price": p.values[1]} for p in self.front.dominated]
        standard = {"risk": self.standard[0], "price": self.standard[1], "fresh_risk": self.standard_fresh}
        enough = self.enough
        return jsonable(
            {
                "measure": self.aim.words,
                "unit": self.aim.unit,
                "shares": list(self.aim.shares),
                "risk": {"objective": self.objective, **self.risk, "unit": self.risk_unit},
                **found,
                "dominated": behind,
                "standard_of_care": standard,
                "reference": {"risk": self.reference[0], "price": self.reference[1]},
                "hypervolume": self.hypervolume,
                "hypervolume_unit": f"{self.risk_unit} {self.aim.unit}",
                "enough": None if enough is None else enough.values[1],
                "statement": self.describe(),
            }
        )

    def describe(self) -> str:
        """Plain sentences for a report; risks in them are those on fresh draws."""
        unit, points = self.aim.unit, self.front.points
        told = [f"{p.values[1]:.3g} {unit} ({self._effect(r)})" for p, r in zip(points, self.fresh, strict=True)]
        spread = told[0] if len(told) == 1 else f"from {told[0]} to {told[-1]}, {len(told)} plans"
        measure = str(self.risk.get("measure", "risk")).replace("_", " ")
        parts = [f"Front against {self.aim.words}: {spread}. Effects are the {measure} over fresh draws."]
        enough, cost = self.enough, self.standard[1]
        if enough is None:
            parts.append(f"None within the limits is as good as the standard of care, which has {cost:.3g} {unit}.")
        else:
            risk = self.fresh[points.index(enough)]
            parts.append(
                f"The least that was as good as the standard of care ({cost:.3g} {unit}) is {enough.values[1]:.3g} "
                f"{unit} ({self._effect(risk)})."
            )
        if all(p.plan is not self.recommended for p in points):
            parts.append("The recommended plan is not on it: another is as good with no more of it.")
        if self.front.infeasible:
            parts.append(f"No plan keeps {', '.join(f'{e:.3g}' for e in self.front.infeasible)} {unit}.")
        return " ".join(parts)

    def _effect(self, risk: float) -> str:
        if self.risk_unit == "ln":
            return f"burden {self.relative(risk):.3g} times that under the standard of care"
        return f"{self.risk_words.partition(', ')[0]} {risk:.3g} {self.risk_unit}"


def trade_off(
    problem: PlanningProblem,
    controller: AbstractController | None,
    aim: SecondAim,
    plans: Mapping[str, Plan],
    fresh: PlanningProblem,
    seen: Mapping[str, Float[np.ndarray, " draw"]],
    *,
    key: Array,
) -> TradeOff:
    """The front of a recommendation: a plan for each share of what the recommended one costs, within all its limits.

    $$ \\min_u R(u) \\quad \\text{s.t.} \\quad c(u) \\le s\\, c(u_{recommended}), \\quad u \\text{ within the limits} $$

    **Arguments:** `plans`: `recommended` and `standard_of_care`, and perhaps `equal_effect`, all with risks on the
    draws of `problem`; `fresh`: the problem on draws that none was chosen with, `seen`: the losses of `plans` there.

    **Limits:** the recommended plan ends the front: more of the second aim than it takes is not looked at. A front is
    as good as the search (convenience).
    """
    standard, recommended = plans["standard_of_care"], plans["recommended"]
    most = aim.price(problem, recommended.variables)
    epsilons = [e for e in sorted({share * most for share in aim.shares}) if e < most]
    front = pareto_front(
        problem,
        controller,
        epsilons,
        aim.limit,
        lambda found: aim.price(problem, found.variables),
        known=[found for name, found in plans.items() if name != "standard_of_care"],
        key=key,
    )
    known = {id(plans[name]): values for name, values in seen.items()}
    every = [
        np.asarray(known[id(p)] if id(p) in known else losses(fresh, p.variables)[0])
        for p in (*(point.plan for point in front.points), standard)
    ]
    both = np.isfinite(every).all(axis=0)  # paired: solved under every plan
    weights = None if fresh.weights is None else fresh.weights[both]
    risks = [float(problem.risk(jnp.asarray(values[both]), weights)) for values in every]
    return TradeOff(
        aim,
        front,
        tuple(risks[:-1]),
        (float(standard.risk["value"]), aim.price(problem, standard.variables)),
        risks[-1],
        problem.objective.name,
        problem.objective.gain_unit,
        problem.risk.describe(),
        recommended,
    )
