"""CMA-ES: a search that needs no gradient, the baseline that gradients have to beat."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from tumortwin.control._candidate import Candidate, better, judged_candidates, plan_of
from tumortwin.control._controller import AbstractController
from tumortwin.control._nearest import Nearest
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem

BEYOND = 0.1
"""How far (share of the bounds) the strategy may ask beyond them: an optimum on a bound is then inside for it."""


@dataclasses.dataclass(frozen=True)
class Evolution:
    """The `strategy` (its object changes in `step`), the `best` admissible decision and the decisions `solved` so far.

    `margin`: whether it is the variant for whole numbers.
    """

    nearest: Nearest
    strategy: Any
    margin: bool
    best: Candidate | None
    solved: int
    stopped: bool


class CovarianceAdaptation(AbstractController):
    """Evolution strategy with covariance matrix adaptation (the `cmaes` package), a generation a step.

    Components are scaled to [0, 1]; with whole numbers it is the variant with margin, whose deviations cannot shrink
    below their steps. What it asks for is moved to the nearest admissible decision (whole numbers
    included), that decision is solved, and the strategy is told its risk plus a penalty of the squared distance moved:
    every decision that is solved keeps its limits. Limits on the outcome rank a decision behind all that keep them.

    **Arguments:** `evaluations` of the risk at most; `sigma`, the first standard deviation (share of the bounds);
    `population` or None for 4 + 3 ln n; `penalty` of the squared distance, in units of the spread of a generation's
    risks.

    **Good values:** sigma 0.3; 100-300 evaluations a component.

    **Raises:** `ValueError` without a key.

    **Reference:** Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772; Hamano, Saito, Nomura and
    Shirakawa, "CMA-ES with margin", arXiv:2205.13482; Nomura and Shibata, "cmaes: a
    simple yet practical Python library for CMA-ES", arXiv:2402.01373.
    """

    evaluations: int = eqx.field(static=True, default=1000)
    sigma: float = eqx.field(static=True, converter=float, default=0.3)
    population: int | None = eqx.field(static=True, default=None)
    penalty: float = eqx.field(static=True, converter=float, default=10.0)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Evolution:
        import cmaes

        if key is None:
            raise ValueError("required: a key, for a search that draws random numbers; received: none")
        nearest = Nearest.of(problem.region.bounded())
        region = nearest.region
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        middle = self._scaled(nearest, nearest.project(0.5 * (region.lower + region.upper)))
        width = region.upper - region.lower
        whole = region.space.integer & (width > 0.0)
        common: dict[str, Any] = {"sigma": self.sigma, "seed": seed, "population_size": self.population}
        if whole.any():
            box = np.stack([np.zeros(region.size), np.ones(region.size)], axis=1)
            steps = np.where(whole, 1.0 / np.where(whole, width, 1.0), 0.0)
            strategy = cmaes.CMAwM(mean=middle, bounds=box, steps=steps, **common)
        else:
            box = np.stack([np.full(region.size, -BEYOND), np.full(region.size, 1.0 + BEYOND)], axis=1)
            strategy = cmaes.CMA(mean=middle, bounds=box, **common)
        return Evolution(nearest, strategy, bool(whole.any()), None, 0, False)

    def step(self, problem: PlanningProblem, state: Evolution) -> Evolution:
        region = state.nearest.region
        answers = [state.strategy.ask() for _ in range(state.strategy.population_size)]
        asked, back = zip(*answers, strict=True) if state.margin else (answers, answers)
        width = region.upper - region.lower
        moved = [self._admissible(state.nearest, region.lower + width * x) for x in asked]
        found = judged_candidates(problem, np.stack(moved))
        values = _ranked_values(found)
        spread = max(float(np.ptp(values)), 1e-12)
        distance = [np.sum((self._scaled(state.nearest, m) - x) ** 2) for m, x in zip(moved, asked, strict=True)]
        told = values + self.penalty * spread * np.asarray(distance)
        state.strategy.tell(list(zip(back, told.tolist(), strict=True)))
        return Evolution(
            state.nearest,
            state.strategy,
            state.margin,
            better([state.best, *found]),
            state.solved + len(found),
            bool(state.strategy.should_stop()),
        )

    def terminate(self, problem: PlanningProblem, state: Evolution) -> bool:
        del problem
        return state.stopped or state.solved >= self.evaluations

    def info(self, state: Evolution) -> Mapping[str, Any]:
        return {
            "risk": math.inf if state.best is None else state.best.risk,
            "outcome": "the strategy stopped" if state.stopped else "the evaluations are used up",
            "converged": state.stopped,
            "value_evaluations": state.solved,
            "generations": int(state.strategy.generation),
        }

    def postprocess(self, problem: PlanningProblem, state: Evolution, name: str) -> Plan:
        return plan_of(problem, state.nearest.region, state.best, name=name, convergence=self.info(state))

    def _scaled(self, nearest: Nearest, vector: np.ndarray) -> np.ndarray:
        width = nearest.region.upper - nearest.region.lower
        return (vector - nearest.region.lower) / np.where(width > 0.0, width, 1.0)

    def _admissible(self, nearest: Nearest, vector: np.ndarray) -> np.ndarray:
        if not nearest.region.space.integer.any():
            return nearest.project(vector)
        found = nearest.whole(vector)
        return nearest.inner if found is None else found


def _ranked_values(candidates: list[Candidate]) -> np.ndarray:
    """Risks; those that break a limit on the outcome, or fail, behind the worst of the others."""
    kept = [c.risk for c in candidates if c.kept and math.isfinite(c.risk)]
    behind = max(kept, default=0.0)

    def value(c: Candidate) -> float:
        if not math.isfinite(c.risk):
            return behind + 1e6
        return c.risk if c.kept else behind + 1.0 + c.excess

    return np.asarray([value(c) for c in candidates])
