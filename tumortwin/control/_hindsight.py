"""What a plan lost: against the best for a truth that is known, and for a prior that is trusted less or more."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin.control._controller import AbstractController, optimize
from tumortwin.control._evaluate import losses, sample_risk
from tumortwin.control._plan import Plan, jsonable
from tumortwin.control._problem import PlanningProblem
from tumortwin.inference import LARGEST_K_HAT, pareto_smooth


@dataclasses.dataclass(frozen=True)
class Regret:
    """`loss` of a plan under the truth, `best` of the best plan for that truth (`best_plan`), their difference
    `value`, all in `unit`."""

    value: float
    loss: float
    best: float
    unit: str
    best_plan: Plan

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and the best plan."""
        numbers = {"value": self.value, "loss": self.loss, "best": self.best, "unit": self.unit}
        return jsonable({**numbers, "best_plan": self.best_plan.to_json()})


def regret(
    problem: PlanningProblem, plan: Plan, truth: PyTree, controller: AbstractController, *, key: Array
) -> Regret:
    """How much better the best schedule for the `truth` would have done than `plan`.

    $$ r = \\ell(u, \\theta_0) - \\min_v \\ell(v, \\theta_0) \\ge 0 $$

    within the limits of `problem`; of use where the truth is known: in simulation studies. What `controller` misses of
    the minimum lowers it: a search that loses to the plan itself gives zero, not less.

    **Arguments:** `truth`: one draw, leaves without the leading axis.
    """
    known = problem.with_draws(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], truth))
    ours = float(losses(known, plan.variables)[0][0])
    best = optimize(known, controller, name="best for the truth", key=key)
    least = float(losses(known, best.variables)[0][0])
    if least > ours:
        best, least = dataclasses.replace(plan, name="best for the truth"), ours
    return Regret(ours - least, ours, least, problem.objective.gain_unit, best)


@dataclasses.dataclass(frozen=True)
class PriorSensitivity:
    """A plan under priors raised to `powers` [prior], each entry one of them.

    `risk` of the plan and `best` of the plan that would be chosen then; `regret` = risk - best; `moved`: largest
    change of a component of the decision; `k_hat` and `effective` draws of the reweighting; `reliable`: k-hat < 0.7.
    """

    powers: tuple[float, ...]
    risk: np.ndarray
    best: np.ndarray
    regret: np.ndarray
    moved: np.ndarray
    k_hat: np.ndarray
    effective: np.ndarray
    plans: tuple[Plan, ...]

    @property
    def reliable(self) -> np.ndarray:
        """Whether the draws at hand can speak for each prior."""
        return self.k_hat < LARGEST_K_HAT

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and the plans."""
        numbers = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("powers", "plans")}
        return jsonable(
            {
                "powers": list(self.powers),
                **{name: value.tolist() for name, value in numbers.items()},
                "reliable": self.reliable.tolist(),
                "plans": [p.to_json() for p in self.plans],
            }
        )


def power_scaled(
    log_prior: Float[np.ndarray, " draw"], power: float, weights: Float[np.ndarray, " draw"] | None = None
) -> tuple[Float[np.ndarray, " draw"], float]:
    """Weights [draw] under which draws of a posterior are draws of that with the prior raised to `power`, smoothed, and
    their k-hat; `weights` that the draws have already."""
    smoothed, k_hat = pareto_smooth((power - 1.0) * log_prior)
    found = np.exp(smoothed) * (1.0 if weights is None else weights)
    return found / found.sum(), k_hat


def prior_sensitivity(
    problem: PlanningProblem,
    plan: Plan,
    log_prior: Float[np.ndarray, " draw"],
    controller: AbstractController,
    *,
    powers: Sequence[float] = (0.5, 2.0),
    key: Array,
) -> PriorSensitivity:
    """How much of a plan is the prior's doing: the prior trusted less (power < 1) and more (> 1), and planned again.

    $$ w_s \\propto \\pi(\\theta_s)^{a - 1}, \\qquad p_a(\\theta | y) \\propto p(y | \\theta)\\, \\pi(\\theta)^a $$

    The draws of the problem are weighted, not drawn anew: nothing is calibrated again. The weights are Pareto-smoothed;
    where their k-hat is 0.7 or more the posterior under that prior lies where no draw is, and the entry is not
    `reliable`. A prior from earlier patients that decides the plan of this one shows as a large `regret` or `moved`.

    **Arguments:** `log_prior` [draw]: log density of the prior at every draw of the problem, in the parameters in which
    the prior was stated (a constant does not matter).

    **Good values:** powers 0.5 and 2; 64 draws or more.

    **Raises:** `ValueError` for another number of densities than draws, and for a power that is not positive.

    **Reference:** Kallioinen et al., "Detecting and diagnosing prior and likelihood sensitivity with power-scaling",
    Stat Comput 34 (2024).
    """
    density = np.asarray(log_prior, dtype=float)
    if density.shape != (problem.n_draws,) or not np.isfinite(density).all():
        raise ValueError(
            f"required: a finite log density of the prior for each of {problem.n_draws} draws; received: shape "
            f"{density.shape}, {int((~np.isfinite(density)).sum())} not finite"
        )
    if min(powers) <= 0.0:
        raise ValueError(f"required: powers above zero; received: {list(powers)}")
    before = None if problem.weights is None else np.asarray(problem.weights)
    rows, plans = [], []
    for index, power in enumerate(powers):
        weights, k_hat = power_scaled(density, power, before)
        held = problem.with_draws(problem.draws, jnp.asarray(weights))
        best = optimize(held, controller, name=f"prior to the power {power:g}", key=jax.random.fold_in(key, index))
        ours, least = sample_risk(held, plan.variables), float(best.risk["value"])
        if least > ours:
            best, least = plan, ours
        vectors = [np.asarray(problem.parametrization.vector(p.variables), float) for p in (plan, best)]
        moved = float(np.max(np.abs(vectors[0] - vectors[1]), initial=0.0))
        rows.append((ours, least, ours - least, moved, k_hat, 1.0 / np.sum(weights**2)))
        plans.append(best)
    risk, least, lost, moved_by, k_hats, effective = np.asarray(rows).T
    return PriorSensitivity(tuple(map(float, powers)), risk, least, lost, moved_by, k_hats, effective, tuple(plans))
