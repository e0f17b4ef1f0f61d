"""Is the uncertainty honest? Simulation-based calibration and coverage."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from tumortwin.inference._posterior import Posterior


def ranks(posterior: Posterior, truth: Mapping[str, np.ndarray | float]) -> dict[str, np.ndarray]:
    """Weighted rank of the truth among the posterior draws, in [0,1], by path.

    Uniform over repetitions in which the truth is drawn from the prior and the data from the model, if and only if the
    calibration is right on average.

    Reference: Talts et al. (2018), arXiv:1804.06788.
    """
    weights = posterior.weights
    found = {}
    for path, value in truth.items():
        below = posterior.draws[path] < np.asarray(value)
        found[path] = np.asarray(np.tensordot(weights, below.astype(float), axes=2))
    return found


def uniformity(values: Sequence[float] | np.ndarray, bins: int = 10) -> tuple[np.ndarray, float]:
    """Counts of ranks in equal bins of [0,1], and the p-value of a chi-squared test that they are uniform.

    **Raises:** `ValueError` with fewer than five ranks a bin (the test would mean nothing).
    """
    flat = np.ravel(np.asarray(values, dtype=float))
    if flat.size < 5 * bins:
        raise ValueError(f"required: at least {5 * bins} ranks for {bins} bins; received: {flat.size}; try: fewer bins")
    counts, _ = np.histogram(flat, bins=bins, range=(0.0, 1.0))
    return counts, float(stats.chisquare(counts).pvalue)


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How often the truth was inside: the share, and a 95 % Clopper-Pearson interval for it."""

    inside: int
    total: int
    share: float
    low: float
    high: float


def coverage(inside: Mapping[str, Sequence[bool] | np.ndarray]) -> dict[str, Coverage]:
    """Coverage by name over repetitions, and `pooled` over all names.

    Repetitions are independent, the names of one repetition are not: the pooled interval counts repetitions as if every
    name were independent, and is therefore too narrow; it is a bound for reading, the pooled share is unbiased.
    """
    flags = {name: np.ravel(np.asarray(values, dtype=bool)) for name, values in inside.items()}
    found = {name: share_inside(values) for name, values in flags.items()}
    everything = np.concatenate(list(flags.values()))
    found["pooled"] = share_inside(everything)
    return found


def covers(posterior: Posterior, truth: Mapping[str, np.ndarray | float], level: float = 0.95) -> dict[str, np.ndarray]:
    """Whether the central interval of each parameter holds the truth."""
    found = {}
    for path, value in truth.items():
        low, high = posterior.interval(path, level)
        found[path] = np.asarray((low <= np.asarray(value)) & (np.asarray(value) <= high))
    return found


def share_inside(inside: np.ndarray) -> Coverage:
    """The share of true entries, as `Coverage`."""
    return _binomial(int(np.sum(inside)), int(np.size(inside)))


def _binomial(inside: int, total: int) -> Coverage:
    interval = stats.binomtest(inside, total).proportion_ci(0.95, method="exact")
    return Coverage(inside, total, inside / total, float(interval.low), float(interval.high))
