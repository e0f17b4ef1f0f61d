"""The problems that are timed: the treated reference problem R and the untreated problems P0, P1, P2 of other codes.

R: brain-like ball, white and gray matter 0.65 / 0.065 mm^2/day, rho 0.025 /day, 200 days: growth, from day 100 thirty
weekday fractions of 2 Gy and 42 daily drug doses (half-life 1.8 h), follow-up.

P0-P2: D_w 0.13 mm^2/day, D_w/D_g 10, rho 0.025 /day, 300 days, no treatment. Start: a smoothed ball; L the edge of
the cube and psi = (r - L / 200) / (L / 64): u = 1 for psi < -1, 0 for psi > 1, else (1 - psi - sin(pi psi) / pi) / 2.
P0 is all white matter, 128^3 at 1 mm; P1 the ICBM152 atlas at 2 mm, 128^3; P2 the same at 1 mm, 256^3.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.io import load_atlas_anatomy
from tumortwin.models import (
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.treatments import Course, Schedule, weekday_fractions

R_DIFFUSIVITY, R_RATE, R_DAY, R_START = 0.65, 0.025, 200.0, 100.0
P_DIFFUSIVITY, P_RATE, P_DAY, EDGE = 0.13, 0.025, 300.0, 256.0


def _array(x: np.ndarray):
    return jnp.asarray(x.astype(np.float32))


def reference_problem(n: int, spacing: float) -> tuple[ReactionDiffusion, Schedule]:
    """Problem R on n^3 voxels of `spacing` mm."""
    x = (np.indices((n, n, n)) - (n - 1) / 2) * spacing
    radius = np.sqrt((x**2).sum(0))
    mask = radius < 0.48 * n * spacing
    white = ((np.sin(x[0] / 6) + np.cos(x[1] / 7) * np.sin(x[2] / 5) > 0) & mask).astype(float)
    grid = Grid.from_spacing((n, n, n), (spacing,) * 3)
    tissue = Tissue(
        Domain(grid, jnp.asarray(mask)), {"white_matter": _array(white), "gray_matter": _array(mask - white)}
    )
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(R_DIFFUSIVITY)),
        "proliferation": LogisticProliferation(jnp.asarray(R_RATE)),
        "radiotherapy": RadiotherapyResponse(jnp.asarray(0.04)),
        "chemotherapy": DrugResponse(jnp.asarray(0.5)),
    }
    start = _array(0.5 * np.exp(-(radius**2) / (2 * 6.0**2)))
    drug = Course(R_START + jnp.arange(42.0), jnp.ones(42))
    schedule = Schedule(weekday_fractions(R_START, 30, 2.0), {"temozolomide": drug})
    return ReactionDiffusion(mechanisms, tissue, GivenDensity(start)), schedule


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One problem of other codes, with what they need for it (single-thread CPU seconds) and their mass error."""

    name: str
    white: np.ndarray
    gray: np.ndarray
    start: np.ndarray
    spacing: float
    exact_mass: float
    limit_seconds: float
    limit_mass_error: float
    peers: str

    def model(self, white: np.ndarray, gray: np.ndarray, start: np.ndarray) -> ReactionDiffusion:
        """The model on the whole problem or on a window of it."""
        grid = Grid.from_spacing(start.shape, (self.spacing,) * 3)
        domain = Domain(grid, jnp.asarray(white + gray > 0))
        tissue = Tissue(domain, {"white_matter": _array(white), "gray_matter": _array(gray)})
        mechanisms = {
            "diffusion": Diffusion(jnp.asarray(P_DIFFUSIVITY), jnp.asarray(0.1)),
            "proliferation": LogisticProliferation(jnp.asarray(P_RATE)),
        }
        return ReactionDiffusion(mechanisms, tissue, GivenDensity(_array(start)))


def smoothed_ball(n: int, edge: float, center: tuple[float, float, float]) -> np.ndarray:
    """The start of P0-P2: cell centres at (i + 1/2) h, `center` in units of the edge."""
    x = (np.arange(n) + 0.5) * edge / n
    r = np.sqrt(sum((np.expand_dims(x, [a for a in range(3) if a != k]) - c * edge) ** 2 for k, c in enumerate(center)))
    psi = (r - 0.005 * edge) / (2.0 * edge / 128.0)
    middle = 0.5 * (1.0 - psi - np.sin(np.pi * psi) / np.pi)
    return np.where(psi < -1, 1.0, np.where(psi > 1, 0.0, middle)).astype(np.float32)


def _centered(array: np.ndarray, n: int = 256) -> np.ndarray:
    before = [(n - k) // 2 for k in array.shape]
    return np.pad(array, [(b, n - k - b) for b, k in zip(before, array.shape, strict=True)])


def _atlas_cube(factor: int) -> tuple[np.ndarray, np.ndarray]:
    """White and gray matter of the ICBM152 maps centred in a 256 mm cube, in blocks of `factor` mm."""
    _, _, gray, white, _ = load_atlas_anatomy()
    n = 256 // factor
    gray, white = (_centered(a).reshape(n, factor, n, factor, n, factor).mean(axis=(1, 3, 5)) for a in (gray, white))
    total = gray + white
    inside = total >= 0.5
    safe = np.where(inside, total, 1.0)
    return np.where(inside, white / safe, 0.0).astype(np.float32), np.where(inside, gray / safe, 0.0).astype(np.float32)


def problem(name: str) -> Comparison:
    """P0, P1 or P2."""
    if name == "P0":
        white = np.ones((128, 128, 128), np.float32)
        start = smoothed_ball(128, 128.0, (0.5, 0.5, 0.5))
        peers = "TumorGrowthToolkit 11.4 s, -5.8 %; GliomaSolver 3.9 s, -7.8 %; exponax 1.8 s, -0.6 %"
        return Comparison("P0", white, np.zeros_like(white), start, 1.0, 7006.25, 1.8, 0.006, peers)
    factor = {"P1": 2, "P2": 1}[name]
    white, gray = _atlas_cube(factor)
    start = smoothed_ball(256 // factor, EDGE, (0.62, 0.60, 0.55)) * (white + gray > 0)
    if name == "P1":
        peers = "TumorGrowthToolkit 1.6 s, -8.3 %; GliomaSolver 1.2 s, -16.7 % (small step 14.6 s, -1.0 %)"
        return Comparison("P1", white, gray, start, 2.0, 19683.1, 1.2, 0.01, peers)
    peers = "TumorGrowthToolkit 47 s, -3.7 %; GliomaSolver 6.2 s, -3.7 %"
    return Comparison("P2", white, gray, start, 1.0, 19720.2, 6.2, 0.01, peers)
