"""What a burden function has counted itself, as an objective."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.control._objective import AbstractObjective, Curve


class CountedDays(AbstractObjective):
    """Minus the days that the burden function has counted: to progression, at visits, with whatever rule it follows.

    For simulated courses whose end is an event and no crossing of a smooth curve (`TimeToProgression` is for those).

    **Arguments:** `counted`, the parameter of the curve that holds them [day].

    **Limits:** counted visits have no gradient: plan with controllers that try decisions (mathematical).
    """

    counted: str = eqx.field(static=True, default="days")

    name: ClassVar[str] = "counted_days"
    gain_unit: ClassVar[str] = units.TIME

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        return -curve.parameter(self.counted)
