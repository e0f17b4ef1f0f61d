"""Growth as a power of the volume: the power law and Bertalanffy's equations."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractGrowthLaw
from tumortwin.models.compartment._functions import mean_decay, mean_inverse
from tumortwin.params import parameter

SURFACE_EXPONENT = 2.0 / 3.0
"""Exponent of a growth that is proportional to the surface."""


def _power(volume: Array, duration: Array, gain: Array, exponent: Array, loss: Array) -> Array:
    """V' = a V^gamma - b V. W = V^(1 - gamma) is linear; written for ln V so that gamma = 1 is regular."""
    c = 1.0 - exponent
    # W(t)/W_0 = 1 + c q, hence V(t) = V_0 (1 + c q)^(1/c).
    q = (gain * volume ** (-c) - loss) * duration * mean_decay(c * loss * duration)
    return volume * jnp.exp(q * mean_inverse(c * q))


class PowerLaw(AbstractGrowthLaw):
    """A constant fraction of dimension of the tumor grows.

    $$ V' = a V^\\gamma - u V,\\qquad u = 0:\\; V(t) = \\big(V_0^{1-\\gamma} + (1-\\gamma) a t\\big)^{1/(1-\\gamma)} $$

    gamma = 1 is exponential growth, 2/3 growth of the surface (a radius that grows linearly).

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `growth_rate` a > 0 [mm^(3 - 3 gamma)/day]; `exponent` gamma [1]; `start` V_0 > 0 [mm^3].

    **Good values:** gamma 0.6-1; a 0.9 with gamma 0.8 (framework defaults of the order of mouse tumors).

    **Limits:** gamma above 1 blows up in finite time (mathematical; the result is then not finite).

    **Reference:** Hart, Shochat & Agur, Br. J. Cancer 78 (1998) 382-387, doi:10.1038/bjc.1998.503; Benzekry et al.,
    PLOS Comput. Biol. 10 (2014) e1003800, doi:10.1371/journal.pcbi.1003800.
    """

    growth_rate: Float[Array, "..."] = parameter(unit="mm^(3-3gamma)/day")
    exponent: Float[Array, "..."] = parameter(unit=units.FRACTION)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1038/bjc.1998.503"

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """The closed form, with a loss."""
        return _power(volume, duration, self.growth_rate, self.exponent, loss)


class Bertalanffy(AbstractGrowthLaw):
    """What the surface takes in, less what the volume uses up (Bertalanffy's classical exponent 2/3).

    $$ V' = a V^{2/3} - b V - u V \\;\\Rightarrow\\;
       V^{1/3}(t) = V_0^{1/3} e^{-(b+u)t/3} + \\frac{a}{b+u}\\big(1 - e^{-(b+u)t/3}\\big) $$

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `growth_rate` a > 0 [mm/day]; `loss_rate` b >= 0 [1/day]; `start` V_0 > 0 [mm^3]. The carrying
    capacity is (a/b)^3.

    **Good values:** a 3 mm/day, b 0.25 /day (framework defaults of the order of mouse tumors).

    **Reference:** von Bertalanffy, Q. Rev. Biol. 32 (1957) 217-231, doi:10.1086/401873; Ghaffari Laleh et al., PLOS
    Comput. Biol. 18 (2022) e1009822, doi:10.1371/journal.pcbi.1009822.
    """

    growth_rate: Float[Array, "..."] = parameter(unit="mm/day")
    loss_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1086/401873"

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """The closed form above."""
        return _power(volume, duration, self.growth_rate, jnp.asarray(SURFACE_EXPONENT), self.loss_rate + loss)


class GeneralBertalanffy(AbstractGrowthLaw):
    """Bertalanffy's equation with a free exponent; Gompertz, logistic and power-law growth are limits of it.

    $$ V' = a V^\\gamma - b V - u V,\\qquad W = V^{1-\\gamma}:\\; W' = (1-\\gamma)\\big(a - (b+u) W\\big) $$

    Solved for ln V by functions that are regular at gamma = 1 and at b = 0.

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `growth_rate` a [mm^(3 - 3 gamma)/day]; `exponent` gamma [1]; `loss_rate` b [1/day]; `start` V_0 > 0
    [mm^3].

    **Good values:** gamma 2/3-1. With Gompertz it forecast the lesions of Ghaffari Laleh et al. best.

    **Limits:** a, b and gamma are hardly identified together by one short curve. A tumor that has shrunk by a factor
    1/s keeps about 16 - (1 - gamma) log10(1/s) digits (for convenience).

    **Reference:** Ghaffari Laleh et al., PLOS Comput. Biol. 18 (2022) e1009822, doi:10.1371/journal.pcbi.1009822.
    """

    growth_rate: Float[Array, "..."] = parameter(unit="mm^(3-3gamma)/day")
    exponent: Float[Array, "..."] = parameter(unit=units.FRACTION)
    loss_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1009822"

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """The closed form."""
        return _power(volume, duration, self.growth_rate, self.exponent, self.loss_rate + loss)
