"""How many voxels are worth one independent observation."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference._problem import Problem

IMAGE_DIMENSIONS = 3
GAUSSIAN_KURTOSIS = 3.0


def correlation_volume(
    residual: np.ndarray,
    valid: np.ndarray,
    spacing: tuple[float, float, float],
    *,
    cutoff: float = 1.0,
    least_pairs: float = 0.02,
) -> float:
    """Autocorrelation volume [mm^3] of a residual field.

    $$ V_{corr} = V_{voxel} \\sum_{h} \\rho(h), \\qquad
       \\rho(h) = \\frac{\\sum_i r_i r_{i+h} v_i v_{i+h} / \\sum_i v_i v_{i+h}}{\\sum_i r_i^2 v_i / \\sum_i v_i} $$

    over the lags `h` up to the largest distance before the mean of a shell first falls below `cutoff` standard errors
    (an initial positive sequence, in three dimensions; Bartlett's error for a correlated field). Numerator and
    denominator are formed by FFT on the masked, zero-padded fields; the overlap counts remove the bias of an irregular
    domain.

    No mean is subtracted: a bias of the model is a correlation over the whole field, and counts as one.

    **Arguments:** `residual` standardized (deviance) residuals [x y z]; `valid` 0/1; `spacing` [mm]; `cutoff` [1];
    `least_pairs`: lags with fewer pairs than this share of the valid voxels are left out.

    Reference: Geyer (1992), Statistical Science 7:473 (initial sequences); Worsley et al. (1996), Hum. Brain Mapp.
    4:58 (resels, the same idea for smooth fields).
    """
    mask = np.asarray(valid, dtype=float)
    field = np.where(mask > 0, np.asarray(residual, dtype=float), 0.0) * mask
    power = float(np.sum(field**2) / np.sum(mask))
    voxel = float(np.prod(spacing))
    if not np.isfinite(power) or power <= 0:
        return voxel
    overlap = _autocorrelate(mask)
    enough = overlap >= max(least_pairs * mask.sum(), 1.0)
    rho = _autocorrelate(field)[enough] / overlap[enough] / power
    shell = np.round(_lag_distances(field.shape, spacing)[enough] / min(spacing)).astype(int)
    counts = np.bincount(shell)
    sums, squares = (np.bincount(shell, weights=w)[counts > 0] for w in (rho, rho**2))
    # Bartlett: the variance of a sample autocorrelation is the sum of the squared ones over the number of voxels that
    # carry the field (3 for the fourth moment of a normal one).
    carriers = GAUSSIAN_KURTOSIS * np.sum(field**2) ** 2 / np.sum(field**4)
    error = np.sqrt(np.maximum(np.cumsum(squares), 1.0) / carriers)
    stops = np.flatnonzero((sums / counts[counts > 0] <= cutoff * error)[1:])
    kept = sums[: stops[0] + 1] if stops.size else sums
    return voxel * float(max(np.sum(kept), 1.0))


def reweight(problem: Problem, z: Float[Array, " parameter"]) -> tuple[Problem, np.ndarray]:
    """The problem with weights from the residuals at `z`, and `V_corr` [mm^3] by datum.

    $$ w_k = \\min\\Big(1, \\frac{V_{voxel}}{V_{corr,k}}\\Big) \\Big/
       \\Big(1 + \\sum_{j \\ne k} \\max(c_{kj}, 0)\\Big) $$

    with `c` the correlation of the residuals of two data (`shared_residuals`): what is wrong with the state that all
    visits start from is seen in each of them, and is not so many independent observations.

    Data that are no images (volumes) keep their weight; their `V_corr` is NaN.

    **Raises:** `ValueError` when the problem has no spacing, or its solve fails at `z`.
    """
    if problem.spacing is None:
        raise ValueError("required: `spacing` of the problem [mm] to estimate weights; received: None")
    weights, volumes = np.asarray(problem.weights).copy(), np.full(len(problem.data), np.nan)
    residuals = [np.asarray(field) for field in residual_fields(problem, z)]
    images = [k for k, datum in enumerate(problem.data) if datum.values.ndim == IMAGE_DIMENSIONS]
    pairs = [(residuals[k], np.asarray(problem.data[k].valid)) for k in images]
    for k, (residual, valid), total in zip(images, pairs, shared_residuals(pairs), strict=True):
        if not np.isfinite(residual[valid > 0]).all():
            name = problem.data[k].name
            raise ValueError(f"required: finite residuals of {name} at the given point; received: NaN or inf")
        volumes[k] = correlation_volume(residual, valid, problem.spacing)
        weights[k] = min(1.0, float(np.prod(problem.spacing)) / volumes[k]) / total
    return problem.with_weights(jnp.asarray(weights)), volumes


def shared_residuals(images: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """`1 + sum_j max(c_kj, 0)` of every (residual, valid) field.

    $$ c_{kj} = \\frac{\\sum_i r_{ki} r_{ji} v_{ki} v_{ji}}
       {\\sqrt{\\sum_i r_{ki}^2 v_{ki}\\, \\sum_i r_{ji}^2 v_{ji}}} $$

    over voxels valid in both (the norms over all valid ones, so that a small overlap counts little). `m` images with
    the same residuals give `m`, independent ones 1. Fields of another shape share nothing.
    """
    fields = [np.where(valid > 0, residual, 0.0).astype(float) for residual, valid in images]
    total = np.ones(len(fields))
    for k, first in enumerate(fields):
        for j, second in enumerate(fields):
            norm = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
            if j != k and first.shape == second.shape and norm > 0:
                total[k] += max(float(np.sum(first * second)) / norm, 0.0)
    return total


@eqx.filter_jit
def residual_fields(problem: Problem, z: Float[Array, " parameter"]) -> tuple[Array, ...]:
    """The unweighted deviance residuals of every datum at `z`."""
    predictions, observations = problem.predict(problem.prior.constrain(z))
    pairs = zip(problem.groups(), predictions, strict=True)
    return problem.by_datum(tuple(observations[group.channel].residual(eta, group.values) for group, eta in pairs))


def _autocorrelate(field: np.ndarray) -> np.ndarray:
    """Sums of products at every lag, lag zero at index zero; padded, so that nothing wraps around."""
    padded = [2 * n for n in field.shape]
    spectrum = np.fft.rfftn(field, padded, axes=(0, 1, 2))
    return np.fft.irfftn(np.abs(spectrum) ** 2, padded, axes=(0, 1, 2))


def _lag_distances(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> np.ndarray:
    """Length [mm] of the lag at every index of `_autocorrelate`."""
    axes = [np.fft.fftfreq(2 * n, 1 / (2 * n)) * h for n, h in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.sqrt(x**2 + y**2 + z**2)
