"""Growth: logistic proliferation, alike everywhere or faster in some places than in others."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models._base import AbstractMechanism, Context, TumorState
from tumortwin.params import parameter


class AbstractProliferation(AbstractMechanism):
    """Logistic growth with a rate rho that may vary in space."""

    rate: eqx.AbstractVar[Array]

    @abc.abstractmethod
    def local_rate(self) -> Array:
        """rho [1/day], a scalar or a field [x y z]."""


class LogisticProliferation(AbstractProliferation):
    """Logistic growth of the density towards 1.

    $$ \\partial_t u = \\rho\\,u\\,(1 - u) $$

    **Arguments:** `rate` rho [1/day], a scalar or a field rho(x).

    **Good values:** 0.025 /day (GliomaSolver's example), 0.05 /day (high-grade glioma); clinical range 1-60 /year.

    **Reference:** Murray, Mathematical Biology II (2003), chapter 11.
    """

    rate: Float[Array, ""] | Float[Array, "x y z"] = parameter(unit=units.RATE)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "Murray, Mathematical Biology II, Springer 2003"

    def local_rate(self) -> Array:
        """The rate itself."""
        return self.rate

    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """rho u (1 - u) [1/day]."""
        del t, context
        return self.rate.astype(state.density.dtype) * state.density * (1.0 - state.density)


class PatternedProliferation(AbstractProliferation):
    """Logistic growth whose rate varies in space along a few smooth modes: what one rate for all cannot say.

    $$ \\partial_t u = \\rho(x)\\,u\\,(1 - u), \\qquad
       \\rho(x) = \\rho\\,\\exp\\Big(\\sum_k a_k \\varphi_k(x) - \\tfrac12 \\sum_k \\varphi_k(x)^2\\Big) $$

    With independent standard normal `a_k` the rate at every place has mean `rho` and the log-standard-deviation
    $(\\sum_k \\varphi_k^2)^{1/2}$. It is a low-rank discrepancy: the posterior of `rho` widens by what the pattern can
    explain, and forecasts know that the fastest part leads a regrowth.

    **Arguments:** `rate` rho [1/day]; `pattern` a [1], one a mode; `modes` phi [1] on the tissue's grid.

    **Good values:** a standard normal; modes of a smooth field of spread .2-.4 and correlation length 10-20 mm.

    **Reference:** Kennedy & O'Hagan, J. R. Stat. Soc. B 63 (2001) 425-464 (model discrepancy).
    """

    modes: Float[Array, "mode x y z"]
    half_variance: Float[Array, "x y z"]
    rate: Float[Array, ""] = parameter(unit=units.RATE)
    pattern: Float[Array, " mode"] = parameter(unit="1")

    def __init__(self, modes: Array, rate: Array, pattern: Array) -> None:
        self.modes = modes
        # Once, not in every solve: this sum took as long as the whole solve.
        self.half_variance = 0.5 * jnp.sum(modes**2, axis=0)
        self.rate = rate
        self.pattern = pattern

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1111/1467-9868.00294"

    def local_rate(self) -> Array:
        """rho(x) [1/day], in the precision of the modes."""
        modes = self.modes
        exponent = jnp.tensordot(self.pattern.astype(modes.dtype), modes, axes=1) - self.half_variance
        return self.rate.astype(modes.dtype) * jnp.exp(exponent)

    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """rho(x) u (1 - u) [1/day]."""
        del t, context
        return self.local_rate().astype(state.density.dtype) * state.density * (1.0 - state.density)
