"""From simulated tumors to a reduced-order model, and to one of more modes."""

import dataclasses
from collections.abc import Iterable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tumortwin.models import AbstractInitialCondition, GivenDensity, ReactionDiffusion
from tumortwin.solvers import FixedSteps
from tumortwin.surrogates._domain import ParameterDomain
from tumortwin.surrogates._error import ErrorModel
from tumortwin.surrogates.pod._advance import ReducedState
from tumortwin.surrogates.pod._basis import Basis, enlarged_basis, pod_basis
from tumortwin.surrogates.pod._operators import PATHS, project
from tumortwin.surrogates.pod._surrogate import CASES_AT_ONCE, MASS, PodSurrogate
from tumortwin.treatments import Schedule

# A voxel that no training tumor filled to this share of the lowest level is not counted into a volume.
NEAR = 0.5


@dataclasses.dataclass(frozen=True)
class PodSettings:
    """The choices of a reduced-order model.

    `modes`: their number, the start included; `degree`: Chebyshev terms of the front correction in log(rho / D);
    `sketch`: rows of the residual's random sketch; `substeps`: Runge-Kutta steps of crowding within a step; `level` of
    the bounds; `tolerance`: largest bound of the relative L2 error that is vouched for; `domain_level`: share of
    expected parameters that the domain holds.

    **Good values:** 24-48 modes for one prior and half a year; substeps 2 for rho h < 1; tolerance .1; level .95.
    """

    modes: int = 32
    degree: int = 12
    sketch: int = 64
    substeps: int = 2
    level: float = 0.95
    tolerance: float = 0.1
    domain_level: float = 0.98


def basis_of(model: ReactionDiffusion, blocks: Iterable[Float[np.ndarray, "_ voxel"]], count: int) -> Basis:
    """The modes of a model's start and of blocks of snapshots on its grid (`pod_basis`), zero outside of the domain.

    The modes are in the order of what they hold: the first 16 of 48 are those that a basis of 16 would have.
    """
    start = np.asarray(model.initial.state(model.tissue).density, np.float64).ravel()
    there = np.asarray(model.tissue.domain.mask).ravel()
    found = pod_basis(start[there], (block[:, there] for block in blocks), count)
    modes, largest = np.zeros((count, start.size)), np.zeros(start.size)
    modes[:, there], largest[there] = found.modes, found.largest
    return found._replace(modes=modes, largest=largest)


def fit_pod(
    model: ReactionDiffusion,
    basis: Basis,
    domain: ParameterDomain,
    training: Mapping[str, np.ndarray],
    *,
    levels: Mapping[str, float],
    solver: FixedSteps,
    horizon: float,
    settings: PodSettings | None = None,
    seed: int = 0,
) -> PodSurrogate:
    """A reduced-order model that has not been held against held-out cases yet (`calibrate_pod`).

    **Arguments:** `model` with the fixed start; `basis` of it (`basis_of`), of at least as many modes as the settings
    want; `training` path -> [sample]: the parameters that its snapshots are of; `levels` of the volumes; `solver` of
    the samples; `seed` of the sketch.
    """
    settings = PodSettings() if settings is None else settings
    if len(basis.modes) < settings.modes:
        raise ValueError(f"required: a basis of {settings.modes} modes; received: one of {len(basis.modes)}")
    modes = basis.modes[: settings.modes]
    near = np.flatnonzero(basis.largest >= NEAR * min(levels.values()))
    rest = (domain, levels, solver, horizon, settings, seed)
    return _assembled(model, modes, near, _ratio_range(training), *rest)


def enlarged(
    surrogate: PodSurrogate,
    snapshots: Float[np.ndarray, "snapshot voxel"],
    count: int,
    settings: PodSettings | None = None,
    *,
    start: AbstractInitialCondition | None = None,
    seed: int = 0,
) -> PodSurrogate:
    """The surrogate with `count` more modes, from snapshots that it rejected; it has no bounds until it is calibrated.

    **Arguments:** `start` from which it is asked from now on: the first of the new modes holds it, and `hold_against`
    begins there. Without it the start stays what it was, and another one is rejected.
    """
    settings = PodSettings() if settings is None else settings
    old = np.asarray(surrogate.modes, np.float64).reshape(surrogate.operators.size, -1)
    model = surrogate.model
    if start is not None:
        density = start.state(model.tissue).density
        model = eqx.tree_at(lambda m: m.initial, model, GivenDensity(density))
        old, count = enlarged_basis(old, np.asarray(density, np.float64).reshape(1, -1), 1), count - 1
    low, high = (float(x) for x in surrogate.operators.log_ratio)
    levels = {name: float(level) for name, level in surrogate.levels.items()}
    reached = np.flatnonzero(np.max(snapshots, axis=0) >= NEAR * min(levels.values()))
    near = np.union1d(np.asarray(surrogate.near), reached)
    rest = (surrogate.domain, levels, surrogate.solver, surrogate.horizon, settings, seed)
    return _assembled(model, enlarged_basis(old, snapshots, count), near, (low, high), *rest)


def _assembled(
    model: ReactionDiffusion,
    modes: Float[np.ndarray, "mode voxel"],
    near: Int[np.ndarray, " near"],
    log_ratio: tuple[float, float],
    domain: ParameterDomain,
    levels: Mapping[str, float],
    solver: FixedSteps,
    horizon: float,
    settings: PodSettings,
    seed: int,
) -> PodSurrogate:
    dtype = model.initial.state(model.tissue).density.dtype
    exact = project(model, modes, log_ratio, degree=settings.degree, sketch=settings.sketch, seed=seed)
    return PodSurrogate(
        model,
        jnp.asarray(modes.reshape(-1, *model.tissue.grid.shape), dtype),
        jnp.asarray(near),
        jnp.asarray(modes[:, near], dtype),
        jnp.asarray(modes.sum(axis=1), float),
        jax.tree.map(lambda x: x.astype(dtype), exact),
        domain,
        ErrorModel.uncalibrated(
            (MASS, *sorted(levels)), settings.level, settings.tolerance, model.tissue.grid.cell_volume
        ),
        {name: jnp.asarray(float(level)) for name, level in sorted(levels.items())},
        solver,
        settings.substeps,
        float(horizon),
    )


def _ratio_range(training: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The range of log(rho / D) of the training samples, a twentieth wider on both sides."""
    diffusivity, rate = (np.asarray(training[path]) for path in PATHS)
    ratio = np.log(rate / diffusivity)
    wider = 0.05 * max(float(np.ptp(ratio)), 1.0)
    return float(ratio.min()) - wider, float(ratio.max()) + wider


@eqx.filter_jit
def reduced_many(
    surrogate: PodSurrogate, values: Mapping[str, Array], schedule: Schedule, days: tuple[float, ...]
) -> tuple[ReducedState, Array]:
    """The reduced states [case day ...] and estimates [case day] of many sets of parameters, from the fixed start."""
    start = surrogate.begin(surrogate.model)
    one = lambda row: surrogate.reduced(surrogate.at(row), schedule, days, start)  # noqa: E731
    return jax.lax.map(one, dict(values), batch_size=CASES_AT_ONCE)
