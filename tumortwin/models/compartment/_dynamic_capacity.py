"""A carrying capacity that grows with the tumor that feeds it: vessels."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates
from tumortwin.models.compartment._power import SURFACE_EXPONENT
from tumortwin.params import parameter


class DynamicCapacityState(eqx.Module):
    """The `volume` and the `carrying_capacity` [mm^3]."""

    volume: Float[Array, "..."] = parameter(unit=units.VOLUME)
    carrying_capacity: Float[Array, "..."] = parameter(unit=units.VOLUME)


class DynamicCarryingCapacity(AbstractRates):
    """Gompertzian growth towards a capacity that the tumor's surface extends.

    $$ V' = a V \\ln(K / V) - u V,\\qquad K' = b V^{2/3},\\qquad K(t_i^+) = (1 - \\delta)^{d_i} K(t_i^-) $$

    **State:** V, K [mm^3]. **Exposure:** loss rate u of the volume [1/day]; **dose:** d, fractions (1, or a multiple of
    the reference fraction), each of which takes a share delta of the capacity; the volume follows.

    **Arguments:** `growth_rate` a > 0 [1/day]; `capacity_rate` b >= 0 [mm/day]; `capacity_reduction` delta in [0, 1)
    [1]; `start` V_0 > 0 and `start_capacity` K_0 > 0 [mm^3].

    **Good values:** a 0.4 /day, b 2.6 mm/day, K_0 2.6 mm^3 from V_0 1 mm^3 (of the order of Lewis lung carcinoma;
    framework defaults); delta 0.05 (framework default).

    **Limits:** K grows without bound, V with it (mathematical). That a fraction acts on the capacity is Zahid et al.'s
    idea for logistic growth, carried over.

    **Reference:** Hahnfeldt et al., Cancer Res. 59 (1999) 4770-4775; Benzekry et al., PLOS Comput. Biol. 10 (2014)
    e1003800, doi:10.1371/journal.pcbi.1003800; Zahid et al., Int. J. Radiat. Oncol. Biol. Phys. 111 (2021) 693-704.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    capacity_rate: Float[Array, "..."] = parameter(unit="mm/day")
    capacity_reduction: Float[Array, "..."] = parameter(unit=units.FRACTION, default=0.05)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)
    start_capacity: Float[Array, "..."] = parameter(unit=units.VOLUME, default=2.6)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1003800"

    def initial(self) -> DynamicCapacityState:
        """V_0 and K_0."""
        return DynamicCapacityState(self.start, self.start_capacity)

    def burden(self, state: DynamicCapacityState) -> Float[Array, "..."]:
        """The volume [mm^3]."""
        return state.volume

    def jump(self, state: DynamicCapacityState, dose: Float[Array, "..."]) -> DynamicCapacityState:
        """K (1 - delta)^dose."""
        left = jnp.exp(dose * jnp.log1p(-self.capacity_reduction))
        return DynamicCapacityState(state.volume, state.carrying_capacity * left)

    def rate(self, state: DynamicCapacityState, exposure: Float[Array, "..."]) -> DynamicCapacityState:
        """The equations above."""
        v, k = state.volume, state.carrying_capacity
        return DynamicCapacityState(
            (self.growth_rate * jnp.log(k / v) - exposure) * v, self.capacity_rate * v**SURFACE_EXPONENT
        )
