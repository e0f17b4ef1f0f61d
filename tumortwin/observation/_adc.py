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

    $$ y = u + \\epsilon, \\qquad \\epsilon \\sim N(0, \\sigma^2) $$

    with `y` from `cellularity_from_adc`.

    **Arguments:** `noise_sd`: `sigma` on the cellularity scale [1]; the noise of the map in 1e-3 mm^2/s divided by
    `water - minimum`.

    **Good values:** .05-.2.
    """

    noise_sd: Float[Array, ""] = parameter(unit="1")

    def at_visit(self, visit: Int[Array, ""] | int | None) -> "AdcObservation":
        """Itself: nothing varies from visit to visit."""
        del visit
        return self

    def predict(self, density: Shaped) -> Shaped:
        """The cellularity itself."""
        return density

    def noise(self, prediction: Shaped) -> Distribution:
        return Normal(prediction, self.noise_sd.astype(prediction.dtype), validate_args=False)

    def residual(self, prediction: Shaped, values: Shaped) -> Shaped:
        return (values - prediction) / self.noise_sd.astype(prediction.dtype)

    def information(self, prediction: Shaped) -> Shaped:
        return jnp.full_like(prediction, 1) / self.noise_sd.astype(prediction.dtype) ** 2

    def log_scale(self) -> Float[Array, ""]:
        return jnp.log(self.noise_sd)
