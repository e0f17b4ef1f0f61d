"""A tiny patient for the tests of the `twin` room: a ball of brain, 20 voxels of 4 mm, round tumors, four fractions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, Normal

from tumortwin.geometry import Grid
from tumortwin.inference import Posterior, Problem, truncated_log_normal
from tumortwin.solvers import FixedSteps
from tumortwin.treatments import Course, Schedule, weekday_fractions
from tumortwin.twin import GliomaSettings, ModelFrame, Patient, Scan, build_problem

GRID = Grid.from_spacing((20, 20, 20), (4.0, 4.0, 4.0))
MIDDLE = (38.0, 38.0, 38.0)
SOLVER = FixedSteps(max_step=15.0, max_diffusivity=0.6)
TREATMENT = Schedule(weekday_fractions(10.0, 4, 2.0), {"temozolomide": Course(jnp.arange(10.0, 14.0), jnp.ones(4))})


def ball(radius: float, center: Sequence[float] = MIDDLE, grid: Grid = GRID) -> np.ndarray:
    """Voxels whose center is within `radius` [mm] of `center` [mm]."""
    return distance_to(center, grid) <= radius


def distance_to(center: Sequence[float], grid: Grid) -> np.ndarray:
    """Distance [mm] of every voxel center to a point."""
    return np.linalg.norm(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)) - np.asarray(center), axis=-1)


def scan(day: float, core: float, edema: float, *, adc: bool = False) -> Scan:
    """Round outlines of the given radii [mm] and, if asked, an ADC map of cellularity 0.5."""
    masks = {"t1gd": ball(core), "flair": ball(edema)}
    if not adc:
        return Scan(day, masks)
    return Scan(day, masks, np.full(GRID.shape, 1.9, np.float32), masks["flair"])


def patient(scans: Sequence[Scan] | None = None, schedule: Schedule = TREATMENT) -> Patient:
    """Three visits of a growing tumor, unless others are given."""
    brain, inner = ball(36.0), ball(24.0)
    tissue = {"white_matter": inner.astype(np.float32), "gray_matter": (brain & ~inner).astype(np.float32)}
    visits = (scan(0.0, 8.0, 13.0, adc=True), scan(30.0, 9.5, 14.5), scan(60.0, 11.0, 16.0))
    return Patient(
        id="tiny",
        grid=GRID,
        brain=brain,
        domain=brain,
        tissue=tissue,
        anatomy=brain.astype(np.float32),
        scans=visits if scans is None else tuple(scans),
        schedule=schedule,
    )


def prior() -> dict[str, Distribution]:
    """A short prior that addresses every part of the model."""
    return {
        "mechanisms.diffusion.white_matter": truncated_log_normal(0.1, 0.5, 0.005, 0.6),
        "mechanisms.proliferation.rate": truncated_log_normal(0.03, 0.5, 0.002, 0.25),
        "mechanisms.radiotherapy.alpha": truncated_log_normal(0.04, 0.5, 0.003, 0.3),
        "mechanisms.chemotherapy.sensitivity": truncated_log_normal(0.2, 0.3, 0.02, 1.0),
        "initial.tail_ratio": truncated_log_normal(1.0, 0.5, 0.2, 5.0),
        "initial.core_ratio": truncated_log_normal(1.0, 0.3, 0.2, 5.0),
        "initial.flair_shift": Normal(0.0, 0.3),
        "initial.age": truncated_log_normal(300.0, 0.6, 40.0, 1000.0),
        "observation.t1gd.threshold": truncated_log_normal(0.7, 0.1, 0.5, 0.85),
        "observation.t1gd.width": truncated_log_normal(0.8, 0.5, 0.05, 5.0),
        "observation.flair.threshold": truncated_log_normal(0.25, 0.3, 0.05, 0.5),
        "observation.flair.width": truncated_log_normal(0.8, 0.5, 0.05, 5.0),
        "observation.flair.shift": Normal(0.0, 0.3),
        "observation.adc.noise_sd": truncated_log_normal(0.1, 0.5, 0.01, 0.5),
    }


def frame(case: Patient) -> ModelFrame:
    """A small frame of the patient's own voxels."""
    return ModelFrame.around(case, spacing=4.0, margin=8.0, bucket=4)


def problem(case: Patient | None = None, *, start: str = "contours") -> Problem:
    """The calibration problem of the tiny patient."""
    case = patient() if case is None else case
    return build_problem(case, frame(case), SOLVER, prior(), GliomaSettings(start=start))


def prior_posterior(of: Problem, n: int, seed: int = 0) -> Posterior:
    """Prior draws in the place of a posterior."""
    draws = of.prior.sample((n,), key=jax.random.key(seed))
    return Posterior({path: np.asarray(v)[None] for path, v in draws.items()}, None, {}, "prior")


def same(first: Patient, second: Patient) -> bool:
    """Whether two patients have the same scans, bit for bit."""
    pairs = zip(first.scans, second.scans, strict=True)
    return all(
        np.array_equal(a.masks[c], b.masks[c]) and np.array_equal(a.adc, b.adc)  # type: ignore[arg-type]
        for a, b in pairs
        for c in a.masks
    )
