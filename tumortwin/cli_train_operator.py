"""`tumortwin train surrogate=fno`: anatomies from the atlas, courses by the model, one neural operator for all."""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from tumortwin import __version__
from tumortwin.cli_files import Checkpoints, row_of
from tumortwin.config import ConfigError, flatten, instantiate
from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.inference import Fitted, Prior, Training
from tumortwin.io import atlas_tissue, read_samples, write_samples, write_surrogate
from tumortwin.models import (
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.runs import Run
from tumortwin.solvers import FixedSteps
from tumortwin.surrogates import (
    Brain,
    Courses,
    CourseSettings,
    FnoSurrogate,
    HeldOut,
    OperatorSettings,
    Variation,
    calibrate_operator,
    course_features,
    draw_inputs,
    expected_values,
    fit_operator,
    grow_starts,
    hold_operator_against,
    random_design,
    sobol_design,
    solve_courses,
    weight_count,
)


@dataclasses.dataclass(frozen=True)
class OperatorCase:
    """What a neural operator is trained on: the model without an anatomy, the brain and how boxes of it vary, what
    courses are drawn from, the prior, the solver, days, levels and settings."""

    template: ReactionDiffusion
    brain: Brain
    variation: Variation
    courses: CourseSettings
    prior: Prior
    solver: FixedSteps
    training_days: tuple[float, ...]
    days: tuple[float, ...]
    levels: Mapping[str, float]
    settings: OperatorSettings
    training: Training
    sizes: Mapping[str, int]
    seed: int


def operator_case(config: DictConfig) -> OperatorCase:
    """The case of `surrogate=fno`, with the anatomy of the ICBM152 atlas.

    **Raises:** `ConfigError` for a parameter without a prior, days out of order, or a patient whose anatomy is not the
    atlas: nothing that is chosen is ignored.
    """
    s, cancer = config.surrogate, config.cancer
    priors = instantiate(flatten(config.prior), where="prior")
    missing = [path for path in s.parameters if path not in priors]
    days, training_days = (tuple(float(d) for d in chosen) for chosen in (s.days, s.training_days))
    late = any(not d or d[0] <= 0.0 or (np.diff(d) <= 0.0).any() for d in (days, training_days))
    if missing or late or training_days[-1] < days[-1]:
        raise ConfigError(
            "required: surrogate.parameters that have a prior, and increasing surrogate.days and training_days after "
            f"day 0, the latter as long\nreceived: {missing or [list(days), list(training_days)]}\n"
            "try:      `--cfg job` to see the composed configuration"
        )
    if config.task.name == "train" and str(config.patient.id) != "atlas":
        raise ConfigError(
            "required: patient=atlas_glioma, whose atlas surrogate=fno is trained on\n"
            f"received: patient {config.patient.id}\ntry:      surrogate=pod for this patient's own anatomy"
        )
    shape, spacing = (int(s.shape),) * 3, float(s.spacing)
    grid = Grid.from_spacing(shape, (spacing,) * 3)
    zero = jnp.zeros(shape, jnp.float32)
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(0.1), jnp.asarray(float(cancer.gray_ratio))),
        "proliferation": LogisticProliferation(jnp.asarray(0.03)),
        "radiotherapy": RadiotherapyResponse(jnp.asarray(0.04), jnp.asarray(float(cancer.alpha_beta))),
        "chemotherapy": DrugResponse(jnp.asarray(0.2), jnp.asarray(float(cancer.elimination_rate))),
    }
    tissue = Tissue(Domain(grid, np.zeros(shape, bool)), {"white_matter": zero, "gray_matter": zero})
    template = ReactionDiffusion(mechanisms, tissue, GivenDensity(zero), bool(config.geometry.front_correction))
    courses = OmegaConf.to_container(s.courses, resolve=True)
    assert isinstance(courses, dict)
    return OperatorCase(
        template=template,
        brain=atlas_brain(spacing / 2.0),
        variation=instantiate(s.variation, where="surrogate.variation"),
        courses=instantiate(courses, where="surrogate.courses"),
        prior=Prior({path: priors[path] for path in s.parameters}),
        solver=instantiate(config.solver, where="solver"),
        training_days=training_days,
        days=days,
        levels={name: float(level) for name, level in s.levels.items()},
        settings=instantiate(s.settings, where="surrogate.settings"),
        training=instantiate(s.optimizer, where="surrogate.optimizer"),
        sizes={name: int(s[name]) for name in ("training", "calibration", "expected", "chunk", "batch")},
        seed=int(config.seed),
    )


