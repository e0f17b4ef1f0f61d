"""How far a plan may be from the best, judged on fresh samples: the sample-average gap and its confidence bound."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from scipy import stats

from tumortwin.control._candidate import judged_one
from tumortwin.control._controller import AbstractController, optimize
from tumortwin.control._plan import Plan, jsonable
from tumortwin.control._problem import PlanningProblem


@dataclasses.dataclass(frozen=True)
class SampleAverageGap:
    """The `estimate` of the optimality gap of a plan, with its one-sided confidence bound `upper` (the gap is zero or
    more), the `gaps` [replication] it is the mean of, and how many were negative: a search that lost to the plan."""

    estimate: float
    upper: float
    confidence: float
    gaps: np.ndarray
    lost: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return jsonable(dataclasses.asdict(self) | {"gaps": self.gaps.tolist()})


def sample_average_gap(
    problem: PlanningProblem,
    plan: Plan,
    controller: AbstractController,
    sampler: Callable[[Array], PyTree],
    *,
    replications: int = 20,
    confidence: float = 0.95,
    key: Array,
) -> SampleAverageGap:
    """The gap between the true risk of `plan` and the smallest there is, by independent replications.

    For every replication m a fresh sample of draws, the plan and the best plan on it (common random numbers):

    $$ G_m = \\hat R_m(u) - \\min_v \\hat R_m(v) \\ge 0, \\qquad
        E[G_m] \\ge R(u) - \\min_v R(v), \\qquad upper = \\bar G + t_{M-1, c} \\, s_G / \\sqrt M $$

    since the minimum of sample averages is below the minimum of the true risk on average. Exact in this sense for risks
    that are expectations, or minima of them (`Mean`, `CVaR`, `RockafellarUryasev`, whose threshold belongs to the
    decision: the bias of a tail estimated on a sample is then in both terms).

    **Arguments:** `sampler(key)`: the draws of one replication, without weights; `controller`: must find the minimum,
    or the gap is underestimated. Where it loses to the plan itself the gap counts as zero and is counted in `lost`.

    **Good values:** 20-30 replications with as many draws as the plan was chosen with.

    **Raises:** `ValueError` for fewer than two replications.

    **Reference:** Mak, Morton and Wood, "Monte Carlo bounding techniques for determining solution quality in
    stochastic programs", Oper Res Lett 24 (1999).
    """
    if replications < 2:
        raise ValueError(f"required: two replications or more; received: {replications}")
    vector = np.asarray(problem.parametrization.vector(jax.tree.map(jnp.asarray, plan.variables)), dtype=float)
    gaps = np.zeros(replications)
    for m in range(replications):
        draw_key, search_key = jax.random.split(jax.random.fold_in(key, m))
        fresh = problem.with_draws(sampler(draw_key))
        ours = judged_one(fresh, vector).risk
        gaps[m] = ours - float(optimize(fresh, controller, key=search_key).risk["value"])
    lost = int((gaps < 0.0).sum())
    gaps = np.maximum(gaps, 0.0)
    mean, error = float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(replications))
    upper = mean + float(stats.t.ppf(confidence, replications - 1)) * error
    return SampleAverageGap(mean, upper, confidence, gaps, lost)
