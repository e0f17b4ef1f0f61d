"""Effector cells against a tumor: dormancy and escape."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates
from tumortwin.params import parameter


class ImmuneState(eqx.Module):
    """`effector` and `tumor` [cells]."""

    effector: Float[Array, "..."] = parameter(unit="cells")
    tumor: Float[Array, "..."] = parameter(unit="cells")


class Kuznetsov(AbstractRates):
    """A tumor recruits the cells that kill it, and wears them out.

    $$ E' = s + p\\frac{E T}{g + T} - m E T - d E,\\qquad T' = a T (1 - T/K) - n E T $$

    With the default values there are two stable states, a small dormant tumor and a large one that has escaped.

    **State:** E, T [cells]; the burden is T. **Exposure:** loss rate u of tumor cells [1/day]; **dose:** natural
    log-kill of tumor cells [1].

    **Arguments:** `influx` s [cells/day]; `recruitment_rate` p, `effector_death` d, `growth_rate` a [1/day];
    `half_saturation` g, `carrying_capacity` K [cells]; `inactivation` m, `kill_rate` n [1/day a cell];
    `start_effector`, `start_tumor` [cells].

    **Good values:** the defaults, for BCL1 lymphoma in mice: the fixed points (E, T) in 1e6 cells are (0.3155, 0)
    saddle, (1.608, 8.186) dormant, (0.759, 268.0) saddle, (0.173, 447.0) escaped.

    **Limits:** one kind of effector, no delay.

    **Reference:** Kuznetsov, Makalkin, Taylor & Perelson, Bull. Math. Biol. 56 (1994) 295-321,
    doi:10.1007/BF02460644.
    """

    start_effector: Float[Array, "..."] = parameter(unit="cells")
    start_tumor: Float[Array, "..."] = parameter(unit="cells")
    influx: Float[Array, "..."] = parameter(unit="cells/day", default=1.3e4)
    recruitment_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.1245)
    half_saturation: Float[Array, "..."] = parameter(unit="cells", default=2.019e7)
    inactivation: Float[Array, "..."] = parameter(unit=units.RATE, default=3.422e-10)
    effector_death: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0412)
    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.18)
    carrying_capacity: Float[Array, "..."] = parameter(unit="cells", default=5e8)
    kill_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=1.101e-7)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1007/BF02460644"

    def initial(self) -> ImmuneState:
        """The two starts."""
        return ImmuneState(self.start_effector, self.start_tumor)

    def burden(self, state: ImmuneState) -> Float[Array, "..."]:
        """The tumor [cells]."""
        return state.tumor

    def jump(self, state: ImmuneState, dose: Float[Array, "..."]) -> ImmuneState:
        """T e^{-dose}."""
        return ImmuneState(state.effector, state.tumor * jnp.exp(-dose))

    def rate(self, state: ImmuneState, exposure: Float[Array, "..."]) -> ImmuneState:
        """The equations above."""
        e, t = state.effector, state.tumor
        recruited = self.recruitment_rate * t / (self.half_saturation + t) - self.inactivation * t
        growth = self.growth_rate * (1.0 - t / self.carrying_capacity)
        return ImmuneState(
            self.influx + (recruited - self.effector_death) * e, (growth - self.kill_rate * e - exposure) * t
        )
