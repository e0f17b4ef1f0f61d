"""From simulated tumors to a reduced-order model, and to one of more modes."""

import dataclasses
from collections.abc import Iterable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.models import ReactionDiffusion
from tumortwin.solvers import FixedSteps
from tumortwin.surrogates._domain import ParameterDomain
from tumortwin.surrogates._error import ErrorModel
from tumortwin.surrogates.pod._advance import ReducedState
from tumortwin.surrogates.pod._basis import Basis, enlarged_basis, pod_basis
from tumortwin.surrogates.pod._operators import PATHS, project
from tumortwin.surrogates.pod._surrogate import MASS, PodSurrogate
from tumortwin.treatments import Schedule


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


def fit_pod(
    model: ReactionDiffusion,
    blocks: Iterable[Float[np.ndarray, "snapshot voxel"]],
    domain: ParameterDomain,
    training: Mapping[str, np.ndarray],
    *,
    levels: Mapping[str, float],
    solver: FixedSteps,
    horizon: float,
    settings: PodSettings | None = None,
    seed: int = 0,
) -> tuple[PodSurrogate, Basis]:
    """A reduced-order model that has not been held against held-out cases yet (`calibrate_pod`), and its basis.

    **Arguments:** `model` with the fixed start; `blocks` of snapshots (`Samples.snapshots`), one in memory at a time;
    `training` path -> [sample]: the parameters that they are of; `levels` of the volumes; `solver` of the samples;
    `seed` of the sketch.
    """
    settings = PodSettings() if settings is None else settings
    start = np.asarray(model.initial.state(model.tissue).density, np.float64).ravel()
    basis = pod_basis(start, blocks, settings.modes)
    surrogate = _assembled(model, basis.modes, _ratio_range(training), domain, levels, solver, horizon, settings, seed)
    return surrogate, basis


def enlarged(
    surrogate: PodSurrogate,
    snapshots: Float[np.ndarray, "snapshot voxel"],
    count: int,
    settings: PodSettings | None = None,
    *,
    seed: int = 0,
) -> PodSurrogate:
    """The surrogate with `count` more modes, from snapshots that it rejected. Its bounds are to be calibrated anew."""
    settings = PodSettings() if settings is None else settings
    old = np.asarray(surrogate.modes, np.float64).reshape(surrogate.operators.size, -1)
    low, high = (float(x) for x in surrogate.operators.log_ratio)
    levels = {name: float(level) for name, level in surrogate.levels.items()}
    return _assembled(
        surrogate.model,
        enlarged_basis(old, snapshots, count),
        (low, high),
        surrogate.domain,
        levels,
        surrogate.solver,
        surrogate.horizon,
        settings,
        seed,
    )


def _assembled(
    model: ReactionDiffusion,
    modes: Float[np.ndarray, "mode voxel"],
    log_ratio: tuple[float, float],
    domain: ParameterDomain,
    levels: Mapping[str, float],
    solver: FixedSteps,
    horizon: float,
    settings: PodSettings,
    seed: int,
) -> PodSurrogate:
    operators = project(model, modes, log_ratio, degree=settings.degree, sketch=settings.sketch, seed=seed)
    names = (MASS, *sorted(levels))
    dtype = model.initial.state(model.tissue).density.dtype
    return PodSurrogate(
        model,
        jnp.asarray(modes.reshape(-1, *model.tissue.grid.shape), dtype),
        operators,
        domain,
        ErrorModel.uncalibrated(names, settings.level, settings.tolerance),
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
    return jax.vmap(lambda row: surrogate.reduced(surrogate.at(row), schedule, days, start))(dict(values))
