"""Invasion and growth seen through the width of a front: at one time their ratio alone, at two times both."""

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import numpyro.distributions as dist

from tumortwin.inference import Prior, Problem, truncated_log_normal
from tumortwin.observation import AdcObservation, Datum
from tumortwin.params import parameter


class Pair(eqx.Module):
    """Only the ratio of two rates is seen at one time; both at two."""

    diffusivity: jax.Array = parameter(unit="mm^2/day")
    growth: jax.Array = parameter(unit="1/day")


def width(model: Pair, days: tuple[float, ...]) -> jax.Array:
    """Width of the front and the way it has come, four times over [day, 4]."""
    found = jnp.sqrt(model.diffusivity / model.growth)
    return found + jnp.asarray(days)[:, None] * 2 * jnp.sqrt(model.diffusivity * model.growth) * jnp.ones((1, 4))


def pair(days: tuple[float, ...], bounded: bool = False) -> Problem:
    """Noise-free data on the given days."""
    diffusivity = truncated_log_normal(0.135, 0.8, 0.01, 1.0) if bounded else dist.LogNormal(-2.0, 0.8)
    prior = Prior({"diffusivity": diffusivity, "growth": dist.LogNormal(-4.0, 0.8)})
    truth = linear.build(Pair, 0.15, 0.02)
    data = tuple(Datum(d, "front", np.asarray(width(truth, (d,))[0])) for d in days)
    return Problem(truth, {"front": linear.build(AdcObservation, 0.05)}, prior, data, width)
