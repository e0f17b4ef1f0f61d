"""The next two sizes of a lesion under immunotherapy or chemotherapy, for 466 patients, beside what needs no mechanism.

`tumortwin reproduce laleh2022 [data.root=DIR]`. Every number that is judged stands in `expected.json`, fixed before the
hidden readings were looked at. `runtime=ci`: fewer draws; the same targets where they hold for any table.
"""

import json
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.laleh2022.figures import draw_crps, draw_patients, draw_pit
from experiments.laleh2022.study import (
    CAREFUL,
    HIDDEN,
    LEAST,
    MODEL,
    QUICK,
    Cohort,
    cohort_of,
    fitted,
    log_diameter,
    samples_of,
)
from tumortwin.cli_stages import Checkpoints
from tumortwin.inference import Posterior
from tumortwin.io import load_table
from tumortwin.metrics import (
    ReplayCard,
    ReplayScores,
    Targets,
    compare_replay,
    score_replay,
    subgroup_table,
)
from tumortwin.models import REGIMES
from tumortwin.runs import Run, Verdict, at_least, at_most, between, measured

DRAWS, QUICK_DRAWS = 1200, 400
PUBLIC = (
    1042,
    466,
)  # patients, and those who are forecast, of the table for which the numbers of persistence were known
SCALES = {"volume": "relative volume", "log_diameter": "log(1 + diameter / mm)"}


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The fit, the forecasts, their scores beside every baseline, subgroups, card and figures."""
    quick, seed = bool(config.runtime.quick), int(config.seed)
    cohort = cohort_of(load_table("laleh", config.data.root))
    posterior, seconds = fit(run, cohort, quick)
    with run.progress.task("forecasts"):
        samples = samples_of(cohort, posterior, QUICK_DRAWS if quick else DRAWS, key=run.key("forecast"), seed=seed)
    found, scores = judge(cohort, samples, seed)
    subgroups(run, cohort, scores["volume"][MODEL])
    card(run, cohort)
    draw_patients(run, cohort, samples[MODEL])
    draw_pit(run, cohort.targets, scores["volume"][MODEL])
    draw_crps(run, scores, SCALES)
    return reliability(posterior, seconds, quick) + found


def fit(run: Run, cohort: Cohort, quick: bool) -> tuple[Posterior, float]:
    """NUTS on the known readings of all patients."""
    with run.progress.task("posterior") as bar:
        return fitted(
            cohort,
            QUICK if quick else CAREFUL,
            key=run.key("posterior"),
            progress=lambda _, done, total: bar.update(done, total),
            checkpoint=Checkpoints(run, "posterior"),
        )


def reliability(posterior: Posterior, seconds: float, quick: bool) -> list[Verdict]:
    """The chains, before any number that depends on them."""
    said, expected = posterior.diagnostics, targets_fixed()
    if quick:
        return [at_most("r_hat", said["r_hat"], 1.05), measured("least_ess", said["ess"])]
    ess = expected["ess"]
    found = [
        at_most("r_hat", said["r_hat"], 1.01),
        at_most("divergences", said["divergences"], 0.0),
        at_least("least_ess", said["ess"], ess["at_least"], ess["unit"], ess["source"]),
        measured("sampling_seconds_of_all_patients", seconds, "s"),
    ]
    rates = posterior.draws["growth.rate"]
    for k, name in enumerate(REGIMES):
        found.append(measured(f"rate_{name}", rates[..., k].mean(), "1/day"))
    return found


def judge(
    cohort: Cohort, samples: dict[str, np.ndarray], seed: int
) -> tuple[list[Verdict], dict[str, dict[str, ReplayScores]]]:
    """Persistence as known, the error beside it, CRPS beside every baseline on both scales, coverage of both steps."""
    rng, targets, expected = np.random.default_rng(seed), cohort.targets, targets_fixed()
    scores = {
        "volume": score_replay(samples, targets),
        "log_diameter": score_replay(samples, targets, transform=lambda v: log_diameter(cohort, v)),
    }
    volume = scores["volume"]
    found = persistence(cohort, targets, volume["persistence"].error, expected)
    for scale, of_scale in scores.items():
        for entry in (e for s in of_scale.values() for e in s.entries(targets, prefix=scale)):
            if scale == "volume" or entry["name"].endswith(".crps"):
                found.append(measured(entry["name"], entry["value"], entry["unit"]))
    margin, better, cover = (expected[name] for name in ("error_margin", "crps_difference", "coverage"))
    error = compare_replay(volume, MODEL, targets, score="error", rng=rng)["persistence"]
    base = volume["persistence"].error.mean()
    found.append(measured("error_over_persistence", volume[MODEL].error.mean() / base))
    name = "error_difference_upper_over_persistence"
    found.append(at_most(name, error.high / base, margin["at_most"], "1", margin["source"]))
    for scale, of_scale in scores.items():
        for other, difference in compare_replay(of_scale, MODEL, targets, rng=rng).items():
            name = f"crps_{scale}_minus_{other}"
            found.append(at_most(name, difference.mean, better["at_most"], "1", better["source"]))
            found += [measured(f"{name}_lower", difference.low), measured(f"{name}_upper", difference.high)]
    for step in np.unique(targets.asked.step).tolist():
        share = volume[MODEL].inside[targets.asked.step == step].mean()
        found.append(between(f"coverage_step{step}", share, cover["low"], cover["high"], "1", cover["source"]))
    return found, scores


def targets_fixed() -> dict[str, dict]:
    """`expected.json`."""
    return json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))


def persistence(cohort: Cohort, targets: Targets, error: np.ndarray, expected: dict) -> list[Verdict]:
    """The error of persistence, with and without the patient of the largest one: known beforehand for one table."""
    subjects = np.unique(targets.asked.subject, return_inverse=True)[1]
    own = np.bincount(subjects, weights=error) / np.bincount(subjects)
    kept = subjects != own.argmax()
    values = {"persistence_error": error.mean(), "persistence_error_without_largest": error[kept].mean()}
    if (len(cohort.known), int(cohort.chosen.sum())) != PUBLIC:
        return [measured(name, value) for name, value in values.items()]
    return [
        between(name, v, e["value"] - e["within"], e["value"] + e["within"], e["unit"], e["source"])
        for name, v in values.items()
        for e in (expected[name],)
    ]


def subgroups(run: Run, cohort: Cohort, score: ReplayScores) -> None:
    """Whom the forecast serves less well."""
    targets = cohort.targets
    last = cohort.diameters.values[np.arange(len(cohort.known)), cohort.known - 1]
    readings = np.where(cohort.known <= 5, "4-5", np.where(cohort.known <= 7, "6-7", "8 or more"))
    groups = {
        "arm": cohort.arms,
        "last_reading": np.where(last == 0.0, "vanished", "measured"),
        "known_readings": readings,
    }
    rows = subgroup_table(score, targets, groups, rng=np.random.default_rng(int(run.config.seed)))
    lines = ["| subgroup | patients | mean absolute error | CRPS | coverage | 95 % |", "|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(
            f"| {r.label} | {r.subjects} | {r.error:.5f} | {r.crps:.5f} | {r.coverage:.3f} | "
            f"{r.coverage_low:.3f}-{r.coverage_high:.3f} |"
        )
    run.write_text("subgroups.md", "\n".join(lines) + "\n")


def card(run: Run, cohort: Cohort) -> None:
    """What a reader must know."""
    run.write_json(
        "card.json",
        ReplayCard(
            name="laleh2022",
            cohort="lesions under atezolizumab or docetaxel in five trials (lung and bladder), one series a patient",
            subjects=int(cohort.chosen.sum()),
            cases=cohort.targets.cases,
            split=f"by time: the last {HIDDEN} readings of patients with {LEAST} or more are hidden; all other "
            "readings, and all those of patients with fewer, are known",
            site_split="no sites in the table; arms are a subgroup, not a split",
            comparators=(
                "persistence", "exponential, logistic, Gompertz and general Bertalanffy by patient", "population mean",
                "gradient boosting on volumes and on log-diameters", "empirical random walk of log-diameters",
            ),
            looks="see README.md of the experiment",
            limits=(
                "one lesion, or a sum of lesions, of a patient: the paper does not say which",
                "who is forecast had six readings or more, which is known only afterwards; the last of them often ends "
                "the series because the lesion grew",
                "no dose times: treatment is a hidden regime",
                "days of the hidden readings are given",
            ),
            source="Ghaffari Laleh et al., PLOS Comput. Biol. 18 (2022) e1009822",
        ).as_plain(),
    )  # fmt: skip
