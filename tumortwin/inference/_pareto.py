"""Pareto smoothing of importance weights, and the diagnostic k-hat."""

import numpy as np

# A diagnosis above this means that no feasible number of draws makes the estimate reliable (Vehtari et al. 2024).
LARGEST_K_HAT = 0.7
LEAST_TAIL = 5
GRID_BASE = 30
SCALE_PRIOR = 3.0
SHAPE_PRIOR_COUNT = 10
SHAPE_PRIOR_MEAN = 0.5


def pareto_smooth(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalized, smoothed log weights [draw] and the shape k-hat of their tail.

    The `min(S/5, 3 sqrt(S))` largest of `S` ratios are replaced by the expected order statistics of a generalized
    Pareto distribution fitted to them, and cut at the largest raw ratio. Ratios of -inf (failed solves) are weights of
    zero.

    **Returns:** weights whose exponentials sum to one; k-hat below .7 means that the mean and its error can be trusted,
    and `inf` that there was no tail to fit.

    Reference: Vehtari, Simpson, Gelman, Yao & Gabry (2024), JMLR 25(72).
    """
    ratios = np.asarray(log_ratios, dtype=float)
    if not np.isfinite(ratios.max()):
        raise ValueError("required: at least one draw of positive probability; received: none")
    values = ratios - ratios.max()
    order = np.argsort(values, kind="stable")
    tail_size = int(np.ceil(min(values.size / 5, 3 * np.sqrt(values.size))))
    cutoff = max(values[order[-tail_size - 1]], np.log(np.finfo(float).tiny))
    tail = order[values[order] > cutoff]
    k_hat = np.inf
    if tail.size >= LEAST_TAIL:
        k_hat, sigma = generalized_pareto_fit(np.exp(values[tail]) - np.exp(cutoff))
        if np.isfinite(k_hat):
            levels = (np.arange(tail.size) + 0.5) / tail.size
            values[tail] = np.log(_quantile(levels, k_hat, sigma) + np.exp(cutoff))
            values = np.minimum(values, 0.0)
    return values - _log_sum_exp(values), float(k_hat)


def generalized_pareto_fit(excesses: np.ndarray) -> tuple[float, float]:
    """Shape `k` and scale `sigma` of a generalized Pareto distribution, from increasing positive excesses.

    The quasi-Bayesian profile estimate of Zhang & Stephens, its shape drawn weakly to .5 as in Vehtari et al.

    Reference: Zhang & Stephens (2009), Technometrics 51:316.
    """
    x, n = np.asarray(excesses, dtype=float), len(excesses)
    grid = GRID_BASE + int(np.sqrt(n))
    theta = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    theta = theta / (SCALE_PRIOR * x[int(n / 4 + 0.5) - 1]) + 1 / x[-1]
    shape = np.mean(np.log1p(-theta[:, None] * x), axis=1)
    profile = n * (np.log(-theta / shape) - shape - 1)
    weight = np.exp(profile - _log_sum_exp(profile))
    mean_theta = float(np.sum(theta * weight) / np.sum(weight))
    k = float(np.mean(np.log1p(-mean_theta * x)))
    sigma = -k / mean_theta
    return (n * k + SHAPE_PRIOR_COUNT * SHAPE_PRIOR_MEAN) / (n + SHAPE_PRIOR_COUNT), sigma


def effective_draws(log_weights: np.ndarray) -> float:
    """`1 / sum w^2` of normalized weights."""
    return float(1 / np.sum(np.exp(2 * log_weights)))


def _quantile(level: np.ndarray, k: float, sigma: float) -> np.ndarray:
    if abs(k) < np.finfo(float).eps:
        return -sigma * np.log1p(-level)
    return sigma * np.expm1(-k * np.log1p(-level)) / k


def _log_sum_exp(values: np.ndarray) -> float:
    top = float(np.max(values))
    return top + float(np.log(np.sum(np.exp(values - top))))
