"""Who plans: the PDE, a coarse one, reduced models and the neural operator with and without the PDE behind them, and
masses without space."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from omegaconf import DictConfig, OmegaConf

from experiments.decision_regret.mass import Learned, learn_masses, log_masses
from experiments.rom_glioma.run import DIFFUSIVITY, training_design
from tumortwin._chunks import in_chunks
from tumortwin.cli_files import Checkpoints
from tumortwin.cli_train_reduced import TrainingCase, fit, held_out_cases, modes_of, stored_samples, training_case
from tumortwin.inference import Training
from tumortwin.io import read_surrogate
from tumortwin.models import ReactionDiffusion
from tumortwin.params import set_parameters
from tumortwin.runs import Run
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.surrogates import (
    FnoSurrogate,
    ParameterDomain,
    PodSurrogate,
    Quantities,
    basis_of,
    calibrate_pod,
    fit_pod,
    random_design,
)
from tumortwin.treatments import Schedule
from tumortwin.twin import Patient

FEW_MODES = 8
COARSE = 2.0  # times the voxel edge of the surrogate: the PDE beside it
DRAWS = 4000  # of the prior, on which the limits of a domain are set
LEARNING = Training(rate=0.01, epochs=200, patience=40, average=0.98)
QUICK_LEARNING = Training(rate=0.01, epochs=10, patience=10, average=0.95)
TRUTH = "pde"
# The network that is shipped: trained on other places and starts of this brain and on a design of courses, to which
# those with even doses belong.
OPERATOR = Path(__file__).parents[2] / "data" / "pretrained" / "operator_glioma"

Values = Mapping[str, Float[np.ndarray, " draw"]]
Planner = Callable[[Values, Schedule], tuple[Float[np.ndarray, "draw day"], float]]
"""`(draws, schedule) -> (ln(mass / mm^3) on the days of the case, share of the draws for which the PDE was solved)`;
+inf where a planner has no answer, which is no reason to choose a course."""


def planners(config: DictConfig, run: Run, patient: Patient, case: TrainingCase, quick: bool) -> dict[str, Planner]:
    """Everybody who plans, by name. All but the operator learned from the stored samples: draws, one schedule."""
    basis = modes_of(config, run, case)
    few = dataclasses.replace(case.settings, modes=FEW_MODES)
    reduced = {
        "modes": fit(config, run, case, basis),
        "few_modes": fit(config, run, case, basis, few),
        "half_range": half_range(config, run, case),
    }
    coarse = on_voxels(config, COARSE * float(config.surrogate.spacing))
    found = {
        name: by_pde(each.model, each.solver, each.days)
        for name, each in ((TRUTH, case), ("coarse_pde", training_case(coarse, run, patient=patient)))
    }
    for name, surrogate in reduced.items():
        count = int(config.surrogate.calibration) // 4
        held_out = held_out_cases(config, run, case, surrogate, f"calibration_{name}", count)
        bounded = calibrate_pod(surrogate, held_out)
        found[name], found[f"{name}_with_pde"] = by_surrogate(bounded, case.days)
    found["operator"], found["operator_with_pde"] = by_surrogate(operator(config, run, patient), case.days)
    learned = learn_masses(
        case,
        stored_samples(run, case.prior.paths),
        QUICK_LEARNING if quick else LEARNING,
        key=run.key("masses"),
        checkpoint=Checkpoints(run),
    )
    return {**found, **{kind: by_mass(case, made) for kind, made in learned.items()}}


def on_voxels(config: DictConfig, spacing: float) -> DictConfig:
    """The same case on voxels of another edge [mm]."""
    other = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    other.surrogate.spacing = spacing
    return other  # type: ignore[return-value]


def operator(config: DictConfig, run: Run, patient: Patient) -> FnoSurrogate:
    """The neural operator on this patient: the same outlines, on a box and voxels of its own."""
    surrogate, _ = read_surrogate(OPERATOR)
    assert isinstance(surrogate, FnoSurrogate)
    grid = surrogate.model.tissue.grid
    other = on_voxels(config, grid.spacing[0])
    return surrogate.on(training_case(other, run, patient=patient, shape=grid.shape).model)


def half_range(config: DictConfig, run: Run, case: TrainingCase) -> PodSurrogate:
    """The surrogate that has seen slow diffusion only: the samples with D below the prior's median."""
    middle = float(np.asarray(case.prior.quantile(0.5)[DIFFUSIVITY]))

    def blocks() -> Iterator[np.ndarray]:
        for samples in stored_samples(run, case.prior.paths):
            kept = samples.succeeded & (np.asarray(samples.design.values[DIFFUSIVITY]) < middle)
            if kept.any():
                yield dataclasses.replace(samples, succeeded=kept).snapshots()

    def lower(values: Values) -> dict[str, np.ndarray]:
        below = np.asarray(values[DIFFUSIVITY]) < middle
        return {path: np.asarray(value)[below] for path, value in values.items()}

    trained = lower(training_design(config, case).values)
    known = lower(random_design(case.prior, DRAWS, key=run.key("half/expected")).values)
    return fit_pod(
        case.model,
        basis_of(case.model, blocks(), case.settings.modes),
        ParameterDomain.of(trained, known, case.settings.domain_level),
        trained,
        levels=case.levels,
        solver=case.solver,
        horizon=case.days[-1],
        settings=case.settings,
        seed=int(config.seed),
    )


