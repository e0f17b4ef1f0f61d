"""A closure in the growth term of the models on a grid."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.geometry import Tissue
from tumortwin.models._base import Context, TumorState
from tumortwin.models.hybrid._network import Network
from tumortwin.models.mechanisms import AbstractProliferation
from tumortwin.params import as_parameter, parameter


class NeuralProliferation(AbstractProliferation):
    """Logistic growth whose rate a network makes faster or slower, by the density and the tissue of the place.

    $$ \\partial_t u = \\rho(x)\\,u\\,(1 - u)\\,\\big(1 + b \\tanh \\mathrm{NN}(2u - 1,\\, 2 f_k(x) - 1)\\big) $$

    It takes the place of the proliferation in a `ReactionDiffusion`, wrapping the one that was there; whoever solves,
    calibrates or plans does not know. Solved to second order in the time step: the factor of a step is taken at the
    middle of the reaction between two diffusions. (A fraction within a step moves the density, and so the factor, at
    once: the part of the step on its other side has the wrong factor, an error of first order in the step.)

    **Arguments:** `mechanism` the proliferation that is wrapped (`mechanisms.proliferation.mechanism.rate`);
    `network`, one output, inputs the density and the tissue fields named in `fields` (fractions); `bound` b [1].

    **Good values:** b .5-.9; fields `("white_matter",)` or none; a network of 8 x 2.

    **Limits:** local: no memory, no neighborhood; diffusion is not touched, and the front correction takes the
    mechanism's rate (convenience).

    **Reference:** Rackauckas et al., arXiv:2001.04385.
    """

    mechanism: AbstractProliferation
    network: Network
    fields: tuple[str, ...] = eqx.field(static=True)
    bound: Float[Array, ""] = parameter(unit=units.FRACTION)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "arXiv:2001.04385"

    def __init__(
        self,
        mechanism: AbstractProliferation,
        network: Network,
        fields: tuple[str, ...] = (),
        bound: Array | float = 0.9,
    ) -> None:
        self.mechanism, self.network, self.fields = mechanism, network, tuple(fields)
        self.bound = as_parameter(bound)

    def __check_init__(self) -> None:
        if (self.network.inputs, self.network.outputs) != (1 + len(self.fields), 1):
            raise ValueError(
                f"required: a network of {1 + len(self.fields)} inputs (density, {', '.join(self.fields)}) and one "
                f"output; received: {self.network.inputs} and {self.network.outputs}"
            )

    @property
    def rate(self) -> Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The mechanism's."""
        return self.mechanism.rate

    def local_rate(self) -> Array:
        """That of the mechanism, without the closure."""
        return self.mechanism.local_rate()

    def places(self, tissue: Tissue) -> Float[Array, "x y z field"]:
        """The tissue of every place, as the network wants it."""
        missing = [name for name in self.fields if name not in tissue.fields]
        if missing:
            raise ValueError(f"required: tissue fields {list(self.fields)}; received: {sorted(tissue.fields)}")
        shape = (*tissue.domain.mask.shape, 0)
        return jnp.stack([tissue.fields[name] for name in self.fields], axis=-1) if self.fields else jnp.zeros(shape)

    def factor(self, density: Float[Array, "x y z"], places: Float[Array, "x y z field"]) -> Float[Array, "x y z"]:
        """1 + b tanh NN at every place; for ringed arrays too."""
        inputs = jnp.concatenate([density[..., None], places.astype(density.dtype)], axis=-1)
        said = self.network(2.0 * inputs - 1.0)[..., 0]
        return (1.0 + self.bound * said).astype(density.dtype)

    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """The mechanism's contribution times the factor [1/day]."""
        growth = self.mechanism.rate_of_change(t, state, context)
        return growth * self.factor(state.density, self.places(context.tissue))
