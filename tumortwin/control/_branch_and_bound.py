"""Whole numbers by branching on the components that a relaxation leaves between two of them."""

import dataclasses
import heapq
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from tumortwin.control._candidate import Candidate, better, judged_one, plan_of
from tumortwin.control._controller import AbstractController
from tumortwin.control._infeasible import Infeasible
from tumortwin.control._local import local_minimum
from tumortwin.control._nearest import Nearest
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._region import Region

WHOLE = 1e-6
"""A component this close to a whole number counts as one."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A part of the region (its bounds), the relaxed minimum in it, and that minimum's risk (`bound`)."""

    lower: np.ndarray
    upper: np.ndarray
    vector: np.ndarray
    bound: float


@dataclasses.dataclass(frozen=True)
class Tree:
    """The open nodes by bound, the `best` admissible decision, and the nodes solved so far."""

    region: Region
    queue: tuple[tuple[float, int, Node], ...]
    best: Candidate | None
    solved: int
    cut: int
    gradients: int = 0


class BranchAndBound(AbstractController):
    """Best-first branch and bound on relaxations that SLSQP solves.

    A node is a box. Its relaxed minimum bounds the risk in it from below, and is rounded for a decision. A node whose
    bound is not below the best decision by more than `gap` is cut; any other is split at its most fractional component.

    **Arguments:** `max_nodes`; absolute `gap` of the risk; `convex`: whether the relaxed risk is convex, known from the
    problem. Then an emptied tree proves the optimum to `gap`; otherwise a relaxed minimum may be a local one, a node
    may be cut wrongly, and `proved` stays false.

    **Good values:** gap 1e-3 of the spread of the risk; a log burden is convex (affine) in the doses under log-kill and
    exponential growth.

    **Raises:** `Infeasible` where no whole numbers keep the limits.

    **Reference:** Land and Doig, Econometrica 28 (1960).
    """

    max_nodes: int = eqx.field(static=True, default=400)
    gap: float = eqx.field(static=True, converter=float, default=1e-6)
    convex: bool = eqx.field(static=True, default=False)
    max_iterations: int = eqx.field(static=True, default=100)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Tree:
        del key
        region = problem.region.bounded()
        root = Tree(region, (), None, 0, 0)
        Nearest.of(region)  # raises where nothing is admissible
        return self._with_node(problem, root, region.lower, region.upper, None)

    def step(self, problem: PlanningProblem, state: Tree) -> Tree:
        queue = list(state.queue)
        bound, _, node = heapq.heappop(queue)
        state = dataclasses.replace(state, queue=tuple(queue))
        if self._is_cut(state, bound):
            return dataclasses.replace(state, cut=state.cut + 1)
        off = np.where(state.region.space.integer, np.abs(node.vector - np.round(node.vector)), 0.0)
        open_ = state.region.space.integer & (node.upper > node.lower)
        if off.max(initial=0.0) > WHOLE:
            k, at = int(np.argmax(off)), math.floor(node.vector[int(np.argmax(off))])
        elif not self.convex and open_.any():  # a whole minimum may be a local one: look at both sides of its middle
            k = int(np.argmax(np.where(open_, node.upper - node.lower, 0.0)))
            at = math.floor(0.5 * (node.lower[k] + node.upper[k]))
        else:
            return state
        below, above = node.upper.copy(), node.lower.copy()
        below[k], above[k] = at, at + 1.0
        state = self._with_node(problem, state, node.lower, below, node.vector)
        return self._with_node(problem, state, above, node.upper, node.vector)

    def terminate(self, problem: PlanningProblem, state: Tree) -> bool:
        del problem
        return not state.queue or state.solved >= self.max_nodes

    def info(self, state: Tree) -> Mapping[str, Any]:
        risk = math.inf if state.best is None else state.best.risk
        bound = min([risk, *(bound for bound, _, _ in state.queue)])
        emptied = not state.queue
        return {
            "risk": risk,
            "lower_bound": bound,
            "outcome": "the tree is empty" if emptied else "the nodes are used up; try: a larger max_nodes",
            "converged": emptied,
            "proved": emptied and self.convex,
            "nodes": state.solved,
            "cut": state.cut,
            "gradient_evaluations": state.gradients,
        }

    def postprocess(self, problem: PlanningProblem, state: Tree, name: str) -> Plan:
        return plan_of(problem, state.region, state.best, name=name, convergence=self.info(state))

    def _is_cut(self, state: Tree, bound: float) -> bool:
        return state.best is not None and state.best.kept and bound >= state.best.risk - self.gap

    def _with_node(
        self, problem: PlanningProblem, state: Tree, lower: np.ndarray, upper: np.ndarray, start: np.ndarray | None
    ) -> Tree:
        """The tree with one more node, relaxed and rounded; without it where nothing in it is admissible."""
        part = state.region.narrowed(lower, upper)
        if (part.lower > part.upper).any():
            return state
        fixed = dataclasses.replace(part, space=dataclasses.replace(part.space, lower=part.lower, upper=part.upper))
        try:
            nearest = Nearest.of(fixed)
        except Infeasible:
            return dataclasses.replace(state, cut=state.cut + 1)
        begin = nearest.inner if start is None else start
        found = local_minimum(problem, nearest, begin, max_iterations=self.max_iterations)
        relaxed = judged_one(problem, found.vector)
        whole = nearest.whole(found.vector)
        best = state.best if whole is None else better([state.best, judged_one(problem, whole)])
        node = Node(part.lower, part.upper, found.vector, relaxed.risk)
        queue = list(state.queue)
        heapq.heappush(queue, (relaxed.risk, state.solved, node))
        gradients = state.gradients + found.gradients
        return dataclasses.replace(state, queue=tuple(queue), best=best, solved=state.solved + 1, gradients=gradients)
