"""The tumor's burden under a plan, by a surrogate: for controllers, which do not know which they got."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from tumortwin.control import Curve
from tumortwin.surrogates import AbstractSurrogate
from tumortwin.treatments import Schedule


class SurrogateBurden(eqx.Module):
    """`(draw, schedule) -> Curve` of a surrogate's `quantity` [mm^3] at fixed `days`; NaN where it does not vouch.

    As `PlannedBurden` is for the model itself: gradients with respect to doses, not to the days of events. A NaN makes
    a plan unusable for its draw: sort out beforehand which draws the surrogate holds (`AbstractSurrogate.inside`).
    """

    surrogate: AbstractSurrogate
    days: tuple[float, ...] = eqx.field(static=True)
    quantity: str = eqx.field(static=True, default="mass")

    def __call__(self, draw: Mapping[str, Array], schedule: Schedule) -> Curve:
        found = self.surrogate.quantities(self.surrogate.at(draw), schedule, self.days)
        burden = jnp.where(found.inside, found.values[self.quantity], jnp.nan)
        return Curve(jnp.asarray(self.days, burden.dtype), burden)
