"""Growth: logistic proliferation."""

from typing import ClassVar

from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models._base import AbstractMechanism, Context, TumorState
from tumortwin.params import parameter


class LogisticProliferation(AbstractMechanism):
    """Logistic growth of the density towards 1.

    $$ \\partial_t u = \\rho\\,u\\,(1 - u) $$

    **Arguments:** `rate` rho [1/day], a scalar or a field rho(x).

    **Good values:** 0.025 /day (GliomaSolver's example), 0.05 /day (high-grade glioma); clinical range 1-60 /year.

    **Reference:** Murray, Mathematical Biology II (2003), chapter 11.
    """

    rate: Float[Array, ""] | Float[Array, "x y z"] = parameter(unit=units.RATE)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "Murray, Mathematical Biology II, Springer 2003"

    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """rho u (1 - u) [1/day]."""
        del t, context
        return self.rate.astype(state.density.dtype) * state.density * (1.0 - state.density)
