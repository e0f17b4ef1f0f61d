"""Plans that trade one aim against another: the epsilon-constraint front and its hypervolume."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._controller import AbstractController, optimize
from tumortwin.control._infeasible import Infeasible
from tumortwin.control._outcome import AbstractOutcomeLimit
from tumortwin.control._plan import Plan, jsonable
from tumortwin.control._planned import suitable_controller
from tumortwin.control._problem import PlanningProblem


@dataclasses.dataclass(frozen=True)
class ParetoPoint:
    """The plan for one value of the limit; `values` [aim]: its risk and its price, lower is better."""

    epsilon: float
    plan: Plan
    values: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ParetoFront:
    """The plans that no other one beats in both aims, by rising price; `infeasible`: limits that no plan keeps."""

    points: tuple[ParetoPoint, ...]
    dominated: tuple[ParetoPoint, ...]
    infeasible: tuple[float, ...]

    @property
    def values(self) -> Float[np.ndarray, "point aim"]:
        """Risk and price of every point."""
        return np.asarray([p.values for p in self.points]).reshape(len(self.points), 2)

    def hypervolume(self, reference: Sequence[float]) -> float:
        """The area between the front and a `reference` (risk, price) that is worse in both."""
        return hypervolume(self.values, reference)

    def smallest(self, risk: float) -> ParetoPoint | None:
        """The cheapest point whose risk is `risk` or less: "the same effect at the lowest price"; or None."""
        enough = [p for p in self.points if p.values[0] <= risk]
        return min(enough, key=lambda p: p.values[1]) if enough else None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        points = [
            {"epsilon": p.epsilon, "risk": p.values[0], "price": p.values[1], "plan": p.plan.to_json()}
            for p in self.points
        ]
        return jsonable({"points": points, "infeasible": list(self.infeasible)})


def pareto_front(
    problem: PlanningProblem,
    controller: AbstractController | None,
    epsilons: Sequence[float],
    limit: Callable[[float], AbstractConstraint | AbstractOutcomeLimit],
    price: Callable[[Plan], float],
    *,
    known: Sequence[Plan] = (),
    key: Array | None = None,
) -> ParetoFront:
    """The front of risk against a price, a plan for every value of a limit on the price.

    $$ \\min_u R(u) \\quad \\text{s.t.} \\quad c(u) \\le \\epsilon $$

    Unlike a weighted sum it reaches every point of a front that is not convex.

    **Arguments:** `controller`, or None for a suitable one; `epsilons`, values of the limit; `limit(epsilon)`, the
    constraint, added to those of the problem; `price(plan)`, what the plan really costs (at most epsilon); `known`:
    plans of the same problem that are there already, each a point whose epsilon is its price.

    **Good values:** limit `TotalDose`, epsilons 20 to 100 Gy in steps of 10, price `plan.toxicity["total_dose_gy"]`.

    **Reference:** Haimes, Lasdon and Wismer, IEEE Trans Syst Man Cybern 1 (1971).
    """
    found = [ParetoPoint(cost := float(price(p)), p, (float(p.risk["value"]), cost)) for p in known]
    infeasible = []
    for index, epsilon in enumerate(epsilons):
        part = limit(float(epsilon))
        if isinstance(part, AbstractConstraint):
            held = problem.with_constraints((*problem.constraints, part))
        else:
            held = problem.with_outcome_limits((*problem.outcome_limits, part))
        own_key = None if key is None else jax.random.fold_in(key, index)
        try:
            chosen = suitable_controller(held) if controller is None else controller
            plan = optimize(held, chosen, name=f"limit {epsilon:g}", key=own_key)
        except Infeasible:
            infeasible.append(float(epsilon))
            continue
        found.append(ParetoPoint(float(epsilon), plan, (float(plan.risk["value"]), float(price(plan)))))
    values = np.asarray([p.values for p in found]).reshape(len(found), 2)
    kept = nondominated(values)
    by_price = sorted((p for p, k in zip(found, kept, strict=True) if k), key=lambda p: p.values[1])
    dominated = tuple(p for p, k in zip(found, kept, strict=True) if not k)
    return ParetoFront(tuple(by_price), dominated, tuple(infeasible))


def nondominated(values: Float[np.ndarray, "point aim"]) -> Bool[np.ndarray, " point"]:
    """Which points no other one beats or equals in every aim while beating it in one; of equal points the first."""
    n = len(values)
    keep = np.ones(n, bool)
    for i in range(n):
        no_worse = (values <= values[i]).all(axis=1)
        beaten = no_worse & (values < values[i]).any(axis=1)
        earlier = no_worse & (values == values[i]).all(axis=1) & (np.arange(n) < i)
        keep[i] = not (beaten | earlier).any()
    return keep


def hypervolume(values: Float[np.ndarray, "point aim"], reference: Sequence[float]) -> float:
    """The volume that the points dominate within the box below `reference`, in any number of aims; lower is better.

    Points that are not better than the reference in every aim count for nothing. By slicing along the last aim.

    **Good values:** a reference slightly worse than the worst of every aim, the same for fronts that are compared.

    **Reference:** Zitzler and Thiele, IEEE Trans Evol Comput 3 (1999).
    """
    worst = np.asarray(reference, dtype=float)
    inside = np.asarray(values, dtype=float).reshape(-1, worst.size)
    inside = inside[(inside < worst).all(axis=1)]
    return _volume(inside, worst)


def _volume(points: np.ndarray, worst: np.ndarray) -> float:
    if not len(points):
        return 0.0
    if worst.size == 1:
        return float(worst[0] - points[:, 0].min())
    levels = np.unique(points[:, -1])
    tops = np.append(levels[1:], worst[-1])
    return sum(
        float(top - level) * _volume(points[points[:, -1] <= level][:, :-1], worst[:-1])
        for level, top in zip(levels, tops, strict=True)
    )
