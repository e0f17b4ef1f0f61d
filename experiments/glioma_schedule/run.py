"""Radiotherapy and temozolomide together, planned through the PDE over posterior draws: how fast, and what is gained?

`tumortwin reproduce glioma_schedule`. The virtual glioma on real anatomy; scans of days 0 and 30 are known, the plan is
made on day 30. `runtime=ci`: fewer draws, coarse grids.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.glioma_schedule.decision import (
    COARSE,
    DECISION,
    DRAWS,
    FINE,
    LIMITS,
    STANDARD,
    believed_before,
    best,
    known_twin,
    planning,
    problems,
    truly,
)
from experiments.glioma_schedule.figures import draw_doses, draw_gains
from tumortwin.config import instantiate
from tumortwin.control import Comparison, Plan, compare, make_plan
from tumortwin.inference import Posterior, Problem, calibrate
from tumortwin.runs import Run, Verdict, at_least, at_most, measured
from tumortwin.twin import Twin

BEFORE, ITERATIONS, POLISH = 40, 8, 2
FRESH, QUICK_FRESH = 64, 16
GAIN = {"mean_log_burden": 0.05}  # the smallest that counts


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Twice from scans to plan (cold and warm), the plan judged on fresh draws and on the true tumor."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    spacings = (6.0, 4.0) if quick else (COARSE, FINE)
    known = known_twin(config, run, spacings[0])
    coarse, fine = problems(known, spacings)
    with run.progress.task("plan of the prior"):
        before = planning(coarse, believed_before(coarse, run.key("before")), DRAWS, run.key("prior"))
        common = best(before, STANDARD, BEFORE, "common")
    _, _, cold = decided(config, run, known, spacings, common, "cold")
    posterior, plan, warm = decided(config, run, known, spacings, common, "warm")
    found = [measured(f"seconds_cold_{name}", value, "s") for name, value in cold.items()]
    found += [measured(f"seconds_warm_{name}", value, "s") for name, value in warm.items()]
    limit = expected["seconds"]
    total = sum(warm.values())
    found.append(
        measured("seconds_warm", total, "s")
        if quick
        else at_most("seconds_warm", total, limit["at_most"], "s", limit["source"])
    )
    found += [at_most("k_hat", posterior.diagnostics["k_hat"], 0.7), measured("ess", posterior.diagnostics["ess"])]
    return found + judged(config, run, fine, posterior, plan, common, expected, QUICK_FRESH if quick else FRESH)


def decided(
    config: DictConfig, run: Run, known: Twin, spacings: tuple[float, float], common: Plan, name: str
) -> tuple[Posterior, Plan, dict[str, float]]:
    """Posterior, plan and seconds of each stage: the problems of the scans (distances, travel times, modes), Laplace
    and importance sampling, plan, polish. The scans are in memory.

    The search begins at the `common` plan, which is there before the scan.
    """
    clock, seconds = time.perf_counter(), {}

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[stage], clock = now - clock, now

    with run.progress.task(f"{name}: scans to plan", total=4) as bar:
        coarse, fine = problems(known, spacings)
        lap("problem")
        bar.advance()
        calibrator = instantiate(config.calibrator, where="calibrator")
        posterior = calibrate(coarse, calibrator, key=run.key(f"calibrate/{name}"))
        lap("posterior")
        bar.advance()
        key = run.key(f"plan/{name}")
        before = np.asarray(DECISION.vector(common.variables))
        first = best(planning(coarse, posterior.halves()[0], DRAWS, key), before, ITERATIONS, "coarse")
        lap("plan")
        bar.advance()
        start = np.asarray(DECISION.vector(first.variables))
        plan = best(planning(fine, posterior.halves()[0], DRAWS, key), start, POLISH, "recommended")
        lap("polish")
        bar.advance()
    return posterior, plan, seconds


def judged(
    config: DictConfig,
    run: Run,
    fine: Problem,
    posterior: Posterior,
    plan: Plan,
    common: Plan,
    expected: dict[str, Any],
    fresh: int,
) -> list[Verdict]:
    """The plan, and one that knows the prior alone, against the standard of care: fresh draws, and the truth."""
    problem = planning(fine, posterior.halves()[1], fresh, run.key("fresh"))
    standard = make_plan(problem, jnp.asarray(STANDARD), name="standard of care", value=0.0)
    with run.progress.task("fresh draws", total=2) as bar:
        ours = _against(run, problem, plan, standard)
        bar.advance()
        gain_of_knowing = _against(run, problem, plan, common)
        bar.advance()
    found = _gains("plan_over_standard", ours) + _gains("plan_over_common", gain_of_knowing)
    largest = max(float(np.max(limit.residuals(plan.variables, DECISION))) for limit in LIMITS)
    found.append(at_most("largest_violation", largest, expected["violation"]["at_most"], "1", "hard limits"))
    found.append(
        at_least(
            "plan_over_standard_expected_gain_low",
            float(ours.entries["mean_log_burden.expected_gain"].low or -np.inf),
            expected["gain_low"]["at_least"],
            "ln",
            expected["gain_low"]["source"],
        )
    )
    for name, value in plan.toxicity.items():
        found.append(measured(f"plan_{name}", value))
        found.append(measured(f"standard_{name}", standard.toxicity[name]))
    found += true_outcomes(config, run, {"plan": plan, "common": common, "standard": standard})
    draw_doses(run, plan, common, standard)
    draw_gains(run, ours)
    run.write_json("plan.json", {"plan": plan.to_json(), "comparison": ours.to_json()})
    return found


def _against(run: Run, problem: Any, plan: Plan, reference: Plan) -> Comparison:
    return compare(problem, plan, reference, draws=problem.draws, minimal_gains=GAIN, key=run.key("compare"))


def _gains(name: str, found: Comparison) -> list[Verdict]:
    rows = []
    for part in ("expected_gain", "cvar_gain", "probability_of_benefit", "fraction_without_benefit"):
        entry = found.entries[f"mean_log_burden.{part}"]
        rows += [measured(f"{name}_{part}{tail}", value, entry.unit) for tail, value in _ends(entry)]
    return rows


def _ends(entry: Any) -> list[tuple[str, float]]:
    return [("", entry.value), ("_from", float(entry.low)), ("_to", float(entry.high))]


def true_outcomes(config: DictConfig, run: Run, plans: dict[str, Plan]) -> list[Verdict]:
    """The true tumor, which no model of the planner's class can follow exactly, under every plan."""
    key, found = run.key("patient"), []
    volumes: dict[str, dict[str, float]] = {}
    with run.progress.task("the truth under each plan", total=len(plans)) as bar:
        for name, plan in plans.items():
            patient = truly(config, key, np.asarray(DECISION.vector(plan.variables)))
            volumes[name] = {k: v for k, v in (patient.truth or {}).items() if k.startswith("volume_")}
            bar.advance()
    for name, of_plan in volumes.items():
        for day in (120, 180):
            found.append(measured(f"true_flair_volume_day_{day}_under_{name}", of_plan[f"volume_flair_{day}"], "mm^3"))
    gain = np.log(volumes["standard"]["volume_flair_180"]) - np.log(volumes["plan"]["volume_flair_180"])
    found.append(measured("true_gain_of_log_volume_day_180_plan_over_standard", gain, "ln"))
    return found
