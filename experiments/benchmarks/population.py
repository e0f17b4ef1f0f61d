"""The Gompertz hierarchy of 53 mice to 4 x 1,000 draws: ours, and PyMC's with the same parametrisation.

`python -m experiments.benchmarks.population WHO [ROOT]` in a process of its own, so that nothing was compiled before
and the clock runs from the first array to the last draw; prints one line of JSON.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WARMUP, DRAWS, CHAINS, ACCEPT = 1000, 1000, 4, 0.8
PEERS = "TUMORTWIN_PEERS"  # a Python that has PyMC, when this one has not
# Medians and log-sds of log-normal priors, sds of half-normal ones; the same for all programs.
TYPICAL = {"growth_rate": (0.7, 1.0), "deceleration": (0.08, 1.0)}  # [1/day]
BETWEEN, SHIFT, CONCENTRATION = 0.5, 0.5, 1.0
ERROR = {"sd": (30.0, 1.0), "cv": (0.1, 1.0)}  # [mm^3], [1]


def rows(root: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`(days, volumes, valid, breast)` of the lung and breast mice, padded to one rectangle."""
    from tumortwin.io import load_table

    lung, breast = (load_table(f"benzekry_{name}", root).padded() for name in ("lung", "breast"))
    width = max(lung.times.shape[1], breast.times.shape[1])

    def wide(array: np.ndarray, mode: Any) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, width - array.shape[1])), mode=mode)

    days = np.concatenate([wide(t.times, "edge") for t in (lung, breast)])
    volumes = np.concatenate([wide(t.values, "constant") for t in (lung, breast)])
    valid = np.concatenate([wide(t.valid, "constant") for t in (lung, breast)])
    group = np.repeat([0.0, 1.0], [len(lung.subjects), len(breast.subjects)])
    return days, volumes, valid, group


def cpu_seconds() -> float:
    """Of this process with all threads, and of its children that have ended (chains, compilers)."""
    return sum(os.times()[:4])


def ours(root: str | None) -> dict[str, float]:
    """NUTS of this package."""
    import jax
    import jax.numpy as jnp
    from numpyro.distributions import HalfNormal, LogNormal, Normal

    from tumortwin.inference import Measurements, NutsCalibrator, PopulationProblem, Varying, calibrate
    from tumortwin.models import Gompertz
    from tumortwin.observation import CombinedError
    from tumortwin.runs import configure_backend
    from tumortwin.twin import BurdenCurves

    configure_backend()
    days, volumes, valid, group = rows(root)
    start, spent = time.perf_counter(), cpu_seconds()
    arrays = (jnp.asarray(a, float) for a in (days, volumes, volumes, valid))
    data = Measurements(*arrays, covariates={"breast": jnp.asarray(group)})

    def varying(name: str) -> Varying:
        median, spread = TYPICAL[name]
        shift = {"breast": Normal(0.0, SHIFT)}
        return Varying(LogNormal(math.log(median), spread), HalfNormal(BETWEEN), centered=True, covariates=shift)

    problem = PopulationProblem(
        Gompertz(jnp.asarray(0.7), jnp.asarray(0.08)),
        {name: varying(name) for name in TYPICAL},
        CombinedError(jnp.asarray(30.0), jnp.asarray(0.1)),
        {name: LogNormal(math.log(median), spread) for name, (median, spread) in ERROR.items()},
        data,
        BurdenCurves(),
        tuple(TYPICAL),
        CONCENTRATION,
    )
    sampler = NutsCalibrator(
        laplace=None, dense=True, chains=CHAINS, warmup=WARMUP, draws=DRAWS, chunk=1000, accept=ACCEPT, threads=2,
        tree_depth=10, warmup_tree_depth=5,
    )  # fmt: skip
    found = calibrate(problem, sampler, key=jax.random.key(0)).diagnostics
    seconds = time.perf_counter() - start
    named = {name: found[name] for name in ("ess", "r_hat", "divergences", "gradients")}
    return {"seconds": seconds, "cpu": cpu_seconds() - spent, "animals": float(len(group)), **named}


def pymc(root: str | None, sampler: str) -> dict[str, float]:
    """The same model in PyMC, sampled by its own NUTS or by nutpie."""
    import arviz  # pyright: ignore[reportMissingImports]
    import pymc as pm  # pyright: ignore[reportMissingImports]
    import pytensor.tensor as pt  # pyright: ignore[reportMissingImports]

    days, volumes, valid, group = (np.asarray(a, float) for a in json.loads(Path(root or "").read_text()))
    start, spent = time.perf_counter(), cpu_seconds()
    seen = valid > 0
    animal = np.nonzero(seen)[0]
    with pm.Model():
        typical = {n: pm.LogNormal(f"typical_{n}", math.log(m), s) for n, (m, s) in TYPICAL.items()}
        shift = pm.Normal("shift", 0.0, SHIFT, shape=2)
        factor, *_ = pm.LKJCholeskyCov("chol", n=2, eta=CONCENTRATION, sd_dist=pm.HalfNormal.dist(BETWEEN, size=2))
        center = pt.log(pt.stack([typical[n] for n in TYPICAL]))[None, :] + group[:, None] * shift[None, :]
        effects = pm.MvNormal("effects", mu=center, chol=factor, shape=(len(group), 2))
        rate, slow = pt.exp(effects[animal, 0]), pt.exp(effects[animal, 1])
        curve = pt.exp(rate / slow * (1.0 - pt.exp(-slow * days[seen])))
        sd, cv = (pm.LogNormal(n, math.log(m), s) for n, (m, s) in ERROR.items())
        pm.Normal("y", curve, pt.sqrt(sd**2 + (cv * curve) ** 2), observed=volumes[seen])
        drawn = pm.sample(
            DRAWS, tune=WARMUP, chains=CHAINS, cores=len(os.sched_getaffinity(0)), target_accept=ACCEPT,
            random_seed=0, progressbar=False, nuts_sampler=sampler, compute_convergence_checks=False,
        )  # fmt: skip
    seconds = time.perf_counter() - start

    def worst(found: Any, least: bool) -> float:
        values = [float(np.nanmin(v) if least else np.nanmax(v)) for v in found.data_vars.values()]
        return min(values) if least else max(values)

    posterior = drawn.posterior.drop_vars(["chol_corr"], errors="ignore")  # its diagonal is 1
    return {
        "seconds": seconds,
        "cpu": cpu_seconds() - spent,
        "animals": float(len(group)),
        "ess": worst(arviz.ess(posterior), True),
        "r_hat": worst(arviz.rhat(posterior), False),
        "divergences": float(drawn.sample_stats["diverging"].sum()),
    }


def measure(who: str, root: str | None) -> dict[str, float] | str:
    """The numbers of one program, or why there are none."""
    given = [] if root is None else [root]
    if who == "tumortwin":
        return alone("population", [who, *given])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as table:
        json.dump([np.asarray(a).tolist() for a in rows(root)], table)
        table.flush()
        return alone("population", [who, table.name], os.environ.get(PEERS, sys.executable))


def alone(module: str, words: list[str], python: str = sys.executable) -> dict[str, float] | str:
    """What a module of this folder prints in a fresh process with an empty cache of compiled programs, or its error."""
    here = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder, "PYTENSOR_FLAGS": f"base_compiledir={folder}"}
        command = [python, "-m", f"experiments.benchmarks.{module}", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=here, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr else f"exit {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    name, where = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    print(json.dumps(ours(where) if name == "tumortwin" else pymc(where, name)))
