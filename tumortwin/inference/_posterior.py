"""Draws of the parameters, with what must be known before they are used."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from tumortwin.metrics import quantile


@dataclasses.dataclass(frozen=True)
class Posterior:
    """What a calibrator hands back.

    - `draws`: path -> values [chain, draw, ...] in the parameter's own units.
    - `log_weights`: [chain, draw], normalized (their exponentials sum to 1), or `None` for equal weights.
    - `diagnostics`: k-hat or R-hat, ESS, divergences, counts of failed solves, convergence of the MAP.
    - `statement`: in plain words, what the data identify and what they do not.
    - `info`: weights and correlation volumes by datum, Laplace mean and covariance, and the like (plain values).
    - `prior_draws`: path -> values [1, draw, ...], for prior against posterior.
    - `log_density`: [chain, draw], log of prior x power likelihood, or `None`.
    - `monte_carlo_error`: path -> standard error of the posterior mean.
    """

    draws: dict[str, np.ndarray]
    log_weights: np.ndarray | None
    diagnostics: dict[str, float]
    statement: str
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    prior_draws: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    log_density: np.ndarray | None = None
    monte_carlo_error: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def weights(self) -> np.ndarray:
        """Normalized weights [chain, draw]."""
        if self.log_weights is None:
            shape = next(iter(self.draws.values())).shape[:2]
            return np.full(shape, 1.0 / np.prod(shape))
        return np.exp(self.log_weights)

    def mean(self, path: str) -> np.ndarray:
        """Posterior mean of one parameter."""
        return np.asarray(np.tensordot(self.weights, self.draws[path], axes=2))

    def sd(self, path: str) -> np.ndarray:
        """Posterior standard deviation of one parameter."""
        centered = self.draws[path] - self.mean(path)
        return np.asarray(np.sqrt(np.tensordot(self.weights, centered**2, axes=2)))

    def quantile(self, path: str, level: float) -> np.ndarray:
        """Weighted posterior quantile of one parameter."""
        return weighted_quantile(self.draws[path], self.weights, level)

    def interval(self, path: str, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Central credible interval of one parameter."""
        return self.quantile(path, (1 - level) / 2), self.quantile(path, (1 + level) / 2)

    def halves(self) -> tuple["Posterior", "Posterior"]:
        """Two posteriors that share no draw, weights normalized in each, to choose with one and to judge on the other.

        Chains stay whole where there are several; of a single one every second draw is taken (a weighted sample
        may come from a first proposal and then from better ones). A posterior of a single draw cannot be split:
        both halves are it.
        """
        chains, draws = self.weights.shape
        if chains * draws == 1:
            return self, self

        def part(rows: tuple[slice, ...]) -> "Posterior":
            weights = None if self.log_weights is None else self.log_weights[rows]
            if weights is not None:
                top = weights.max()
                weights = weights - top - np.log(np.exp(weights - top).sum())
            kept = {path: value[rows] for path, value in self.draws.items()}
            density = None if self.log_density is None else self.log_density[rows]
            return dataclasses.replace(self, draws=kept, log_weights=weights, log_density=density)

        if chains > 1:
            return part((slice(None, chains // 2),)), part((slice(chains // 2, None),))
        return part((slice(None), slice(0, None, 2))), part((slice(None), slice(1, None, 2)))

    def resample(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        """`n` draws of equal weight by systematic resampling: path -> values [n, ...], the same rows for all paths.

        A draw of weight `w` appears `floor(n w)` or `ceil(n w)` times. The order of the rows is random.
        """
        return {
            path: value.reshape(-1, *value.shape[2:])[self.resample_rows(n, key=key)]
            for path, value in self.draws.items()
        }

    def resample_rows(self, n: int, *, key: Array) -> np.ndarray:
        """The rows (chain-major) that `resample` takes."""
        offset_key, order_key = jax.random.split(key)
        rows = systematic_rows(self.weights.ravel(), n, key=offset_key)
        return rows[np.asarray(jax.random.permutation(order_key, n))]


def systematic_rows(weights: Float[np.ndarray, " draw"], n: int, *, key: Array) -> np.ndarray:
    """Rows of `n` draws of equal weight, in their order: systematic resampling, one uniform number for all of them.

    **Reference:** Kitagawa, J. Comput. Graph. Stat. 5 (1996) 1, doi:10.2307/1390750.
    """
    points = (np.arange(n) + float(jax.random.uniform(key))) / n
    cumulative = np.cumsum(weights)
    return np.minimum(np.searchsorted(cumulative / cumulative[-1], points), weights.size - 1)


def weighted_quantile(draws: np.ndarray, weights: np.ndarray, level: float) -> np.ndarray:
    """Quantile of `draws` [chain, draw, ...] under `weights` [chain, draw], as in `tumortwin.metrics.quantile`."""
    columns = draws.reshape(weights.size, -1).T
    found = [float(quantile(column, level, weights.ravel())) for column in columns]
    return np.asarray(found).reshape(draws.shape[2:])
