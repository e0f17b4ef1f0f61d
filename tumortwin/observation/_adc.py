"""Diffusion MRI: apparent diffusion coefficient <-> cellularity, with Gaussian noise."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int
from numpyro.distributions import Distribution, Normal

from tumortwin.observation._base import AbstractObservation
from tumortwin.params import parameter

Shaped = Inexact[Array, "..."]


def cellularity_from_adc(adc: Shaped, *, water: float, minimum: float) -> Shaped:
    """Volume fraction of tumor cells from the apparent diffusion coefficient.

    $$ u = \\frac{ADC_w - ADC}{ADC_w - ADC_{min}} $$

    **Arguments:** `adc` [1e-3 mm^2/s]; `water`, the value of free water; `minimum`, that of the densest tumor.

    Nothing is clipped: noise may put a voxel below 0 or above 1, and the Gaussian noise of `AdcObservation` expects it.

    **Good values:** water 3.0 at body temperature; minimum .5-.8 (the smallest value inside the patient's tumor).

    **Raises:** `ValueError` unless `0 < minimum < water`.

    Reference: Anderson et al. (2000), Magn. Reson. Imaging 18:689; Hormuth et al. (2015), Phys. Biol. 12:046006.
    """
    return (water - adc) / _range(water, minimum)


def adc_from_cellularity(cellularity: Shaped, *, water: float, minimum: float) -> Shaped:
    """The inverse of `cellularity_from_adc` [1e-3 mm^2/s]."""
    return water - cellularity * _range(water, minimum)


def _range(water: float, minimum: float) -> float:
    if not 0 < minimum < water:
        raise ValueError(
            f"required: 0 < minimum < water in 1e-3 mm^2/s; received: minimum {minimum}, water {water}; "
            "try: minimum=0.6, water=3.0 (a map in mm^2/s must be multiplied by 1000 first)"
        )
    return water - minimum


class AdcObservation(AbstractObservation):
    """Cellularity from diffusion MRI with Gaussian noise.

    $$ y = u + \\epsilon, \\qquad \\epsilon \\sim N\\left(0,\\; \\sigma^2 + (w\\, u (1 - u))^2\\right) $$

    with `y` from `cellularity_from_adc`. The second part is an edge that is somewhere else than the model has it, by
    `w` on the logit scale (as the width of `MaskObservation`): du = u (1 - u) w.

    **Arguments:** `noise_sd`: `sigma` on the cellularity scale [1], the noise of the map in 1e-3 mm^2/s divided by
    `water - minimum`; `width`: `w` [1].

    **Good values:** noise .05-.2; width .2-1.
    """

    noise_sd: Float[Array, ""] = parameter(unit="1")
    width: Float[Array, ""] = parameter(unit="1", default=0.0)

    def at_visit(self, visit: Int[Array, ""] | int | None) -> "AdcObservation":
        """Itself: nothing varies from visit to visit."""
        del visit
        return self

    def predict(self, density: Shaped) -> Shaped:
        """The cellularity itself."""
        return density

    def sd(self, prediction: Shaped) -> Shaped:
        """Standard deviation of the noise, elementwise."""
        sigma, width = self.noise_sd.astype(prediction.dtype), self.width.astype(prediction.dtype)
        return jnp.sqrt(sigma**2 + (width * prediction * (1 - prediction)) ** 2)

    def noise(self, prediction: Shaped) -> Distribution:
        return Normal(prediction, self.sd(prediction), validate_args=False)

    def residual(self, prediction: Shaped, values: Shaped) -> Shaped:
        return (values - prediction) / self.sd(prediction)

    def information(self, prediction: Shaped) -> Shaped:
        return 1 / self.sd(prediction) ** 2

    def log_scale(self, prediction: Shaped) -> Shaped:
        return jnp.log(self.sd(prediction))
