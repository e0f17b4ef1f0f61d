"""The parts of the study: brains that were never trained on, cases that do not belong, and the PDE's own shortcuts."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.rom_glioma.study import interleaved
from tumortwin._chunks import in_chunks
from tumortwin.cli_patient import glioma_settings, prior_medians
from tumortwin.cli_train_operator import OperatorCase
from tumortwin.config import flatten, instantiate
from tumortwin.geometry import block_mean
from tumortwin.io import load_tcga_lgg, read_volume, sri24_labels
from tumortwin.models import ReactionDiffusion
from tumortwin.runs import Run
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.surrogates import (
    Brain,
    Courses,
    FnoSurrogate,
    course_model,
    course_schedule,
    draw_inputs,
    draw_schedule,
    grow_starts,
    random_design,
    solve_courses,
    summary_of,
)
from tumortwin.treatments import Schedule
from tumortwin.twin import ModelFrame, Patient, Twin

DIFFUSIVITY, RATE = "mechanisms.diffusion.white_matter", "mechanisms.proliferation.rate"
GRAY_MATTER, WHITE_MATTER = 2, 3  # labels of the SRI24 tissue map
LABELS = "_mav.nii.gz"
# Times the step of the reference that the PDE is let take, to see how fast it is at the operator's error: 7.5 to 30
# days, which is the time between two days that are asked for.
COARSER_STEPS = (1.0, 2.0, 4.0)


# --- brains that were never trained on ---


def sri24_brain(root: Path, spacing: float) -> Brain:
    """The SRI24 atlas: shares of white and gray matter among the labels in every block of `spacing` [mm]."""
    volume = read_volume(sri24_labels(root), kind="labels")
    factors = [round(spacing / h) for h in volume.grid.spacing]
    labels = volume.array
    white, gray = (block_mean((labels == label).astype(np.float32), factors) for label in (WHITE_MATTER, GRAY_MATTER))
    return Brain(white, gray, spacing)


def tcga_patients(root: Path, folder: str) -> list[Patient]:
    """Every patient of the folder that has labels; none when it is not there."""
    found = sorted(p.name.removesuffix(LABELS) for p in (root / folder).glob(f"*{LABELS}"))
    return [load_tcga_lgg(root, name, folder=folder) for name in found]


def patient_courses(
    config: DictConfig, case: OperatorCase, patient: Patient, number: int, count: int, key: jax.Array
) -> Courses:
    """Courses from a patient's own outlines on their own anatomy: draws of the prior, schedules as for training.

    The start is the profile that the outlines imply at the medians of the prior, as the twin begins with.
    """
    grid = case.template.tissue.grid
    frame = ModelFrame.of_shape(patient, grid.shape, spacing=grid.spacing[0])
    priors = instantiate(flatten(config.prior), where="prior")
    problem = Twin(patient, frame, case.solver, priors, glioma_settings(config, "contours")).problem()
    model, _ = problem.bind(prior_medians(problem))
    mask = np.asarray(model.tissue.domain.mask)
    once = {name: np.asarray(model.tissue.fields[name], np.float32) for name in ("white_matter", "gray_matter")}
    once |= {"mask": mask, "start": np.asarray(model.initial.state(model.tissue).density, np.float32)}
    random = np.random.default_rng([case.seed, number])
    drawn = [draw_schedule(case.courses, random) for _ in range(count)]
    inputs = {name: np.repeat(value[None], count, axis=0) for name, value in once.items()}
    inputs |= {name: np.stack([d[name] for d in drawn]) for name in drawn[0]}
    values = random_design(case.prior, count, key=key).values
    return solve_courses(
        case.template, values, inputs, np.full(count, number), case.days, case.solver, estimate_error=False
    )


# --- cases that do not belong ---


def strangers(case: OperatorCase, run: Run, count: int) -> dict[str, tuple[dict, dict]]:
    """Cases outside of the training set, by what is wrong with them: `(values, inputs)`."""
    brain = case.brain
    larger = dataclasses.replace(brain, spacing=2.0 * brain.spacing)  # a voxel size that is not what it is said to be
    uniform = Brain(brain.white + brain.gray, 0.0 * brain.gray, brain.spacing)

    def drawn(name: str, source: Brain = brain, **courses: object) -> tuple[dict, dict]:
        settings = dataclasses.replace(case.courses, **courses)
        seed = (case.seed, zlib.crc32(name.encode()))
        inputs = draw_inputs(case.template, source, case.variation, settings, range(count), seed)
        values = random_design(case.prior, count, key=run.key(f"strangers/{name}")).values
        return dict(values), grow_starts(case.template, inputs, case.solver)

    found = {
        "voxels_of_another_size": drawn("voxels_of_another_size", larger),
        "no_gray_matter": drawn("no_gray_matter", uniform),
        "a_larger_start": drawn("a_larger_start", radius=(44.0, 52.0)),
    }
    usual = random_design(case.prior, 4000, key=run.key("strangers")).values
    for name, path in (("diffusivity_beyond", DIFFUSIVITY), ("rate_beyond", RATE)):
        values, inputs = drawn(name)
        found[name] = ({**values, path: np.full(count, 1.5 * np.max(usual[path]))}, inputs)
    values, inputs = drawn("dose_beyond", untreated=0.0)
    found["dose_beyond"] = (values, {**inputs, "fraction_doses": np.full_like(inputs["fraction_doses"], 8.0)})
    return found


def familiar(
    surrogate: FnoSurrogate, values: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], days: Sequence[float]
) -> np.ndarray:
    """Whether every case is one that the surrogate was trained on, as it says itself; nothing is solved."""
    rows, asked = (dict(values), dict(inputs)), tuple(float(d) for d in days)
    return np.asarray(in_chunks(lambda part: _familiar(surrogate, asked, *part), rows))


@eqx.filter_jit
def _familiar(surrogate: FnoSurrogate, days: tuple[float, ...], values: dict, inputs: dict) -> jax.Array:
    def one(row: tuple[dict, dict]) -> jax.Array:
        model, schedule = course_model(surrogate.model, *row), course_schedule(surrogate.model, row[1])
        summary, _ = summary_of(model, schedule, jnp.asarray(days))
        return surrogate.familiar(model, schedule, (summary - surrogate.center) / surrogate.scale)

    return jax.lax.map(one, (values, inputs))


# --- time ---


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one course of six days: the operator, the PDE as it is, and the fastest PDE that is no further off
    than the operator, with the step [day] that it takes."""

    operator: float
    pde: float
    pde_equal_error: float
    step: float


