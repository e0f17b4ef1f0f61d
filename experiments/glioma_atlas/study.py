"""One virtual patient from scans to scores: what the coverage study repeats over seeds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from tumortwin.cli_scans import TRUTH_PATHS, Setting, prepare, truth_intervals
from tumortwin.config import instantiate
from tumortwin.inference import Posterior, calibrate
from tumortwin.metrics import crps
from tumortwin.runs import Run
from tumortwin.twin import Forecast, Patient, forecast, replay_cases, replay_scores, truth_entries

JUDGED = ("diffusivity", "rate", "alpha", "volume_flair_120", "volume_flair_180")
"""The quantities whose coverage is judged: D, mass-weighted rho, alpha, V120, V180 (FLAIR volume, noise-free)."""

LEARNED = ("diffusivity", "rate", "alpha")
"""The parameters whose posterior is compared with the prior by a proper score."""


def with_seed(config: DictConfig, seed: int) -> DictConfig:
    """The configuration with another seed."""
    changed = OmegaConf.create(OmegaConf.to_container(config))
    changed.seed = seed
    return changed  # type: ignore[return-value]


def posterior_of(config: DictConfig, seeded: Run, setting: Setting) -> Posterior:
    """The posterior of one patient by the configured calibrator."""
    calibrator = instantiate(config.calibrator, where="calibrator")
    return calibrate(setting.problem, calibrator, key=seeded.key("calibrate"))


def one_patient(config: DictConfig, run: Run, seed: int, file: Path) -> list[dict[str, Any]]:
    """Results of one seed, from `file` when they are there (a killed study goes on where it was)."""
    if file.is_file():
        return json.loads(file.read_text())
    seeded = run.seeded(seed)
    setting = prepare(with_seed(config, seed), seeded)
    posterior = posterior_of(config, seeded, setting)
    case = setting.case
    days = sorted({0.0, *(scan.day for scan in case.patient.scans)})
    found = forecast(setting.problem, posterior, days, n_draws=int(config.draws), key=seeded.key("forecast"))
    cases = replay_cases(
        case.known,
        case.hidden,
        setting.twin.frame,
        found,
        radial_velocity=float(config.patient.baseline.radial_velocity),
        doubling_time=float(config.patient.baseline.doubling_time),
    )
    rows = replay_scores(cases, case.patient) + truth_entries(case.patient, truth_intervals(posterior, found))
    for name in ("k_hat", "ess", "sample_reliable", "map_converged"):
        if name in posterior.diagnostics:
            rows.append({"name": f"diagnostics.{name}", "value": float(posterior.diagnostics[name])})
    rows += prior_coverage(case.patient, setting)
    rows += sharpness(case.patient, posterior, found)
    rows += [{"name": f"fact.{name}", "value": float(value)} for name, value in case.patient.facts.items()]
    for name, value in posterior.info["correlation_volume_mm3"].items():
        rows.append({"name": f"correlation_volume.{name}", "value": float(value)})
    run.write_text(str(file.relative_to(run.directory)), json.dumps(rows))
    return rows


def prior_coverage(patient: Patient, setting: Setting) -> list[dict[str, Any]]:
    """Whether the prior's own 95 % intervals hold the truths: what coverage is to be had without any data."""
    low, high = (setting.problem.prior.quantile(level) for level in (0.025, 0.975))
    truth = patient.truth or {}
    return [
        {"name": f"prior.{name}.covered", "value": float(float(low[path]) <= truth[name] <= float(high[path]))}
        for name, path in TRUTH_PATHS.items()
        if name in truth and path in low
    ]


def sharpness(patient: Patient, posterior: Posterior, found: Forecast) -> list[dict[str, Any]]:
    """CRPS of log D, log rho and log alpha under the posterior and under the prior: what an interval that covers is
    worth. Where their ratio is 1 the data taught nothing, whatever the coverage. Empty for a patient without a truth.
    """
    rows = []
    for name in (name for name in LEARNED if name in (patient.truth or {})):
        path, truth = TRUTH_PATHS[name], float((patient.truth or {})[name])
        # The truth of a rate that varies within the tumor is its mean over the tumor mass of the first day.
        after = (found.growth_rate[:, 0], None) if name == "rate" else (posterior.draws[path], posterior.weights)
        for who, (draws, weights) in {"posterior": after, "prior": (posterior.prior_draws[path], None)}.items():
            flat = None if weights is None else np.ravel(weights)
            score = crps(np.log(np.ravel(np.asarray(draws))), np.log(truth), flat)
            rows.append({"name": f"{who}.{name}.crps", "value": score})
    return rows


def values(rows: list[dict[str, Any]]) -> dict[str, float]:
    """name -> value; what has none is NaN."""
    return {row["name"]: np.nan if row["value"] is None else float(row["value"]) for row in rows}
