"""A thousand spatial therapy rehearsals with intervals: by the reduced model in a second, and by a coarse PDE.

`tumortwin reproduce rehearsal`. The surrogate of `rom_glioma`, trained here. A rehearsal is a draw of the prior under
the standard of care, its mass and volumes on six days. Held-out tumors are further draws, solved on the fine grid.
`runtime=ci`: 4 mm voxels with an 8 mm PDE beside them, and fewer of everything.
"""

import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.rom_glioma.run import sized
from tumortwin._chunks import in_chunks
from tumortwin.cli_train_reduced import TrainingCase, fit, held_out_cases, modes_of, simulate_training, training_case
from tumortwin.params import set_parameters
from tumortwin.runs import Run, Verdict, at_most, between, measured
from tumortwin.solvers import simulate
from tumortwin.surrogates import PodSurrogate, calibrate_pod, random_design, rehearse

DRAWS, TRUTHS, QUICK_TRUTHS = 1000, 200, 40
REPEATS = 5
COARSE = 2.0  # times the voxel edge of the surrogate: the PDE beside it


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Train, rehearse, hold against tumors of the fine grid; the coarse PDE beside."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    config = sized(config, quick)
    case = training_case(config, run)
    simulate_training(config, run, case)
    fitted = fit(config, run, case, modes_of(config, run, case))
    count = int(config.surrogate.calibration)
    surrogate = calibrate_pod(fitted, held_out_cases(config, run, case, fitted, "calibration", count))
    draws = random_design(case.prior, DRAWS, key=run.key("draws")).values
    truths = random_design(case.prior, QUICK_TRUTHS if quick else TRUTHS, key=run.key("truths")).values
    truth, _ = solved(case, surrogate, truths)
    seconds = timed(lambda: rehearse(surrogate, draws, case.schedule, case.days, case.solver))
    found = rehearse(surrogate, draws, case.schedule, case.days, case.solver)
    limit, ends = expected["seconds"], expected["coverage"]
    rows = [
        measured("draws", DRAWS),
        measured("days", len(case.days)),
        measured("solves_of_the_pde", found.solves),
        at_most("seconds", seconds, limit["at_most"], "s", limit["source"]),
    ]
    every = []
    for name in surrogate.quantity_names:
        low, _, high = found.interval(name)
        every.append(float(np.mean((low <= truth[name]) & (truth[name] <= high))))
        rows.append(measured(f"coverage_{name}", every[-1]))
        width = np.mean(found.bounds[name], axis=0) / np.maximum(high - low, 1e-9)
        rows.append(measured(f"share_of_the_interval_that_is_surrogate_error_{name}", 2.0 * np.mean(width)))
    rows.append(between("coverage", np.mean(every), *ends["between"], source=ends["source"]))
    return rows + coarse(config, run, draws, truths, truth, surrogate)


def timed(call, repeats: int = REPEATS) -> float:
    """Median seconds of a call; it was made once before."""
    call()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return float(np.median(found))


def solved(case: TrainingCase, surrogate: PodSurrogate, values) -> tuple[dict[str, np.ndarray], float]:
    """Quantities [tumor day] of the PDE, and the seconds that it took (compiled)."""

    @eqx.filter_jit
    def some(model, schedule, rows):
        def one(row):
            found = simulate(set_parameters(model, row), schedule, case.days, case.solver, estimate_error=False)
            cell = model.tissue.grid.cell_volume
            density = jnp.where(found.succeeded, found.states.density, jnp.nan)
            volumes = {n: jnp.sum(density > c, axis=(1, 2, 3)) * cell for n, c in case.levels.items()}
            return {"mass": jnp.sum(density, axis=(1, 2, 3)) * cell} | volumes

        return jax.lax.map(one, rows)

    rows = {path: np.asarray(value) for path, value in values.items()}
    in_chunks(lambda part: some(case.model, case.schedule, part), {p: v[:4] for p, v in rows.items()})
    begin = time.perf_counter()
    found = in_chunks(lambda part: some(case.model, case.schedule, part), rows)
    seconds = time.perf_counter() - begin
    values = {name: np.asarray(value, float) for name, value in found.items()}
    if not all(np.isfinite(value).all() for value in values.values()):
        raise FloatingPointError(
            "required: tumors that are solved; received: some that failed; try: a smaller max_step"
        )
    assert set(values) == set(surrogate.quantity_names)
    return values, seconds


def coarse(config: DictConfig, run: Run, draws, truths, truth: dict[str, np.ndarray], surrogate: PodSurrogate):
    """The same rehearsals by the PDE on voxels of twice the edge: time, error, coverage."""
    larger = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    larger.surrogate.spacing = COARSE * float(config.surrogate.spacing)
    case = training_case(larger, run)  # type: ignore[arg-type]
    drawn, seconds = solved(case, surrogate, draws)
    same, _ = solved(case, surrogate, truths)
    fine = surrogate.many({p: jnp.asarray(v) for p, v in truths.items()}, case.schedule, case.days)
    kept = np.asarray(fine.inside)
    rows = [
        measured("coarse_pde_seconds", seconds, "s"),
        measured("coarse_pde_spacing", larger.surrogate.spacing, "mm"),
    ]
    every = []
    for name, of_truth in truth.items():
        low, high = np.quantile(drawn[name], [0.025, 0.975], axis=0)
        every.append(float(np.mean((low <= of_truth) & (of_truth <= high))))
        scale = np.mean(np.abs(of_truth))
        ours = np.asarray(fine.values[name])
        rows += [
            measured(f"coarse_pde_coverage_{name}", every[-1]),
            measured(f"coarse_pde_mean_error_{name}", np.mean(np.abs(same[name] - of_truth)) / scale),
            measured(f"surrogate_mean_error_{name}", np.mean(np.abs(ours - of_truth)[kept]) / scale),
        ]
    return [*rows, measured("coarse_pde_coverage", np.mean(every))]
