"""Growth laws of untreated tumors in mice: the population, the ranking of laws, and the age of a tumor.

`tumortwin reproduce benzekry2014 [data.root=DIR]`. Every number that is judged stands in `expected.json`, fixed before
the experiment was run. `runtime=ci`: two laws, three animals.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.benzekry2014.age import Age, ages, mean_age_errors
from experiments.benzekry2014.figures import draw_ages, draw_fits, draw_ranking
from experiments.benzekry2014.laws import LAWS, REDUCED, Law, problem_of
from tumortwin.cli_files import Checkpoints
from tumortwin.inference import LeaveOneOut, NutsCalibrator, Posterior, calibrate, leave_one_subject_out
from tumortwin.io import Table, load_table
from tumortwin.runs import Run, Verdict, at_least, at_most, between, measured

SAMPLER = NutsCalibrator(
    laplace=None,
    dense=True,
    warmup=600,
    draws=750,
    chunk=150,
    accept=0.9,
    threads=2,
    tree_depth=10,
    warmup_tree_depth=5,
)
QUICK = NutsCalibrator(
    laplace=None, dense=True, warmup=400, draws=250, chunk=325, threads=2, tree_depth=10, warmup_tree_depth=5
)
CAREFUL = dataclasses.replace(SAMPLER, warmup=1000, draws=2000, chunk=250, accept=0.98, warmup_tree_depth=6)
HARD = ("exponential_linear", "logistic", "bertalanffy")
"""Laws with a spread that may be 0: shorter steps, longer chains."""
FEW = 3
PATHS = {
    "typical_growth_rate": "typical.growth_rate",
    "typical_deceleration": "typical.deceleration",
    "residual_sd": "residual.sd",
    "residual_cv": "residual.cv",
}
AGE_LAWS = {"gompertz": LAWS["gompertz"], "reduced_gompertz": REDUCED}


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The population of the 173 rows, the ranking of laws, and ages of lung and breast tumors."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    table = load_table("benzekry_llc_173", config.data.root)
    laws = {name: LAWS[name] for name in ("exponential", "gompertz")} if quick else LAWS
    fits = fitted(run, "llc_173", table, laws, quick)
    found = reliability("llc_173", fits) + population(fits["gompertz"], expected)
    found += ranking(run, table, laws, fits)
    draw_fits(run, problem_of(LAWS["gompertz"], table), fits["gompertz"], table)
    cohorts = ("lung",) if quick else ("lung", "breast")
    for cohort in cohorts:
        found += age_of(run, cohort, load_table(f"benzekry_{cohort}", config.data.root), expected, quick)
    return found


def fitted(run: Run, part: str, table: Table, laws: dict[str, Law], quick: bool) -> dict[str, Posterior]:
    """The posterior of every law."""
    posteriors = {}
    for name, law in laws.items():
        sampler = QUICK if quick else CAREFUL if name in HARD else SAMPLER
        with run.progress.task(f"{part}: {name}") as bar:
            posteriors[name] = calibrate(
                problem_of(law, table),
                sampler,
                key=run.key(f"{part}/{name}"),
                progress=lambda _, done, total, bar=bar: bar.update(done, total),
                checkpoint=Checkpoints(run, f"{part}_{name}"),
            )
    return posteriors


def reliability(part: str, fits: dict[str, Posterior]) -> list[Verdict]:
    """The worst chain of all laws; no number of an experiment means anything before these."""
    worst = {name: [p.diagnostics[name] for p in fits.values()] for name in ("r_hat", "ess", "divergences")}
    return [
        at_most(f"{part}_worst_r_hat", max(worst["r_hat"]), 1.01),
        at_least(f"{part}_least_ess", min(worst["ess"]), 400.0),
        at_most(f"{part}_divergences", max(worst["divergences"]), 0.0),
    ]


def population(posterior: Posterior, expected: dict[str, dict]) -> list[Verdict]:
    """Posterior means of the Gompertz population beside NONMEM's estimates."""
    found = []
    for name, path in PATHS.items():
        target = expected[name]
        low, high = target["value"] - target["within"], target["value"] + target["within"]
        found.append(between(name, posterior.mean(path), low, high, target["unit"], target["source"]))
        found.append(measured(f"{name}_sd", posterior.sd(path), target["unit"]))
    correlation = posterior.mean("correlation")[0, 1]
    return [*found, measured("correlation_of_growth_rate_and_deceleration", correlation)]


def ranking(run: Run, table: Table, laws: dict[str, Law], fits: dict[str, Posterior]) -> list[Verdict]:
    """Leave-one-animal-out predictive density of every law, effects integrated out, best first."""
    scores: dict[str, LeaveOneOut] = {}
    with run.progress.task("leave one animal out", total=len(laws)) as bar:
        for name, law in laws.items():
            problem = problem_of(law, table)
            scores[name] = leave_one_subject_out(problem, fits[name], key=run.key(f"leave one out/{name}"))
            bar.advance()
    order = sorted(scores, key=lambda name: -scores[name].total)
    draw_ranking(run, scores, order)
    found = []
    for name in order:
        behind, error = scores[order[0]].difference(scores[name])
        found += [
            measured(f"elpd_{name}", scores[name].total, "nat"),
            measured(f"elpd_behind_the_best_{name}", behind, "nat"),
            measured(f"elpd_behind_the_best_{name}_standard_error", error, "nat"),
            measured(f"elpd_{name}_worst_k_hat", scores[name].k_hat.max()),
        ]
    return found


def age_of(run: Run, cohort: str, table: Table, expected: dict[str, dict], quick: bool) -> list[Verdict]:
    """Error, interval width and coverage of the age at the first of the last three measurements."""
    baseline, found = mean_age_errors(table), []
    fits = fitted(run, cohort, table, AGE_LAWS, quick)
    found += reliability(cohort, fits)
    everyone: dict[str, list[Age]] = {}
    for name, law in AGE_LAWS.items():
        sampler = QUICK if quick else SAMPLER
        only = table.subjects[:FEW] if quick else table.subjects
        with run.progress.task(f"{cohort}: ages by {name}", total=len(only)) as bar:
            everyone[name] = ages(
                law, table, fits[name], sampler, only, bar.advance, key=run.key(f"{cohort}/{name}/age")
            )
        found += scored(f"{cohort}_{name}", everyone[name])
    found.append(measured(f"age_error_{cohort}_mean_age_baseline", baseline.mean()))
    draw_ages(run, cohort, everyone)
    target = expected[f"age_error_{cohort}"]
    for name, one in everyone.items():
        error = float(np.mean([age.error for age in one]))
        if quick:
            found.append(measured(f"age_error_{cohort}_{name}", error))
        else:
            found.append(at_most(f"age_error_{cohort}_{name}", error, target["at_most"], "1", target["source"]))
            found.append(at_most(f"age_error_{cohort}_{name}_over_baseline", error / baseline.mean(), 1.0))
    return found


def scored(name: str, found: list[Age]) -> list[Verdict]:
    """What is printed of one law in one cohort."""
    return [
        measured(f"age_error_{name}_median", np.median([age.error for age in found])),
        measured(f"age_error_{name}_flat_prior", np.mean([age.flat_error for age in found])),
        measured(f"age_interval_{name}_width", np.mean([a.informed.high - a.informed.low for a in found]), "day"),
        measured(f"age_interval_{name}_flat_prior_width", np.mean([a.flat.high - a.flat.low for a in found]), "day"),
        measured(f"age_interval_{name}_coverage", np.mean([age.covered for age in found])),
        measured(f"age_{name}_refitted_animals", sum(age.refitted for age in found)),
    ]
