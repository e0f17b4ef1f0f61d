"""Adaptive therapy of the published Lotka-Volterra patient: exact daily decisions, then plans from what visits teach.

`tumortwin reproduce gallagher2024`. The seed and every target stand in `expected.json`, fixed before the experiment was
run. `runtime=ci`: few patients and a short training.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig

from experiments.gallagher2024 import daily
from experiments.gallagher2024.course import PARTICLES, Courses, replanned, ruled, scheduled
from experiments.gallagher2024.elsewhere import Rules, days_under_record_rule, under_clones
from experiments.gallagher2024.figures import draw_courses, draw_daily, draw_days, draw_policy
from experiments.gallagher2024.judging import RISK, Judge, Targets, described
from experiments.gallagher2024.learned import QUICK_TRAINING, TRAINING, NetworkPolicy, VirtualPatients
from experiments.gallagher2024.planner import SchedulePlanner, open_loop, polished
from experiments.gallagher2024.population import NOISE, PUBLISHED, VISITS, Truths, drawn, patients
from experiments.gallagher2024.thresholds import best_rule
from tumortwin.control import ConstantPolicy, HysteresisPolicy, Mean, Ppo
from tumortwin.runs import Run, Verdict, measured


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is simulated."""

    nodes: int
    evaluations: int
    closed_loop: int
    compared: int
    design: int
    polish: int
    training: Ppo


