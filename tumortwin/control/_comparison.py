"""A plan against a reference plan on draws that neither was chosen with: gains, who does not gain, and the price."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin import units
from tumortwin.control._evaluate import curves, losses_of
from tumortwin.control._objective import AbstractObjective, Curve
from tumortwin.control._plan import Plan, jsonable
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._risk import CVaR, Mean
from tumortwin.metrics import central_interval, quantile, wilson

N_BOOTSTRAP = 2000
CONFIDENCE = 0.95
DRAWS = "draws"
"""Interval: the central share of the draws."""
BOOTSTRAP = "bootstrap"
"""Interval: of a statistic of the draws, which are finitely many."""
WILSON = "Wilson"
"""Interval: of a share of the draws, which are finitely many."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its interval (None where it has none: the toxicity of a plan is not uncertain).

    `interval` says what the interval is of: `DRAWS` spreads as one patient may, `BOOTSTRAP` and `WILSON` narrow with
    the number of draws.
    """

    value: float
    low: float | None
    high: float | None
    unit: str
    interval: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return jsonable(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`plan` against `reference`; positive gains favour the plan.

    `entries`: name -> estimate, names `<objective>.<quantity>` and `toxicity.<quantity>_change`. `gains`: objective
    name -> gain of every draw (paired). `minimal_gains`: what counts as a benefit, stated beforehand. `failed_draws`:
    draws left out because a solve failed under either plan.
    """

    plan: str
    reference: str
    entries: Mapping[str, Estimate]
    gains: Mapping[str, np.ndarray]
    minimal_gains: Mapping[str, float]
    level: float
    failed_draws: int

    def to_json(self) -> dict[str, dict[str, Any]]:
        """name -> {value, low, high, unit, interval}."""
        return {name: estimate.to_json() for name, estimate in self.entries.items()}


