"""A tiny neural operator for the tests: boxes of 8 x 10 x 12 voxels of 4 mm out of a made-up brain, in 64 bits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.inference import Prior, Training, truncated_log_normal
from tumortwin.models import (
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.solvers import FixedSteps
from tumortwin.surrogates import (
    Brain,
    Courses,
    CourseSettings,
    OperatorSettings,
    Variation,
    course_features,
    draw_inputs,
    expected_values,
    fit_operator,
    random_design,
    sobol_design,
    solve_courses,
)

SHAPE, SPACING = (8, 10, 12), 4.0
SOLVER = FixedSteps(max_step=10.0, max_diffusivity=0.6)
DAYS = (20.0, 60.0)
LEVELS = {"flair": 0.25, "t1gd": 0.6}
SETTINGS = OperatorSettings(modes=3, width=6, blocks=1, members=2, hidden=8, level=0.8, tolerance=0.8, domain_level=0.8)
VARIATION, COURSES = Variation(wander=8.0), CourseSettings(radius=(5.0, 10.0))
PATHS = {"D": "mechanisms.diffusion.white_matter", "rho": "mechanisms.proliferation.rate"}


def prior() -> Prior:
    """Four parameters, as the glioma's but narrower."""
    return Prior(
        {
            PATHS["D"]: truncated_log_normal(0.2, 0.3, 0.02, 0.6),
            PATHS["rho"]: truncated_log_normal(0.04, 0.3, 0.002, 0.25),
            "mechanisms.radiotherapy.alpha": truncated_log_normal(0.04, 0.3, 0.003, 0.3),
            "mechanisms.chemotherapy.sensitivity": truncated_log_normal(0.2, 0.3, 0.02, 1.0),
        }
    )


def brain() -> Brain:
    """A ball of white matter in a shell of gray, 96 mm across, with a hole for a ventricle."""
    n = 24
    away = np.linalg.norm(np.moveaxis(np.indices((n, n, n)), 0, -1) - 11.5, axis=-1) * 4.0
    hole = np.linalg.norm((np.moveaxis(np.indices((n, n, n)), 0, -1) - [11, 8, 14]) * 4.0, axis=-1) < 9.0
    white = np.where((away < 34.0) & ~hole, 0.85, 0.0)
    return Brain(white, np.where((away < 46.0) & ~hole, 1.0 - white, 0.0), 4.0)


def template(spacing: float = SPACING, shape=SHAPE, front_correction: bool = True) -> ReactionDiffusion:
    """The model without an anatomy."""
    zero = np.zeros(shape)
    tissue = Tissue(
        Domain(Grid.from_spacing(shape, (spacing,) * 3), zero > 1), {"white_matter": zero, "gray_matter": zero}
    )
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(0.2)),
        "proliferation": LogisticProliferation(jnp.asarray(0.04)),
        "radiotherapy": RadiotherapyResponse(jnp.asarray(0.04)),
        "chemotherapy": DrugResponse(jnp.asarray(0.2)),
    }
    return ReactionDiffusion(mechanisms, tissue, GivenDensity(jnp.asarray(zero)), front_correction)


@functools.cache
def courses(count: int = 32, first: int = 0) -> Courses:
    """Solved courses; those of other numbers have other anatomies."""
    numbers = range(first, first + count)
    inputs = draw_inputs(template(), brain(), VARIATION, COURSES, numbers, (3,))
    starts = {**inputs, "start": _starts(inputs)}
    values = sobol_design(prior(), first + count, seed=1).rows(slice(first, None)).values
    return solve_courses(template(), values, starts, np.asarray(numbers), DAYS, SOLVER, estimate_error=False)


def _starts(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Balls as far and as steep as they were drawn, without a solve."""
    away = np.moveaxis(np.indices(SHAPE), 0, -1)[None] - inputs["center"][:, None, None, None]
    distance = SPACING * np.linalg.norm(away, axis=-1)
    radius, length = (inputs[name].reshape(-1, 1, 1, 1) for name in ("radius", "front_length"))
    return inputs["mask"] / (1.0 + np.exp((distance - radius) / length))


@functools.cache
def expected(count: int = 280) -> dict[str, np.ndarray]:
    """What will be asked for, for the limits of the domain."""
    drawn = random_design(prior(), count, key=jax.random.key(3)).values
    inputs = draw_inputs(template(), brain(), VARIATION, COURSES, range(100, 100 + count), (3,))
    return expected_values(course_features(template(), {**inputs, "start": _starts(inputs)}), drawn)


def fitted(training: Training, known: Courses | None = None, **how):
    """A surrogate without bounds, and its training."""
    given = {"settings": SETTINGS, "batch": 4, "dtype": jnp.float64} | how
    return fit_operator(
        template(),
        courses() if known is None else known,
        expected(),
        levels=LEVELS,
        solver=SOLVER,
        horizon=DAYS[-1],
        training=training,
        key=jax.random.key(0),
        **given,
    )
