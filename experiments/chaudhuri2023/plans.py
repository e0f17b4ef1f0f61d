"""Three sets of limits, and the plans within them: personal, common to all, from the prior alone, for the truth.

Toxicity is the total dose in two of the sets and BED_3 (normal tissue, alpha/beta 3 Gy) in the third; every number
names the one in use.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.chaudhuri2023.cohort import Drawn, as_draws
from experiments.chaudhuri2023.model import HORIZON, STANDARD, START, WEEKS, Law, burden, time_to_progression
from tumortwin.control import (
    AbstractConstraint,
    CVaR,
    EachPlan,
    EffectiveDose,
    FractionDose,
    GroupedRisk,
    LogisticTimeToProgression,
    PlanningProblem,
    PlanVariables,
    StartWindow,
    TotalDose,
    plan_each,
    toxicity,
)

CAP = 2.7
"""[Gy] a fraction, in the two sets that count total dose: the cap for which the published gain is plausible."""

FLOOR = 1.5
"""[Gy] a fraction, the least of every week in one of them."""

LARGEST = 6.0
"""[Gy] a fraction beyond which the linear-quadratic formula is not to be trusted: the bound of the third set."""

TOTAL, EFFECT = 60.0, 100.0
"""[Gy]: total dose and BED_3 of 30 x 2 Gy."""

LEVEL = 0.8
N = WEEKS.n_weeks
RISK = CVaR(LEVEL)
BEGUN = StartWindow(START, START)
STANDARD_PLAN = np.full(N, STANDARD)
HALVINGS = 10
"""Of the interval in which the smallest dose is sought: 50 Gy / 2^10 = .05 Gy, and .08 Gy of BED_3."""

STEPS, NEAR_STEPS = 60, 20
"""Of a descent from all starts, and from a neighboring plan."""

TOLERANCE = 1e-3
"""[Gy] of the projected gradient: a plan's risk is flat to second order there."""


def weekly(low: float, high: float) -> FractionDose:
    """Bounds of weeks 2-6; the first week has been given."""
    return FractionDose((STANDARD, *(N - 1) * (high,)), (STANDARD, *(N - 1) * (low,)))


@dataclasses.dataclass(frozen=True)
class Limits:
    """A set of limits: its name in results, what toxicity is counted as, and the words for a figure."""

    name: str
    measure: str
    words: str
    low: float
    constraints: tuple[AbstractConstraint, ...]


def by_total_dose(name: str, words: str, low: float, cap: float) -> Limits:
    """At most 60 Gy in fractions between `low` and `cap`."""
    return Limits(name, "total_dose", words, low, (weekly(low, cap), TotalDose(TOTAL), BEGUN))


BY_EFFECT = (weekly(0.0, LARGEST), EffectiveDose(EFFECT), BEGUN)

SETS = (
    by_total_dose("cap", f"at most {CAP:g} Gy a fraction, gaps allowed", 0.0, CAP),
    by_total_dose("cap_and_floor", f"{FLOOR:g} to {CAP:g} Gy a fraction", FLOOR, CAP),
    Limits(
        "bed_3", "bed_3", "normal-tissue BED at most 100 Gy", 0.0, (weekly(0.0, LARGEST), EffectiveDose(EFFECT), BEGUN)
    ),
)

STARTS = np.asarray(
    [
        STANDARD_PLAN,
        [STANDARD, 0.0, 1.9, 2.7, 2.7, 2.7],
        [STANDARD, 0.5, 1.0, 1.7, 2.3, 3.4],
        [STANDARD, 0.0, 0.0, 0.2, 1.7, 5.0],
    ]
)
"""Standard of care, back-loaded, and two ramps."""


def problem_of(limits: Limits, groups: int | None = None) -> PlanningProblem:
    """The planning problem of one patient; of all of them under one plan where `groups` is given."""
    risk = RISK if groups is None else GroupedRisk(RISK, groups)
    objective = LogisticTimeToProgression(START, HORIZON)
    return PlanningProblem(burden, None, WEEKS, objective, risk, limits.constraints, sequential=False)


Budget = dict[str, Any]
"""A tighter limit of each plan [plan], by its name in `plan_each`: `total_dose` or `effective_dose` [Gy]."""


def personal(limits: Limits, draws: Drawn, budget: Budget | None = None, best: np.ndarray | None = None) -> EachPlan:
    """The plan of every patient, chosen on draws [patient draw]; near `best` [patient week] where that is given."""
    return _planned(problem_of(limits), draws, budget, best)


