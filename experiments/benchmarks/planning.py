"""Plans a second on the ODE twin, gradients against CMA-ES at equal accuracy; and the time of every study of plans.

The twin is that of `experiments/chaudhuri2023`: logistic growth and linear-quadratic kill in closed form, 64 posterior
draws a patient, CVaR .8 of the time to progression, weekly fraction doses. A plan counts when its CVaR is within
`ACCURACY` of the best that any of the searches finds when it runs to its end.
"""

import dataclasses
import datetime
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.chaudhuri2023.cohort import Bank, as_draws, patients, posteriors, resampled
from experiments.chaudhuri2023.model import LOGISTIC, START
from experiments.chaudhuri2023.plans import SETS, STANDARD_PLAN, STARTS, Limits, problem_of
from tumortwin.control import (
    AbstractController,
    CovarianceAdaptation,
    PlanningProblem,
    PlanVariables,
    ProjectedGradient,
    ScipyGradient,
    plan_each,
)
from tumortwin.runs import Verdict, list_runs, measured, read_json

ACCURACY = 0.05  # [day] of CVaR above the best that is known
SEED, MEMBERS, DRAWS = 20231, 8192, 64
PATIENTS, QUICK_PATIENTS, SIDE_BY_SIDE = 5, 2, 100
CONTROLLERS: dict[str, AbstractController] = {
    "projected_gradient": ProjectedGradient(PlanVariables(STANDARD_PLAN, START), tolerance=1e-3, max_gradients=200),
    "slsqp": ScipyGradient(),
    "covariance_adaptation": CovarianceAdaptation(evaluations=3000),
}
"""Gradients, and the search without."""

STUDIES = (
    "chaudhuri2023",
    "gallagher2024",
    "zhang2022_control",
    "nac128",
    "jost2020",
    "maeve_combination",
    "glioma_schedule",
)


@dataclasses.dataclass(frozen=True)
class Reached:
    """The lowest risk, the seconds until it was within reach of `goal`, and the solves of all draws until then."""

    risk: float
    wall: float
    cpu: float
    solves: int


def reach(problem: PlanningProblem, controller: AbstractController, goal: float) -> Reached:
    """Runs a controller until its best risk is at most `goal`, or to its end."""
    wall, cpu = time.perf_counter(), time.process_time()
    state = controller.init(problem, key=jax.random.key(SEED))
    while not controller.terminate(problem, state) and not controller.info(state)["risk"] <= goal:
        state = controller.step(problem, state)
    said = controller.info(state)
    solves = int(said.get("gradient_evaluations", 0)) + int(said.get("value_evaluations", 0))
    return Reached(said["risk"], time.perf_counter() - wall, time.process_time() - cpu, solves)


def plans(quick: bool) -> Iterator[Verdict]:
    """Plans a second of each search, one patient at a time, and of all patients side by side."""
    rng = np.random.default_rng(SEED)
    who = patients(SIDE_BY_SIDE, True, LOGISTIC, rng)
    draws = resampled(posteriors(Bank.of(MEMBERS, True, rng), who.readings), DRAWS, rng)
    yield measured("plans_accuracy", ACCURACY, "day")
    for limits in SETS:
        yield from one_by_one(limits, draws, QUICK_PATIENTS if quick else PATIENTS)
        yield from side_by_side(limits, draws)


def one_by_one(limits: Limits, draws: dict[str, np.ndarray], size: int) -> Iterator[Verdict]:
    """Every search on the same patients, in turn, each once before so that nothing is compiled on the clock."""
    found: dict[str, list[Reached]] = {name: [] for name in CONTROLLERS}
    short: dict[str, list[float]] = {name: [] for name in CONTROLLERS}
    for patient in range(size):
        own = as_draws({name: value[patient] for name, value in draws.items()})
        problem = problem_of(limits).with_draws(own)
        ends = {name: reach(problem, controller, -math.inf).risk for name, controller in CONTROLLERS.items()}
        best = min(ends.values())
        for name, controller in CONTROLLERS.items():
            found[name].append(reach(problem, controller, best + ACCURACY))
            short[name].append(found[name][-1].risk - best)
    seconds = {name: sum(each.wall for each in runs) for name, runs in found.items()}
    for name, runs in found.items():
        label = f"plans_{limits.name}_{name}"
        held = np.asarray(short[name]) <= ACCURACY
        yield measured(f"{label}_per_second", held.sum() / seconds[name], "1/s")
        yield measured(f"{label}_share_within_accuracy", held.mean())
        yield measured(f"{label}_worst_short_of_best", max(short[name]), "day")
        yield measured(f"{label}_solves_median", np.median([each.solves for each in runs]))
    for name in ("projected_gradient", "slsqp"):
        ratio = seconds["covariance_adaptation"] / seconds[name]
        yield measured(f"plans_{limits.name}_covariance_adaptation_over_{name}_seconds", ratio)


def side_by_side(limits: Limits, draws: dict[str, np.ndarray]) -> Iterator[Verdict]:
    """All patients in one program, to the end of every descent; held against four times the steps."""
    problem, all_draws = problem_of(limits), as_draws(draws)

    def planned(steps: int, tolerance: float) -> Any:
        return plan_each(problem, all_draws, starts=STARTS, max_steps=steps, tolerance=tolerance)

    planned(60, 1e-3)
    begun = time.perf_counter()
    found = planned(60, 1e-3)
    seconds = time.perf_counter() - begun
    short = found.risk - planned(240, 1e-6).risk
    yield measured(f"plans_{limits.name}_side_by_side_per_second", len(found.risk) / seconds, "1/s")
    yield measured(f"plans_{limits.name}_side_by_side_share_within_accuracy", np.mean(short <= ACCURACY))


def studies(quick: bool, runs: Path) -> Iterator[Verdict]:
    """Seconds of the latest whole run of every study below `runs`; of one without such a run, of `runtime=ci` in a
    process of its own (not where small sizes are asked for)."""
    for name in STUDIES:
        seconds = kept(runs, name)
        if seconds is not None:
            yield measured(f"study_{name}", seconds, "s", "whole run on record, start to end on the clock")
        elif not quick:
            begun = time.perf_counter()
            problem = alone(name)
            if problem is not None:
                print(f"{name}: not measured: {problem}")
                continue
            source = "runtime=ci in a process of its own, compilation included"
            yield measured(f"study_{name}_ci", time.perf_counter() - begun, "s", source)


def kept(runs: Path, name: str) -> float | None:
    """Seconds from the start to the end of the latest whole run that was not interrupted."""
    found = None
    for one in list_runs(runs):
        facts = read_json(one.directory / "provenance.json") if one.done and one.name == name else {}
        if facts and not facts["resumed"] and "runtime=ci" not in facts["argv"]:
            ended = datetime.datetime.fromisoformat((one.directory / "DONE").read_text(encoding="utf-8").strip())
            found = (ended - datetime.datetime.fromisoformat(facts["started"])).total_seconds()
    return found


def alone(name: str) -> str | None:
    """Runs a study with small sizes; what went wrong, or None. A missed target (exit 1) is no fault of the clock."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tumortwin.cli", "reproduce", name, "runtime=ci", f"paths.runs={folder}"]
        here = Path(__file__).resolve().parents[2]
        done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False)
    if done.returncode in (0, 1):
        return None
    return done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit {done.returncode}"
