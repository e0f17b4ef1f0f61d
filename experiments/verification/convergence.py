"""How fast the error falls: in space, in time, and how well the solver knows its own error."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from experiments.verification.cases import (
    ball,
    brain,
    chemoradiation,
    glioma,
    orders,
    positions,
    relative,
    smooth_box,
    uniform_box,
)
from tumortwin.geometry import Tissue
from tumortwin.models import GivenDensity, ReactionDiffusion
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule

Spacing = tuple[float, float, float]


def _final(model: ReactionDiffusion, schedule: Schedule, day: float, solver: FixedSteps) -> np.ndarray:
    run = eqx.filter_jit(lambda m, s: simulate(m, s, [day], solver, estimate_error=False))
    trajectory = run(model, schedule)
    if not bool(trajectory.succeeded):
        raise RuntimeError(f"required: a successful solve; received: {trajectory.result}")
    return np.asarray(trajectory.states.density[-1])


def cosine_errors(sizes: Sequence[int], base: Spacing, *, day: float = 40.0, step: float = 0.5) -> list[float]:
    """Relative errors against the decaying product of cosines in a box with zero flux, rho = 0.

    u = 1/2 + 2/5 exp(-D sum_i (pi / L_i)^2 t) prod_i cos(pi x_i / L_i). `base` is the spacing [mm] of the first grid.
    """
    diffusivity, errors = 0.25, []
    for n in sizes:
        spacing = [h * sizes[0] / n for h in base]
        tissue = uniform_box((n, n, n), spacing)
        waves, decay = np.ones((n, n, n)), 0.0
        for x, h in zip(positions(tissue.grid), spacing, strict=True):
            waves, decay = waves * np.cos(np.pi * x / (n * h)), decay + (np.pi / (n * h)) ** 2
        model = glioma(tissue, GivenDensity(jnp.asarray(0.5 + 0.4 * waves)), diffusivity=diffusivity, rate=0.0)
        u = _final(model, Schedule(), day, FixedSteps(step, diffusivity))
        errors.append(relative(u - 0.5, 0.4 * waves * np.exp(-diffusivity * decay * day)))
    return errors


def _steady(tissue: Tissue, diffusivity: float) -> tuple[np.ndarray, np.ndarray]:
    """A density u* and the growth rate rho(x) = -div(D grad u*) / (u* (1 - u*)) that keeps it, both closed forms."""
    grid = tissue.grid
    k = [np.pi / (n * h) for n, h in zip(grid.shape, grid.spacing, strict=True)]
    x = positions(grid)
    cosine, sine = (
        [np.cos(a * b) for a, b in zip(k, x, strict=True)],
        [np.sin(a * b) for a, b in zip(k, x, strict=True)],
    )
    waves = cosine[0] * cosine[1] * cosine[2]
    d = diffusivity * (0.75 + 0.25 * waves)  # the white matter of smooth_box
    u = 0.5 + 0.3 * waves
    gradient = [-k[i] * sine[i] * cosine[(i + 1) % 3] * cosine[(i + 2) % 3] for i in range(3)]
    laplacian = -sum(a**2 for a in k) * waves
    divergence = 0.3 * (d * laplacian + 0.25 * diffusivity * sum(g**2 for g in gradient))
    return u, -divergence / (u * (1 - u))


def manufactured_errors(sizes: Sequence[int], base: Spacing, *, day: float = 30.0, step: float = 0.5) -> list[float]:
    """Relative errors for a manufactured steady state with smooth D(x), growth rho(x) and crowding.

    The growth-rate field is chosen so that u*(x) solves the full nonlinear equation exactly; the solver starts at u*
    and should stay there.
    """
    diffusivity, errors = 0.3, []
    for n in sizes:
        tissue = smooth_box((n, n, n), [h * sizes[0] / n for h in base])
        u, rate = _steady(tissue, diffusivity)
        model = glioma(tissue, GivenDensity(jnp.asarray(u)), diffusivity=diffusivity, rate=rate)
        errors.append(relative(_final(model, Schedule(), day, FixedSteps(step, diffusivity)), u))
    return errors


def masked_errors(sizes: Sequence[int], base: Spacing, *, day: float = 30.0) -> list[float]:
    """Relative errors on an irregular mask against the finest grid (block means of a staircase: no clean order)."""
    finals = []
    for n in sizes:
        tissue = brain((n, n, n), [h * sizes[0] / n for h in base])
        model = glioma(tissue, ball(tissue))
        finals.append(_final(model, Schedule(), day, FixedSteps(2.0, 0.3)))
    reference, errors = finals[-1], []
    for n, u in zip(sizes[:-1], finals[:-1], strict=True):
        f = sizes[-1] // n
        blocks = reference.reshape(n, f, n, f, n, f).mean(axis=(1, 3, 5))
        errors.append(relative(u, blocks))
    return errors


def temporal(
    steps: Sequence[float],
    *,
    treated: bool,
    same_stages: bool = False,
    n: int = 14,
    spacing: float = 2.0,
    day: float = 64.0,
    fine: int = 8,
) -> tuple[list[float], list[float]]:
    """True and estimated relative time errors at `day` for each step [day], against steps `fine` times shorter than
    the last.

    `same_stages`: the bound of the diffusivity is raised as the step falls, so that every solve has the stages of the
    longest step. The error constant of RKL2 depends on the number of stages; with it fixed the order shows undisturbed.
    """
    tissue = brain((n, n, n), (spacing,) * 3)
    model, schedule = glioma(tissue, ball(tissue)), chemoradiation(16.3) if treated else Schedule()

    def run(step: float, estimate: bool) -> tuple[np.ndarray, float]:
        solver = FixedSteps(step, 0.3 * steps[0] / step if same_stages else 0.3)
        solve = eqx.filter_jit(lambda m, s: simulate(m, s, [day], solver, estimate_error=estimate))
        out = solve(model, schedule)
        return np.asarray(out.states.density[-1]), float(out.error_estimate[-1])

    reference, _ = run(steps[-1] / fine, False)
    errors, estimates = [], []
    for step in steps:
        u, estimate = run(step, True)
        errors.append(relative(u, reference))
        estimates.append(estimate)
    return errors, estimates


def front_speed_error(axis: int = 0, cells_a_length: float = 4.0, *, length: float = 60.0) -> float:
    """Relative error of the speed of the Ablowitz-Zeppetella front at dx = sqrt(D/rho) / `cells_a_length`.

    u = (1 + exp((x / l - 5 rho t / sqrt 6) / sqrt 6))^-2 with l = sqrt(D / rho); speed 5/sqrt(6) sqrt(D rho). The front
    is followed at u = 1/4 over ten units of 1/rho, far from both ends of a line of `length` l.
    """
    diffusivity, rate = 0.2, 0.03
    scale = np.sqrt(diffusivity / rate)
    dx = scale / cells_a_length
    n = round(length * cells_a_length)
    shape, spacing = [1, 1, 1], [5.0, 5.0, 5.0]
    shape[axis], spacing[axis] = n, float(dx)
    tissue = uniform_box(shape, spacing)
    x = positions(tissue.grid)[axis] / scale
    start = (1.0 + np.exp((x - 20.0) / np.sqrt(6.0))) ** -2
    model = glioma(tissue, GivenDensity(jnp.asarray(start)), diffusivity=diffusivity, rate=rate)
    days = (2.0 / rate, 12.0 / rate)
    run = eqx.filter_jit(lambda m: simulate(m, Schedule(), days, FixedSteps(0.05 / rate, diffusivity)))
    fields = np.asarray(run(model).states.density).reshape(2, n)
    line = x.reshape(n)
    first, last = (float(np.interp(-0.25, -u, line)) for u in fields)
    exact = 5.0 / np.sqrt(6.0) * rate * (days[1] - days[0])
    return (last - first) / exact - 1.0


def coarse_front_error(lengths_a_cell: float, *, corrected: bool, diagonal: int = 1) -> float:
    """Relative error of the speed of a front of least decay on a voxel of `lengths_a_cell` times sqrt(D/rho).

    The front starts as exp(-x / l) ahead of a plateau, l = sqrt(D/rho), and its mass grows by its speed: measured
    between 12 and 24 units of 1/rho, against the same on a voxel of l / 4.

    `diagonal`: 1 along an axis, 2 along a face diagonal, 3 along a space diagonal. A plane front along a diagonal of
    `d` axes is the same in every layer of voxels across it: a line of layers h / sqrt(d) apart, with the conductances
    of `d` faces, which is the line of that spacing with the correction of the voxel h.
    """
    diffusivity, rate = 0.2, 0.03
    scale = float(np.sqrt(diffusivity / rate))

    def line(n: int, h: float, diffusivity: float, correct: bool, start: np.ndarray) -> ReactionDiffusion:
        tissue = uniform_box((n, 1, 1), (h, 5.0, 5.0))
        return glioma(tissue, GivenDensity(jnp.asarray(start)), diffusivity=diffusivity, rate=rate, corrected=correct)

    def speed(h: float, correct: bool, axes: int) -> float:
        factor, between = 1.0, h / np.sqrt(axes)
        if axes > 1 and correct:
            face = [line(3, h, diffusivity, c, np.zeros((3, 1, 1))).relative_faces().x[1, 1, 1] for c in (True, False)]
            factor, correct = float(face[0] / face[1]), False
        n = round(80 * scale / between)
        x = positions(uniform_box((n, 1, 1), (between, 5.0, 5.0)).grid)[0]
        start = np.where(x < 8.0 * scale, 1.0, np.exp(-np.maximum(x - 8.0 * scale, 0.0) / scale))
        model = line(n, between, diffusivity * factor, correct, start)
        days = (12.0 / rate, 24.0 / rate)
        run = eqx.filter_jit(
            lambda m: simulate(m, Schedule(), days, FixedSteps(2.0, diffusivity), estimate_error=False)
        )
        first, last = np.asarray(run(model).states.density).sum(axis=(1, 2, 3)) * between
        return float(last - first) / (days[1] - days[0])

    return speed(lengths_a_cell * scale, corrected, diagonal) / speed(scale / 4.0, False, 1) - 1.0


def corrected_orders(sizes: Sequence[int], base: Spacing, *, day: float = 20.0) -> list[float]:
    """Observed orders of the front-corrected scheme on a smooth box, from differences of successive grids.

    A finer solution is brought to the next coarser grid by block means.
    """
    finals = []
    for n in sizes:
        tissue = smooth_box((n, n, n), [h * sizes[0] / n for h in base])
        model = glioma(tissue, ball(tissue), corrected=True)
        finals.append(_final(model, Schedule(), day, FixedSteps(0.4, 0.3)))
    differences = []
    for coarse, fine in zip(finals[:-1], finals[1:], strict=True):
        n = coarse.shape[0]
        differences.append(relative(coarse, fine.reshape(n, 2, n, 2, n, 2).mean(axis=(1, 3, 5))))
    return orders(differences)


def path_differences(steps: Sequence[float]) -> list[float]:
    """Relative L2 difference between the fast and the moving-edge path for each longest step [day]."""
    from tumortwin.solvers import MovingEdges, path_difference, simulate_moving

    tissue = brain((12, 12, 12), (2.0, 2.0, 2.0))
    model, schedule = glioma(tissue, ball(tissue)), chemoradiation(16.3)
    out = []
    for step in steps:
        edges = MovingEdges.from_schedule(schedule, [64.0], max_step=step, max_diffusivity=0.3)
        fast = eqx.filter_jit(lambda m, s, h=step: simulate(m, s, [64.0], FixedSteps(h, 0.3)))(model, schedule)
        moving = eqx.filter_jit(lambda m, s, e=edges: simulate_moving(m, s, e))(model, schedule)
        out.append(float(jnp.max(path_difference(fast, moving))))
    return out
