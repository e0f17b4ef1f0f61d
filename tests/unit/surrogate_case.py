"""A tiny tumor for the tests of surrogates: a ball of tissue, 12 x 10 x 8 voxels of 3 mm, in 64 bits."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.inference import Prior, truncated_log_normal
from tumortwin.models import (
    Diffusion,
    DrugResponse,
    GaussianSeed,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.solvers import FixedSteps
from tumortwin.surrogates import (
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
from tumortwin.treatments import Course, Schedule, weekday_fractions

SHAPE, SPACING = (12, 10, 8), (3.0, 3.0, 3.0)
SOLVER = FixedSteps(max_step=5.0, max_diffusivity=0.6)
SCHEDULE = Schedule(weekday_fractions(10.0, 5, 2.0), {"temozolomide": Course(jnp.arange(10.0, 15.0), jnp.ones(5))})
DAYS = (20.0, 40.0)
SNAPSHOT_DAYS = (10.0, 20.0, 30.0, 40.0)
LEVELS = {"flair": 0.25, "t1gd": 0.6}
TRAINING, HELD_OUT = 32, 80
SETTINGS = PodSettings(modes=14, degree=8, substeps=2, tolerance=0.1, level=0.9)
SETTINGS_OF_TEN = dataclasses.replace(SETTINGS, modes=10)


def prior() -> Prior:
    """Four parameters, as the glioma's but narrower."""
    return Prior(
        {
            "mechanisms.diffusion.white_matter": truncated_log_normal(0.2, 0.3, 0.02, 0.6),
            "mechanisms.proliferation.rate": truncated_log_normal(0.04, 0.3, 0.002, 0.25),
            "mechanisms.radiotherapy.alpha": truncated_log_normal(0.04, 0.3, 0.003, 0.3),
            "mechanisms.chemotherapy.sensitivity": truncated_log_normal(0.2, 0.3, 0.02, 1.0),
        }
    )


def model(center: tuple[float, float, float] = (5.0, 4.5, 4.0), spacing=SPACING, front_correction: bool = True):
    """A seed in white matter within gray."""
    grid = Grid.from_spacing(SHAPE, spacing)
    away = np.linalg.norm((np.moveaxis(np.indices(SHAPE), 0, -1) - np.asarray([5.5, 4.5, 3.5])) * 3.0, axis=-1)
    mask = away < 15.0
    white = np.where(away < 9.0, 1.0, 0.2) * mask
    tissue = Tissue(Domain(grid, mask), {"white_matter": white, "gray_matter": mask - white})
    seed = GaussianSeed(jnp.asarray(center), jnp.asarray(0.7), jnp.asarray(4.5)).state(tissue)
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(0.2)),
        "proliferation": LogisticProliferation(jnp.asarray(0.04)),
        "radiotherapy": RadiotherapyResponse(jnp.asarray(0.04)),
        "chemotherapy": DrugResponse(jnp.asarray(0.2)),
    }
    return ReactionDiffusion(mechanisms, tissue, GivenDensity(seed.density), front_correction)


@functools.cache
def training() -> Samples:
    """The training samples."""
    return simulate_samples([model()], [SCHEDULE], sobol_design(prior(), TRAINING, seed=1), SNAPSHOT_DAYS, SOLVER)


@functools.cache
def held_out() -> Samples:
    """Independent samples."""
    design = random_design(prior(), HELD_OUT, key=jax.random.key(2))
    return simulate_samples([model()], [SCHEDULE], design, DAYS, SOLVER)


def domain() -> ParameterDomain:
    """The domain of the training samples."""
    expected = random_design(prior(), 1000, key=jax.random.key(3))
    return ParameterDomain.of(training().design.values, expected.values)


@functools.cache
def fitted(modes: int) -> PodSurrogate:
    """A surrogate of some modes, not held against any case."""
    settings = PodSettings(**{**vars(SETTINGS), "modes": modes})
    return fit_pod(
        model(),
        basis_of(model(), [training().snapshots()], modes),
        domain(),
        training().design.values,
        levels=LEVELS,
        solver=SOLVER,
        horizon=DAYS[-1],
        settings=settings,
    )


@functools.cache
def calibrated() -> PodSurrogate:
    """A surrogate with bounds."""
    surrogate = fitted(SETTINGS.modes)
    return calibrate_pod(surrogate, hold_against(surrogate, held_out(), [SCHEDULE]))


def moved(surrogate: PodSurrogate, center: tuple[float, float, float]) -> ReactionDiffusion:
    """The surrogate's model with its seed elsewhere."""
    return eqx.tree_at(lambda m: m.initial, surrogate.model, model(center).initial)
