"""Adaptive abiraterone: how well sensitive and resistant cells describe the PSA, and how well they foresee it.

`tumortwin reproduce zhang2022 [data.root=DIR]`. Every number that is judged stands in `expected.json`. `runtime=ci`:
the fit as it is, the forecast with a small design and the first cycles of five patients.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.zhang2022.figures import draw_fits, draw_forecasts, draw_scores
from experiments.zhang2022.fit import Fit, fit
from experiments.zhang2022.forecast import Forecast, Patient
from experiments.zhang2022.population import design, likelihoods, nodes, population
from experiments.zhang2022.visits import BASELINES, Cycle, Visits, cycles_of, visits_of
from tumortwin.io import load_table
from tumortwin.metrics import (
    Asked,
    Difference,
    ReplayCard,
    ReplayScores,
    Targets,
    paired_bootstrap,
    score_replay,
    wilson,
)
from tumortwin.runs import Run, Verdict, at_most, measured

VIRTUAL, VIRTUAL_QUICK = 512, 64  # virtual patients at every node
DRAWS = 400
FEW = 5
LEAST_PATIENTS = 3  # a population of two others
TWINS = {"given": "under the drug that was given", "ruled": "under the trial's rule"}


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The fit of everybody, then every cycle of the adaptive patients from the visits before it."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    visits = visits_of(load_table("abiraterone", config.data.root))
    with run.progress.task("fit"):
        fitted = fit(visits)
    draw_fits(run, visits, fitted)
    found = of_fit(visits, fitted, expected)
    cycles = cycles_of(visits)
    if not cycles or len(visits.names) < LEAST_PATIENTS:
        run.say(f"no forecast: {len(cycles)} cycles, {len(visits.names)} patients; it needs one and {LEAST_PATIENTS}")
        return [*found, measured("forecast_cycles", 0)]
    if quick:
        cycles = [cycle for cycle in cycles if cycle.number == 0][:FEW]
    forecasts = forecast_all(run, visits, cycles, VIRTUAL_QUICK if quick else VIRTUAL)
    draw_forecasts(run, visits, cycles, forecasts)
    found += of_forecasts(run, visits, cycles, forecasts, {} if quick else expected)
    write_card(run, visits, cycles)
    return found


def of_fit(visits: Visits, fitted: Fit, expected: Mapping[str, dict]) -> list[Verdict]:
    """Mean over patients of the root mean square of PSA / maximum; all, adaptive, standard."""
    parts = {"": np.ones(len(visits.names), bool), "_adaptive": visits.adaptive, "_standard": ~visits.adaptive}
    found = [
        _gate(f"fit_rmse{name}", fitted.rmse[chosen].mean(), expected) for name, chosen in parts.items() if chosen.any()
    ]
    return [
        *found,
        _gate("fit_solver_difference", fitted.difference, expected),
        measured("fit_growth_scale", fitted.growth_scale),
        measured("fit_competition", fitted.competition),
    ]


def forecast_all(run: Run, visits: Visits, cycles: list[Cycle], size: int) -> list[Forecast]:
    """Every cycle from the visits before it and from the population of the other patients."""
    points, choices = design(size), nodes()
    with run.progress.task("virtual patients"):
        everybody = likelihoods(visits, points)
    found, patients = [], {}
    with run.progress.task("cycles", total=len(cycles)) as bar:
        for number, cycle in enumerate(cycles):
            if cycle.patient not in patients:
                others = np.arange(len(visits.names)) != cycle.patient
                learned = population(everybody[:, others], points)
                patients[cycle.patient] = Patient(visits, cycle.patient, choices, learned, points)
            rng = np.random.default_rng([run.config.seed, number])
            found.append(patients[cycle.patient].forecast(cycle, DRAWS, rng))
            bar.advance()
    return found


def of_forecasts(
    run: Run, visits: Visits, cycles: list[Cycle], forecasts: list[Forecast], expected: Mapping[str, dict]
) -> list[Verdict]:
    """Errors over the maximum by cycle, beside the baselines; CRPS and coverage of every visit."""
    samples = {name: [getattr(forecast, name).T for forecast in forecasts] for name in TWINS}
    samples |= {name: [rule(visits, cycle)[:, None] for cycle in cycles] for name, rule in BASELINES.items()}
    errors = {name: cycle_errors(visits, cycles, each) for name, each in samples.items()}
    draw_scores(run, errors)
    found = [measured("forecast_cycles", len(cycles))]
    found += [measured(f"forecast_rmse_{name}", error.mean()) for name, error in errors.items()]
    found += compared(cycles, errors, expected, np.random.default_rng(run.config.seed))
    later = np.array([cycle.number > 0 for cycle in cycles])
    if later.any():
        found += [measured(f"forecast_rmse_later_cycles_{name}", e[later].mean()) for name, e in errors.items()]
    found += of_distributions(visits, cycles, samples)
    found.append(measured("forecast_least_effective_virtual_patients", min(f.effective for f in forecasts)))
    return found


def cycle_errors(visits: Visits, cycles: list[Cycle], samples: list[np.ndarray]) -> np.ndarray:
    """Root mean square over a cycle of median - PSA, over the patient's maximum (which serves for this alone)."""
    largest = np.where(visits.valid, visits.psa, 0.0).max(axis=1)
    found = []
    for cycle, sample in zip(cycles, samples, strict=True):
        miss = np.median(sample, axis=1) - visits.psa[cycle.patient, cycle.asked]
        found.append(np.sqrt(np.mean(miss**2)) / largest[cycle.patient])
    return np.array(found)


