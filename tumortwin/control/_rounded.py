"""Whole numbers by relaxing, rounding and searching the neighbourhood."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from tumortwin.control._candidate import Candidate, better, judged_candidates, judged_one, plan_of
from tumortwin.control._controller import AbstractController
from tumortwin.control._infeasible import Infeasible
from tumortwin.control._local import local_minimum
from tumortwin.control._nearest import Nearest
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._region import Region
from tumortwin.control._scipy_gradient import starting_points


@dataclasses.dataclass(frozen=True)
class Neighbourhoods:
    """The rounded relaxation `bound` (risk of the best relaxed decision), the `best` decision, `tried` decisions."""

    nearest: Nearest
    relaxed_risk: float
    best: Candidate | None
    settled: bool
    tried: int
    steps: int
    gradients: int


class RelaxAndRound(AbstractController):
    """The relaxation's local minima, rounded to the nearest admissible whole numbers, then local search.

    The first step is that of `init`: every start's local minimum without integrality (SLSQP) is rounded (`Nearest.
    whole`). Each further step solves the whole neighbourhood of the best decision: one component up or down by one, and
    pairs up and down by one each (a dose moved from one slot to another), and goes to the best neighbour, until none
    is better.

    **Arguments:** `random` further starts (need a `key`); `max_steps`; `pairs`: whether pairs are tried, n (n - 1)
    solves a step.

    **Good values:** pairs for up to 60 slots of a closed form; not for an ODE of many slots.

    **Limits:** a local optimum: no decision within two unit steps is better (mathematical). The gap to the relaxed
    risk that is reported is a bound only where the relaxed risk is convex and its minimum global.
    """

    random: int = eqx.field(static=True, default=0)
    max_steps: int = eqx.field(static=True, default=100)
    pairs: bool = eqx.field(static=True, default=True)
    max_iterations: int = eqx.field(static=True, default=100)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Neighbourhoods:
        nearest = Nearest.of(problem.region.bounded())
        starts = starting_points(nearest, self.random, key)
        descents = [local_minimum(problem, nearest, s, max_iterations=self.max_iterations) for s in starts]
        relaxed, gradients = [d.vector for d in descents], sum(d.gradients for d in descents)
        risks = [judged_one(problem, vector) for vector in relaxed]
        rounded = distinct([nearest.whole(vector) for vector in [*relaxed, *starts]])
        found = judged_candidates(problem, np.asarray(rounded).reshape(len(rounded), nearest.region.size))
        if not found:
            raise _nothing_whole(nearest.region)
        return Neighbourhoods(nearest, min(c.risk for c in risks), better(found), False, len(found), 0, gradients)

    def step(self, problem: PlanningProblem, state: Neighbourhoods) -> Neighbourhoods:
        assert state.best is not None
        near = neighbours(state.nearest.region, state.best.vector, state.nearest.region.size if self.pairs else 0)
        found = better(judged_candidates(problem, near))
        moved = found is not None and found.rank < state.best.rank
        return dataclasses.replace(
            state,
            best=found if moved else state.best,
            settled=not moved,
            tried=state.tried + len(near),
            steps=state.steps + 1,
        )

    def terminate(self, problem: PlanningProblem, state: Neighbourhoods) -> bool:
        del problem
        return state.settled or state.steps >= self.max_steps

    def info(self, state: Neighbourhoods) -> Mapping[str, Any]:
        risk = math.inf if state.best is None else state.best.risk
        return {
            "risk": risk,
            "relaxed_risk": state.relaxed_risk,
            "gap_to_relaxed": risk - state.relaxed_risk,
            "outcome": "no neighbour is better" if state.settled else "the steps are used up",
            "converged": state.settled,
            "decisions_tried": state.tried,
            "steps": state.steps,
            "gradient_evaluations": state.gradients,
        }

    def postprocess(self, problem: PlanningProblem, state: Neighbourhoods, name: str) -> Plan:
        return plan_of(problem, state.nearest.region, state.best, name=name, convergence=self.info(state))


def distinct(vectors: list[np.ndarray | None]) -> list[np.ndarray]:
    """Those that are there, each once."""
    found: list[np.ndarray] = []
    for vector in vectors:
        if vector is not None and all(np.abs(vector - other).max() > 1e-9 for other in found):
            found.append(vector)
    return found


def neighbours(region: Region, vector: np.ndarray, reach: int) -> np.ndarray:
    """The admissible decisions [m n] one unit step of one whole component away, or of two in opposite directions that
    are at most `reach` components apart."""
    whole = np.flatnonzero(region.space.integer)
    steps = np.eye(region.size)[whole]
    apart = np.abs(whole[:, None] - whole[None, :])
    first, second = np.nonzero((apart > 0) & (apart <= reach))
    near = vector + np.concatenate([steps, -steps, steps[first] - steps[second]])
    return near[region.keeps(near)]


def _nothing_whole(region: Region) -> Infeasible:
    units = {c.name: c.unit for c in region.constraints}
    excess = {region.constraints[j].name: 0.0 for j in region.curved} or {c.name: 0.0 for c in region.constraints}
    return Infeasible(excess, {}, region.constraints, units)
