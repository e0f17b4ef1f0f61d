"""Whole numbers by local search alone: no relaxation, no gradient."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.control._candidate import Candidate, better, judged_candidates, plan_of
from tumortwin.control._controller import AbstractController
from tumortwin.control._infeasible import check_feasible
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._region import Region
from tumortwin.control._rounded import neighbours


@dataclasses.dataclass(frozen=True)
class Climb:
    """The `best` decision so far, `tried` decisions, `steps` taken; `settled` when no neighbour is better."""

    region: Region
    best: Candidate
    first_risk: float
    settled: bool
    tried: int
    steps: int


class LocalSearch(AbstractController):
    """From the best of some decisions to the best of its neighbours, until none is better.

    A neighbour differs by one unit in one component, or by one up and one down in two components at most `reach`
    apart (a dose moved to a slot nearby). Components that are not whole numbers stay as they are.

    For slots whose effect is counted and has no gradient (days to progression at visits); `RelaxAndRound` starts from
    the relaxation instead.

    **Arguments:** `starts` [start n], admissible decisions: those that break a limit are left out; `reach` (0: single
    components alone); `max_steps`.

    **Good values:** starts that differ in kind (nothing, everything, every second slot, a rule's course); reach 1.

    **Raises:** `ValueError` where no start keeps the limits.

    **Limits:** a local optimum (mathematical): no plan is worse than the best of the starts. Ties stay where they are.
    """

    starts: Float[Array, "start n"] = eqx.field(converter=jnp.asarray)
    reach: int = eqx.field(static=True, default=1)
    max_steps: int = eqx.field(static=True, default=200)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Climb:
        del key
        region = problem.region.bounded()
        check_feasible(region)
        starts = np.asarray(self.starts, dtype=float)
        found = judged_candidates(problem, starts[region.keeps(starts)])
        best = better(found)
        if best is None:
            raise ValueError(
                f"required: a start that keeps the limits; received: {len(starts)} that break one; "
                "try: Nearest.of(region).whole(start)"
            )
        return Climb(region, best, best.risk, False, len(found), 0)

    def step(self, problem: PlanningProblem, state: Climb) -> Climb:
        near = neighbours(state.region, state.best.vector, self.reach)
        found = better(judged_candidates(problem, near))
        moved = found is not None and found.rank < state.best.rank
        return dataclasses.replace(
            state,
            best=found if moved else state.best,
            settled=not moved,
            tried=state.tried + len(near),
            steps=state.steps + moved,
        )

    def terminate(self, problem: PlanningProblem, state: Climb) -> bool:
        del problem
        return state.settled or state.steps >= self.max_steps

    def info(self, state: Climb) -> Mapping[str, Any]:
        return {
            "risk": state.best.risk if state.best.kept else math.inf,
            "risk_of_best_start": state.first_risk,
            "outcome": "no neighbour is better" if state.settled else "the steps are used up",
            "converged": state.settled,
            "decisions_tried": state.tried,
            "steps": state.steps,
        }

    def postprocess(self, problem: PlanningProblem, state: Climb, name: str) -> Plan:
        return plan_of(problem, state.region, state.best, name=name, convergence=self.info(state))