def compared(
    cycles: list[Cycle],
    errors: Mapping[str, np.ndarray],
    expected: Mapping[str, dict],
    rng: np.random.Generator,
) -> list[Verdict]:
    """Each twin over each baseline, and the difference with its 95 % interval over patients."""
    patient, found = np.array([cycle.patient for cycle in cycles]), []
    for name in TWINS:
        for baseline in BASELINES:
            target = f"forecast_over_{baseline}"
            ratio = errors[name].mean() / errors[baseline].mean()
            found.append(_gate(f"forecast_{name}_over_{baseline}", ratio, expected, target))
            gap: Difference = paired_bootstrap(errors[name], errors[baseline], patient, rng=rng)
            label = f"forecast_{name}_minus_{baseline}"
            found += [measured(label, gap.mean), measured(f"{label}_low", gap.low), measured(f"{label}_high", gap.high)]
    return found


def of_distributions(visits: Visits, cycles: list[Cycle], samples: Mapping[str, list[np.ndarray]]) -> list[Verdict]:
    """CRPS over the maximum and coverage of 95 % intervals, every visit counting once."""
    largest = np.where(visits.valid, visits.psa, 0.0).max(axis=1)
    asked = [
        (cycle.patient, visits.days[cycle.patient, visit], visit - cycle.start)
        for cycle in cycles
        for visit in range(cycle.start + 1, cycle.stop + 1)
    ]
    patient, day, step = (np.array(column) for column in zip(*asked, strict=True))
    observed = np.concatenate([visits.psa[cycle.patient, cycle.asked] for cycle in cycles])
    targets = Targets(Asked(patient, day, step), observed / largest[patient])
    pooled = {name: np.concatenate(each) / largest[patient][:, None] for name, each in samples.items()}
    scores: Mapping[str, ReplayScores] = score_replay(pooled, targets)
    found = [measured(f"forecast_crps_{name}", score.crps.mean()) for name, score in scores.items()]
    for name in TWINS:
        inside = scores[name].inside
        share = wilson(int(inside.sum()), inside.size)
        found += [
            measured(f"forecast_coverage_{name}", inside.mean()),
            measured(f"forecast_coverage_{name}_low", share.low),
            measured(f"forecast_coverage_{name}_high", share.high),
            measured(f"forecast_interval_width_{name}", np.mean(scores[name].high - scores[name].low)),
        ]
    return found


def write_card(run: Run, visits: Visits, cycles: list[Cycle]) -> None:
    """Who was forecast, how the future was hidden, against what, and where it does not hold."""
    card = ReplayCard(
        name="zhang2022: the next cycle of PSA under adaptive abiraterone",
        cohort="metastatic castration-resistant prostate cancer, adaptive arm of one trial",
        subjects=len({cycle.patient for cycle in cycles}),
        cases=sum(cycle.stop - cycle.start for cycle in cycles),
        split="by time within a patient: visits up to a restart are known, those to the next restart are asked; what "
        "is shared comes from all visits of the other patients",
        site_split="one center; nothing to keep apart",
        comparators=("previous cycle repeated", "mean of the readings so far", "persistence", *TWINS.values()),
        looks="model and settings from fits and first cycles; all cycles once, then frozen",
        limits=(
            "the days of the visits and the end of each cycle are those of the record",
            "the record of the drug tells about the PSA: the forecast under the rule does not use it",
            "readings of one patient are not independent; the interval of coverage takes them as if they were",
            "17 patients of one center",
        ),
        source="doi:10.7554/eLife.76284",
    )
    run.write_json("card.json", card.as_plain())


def _gate(name: str, value: float, expected: Mapping[str, dict], target: str | None = None) -> Verdict:
    """Judged where there is a target, printed otherwise."""
    one = expected.get(target or name)
    return measured(name, value) if one is None else at_most(name, value, one["at_most"], one["unit"], one["source"])
