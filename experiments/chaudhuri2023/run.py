"""Radiotherapy schedules for virtual high-grade gliomas: what a plan gains, and what of it a personal plan adds.

`tumortwin reproduce chaudhuri2023`. The seed and every target stand in `expected.json`, written before the first run.
`runtime=ci`: 20 patients, a smaller bank, no Pareto front and no other caps.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.chaudhuri2023 import plans
from experiments.chaudhuri2023.figures import draw_doses, draw_front, draw_gains
from experiments.chaudhuri2023.model import HORIZON, LOGISTIC, START, Law, above_during_treatment
from experiments.chaudhuri2023.plans import FLOOR, SETS, STANDARD_PLAN, Limits, by_total_dose
from experiments.chaudhuri2023.study import SCENARIOS, Chosen, Known, Scenario, interval, others_inside, study
from tumortwin.control import EachPlan
from tumortwin.inference import LARGEST_K_HAT
from tumortwin.metrics import paired_bootstrap
from tumortwin.runs import Run, Verdict, at_least, at_most, between, measured

PATIENTS, QUICK_PATIENTS = 100, 20
MEMBERS, QUICK_MEMBERS = 32_768, 8_192
OTHERS = 1000
"""Further patients without plans: by how much may 100 miss a coverage of 95 % by chance?"""

CAPS = (2.5, 2.7, 3.0, 4.0)
"""[Gy] a fraction, for the gain as a function of the cap."""

BUDGETS = (42.0, 46.0, 50.0, 54.0, 57.0, 60.0)
"""[Gy], of the Pareto front."""

ROUNDING = 9
"""Digits of a difference: plans that differ in the last bit are the same plan."""

COUNTED = {
    "total_dose": "toxicity counted as total dose, BED_3 not held: a gain from fraction size is none at equal toxicity",
    "bed_3": "toxicity counted as BED_3 (normal tissue, alpha/beta 3 Gy)",
}

Targets = Mapping[str, Mapping[str, Any]]


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Three scenarios, three sets of limits."""
    begun = time.monotonic(), time.process_time()
    quick = bool(config.runtime.quick)
    expected: Targets = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    seed, size = int(expected["seed"]["value"]), QUICK_PATIENTS if quick else PATIENTS
    found = [_count("patients", size, expected, quick)]
    found += [measured(n, expected[n]["value"], expected[n]["unit"], expected[n]["source"]) for n in PUBLISHED]
    said: dict[str, Any] = {}
    violations, losses = [], []
    for scenario in SCENARIOS:
        has, each = study(run, scenario, size, QUICK_MEMBERS if quick else MEMBERS, seed)
        found += of_posteriors(scenario, has, expected, quick)
        for one in each:
            found += of_set(scenario, has, one, seed, said)
            violations += [plans.violation(one.limits, plan.doses) for plan in one.every]
            losses.append(np.max(one.personal.risk - has.standard))
            losses.append(np.max(one.smallest.risk - has.standard))
        if scenario.name == "logistic":
            others = others_inside(QUICK_PATIENTS if quick else OTHERS, MEMBERS, seed)
            found += [measured(f"others_truth_inside_share_{n}", held.mean()) for n, held in others.items()]
            draw_doses(run, each)
            draw_gains(run, has, each)
            if not quick:
                found += of_caps(has, seed)
                draw_front(run, front(has))
    found.append(_most("largest_violation", max(violations), expected))
    found.append(_most("worst_loss_to_standard", max(losses), expected))
    run.write_json("plans.json", said)
    seconds = time.monotonic() - begun[0]
    found.append(measured("seconds", seconds, "s") if quick else _most("seconds", seconds, expected))
    return [*found, measured("processor_seconds", time.process_time() - begun[1], "s")]


PUBLISHED = ("published_gain", "published_dose_cut")


def _count(name: str, value: float, expected: Targets, quick: bool) -> Verdict:
    one = expected[name]
    return measured(name, value) if quick else at_least(name, value, one["at_least"], one["unit"], one["source"])


def _most(name: str, value: float, expected: Targets) -> Verdict:
    one = expected[name]
    return at_most(name, value, one["at_most"], one["unit"], one["source"])


