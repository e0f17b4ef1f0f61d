"""Tumor volume with lognormal noise."""

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import logit, ndtr
from jaxtyping import Array, Float, Inexact, Int
from numpyro.distributions import Distribution, LogNormal

from tumortwin.observation._base import AbstractObservation
from tumortwin.observation._binary import floored_logit
from tumortwin.params import parameter

Shaped = Inexact[Array, "..."]


class VolumeObservation(AbstractObservation):
    """The volume inside the outline of `MaskObservation`, measured with a relative error.

    $$ V = v_{cell} \\sum_i \\Phi\\!\\left(\\frac{\\mathrm{logit}\\, u_i - \\mathrm{logit}\\,\\theta}{w}\\right),
       \\qquad \\log y \\sim N(\\log V, \\sigma^2) $$

    **Arguments:** `cell_volume`: of one voxel [mm^3]; `threshold`, `width`, `floor` as in `MaskObservation` [1];
    `log_sd`: `sigma` [1].

    **Good values:** log_sd .05-.15 (manual segmentations differ by 5-15 %).

    **Limits:** a tumor that lies wholly below the threshold has volume near 0, whose logarithm is -inf: probability 0.
    """

    cell_volume: float = eqx.field(static=True)
    threshold: Float[Array, ""] = parameter(unit="1")
    width: Float[Array, ""] = parameter(unit="1")
    log_sd: Float[Array, ""] = parameter(unit="1")
    floor: Float[Array, ""] = parameter(unit="1", default=1e-4)

    def at_visit(self, visit: Int[Array, ""] | int | None) -> "VolumeObservation":
        """Itself: nothing varies from visit to visit."""
        del visit
        return self

    def predict(self, density: Shaped) -> Shaped:
        """The volume [mm^3], a scalar."""
        threshold, width, floor = (p.astype(density.dtype) for p in (self.threshold, self.width, self.floor))
        inside = ndtr((floored_logit(density, floor) - logit(threshold)) / width)
        return self.cell_volume * jnp.sum(inside, dtype=self.threshold.dtype)

    def noise(self, prediction: Shaped) -> Distribution:
        return LogNormal(jnp.log(prediction), self.log_sd, validate_args=False)

    def residual(self, prediction: Shaped, values: Shaped) -> Shaped:
        return (jnp.log(values) - jnp.log(prediction)) / self.log_sd

    def information(self, prediction: Shaped) -> Shaped:
        return 1 / (prediction * self.log_sd) ** 2

    def log_scale(self, prediction: Shaped) -> Shaped:
        return jnp.broadcast_to(jnp.log(self.log_sd), prediction.shape)
