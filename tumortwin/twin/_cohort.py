"""A table of subjects under one compartment model."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.inference import Measurements
from tumortwin.solvers import simulate_compartment


class BurdenCurves(eqx.Module):
    """The burden of every subject on its days: the `solve` of a `PopulationProblem`.

    A subject whose solve failed is NaN from day to day, which the problem counts as impossible.
    """

    def __call__(self, model: Any, data: Measurements) -> Float[Array, "subject time"]:
        found = simulate_compartment(model, data.times, exposure=data.given)
        return jnp.where(found.succeeded[:, None], found.burden, jnp.nan)
