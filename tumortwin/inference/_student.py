"""Multivariate Student-t proposals and their mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import gammaln, logsumexp


def student_draws(mean: np.ndarray, factor: np.ndarray, degrees: float, n: int, *, key: Array) -> np.ndarray:
    """`n` draws of `mean + factor eps sqrt(nu / chi2_nu)` [n, parameter]."""
    normal_key, chi_key = jax.random.split(key)
    noise = jax.random.normal(normal_key, (n, mean.size))
    chi = 2 * jax.random.gamma(chi_key, degrees / 2, (n,))
    return mean + np.asarray(noise * jnp.sqrt(degrees / chi)[:, None]) @ factor.T


def student_log_density(z: np.ndarray, mean: np.ndarray, factor: np.ndarray, degrees: float) -> np.ndarray:
    """Log density of the multivariate Student-t with scale matrix `factor factor^T` [n]."""
    size = mean.size
    scaled = np.linalg.solve(factor, (z - mean).T)
    constant = gammaln((degrees + size) / 2) - gammaln(degrees / 2) - size / 2 * np.log(degrees * np.pi)
    constant -= np.sum(np.log(np.abs(np.diag(factor))))
    return constant - (degrees + size) / 2 * np.log1p(np.sum(scaled**2, axis=0) / degrees)


def mixture_log_density(
    z: np.ndarray, means: np.ndarray, factors: np.ndarray, counts: np.ndarray, degrees: float
) -> np.ndarray:
    """Log density of the mixture of proposals that drew `counts` points each (the balance heuristic)."""
    parts = [student_log_density(z, m, f, degrees) for m, f in zip(means, factors, strict=True)]
    shares = np.log(counts / counts.sum())
    return np.asarray(logsumexp(np.stack(parts) + shares[:, None], axis=0))


def tempered_moments(z: np.ndarray, log_ratios: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the weighted sample, its weights raised to the largest power <= 1 that keeps `least`
    effective draws: a few heavy draws must not shrink a proposal onto themselves."""
    low, high, power = 0.0, 1.0, 1.0
    for _ in range(40):
        weights = _normalized(power * log_ratios)
        enough = 1 / np.sum(weights**2) >= least
        low, high = (power, high) if enough else (low, power)
        if enough and power == 1.0:
            break
        power = (low + high) / 2
    weights = _normalized(low * log_ratios)
    mean = weights @ z
    centered = z - mean
    return mean, (centered * weights[:, None]).T @ centered / (1 - np.sum(weights**2))


def _normalized(log_weights: np.ndarray) -> np.ndarray:
    finite = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    return np.exp(finite - logsumexp(finite))
