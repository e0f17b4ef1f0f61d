"""Adaptive therapy of the published Lotka-Volterra patient: exact daily decisions, then plans from what visits teach.

`tumortwin reproduce gallagher2024`. The seed and every target stand in `expected.json`, fixed before the experiment was
run. `runtime=ci`: few patients and a short training.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig

from experiments.gallagher2024 import daily
from experiments.gallagher2024.course import PARTICLES, Courses, replanned, ruled, scheduled
from experiments.gallagher2024.figures import draw_courses, draw_daily, draw_days, draw_policy
from experiments.gallagher2024.learned import QUICK_TRAINING, TRAINING, NetworkPolicy, VirtualPatients
from experiments.gallagher2024.planner import SchedulePlanner, open_loop, polished
from experiments.gallagher2024.population import NOISE, PUBLISHED, VISIT, VISITS, drawn, patients
from experiments.gallagher2024.thresholds import best_rule
from tumortwin.control import ConstantPolicy, CVaR, HysteresisPolicy, Mean, Ppo
from tumortwin.metrics import paired_bootstrap
from tumortwin.runs import Run, Verdict, at_least, at_most, between, measured

RISK = CVaR(0.8)
RESAMPLES = 2000


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

Targets = Mapping[str, Mapping[str, Any]]


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The three parts: every day and everything known; closed loop against open loop; CVaR plan against thresholds."""
    quick = bool(config.runtime.quick)
    expected: Targets = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    sizes, key = (QUICK if quick else FULL), jax.random.key(int(expected["seed"]["value"]))
    judge = _Judge(expected, quick, np.random.default_rng(int(expected["seed"]["value"])))
    found = every_day(run, judge, sizes, _child(key, "daily"))
    prior = drawn(PARTICLES, key=_child(key, "prior"))
    closed, lines = closed_loop(run, judge, sizes, prior, _child(key, "closed"))
    found += lines
    compared, lines = against_thresholds(run, judge, sizes, prior, _child(key, "compared"))
    found += lines
    draw_courses(run, closed)
    draw_days(run, {"closed_loop": closed, "compared": compared})
    return found


def _child(key: Array, name: str) -> Array:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


@dataclasses.dataclass(frozen=True)
class _Judge:
    """Verdicts by the targets; what a small run cannot promise is only measured."""

    expected: Targets
    quick: bool
    rng: np.random.Generator

    def __call__(self, name: str, value: Any, unit: str = "day", *, small: bool = False) -> Verdict:
        one = self.expected.get(name)
        if one is None or (self.quick and not small):
            return measured(name, value, unit)
        source = str(one["source"])
        if "low" in one:
            return between(name, value, one["low"], one["high"], unit, source)
        if "at_least" in one:
            return at_least(name, value, one["at_least"], unit, source)
        return at_most(name, value, one["at_most"], unit, source)

    def paired(self, name: str, days: np.ndarray, other: np.ndarray) -> list[Verdict]:
        """The mean gain in days of the same patients, with its 95 % interval over patients."""
        gap = paired_bootstrap(days, other, np.arange(days.size), rng=self.rng)
        return [self(name, gap.mean), self(f"{name}_low", gap.low), self(f"{name}_high", gap.high)]

    def paired_tail(self, name: str, days: np.ndarray, other: np.ndarray) -> list[Verdict]:
        """The gain of the mean of the worst fifth, with its 95 % interval over patients."""
        rows = self.rng.integers(0, days.size, (RESAMPLES, days.size))
        tail = jax.vmap(RISK)
        gains = np.asarray(tail(-jnp.asarray(other)[rows]) - tail(-jnp.asarray(days)[rows]))
        low, high = np.quantile(gains, [0.025, 0.975])
        name = f"{name}_worst_fifth"
        return [
            self(name, worst_fifth(days) - worst_fifth(other)),
            self(f"{name}_low", low),
            self(f"{name}_high", high),
        ]


def worst_fifth(days: np.ndarray) -> float:
    """The mean of the shortest fifth: minus the CVaR of minus the days."""
    return -float(RISK(-jnp.asarray(days)))


def every_day(run: Run, judge: _Judge, sizes: Sizes, key: Array) -> list[Verdict]:
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


