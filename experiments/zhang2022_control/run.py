"""Adaptive abiraterone as a decision: thresholds for each patient and for all, judged by another class of models.

`tumortwin reproduce zhang2022_control [data.root=DIR]`. Times to progression are counterfactual: no patient got these
plans. `runtime=ci`: fewer virtual patients.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.zhang2022.fit import fit
from experiments.zhang2022.visits import visits_of
from experiments.zhang2022_control.policies import Bank, clones_bank, competition_bank, policies
from tumortwin.control import CVaR
from tumortwin.io import load_table
from tumortwin.metrics import quantile
from tumortwin.runs import Run, Verdict, at_least, at_most, measured

VIRTUAL, VIRTUAL_QUICK = 1024, 256
LEVEL = 0.8


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The delivered schedule replayed, then plans under the posterior and under another class."""
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    visits = visits_of(load_table("abiraterone", config.data.root))
    with run.progress.task("replay"):
        replay = fit(visits)
    target = expected["replay_rmse"]
    found = [
        measured("patients", len(visits.names)),
        at_most("replay_rmse", replay.rmse.mean(), target["at_most"], target["unit"], target["source"]),
    ]
    for name, chosen in (("adaptive", visits.adaptive), ("standard", ~visits.adaptive)):
        if chosen.any():
            found.append(measured(f"replay_rmse_{name}", replay.rmse[chosen].mean()))
    size = VIRTUAL_QUICK if config.runtime.quick else VIRTUAL
    with run.progress.task("virtual patients"):
        banks = {"competition": competition_bank(visits, replay.competition, size), "clones": clones_bank(visits, size)}
    return found + of_plans(run, banks, list(visits.names), expected)


def risks(bank: Bank) -> np.ndarray:
    """CVaR of minus the time to progression [patient, policy]: minus the mean of the worst fifth."""
    risk = CVaR(LEVEL)
    return np.array([[float(risk(jnp.asarray(-d), jnp.asarray(w))) for d in bank.days] for w in bank.weights])


def of_plans(run: Run, banks: dict[str, Bank], patients: list[str], expected: dict[str, dict]) -> list[Verdict]:
    """Continuous drug, the trial's rule, the best thresholds in common and for each, chosen under the first bank."""
    names, stop, restart = policies()
    every, planner = np.arange(len(patients)), "competition"
    risk = {name: risks(bank) for name, bank in banks.items()}
    common = int(risk[planner].mean(axis=0).argmin())
    plans = {
        "continuous": np.zeros(every.size, int),
        "adaptive": np.ones(every.size, int),
        "common": np.full(every.size, common),
        "personal": risk[planner].argmin(axis=1),
    }
    found = [measured("common_stop", float(stop[common])), measured("common_restart", float(restart[common]))]
    found.append(measured("personal_different_plans", len(set(plans["personal"].tolist()))))
    rows = []
    for judge, bank in banks.items():
        found.append(measured(f"effective_virtual_{judge}", np.median(1.0 / np.sum(bank.weights**2, axis=1))))
        for name, chosen in plans.items():
            days, on = bank.days[chosen], bank.on[chosen]
            mean, drug = (np.sum(bank.weights * x, axis=1) for x in (days, on))
            found += [
                measured(f"ttp_mean_{name}_under_{judge}", mean.mean(), "day"),
                measured(f"ttp_worst_fifth_{name}_under_{judge}", -risk[judge][every, chosen].mean(), "day"),
                measured(f"on_drug_{name}_under_{judge}", drug.mean()),
            ]
            for i, patient in enumerate(patients):
                low, middle, high = (float(quantile(days[i], q, bank.weights[i])) for q in (0.025, 0.5, 0.975))
                rows.append(
                    {"patient": patient, "plan": name, "policy": names[chosen[i]], "judged_under": judge,
                     "days": middle, "low": low, "high": high, "on_drug": float(drug[i])}
                )  # fmt: skip
        for name in ("common", "adaptive"):
            gain = risk[judge][every, plans[name]] - risk[judge][every, plans["personal"]]
            found.append(measured(f"personal_minus_{name}_worst_fifth_under_{judge}", gain.mean(), "day"))
    run.write_json("plans.json", rows)
    target = expected["planner_never_worse_than_common"]
    least = float((risk[planner][every, plans["common"]] - risk[planner][every, plans["personal"]]).min())
    name = "planner_never_worse_than_common"
    return [*found, at_least(name, least, target["at_least"], target["unit"], target["source"])]