def of_posteriors(scenario: Scenario, has: Known, expected: Targets, quick: bool) -> list[Verdict]:
    """Truths inside 95 % intervals (judged where the planner's law is true), and the health of the bank."""
    judged = has.law is LOGISTIC and not quick
    each, pooled = expected["truth_inside"], expected["truth_inside_pooled"]
    found = []
    for name, held in has.inside.items():
        label = f"{scenario.name}_truth_inside_{name}"
        found.append(
            at_least(label, held.sum(), each["at_least"], each["unit"], each["source"])
            if judged
            else measured(label, held.sum())
        )
    true = plans.times(has.truth, STANDARD_PLAN, has.law)[:, 0]
    share = np.mean(list(has.inside.values()))
    label = f"{scenario.name}_truth_inside_pooled"
    if judged:
        found.append(between(label, share, pooled["low"], pooled["high"], pooled["unit"], pooled["source"]))
    else:
        found.append(measured(label, share))
    return [
        *found,
        measured(f"{scenario.name}_true_time_inside_forecast_standard_of_care", has.forecast_inside.sum()),
        measured(f"{scenario.name}_least_effective_draws", has.effective.min()),
        measured(f"{scenario.name}_largest_k_hat", has.k_hat.max()),
        measured(f"{scenario.name}_patients_with_k_hat_above_0.7", np.sum(has.k_hat > LARGEST_K_HAT)),
        measured(f"{scenario.name}_patients_at_horizon_standard_of_care", np.sum(true >= HORIZON - START)),
    ]


def of_set(scenario: Scenario, has: Known, one: Chosen, seed: int, said: dict[str, Any]) -> list[Verdict]:
    """Gain and dose cut within one set of limits, beside the common plan, the prior's and the truth's."""
    prefix = f"{scenario.name}_{one.limits.name}"
    tell = Teller(COUNTED[one.limits.measure], seed)
    _gains(tell, f"{prefix}_gain_at_equal_{one.limits.measure}", has, one)
    _cost(tell, prefix, has, one)
    _cut(tell, f"{prefix}_total_dose_cut_at_equal_cvar", plans.TOTAL, plans.total_of, one.smallest, one.smallest_common)
    cut_effect = plans.effect_of(one.smallest.doses)
    tell.value(f"{prefix}_total_dose_cut_at_equal_cvar_bed_3_median", np.median(cut_effect), "Gy")
    fresh = has.gain(one.smallest.doses)
    tell.median(f"{prefix}_total_dose_cut_at_equal_cvar_fresh_cvar_change", fresh, "day")
    if one.least_effect is not None and one.least_effect_common is not None:
        label = f"{prefix}_bed_3_cut_at_equal_cvar"
        _cut(tell, label, plans.EFFECT, plans.effect_of, one.least_effect, one.least_effect_common)
    said[prefix] = {
        "toxicity": COUNTED[one.limits.measure],
        "limits": one.limits.words,
        "personal": one.personal.doses.tolist(),
        "common": one.common.doses[0].tolist(),
        "from_the_prior": one.prior.doses[0].tolist(),
        "smallest": one.smallest.doses.tolist(),
        "smallest_common": one.smallest_common.doses[0].tolist(),
    }
    return tell.found


class Teller:
    """Collects verdict lines of numbers over patients, each with the toxicity in use as its source."""

    def __init__(self, counted: str, seed: int) -> None:
        self.found: list[Verdict] = []
        self.counted = counted
        self.rng = np.random.default_rng([seed, 1])

    def value(self, name: str, value: Any, unit: str = "1") -> None:
        """One number."""
        self.found.append(measured(name, value, unit, self.counted))

    def median(self, name: str, values: np.ndarray, unit: str) -> None:
        """Median over patients, with its bootstrap interval."""
        for part, value in zip(("median", "low", "high"), interval(values, self.rng), strict=True):
            self.value(f"{name}_{part}", value, unit)

    def paired(self, name: str, first: np.ndarray, second: np.ndarray, unit: str) -> None:
        """Mean difference over patients with its bootstrap interval, and the median difference."""
        apart = np.round(first - second, ROUNDING)
        gap = paired_bootstrap(apart, np.zeros(apart.size), np.arange(apart.size), rng=self.rng, resamples=2000)
        for part, value in (("mean", gap.mean), ("low", gap.low), ("high", gap.high)):
            self.value(f"{name}_{part}", value, unit)
        self.value(f"{name}_median", np.median(apart), unit)


def _gains(tell: Teller, label: str, has: Known, one: Chosen) -> None:
    """By CVaR on fresh draws, and by the true time: personal, common, their difference, the prior's, the truth's."""
    for kind, gain in (("", has.gain), ("_true", has.true_gain)):
        ours, shared, blind = (gain(plan.doses) for plan in (one.personal, one.common, one.prior))
        tell.median(f"{label}{kind}", ours, "day")
        tell.median(f"{label}{kind}_common", shared, "day")
        tell.paired(f"{label}{kind}_personal_minus_common", ours, shared, "day")
        tell.paired(f"{label}{kind}_personal_minus_prior_only", ours, blind, "day")
        tell.value(f"{label}{kind}_share_without_gain", np.mean(ours <= 0.0))
        if kind and one.oracle is not None:
            tell.paired(f"{label}{kind}_truth_known_minus_personal", gain(one.oracle.doses), ours, "day")