def atlas_brain(spacing: float) -> Brain:
    """The ICBM152 atlas as a brain to cut anatomies from, `spacing` [mm] a whole number."""
    atlas = atlas_tissue(spacing)
    return Brain(atlas.white_matter, atlas.gray_matter, spacing)


def run_train_operator(config: DictConfig, run: Run) -> None:
    """Atlas and prior -> `training/` -> `calibration/` -> `surrogate/`."""
    case = operator_case(config)
    with run.stage("simulate", outputs=["training"]) as stage:
        if stage.needed:
            for _ in stored_courses(run, case, "training", case.sizes["training"]):
                pass
    with run.stage("surrogate", outputs=["surrogate", "calibration"]) as stage:
        if stage.needed:
            surrogate, fitted = train_operator(config, run, case)
            held_out = hold_out(run, case, surrogate, "calibration", case.sizes["calibration"])
            surrogate = calibrate_operator(surrogate, held_out)
            rows = operator_rows(surrogate, fitted, held_out)
            write_surrogate(run.path("surrogate"), surrogate, operator_facts(config, case, rows))
            run.write_results(rows)


def stored_courses(
    run: Run,
    case: OperatorCase,
    name: str,
    count: int,
    *,
    brain: Brain | None = None,
    variation: Variation | None = None,
) -> Iterator[Courses]:
    """`NAME/chunk_*.zarr`: courses of one purpose, chunk by chunk; those that are there stay.

    Training courses follow a Sobol sequence; all others are independent draws of the prior, as bounds need them. A
    course depends on seed, name and its own number alone, so it does not matter where a run was killed.
    """
    sobol = name == "training"
    days = case.training_days if sobol else case.days
    if sobol:
        design = sobol_design(case.prior, count, seed=case.seed)
    else:
        design = random_design(case.prior, count, key=run.key(name))
    size, seed = case.sizes["chunk"], (case.seed, zlib.crc32(name.encode()))
    with run.progress.task(f"courses: {name}", total=count) as bar:
        for first in range(0, count, size):
            path = run.path(name, f"chunk_{first // size:04d}.zarr")
            rows, numbers = design.rows(slice(first, first + size)), range(first, min(first + size, count))
            if not path.is_dir():
                varied = case.variation if variation is None else variation
                drawn = draw_inputs(
                    case.template, case.brain if brain is None else brain, varied, case.courses, numbers, seed
                )
                starts = grow_starts(case.template, drawn, case.solver)
                found = solve_courses(
                    case.template, rows.values, starts, np.asarray(numbers), days, case.solver, estimate_error=sobol
                )
                write_samples(path, found.flat(), _attributes(case, name, first, days))
            arrays, attrs = read_samples(path)
            yield Courses.of_flat(attrs["days"], arrays, case.prior.paths)
            bar.advance(len(numbers))


def _attributes(case: OperatorCase, name: str, first: int, days: tuple[float, ...]) -> dict[str, Any]:
    """What the courses of a chunk are of."""
    return {
        "seed": case.seed,
        "sequence": "Sobol" if name == "training" else "independent",
        "purpose": name,
        "first_course": first,
        "days": list(days),
        "solver": type(case.solver).__name__,
        "max_step_day": case.solver.max_step,
        "max_diffusivity_mm2_per_day": case.solver.max_diffusivity,
        "error_estimate": "relative L2 error of the time step, by Richardson's extrapolation, day by day",
        "spacing_mm": list(case.template.tissue.grid.spacing),
        "version": __version__,
    }


