"""The part of a grid in which a tumor can live, and what tissue it is made of."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.geometry._grid import Grid


class Domain(eqx.Module):
    """A masked grid with zero flux through the mask's surface and through the edge of the array."""

    grid: Grid
    mask: Bool[Array, "x y z"] = eqx.field(converter=jnp.asarray)

    def __check_init__(self) -> None:
        if self.mask.shape != self.grid.shape:
            raise ValueError(f"required: a mask of the grid's shape {self.grid.shape}; received: {self.mask.shape}")


class Tissue(eqx.Module):
    """Named tissue fractions on a domain: `white_matter`, `gray_matter`, ... each in [0, 1], zero outside the mask."""

    domain: Domain
    fields: dict[str, Float[Array, "x y z"]]

    def __init__(self, domain: Domain, fields: dict[str, Array | np.ndarray]) -> None:
        self.domain = domain
        self.fields = {name: jnp.asarray(value) for name, value in fields.items()}

    def __check_init__(self) -> None:
        for name, value in self.fields.items():
            if value.shape != self.domain.grid.shape:
                raise ValueError(
                    f"required: tissue {name!r} of the grid's shape {self.domain.grid.shape}; received: {value.shape}"
                )

    @property
    def grid(self) -> Grid:
        """The grid everything stands on."""
        return self.domain.grid