def _cost(tell: Teller, prefix: str, has: Known, one: Chosen) -> None:
    """What the plans of the largest gain cost, how far apart they are, and whether they let the tumor grow first."""
    for name, plan in (("personal", one.personal), ("common", one.common)):
        tell.value(f"{prefix}_{name}_total_dose_median", np.median(plans.total_of(plan.doses)), "Gy")
        tell.value(f"{prefix}_{name}_bed_3_median", np.median(plans.effect_of(plan.doses)), "Gy")
        tell.value(f"{prefix}_{name}_largest_fraction", plan.doses.max(), "Gy")
    apart = np.abs(one.personal.doses - one.common.doses)
    tell.value(f"{prefix}_personal_from_common_median", np.median(apart.max(axis=1)), "Gy")
    tell.value(f"{prefix}_plans_converged_share", np.mean(one.personal.converged))
    tell.value(f"{prefix}_above_burden_of_day_21_share", above(has.truth, one.personal.doses, has.law).mean())
    standard = np.tile(STANDARD_PLAN, (len(one.personal.doses), 1))
    tell.value(f"{prefix}_above_burden_of_day_21_share_standard_of_care", above(has.truth, standard, has.law).mean())


def _cut(tell: Teller, label: str, full: float, amount: Any, ours: EachPlan, shared: EachPlan) -> None:
    """What of the dose (or BED_3) of the standard of care can be left out at its CVaR."""
    own = full - amount(ours.doses)
    common = np.full(own.size, full - amount(shared.doses)[0])
    tell.median(label, own, "Gy")
    tell.value(f"{label}_share_median", np.median(own) / full)
    tell.value(f"{label}_common", common[0], "Gy")
    tell.paired(f"{label}_personal_minus_common", own, common, "Gy")


def above(truth: plans.Drawn, doses: np.ndarray, law: Law) -> np.ndarray:
    """Whether the true burden [patient] exceeds that of day 21 while a fraction is still to come."""
    single = {name: jnp.asarray(value[:, 0]) for name, value in truth.items()}
    return np.asarray(jax.vmap(lambda draw, d: above_during_treatment(draw, d, law))(single, jnp.asarray(doses)))


def of_caps(has: Known, seed: int) -> list[Verdict]:
    """The median gain at 60 Gy as a function of the cap, with gaps and without; and BED_3 within the cap too."""
    tell = Teller(COUNTED["total_dose"], seed)
    for cap in CAPS:
        for name, low in (("cap", 0.0), ("cap_and_floor", FLOOR)):
            plan = plans.personal(by_total_dose(name, "", low, cap), has.planning)
            label = f"{name}_{cap:g}_gy_gain_at_equal_total_dose"
            tell.median(label, has.gain(plan.doses), "day")
            tell.value(f"{label}_bed_3_median", np.median(plans.effect_of(plan.doses)), "Gy")
    capped = Limits("bed_3", "bed_3", "", 0.0, (plans.weekly(0.0, plans.CAP), *SETS[2].constraints[1:]))
    tell.counted = COUNTED["bed_3"]
    plan = plans.personal(capped, has.planning)
    shared = plans.common(capped, has.planning)
    label = f"bed_3_and_cap_{plans.CAP:g}_gy_gain_at_equal_bed_3"
    tell.median(label, has.gain(plan.doses), "day")
    tell.paired(f"{label}_personal_minus_common", has.gain(plan.doses), has.gain(shared.doses), "day")
    return tell.found


Front = dict[str, dict[str, list[tuple[float, float, float]]]]
"""Set -> kind of plan -> total dose [Gy], median BED_3 [Gy], mean over patients of the CVaR's change [day]."""


def front(has: Known) -> Front:
    """Total dose against CVaR, on fresh draws: personal plans and common ones."""
    found: Front = {}
    for limits in SETS:
        found[limits.name] = {"personal": [], "common": []}
        lowest = plans.WEEKS.fractions_per_week * (plans.STANDARD + 5 * limits.low)
        for total in (budget for budget in BUDGETS if budget >= lowest):
            own = plans.personal(limits, has.planning, {"total_dose": total})
            shared = plans.common(limits, has.planning, {"total_dose": total})
            for kind, plan in (("personal", own), ("common", shared)):
                effect = float(np.median(plans.effect_of(plan.doses)))
                found[limits.name][kind].append((total, effect, float(np.mean(has.gain(plan.doses)))))
    return found