def compare(
    problem: PlanningProblem,
    plan: Plan,
    reference: Plan,
    *,
    draws: PyTree,
    weights: Float[Array, " draw"] | None = None,
    minimal_gains: Mapping[str, float] | None = None,
    objectives: Sequence[AbstractObjective] = (),
    level: float = 0.8,
    key: Array,
) -> Comparison:
    """Gains of `plan` over `reference` on fresh `draws`, by the problem's objective and any further `objectives`.

    Both plans meet the same draws (paired), each solved once a plan for all objectives. For each objective, in its
    `gain_unit`, with g = loss(reference) - loss(plan):

    - `expected_gain` E[g]: paired bootstrap 95 % interval (uncertainty from the finite number of draws);
    - `gain_over_draws`: median with the central 95 % of g over draws (what one patient may meet: the posterior);
    - `probability_of_benefit` P(g > tie), `fraction_without_benefit` P(g < minimal gain - tie), with Wilson intervals
      at the effective sample size; a gain within `TIE` = 1e-10 of the losses' own size is rounding, and no gain;
    - `cvar_gain` CVaR(loss of reference) - CVaR(loss of plan); `worst_gain`: mean gain of the fifth that gains least.

    Toxicity (of radiotherapy total dose, BED_3, EQD2_3, BED_10, largest fraction; of a drug its cumulative dose and
    number of doses) is the change from the reference, without interval.

    **Arguments:** `minimal_gains`: objective name -> smallest gain that matters, in its unit (default 0); `level` of
    the tail; `key` for the bootstrap.
    """
    judged = problem.with_draws(draws, weights)
    ours, theirs = (judge(judged, p, objectives) for p in (plan, reference))
    return compare_judged(ours, theirs, weights=weights, minimal_gains=minimal_gains, level=level, key=key)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A plan with its `losses` [objective draw] by every one of the `objectives`, and the `curve` that they come from,
    leaves [draw time]."""

    plan: Plan
    objectives: tuple[AbstractObjective, ...]
    losses: np.ndarray
    curve: Curve


def judge(problem: PlanningProblem, plan: Plan, objectives: Sequence[AbstractObjective] = ()) -> Judged:
    """The plan on the draws of `problem`, by the problem's objective and further `objectives`; each draw solved once.

    **Raises:** `ValueError` when two objectives have the same name.
    """
    every = (problem.objective, *objectives)
    names = [o.name for o in every]
    if len(set(names)) < len(names):
        raise ValueError(f"required: objectives of different kinds; received: {names}")
    found = curves(problem, plan.variables)
    return Judged(plan, every, np.asarray(losses_of(every, found)), found)


def compare_judged(
    plan: Judged,
    reference: Judged,
    *,
    weights: Float[Array, " draw"] | None = None,
    minimal_gains: Mapping[str, float] | None = None,
    level: float = 0.8,
    key: Array,
) -> Comparison:
    """`compare` of two plans that were judged on the same draws, by the same objectives."""
    ours, theirs = plan.losses, reference.losses
    usable = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
    if not usable.any():
        raise ValueError(f"required: at least one draw that solves under both plans; received: none of {usable.size}")
    share = np.ones(usable.size) if weights is None else np.asarray(weights, dtype=float)
    share = share[usable] / share[usable].sum()
    minimal = {o.name: float((minimal_gains or {}).get(o.name, 0.0)) for o in plan.objectives}
    entries: dict[str, Estimate] = {}
    gains: dict[str, np.ndarray] = {}
    for index, objective in enumerate(plan.objectives):
        pair = (theirs[index][usable], ours[index][usable])
        gains[objective.name] = pair[0] - pair[1]
        found = _gain_entries(pair, share, minimal[objective.name], objective.gain_unit, level, key)
        entries |= {f"{objective.name}.{name}": estimate for name, estimate in found.items()}
    entries |= _toxicity_entries(plan.plan, reference.plan)
    return Comparison(plan.plan.name, reference.plan.name, entries, gains, minimal, level, int((~usable).sum()))


TIE = 1e-10  # of a loss: sums of the same numbers in another order differ by less
RESAMPLED = ("expected_gain", "cvar_gain", "worst_gain")


def _gain_entries(
    losses: tuple[np.ndarray, np.ndarray], weights: np.ndarray, minimal: float, unit: str, level: float, key: Array
) -> dict[str, Estimate]:
    gain = losses[0] - losses[1]
    estimates = _bootstrap(jnp.asarray(losses[0]), jnp.asarray(losses[1]), jnp.asarray(weights), CVaR(level), key)
    entries = {name: Estimate(*found, unit, BOOTSTRAP) for name, found in zip(RESAMPLED, estimates, strict=True)}
    spread = central_interval(gain, CONFIDENCE, weights)
    entries["gain_over_draws"] = Estimate(float(quantile(gain, 0.5, weights)), *spread, unit, DRAWS)
    effective = 1.0 / float((weights**2).sum())
    tie = TIE * np.maximum(np.abs(losses[0]), np.abs(losses[1]))
    for name, holds in (("probability_of_benefit", gain > tie), ("fraction_without_benefit", gain < minimal - tie)):
        share = min(float(weights[holds].sum()), 1.0)
        found = wilson(share * effective, effective)
        entries[name] = Estimate(found.value, found.low, found.high, units.FRACTION, WILSON)
    return entries


def _statistics(reference: Array, plan: Array, weights: Array, tail: CVaR) -> Float[Array, " statistic"]:
    """The statistics named in `RESAMPLED`."""
    gain = reference - plan
    return jnp.stack([Mean()(gain, weights), tail(reference, weights) - tail(plan, weights), -tail(-gain, weights)])


@eqx.filter_jit
def _resampled(reference: Array, plan: Array, weights: Array, tail: CVaR, key: Array) -> tuple[Array, Array]:
    def once(k: Array) -> Array:
        index = jax.random.randint(k, reference.shape, 0, reference.shape[0])
        return _statistics(reference[index], plan[index], weights[index], tail)

    resampled = jax.lax.map(once, jax.random.split(key, N_BOOTSTRAP), batch_size=100)
    return _statistics(reference, plan, weights, tail), resampled


def _bootstrap(
    reference: Array, plan: Array, weights: Array, tail: CVaR, key: Array
) -> list[tuple[float, float, float]]:
    """Point estimates and percentile intervals under resampling of draws (the two plans of a draw stay together)."""
    values, resampled = _resampled(reference, plan, weights, tail, key)
    low, high = np.quantile(resampled, [0.5 - CONFIDENCE / 2.0, 0.5 + CONFIDENCE / 2.0], axis=0)
    return [(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def _toxicity_entries(plan: Plan, reference: Plan) -> dict[str, Estimate]:
    return {
        f"toxicity.{name}_change": Estimate(
            _change(value, reference.toxicity[name]),
            None,
            None,
            units.DOSE if name.endswith("_gy") else units.FRACTION,
        )
        for name, value in plan.toxicity.items()
        if name in reference.toxicity
    }


def _change(value: float, before: float) -> float:
    """The difference, 0 where it is rounding."""
    return value - before if abs(value - before) > TIE * max(abs(value), abs(before)) else 0.0
