"""One population of mice, by every calibrator: what agrees with NUTS, and what a start by Pathfinder saves."""

import dataclasses
import time

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import HalfNormal, LogNormal

from experiments.sequential.agreement import differences, largest_allowed
from tumortwin.inference import (
    Measurements,
    NutsCalibrator,
    PathfinderCalibrator,
    PopulationProblem,
    Posterior,
    SmcCalibrator,
    SviCalibrator,
    Varying,
    calibrate,
)
from tumortwin.io import load_table
from tumortwin.models import Gompertz
from tumortwin.observation import CombinedError
from tumortwin.runs import Run, Verdict, at_most, measured
from tumortwin.twin import BurdenCurves

ANIMALS = 6
PATHS = [
    "typical.growth_rate",
    "typical.deceleration",
    "between.growth_rate",
    "between.deceleration",
    "residual.sd",
    "residual.cv",
]
LONG, SHORT = 600, 200
COMMON = NutsCalibrator(
    laplace=None, dense=True, draws=600, chunk=200, vectorized=True, tree_depth=8, warmup_tree_depth=5
)
NUTS = dataclasses.replace(COMMON, warmup=LONG)
STARTED = dataclasses.replace(COMMON, warmup=SHORT, start=PathfinderCalibrator())
UNSTARTED = dataclasses.replace(COMMON, warmup=SHORT)
SMC = SmcCalibrator(particles=400, kernel="hmc", leapfrog=8, sweeps=40)
SVI = SviCalibrator(rank=10, steps=3000, chunk=500)


def problem(root: str | None, *, centered: bool) -> PopulationProblem:
    """Gompertz growth of the first mice of the table. Particles begin at the prior, where standard effects are better;
    what begins near the posterior moves the subjects' own values, of which much is known."""
    rows = load_table("benzekry_llc_173", root).padded()
    wanted = (rows.times, rows.lower, rows.upper, rows.valid)
    times, lower, upper, valid = (jnp.asarray(array[:ANIMALS], float) for array in wanted)
    varying = {
        "growth_rate": Varying(LogNormal(np.log(0.7), 1.0), HalfNormal(0.5), centered=centered),
        "deceleration": Varying(LogNormal(np.log(0.08), 1.0), HalfNormal(0.5), centered=centered),
    }
    return PopulationProblem(
        Gompertz(jnp.asarray(0.7), jnp.asarray(0.08)),
        varying,
        CombinedError(jnp.asarray(30.0), jnp.asarray(0.1)),
        {"sd": LogNormal(np.log(30.0), 1.0), "cv": LogNormal(np.log(0.1), 1.0)},
        Measurements(times, lower, upper, valid),
        BurdenCurves(),
        correlated=("growth_rate", "deceleration"),
    )


def mice(run: Run, root: str | None, expected: dict[str, dict]) -> list[Verdict]:
    """All calibrators on the same mice."""
    fits, found = {}, []
    calibrators = {
        "nuts": NUTS, "nuts_from_pathfinder": STARTED, "nuts_short_warmup": UNSTARTED, "smc": SMC, "svi": SVI,
        "pathfinder": PathfinderCalibrator(),
    }  # fmt: skip
    with run.progress.task("mice", total=len(calibrators)) as bar:
        for name, calibrator in calibrators.items():
            begin = time.perf_counter()
            fits[name] = calibrate(problem(root, centered=name != "smc"), calibrator, key=run.key(f"mice/{name}"))
            found.append(measured(f"mice_{name}_seconds", time.perf_counter() - begin, "s"))
            found += _cost(name, fits[name])
            bar.advance()
    target = expected["batch_against_sequential"]
    for name in ("smc", "nuts_from_pathfinder", "svi", "pathfinder"):
        gaps = differences(fits[name], fits["nuts"], PATHS)
        score, apart = max(abs(gap.score) for gap in gaps), max(abs(gap.in_sds) for gap in gaps)
        label = f"mice_{name}_against_nuts"
        if name == "smc":
            limit = largest_allowed(len(gaps), target["family_error"])
            found.append(at_most(f"{label}_largest_score", score, limit, "1", target["source"]))
        else:
            found.append(measured(f"{label}_largest_score", score))
        found.append(measured(f"{label}_largest_difference_in_sds", apart))
    return found


def _cost(name: str, posterior: Posterior) -> list[Verdict]:
    """What it cost and what it says of itself."""
    said = posterior.diagnostics
    names = (
        "gradients",
        "start_gradients",
        "solves",
        "r_hat",
        "ess",
        "divergences",
        "k_hat",
        "sample_reliable",
        "elbo",
    )
    names = (*names, "log_evidence", "log_evidence_sd", "correlation_left", "stages")
    return [measured(f"mice_{name}_{key}", said[key]) for key in names if key in said]
