"""What must hold whatever the parameters: mass, survival, symmetry, agreement with an independent program."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from experiments.verification.cases import DRUG, ball, brain, chemoradiation, glioma, relative, uniform_box
from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.models import GivenDensity
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Course, Schedule

BOUND = 0.3


def mass_drift(n: int = 16, day: float = 120.0, step: float = 8.0) -> dict[str, float]:
    """Relative change of mass over `day` days with rho = 0, in float64.

    On an irregular mask that touches the edge of the array, and in a box whose tumor sits in a corner of the array.
    """
    run = eqx.filter_jit(lambda m: simulate(m, Schedule(), [0.0, day], FixedSteps(step, BOUND)).states.density)
    tissue = brain((n, n + 2, n - 2), (2.0, 2.0, 3.0))
    box = uniform_box((n, n + 2, n - 2), (2.0, 2.0, 3.0))
    corner = np.zeros(box.grid.shape)
    corner[:4, :4, :4] = 0.8
    drifts = {}
    for name, where, start in (
        ("irregular mask", tissue, ball(tissue)),
        ("array edge", box, GivenDensity(jnp.asarray(corner))),
    ):
        before, after = np.asarray(run(glioma(where, start, rate=0.0))).reshape(2, -1)
        drifts[name] = abs(float(after.sum() / before.sum()) - 1.0)
    return drifts


def fraction_error(
    n_fractions: int = 30, dose: float = 2.0, alpha: float = 0.05, alpha_beta: float = 10.0, step: float = 7.3
) -> float:
    """Relative error of the surviving mass after `n_fractions`, with diffusion and without growth, against
    exp(-n (alpha d + beta d^2)). Steps and fractions are deliberately out of step; two fractions on every second day.
    """
    tissue = brain((10, 10, 10), (2.0, 2.0, 2.0))
    times = np.repeat(3.0 + 2.0 * np.arange(n_fractions / 2), 2)[:n_fractions] + 0.25 * (np.arange(n_fractions) % 2)
    schedule = Schedule(Course(jnp.asarray(times), jnp.full(n_fractions, dose)))
    model = glioma(tissue, ball(tissue), rate=0.0, alpha=alpha, alpha_beta=alpha_beta)
    run = eqx.filter_jit(lambda m, s: simulate(m, s, [0.0, 100.0], FixedSteps(step, BOUND)).states.density)
    before, after = np.asarray(run(model, schedule)).reshape(2, -1)
    expected = np.exp(-n_fractions * alpha * dose * (1.0 + dose / alpha_beta))
    return float(abs(after.sum() / before.sum() / expected - 1.0))


def treated(tissue: Tissue, initial: GivenDensity, *, step: float = 4.0, day: float = 48.0) -> np.ndarray:
    """The answer of the solver for a standard treated case."""
    run = eqx.filter_jit(
        lambda m, s: simulate(m, s, [day], FixedSteps(step, BOUND), estimate_error=False).states.density[-1]
    )
    return np.asarray(run(glioma(tissue, initial), chemoradiation(10.0)))


def reoriented(tissue: Tissue, initial: GivenDensity, axes: Sequence[int], flips: Sequence[bool]):
    """The same anatomy stored in another voxel order: axes permuted and flipped, the affine changed to match.

    Returns the reoriented tissue, initial condition, and the function that brings a field back.
    """
    order, flipped = tuple(axes), tuple(a for a in range(3) if flips[a])

    def turn(field):
        return np.flip(np.transpose(np.asarray(field), order), flipped)

    grid = tissue.grid
    affine = grid.affine_array[:, [*order, 3]].copy()
    shape = tuple(grid.shape[a] for a in order)
    for a in flipped:
        affine[:, 3] += affine[:, a] * (shape[a] - 1)
        affine[:, a] *= -1.0
    fields: dict[str, jax.Array | np.ndarray] = {k: jnp.asarray(turn(v)) for k, v in tissue.fields.items()}
    domain = Domain(Grid(shape, affine), jnp.asarray(turn(tissue.domain.mask)))
    back = tuple(int(i) for i in np.argsort(order))
    return (
        Tissue(domain, fields),
        GivenDensity(jnp.asarray(turn(initial.density))),
        lambda field: np.transpose(np.flip(np.asarray(field), flipped), back),
    )


def orientation_difference(cases: Sequence[tuple[Sequence[int], Sequence[bool]]], n: int = 12) -> float:
    """Largest relative difference between a treated case and the same case stored in other voxel orders."""
    tissue = brain((n, n + 2, n - 2), (2.0, 1.5, 3.0))
    initial = ball(tissue)
    answer, worst = treated(tissue, initial), 0.0
    for axes, flips in cases:
        other, start, back = reoriented(tissue, initial, axes, flips)
        worst = max(worst, relative(back(treated(other, start)), answer))
    return worst


ALL_ORIENTATIONS = [
    (axes, tuple(bool(k >> b & 1) for b in range(3)))
    for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    for k in range(8)
]


def euler_numpy(
    tissue: Tissue,
    start: np.ndarray,
    schedule: Schedule,
    day: float,
    step: float,
    *,
    diffusivity: float = 0.3,
    gray_ratio: float = 0.1,
    rate: float = 0.05,
    alpha: float = 0.05,
    alpha_beta: float = 10.0,
    sensitivity: float = 0.5,
    elimination: float = 9.242,
) -> np.ndarray:
    """An independent program: explicit Euler in NumPy, loops over faces, fractions at their steps.

    It shares no code with the solver. First order in `step` [day], which must divide the times of all fractions.
    """
    mask = np.asarray(tissue.domain.mask)
    white, gray = (np.asarray(tissue.fields[k], float) for k in ("white_matter", "gray_matter"))
    d = np.where(mask, diffusivity * (white + gray_ratio * gray), 0.0)
    u = np.where(mask, start, 0.0).astype(float)
    fractions = {
        round(float(t) / step): float(g) * alpha * (1 + float(g) / alpha_beta)
        for t, g in zip(schedule.radiotherapy.times, schedule.radiotherapy.doses, strict=True)
    }
    drug_times = np.asarray(schedule.drugs[DRUG].times)
    for k in range(round(day / step)):
        if k in fractions:
            u = u * np.exp(-fractions[k])
        change = rate * u * (1 - u)
        # Mean concentration over this step, in closed form: sampling the jump of a dose would cost a percent.
        begin, end = (np.maximum(t - drug_times, 0.0) for t in (k * step, (k + 1) * step))
        concentration = float(np.sum(np.exp(-elimination * begin) - np.exp(-elimination * end))) / (elimination * step)
        change -= sensitivity * concentration * u
        for axis, h in enumerate(tissue.grid.spacing):
            left = [slice(None)] * 3
            right = [slice(None)] * 3
            left[axis], right[axis] = slice(0, -1), slice(1, None)
            dl, dr = d[tuple(left)], d[tuple(right)]
            face = np.divide(2 * dl * dr, dl + dr, out=np.zeros_like(dl), where=(dl + dr) > 0)
            flux = face * (u[tuple(right)] - u[tuple(left)]) / h**2
            change[tuple(left)] += flux
            change[tuple(right)] -= flux
        u = u + step * change
    return u


def euler_difference(n: int = 12, day: float = 30.0, steps: Sequence[float] = (0.05, 0.025)) -> float:
    """Relative L2 difference of the solver from Euler extrapolated to step zero, treated, irregular mask."""
    tissue = brain((n, n, n), (2.0, 2.0, 2.0))
    initial, schedule = ball(tissue), chemoradiation(10.0, 8)
    coarse, fine = (euler_numpy(tissue, np.asarray(initial.density), schedule, day, s) for s in steps)
    limit = fine + (fine - coarse) * steps[1] / (steps[0] - steps[1])
    run = eqx.filter_jit(
        lambda m, s: simulate(m, s, [day], FixedSteps(1.0, BOUND), estimate_error=False).states.density[-1]
    )
    return relative(run(glioma(tissue, initial), schedule), limit)
