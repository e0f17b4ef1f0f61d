"""A linear model with Gaussian data: its posterior is known in closed form."""

from functools import cache
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from tumortwin.inference import Prior, Problem
from tumortwin.observation import AdcObservation, Datum
from tumortwin.params import parameter

DAYS = (0.0, 1.0, 2.5, 4.0)
NOISE = 0.3
PRIOR_MEAN = np.asarray([1.0, -0.5])
PRIOR_SD = np.asarray([2.0, 0.7])


class Line(eqx.Module):
    """value = offset + slope day, at five places that count the slope differently."""

    offset: Array = parameter(unit="1")
    slope: Array = parameter(unit="1/day")


PLACES = np.linspace(0.5, 1.5, 5)


def solve(model: Line, days: tuple[float, ...]) -> Array:
    return model.offset + model.slope * jnp.asarray(days)[:, None] * jnp.asarray(PLACES)[None, :]


def design(days: tuple[float, ...] = DAYS) -> np.ndarray:
    return np.concatenate([np.stack([np.ones(5), day * PLACES], axis=1) for day in days])


@cache
def prior() -> Prior:
    """The prior of every problem here, made once."""
    return Prior({"offset": dist.Normal(PRIOR_MEAN[0], PRIOR_SD[0]), "slope": dist.Normal(PRIOR_MEAN[1], PRIOR_SD[1])})


def build(kind: Any, *values: float) -> Any:
    """A module from plain numbers."""
    return kind(*(jnp.asarray(value, dtype=float) for value in values))


def problem(seed: int = 0, truth: tuple[float, float] = (1.4, -0.2), weight: float = 1.0) -> Problem:
    rng = np.random.default_rng(seed)
    mean = np.asarray(solve(build(Line, *truth), DAYS))
    noisy = [(day, row + NOISE * rng.normal(size=5)) for day, row in zip(DAYS, mean, strict=True)]
    data = tuple(Datum(day, "image", row, weight=weight) for day, row in noisy)
    return Problem(build(Line, 0.0, 0.0), {"image": build(AdcObservation, NOISE)}, prior(), data, solve)


def exact(given: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of (offset, slope) under the power likelihood."""
    weights = np.repeat(np.asarray(given.weights), 5) / NOISE**2
    values = np.concatenate([np.asarray(datum.values) for datum in given.data])
    rows = design()
    precision = rows.T @ (rows * weights[:, None]) + np.diag(PRIOR_SD**-2)
    covariance = np.linalg.inv(precision)
    return covariance @ (rows.T @ (weights * values) + PRIOR_MEAN / PRIOR_SD**2), covariance
