"""A model that says nothing of the tumor: what a network alone is put on."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models import AbstractRates
from tumortwin.params import parameter


class BlankState(eqx.Module):
    """The `size` of the tumor, what has been `given` so far, and the `days` since the start."""

    size: Float[Array, "..."] = parameter(unit="1")
    given: Float[Array, "..."] = parameter(unit="1")
    days: Float[Array, "..."] = parameter(unit=units.TIME)


class Blank(AbstractRates):
    """Nothing changes but the clock; a dose is remembered. With a `PerCapitaClosure` on `size` it is a neural
    differential equation that knows time and doses."""

    start: Float[Array, "..."] = parameter(unit="1")

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "arXiv:1806.07366"

    def initial(self) -> BlankState:
        """The start, on day 0, without doses."""
        none = jnp.zeros_like(self.start)
        return BlankState(self.start, none, none)

    def burden(self, state: BlankState) -> Float[Array, "..."]:
        """The size."""
        return state.size

    def jump(self, state: BlankState, dose: Float[Array, "..."]) -> BlankState:
        """A dose is remembered."""
        return BlankState(state.size, state.given + dose, state.days)

    def rate(self, state: BlankState, exposure: Float[Array, "..."]) -> BlankState:
        """The clock alone moves."""
        del exposure
        none = jnp.zeros_like(state.size)
        return BlankState(none, none, jnp.ones_like(state.size))
