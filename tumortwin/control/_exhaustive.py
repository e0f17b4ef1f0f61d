"""Every decision of a small finite set: the oracle that other controllers are measured against."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from tumortwin.control._candidate import Candidate, better, judged_candidates, plan_of
from tumortwin.control._controller import AbstractController
from tumortwin.control._infeasible import check_feasible
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._region import Region

MOST_DECISIONS = 5_000_000


@dataclasses.dataclass(frozen=True)
class Enumeration:
    """How far the list of decisions has been gone through: `position` of `total`, `solved` of them admissible."""

    region: Region
    axes: tuple[np.ndarray, ...]
    position: int
    total: int
    solved: int
    best: Candidate | None
    worst: float


class Exhaustive(AbstractController):
    """All admissible decisions, a chunk a step, solved side by side.

    Decisions that break a limit are never solved. The answer is the optimum over the set: with whole numbers only, of
    the problem itself; with `points`, of the grid that divides every continuous component.

    **Arguments:** `points`: number of values of every continuous component (2 or more), or None where there is none;
    `chunk`: decisions a step; `most`: decisions at most, admissible or not.

    **Good values:** up to 1e5 decisions of a closed form, 1e3 of an ODE.

    **Raises:** `ValueError` for continuous components without `points`, and for more decisions than `most`.
    """

    points: int | None = eqx.field(static=True, default=None)
    chunk: int = eqx.field(static=True, default=4096)
    most: int = eqx.field(static=True, default=MOST_DECISIONS)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Enumeration:
        del key
        region = problem.region.bounded()
        check_feasible(region)
        axes = tuple(self._axis(region, k) for k in range(region.size))
        total = math.prod(axis.size for axis in axes)
        if total > self.most:
            raise ValueError(
                f"required: at most {self.most} decisions to go through; received: {total}; "
                "try: BranchAndBound() or RelaxAndRound()"
            )
        return Enumeration(region, axes, 0, total, 0, None, -math.inf)

    def step(self, problem: PlanningProblem, state: Enumeration) -> Enumeration:
        last = min(state.position + self.chunk, state.total)
        places = np.unravel_index(np.arange(state.position, last), [axis.size for axis in state.axes])
        vectors = np.stack([axis[place] for axis, place in zip(state.axes, places, strict=True)], axis=1)
        found = judged_candidates(problem, vectors[state.region.keeps(vectors)])
        worst = max([state.worst, *(c.risk for c in found if c.kept and math.isfinite(c.risk))])
        return dataclasses.replace(
            state, position=last, solved=state.solved + len(found), best=better([state.best, *found]), worst=worst
        )

    def terminate(self, problem: PlanningProblem, state: Enumeration) -> bool:
        del problem
        return state.position >= state.total

    def info(self, state: Enumeration) -> Mapping[str, Any]:
        return {
            "risk": math.inf if state.best is None else state.best.risk,
            "worst_risk": state.worst,
            "outcome": "all decisions of the set were tried",
            "converged": state.position >= state.total,
            "decisions": state.total,
            "solved": state.solved,
        }

    def postprocess(self, problem: PlanningProblem, state: Enumeration, name: str) -> Plan:
        return plan_of(problem, state.region, state.best, name=name, convergence=self.info(state))

    def _axis(self, region: Region, k: int) -> np.ndarray:
        low, high = float(region.lower[k]), float(region.upper[k])
        if region.space.integer[k]:
            return np.arange(low, high + 0.5)
        if low == high:
            return np.asarray([low])
        if self.points is None or self.points < 2:
            raise ValueError(
                f"required: whole numbers, or 2 points or more a continuous component; received: "
                f"{region.space.names[k]} from {low:g} to {high:g}; try: Exhaustive(points=5)"
            )
        return np.linspace(low, high, self.points)
