"""Neoadjuvant breast schedules: all 128 tried, and whether controllers find the best of them without trying all.

`tumortwin reproduce nac128`. `runtime=ci`: fewer draws and coarser steps, nothing judged but limits and doses.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from omegaconf import DictConfig
from scipy.stats import spearmanr

from experiments.nac128.figures import draw_controllers, draw_levels
from experiments.nac128.model import AFTER, ANTHRACYCLINE, STEPS, burden, draws
from experiments.nac128.schedules import LOCKED, NAMES, SHORTEST, Neoadjuvant, PairInterval, every_schedule
from tumortwin.control import (
    AbstractConstraint,
    AbstractController,
    AbstractObjective,
    BranchAndBound,
    CovarianceAdaptation,
    Curve,
    CVaR,
    Exhaustive,
    LockOut,
    Nearest,
    PlanningProblem,
    RelaxAndRound,
    ScipyGradient,
    judged_vectors,
    losses,
    optimize,
)
from tumortwin.runs import Run, Verdict, at_most, measured

QUICK_DRAWS, QUICK_STEPS = 16, 120
FRESH = 256  # draws that no schedule was chosen with
FIXED_DAY = 233.0  # [day], 21 days after the last dose of the longest schedule
LIMITS: dict[str, tuple[AbstractConstraint, ...]] = {"free": (), "limited": (PairInterval(), LockOut(*LOCKED))}


class LastLogBurden(AbstractObjective):
    """ln N on the last day of the curve: 21 days after the last dose, whenever that is."""

    name: ClassVar[str] = "log_burden_after_last_dose"
    gain_unit: ClassVar[str] = "ln"

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        return jnp.log(curve.burden[-1])


@dataclasses.dataclass(frozen=True)
class Found:
    """What one controller chose: the decision, its risk, what it took."""

    vector: np.ndarray
    risk: float
    seconds: float
    evaluations: int
    gradients: int


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The landscape of all schedules, then every controller with and without limits."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    number, steps = (QUICK_DRAWS, QUICK_STEPS) if quick else (int(expected["draws"]["value"]), STEPS)
    seed = int(expected["seed"]["value"])
    problem = PlanningProblem(
        functools.partial(burden, steps=steps),
        draws(number, seed),
        Neoadjuvant(),
        LastLogBurden(),
        CVaR(0.8),
        (),
        sequential=False,
    )
    every = every_schedule()
    with run.progress.task("all schedules"):
        risks = judged_vectors(problem, every)[0]
    found = [*of_schedules(problem, every, risks, expected, quick), *of_landscape(every, risks)]
    found += of_fixed_day(problem, every, risks, steps)
    draw_levels(run, every, risks)
    chosen: dict[str, dict[str, Found]] = {}
    for name, limits in LIMITS.items():
        inside = problem.with_constraints(limits)
        with run.progress.task(f"controllers, {name}"):
            chosen[name] = {c: controlled(inside, c, seed) for c in SEARCHES}
        admissible = inside.region.keeps(every)
        found += of_controllers(name, chosen[name], risks, every, admissible, expected, quick)
        best = every[admissible][np.argmin(risks[admissible])]
        run.say(f"{name}: {problem.parametrization.sentence(jnp.asarray(best))}")
        found += of_fresh(name, problem, best, every[admissible], seed)
    draw_controllers(run, chosen)
    run.write_json(
        "schedules.json",
        [dict(zip(NAMES, v.tolist(), strict=True)) | {"risk": float(r)} for v, r in zip(every, risks, strict=True)],
    )
    return found


CONTROLLERS: dict[str, AbstractController] = {
    "exhaustive": Exhaustive(),
    "gradient": RelaxAndRound(pairs=False),  # descents of the relaxation, rounded, then single steps
    "relax_and_round": RelaxAndRound(),
    # The relaxed risk is not convex, a relaxed minimum no bound: nodes up to .5 ln above the best are split too.
    "branch_and_bound": BranchAndBound(max_nodes=60, gap=-0.5, max_iterations=20),
    "covariance_adaptation": CovarianceAdaptation(evaluations=300, restarts=3),
}
BASELINE = "rounding_alone"
"""The best relaxed decision, rounded to the nearest admissible one: no controller of whole numbers, but judged too."""
SEARCHES = {BASELINE: ScipyGradient(), **CONTROLLERS}


def controlled(problem: PlanningProblem, name: str, seed: int) -> Found:
    """The whole decision that one search finds, compilation included in its seconds."""
    controller, started = SEARCHES[name], time.perf_counter()
    if isinstance(controller, ScipyGradient):
        relaxed = dataclasses.replace(problem, parametrization=Neoadjuvant(whole=False))
        plan = optimize(relaxed, controller, key=jax.random.key(seed))
        vector = Nearest.of(problem.region.bounded()).whole(np.asarray(plan.variables, dtype=float))
        assert vector is not None
        risk = float(judged_vectors(problem, vector[None])[0][0])
    else:
        plan = optimize(problem, controller, key=jax.random.key(seed))
        vector, risk = np.asarray(plan.variables, dtype=float), float(plan.convergence["risk"])
    said = plan.convergence
    solved = next((int(said[k]) for k in ("solved", "decisions_tried", "value_evaluations", "nodes") if k in said), 1)
    return Found(vector, risk, time.perf_counter() - started, solved, int(said.get("gradient_evaluations", 0)))


def of_schedules(
    problem: PlanningProblem, every: np.ndarray, risks: np.ndarray, expected: Mapping[str, dict], quick: bool
) -> list[Verdict]:
    """Their number, their cumulative doses, and the error of the steps at the best and the worst."""
    totals = np.asarray([[*Neoadjuvant().cost(jnp.asarray(v)).values()] for v in every])
    finer = dataclasses.replace(problem, burden=functools.partial(burden, steps=2 * STEPS))
    ends = every[[np.argmin(risks), np.argmax(risks)]]
    error = np.abs(judged_vectors(finer, ends)[0] - risks[[np.argmin(risks), np.argmax(risks)]]).max()
    target, dose = expected["step_error"], expected["dose_difference"]
    return [
        measured("schedules", len(every)),
        at_most("dose_difference", np.ptp(totals, axis=0).max(), dose["at_most"], dose["unit"], dose["source"]),
        measured("step_error", error, "ln")
        if quick
        else at_most("step_error", error, target["at_most"], target["unit"], target["source"]),
    ]


def of_landscape(every: np.ndarray, risks: np.ndarray) -> list[Verdict]:
    """Best, worst, and the mean over all schedules of what each component changes."""
    found = [measured("risk_best", risks.min(), "ln"), measured("risk_worst", risks.max(), "ln")]
    for k, name in enumerate(NAMES):
        means = [risks[every[:, k] == level].mean() for level in np.unique(every[:, k])]
        found.append(measured(f"effect_{name}", means[-1] - means[0], "ln"))
    return found


def of_fixed_day(problem: PlanningProblem, every: np.ndarray, risks: np.ndarray, steps: int) -> list[Verdict]:
    """The same schedules judged on one calendar day: a later start must not look better for being later."""
    fixed = dataclasses.replace(problem, burden=functools.partial(burden, steps=steps, end=FIXED_DAY))
    on_day = judged_vectors(fixed, every)[0]
    late = every[:, NAMES.index("start")] > 0
    rank_correlation = spearmanr(risks, on_day)[0]
    return [
        measured("late_start_after_last_dose", risks[late].mean() - risks[~late].mean(), "ln"),
        measured("late_start_on_fixed_day", on_day[late].mean() - on_day[~late].mean(), "ln"),
        measured("fixed_day_best_is_late", float(late[np.argmin(on_day)])),
        measured("rank_correlation_of_the_two", rank_correlation),
    ]


def of_controllers(
    name: str,
    chosen: Mapping[str, Found],
    risks: np.ndarray,
    every: np.ndarray,
    admissible: np.ndarray,
    expected: Mapping[str, dict],
    quick: bool,
) -> list[Verdict]:
    """Regret as a share of (worst - best) of the admissible, limits looked at in the list of doses itself."""
    best, worst = risks[admissible].min(), risks[admissible].max()
    found = [measured(f"{name}_admissible", admissible.sum())]
    regret, broken = expected["regret"], expected["violations"]
    for controller, one in chosen.items():
        label, share = f"{name}_{controller}", (one.risk - best) / (worst - best)
        found += [
            measured(f"{label}_regret", share)
            if quick
            else at_most(f"{label}_regret", share, regret["at_most"], regret["unit"], regret["source"]),
            measured(f"{label}_evaluations", one.evaluations),
            measured(f"{label}_gradients", one.gradients),
            measured(f"{label}_seconds", one.seconds, "s"),
        ]
    wrong = sum(broken_limits(one.vector) for one in chosen.values()) if name == "limited" else 0
    whole = sum(not (np.abs(every - one.vector).max(axis=1) < 1e-9).any() for one in chosen.values())
    return [*found, at_most(f"{name}_violations", wrong + whole, broken["at_most"], broken["unit"], broken["source"])]


def broken_limits(vector: np.ndarray) -> int:
    """Limits that a schedule breaks, counted dose by dose."""
    courses = Neoadjuvant().courses(jnp.asarray(vector))
    given = {agent: np.sort(np.asarray(c.times)[np.asarray(c.doses) > 0.0]) for agent, c in courses.items()}
    short = int((np.diff(given[ANTHRACYCLINE]) < SHORTEST - 1e-9).sum())
    closed = sum(int(((days >= LOCKED[0]) & (days <= LOCKED[1])).sum()) for days in given.values())
    return short + closed


def of_fresh(name: str, problem: PlanningProblem, best: np.ndarray, admissible: np.ndarray, seed: int) -> list[Verdict]:
    """The best schedule on draws it was not chosen with: its place there, and what choosing for each draw would add."""
    fresh = problem.with_draws(draws(FRESH, seed + 1))
    risks = judged_vectors(fresh, admissible)[0]
    at = int((np.abs(admissible - best).max(axis=1) < 1e-9).argmax())
    each = np.stack([np.asarray(losses(fresh, jnp.asarray(v))[0]) for v in admissible])
    return [
        measured(f"{name}_fresh_regret", (risks[at] - risks.min()) / np.ptp(risks)),
        measured(f"{name}_personal_gain", np.mean(each[at] - each.min(axis=0)), "ln"),
        measured(f"{name}_share_of_draws_with_same_best", np.mean(each.argmin(axis=0) == at)),
        measured(f"{name}_day_of_judgement", float(Neoadjuvant().schedule(jnp.asarray(best)).end) + AFTER, "day"),
    ]
