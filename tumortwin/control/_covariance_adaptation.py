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
from tumortwin.control._region import Region

BEYOND = 0.1
"""How far (share of the bounds) the strategy may ask beyond them: an optimum on a bound is then inside for it."""


STALE = 10
"""Generations in a row that brought no new decision, after which a search of whole numbers has ended."""


@dataclasses.dataclass(frozen=True)
class Evolution:
    """The `strategy` (its object changes in `step`), every decision `known` by its bytes, and the `best` of them.

    `margin`: whether it is the variant for whole numbers; `idle`: generations in a row that brought no new decision;
    `begun`: strategies so far; `rng`: where a further one begins.
    """

    nearest: Nearest
    strategy: Any
    margin: bool
    known: Mapping[bytes, Candidate]
    best: Candidate | None
    generations: int
    idle: int
    begun: int
    rng: np.random.Generator

    @property
    def ended(self) -> bool:
        """Whether the present strategy has nothing more to find."""
        return self.idle >= STALE or bool(self.strategy.should_stop())


class CovarianceAdaptation(AbstractController):
    """Evolution strategy with covariance matrix adaptation (the `cmaes` package), a generation a step.

    Components are scaled to [0, 1] (those that limits hold at one value are left out); with whole numbers it is the
    variant with margin, whose deviations cannot shrink below their steps. What it asks for is moved to the nearest
    admissible decision (whole numbers included), that decision is solved, and the strategy is told its risk plus a
    penalty of the squared distance moved: every decision that is solved keeps its limits. Limits on the outcome rank a
    decision behind all that keep them. No decision is solved twice: whole numbers repeat, and cost nothing then.

    A strategy ends when it has converged, or after ten generations that brought nothing new. With `restarts` another
    one begins at a random point with twice the population.

    **Arguments:** `evaluations` of the risk at most; `sigma`, the first standard deviation (share of the bounds);
    `population` or None for 4 + 3 ln n; `penalty` of the squared distance, in units of the spread of a generation's
    risks; `restarts` at most.

    **Good values:** sigma 0.3; 100-300 evaluations a component; restarts where limits leave islands of whole numbers.

    **Raises:** `ValueError` without a key.

    **Reference:** Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772; Hamano, Saito, Nomura and
    Shirakawa, "CMA-ES with margin", arXiv:2205.13482; Auger and Hansen, "A restart CMA evolution strategy with
    increasing population size", CEC (2005); Nomura and Shibata, "cmaes: a
    simple yet practical Python library for CMA-ES", arXiv:2402.01373.
    """

    evaluations: int = eqx.field(static=True, default=1000)
    sigma: float = eqx.field(static=True, converter=float, default=0.3)
    population: int | None = eqx.field(static=True, default=None)
    penalty: float = eqx.field(static=True, converter=float, default=10.0)
    restarts: int = eqx.field(static=True, default=0)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Evolution:
        if key is None:
            raise ValueError("required: a key, for a search that draws random numbers; received: none")
        nearest = Nearest.of(problem.region.bounded())
        region = nearest.region
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        middle = nearest.project(0.5 * (region.lower + region.upper))
        strategy, margin = self._strategy(nearest, middle, seed, self.population)
        return Evolution(nearest, strategy, margin, {}, None, 0, 0, 1, np.random.default_rng(seed))

    def step(self, problem: PlanningProblem, state: Evolution) -> Evolution:
        if state.ended:
            state = self._restarted(state)
        region = state.nearest.region
        answers = [state.strategy.ask() for _ in range(state.strategy.population_size)]
        asked, back = zip(*answers, strict=True) if state.margin else (answers, answers)
        free, width = searched(region), region.upper - region.lower
        wanted = np.tile(region.lower, (len(asked), 1))
        wanted[:, free] += width[free] * np.asarray(asked)
        moved = [self._admissible(state.nearest, vector) for vector in wanted]
        new = {m.tobytes(): m for m in moved if m.tobytes() not in state.known}
        rows = np.asarray([*new.values()]).reshape(len(new), region.size)
        solved = dict(zip(new, judged_candidates(problem, rows), strict=True))
        known = {**state.known, **solved}
        values = _ranked_values([known[m.tobytes()] for m in moved])
        spread = max(float(np.ptp(values)), 1e-12)
        distance = [np.sum((_scaled(region, m) - x) ** 2) for m, x in zip(moved, asked, strict=True)]
        told = values + self.penalty * spread * np.asarray(distance)
        state.strategy.tell(list(zip(back, told.tolist(), strict=True)))
        return dataclasses.replace(
            state,
            known=known,
            best=better([state.best, *solved.values()]),
            generations=state.generations + 1,
            idle=0 if new else state.idle + 1,
        )

    def terminate(self, problem: PlanningProblem, state: Evolution) -> bool:
        del problem
        return len(state.known) >= self.evaluations or (state.ended and state.begun > self.restarts)

    def info(self, state: Evolution) -> Mapping[str, Any]:
        spent = len(state.known) >= self.evaluations
        return {
            "risk": math.inf if state.best is None else state.best.risk,
            "outcome": "the evaluations are used up" if spent else "the strategy ended",
            "converged": state.ended,
            "value_evaluations": len(state.known),
            "generations": state.generations,
            "strategies": state.begun,
        }

    def postprocess(self, problem: PlanningProblem, state: Evolution, name: str) -> Plan:
        return plan_of(problem, state.nearest.region, state.best, name=name, convergence=self.info(state))

    def _strategy(self, nearest: Nearest, start: np.ndarray, seed: int, population: int | None) -> tuple[Any, bool]:
        """A strategy about the decision `start`, and whether it is that of whole numbers."""
        import cmaes

        region = nearest.region
        free, width = searched(region), region.upper - region.lower
        whole = (region.space.integer & (width > 0.0))[free]
        mean, size = _scaled(region, start), int(free.sum())
        common: dict[str, Any] = {"sigma": self.sigma, "seed": seed, "population_size": population}
        if whole.any():
            box = np.stack([np.zeros(size), np.ones(size)], axis=1)
            steps = np.where(whole, 1.0 / np.where(whole, width[free], 1.0), 0.0)
            return cmaes.CMAwM(mean=mean, bounds=box, steps=steps, **common), True
        box = np.stack([np.full(size, -BEYOND), np.full(size, 1.0 + BEYOND)], axis=1)
        return cmaes.CMA(mean=mean, bounds=box, **common), False

    def _restarted(self, state: Evolution) -> Evolution:
        region = state.nearest.region
        start = state.nearest.project(state.rng.uniform(region.lower, region.upper))
        population = 2 * int(state.strategy.population_size)
        strategy, margin = self._strategy(state.nearest, start, int(state.rng.integers(2**31 - 1)), population)
        return dataclasses.replace(state, strategy=strategy, margin=margin, idle=0, begun=state.begun + 1)

    def _admissible(self, nearest: Nearest, vector: np.ndarray) -> np.ndarray:
        if not nearest.region.space.integer.any():
            return nearest.project(vector)
        found = nearest.whole(vector)
        return nearest.inner if found is None else found + 0.0  # no minus zero: bytes tell decisions apart


def searched(region: Region) -> np.ndarray:
    """The components [n] that are searched: those that may vary; all where they are fewer than the package needs."""
    free = region.upper > region.lower
    return free if free.sum() > 1 else np.ones(region.size, bool)


def _scaled(region: Region, vector: np.ndarray) -> np.ndarray:
    """The searched components, 0 at their lower bound and 1 at their upper."""
    free, width = searched(region), region.upper - region.lower
    return ((vector - region.lower) / np.where(width > 0.0, width, 1.0))[free]


def _ranked_values(candidates: list[Candidate]) -> np.ndarray:
    """Risks; those that break a limit on the outcome, or fail, behind the worst of the others."""
    kept = [c.risk for c in candidates if c.kept and math.isfinite(c.risk)]
    behind = max(kept, default=0.0)

    def value(c: Candidate) -> float:
        if not math.isfinite(c.risk):
            return behind + 1e6
        return c.risk if c.kept else behind + 1.0 + c.excess

    return np.asarray([value(c) for c in candidates])
