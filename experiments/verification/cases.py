"""Problems that several claims share: anatomies, models, schedules. Small, deterministic, nothing read from disk."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.models import (
    AbstractInitialCondition,
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.treatments import Course, Schedule, weekday_fractions

DRUG = "temozolomide"


def positions(grid: Grid) -> list[np.ndarray]:
    """Cell-centre coordinates [mm] from the corner of the array, one array an axis."""
    axes = [(np.arange(n) + 0.5) * h for n, h in zip(grid.shape, grid.spacing, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij"))


def smooth_box(shape: Sequence[int], spacing: Sequence[float]) -> Tissue:
    """A full box of smoothly varying white matter (0.5 to 1), even about every face."""
    grid = Grid.from_spacing(shape, spacing)
    waves = np.ones(shape)
    for x, n, h in zip(positions(grid), grid.shape, grid.spacing, strict=True):
        waves = waves * np.cos(np.pi * x / (n * h))
    return Tissue(Domain(grid, np.ones(shape, bool)), {"white_matter": 0.75 + 0.25 * waves})


def uniform_box(shape: Sequence[int], spacing: Sequence[float]) -> Tissue:
    """A full box of white matter."""
    grid = Grid.from_spacing(shape, spacing)
    return Tissue(Domain(grid, np.ones(shape, bool)), {"white_matter": np.ones(shape)})


def brain(shape: Sequence[int], spacing: Sequence[float], dtype: type = np.float64) -> Tissue:
    """A lopsided brain: an irregular mask that touches two edges of the array, white and gray matter mixed.

    Nothing in it is symmetric, so a swapped axis, a mirrored answer or swapped tissues cannot go unseen.
    """
    grid = Grid.from_spacing(shape, spacing)
    x, y, z = (p / (n * h) for p, n, h in zip(positions(grid), grid.shape, grid.spacing, strict=True))
    radius = ((x - 0.35) / 0.6) ** 2 + ((y - 0.5) / 0.5) ** 2 + ((z - 0.6) / 0.55) ** 2
    mask = radius + 0.25 * np.sin(11 * x + 3) * np.sin(9 * y) * np.cos(8 * z) < 0.9
    white = 1 / (1 + np.exp(-8 * np.sin(7 * x + 2 * y) - 6 * np.cos(5 * z + 4 * y)))
    fields: dict[str, Any] = {
        "white_matter": (white * mask).astype(dtype),
        "gray_matter": ((1 - white) * mask).astype(dtype),
    }
    return Tissue(Domain(grid, mask), fields)


def ball(tissue: Tissue, share: float = 0.18, height: float = 0.7) -> GivenDensity:
    """A smooth ball of tumor of radius about `share` of the box, off centre."""
    grid = tissue.grid
    dtype = tissue.fields["white_matter"].dtype
    squares = np.zeros(grid.shape)
    for x, n, h, center in zip(positions(grid), grid.shape, grid.spacing, (0.45, 0.5, 0.55), strict=True):
        squares += (x / (n * h) - center) ** 2
    return GivenDensity(jnp.asarray(height * np.exp(-0.5 * squares / share**2), dtype))


def glioma(
    tissue: Tissue,
    initial: AbstractInitialCondition,
    *,
    diffusivity: Any = 0.3,
    gray_ratio: Any = 0.1,
    rate: Any = 0.05,
    alpha: Any = 0.05,
    alpha_beta: Any = 10.0,
    sensitivity: Any = 0.5,
    elimination: Any = 9.242,
    corrected: bool = False,
) -> ReactionDiffusion:
    """The four-mechanism glioma model."""
    mechanisms = {
        "diffusion": Diffusion(diffusivity, gray_ratio),
        "proliferation": LogisticProliferation(rate),
        "radiotherapy": RadiotherapyResponse(alpha, alpha_beta),
        "chemotherapy": DrugResponse(sensitivity, elimination, drug=DRUG),
    }
    return ReactionDiffusion(mechanisms, tissue, initial, front_correction=corrected)


def chemoradiation(start: float, n_fractions: int = 10, dose: float = 2.0, n_drug: int = 14) -> Schedule:
    """Weekday fractions and daily drug doses, an hour before each fraction as is usual."""
    drug = Course(start - 1.0 / 24.0 + jnp.arange(float(n_drug)), jnp.ones(n_drug))
    return Schedule(weekday_fractions(start, n_fractions, dose), {DRUG: drug})


def relative(a: jax.Array | np.ndarray, b: jax.Array | np.ndarray) -> float:
    """Relative L2 difference of two arrays."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return float(np.linalg.norm((a - b).ravel()) / np.linalg.norm(b.ravel()))


def orders(errors: Sequence[float]) -> list[float]:
    """Observed orders of a sequence of errors on grids (or steps) each half as coarse as the one before."""
    return [float(np.log2(a / b)) for a, b in zip(errors[:-1], errors[1:], strict=True)]
