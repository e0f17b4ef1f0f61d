"""Adaptive abiraterone as a decision: rules and schedules, personal and common, judged by two classes of models.

`tumortwin reproduce zhang2022_control [data.root=DIR]`. Times to progression are counterfactual: no patient got these
plans. `runtime=ci`: fewer virtual patients, schedules of four patients.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.zhang2022.fit import Fit, fit
from experiments.zhang2022.visits import Visits, visits_of
from experiments.zhang2022_control.figures import draw_courses, draw_replay, draw_times
from experiments.zhang2022_control.judging import Judged, Plans, judged, of_gains, of_plans
from experiments.zhang2022_control.policies import thresholds, under_thresholds
from experiments.zhang2022_control.schedules import LEVEL, common, doses_of, personal, starts
from experiments.zhang2022_control.virtual import Bank, clones, competition
from tumortwin.control import CVaR, HysteresisPolicy
from tumortwin.io import load_table
from tumortwin.runs import Run, Verdict, at_least, at_most, measured

PLANNER, OTHER = "competition", "clones"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Virtual patients a class, patients with a schedule (None: all), draws a schedule, of each patient in the common
    one."""

    virtual: int
    scheduled: int | None
    draws: int
    draws_common: int


FULL, QUICK = Sizes(4096, None, 32, 8), Sizes(512, 4, 16, 8)


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The delivered schedule replayed, then plans under the posterior and under another class."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    sizes = QUICK if quick else FULL
    visits = visits_of(load_table("abiraterone", config.data.root))
    with run.progress.task("replay"):
        replay = fit(visits)
    found = of_replay(visits, replay, expected)
    if sizes.scheduled is not None:
        visits = visits.of(np.arange(min(sizes.scheduled, len(visits.names))))
        replay = dataclasses.replace(
            replay, **{name: getattr(replay, name)[: sizes.scheduled] for name in ("start", "curve", "rmse")}
        )
    with run.progress.task("virtual patients"):
        banks = {
            PLANNER: competition(visits, replay.competition, sizes.virtual),
            OTHER: clones(visits, sizes.virtual),
        }
    draw_replay(run, visits, replay, banks)
    plans = planned(run, {name: bank.half(0) for name, bank in banks.items()}, sizes)
    judges = {name: bank.half(1) for name, bank in banks.items()}
    with run.progress.task("judged"):
        outcomes = {
            (name, confirmed): judged(plans, bank, confirmed)
            for name, bank in judges.items()
            for confirmed in (False, True)
        }
    found += of_evidence(banks) + of_plans(outcomes)
    found += of_gains(outcomes, {} if quick else expected, np.random.default_rng(config.seed))
    run.write_json("plans.json", rows(list(visits.names), plans, outcomes))
    draw_courses(run, visits, plans, judges)
    draw_times(run, outcomes)
    return found + of_search(plans, expected)


def of_replay(visits: Visits, replay: Fit, expected: Mapping[str, dict]) -> list[Verdict]:
    """How well the model follows the PSA under the drug that was given."""
    target = expected["replay_rmse"]
    found = [
        measured("patients", len(visits.names)),
        at_most("replay_rmse", replay.rmse.mean(), target["at_most"], target["unit"], target["source"]),
    ]
    for name, chosen in (("adaptive", visits.adaptive), ("standard", ~visits.adaptive)):
        if chosen.any():
            found.append(measured(f"replay_rmse_{name}", replay.rmse[chosen].mean()))
    # Padded visits repeat the last day: they last no time.
    lasting = np.diff(visits.days, axis=1)
    given = (visits.on[:, :-1] * lasting).sum(axis=1) / lasting.sum(axis=1)
    return [*found, measured("delivered_share_on_drug_adaptive", given[visits.adaptive].mean())]


def of_evidence(banks: Mapping[str, Bank]) -> list[Verdict]:
    """How many virtual patients carry a posterior."""
    return [measured(f"effective_virtual_{name}", np.median(bank.effective)) for name, bank in banks.items()]