def by_pde(model: ReactionDiffusion, solver: FixedSteps, days: tuple[float, ...]) -> Planner:
    """The PDE on the model's grid. `FloatingPointError` where it fails: nobody stands behind it."""

    def logs(values: Values, schedule: Schedule) -> tuple[np.ndarray, float]:
        solve = functools.partial(_log_masses, model, schedule, solver, days)
        found = np.asarray(in_chunks(solve, dict(values)), float)
        if not np.isfinite(found).all():
            raise FloatingPointError(
                "required: tumors that are solved; received: some that failed; try: a smaller solver.max_step"
            )
        return found, 1.0

    return logs


@eqx.filter_jit
def _log_masses(
    model: ReactionDiffusion, schedule: Schedule, solver: FixedSteps, days: tuple[float, ...], rows: dict[str, Array]
) -> Float[Array, "draw day"]:
    def one(row: dict[str, Array]) -> Array:
        found = simulate(set_parameters(model, row), schedule, days, solver, estimate_error=False)
        mass = jnp.sum(found.states.density, axis=(1, 2, 3)) * model.tissue.grid.cell_volume
        return jnp.where(found.succeeded, jnp.log(mass), jnp.nan)

    return jax.lax.map(one, rows)


def by_surrogate(surrogate: PodSurrogate | FnoSurrogate, days: tuple[float, ...]) -> tuple[Planner, Planner]:
    """The surrogate, whatever it says of itself; and as it is meant to be used: the PDE, on its own voxels, for tumors
    for which it does not vouch. It is asked once for both."""
    known: dict[tuple[bytes, ...], Quantities] = {}

    def ask(values: Values, schedule: Schedule) -> Quantities:
        who = tuple(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((dict(values), schedule)))
        if who not in known:
            known[who] = surrogate.many({path: jnp.asarray(value) for path, value in values.items()}, schedule, days)
        return known[who]

    def alone(values: Values, schedule: Schedule) -> tuple[np.ndarray, float]:
        mass = np.asarray(ask(values, schedule).values["mass"], float)
        fine = np.isfinite(mass) & (mass > 0.0)
        return np.where(fine, np.log(np.where(fine, mass, 1.0)), np.inf), 0.0

    def checked(values: Values, schedule: Schedule) -> tuple[np.ndarray, float]:
        left = np.flatnonzero(~np.asarray(ask(values, schedule).inside))
        logs, _ = alone(values, schedule)
        if left.size:
            rows = {path: np.asarray(value)[left] for path, value in values.items()}
            logs[left], _ = by_pde(surrogate.model, surrogate.solver, days)(rows, schedule)
        return logs, left.size / len(logs)

    return alone, checked


def by_mass(case: TrainingCase, learned: Learned) -> Planner:
    """Mechanism, network or hybrid of the mass alone."""

    def logs(values: Values, schedule: Schedule) -> tuple[np.ndarray, float]:
        return log_masses(case, learned, values, schedule), 0.0

    return logs
