"""A regression with normal errors, as bare as a problem can be: posterior and evidence in closed form."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from tumortwin.inference import AbstractProblem

PATHS = ("offset", "slope")
NORMAL: Any = stats.multivariate_normal


class Regression(AbstractProblem):
    """`y = rows x + sd e`, `x = mean + spread z`, `z` standard normal; one term a row."""

    rows: Array
    values: Array
    days: tuple[float, ...] = eqx.field(static=True)
    mean: Array
    spread: Array
    noise: Array

    @property
    def size(self) -> int:
        return self.mean.size

    @property
    def names(self) -> tuple[str, ...]:
        return PATHS

    @property
    def scalars(self) -> tuple[str, ...]:
        return PATHS

    def log_prior(self, z: Array) -> Array:
        return -0.5 * jnp.sum(z**2) - 0.5 * z.size * jnp.log(2 * jnp.pi)

    def log_terms(self, z: Array) -> Array:
        gap = (self.values - self.rows @ (self.mean + self.spread * z)) / self.noise
        return -0.5 * gap**2 - jnp.log(self.noise) - 0.5 * jnp.log(2 * jnp.pi)

    @property
    def term_days(self) -> np.ndarray:
        return np.asarray(self.days)

    def term_names(self) -> tuple[str, ...]:
        return tuple(f"{day}: {float(value)!r}" for day, value in zip(self.days, self.values, strict=True))

    def log_density(self, z: Array) -> Array:
        value = self.log_prior(z) + jnp.sum(self.log_terms(z))
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def constrain(self, z: Array) -> dict[str, Array]:
        x = self.mean + self.spread * z
        return {path: x[i] for i, path in enumerate(PATHS)}

    def sample_prior(self, n: int, *, key: Array) -> Array:
        return jax.random.normal(key, (n, self.size))

    def prior_draws(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        z = np.asarray(self.sample_prior(n, key=key))
        return {path: np.asarray(self.mean[i] + self.spread[i] * z[None, :, i]) for i, path in enumerate(PATHS)}

    def only(self, kept: list[int]) -> "Regression":
        """The same with some of the values."""
        rows = np.asarray(kept)
        days = tuple(self.days[k] for k in kept)
        return dataclasses.replace(self, rows=self.rows[rows], values=self.values[rows], days=days)

    def exact(self) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and covariance of the parameters."""
        rows, noise = np.asarray(self.rows), float(self.noise)
        covariance = np.linalg.inv(rows.T @ rows / noise**2 + np.diag(np.asarray(self.spread) ** -2.0))
        weighted = rows.T @ np.asarray(self.values) / noise**2
        return covariance @ (weighted + np.asarray(self.mean) / np.asarray(self.spread) ** 2), covariance

    def log_evidence(self, until: float = np.inf) -> float:
        """Of the values up to a day, by the normal law of all of them together."""
        taken = np.asarray(self.days) <= until
        rows, values = np.asarray(self.rows)[taken], np.asarray(self.values)[taken]
        covariance = (rows * np.asarray(self.spread) ** 2) @ rows.T + float(self.noise) ** 2 * np.eye(len(values))
        return float(NORMAL.logpdf(values, rows @ np.asarray(self.mean), covariance))


def line(days: tuple[float, ...] = (0.0, 0.0, 1.0, 2.5, 2.5, 4.0), seed: int = 0) -> Regression:
    """Two numbers from a line seen six times."""
    rng = np.random.default_rng(seed)
    values = 1.4 - 0.2 * np.asarray(days) + 0.3 * rng.normal(size=len(days))
    rows = np.stack([np.ones(len(days)), days], axis=1)
    return _regression(rows, values, days, (1.0, -0.5), (2.0, 0.7), 0.3)


def ridge() -> Regression:
    """Two numbers of which only the sum is seen."""
    return _regression(np.ones((1, 2)), np.ones(1), (0.0,), (0.0, 0.0), (3.0, 3.0), 0.1)


def _regression(rows: Any, values: Any, days: Any, mean: Any, spread: Any, noise: float) -> Regression:
    arrays = [jnp.asarray(a, float) for a in (rows, values, mean, spread, noise)]
    return Regression(arrays[0], arrays[1], days, *arrays[2:])


class Killed:
    """A checkpoint that raises after `limit` saves, as a kill would."""

    def __init__(self, limit):
        self.kept, self.left = {}, limit

    def save(self, name, arrays):
        self.kept[name] = {key: np.array(value) for key, value in arrays.items()}
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def load(self, name):
        return self.kept.get(name)


def agrees(posterior, exact, errors=4.5):
    """Means within so many Monte-Carlo errors, spreads within 12 %."""
    mean, covariance = exact
    for i, path in enumerate(PATHS):
        assert abs(posterior.mean(path) - mean[i]) < errors * posterior.monte_carlo_error[path]
        assert posterior.monte_carlo_error[path] < 0.1 * np.sqrt(covariance[i, i])
        assert posterior.sd(path) == pytest.approx(np.sqrt(covariance[i, i]), rel=0.12)