def times(case: OperatorCase, surrogate: FnoSurrogate, courses: Courses, error: float) -> Times:
    """One course at a time in one process, in turn. `error`: the median relative L2 error of the operator.

    The PDE's own shortcut is a longer time step on the same grid, its error that against the reference's step.
    """
    solvers = {k: FixedSteps(k * case.solver.max_step, case.solver.max_diffusivity) for k in COARSER_STEPS}
    few = courses.rows(slice(0, min(courses.size, 16)))
    off = {1.0: 0.0}
    for k in COARSER_STEPS[1:]:
        other = solve_courses(
            case.template, few.values, dict(few.inputs), few.anatomy, case.days, solvers[k], estimate_error=False
        )
        axes = (2, 3, 4)
        distance = np.sqrt(((other.density - few.density) ** 2).sum(axes) / (few.density**2).sum(axes))
        off[k] = float(np.median(np.where(other.succeeded[:, None], distance, np.inf)))
    inputs = {k: jnp.asarray(v[0]) for k, v in few.inputs.items()}
    model = course_model(case.template, {p: jnp.asarray(v[0]) for p, v in few.values.items()}, inputs)
    schedule, days = course_schedule(case.template, inputs), case.days

    @eqx.filter_jit
    def pde(model: ReactionDiffusion, schedule: Schedule, solver: FixedSteps) -> jax.Array:
        return simulate(model, schedule, days, solver, estimate_error=False).states.density

    ask = eqx.filter_jit(lambda s, m, c: s(m, c, days))
    seconds = interleaved(
        {"operator": lambda: ask(surrogate, model, schedule)}
        | {f"pde_{k:g}": lambda k=k: pde(model, schedule, solvers[k]) for k in COARSER_STEPS}
    )
    good = [k for k in COARSER_STEPS if off[k] <= error]
    best = min(good, key=lambda k: seconds[f"pde_{k:g}"])
    return Times(seconds["operator"], seconds["pde_1"], seconds[f"pde_{best:g}"], solvers[best].max_step)
