"""Growth whose rate falls with the logarithm of the volume."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractGrowthLaw
from tumortwin.models.compartment._functions import mean_decay
from tumortwin.params import parameter


def _gompertz(volume: Array, duration: Array, rate: Array, deceleration: Array, reference_volume: Array) -> Array:
    """x = ln(V/V_ref) is linear: x' = rate - deceleration x. Regular at deceleration 0, where it is exponential."""
    x = jnp.log(volume / reference_volume)
    decay = deceleration * duration
    return reference_volume * jnp.exp(x * jnp.exp(-decay) + rate * duration * mean_decay(decay))


class Gompertz(AbstractGrowthLaw):
    """The growth rate falls by `deceleration` for every factor e of volume.

    $$ V' = V\\big(\\alpha - \\beta \\ln(V / V_{ref})\\big) - u V $$

    $$ \\ln\\frac{V(t)}{V_{ref}} = \\ln\\frac{V_0}{V_{ref}}\\,e^{-\\beta t}
       + (\\alpha - u)\\,\\frac{1 - e^{-\\beta t}}{\\beta} $$

    Autonomous: alpha is the rate at the volume V_ref, not at day 0, so that a part of a curve has the same parameters
    as the whole. The carrying capacity is $V_{ref}\\,e^{\\alpha/\\beta}$; beta = 0 is exponential growth.

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `growth_rate` alpha [1/day]; `deceleration` beta >= 0 [1/day]; `start` V_0 > 0 [mm^3];
    `reference_volume` V_ref > 0 [mm^3], fixed.

    **Good values:** Lewis lung carcinoma in mice alpha 0.747 /day, beta 0.0815 /day; a breast xenograft 0.558 and
    0.0708 /day (median of two-stage fits); V_ref = V_0 = 1 mm^3 for 1e6 injected cells.

    **Limits:** alpha and beta are strongly correlated over subjects (R^2 above 0.92): see `ReducedGompertz`. A tumor
    is never eradicated (mathematical).

    **Reference:** Vaghi et al., PLOS Comput. Biol. 16 (2020) e1007178, doi:10.1371/journal.pcbi.1007178; Benzekry et
    al., PLOS Comput. Biol. 10 (2014) e1003800, doi:10.1371/journal.pcbi.1003800.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    deceleration: Float[Array, "..."] = parameter(unit=units.RATE)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)
    reference_volume: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1007178"

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """The closed form above."""
        return _gompertz(volume, duration, self.growth_rate - loss, self.deceleration, self.reference_volume)


class ReducedGompertz(AbstractGrowthLaw):
    """Gompertz growth with one parameter a subject: alpha follows beta along the line of the population.

    $$ V' = V\\big(k\\beta + c - \\beta \\ln(V / V_{ref})\\big) - u V $$

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `deceleration` beta >= 0 [1/day], of the subject; `slope` k [1] and `intercept` c [1/day], of the
    population (k is the logarithm of the common carrying capacity in units of V_ref when c = 0); `start` V_0 and
    `reference_volume` V_ref > 0 [mm^3].

    **Good values:** c 0 with k 9.2 (Lewis lung carcinoma) and 7.9 (breast xenograft), the ratios of the median
    parameters; regression lines through two-stage fits have slopes of 5.5-5.6 with an intercept; V_ref 1 mm^3.

    **Limits:** subjects off the line are fitted worse than by `Gompertz` (for convenience: few data a subject).

    **Reference:** Vaghi et al., PLOS Comput. Biol. 16 (2020) e1007178, doi:10.1371/journal.pcbi.1007178.
    """

    deceleration: Float[Array, "..."] = parameter(unit=units.RATE)
    slope: Float[Array, "..."] = parameter(unit=units.FRACTION)
    intercept: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)
    reference_volume: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1007178"

    @property
    def growth_rate(self) -> Float[Array, "..."]:
        """alpha = k beta + c [1/day]."""
        return self.slope * self.deceleration + self.intercept

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """The closed form of `Gompertz`."""
        return _gompertz(volume, duration, self.growth_rate - loss, self.deceleration, self.reference_volume)
