"""Two posteriors of the same data: do they differ by more than their Monte-Carlo error?"""

import dataclasses

import numpy as np
from numpyro.diagnostics import effective_sample_size
from scipy.stats import norm

from tumortwin.inference import Posterior


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one quantity in two posteriors: of what, `mean` or `sd`, and the difference over its standard error."""

    path: str
    moment: str
    score: float
    in_sds: float


def differences(first: Posterior, second: Posterior, paths: list[str]) -> list[Difference]:
    """Means and sds of the logarithms of positive parameters, over their Monte-Carlo standard errors.

    The error of a mean is sd / sqrt(n), of an sd that of the mean of squares by the delta method; `n` from the
    autocorrelation of chains, or as a posterior of particles reports it.
    """
    found = []
    for path in paths:
        one, two = (_moments(posterior, path) for posterior in (first, second))
        for k, moment in enumerate(("mean", "sd")):
            gap = one[0][k] - two[0][k]
            found.append(Difference(path, moment, gap / np.hypot(one[1][k], two[1][k]), gap / two[0][1]))
    return found


def largest_allowed(comparisons: int, family_error: float) -> float:
    """The score that the largest of so many independent normal ones exceeds with probability `family_error`."""
    return float(norm.ppf(1 - family_error / (2 * comparisons)))


def _moments(posterior: Posterior, path: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean and sd of the log, and their standard errors."""
    draws, weights = np.log(posterior.draws[path]), posterior.weights
    mean = float(np.sum(weights * draws))
    squares = (draws - mean) ** 2
    sd = float(np.sqrt(np.sum(weights * squares)))
    spread = float(np.sqrt(np.sum(weights * (squares - sd**2) ** 2)))
    if draws.shape[0] > 1:
        n_mean, n_square = float(effective_sample_size(draws)), float(effective_sample_size(squares))
    else:
        n_mean = n_square = posterior.diagnostics["ess"]
    return (mean, sd), (sd / np.sqrt(n_mean), spread / np.sqrt(n_square) / (2 * sd))
