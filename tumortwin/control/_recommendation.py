"""The plan, its equal-toxicity twin, and both against the standard of care: what a clinician is shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin.control._comparison import Comparison, Estimate, Judged, compare_judged, judge
from tumortwin.control._constraint import (
    AbstractConstraint,
    AbstractDoseConstraint,
    EffectiveDose,
    earlier_effect,
)
from tumortwin.control._controller import AbstractController, OnStep
from tumortwin.control._evaluate import losses
from tumortwin.control._hindsight import power_scaled
from tumortwin.control._objective import AbstractObjective, Curve
from tumortwin.control._plan import Plan, jsonable, make_plan
from tumortwin.control._planned import plan
from tumortwin.control._problem import PlanningProblem
from tumortwin.control._toxicity import NORMAL_TISSUE_ALPHA_BETA
from tumortwin.control._trade_off import SecondAim, TradeOff, trade_off
from tumortwin.inference import LARGEST_K_HAT


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """`plan` within the limits given, and for plans of radiotherapy `equal_effect_plan` within the normal-tissue BED of
    the standard of care too (else None).

    Both are compared with `standard_of_care` on draws they were not chosen with. A gain of `plan` that
    `equal_effect_plan` does not keep was bought with normal-tissue toxicity. `failed_draws`: draws left out of the
    planning because their solve failed. `outcomes`: the problem's objective of every fresh draw by plan
    (`recommended`, `equal_effect`, `standard_of_care`), paired; a draw that fails under one of them is in none.
    `curves`: what these draws go through, by plan, leaves [draw time].
    `prior_sensitivity`: the main gains of `plan` where the prior is trusted less and more (raised to `PRIOR_POWERS`).
    `trade_off`: the front against a second aim, where one was asked for.
    """

    plan: Plan
    equal_effect_plan: Plan | None
    standard_of_care: Plan
    comparison: Comparison
    equal_effect_comparison: Comparison | None
    failed_draws: int = 0
    outcomes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    prior_sensitivity: tuple[Mapping[str, Any], ...] = ()
    trade_off: TradeOff | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        found = {
            "plan": self.plan.to_json(),
            "standard_of_care": self.standard_of_care.to_json(),
            "comparison": self.comparison.to_json(),
            "constraints": list(self.plan.constraints),
            "risk": dict(self.plan.risk),
            "standard_of_care_risk": dict(self.standard_of_care.risk),
            "prior_sensitivity": [dict(entry) for entry in self.prior_sensitivity],
            "minimal_gains": dict(self.comparison.minimal_gains),
            "failed_draws": {"planning": self.failed_draws, "comparison": self.comparison.failed_draws},
            "toxicity_measure": self.toxicity_measure,
            "statement": self.describe(),
        }
        if self.equal_effect_plan is not None and self.equal_effect_comparison is not None:
            found["equal_effect"] = {
                "plan": self.equal_effect_plan.to_json(),
                "comparison": self.equal_effect_comparison.to_json(),
                "constraints": list(self.equal_effect_plan.constraints),
                "risk": dict(self.equal_effect_plan.risk),
            }
        if self.trade_off is not None:
            found["front"] = self.trade_off.to_json()
        return jsonable(found)

    @property
    def toxicity_measure(self) -> str:
        """What stands for toxicity in the comparison, in words."""
        dose = ["normal-tissue BED (alpha/beta 3 Gy)"] if "bed_3_gy" in self.plan.toxicity else []
        drugs = [name.removesuffix("_total") for name in self.plan.toxicity if name.endswith("_total")]
        return ", ".join([*dose, *(f"cumulative dose of {drug}" for drug in drugs)]) or "none of the decided doses"

    def describe(self) -> str:
        """A few plain sentences for a report."""
        main = self.plan.risk["objective"]
        minimal = self.comparison.minimal_gains[main]
        parts = [self.plan.describe() + "."]
        for label, comparison in (
            ("Against the standard of care", self.comparison),
            ("At the normal-tissue BED of the standard of care", self.equal_effect_comparison),
        ):
            if comparison is None:
                continue
            gain = comparison.entries[f"{main}.expected_gain"]
            chance = comparison.entries[f"{main}.probability_of_benefit"]
            none = comparison.entries[f"{main}.fraction_without_benefit"]
            parts.append(
                f"{label}: expected gain {gain.value:.3g} {gain.unit} (95 % {gain.low:.3g} to {gain.high:.3g}), "
                f"probability of benefit {chance.value:.0%}, no relevant benefit (gain below {minimal:g}) "
                f"in {none.value:.0%} of draws.{_warning(gain)}"
            )
        traded = [] if self.trade_off is None else [self.trade_off.describe()]
        return " ".join([*parts, *self._price(), *traded])

    def _price(self) -> list[str]:
        """What the plan costs more or less than the standard of care."""
        found, entries = [], self.comparison.entries
        for name, entry in entries.items():
            if name == "toxicity.bed_3_gy_change":
                found.append(f"The plan changes normal-tissue BED (alpha/beta 3) by {entry.value:+.1f} Gy.")
            elif name.endswith("_total_change"):
                agent = name.removeprefix("toxicity.").removesuffix("_total_change")
                before = self.standard_of_care.toxicity[f"{agent}_total"]
                found.append(f"It changes the dose of {agent} by {entry.value:+.3g} of {before:.3g}.")
        return found


def _warning(gain: Estimate) -> str:
    """What a reader of a recommendation must know first: that fresh draws do not bear it out."""
    if gain.low is None or gain.high is None or gain.low > 0.0:
        return ""
    if gain.high < 0.0:
        return " On these draws the plan is worse than what it is compared with: it is not recommended."
    return " On these draws no gain is shown."


def with_effect_of(constraints: Sequence[AbstractConstraint], reference: Plan) -> tuple[AbstractConstraint, ...]:
    """The constraints, with the normal-tissue BED (alpha/beta 3) held at or below that of `reference` as well.

    A BED limit with another alpha/beta stays beside it. Earlier fractions count in the limit, so theirs is added.

    **Raises:** `ValueError` for a plan without radiotherapy.
    """
    if "bed_3_gy" not in reference.toxicity:
        raise ValueError(
            f"required: a plan of radiotherapy, for its equal-effect twin; received: {', '.join(reference.toxicity)}; "
            "try: plan(...) and compare(...)"
        )
    dosed = [c for c in constraints if isinstance(c, AbstractDoseConstraint)]
    same = [c for c in dosed if c.limits().alpha_beta == NORMAL_TISSUE_ALPHA_BETA]
    others = tuple(c for c in constraints if all(c is not other for other in same))
    before = earlier_effect(reference.parametrization, NORMAL_TISSUE_ALPHA_BETA)
    limit = min([reference.toxicity["bed_3_gy"] + before, *(c.limits().effective_dose for c in same)])
    return (*others, EffectiveDose(limit, NORMAL_TISSUE_ALPHA_BETA))


def recommend(
    problem: PlanningProblem,
    controller: AbstractController | None,
    standard_of_care: PyTree,
    *,
    fresh_draws: PyTree,
    fresh_weights: Float[Array, " draw"] | None = None,
    fresh_log_prior: Float[np.ndarray, " draw"] | None = None,
    minimal_gains: Mapping[str, float] | None = None,
    objectives: Sequence[AbstractObjective] = (),
    aim: SecondAim | None = None,
    level: float = 0.8,
    key: Array,
    on_step: OnStep | None = None,
) -> Recommendation:
    """Optimize twice and compare both plans with the standard of care on fresh draws.

    First within the constraints of `problem`; then, where the plan decides on radiotherapy, with the normal-tissue BED
    (alpha/beta 3) held at that of the standard of care as well, because larger fractions and gaps buy tumor kill with
    late toxicity at equal total dose.

    **Arguments:** `controller`, or None for a suitable one; the others as of `compare`, whose bootstrap takes `key`,
    and so does a search that draws random numbers (folded); `fresh_draws` must not be the draws of the problem;
    `fresh_log_prior`: log density of the prior at each of them, for the gains where the prior is trusted less or more;
    `aim`: what the risk is traded against (`trade_off`), a further search for each of its shares.

    **Good values:** 30 x 2 Gy as the standard of care; 64-200 fresh draws.
    """
    problem, failed = _solvable(problem, standard_of_care)
    reference = make_plan(problem, standard_of_care, name="standard of care")
    keys = [jax.random.fold_in(key, k) for k in (1, 2, 3)]
    first = plan(problem, controller=controller, name="recommended", on_step=on_step, key=keys[0])
    plans = {"recommended": first, "standard_of_care": reference}
    if "bed_3_gy" in reference.toxicity:
        held = problem.with_constraints(with_effect_of(problem.constraints, reference))
        name = "recommended at equal normal-tissue BED"
        plans["equal_effect"] = plan(held, controller=controller, name=name, on_step=on_step, key=keys[1])
    fresh = problem.with_draws(fresh_draws, fresh_weights)
    judged = {name: judge(fresh, found, objectives) for name, found in plans.items()}

    def compared(name: str) -> Comparison:
        settings: dict[str, Any] = {"weights": fresh_weights, "minimal_gains": minimal_gains, "level": level}
        return compare_judged(judged[name], judged["standard_of_care"], **settings, key=key)

    both = np.isfinite([found.losses for found in judged.values()]).all(axis=(0, 1))  # paired: solved under every plan
    sensitivity = (
        ()
        if fresh_log_prior is None
        else _under_other_priors(
            (judged["recommended"], judged["standard_of_care"]),
            fresh_log_prior,
            fresh_weights,
            minimal_gains,
            level,
            key,
        )
    )
    traded = None
    if aim is not None:
        seen = {name: np.asarray(found.losses[0]) for name, found in judged.items()}
        traded = trade_off(problem, controller, aim, plans, fresh, seen, key=keys[2])
    return Recommendation(
        first,
        plans.get("equal_effect"),
        reference,
        compared("recommended"),
        compared("equal_effect") if "equal_effect" in plans else None,
        failed_draws=failed,
        outcomes={name: found.losses[0][both] for name, found in judged.items()},
        curves={name: jax.tree.map(lambda leaf: leaf[both], found.curve) for name, found in judged.items()},
        prior_sensitivity=sensitivity,
        trade_off=traded,
    )


def _solvable(problem: PlanningProblem, variables: PyTree) -> tuple[PlanningProblem, int]:
    """The problem on the draws that solve under a plan, and how many do not."""
    usable = np.isfinite(np.asarray(losses(problem, variables)[0]))
    if not usable.any():
        raise ValueError(f"required: a draw that solves under the standard of care; received: none of {usable.size}")
    return (problem if usable.all() else problem.kept(usable)), int((~usable).sum())


PRIOR_POWERS = (0.8, 1.25)
"""A prior of some twenty parameters may be scaled no further: the draws at hand say nothing beyond."""

SHOWN_OF_PRIORS = ("expected_gain", "probability_of_benefit", "fraction_without_benefit")


def _under_other_priors(
    judged: tuple[Judged, Judged],
    log_prior: Float[np.ndarray, " draw"],
    weights: Float[Array, " draw"] | None,
    minimal_gains: Mapping[str, float] | None,
    level: float,
    key: Array,
) -> tuple[Mapping[str, Any], ...]:
    """The gains of a plan with the prior raised to `PRIOR_POWERS`, from the draws that it is judged on."""
    found = []
    name = judged[0].objectives[0].name
    for power in PRIOR_POWERS:
        scaled, k_hat = power_scaled(log_prior, power, None if weights is None else np.asarray(weights))
        compared = compare_judged(
            *judged, weights=jnp.asarray(scaled), minimal_gains=minimal_gains, level=level, key=key
        )
        entries = compared.entries
        shown = {quantity: entries[f"{name}.{quantity}"].to_json() for quantity in SHOWN_OF_PRIORS}
        effective = float(1.0 / np.sum(scaled**2))
        found.append({"power": power, "k_hat": k_hat, "reliable": k_hat < LARGEST_K_HAT, "draws": effective, **shown})
    return tuple(found)
