"""`tumortwin train surrogate=pod`: draws from the prior, courses of the model, and a reduced-order model of them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from tumortwin import __version__
from tumortwin.cli_files import row_of
from tumortwin.cli_patient import glioma_settings, load_case, planned_treatment, prior_medians
from tumortwin.config import ConfigError, flatten, instantiate
from tumortwin.inference import Prior
from tumortwin.io import read_samples, write_samples, write_surrogate
from tumortwin.models import GivenDensity, ReactionDiffusion
from tumortwin.runs import Run
from tumortwin.solvers import FixedSteps
from tumortwin.surrogates import (
    Basis,
    Design,
    HeldOut,
    ParameterDomain,
    PodSettings,
    PodSurrogate,
    Samples,
    basis_of,
    calibrate_pod,
    fit_pod,
    hold_against,
    random_design,
    simulate_samples,
    sobol_design,
)
from tumortwin.treatments import Schedule
from tumortwin.twin import ModelFrame, Patient, Twin

# Draws of the prior on which the limits of the domain are set; nothing is solved for them.
_EXPECTED = 2000
_DENSITY, _ERROR, _SUCCEEDED = "density", "error_estimate", "succeeded"


@dataclasses.dataclass(frozen=True)
class TrainingCase:
    """What a surrogate is trained on: the model with its fixed start, the prior of what varies, the schedule, the
    solver, the days of a training course and those on which it is held against the model, levels and settings."""

    model: ReactionDiffusion
    prior: Prior
    schedule: Schedule
    solver: FixedSteps
    snapshot_days: tuple[float, ...]
    days: tuple[float, ...]
    levels: Mapping[str, float]
    settings: PodSettings


def training_case(
    config: DictConfig, run: Run, *, patient: Patient | None = None, shape: tuple[int, int, int] | None = None
) -> TrainingCase:
    """The anatomy of the patient's first scan, and its outlines at the prior's medians as the start.

    **Arguments:** `patient`: that of the configuration, where it was loaded before; `shape` of the box [voxel], where
    it is not to follow from the margin.

    **Raises:** `ConfigError` for a parameter without a prior, or days out of order.
    """
    s = config.surrogate
    if patient is None:
        patient = load_case(config, run.key("patient")).patient
    first = patient.until(patient.scans[0].day)
    priors = instantiate(flatten(config.prior), where="prior")
    missing = [path for path in s.parameters if path not in priors]
    days = tuple(float(d) for d in s.days)
    if missing or not days or days[0] <= 0.0 or (np.diff(days) <= 0.0).any():
        raise ConfigError(
            "required: surrogate.parameters that have a prior, and increasing surrogate.days after day 0\n"
            f"received: {missing or list(days)}\ntry:      `--cfg job` to see the composed configuration"
        )
    solver = instantiate(config.solver, where="solver")
    spacing, margin, bucket = float(s.spacing), float(config.geometry.margin), int(config.geometry.bucket)
    if shape is None:
        frame = ModelFrame.around(first, spacing=spacing, margin=margin, bucket=bucket)
    else:
        frame = ModelFrame.of_shape(first, shape, spacing=spacing)
    problem = Twin(first, frame, solver, priors, glioma_settings(config, "contours")).problem()
    model, _ = problem.bind(prior_medians(problem))
    start = GivenDensity(model.initial.state(model.tissue).density)
    return TrainingCase(
        model=eqx.tree_at(lambda m: m.initial, model, start),
        prior=Prior({path: priors[path] for path in s.parameters}),
        schedule=planned_treatment(config),
        solver=solver,
        snapshot_days=tuple(np.linspace(0.0, days[-1], int(s.snapshots) + 1)[1:].tolist()),
        days=days,
        levels={name: float(level) for name, level in s.levels.items()},
        settings=instantiate(s.settings, where="surrogate.settings"),
    )


def run_train_reduced(config: DictConfig, run: Run) -> None:
    """Prior -> `training/` -> `calibration/` -> `surrogate/`."""
    with run.progress.task("patient"):
        case = training_case(config, run)
    simulate_training(config, run, case)
    with run.stage("surrogate", outputs=["surrogate", "calibration"]) as stage:
        if stage.needed:
            basis = modes_of(config, run, case)
            fitted = fit(config, run, case, basis)
            held_out = held_out_cases(config, run, case, fitted, "calibration", int(config.surrogate.calibration))
            surrogate = calibrate_pod(fitted, held_out)
            rows = _rows(surrogate, basis, held_out)
            write_surrogate(run.path("surrogate"), surrogate, _made(config, rows))
            run.write_results(rows)


# --- training data ---


def simulate_training(config: DictConfig, run: Run, case: TrainingCase) -> None:
    """The stage `simulate`: `training/chunk_*.zarr`, the samples of the Sobol sequence, one file a chunk; those that
    are there stay."""
    with run.stage("simulate", outputs=["training"]) as stage:
        if stage.needed:
            _simulate(config, run, case)


def _simulate(config: DictConfig, run: Run, case: TrainingCase) -> None:
    design = sobol_design(case.prior, int(config.surrogate.training), seed=int(config.seed))
    size = int(config.surrogate.chunk)
    with run.progress.task("training samples", total=design.size) as bar:
        for start in range(0, design.size, size):
            path = _chunk(run, "training", start // size)
            rows = design.rows(slice(start, start + size))
            if not path.is_dir():
                found = simulate_samples([case.model], [case.schedule], rows, case.snapshot_days, case.solver)
                write_samples(path, _arrays(found), _attributes(config, case, "Sobol", start))
            bar.advance(rows.size)


def _chunk(run: Run, folder: str, index: int) -> Path:
    return run.path(folder, f"chunk_{index:04d}.zarr")


def _arrays(found: Samples) -> dict[str, np.ndarray]:
    return {
        **{path: np.asarray(value) for path, value in found.design.values.items()},
        "anatomy": found.design.anatomy,
        "schedule": found.design.schedule,
        _DENSITY: found.density,
        _ERROR: found.error_estimate,
        _SUCCEEDED: found.succeeded,
    }


def _attributes(config: DictConfig, case: TrainingCase, sequence: str, first: int) -> dict[str, Any]:
    """What the samples of a chunk are of."""
    return {
        "seed": int(config.seed),
        "sequence": sequence,
        "first_sample": first,
        "days": list(case.snapshot_days if sequence == "Sobol" else case.days),
        "solver": type(case.solver).__name__,
        "max_step_day": case.solver.max_step,
        "max_diffusivity_mm2_per_day": case.solver.max_diffusivity,
        "error_estimate": "relative L2 error of the time step, by Richardson's extrapolation, day by day",
        "schedule": case.schedule.describe(),
        "spacing_mm": list(case.model.tissue.grid.spacing),
        "version": __version__,
    }


def stored_samples(run: Run, paths: tuple[str, ...]) -> Iterator[Samples]:
    """The chunks of `training/`, one after another."""
    for path in sorted(run.path("training").glob("chunk_*.zarr")):
        arrays, attrs = read_samples(path)
        design = Design({p: arrays[p] for p in paths}, arrays["anatomy"], arrays["schedule"])
        yield Samples(design, tuple(attrs["days"]), arrays[_DENSITY], arrays[_ERROR], arrays[_SUCCEEDED].astype(bool))


# --- fit and bounds ---


def modes_of(config: DictConfig, run: Run, case: TrainingCase, count: int | None = None) -> Basis:
    """The modes of the stored samples. Samples whose solve failed are left out, and said."""
    failed = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal failed
        for samples in stored_samples(run, case.prior.paths):
            failed += int((~samples.succeeded).sum())
            yield samples.snapshots()

    with run.progress.task("modes"):
        found = basis_of(case.model, blocks(), case.settings.modes if count is None else count)
    if failed:
        run.say(
            f"caution: {failed} of {int(config.surrogate.training)} training samples could not be solved and were left "
            "out"
        )
    return found


def fit(
    config: DictConfig, run: Run, case: TrainingCase, basis: Basis, settings: PodSettings | None = None
) -> PodSurrogate:
    """The reduced-order model of the stored samples."""
    settings = case.settings if settings is None else settings
    design = sobol_design(case.prior, int(config.surrogate.training), seed=int(config.seed))
    expected = random_design(case.prior, _EXPECTED, key=run.key("domain"))
    return fit_pod(
        case.model,
        basis,
        ParameterDomain.of(design.values, expected.values, settings.domain_level),
        design.values,
        levels=case.levels,
        solver=case.solver,
        horizon=case.days[-1],
        settings=settings,
        seed=int(config.seed),
    )


def held_out_cases(
    config: DictConfig, run: Run, case: TrainingCase, surrogate: PodSurrogate, name: str, count: int
) -> HeldOut:
    """`NAME/chunk_*.zarr`: the surrogate beside the model on independent draws of the prior; chunks there stay."""
    design = random_design(case.prior, count, key=run.key(name))
    size, parts = int(config.surrogate.chunk), []
    with run.progress.task(f"held out: {name}", total=count) as bar:
        for start in range(0, count, size):
            path, rows = _chunk(run, name, start // size), design.rows(slice(start, start + size))
            if not path.is_dir():
                samples = simulate_samples(
                    [case.model], [case.schedule], rows, case.days, case.solver, estimate_error=False
                )
                found = hold_against(surrogate, samples, [case.schedule])
                values = {p: np.asarray(v) for p, v in rows.values.items()}
                attrs = _attributes(config, case, "independent", start)
                write_samples(path, values | found.flat(), attrs)
            arrays, _ = read_samples(path)
            parts.append(HeldOut.of_flat((0.0, *case.days), arrays))
            bar.advance(rows.size)
    return HeldOut.of_parts(parts)


def _rows(surrogate: PodSurrogate, basis: Basis, held_out: HeldOut) -> list[dict[str, Any]]:
    inside = held_out.rows(np.flatnonzero(held_out.inside))
    error = inside.true_error[:, 1:]
    vouched = np.max(np.asarray(surrogate.error.density_bound(jnp.asarray(inside.estimate))), axis=1)
    rows = [
        row_of("surrogate.modes", surrogate.operators.size, "1"),
        row_of("surrogate.lost", basis.lost[-1], "1"),
        row_of("surrogate.cases", len(held_out.inside), "1"),
        row_of("surrogate.flagged_share", 1.0 - held_out.inside.mean(), "1"),
        row_of("surrogate.rejected_share", float(np.mean(~(vouched <= float(surrogate.error.tolerance)))), "1"),
        row_of("surrogate.relative_l2_median", np.median(error), "1"),
        row_of("surrogate.relative_l2_q95", np.quantile(error, 0.95), "1"),
        row_of("surrogate.density_factor", float(surrogate.error.density_factor), "1"),
    ]
    for name, dice in sorted(inside.dice.items()):
        rows.append(row_of(f"surrogate.dice_{name}_q05", np.nanquantile(dice[:, 1:], 0.05), "1"))
    return rows


def _made(config: DictConfig, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How a surrogate was made and what was found; null for what has no number."""
    found = {row["name"]: row["value"] if np.isfinite(row["value"]) else None for row in rows}
    return {"seed": int(config.seed), "training": int(config.surrogate.training), "version": __version__} | found