def common(limits: Limits, draws: Drawn, budget: Budget | None = None, best: np.ndarray | None = None) -> EachPlan:
    """The one plan [1 week] with the smallest mean over patients of their CVaR; near `best` [1 week]."""
    together = {name: value.reshape(1, -1) for name, value in draws.items()}
    return _planned(problem_of(limits, len(draws["alpha"])), together, budget, best)


def _planned(problem: PlanningProblem, draws: Drawn, budget: Budget | None, best: np.ndarray | None) -> EachPlan:
    """From all starts; where a neighbor is known, from it and the steepest, with fewer steps."""
    starts = np.broadcast_to(STARTS, (len(draws["alpha"]), *STARTS.shape))
    if best is not None:
        starts = np.stack([best, starts[:, -1]], axis=1)
    steps = STEPS if best is None else NEAR_STEPS
    found = as_draws(draws)
    return plan_each(problem, found, starts=starts, max_steps=steps, tolerance=TOLERANCE, **(budget or {}))


MEASURES = {"total_dose": TOTAL, "effective_dose": EFFECT}


def smallest(limits: Limits, draws: Drawn, standard: np.ndarray, largest: EachPlan, of: str = "total_dose") -> EachPlan:
    """The plan with the smallest total dose (or BED_3) whose CVaR is not above `standard` [patient], that of the
    standard of care on the same draws, by bisection from the plan of the `largest` gain. Where that is one plan for all
    patients, so is this: its mean CVaR is not above the mean of theirs."""
    size = len(largest.doses)
    shared = size < len(standard)
    asked = standard.mean(keepdims=True) if shared else standard
    lowest = np.asarray([STANDARD, *(N - 1) * (limits.low,)])[None]
    low = np.full(size, total_of(lowest)[0] if of == "total_dose" else effect_of(lowest)[0])
    high = np.full(size, MEASURES[of])
    held, near = largest, largest.doses
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        tried = (common if shared else personal)(limits, draws, {of: middle}, near)
        keeps = tried.risk <= asked
        high, low = np.where(keeps, middle, high), np.where(keeps, low, middle)
        held, near = chosen_of(keeps, tried, held), tried.doses
    return held


def chosen_of(first: np.ndarray, one: EachPlan, other: EachPlan) -> EachPlan:
    """Plan `one` of the patients marked `first`, `other` of the rest."""
    return EachPlan(
        np.where(first[:, None], one.doses, other.doses),
        np.where(first, one.risk, other.risk),
        np.where(first, one.start, other.start),
        np.where(first, one.converged, other.converged),
    )


def total_of(doses: np.ndarray) -> np.ndarray:
    """Total dose [Gy] of weekly fraction doses [... week]."""
    return WEEKS.fractions_per_week * doses.sum(axis=-1)


def effect_of(doses: np.ndarray) -> np.ndarray:
    """BED_3 [Gy] of plans [plan week]."""
    fractions = jnp.repeat(jnp.asarray(doses), WEEKS.fractions_per_week, axis=1)
    return np.asarray(jax.vmap(lambda d: toxicity(d).effective_dose_normal)(fractions))


def violation(limits: Limits, doses: np.ndarray) -> float:
    """The largest amount [Gy] by which any of the plans [plan week] exceeds any limit."""
    plans = [PlanVariables(jnp.asarray(d), jnp.asarray(START)) for d in np.unique(doses, axis=0)]
    return max(float(c.violation(p, WEEKS)) for p in plans for c in limits.constraints)


def times(draws: Drawn, doses: np.ndarray, law: Law) -> np.ndarray:
    """Time to progression [patient draw] of every patient's plan [patient week] on draws [patient draw]."""
    plans = np.broadcast_to(doses, (len(draws["alpha"]), N))
    return np.asarray(_times(as_draws(draws), jnp.asarray(plans), law))


@jax.jit
def _cvar(values: jax.Array) -> jax.Array:
    return jax.vmap(RISK)(values)


def _times_of(draws: dict[str, jax.Array], doses: jax.Array, law: Law) -> jax.Array:
    one = jax.vmap(lambda draw, dose: time_to_progression(draw, dose, law), in_axes=(0, None))
    return jax.vmap(one)(draws, doses)


_times = jax.jit(_times_of, static_argnums=2)


def risk(draws: Drawn, doses: np.ndarray, law: Law) -> np.ndarray:
    """CVaR [patient] of minus the time to progression [day]: minus the mean of the worst fifth."""
    return np.asarray(_cvar(-jnp.asarray(times(draws, doses, law))))