def train_operator(config: DictConfig, run: Run, case: OperatorCase) -> tuple[FnoSurrogate, Fitted]:
    """The networks of the stored courses, with their domain and without bounds. Goes on where it was killed.

    Courses that could not be solved are left out, and said.
    """
    courses = Courses.of_parts(list(stored_courses(run, case, "training", case.sizes["training"])))
    failed = int((~courses.succeeded).sum())
    if failed:
        run.say(f"caution: {failed} of {courses.size} training courses could not be solved and were left out")
    with run.progress.task("training", total=case.training.epochs) as bar:

        def advance(epoch: int, _: int) -> None:
            bar.advance(1)
            run.log(f"training: epoch {epoch}")

        return fit_operator(
            case.template,
            courses.rows(courses.succeeded),
            expected_cases(run, case),
            levels=case.levels,
            solver=case.solver,
            horizon=case.days[-1],
            settings=case.settings,
            training=case.training,
            batch=case.sizes["batch"],
            held_out_share=float(config.surrogate.held_out_share),
            key=run.key("training"),
            progress=advance,
            checkpoint=Checkpoints(run, "networks"),
        )


def expected_cases(run: Run, case: OperatorCase) -> dict[str, np.ndarray]:
    """Parameters and features drawn as those that will be asked for, on anatomies that are used for nothing else."""
    seed = (case.seed, zlib.crc32(b"expected"))
    with run.progress.task("expected anatomies"):
        numbers = range(case.sizes["expected"])
        drawn = draw_inputs(case.template, case.brain, case.variation, case.courses, numbers, seed)
        features = course_features(case.template, grow_starts(case.template, drawn, case.solver))
    return expected_values(features, random_design(case.prior, case.sizes["expected"], key=run.key("expected")).values)


def hold_out(
    run: Run,
    case: OperatorCase,
    surrogate: FnoSurrogate,
    name: str,
    count: int,
    *,
    brain: Brain | None = None,
    variation: Variation | None = None,
) -> HeldOut:
    """The surrogate beside the model on the courses `name` (`stored_courses`)."""
    chunks = stored_courses(run, case, name, count, brain=brain, variation=variation)
    return HeldOut.of_parts([hold_operator_against(surrogate, courses) for courses in chunks])


def operator_rows(surrogate: FnoSurrogate, fitted: Fitted, held_out: HeldOut) -> list[dict[str, Any]]:
    """What training found, for results.json."""
    inside = held_out.rows(np.flatnonzero(held_out.inside))
    error = inside.true_error[:, 1:]
    rows = [
        row_of("surrogate.weights", weight_count(surrogate.networks), "1"),
        row_of("surrogate.epochs", len(fitted.scores), "1"),
        row_of("surrogate.best_epoch", fitted.epoch, "1"),
        row_of("surrogate.training_loss", fitted.losses[-1], "1"),
        row_of("surrogate.held_out_loss", fitted.score, "1"),
        row_of("surrogate.cases", len(held_out.inside), "1"),
        row_of("surrogate.flagged_share", 1.0 - held_out.inside.mean(), "1"),
        row_of("surrogate.density_factor", float(surrogate.error.density_factor), "1"),
    ]
    if len(inside.inside):
        rows += [
            row_of("surrogate.relative_l2_median", np.median(error), "1"),
            row_of("surrogate.relative_l2_q95", np.quantile(error, 0.95), "1"),
        ]
        for name, dice in sorted(inside.dice.items()):
            seen = dice[:, 1:][np.isfinite(dice[:, 1:])]
            rows += [row_of(f"surrogate.dice_{name}_q05", np.quantile(seen, 0.05), "1")] if seen.size else []
    return rows


def operator_facts(config: DictConfig, case: OperatorCase, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How a neural operator was made and what was found; null for what has no number."""
    found = {row["name"]: row["value"] if np.isfinite(row["value"]) else None for row in rows}
    return {"seed": int(config.seed), "training": case.sizes["training"], "version": __version__} | found
