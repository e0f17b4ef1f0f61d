"""Growth towards a carrying capacity."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractGrowthLaw
from tumortwin.models.compartment._functions import mean_decay
from tumortwin.params import parameter


class Logistic(AbstractGrowthLaw):
    """Growth that slows in proportion to what is there.

    $$ V' = r V (1 - V/K) - u V \\;\\Rightarrow\\;
       V(t) = \\frac{V_0}{e^{-g t} + (r V_0 / K)\\int_0^t e^{-g s} ds},\\qquad g = r - u $$

    The integral is t (1 - e^{-gt}) / (gt), which is regular at g = 0.

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `growth_rate` r > 0 [1/day]; `carrying_capacity` K > 0 [mm^3]; `start` V_0 >= 0 [mm^3].

    **Good values:** r 0.3 /day, K 2000 mm^3 (framework defaults of the order of mouse tumors).

    **Limits:** fits mouse tumor volumes worse than Gompertz (Vaghi et al. 2020).

    **Reference:** Verhulst, Corresp. Math. Phys. 10 (1838) 113-121; Benzekry et al., PLOS Comput. Biol. 10 (2014)
    e1003800, doi:10.1371/journal.pcbi.1003800.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    carrying_capacity: Float[Array, "..."] = parameter(unit=units.VOLUME)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1003800"

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """The closed form above."""
        exponent = (self.growth_rate - loss) * duration
        crowding = self.growth_rate / self.carrying_capacity * volume * duration * mean_decay(exponent)
        return volume / (jnp.exp(-exponent) + crowding)
