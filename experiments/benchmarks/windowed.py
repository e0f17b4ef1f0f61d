"""A solve in a window that follows the tumor: shapes from buckets, moved between phases, grown when the rim is reached.

What adaptive refinement does for other codes: voxels without tumor are not computed.
"""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import numpy as np

from experiments.benchmarks.problems import P_DIFFUSIVITY, Comparison
from tumortwin.geometry import Grid, Window, window_around
from tumortwin.models import ReactionDiffusion
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule

RIM, SEEN = 1e-4, 1e-6


@dataclasses.dataclass(frozen=True)
class Windowed:
    """The final density on the whole grid, the windows used, and the largest density met on a rim."""

    density: np.ndarray
    windows: tuple[Window, ...]
    rim: float


@eqx.filter_jit
def _advance(model: ReactionDiffusion, days: float, step: float):
    out = simulate(model, Schedule(), [days], FixedSteps(step, P_DIFFUSIVITY), estimate_error=False)
    return out.states.density[-1], out.succeeded


def solve(
    problem: Comparison, phases: Sequence[tuple[float, float]], margin: float = 14.0, bucket: int = 16
) -> Windowed:
    """Solve from day 0 through `phases` (end [day], longest step [day]), in a window with `margin` mm around the tumor.

    When the density on the rim of a window (where the tissue goes on) exceeds 1e-4, that phase is repeated with twice
    the margin.
    """
    grid = Grid.from_spacing(problem.start.shape, (problem.spacing,) * 3)
    tissue = problem.white + problem.gray > 0
    density, used, rim, day = problem.start, [], 0.0, 0.0
    for mark, step in phases:
        reach = margin
        while True:
            window = window_around(density > SEEN, reach, grid, bucket, limits=tissue)
            parts = [np.asarray(window.crop(a)) for a in (problem.white, problem.gray, density)]
            after, succeeded = _advance(problem.model(*parts), mark - day, step)
            after = np.asarray(after)
            met = _rim(after, window, grid)
            if not bool(succeeded):
                raise RuntimeError(f"required: a successful solve of {problem.name}; received: a failed one")
            if met <= RIM:
                break
            reach *= 2.0
        density, day, rim = np.asarray(window.embed(after, grid.shape)), mark, max(rim, met)
        used.append(window)
    return Windowed(density, tuple(used), rim)


def _rim(density: np.ndarray, window: Window, grid: Grid) -> float:
    """The largest density on those faces of the window beyond which the array goes on."""
    largest = 0.0
    for axis in range(3):
        for at, open_side in (
            (0, window.start[axis] > 0),
            (-1, window.start[axis] + window.shape[axis] < grid.shape[axis]),
        ):
            if open_side:
                largest = max(largest, float(np.take(density, at, axis).max()))
    return largest
