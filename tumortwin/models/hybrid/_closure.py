"""What a network may change about a mechanism without space, and by how much at most."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment import AbstractShared
from tumortwin.models.hybrid._network import Network
from tumortwin.params import as_parameter, parameter


class InputRange(eqx.Module):
    """The stated scales of a closure's inputs: where each variable is -1 and where it is 1.

    $$ x = \\frac{2 \\ln\\big((v + v_-) / (2 v_-)\\big)}{\\ln\\big((v_+ + v_-) / (2 v_-)\\big)} - 1 $$

    is -1 at the lower end v_-, 1 at the upper end v_+, logarithmic in between, and regular at v = 0. The exposure is an
    input where a `largest` one is stated: 2 u / u_max - 1.

    **Arguments:** `lower`, `upper` [variable], 0 < lower < upper, in the units of the state's variables and in their
    order (one of several axes counts as often as it has elements); `largest` exposure, or None: not looked at.

    **Good values:** the smallest and the largest amount in the data; a tenth of the largest makes it nearly linear.

    **Raises:** `ValueError` for ranges that are empty.
    """

    lower: Float[Array, " variable"] = eqx.field(converter=as_parameter)
    upper: Float[Array, " variable"] = eqx.field(converter=as_parameter)
    largest: Float[Array, ""] | None = eqx.field(
        converter=lambda value: None if value is None else as_parameter(value), default=None
    )

    def __check_init__(self) -> None:
        if self.lower.ndim != 1 or self.lower.shape != self.upper.shape:
            raise ValueError(f"required: a range [variable]; received: {self.lower.shape} and {self.upper.shape}")

    @classmethod
    def of(cls, lower: Sequence[float], upper: Sequence[float], largest: float | None = None) -> "InputRange":
        """Checked as numbers."""
        if not all(0.0 < low < high for low, high in zip(lower, upper, strict=True)) or (largest or 1.0) <= 0.0:
            raise ValueError(
                f"required: 0 < lower < upper and a largest exposure above 0; received: {list(lower)}, {list(upper)}, "
                f"{largest}"
            )
        return cls(jnp.asarray(lower, float), jnp.asarray(upper, float), largest)

    @property
    def size(self) -> int:
        """Number of inputs."""
        return self.lower.size + (self.largest is not None)

    def __call__(self, variables: Float[Array, "*batch variable"], exposure: Array) -> Float[Array, "*batch input"]:
        """The inputs of the network."""
        batch = variables.shape[:-1]
        if variables.shape[-1] != self.lower.size:
            raise ValueError(
                f"required: a range for each of the {variables.shape[-1]} variables of the state; received: "
                f"{self.lower.size}"
            )
        lower = jnp.broadcast_to(self.lower, variables.shape)
        # From below the lower end on the scale is straight: rounding may leave an amount a hair below 0.
        ratio = (variables + lower) / (2.0 * lower)
        scaled = jnp.log(jnp.maximum(ratio, 0.5)) + 2.0 * jnp.minimum(ratio - 0.5, 0.0)
        span = jnp.log((self.upper + self.lower) / (2.0 * self.lower))
        found = 2.0 * scaled / jnp.broadcast_to(span, scaled.shape) - 1.0
        if self.largest is None:
            return found
        level = jnp.broadcast_to(2.0 * exposure / self.largest - 1.0, batch)
        return jnp.concatenate([found, level[..., None]], axis=-1)


class AbstractClosure(AbstractShared):
    """What is added to the mechanism's rates: a bounded function of the state (and of the exposure), the same for all
    subjects."""

    network: eqx.AbstractVar[Network]
    inputs: eqx.AbstractVar[InputRange]
    bound: eqx.AbstractVar[Array]
    variables: eqx.AbstractVar[tuple[str, ...] | None]

    @abc.abstractmethod
    def corrected(self, slope: Array, variable: Array, correction: Array) -> Array:
        """d(variable)/dt with the correction in (-bound, bound)."""

    def correction(
        self, state: Any, exposure: Array, batch: tuple[int, ...], features: Array | None = None
    ) -> Float[Array, "*batch output"]:
        """bound * tanh(MLP(inputs)); `batch`: the axes of the subjects; `features` [*batch feature]: what else is known
        of a subject."""
        inputs = self.inputs(flat(state, batch), exposure)
        if features is not None:
            inputs = jnp.concatenate([inputs, jnp.broadcast_to(features, (*batch, features.shape[-1]))], axis=-1)
        if inputs.shape[-1] != self.network.inputs:
            raise ValueError(
                f"required: a network of {inputs.shape[-1]} inputs (variables of the state, exposure where it is "
                f"looked at, features); received: {self.network.inputs}"
            )
        return self.bound * self.network(inputs)

    def apply(
        self, slopes: Any, state: Any, exposure: Array, batch: tuple[int, ...], features: Array | None = None
    ) -> Any:
        """The rates of the mechanism, those of `variables` corrected: all by one number, or each by its own."""
        found = self.correction(state, exposure, batch, features)
        names = [field.name for field in dataclasses.fields(state)]
        chosen = names if self.variables is None else list(self.variables)
        if not set(chosen) <= set(names) or found.shape[-1] not in (1, len(chosen)):
            raise ValueError(
                f"required: variables among {names}, and a network of one output or one for each of {chosen}; "
                f"received: {found.shape[-1]}"
            )
        changes = {}
        for k, name in enumerate(chosen):
            slope, variable = getattr(slopes, name), getattr(state, name)
            own = found[..., min(k, found.shape[-1] - 1)]
            own = own.reshape(*own.shape, *(1,) * (variable.ndim - own.ndim))
            changes[name] = self.corrected(slope, variable, own)
        return dataclasses.replace(slopes, **changes)


class RelativeClosure(AbstractClosure):
    """The mechanism, faster or slower: what it holds still stays still.

    $$ \\frac{dN}{dt} = f_{mech}(N, \\theta, u)\\,\\big(1 + b \\tanh \\mathrm{NN}(N, u)\\big) $$

    **Arguments:** `network`, of one output (one factor for all variables) or one for each; `inputs`, their ranges;
    `bound` b [1]; `variables` of the state that are corrected (all).

    **Good values:** b .5-.9 (below 1 growth stays growth); 1 where the mechanism may be off by all it says.

    **Limits:** cannot move a resting point of the mechanism, nor turn growth into decay for b < 1 (mathematical).

    **Reference:** Rackauckas et al., arXiv:2001.04385.
    """

    network: Network
    inputs: InputRange
    bound: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.9)
    variables: tuple[str, ...] | None = eqx.field(static=True, default=None)

    def corrected(self, slope: Array, variable: Array, correction: Array) -> Array:
        """f (1 + c)."""
        del variable
        return slope * (1.0 + correction)


class PerCapitaClosure(AbstractClosure):
    """Something that the mechanism lacks altogether: a gain or a loss in proportion to what is there.

    $$ \\frac{dN}{dt} = f_{mech}(N, \\theta, u) + b \\tanh\\big(\\mathrm{NN}(N, u)\\big)\\,N $$

    With a mechanism that says nothing (`Exponential` of rate 0) it is a neural differential equation.

    **Arguments:** `network`, of one output or one for each variable; `inputs`, their ranges; `bound` b [1/day];
    `variables` of the state that are corrected (all).

    **Good values:** b of the size of the growth rate.

    **Limits:** what is 0 stays 0 (mathematical).

    **Reference:** Rackauckas et al., arXiv:2001.04385; Chen et al., NeurIPS 2018, arXiv:1806.07366.
    """

    network: Network
    inputs: InputRange
    bound: Float[Array, ""] = parameter(unit=units.RATE, default=0.1)
    variables: tuple[str, ...] | None = eqx.field(static=True, default=None)

    def corrected(self, slope: Array, variable: Array, correction: Array) -> Array:
        """f + c N."""
        return slope + correction * variable


def flat(state: Any, batch: tuple[int, ...]) -> Float[Array, "*batch variable"]:
    """The variables of a state behind the axes of the subjects."""
    return jnp.concatenate([leaf.reshape(*batch, -1) for leaf in jax.tree.leaves(state)], axis=-1)