def risks(days: np.ndarray, bank: Bank) -> np.ndarray:
    """CVaR of minus the time to progression [patient, policy]: minus the mean of the worst fifth."""
    risk = jax.vmap(jax.vmap(CVaR(LEVEL), in_axes=(0, None)), in_axes=(None, 0))
    return np.asarray(risk(-jnp.asarray(days), jnp.asarray(bank.weights)))


def planned(run: Run, banks: Mapping[str, Bank], sizes: Sizes) -> Plans:
    """Thresholds by exhaustion and schedules by search, on the planning half; `hedged`: one pair of thresholds for all,
    under an equal mixture of the two classes."""
    _, stop, restart = thresholds()
    bank = banks[PLANNER]
    with run.progress.task("thresholds"):
        risk = {name: risks(under_thresholds(one.model)[0], one) for name, one in banks.items()}
    own, patients = risk[PLANNER], len(bank.weights)
    hedged = int(np.mean([risk[name].mean(axis=0) for name in banks], axis=0).argmin())
    pairs = {
        "continuous": np.zeros(patients, int),
        "adaptive": np.ones(patients, int),
        "common": np.full(patients, int(own.mean(axis=0).argmin())),
        "hedged": np.full(patients, hedged),
        "personal": own.argmin(axis=1),
    }
    found = []
    with run.progress.task("schedules", total=patients + 1) as bar:
        for patient, pair in enumerate(pairs["personal"]):
            found.append(personal(bank, patient, sizes.draws, HysteresisPolicy(stop[pair], restart[pair])))
            bar.advance()
        pair = pairs["common"][0]
        begun = starts(HysteresisPolicy(stop[pair], restart[pair]), bank.drawn(0, sizes.draws))
        begun = np.concatenate([begun, [doses_of(plan) for plan in found]])
        shared = common(bank, sizes.draws_common, begun)
        bar.advance()
    return Plans(
        pairs,
        {
            "common_schedule": np.tile(doses_of(shared), (patients, 1)),
            "schedule": np.stack([doses_of(plan) for plan in found]),
        },
        own,
        [plan.convergence for plan in (*found, shared)],
    )


def of_search(plans: Plans, expected: Mapping[str, dict]) -> list[Verdict]:
    """What was chosen, and that the searches ended; consistency on the half that was planned with."""
    names, stop, restart = thresholds()
    every = np.arange(len(plans.own_risk))
    found = []
    for name in ("common", "hedged"):
        pair = plans.pairs[name][0]
        found += [measured(f"{name}_stop", float(stop[pair])), measured(f"{name}_restart", float(restart[pair]))]
    least = plans.own_risk[every, plans.pairs["common"]] - plans.own_risk[every, plans.pairs["personal"]]
    gained = [one["risk_of_best_start"] - one["risk"] for one in plans.searches[:-1]]
    target, name = expected["planner_never_worse_than_common"], "planner_never_worse_than_common"
    return [
        *found,
        measured("personal_different_plans", len({names[k] for k in plans.pairs["personal"]})),
        measured("schedule_search_gain_over_its_best_start", np.mean(gained), "day"),
        measured("schedule_searches_ended", np.mean([one["converged"] for one in plans.searches])),
        at_least(name, float(least.min()), target["at_least"], target["unit"], target["source"]),
    ]


def rows(patients: list[str], plans: Plans, outcomes: Mapping[tuple[str, bool], Judged]) -> list[dict]:
    """Every patient, plan and judge: time to progression with its interval, days on drug, and the plan itself."""
    names, _, _ = thresholds()
    found = []
    for (judge, confirmed), outcome in outcomes.items():
        for plan in plans.names:
            for i, patient in enumerate(patients):
                low, middle, high = (float(value) for value in outcome.quantiles[plan][i])
                found.append(
                    {"patient": patient, "plan": plan, "judged_under": judge, "confirmed_progression": confirmed,
                     "days": middle, "low": low, "high": high, "on_drug_days": float(outcome.on[plan][i]),
                     "policy": names[plans.pairs[plan][i]] if plan in plans.pairs else None,
                     "doses": None if plan in plans.pairs else plans.schedules[plan][i].astype(int).tolist()}
                )  # fmt: skip
    return found