FULL = Sizes(daily.NODES, 160, 50, 80, 256, 80, TRAINING)
QUICK = Sizes(101, 160, 6, 6, 64, 4, QUICK_TRAINING)


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The parts: every day and everything known; closed loop against open loop; CVaR plan against common rules; and all
    of it on patients of another class of models."""
    quick = bool(config.runtime.quick)
    expected: Targets = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    sizes, key = (QUICK if quick else FULL), jax.random.key(int(expected["seed"]["value"]))
    judge = Judge(expected, quick, np.random.default_rng(int(expected["seed"]["value"])))
    found = every_day(run, judge, sizes, _child(key, "daily"))
    prior = drawn(PARTICLES, key=_child(key, "prior"))
    closed, lines = closed_loop(run, judge, sizes, prior, _child(key, "closed"))
    found += lines
    compared, lines = against_thresholds(run, judge, sizes, prior, _child(key, "compared"))
    found += lines
    elsewhere, lines = other_class(run, judge, closed, compared)
    found += lines
    draw_courses(run, closed.courses)
    draw_days(run, {"closed_loop": closed.courses, "compared": compared.courses, "another_class": elsewhere})
    return found


def _child(key: Array, name: str) -> Array:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def every_day(run: Run, judge: Judge, sizes: Sizes, key: Array) -> list[Verdict]:
    """The published patient, exactly."""
    courses = {name: daily.under(PUBLISHED, policy) for name, policy in daily.RULES.items()}
    found = [judge(name, int(course.days), small=True) for name, course in courses.items()]
    with run.progress.task("dynamic programming"):
        best = daily.dynamic_programming(PUBLISHED, sizes.nodes)
    greedy = daily.under_margin(PUBLISHED, jnp.ones(daily.KNOTS))
    threshold, threshold_days = daily.best_threshold(PUBLISHED)
    with run.progress.task("optimizer"):
        margins, optimizer_days = daily.best_margins(PUBLISHED, sizes.evaluations, key)
    days = int(best.course.days)
    found += [
        judge("dynamic_programming", days, small=True),
        measured("dynamic_programming_on_the_grid", best.value, "day"),
        measured("greedy", int(greedy.days), "day"),
        measured("optimizer", optimizer_days, "day"),
        judge("optimizer_over_dynamic_programming", optimizer_days / days, "1", small=True),
        measured("best_threshold", threshold_days, "day"),
        measured("best_threshold_share_of_baseline", threshold),
        judge("best_threshold_over_dynamic_programming", threshold_days / days, "1", small=True),
    ]
    run.write_json("margins.json", {"margins": margins.tolist(), "threshold": threshold})
    draw_policy(run, best)
    single = daily.under(PUBLISHED, HysteresisPolicy(threshold, threshold))
    draw_daily(run, courses | {"best_single_threshold": single, "dynamic_programming": best.course})
    return found


@dataclasses.dataclass(frozen=True)
class Part:
    """The patients of a part, the rules that were tried on them, and what became of them by rule."""

    truths: Truths
    rules: Rules
    courses: Mapping[str, Courses]


def closed_loop(run: Run, judge: Judge, sizes: Sizes, prior: Array, key: Array) -> tuple[Part, list[Verdict]]:
    """Plans renewed at every visit against the schedule known beforehand and continuous drug, in mean days."""
    truths = patients(sizes.closed_loop, VISITS, key=_child(key, "patients"))
    planner, moves = SchedulePlanner(Mean()), _child(key, "moves")
    with run.progress.task("open loop"):
        plan = open_loop(planner, prior, VISITS)
        better, changes = polished(plan, Mean(), draws=256, most=sizes.polish, key=_child(key, "polish"))
    rules = {
        "closed_loop": lambda truths: replanned(truths, planner, prior, NOISE, key=moves),
        "open_loop": lambda truths: scheduled(truths, plan),
        "polished_open_loop": lambda truths: scheduled(truths, better),
        "continuous": lambda truths: ruled(truths, ConstantPolicy(1.0), NOISE),
    }
    with run.progress.task("closed loop"):
        courses = {name: rule(truths) for name, rule in rules.items()}
        few = jax.tree.map(lambda leaf: leaf[:4], truths)
        blind = replanned(few, planner, prior, np.inf, key=moves)
    found = [judge("closed_loop_patients", truths.size, "1")]
    found += described("", courses)
    for other in ("open_loop", "polished_open_loop", "continuous"):
        found += judge.paired(f"closed_loop_minus_{other}", courses["closed_loop"].days, courses[other].days)
    off = np.abs(blind.days - courses["open_loop"].days[:4]).max()
    return Part(truths, rules, courses), [
        *found,
        judge("days_between_uninformed_and_open_loop", off, small=True),
        measured("open_loop_changes_by_local_search", changes),
    ]


def against_thresholds(run: Run, judge: Judge, sizes: Sizes, prior: Array, key: Array) -> tuple[Part, list[Verdict]]:
    """Plans under CVaR against the best rules and the best schedule that are the same for all, and a learned policy at
    the budget of a small plan."""
    design = patients(sizes.design, VISITS, key=_child(key, "design"))
    planner, small = SchedulePlanner(RISK), SchedulePlanner(RISK, draws=16, first=1)
    with run.progress.task("common rules"):
        single, single_by_mean, rule = (
            best_rule(design, risk, widths) for risk, widths in ((RISK, 0.0), (Mean(), 0.0), (RISK, 0.3))
        )
        unpolished = open_loop(planner, prior, VISITS)
        common, _ = polished(unpolished, RISK, draws=256, most=sizes.polish, key=_child(key, "polish"))
    truths = patients(sizes.compared, VISITS, key=_child(key, "patients"))
    with run.progress.task("learning"):
        trained = sizes.training.learn(VirtualPatients(), key=_child(key, "learning"))
    moves = _child(key, "moves")
    rules = {
        "cvar_plan": lambda truths: replanned(truths, planner, prior, NOISE, key=moves),
        "small_cvar_plan": lambda truths: replanned(truths, small, prior, NOISE, key=moves),
        "ppo": lambda truths: ruled(truths, NetworkPolicy(trained.policy), NOISE),
        "best_threshold": lambda truths: ruled(truths, single, NOISE),
        "best_threshold_by_mean": lambda truths: ruled(truths, single_by_mean, NOISE),
        "best_stop_and_restart": lambda truths: ruled(truths, rule, NOISE),
        "best_schedule": lambda truths: scheduled(truths, common),
        "continuous": lambda truths: ruled(truths, ConstantPolicy(1.0), NOISE),
    }
    with run.progress.task("plans under CVaR"):
        courses = {name: treat(truths) for name, treat in rules.items()}
    found = [
        measured("visit_threshold", float(single.stop)),
        measured("visit_threshold_by_mean", float(single_by_mean.stop)),
        measured("visit_stop", float(rule.stop)),
        measured("visit_restart", float(rule.restart)),
        *described("visits_", courses),
    ]
    for other in ("best_threshold", "best_threshold_by_mean", "best_stop_and_restart", "best_schedule", "continuous"):
        found += judge.paired(f"cvar_plan_minus_{other}", courses["cvar_plan"].days, courses[other].days)
        found += judge.paired_tail(f"cvar_plan_minus_{other}", courses["cvar_plan"].days, courses[other].days)
    return Part(truths, rules, courses), found + learner(run, judge, courses, small, trained.steps)


def learner(
    run: Run, judge: Judge, courses: Mapping[str, Courses], small: SchedulePlanner, steps: int
) -> list[Verdict]:
    """Whether the learner loses: at equal simulation budget, to the full plan, and to the best threshold."""
    days, found = courses["ppo"].days, []
    for other in ("small_cvar_plan", "cvar_plan", "best_threshold"):
        lines = judge.paired(f"ppo_minus_{other}", days, courses[other].days)
        lines += judge.paired_tail(f"ppo_minus_{other}", days, courses[other].days)
        lost = lines[2].value < 0.0
        found += [*lines, measured(f"ppo_loses_to_{other}", float(lost))]
        run.say(
            f"PPO {'LOSES to' if lost else 'does not lose to'} {other}: {lines[0].value:+.0f} days "
            f"({lines[1].value:+.0f} to {lines[2].value:+.0f})"
        )
    return [
        *found,
        measured("ppo_simulated_intervals", steps),
        measured("small_cvar_plan_simulated_intervals_a_patient", small.imagined_intervals(VISITS)),
        measured("cvar_plan_simulated_intervals_a_patient", SchedulePlanner(RISK).imagined_intervals(VISITS)),
    ]


def other_class(run: Run, judge: Judge, closed: Part, compared: Part) -> tuple[Mapping[str, Courses], list[Verdict]]:
    """The same rules on patients of another class of models that were fitted to the same readings."""
    found, shown = [], {}
    for prefix, part, plan in (("clones_", closed, "closed_loop"), ("clones_visits_", compared, "cvar_plan")):
        rules = {name: rule for name, rule in part.rules.items() if name not in ("small_cvar_plan", "open_loop")}
        with run.progress.task(f"{plan.replace('_', ' ')}, another class of models"):
            told, courses = under_clones(part.truths, rules)
        before, after = days_under_record_rule(part.truths, told)
        found += [
            measured(f"{prefix}misfit", np.median(told.misfit)),
            measured(f"{prefix}misfit_largest", told.misfit.max()),
            measured(f"{prefix}readings", np.median(told.readings)),
            measured(f"{prefix}record_rule_mean", after.mean(), "day"),
            measured(f"{prefix}record_rule_mean_in_the_class_of_the_record", before.mean(), "day"),
            *described(prefix, courses),
        ]
        for other in [name for name in rules if name != plan]:
            found += judge.paired(f"{prefix}{plan}_minus_{other}", courses[plan].days, courses[other].days)
            found += judge.paired_tail(f"{prefix}{plan}_minus_{other}", courses[plan].days, courses[other].days)
        shown |= {f"{prefix}{name}": course for name, course in courses.items()}
    return shown, found
