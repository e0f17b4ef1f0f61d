"""Leukemia under cytarabine and a growth factor: when to give it, how much of both, what counting white cells is worth.

`tumortwin reproduce jost2020`. Every number that is judged stands in `expected.json`. `runtime=ci`: fewer patients,
steps and clouds; only limits, solver and the blind loop judged.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.jost2020.bank import SLOTS, Cycle, adaptive, simulate
from experiments.jost2020.figures import draw_elsewhere, draw_loop, draw_plans, draw_timings
from experiments.jost2020.loop import Outcome, compared, tabulated
from experiments.jost2020.optimised import BLASTS, Plans, judged, optimised, standard_factor
from experiments.jost2020.other import retold
from experiments.jost2020.patients import calibrated_volume, patients, with_volume
from experiments.jost2020.timings import NONE, POST, PRE, SIMULTANEOUS, Timing, try_all
from tumortwin.metrics import paired_bootstrap
from tumortwin.models import LeukemiaMyelosuppression
from tumortwin.runs import Run, Verdict, at_least, at_most, between, measured

Targets = Mapping[str, dict]
QUICK_PATIENTS, QUICK_STEPS, QUICK_CLOUD, QUICK_TRUTHS = 13, 20, 40, 10
STEPS, CLOUD = 60, 200
OTHER = 1000  # added to the seed for the errors of the records that the other class is fitted to
FULL_DOSES = np.ones(len(SLOTS))
SAME = 1.01  # blasts that count as those of the standard, over them
SHORT = Cycle(0.0, 8.0, (3.0, 4.0, 5.0))  # for the adaptive solver, which is slow


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Calibrate, try all timings, optimise, close the loop."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    seed = int(expected["seed"]["value"])
    number = QUICK_PATIENTS if quick else int(expected["patients"]["value"])
    models = patients(number, seed)
    with run.progress.task("volume of cytarabine"):
        volume, share = calibrated_volume(models, float(expected["leukopenia_none"]["value"]))
    models = with_volume(models, volume)
    found = [measured("volume", volume, "L"), judged_between("leukopenia_none", share, expected, quick)]
    with run.progress.task("solver"):
        found.append(judged_most("solver_difference", solver_difference(models), expected, False))
    with run.progress.task("timings"):
        timings = try_all(models)
    draw_timings(run, timings)
    found += of_timings(timings, expected, quick)
    with run.progress.task("optimised schedules"):
        standard, plans = planned(models, QUICK_STEPS if quick else STEPS)
    found += of_plans(run, models, standard, plans, expected)
    with run.progress.task("another class of models"):
        found += of_plans_elsewhere(run, models, plans, seed)
    with run.progress.task("closed loop"):
        found += of_loop(run, volume, seed, expected, quick)
    return found


def judged_most(name: str, value: float, expected: Targets, quick: bool) -> Verdict:
    """At most its target; printed alone in a quick run."""
    one = expected[name]
    return measured(name, value) if quick else at_most(name, value, one["at_most"], one["unit"], one["source"])


def judged_least(name: str, value: float, expected: Targets, quick: bool) -> Verdict:
    """At least its target; printed alone in a quick run."""
    one = expected[name]
    return measured(name, value) if quick else at_least(name, value, one["at_least"], one["unit"], one["source"])


def judged_between(name: str, value: float, expected: Targets, quick: bool) -> Verdict:
    """Between its targets; printed alone in a quick run."""
    one = expected[name]
    if quick:
        return measured(name, value)
    return between(name, value, one["low"], one["high"], one["unit"], one["source"])


def solver_difference(models: LeukemiaMyelosuppression) -> float:
    """The largest difference in the logarithm of white cells of two patients over eight days of treatment."""
    few = jax.tree.map(lambda leaf: leaf[:2] if leaf.ndim else leaf, models)
    days = jnp.asarray([2.0, 4.0, 8.0])
    doses, vials = jnp.ones(len(SLOTS)), jnp.ones(len(SHORT.factor_days))
    fixed = simulate(few, SHORT, doses, vials)
    slow = eqx.filter_jit(adaptive)(few, SHORT, doses, vials, days).states.white
    at = np.searchsorted(np.asarray(fixed.days), np.asarray(days) - 1e-9)
    return float(np.abs(np.log(np.asarray(fixed.white)[at].T / np.asarray(slow))).max())


def of_timings(timings: list[Timing], expected: Targets, quick: bool) -> list[Verdict]:
    """Median nadirs and shares with leukopenia of every group, the order of the groups, PRE against POST."""
    groups = {name: [t for t in timings if t.group == name] for name in (NONE, SIMULTANEOUS, PRE, POST)}
    nadirs = {name: np.asarray([np.median(t.nadir) for t in found]) for name, found in groups.items()}
    none, with_it = nadirs[NONE][0], nadirs[SIMULTANEOUS][0]
    found = [
        judged_least("simultaneous_below_none", none - with_it, expected, quick),
        judged_least(
            "none_below_pre_and_post", min(np.median(nadirs[PRE]), np.median(nadirs[POST])) - none, expected, quick
        ),
        judged_least("timings", len(timings), expected, quick),
    ]
    for name, values in nadirs.items():
        found += [
            measured(f"nadir_{name}", np.median(values), "G/L"),
            measured(f"nadir_{name}_lowest", values.min(), "G/L"),
            measured(f"nadir_{name}_highest", values.max(), "G/L"),
            measured(f"days_below_1_{name}", np.median([np.median(t.duration) for t in groups[name]]), "day"),
        ]
        published = expected[f"leukopenia_{name}"]
        pooled = float(np.mean([t.leukopenia for t in groups[name]]))
        found.append(measured(f"leukopenia_{name}_all_timings", pooled, "1", published["source"]))
        found.append(measured(f"leukopenia_{name}_published", published["value"], "1", published["source"]))
    pairs = nadirs[PRE][:, None] - nadirs[POST][None, :]
    found.append(measured("simultaneous_overlapping_otherwise", np.median(nadirs[SIMULTANEOUS][1:]), "G/L"))
    found.append(measured("pre_above_post_share_of_pairs", np.mean(pairs > 0.0)))
    found.append(measured("pre_minus_post_nadir", np.median(nadirs[PRE]) - np.median(nadirs[POST]), "G/L"))
    return found


def planned(models: LeukemiaMyelosuppression, steps: int) -> tuple[Plans, dict[str, Plans]]:
    """The standard, and the schedules that are optimised: for each patient, and one for all."""
    standard = judged(models, FULL_DOSES, standard_factor(True))
    limit = np.full(models.baseline.size, BLASTS)
    return standard, {
        "optimised": optimised(models, limit, steps=steps),
        "unchanged_cytarabine": optimised(models, limit, steps=steps // 2, fixed_doses=True),
        "unchanged_blasts": optimised(models, SAME * standard.blasts, steps=steps),
        "common": optimised(models, limit, steps=steps, common=True),
        "common_unchanged_cytarabine": optimised(models, limit, steps=steps // 2, fixed_doses=True, common=True),
    }


def of_plans(
    run: Run, models: LeukemiaMyelosuppression, standard: Plans, plans: Mapping[str, Plans], expected: Targets
) -> list[Verdict]:
    """The optimised schedules against full cytarabine with lenograstim after it."""
    keeps = standard.blasts < BLASTS
    broken = sum(int((plan.blasts[keeps] > BLASTS * (1.0 + 1e-6)).sum()) for plan in plans.values())
    found = [
        judged_most("limit_broken", broken, expected, False),
        measured("blasts_below_5_standard", np.mean(keeps)),
        measured("nadir_standard", np.median(standard.nadir), "G/L"),
        measured("leukopenia_standard", standard.leukopenia),
        measured("blasts_standard", np.median(standard.blasts), "%"),
        measured("nadir_ratio_published", expected["nadir_ratio"]["value"], "1", expected["nadir_ratio"]["source"]),
        measured(
            "dose_reduction_published", expected["dose_reduction"]["value"], "1", expected["nadir_ratio"]["source"]
        ),
    ]
    none = judged(models, FULL_DOSES, standard_factor(False))
    for name, plan in plans.items():
        found += [
            *outcomes(name, plan, standard),
            measured(f"{name}_nadir_ratio_to_none", np.median(plan.nadir / none.nadir)),
            measured(f"{name}_dose_reduction", 1.0 - np.median(plan.cytarabine.mean(axis=1))),
            measured(f"{name}_vials", np.median(plan.factor.sum(axis=1))),
        ]
    found += over_common("", plans)
    draw_plans(run, standard, plans)
    run.write_json("plans.json", {name: _plain(plan) for name, plan in plans.items()})
    return found


def outcomes(name: str, plan: Plans, standard: Plans) -> list[Verdict]:
    """What a plan leads to, its nadir over that of the standard."""
    return [
        measured(f"{name}_nadir_ratio", np.median(plan.nadir / standard.nadir)),
        measured(f"{name}_leukopenia", plan.leukopenia),
        measured(f"{name}_blasts", np.median(plan.blasts), "%"),
        measured(f"{name}_blasts_below_5", np.mean(plan.blasts < BLASTS * (1.0 + 1e-6))),
    ]


def over_common(prefix: str, plans: Mapping[str, Plans]) -> list[Verdict]:
    """How much higher a personal plan keeps the nadir than the best schedule common to all: mean difference of ln W,
    with a 95 % interval over patients; with free doses and with cytarabine unchanged."""
    found = []
    for personal, common in (("optimised", "common"), ("unchanged_cytarabine", "common_unchanged_cytarabine")):
        own, shared = (np.log(plans[name].nadir) for name in (personal, common))
        gap = paired_bootstrap(own, shared, np.arange(own.size), rng=np.random.default_rng(0))
        name = f"{prefix}{personal}_over_common_log_nadir"
        found += [measured(name, gap.mean, "ln"), measured(f"{name}_low", gap.low, "ln")]
        found.append(measured(f"{name}_high", gap.high, "ln"))
    return found


def of_plans_elsewhere(
    run: Run, models: LeukemiaMyelosuppression, plans: Mapping[str, Plans], seed: int
) -> list[Verdict]:
    """The same schedules, unchanged, in another class of models that was fitted to the same readings."""
    other = retold(models, seed + OTHER)
    standard = judged(other.models, FULL_DOSES, standard_factor(True), other.law)
    moved = {name: judged(other.models, plan.cytarabine, plan.factor, other.law) for name, plan in plans.items()}
    found = [
        measured("other_class_misfit_white", np.median(other.misfit_white)),
        measured("other_class_misfit_blasts", np.median(other.misfit_blasts)),
        measured("other_class_nadir_standard", np.median(standard.nadir), "G/L"),
        measured("other_class_leukopenia_standard", standard.leukopenia),
        measured("other_class_blasts_standard", np.median(standard.blasts), "%"),
        measured("other_class_blasts_below_5_standard", np.mean(standard.blasts < BLASTS)),
    ]
    for name, plan in moved.items():
        found += outcomes(f"other_class_{name}", plan, standard)
    draw_elsewhere(run, plans, moved)
    return found + over_common("other_class_", moved)


def _plain(plan: Plans) -> dict[str, list]:
    return {name: np.asarray(getattr(plan, name)).tolist() for name in ("cytarabine", "factor", "nadir", "blasts")}


def of_loop(run: Run, volume: float, seed: int, expected: Targets, quick: bool) -> list[Verdict]:
    """Closed loop against open loop and standard, in mean utility (minus the loss), paired over patients."""
    number = QUICK_TRUTHS if quick else int(expected["loop_patients"]["value"])
    cloud = tabulated(patients(QUICK_CLOUD if quick else CLOUD, seed + 1, volume))
    models = patients(number, seed + 2, volume)
    other = retold(models, seed + OTHER + 1)
    truth, elsewhere = tabulated(models), tabulated(other.models, other.law)
    outcome = compared(cloud, truth, informative=True, seed=seed)
    blind = compared(cloud, truth, informative=False, seed=seed)
    difference = float(np.abs(blind.closed_loop - blind.open_loop).max())
    found = [
        measured("loop_patients", number),
        *loop_lines("", outcome, seed, None if quick else expected["loop_gain"]),
        judged_most("loop_uninformative", difference, expected, False),
    ]
    outcome_elsewhere = compared(cloud, elsewhere, informative=True, seed=seed)
    found += loop_lines("other_class_", outcome_elsewhere, seed, None)
    draw_loop(run, {"the planner's class": outcome, "another class": outcome_elsewhere})
    run.write_json("loop.json", {"own": _losses(outcome), "other_class": _losses(outcome_elsewhere)})
    return found


def loop_lines(prefix: str, outcome: Outcome, seed: int, target: Mapping | None) -> list[Verdict]:
    """Gains of the closed loop with 95 % intervals over patients, and the losses."""
    found: list[Verdict] = []
    patients_ = np.arange(outcome.closed_loop.size)
    for name, other in (("open_loop", outcome.open_loop), ("standard", outcome.standard)):
        gap = paired_bootstrap(other, outcome.closed_loop, patients_, rng=np.random.default_rng(seed))
        label = f"{prefix}closed_loop_over_{name}"
        found += [measured(label, gap.mean, "day"), measured(f"{label}_high", gap.high, "day")]
        low = f"{label}_low"
        found.append(
            measured(low, gap.low, "day")
            if target is None
            else Verdict(low, gap.low, "day", f"> {target['above']:g}", gap.low > target["above"], target["source"])
        )
    return [
        *found,
        measured(f"{prefix}loop_share_replanned", outcome.changed),
        measured(f"{prefix}loop_loss_standard", outcome.standard.mean(), "day"),
        measured(f"{prefix}loop_loss_open", outcome.open_loop.mean(), "day"),
        measured(f"{prefix}loop_loss_closed", outcome.closed_loop.mean(), "day"),
        measured(f"{prefix}loop_loss_perfect", outcome.perfect.mean(), "day"),
    ]


def _losses(outcome: Outcome) -> dict[str, list[float]]:
    return {name: getattr(outcome, name).tolist() for name in ("standard", "open_loop", "closed_loop", "perfect")}
