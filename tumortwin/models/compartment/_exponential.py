"""Growth without a bound: exponential, and exponential that becomes linear."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractGrowthLaw
from tumortwin.models.compartment._functions import mean_decay
from tumortwin.params import parameter


class Exponential(AbstractGrowthLaw):
    """All cells divide at one rate.

    $$ V' = (a - u) V \\;\\Rightarrow\\; V(t) = V_0\\,e^{(a - u) t} $$

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `growth_rate` a [1/day], of either sign; `start` V_0 [mm^3].

    **Good values:** a 0.118 /day (public fit of a breast xenograft, Vaghi et al. 2020's data); `start` 1 mm^3, about
    1e6 cells.

    **Limits:** no saturation (mathematical): of the laws here it fits tumor volumes worst over long times.

    **Reference:** Benzekry et al., PLOS Comput. Biol. 10 (2014) e1003800, doi:10.1371/journal.pcbi.1003800.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1003800"

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """V e^{(a - u) t}."""
        return volume * jnp.exp((self.growth_rate - loss) * duration)


class ExponentialLinear(AbstractGrowthLaw):
    """Exponential up to a volume, then linear: only a shell of constant growth remains.

    $$ V' = \\min(a_0 V,\\ a_1) - u V $$

    The change comes at the volume $V^* = a_1 / a_0$, from either side (a strong loss brings a large tumor back to
    exponential behavior). In closed form on each side, glued at the time at which V passes V*.

    **State:** V [mm^3]. **Exposure:** loss rate u [1/day]; **dose:** natural log-kill [1].

    **Arguments:** `growth_rate` a_0 > 0 [1/day]; `linear_rate` a_1 > 0 [mm^3/day]; `start` V_0 > 0 [mm^3].

    **Good values:** a_0 0.3 /day, a_1 100 mm^3/day (framework defaults of the order of mouse tumors).

    **Limits:** the second derivative in time jumps at V* (mathematical).

    **Reference:** Simeoni et al., Cancer Res. 64 (2004) 1094-1101, doi:10.1158/0008-5472.CAN-03-2524; Benzekry et al.,
    PLOS Comput. Biol. 10 (2014) e1003800, doi:10.1371/journal.pcbi.1003800.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    linear_rate: Float[Array, "..."] = parameter(unit="mm^3/day")
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1158/0008-5472.CAN-03-2524"

    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """On one side until V*, then on the other."""
        net, change = self.growth_rate - loss, self.linear_rate / self.growth_rate
        rises, small = net > 0, volume < change
        # Upwards: V e^{net t} = V*. Downwards: (V - a_1/u) e^{-u t} = V* - a_1/u, where u > a_0 > 0.
        up = jnp.log(change / jnp.where(small, volume, change)) / jnp.where(rises, net, 1.0)
        u = jnp.where(net < 0, loss, 2.0 * self.growth_rate)
        rest = self.linear_rate / u
        down = jnp.log((jnp.where(small, change, volume) - rest) / (change - rest)) / u
        crosses = jnp.where(small, rises, net < 0)
        until = jnp.where(crosses, jnp.minimum(jnp.where(small, up, down), duration), duration)
        middle = self._one_side(volume, until, loss, small)
        return jnp.where(crosses & (until < duration), self._one_side(change, duration - until, loss, ~small), middle)

    def _one_side(self, volume: Array, duration: Array, loss: Array, small: Array) -> Array:
        exponential = volume * jnp.exp((self.growth_rate - loss) * jnp.where(small, duration, 0.0))
        linear = volume * jnp.exp(-loss * duration) + self.linear_rate * duration * mean_decay(loss * duration)
        return jnp.where(small, exponential, linear)
