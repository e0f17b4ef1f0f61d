"""Decisions with what is known of them, and which is better: the bookkeeping that every search shares."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from tumortwin.control._evaluate import judged_vectors
from tumortwin.control._infeasible import Infeasible
from tumortwin.control._plan import Plan, make_plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._region import TOLERANCE, Region


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A decision that keeps every limit on itself: its `vector`, `risk`, and `excess`, the largest residual of the
    limits on its outcome (minus infinity where there are none)."""

    vector: np.ndarray
    risk: float
    excess: float = -math.inf

    @property
    def kept(self) -> bool:
        """Whether the limits on the outcome are kept."""
        return self.excess <= TOLERANCE

    @property
    def rank(self) -> tuple[bool, float]:
        """Lower is better: those that keep the outcome limits by risk, then the others by excess; failures last."""
        value = self.risk if self.kept else self.excess
        return (not self.kept, value if math.isfinite(value) and math.isfinite(self.risk) else math.inf)


def judged_candidates(problem: PlanningProblem, vectors: Float[np.ndarray, "m n"]) -> list[Candidate]:
    """Many decisions, solved and judged."""
    if not len(vectors):
        return []
    risks, residuals = judged_vectors(problem, vectors)
    excess = residuals.max(axis=1, initial=-np.inf)
    return [Candidate(v, float(r), float(e)) for v, r, e in zip(vectors, risks, excess, strict=True)]


def judged_one(problem: PlanningProblem, vector: np.ndarray) -> Candidate:
    """One decision, solved and judged."""
    return judged_candidates(problem, np.asarray(vector, dtype=float)[None, :])[0]


def better(candidates: Iterable[Candidate | None]) -> Candidate | None:
    """The best; the first of equals; None of none."""
    known = [c for c in candidates if c is not None]
    return min(known, key=lambda c: c.rank) if known else None


def plan_of(
    problem: PlanningProblem, region: Region, best: Candidate | None, *, name: str, convergence: Mapping[str, Any]
) -> Plan:
    """The plan of the best candidate; the last gate of every controller.

    **Raises:** `Infeasible` when no candidate keeps the limits on the outcome, or none solves; `RuntimeError` for a
    candidate outside the limits on the decision (a fault of the controller).
    """
    if best is None or not math.isfinite(best.risk):
        raise ValueError(
            "required: a plan whose risk is finite; received: none among those tried; "
            "try: PlanningProblem.kept(usable) to leave out draws whose solve fails"
        )
    if not region.contains(best.vector, 10.0 * TOLERANCE):
        raise RuntimeError(
            f"required: a plan within its limits; received: {best.vector.tolist()}, outside by "
            f"{region.excess(best.vector):.3g}"
        )
    if not best.kept:
        raise _unreached(problem, best)
    variables = problem.parametrization.variables(jnp.asarray(best.vector))
    return make_plan(problem, variables, name=name, value=best.risk, convergence=convergence)


def _unreached(problem: PlanningProblem, best: Candidate) -> Infeasible:
    _, residuals = judged_vectors(problem, best.vector[None, :])
    excess, units = {}, {}
    for j, (limit, residual) in enumerate(zip(problem.outcome_limits, residuals[0], strict=True)):
        if residual > TOLERANCE:
            key = f"{limit.name}[{j}] of {limit.objective.name}"
            excess[key], units[key] = float(residual), limit.objective.gain_unit
    return Infeasible(excess, {}, problem.constraints, units)
