"""Whose choice of a schedule is good? Every surrogate and hybrid chooses, the PDE judges.

`tumortwin reproduce decision_regret`. The glioma and the surrogate of `rom_glioma`, trained here on one schedule; then
48 courses of equal toxicity, and who picks the right one. `runtime=ci`: 4 mm voxels, fewer of everything.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.decision_regret.figures import draw_losses, draw_regret
from experiments.decision_regret.planners import TRUTH, Planner, Values, planners
from experiments.decision_regret.regret import Regrets, regrets
from experiments.decision_regret.schedules import STANDARD, Option, options
from experiments.rom_glioma.run import sized
from tumortwin.cli_patient import load_case
from tumortwin.cli_train_reduced import simulate_training, training_case
from tumortwin.runs import Run, Verdict, at_most, measured
from tumortwin.surrogates import random_design

PLANNING, FRESH = 32, 48  # draws of the prior with which a common choice is made, and those that judge
QUICK_PLANNING, QUICK_FRESH, QUICK_EVERY = 8, 8, 7
# What is wanted of a course: little tumor all along, which rewards an early start, or on the last day, where the sizes
# of fractions count (equal toxicity is not equal kill), and what crowding and the front make of the order of kills.
OBJECTIVES = {"mean_burden": slice(None), "last_burden": slice(-1, None)}
JUDGED = "modes_with_pde"  # the surrogate as it is meant to be used
RESAMPLES = 2000
ALPHA, TUMOR_ALPHA_BETA = "mechanisms.radiotherapy.alpha", 10.0  # [Gy], as the model has it


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Train, let everybody say what every course does to every tumor, choose, judge by the PDE."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    config = sized(config, quick)
    patient = load_case(config, run.key("patient")).patient
    case = training_case(config, run, patient=patient)
    simulate_training(config, run, case)
    choices = options()[::QUICK_EVERY] if quick else options()
    count = QUICK_PLANNING if quick else PLANNING
    planning = random_design(case.prior, count, key=run.key("planning")).values
    fresh = random_design(case.prior, QUICK_FRESH if quick else FRESH, key=run.key("fresh")).values
    drawn = {path: np.concatenate([planning[path], fresh[path]]) for path in planning}
    said, solved = {}, {}
    for name, planner in planners(config, run, patient, case, quick).items():
        with run.progress.task(name, total=len(choices)) as bar:
            said[name], solved[name] = table(planner, drawn, choices, bar.advance)
    every: dict[str, dict[str, Regrets]] = {}
    verdicts = [measured("courses", len(choices)), *(measured(f"{n}_pde_solved_share", v) for n, v in solved.items())]
    share = expected["pde_solved_share"]
    if not quick:
        verdicts.append(at_most("pde_solved_share", solved[JUDGED], share["at_most"], share["unit"], share["source"]))
    for objective, days in OBJECTIVES.items():
        losses = {name: value[:, :, days].mean(axis=2) for name, value in said.items()}
        found = {name: regrets(value, losses[TRUTH], count) for name, value in losses.items()}
        every[objective] = found
        draw_losses(run, objective, losses, TRUTH, count)
        verdicts += stakes(objective, losses[TRUTH], choices, count)
        verdicts.append(measured(f"{objective}_stake_of_fraction_sizes_alone", fraction_stake(fresh, choices), "ln"))
        verdicts += judged(objective, found, expected, judge=not quick)
    run.write_text("choices.json", json.dumps({k: chosen(v, choices) for k, v in every.items()}, indent=2))
    draw_regret(run, every, TRUTH)
    return verdicts


def table(
    planner: Planner, drawn: Values, choices: Sequence[Option], advance: Callable[[], None]
) -> tuple[np.ndarray, float]:
    """What a planner says of every course for every draw [option draw day], and the share that the PDE solved."""
    said, solved = [], []
    for option in choices:
        logs, share = planner(drawn, option.schedule)
        said.append(logs)
        solved.append(share)
        advance()
    return np.asarray(said), float(np.mean(solved))


def stakes(objective: str, truth: np.ndarray, choices: Sequence[Option], planning: int) -> list[Verdict]:
    """What there is to lose: between the courses of one tumor, between the best for each and the best for all, and what
    the standard of care and a course picked blindly cost."""
    fresh = truth[:, planning:]
    best = fresh.min(axis=0)
    at_stake = fresh.max(axis=0) - best
    common = fresh[fresh.mean(axis=1).argmin()]
    found = [
        measured(f"{objective}_at_stake", at_stake.mean(), "ln"),
        measured(f"{objective}_best_for_each_over_best_for_all", (common - best).mean(), "ln"),
        measured(f"{objective}_blind_choice_personal_regret", ((fresh - best) / at_stake).mean()),
    ]
    names = [option.name for option in choices]
    if STANDARD in names:
        cost = (fresh[names.index(STANDARD)] - best) / at_stake
        found.append(measured(f"{objective}_standard_of_care_personal_regret", cost.mean()))
    return found


def judged(objective: str, found: Mapping[str, Regrets], expected: dict, *, judge: bool) -> list[Verdict]:
    """Regrets by planner; those of the checked surrogate against their targets."""
    verdicts = []
    random = np.random.default_rng(0)
    own = found[TRUTH].common  # the PDE, too, chooses by draws that do not judge
    verdicts.append(measured(f"{objective}_{TRUTH}_common_regret", own))
    for name, regret in found.items():
        if name == TRUTH:
            continue
        label = f"{objective}_{name}"
        picks = random.integers(0, regret.personal.size, (RESAMPLES, regret.personal.size))
        low, high = np.quantile(regret.personal[picks].mean(axis=1), [0.025, 0.975])
        for what, value in (("personal_regret", regret.personal.mean()), ("common_regret", regret.common - own)):
            target = expected[what]
            limit = (target["at_most"], target["unit"], target["source"])
            strict = judge and name == JUDGED
            verdicts.append(at_most(f"{label}_{what}", value, *limit) if strict else measured(f"{label}_{what}", value))
        verdicts += [
            measured(f"{label}_personal_regret_low", low),
            measured(f"{label}_personal_regret_high", high),
            measured(f"{label}_personal_regret_worst", regret.personal.max()),
            measured(f"{label}_best_course_found", np.mean(regret.personal == 0.0)),
        ]
    return verdicts


def fraction_stake(fresh: Values, choices: Sequence[Option]) -> float:
    """Mean over the fresh tumors of the range of alpha sum d (1 + d / (alpha/beta)) over the courses [ln]: what they
    differ by on the last day where growth does not know how full a voxel is."""
    doses = np.asarray([option.schedule.radiotherapy.doses for option in choices])
    effect = (doses * (1.0 + doses / TUMOR_ALPHA_BETA)).sum(axis=1)
    return float(np.mean(np.asarray(fresh[ALPHA])) * np.ptp(effect))


def chosen(found: Mapping[str, Regrets], choices: Sequence[Option]) -> dict:
    """Names of the chosen courses."""
    return {
        name: {
            "common": choices[regret.common_choice].name,
            "personal": [choices[i].name for i in regret.personal_choice.tolist()],
        }
        for name, regret in found.items()
    }
