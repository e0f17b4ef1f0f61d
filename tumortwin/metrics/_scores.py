"""Proper scores and calibration of a forecast that is a sample: CRPS, intervals and their coverage, PIT."""

import dataclasses

import numpy as np
from scipy import stats


def crps(sample: np.ndarray, observed: float, weights: np.ndarray | None = None, *, fair: bool = False) -> float:
    """Continuous ranked probability score of a (weighted) sample, in the unit of the quantity; lower is better.

    $$ CRPS = E|X - y| - \\tfrac12 E|X - X'| $$

    computed in O(n log n) from the sorted sample, 1/2 E|X - X'| = sum_i w_i x_(i) (W_(i-1) + W_i - 1) with W the
    cumulative weights. For a point forecast it is the absolute error, so baselines and twin share one scale. The score
    of a sample is that of its empirical distribution; `fair` removes the bias of a finite sample (X and X' from
    different draws), for comparing ensembles of different size.

    **Reference:** Gneiting and Raftery, J Am Stat Assoc 102 (2007); Ferro, Q J R Meteorol Soc 140 (2014).
    """
    x, w = _sorted(sample, weights)
    error = float(np.sum(w * np.abs(x - observed)))
    upper = np.cumsum(w)
    spread = float(np.sum(w * x * (2.0 * upper - w - 1.0)))
    if fair:
        distinct = 1.0 - float(np.sum(w**2))
        spread = spread / distinct if distinct > 0.0 else 0.0
    return error - spread


def crps_gaussian(mean: float, sd: float, observed: float) -> float:
    """CRPS of a normal forecast in closed form: sd (z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)), z = (y - mean)/sd."""
    z = (observed - mean) / sd
    return float(sd * (z * (2.0 * stats.norm.cdf(z) - 1.0) + 2.0 * stats.norm.pdf(z) - 1.0 / np.sqrt(np.pi)))


def quantile(sample: np.ndarray, level: float | np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Quantiles of a (weighted) sample, linear between the midpoints of the weights (Hazen when they are equal).

    The one definition of this package: intervals, scores, tables and plans all use it. Draws of weight zero say
    nothing.

    **Reference:** Hyndman and Fan, Am Stat 50 (1996), definition 5.
    """
    x, w = _sorted(sample, weights)
    x, w = x[w > 0.0], w[w > 0.0]
    return np.asarray(np.interp(level, np.cumsum(w) - 0.5 * w, x))


def central_interval(sample: np.ndarray, level: float = 0.95, weights: np.ndarray | None = None) -> tuple[float, float]:
    """The interval that leaves (1 - level)/2 of the sample on either side."""
    low, high = quantile(sample, np.asarray([0.5 - level / 2.0, 0.5 + level / 2.0]), weights)
    return float(low), float(high)


def interval_score(low: float, high: float, observed: float, level: float = 0.95) -> float:
    """Width plus 2/(1 - level) times the distance by which the observation lies outside; lower is better.

    **Reference:** Gneiting and Raftery, J Am Stat Assoc 102 (2007), eq. 43.
    """
    penalty = 2.0 / (1.0 - level)
    return (high - low) + penalty * max(low - observed, 0.0) + penalty * max(observed - high, 0.0)


def probability_integral_transform(sample: np.ndarray, observed: float, weights: np.ndarray | None = None) -> float:
    """PIT, the forecast's probability of a value below the observation (ties count half); uniform if calibrated."""
    x, w = _sorted(sample, weights)
    return float(np.sum(w[x < observed]) + 0.5 * np.sum(w[x == observed]))


@dataclasses.dataclass(frozen=True)
class Proportion:
    """An observed proportion `value` of `trials` with a confidence interval."""

    value: float
    low: float
    high: float
    trials: int | float


def wilson(successes: int | float, trials: int | float, confidence: float = 0.95) -> Proportion:
    """Proportion with Wilson's score interval; counts may be fractional (effective sample size of weighted draws).

    **Reference:** Wilson, J Am Stat Assoc 22 (1927).
    """
    _check_counts(successes, trials)
    z = float(stats.norm.ppf(0.5 + confidence / 2.0))
    p = successes / trials
    center = (p + z**2 / (2.0 * trials)) / (1.0 + z**2 / trials)
    half = z / (1.0 + z**2 / trials) * np.sqrt(p * (1.0 - p) / trials + z**2 / (4.0 * trials**2))
    # At 0 and at 1 the end is exact; rounding would leave it 1e-17 away.
    low = 0.0 if successes == 0 else float(center - half)
    high = 1.0 if successes == trials else float(center + half)
    return Proportion(float(p), low, high, trials)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Proportion:
    """Proportion with the exact (conservative) binomial interval.

    **Reference:** Clopper and Pearson, Biometrika 26 (1934).
    """
    _check_counts(successes, trials)
    tail = 0.5 - confidence / 2.0
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(stats.beta.ppf(1.0 - tail, successes + 1, trials - successes))
    return Proportion(successes / trials, low, high, trials)


def coverage(low: np.ndarray, high: np.ndarray, observed: np.ndarray, confidence: float = 0.95) -> Proportion:
    """Share of observations inside their intervals (ends included), with Wilson's interval."""
    inside = (np.asarray(low) <= np.asarray(observed)) & (np.asarray(observed) <= np.asarray(high))
    return wilson(int(inside.sum()), int(inside.size), confidence)


def _check_counts(successes: int | float, trials: int | float) -> None:
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"required: 0 <= successes <= trials, trials > 0; received: {successes} of {trials}")


def _sorted(sample: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The finite sample in order, with weights that sum to one."""
    x = np.asarray(sample, dtype=float).ravel()
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float).ravel()
    if x.size == 0 or w.shape != x.shape or not np.isfinite(x).all() or not (w >= 0.0).all() or not w.sum() > 0.0:
        raise ValueError(
            f"required: a non-empty finite sample and non-negative weights of its size; received: {x.size} values "
            f"({int((~np.isfinite(x)).sum())} not finite) and {w.size} weights; try: drop and count failed draws first"
        )
    order = np.argsort(x, kind="stable")
    return x[order], w[order] / w.sum()