def closed_loop(
    run: Run, judge: _Judge, sizes: Sizes, prior: Array, key: Array
) -> tuple[dict[str, Courses], list[Verdict]]:
    """Plans renewed at every visit against the schedule known beforehand and continuous drug, in mean days."""
    truths = patients(sizes.closed_loop, VISITS, key=_child(key, "patients"))
    planner = SchedulePlanner(Mean())
    with run.progress.task("open loop"):
        plan = open_loop(planner, prior, VISITS)
        better, changes = polished(plan, Mean(), draws=256, most=sizes.polish, key=_child(key, "polish"))
    with run.progress.task("closed loop"):
        courses = {
            "closed_loop": replanned(truths, planner, prior, NOISE, key=_child(key, "moves")),
            "open_loop": scheduled(truths, plan),
            "polished_open_loop": scheduled(truths, better),
            "continuous": ruled(truths, ConstantPolicy(1.0), NOISE),
        }
        few = jax.tree.map(lambda leaf: leaf[:4], truths)
        blind = replanned(few, planner, prior, np.inf, key=_child(key, "moves"))
    found = [judge("closed_loop_patients", truths.size, "1")]
    found += described("", courses)
    for other in ("open_loop", "polished_open_loop", "continuous"):
        found += judge.paired(f"closed_loop_minus_{other}", courses["closed_loop"].days, courses[other].days)
    off = np.abs(blind.days - courses["open_loop"].days[:4]).max()
    return courses, [
        *found,
        judge("days_between_uninformed_and_open_loop", off, small=True),
        measured("open_loop_changes_by_local_search", changes),
    ]


def against_thresholds(
    run: Run, judge: _Judge, sizes: Sizes, prior: Array, key: Array
) -> tuple[dict[str, Courses], list[Verdict]]:
    """Plans under CVaR against the best fixed thresholds, and a learned policy at the budget of a small plan."""
    design = patients(sizes.design, VISITS, key=_child(key, "design"))
    with run.progress.task("thresholds"):
        single, single_by_mean, rule = (
            best_rule(design, risk, widths) for risk, widths in ((RISK, 0.0), (Mean(), 0.0), (RISK, 0.3))
        )
    truths = patients(sizes.compared, VISITS, key=_child(key, "patients"))
    with run.progress.task("learning"):
        trained = sizes.training.learn(VirtualPatients(), key=_child(key, "learning"))
    planner, small = SchedulePlanner(RISK), SchedulePlanner(RISK, draws=16, first=1)
    with run.progress.task("plans under CVaR"):
        moves = _child(key, "moves")
        courses = {
            "cvar_plan": replanned(truths, planner, prior, NOISE, key=moves),
            "small_cvar_plan": replanned(truths, small, prior, NOISE, key=moves),
            "ppo": ruled(truths, NetworkPolicy(trained.policy), NOISE),
            "best_threshold": ruled(truths, single, NOISE),
            "best_threshold_by_mean": ruled(truths, single_by_mean, NOISE),
            "best_stop_and_restart": ruled(truths, rule, NOISE),
            "continuous": ruled(truths, ConstantPolicy(1.0), NOISE),
        }
    found = [
        measured("visit_threshold", float(single.stop)),
        measured("visit_threshold_by_mean", float(single_by_mean.stop)),
        measured("visit_stop", float(rule.stop)),
        measured("visit_restart", float(rule.restart)),
        *described("visits_", courses),
    ]
    for other in ("best_threshold", "best_threshold_by_mean", "best_stop_and_restart", "continuous"):
        found += judge.paired(f"cvar_plan_minus_{other}", courses["cvar_plan"].days, courses[other].days)
        found += judge.paired_tail(f"cvar_plan_minus_{other}", courses["cvar_plan"].days, courses[other].days)
    return courses, found + learner(run, judge, courses, small, trained.steps)


def learner(
    run: Run, judge: _Judge, courses: Mapping[str, Courses], small: SchedulePlanner, steps: int
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


def described(prefix: str, courses: Mapping[str, Courses]) -> list[Verdict]:
    """Mean, worst fifth, share without progression at the horizon, and drug of every rule."""
    found = []
    for name, course in courses.items():
        found += [
            measured(f"{prefix}{name}_mean", course.days.mean(), "day"),
            measured(f"{prefix}{name}_worst_fifth", worst_fifth(course.days), "day"),
            measured(f"{prefix}{name}_share_at_horizon", np.mean(course.days >= VISIT * VISITS)),
            measured(f"{prefix}{name}_drug_share", course.drug_share),
        ]
        if np.isfinite(course.least_effective):
            found.append(measured(f"{prefix}{name}_least_effective_particles", course.least_effective))
    return found
