"""Are the intervals true where the truth is known? Ranks of simulated truths, and coverage of forecasts.

`tumortwin reproduce calibration`. The seed and every target stand in `expected.json`, fixed before the experiment was
run. `runtime=ci`: ten simulations of each kind.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig

from experiments.calibration import glioma, population
from experiments.calibration.figures import draw_coverage, draw_ranks
from tumortwin.cli_stages import Checkpoints
from tumortwin.inference import (
    AbstractCalibrator,
    PsisCalibrator,
    SimulationBasedCalibration,
    prior_plausibility,
    prior_predictive,
    simulation_based_calibration,
)
from tumortwin.runs import Run, Verdict, at_least, between, measured

FULL = {"gompertz": 200, "logistic": 25, "heavy_tails": 25, "bank": 200, "psis": 100}
QUICK = {"gompertz": 10, "logistic": 5, "heavy_tails": 5, "bank": 10, "psis": 10}
MEMBERS, QUICK_MEMBERS, CHUNK = 16384, 4096, 1024
BINS = 10
PLAUSIBLE = (0.0, 20_000.0)  # [mm^3] no mouse carries more than 20 g of tumor; below 0 only the error of a caliper
PRIOR_DRAWS = 500

Targets = Mapping[str, Mapping[str, Any]]


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Population and glioma: ranks, coverage, and what the calibrators said of themselves."""
    quick = bool(config.runtime.quick)
    expected: Targets = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    key = jax.random.key(int(expected["seed"]["value"]))
    sizes = QUICK if quick else FULL
    mice = _mice(run, sizes, key)
    patients = _gliomas(run, sizes, QUICK_MEMBERS if quick else MEMBERS, key)
    found = plausibility(_child(key, "prior"))
    found += _judged("population", mice["gompertz"], population.JUDGED, {}, expected, quick)
    found += forecasts(mice, expected, quick)
    for kind, study in patients.items():
        found += _judged(f"glioma_{kind}", study, glioma.JUDGED, glioma.SHORT, expected, quick)
    found += _glioma_forecast(patients["bank"])
    shown = {"population": (mice["gompertz"], population.JUDGED)}
    shown |= {f"glioma_{kind}": (study, glioma.JUDGED) for kind, study in patients.items()}
    draw_ranks(run, shown, BINS, glioma.SHORT)
    draw_coverage(run, mice, population.FORECAST, population.JUDGED)
    return found


def _child(key: Array, name: str) -> Array:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _study(
    run: Run, name: str, simulate: Any, calibrator: AbstractCalibrator, n: int, key: Array, **settings: Any
) -> SimulationBasedCalibration:
    with run.progress.task(name, total=n) as bar:
        return simulation_based_calibration(
            simulate,
            calibrator,
            n,
            progress=bar.update,
            checkpoint=Checkpoints(run, name),
            key=_child(key, name),
            **settings,
        )


def _mice(run: Run, sizes: Mapping[str, int], key: Array) -> dict[str, SimulationBasedCalibration]:
    """The study under the fitted model and under the two truths that it does not hold."""
    blank = np.ones((population.ANIMALS, len(population.FITTED)))
    base = population.problem_of(jax.numpy.asarray(blank))
    return {
        law: _study(
            run,
            law,
            population.Mice(law, base),
            population.SAMPLER,
            sizes[law],
            key,
            quantities=population.quantities,
        )
        for law in ("gompertz", "logistic", "heavy_tails")
    }


def _gliomas(run: Run, sizes: Mapping[str, int], members: int, key: Array) -> dict[str, SimulationBasedCalibration]:
    """The same patients by the bank and by the twin's own calibrator."""
    base = glioma.template()
    with run.progress.task("bank of simulations", total=members) as bar:
        bank = glioma.bank_of(
            base, members, chunk=CHUNK, advance=lambda done: bar.update(done, members), key=_child(key, "members")
        )
    by_bank = _study(run, "bank", glioma.Patients(base, True), bank, sizes["bank"], key)
    by_psis = _study(run, "psis", glioma.Patients(base, False), PsisCalibrator(), sizes["psis"], key)
    return {"bank": by_bank, "psis": by_psis}


