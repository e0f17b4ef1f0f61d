"""Gradient search by SciPy from several starts, within general limits."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from tumortwin.control._candidate import Candidate, better, judged_one, plan_of
from tumortwin.control._controller import AbstractController
from tumortwin.control._local import LBFGSB, SLSQP, LocalMinimum, local_minimum
from tumortwin.control._nearest import Nearest
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._region import Region

PULL_IN = 40
"""Halvings of the way back to a plan that keeps the limits on the outcome."""


@dataclasses.dataclass(frozen=True)
class Descents:
    """The `starts` that are left, the best decision so far, and what the local searches said."""

    nearest: Nearest
    starts: tuple[np.ndarray, ...]
    best: Candidate | None
    done: tuple[LocalMinimum, ...]


def _floats(start: Sequence[float] | np.ndarray | None) -> tuple[float, ...] | None:
    return None if start is None else tuple(float(v) for v in start)


class ScipyGradient(AbstractController):
    """A local minimum from each of several starts, a start a step; the lowest is the plan.

    `SLSQP` (sequential quadratic programming) minds bounds, rows, curved limits and limits on the outcome; `L-BFGS-B`
    bounds alone, with many components. Gradients are those of JAX. The starts are an inner point, the projected ends
    and middle of the box, and its early and late halves (front- and back-loaded); `random` further ones need a `key`.

    **Arguments:** `method`; `random` starts; `starts` at most, of those named first (None: all); `max_iterations`
    each; `tolerance` of the scaled risk; `start`: one decision to begin from instead (a plan of a coarser model, or of
    the prior).

    **Good values:** random 0 for up to ten components.

    **Raises:** `ValueError` for whole numbers (try `BranchAndBound`), and for an unknown method.

    **Limits:** local minima of a risk that is not convex (mathematical). A minimum that breaks a limit on the outcome
    by the solver's tolerance is drawn back towards the best plan known to keep it.

    **Reference:** Kraft, A software package for sequential quadratic programming, DFVLR-FB 88-28 (1988); Byrd, Lu,
    Nocedal and Zhu, SIAM J Sci Comput 16 (1995).
    """

    method: str = eqx.field(static=True, default=SLSQP)
    random: int = eqx.field(static=True, default=0)
    starts: int | None = eqx.field(static=True, default=None)
    max_iterations: int = eqx.field(static=True, default=200)
    tolerance: float = eqx.field(static=True, converter=float, default=1e-9)
    start: tuple[float, ...] | None = eqx.field(static=True, converter=_floats, default=None)

    def __check_init__(self) -> None:
        if self.method not in (SLSQP, LBFGSB):
            raise ValueError(f"required: the method {SLSQP} or {LBFGSB}; received: {self.method!r}")

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Descents:
        region = problem.region.bounded()
        if region.space.integer.any():
            raise ValueError(
                "required: components that vary continuously; received: whole numbers; "
                "try: BranchAndBound() or RelaxAndRound()"
            )
        nearest = Nearest.of(region)
        if self.start is None:
            return Descents(nearest, tuple(starting_points(nearest, self.random, key))[: self.starts], None, ())
        if len(self.start) != region.size:
            raise ValueError(f"required: a start of {region.size} components; received: {len(self.start)}")
        return Descents(nearest, (nearest.project(np.asarray(self.start)),), None, ())

    def step(self, problem: PlanningProblem, state: Descents) -> Descents:
        found = local_minimum(
            problem,
            state.nearest,
            state.starts[0],
            method=self.method,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
        )
        candidate = judged_one(problem, found.vector)
        if not candidate.kept:
            candidate = _drawn_back(problem, state, candidate)
        return Descents(state.nearest, state.starts[1:], better([state.best, candidate]), (*state.done, found))

    def terminate(self, problem: PlanningProblem, state: Descents) -> bool:
        del problem
        return not state.starts

    def info(self, state: Descents) -> Mapping[str, Any]:
        return {
            "risk": math.inf if state.best is None else state.best.risk,
            "outcome": state.done[-1].message if state.done else "not begun",
            "converged": bool(state.done) and all(d.converged for d in state.done),
            "gradient_evaluations": sum(d.gradients for d in state.done),
            "starts": len(state.done),
        }

    def postprocess(self, problem: PlanningProblem, state: Descents, name: str) -> Plan:
        return plan_of(problem, state.nearest.region, state.best, name=name, convergence=self.info(state))


def _drawn_back(problem: PlanningProblem, state: Descents, outside: Candidate) -> Candidate:
    """The last plan that keeps the limits on the outcome on the way from the best known, or the inner point, that does
    to `outside`; `outside` where none does."""
    known = state.best if state.best is not None and state.best.kept else judged_one(problem, state.nearest.inner)
    if not known.kept:
        return outside
    low, high, found = 0.0, 1.0, known
    for _ in range(PULL_IN):
        middle = 0.5 * (low + high)
        vector = known.vector + middle * (outside.vector - known.vector)
        tried = judged_one(problem, state.nearest.drawn_in(vector))
        if tried.kept:
            low, found = middle, tried
        else:
            high = middle
    return found


def starting_points(nearest: Nearest, random: int, key: Array | None) -> list[np.ndarray]:
    """An inner point, the projected ends, middle and halves of the box, and `random` further points: all distinct.

    **Raises:** `ValueError` for random points without a key.
    """
    region: Region = nearest.region
    low, high = region.lower, region.upper
    early = np.arange(region.size) < (region.size + 1) // 2
    corners = [high, low, 0.5 * (low + high), np.where(early, high, low), np.where(early, low, high)]
    if random and key is None:
        raise ValueError("required: a key for random starts; received: none; try: key=jax.random.key(0)")
    if random and key is not None:
        corners += list(low + np.asarray(jax.random.uniform(key, (random, region.size))) * (high - low))
    points = [nearest.inner]
    for corner in corners:
        point = nearest.project(corner)
        if all(np.abs(point - other).max() > 1e-6 for other in points):
            points.append(point)
    return points
