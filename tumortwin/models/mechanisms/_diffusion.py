"""Invasion: diffusion of tumor cells, faster in white matter than in gray."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.geometry import Tissue, add_ring, divergence, face_conductances
from tumortwin.models._base import AbstractMechanism, Context, TumorState
from tumortwin.params import parameter


class Diffusion(AbstractMechanism):
    """Isotropic diffusion with a tissue-dependent coefficient, zero flux at the edge of the domain.

    $$ \\partial_t u = \\nabla\\cdot(D\\nabla u),\\qquad D(x) = D_w\\,(f_w(x) + r\\,f_g(x)) $$

    **Arguments:** `white_matter` D_w [mm^2/day]; `gray_ratio` r = D_g / D_w [1]; `f_w`, `f_g` the tissue fractions.

    **Good values:** D_w 0.13 mm^2/day, r 0.1 (GliomaSolver's example); r 0.2 (Swanson); clinical glioblastoma spans
    5-500 mm^2/year.

    **Limits:** isotropic in every voxel (for convenience); unbounded domain speed of a diffusion (mathematical).

    **Reference:** Swanson, Alvord & Murray, Cell Prolif. 33 (2000) 317-329, doi:10.1046/j.1365-2184.2000.00177.x.
    """

    white_matter: Float[Array, ""] = parameter(unit=units.DIFFUSIVITY)
    gray_ratio: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.1)

    stiff: ClassVar[bool] = True
    reference: ClassVar[str] = "doi:10.1046/j.1365-2184.2000.00177.x"

    def relative_diffusivity(self, tissue: Tissue) -> Float[Array, "x y z"]:
        """D(x) / D_w [1], zero outside the domain."""
        white = tissue.fields["white_matter"]
        gray = tissue.fields.get("gray_matter", jnp.zeros_like(white))
        mixed = white + self.gray_ratio.astype(white.dtype) * gray
        return jnp.where(tissue.domain.mask, mixed, jnp.zeros((), white.dtype))

    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """div(D grad u) [1/day]."""
        del t
        diffusivity = self.white_matter.astype(state.density.dtype) * self.relative_diffusivity(context.tissue)
        faces = face_conductances(diffusivity, context.tissue.domain)
        return divergence(add_ring(state.density), faces)
