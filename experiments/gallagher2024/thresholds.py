"""The best rule that is the same for all patients, chosen on patients of its own."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.gallagher2024.course import days_under
from experiments.gallagher2024.population import NOISE, Truths
from tumortwin.control import (
    AbstractRisk,
    CountedDays,
    Curve,
    Exhaustive,
    HysteresisPolicy,
    PlanningProblem,
    PolicyThresholds,
    optimize,
)

STOP = (0.40, 1.00)
POINTS = 25


def best_rule(design: Truths, risk: AbstractRisk, width: float) -> HysteresisPolicy:
    """The stop and restart thresholds of least risk on the `design` patients, by exhaustion; `width` is the largest
    restart minus stop (0: single thresholds)."""

    def seen_at_visits(draw: Truths, policy: Any) -> Curve:
        one = jax.tree.map(lambda leaf: leaf[None], draw)
        return Curve(jnp.arange(2.0), jnp.ones(2), parameters={"days": days_under(one, policy, NOISE)[0]})

    rules = PolicyThresholds(stop=STOP, width=(0.0, width))
    problem = PlanningProblem(seen_at_visits, design, rules, CountedDays(), risk, (), sequential=False)
    points = POINTS if width == 0.0 else 13
    return rules.schedule(optimize(problem, Exhaustive(points=points, chunk=POINTS)).variables)