def plausibility(key: Array) -> list[Verdict]:
    """Whether the priors that truths are drawn from expect tumors that could be."""
    blank = np.ones((population.ANIMALS, len(population.FITTED)))
    base = population.problem_of(jax.numpy.asarray(blank))
    found = prior_plausibility(prior_predictive(base, PRIOR_DRAWS, key=key), *PLAUSIBLE)
    return [measured("population_prior_plausible_share", found.inside)]


def _judged(
    part: str,
    study: SimulationBasedCalibration,
    names: tuple[str, ...],
    short: Mapping[str, str],
    expected: Targets,
    quick: bool,
) -> list[Verdict]:
    """Uniformity of the ranks of every parameter (Bonferroni), its coverage, and the health of the posteriors."""
    level = float(expected["uniformity_level"]["value"]) / len(names)
    source = str(expected["uniformity_level"]["source"])
    target = expected["population_simulations" if part == "population" else "glioma_simulations"]
    count = f"{part}_simulations"
    found = [
        measured(count, study.simulations)
        if quick
        else at_least(count, study.simulations, float(target["at_least"]), "1", str(target["source"]))
    ]
    for name in names:
        label = f"{part}_{short.get(name, name)}"
        if quick:
            found.append(measured(f"{label}_rank_p_value", study.histogram(name, bins=2)[1]))
        else:
            found.append(at_least(f"{label}_rank_p_value", study.histogram(name, BINS)[1], level, "1", source))
        found.append(measured(f"{label}_coverage", study.coverage(name).share))
    if population.FIT in study.ranks:
        found.append(
            measured(f"{part}_log_likelihood_rank_p_value", study.histogram(population.FIT, 2 if quick else BINS)[1])
        )
    return found + _health(part, study)


def _health(part: str, study: SimulationBasedCalibration) -> list[Verdict]:
    """What the calibrator said of the posteriors, none of which was left out."""
    said = study.diagnostics
    found = [measured(f"{part}_least_effective_draws", said["ess"].min())]
    found.append(measured(f"{part}_median_effective_draws", np.median(said["ess"])))
    for name, limit in (("r_hat", 1.01), ("divergences", 0.0), ("k_hat", 0.7)):
        if name in said:
            found.append(measured(f"{part}_share_with_{name}_above_{limit:g}", np.mean(said[name] > limit)))
    return found


def forecasts(mice: Mapping[str, SimulationBasedCalibration], expected: Targets, quick: bool) -> list[Verdict]:
    """95 % intervals of the held-out volumes: judged under the fitted model, reported under the two others."""
    found = []
    for law, study in mice.items():
        inside = study.coverage(population.FORECAST)
        animals = study.simulations * population.ANIMALS
        if law == "gompertz" and not quick:
            target, patients = expected["coverage_of_forecasts"], expected["forecast_patients"]
            found.append(
                at_least("forecast_patients", animals, float(patients["at_least"]), "1", str(patients["source"]))
            )
            ends = float(target["low"]), float(target["high"])
            found.append(between("forecast_coverage", inside.share, *ends, "1", str(target["source"])))
        else:
            prefix = "forecast" if law == "gompertz" else f"{law}_forecast"
            found += [measured(f"{prefix}_patients", animals), measured(f"{prefix}_coverage", inside.share)]
        found += _by_day(law, study)
    return found


def _by_day(law: str, study: SimulationBasedCalibration) -> list[Verdict]:
    """Coverage on each day with its standard error over simulations, which animals share; PIT's mean."""
    prefix = "forecast" if law == "gompertz" else f"{law}_forecast"
    below = study.probabilities[population.FORECAST]
    inside = (below >= 0.025) & (below <= 0.975)
    found = []
    for j, day in enumerate(population.HELD_OUT):
        by_simulation = inside[:, :, j].mean(axis=1)
        error = by_simulation.std(ddof=1) / np.sqrt(by_simulation.size)
        found.append(measured(f"{prefix}_coverage_day_{day:g}", by_simulation.mean()))
        found.append(measured(f"{prefix}_coverage_day_{day:g}_standard_error", error))
    return [*found, measured(f"{prefix}_mean_pit", below.mean())]


def _glioma_forecast(study: SimulationBasedCalibration) -> list[Verdict]:
    inside = study.coverage(glioma.MASS)
    return [
        measured("glioma_mass_day_150_coverage", inside.share),
        measured("glioma_mass_day_150_coverage_low", inside.low),
        measured("glioma_mass_day_150_coverage_high", inside.high),
    ]
