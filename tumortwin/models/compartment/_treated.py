"""A growth law with the patient's sensitivities: doses in Gy, exposures as they were prescribed."""

from typing import ClassVar

from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractFlow, AbstractGrowthLaw, VolumeState, linear_quadratic
from tumortwin.params import parameter


class Treated(AbstractFlow):
    """Any growth law under radiotherapy (linear-quadratic, at once) and a drug (first-order kill while it is there).

    $$ V' = G(V) - \\kappa\\,u(t)\\,V,\\qquad V(t_i^+) = V(t_i^-)\\,e^{-\\alpha d_i (1 + d_i / (\\alpha/\\beta))} $$

    **State:** that of the growth law. **Exposure:** u, 0 and 1 or a concentration; **dose:** d [Gy].

    **Arguments:** `growth` the law G; `drug_kill` kappa [1/day at exposure 1]; `alpha` [1/Gy]; `alpha_beta` [Gy].

    **Good values:** alpha 0.03-0.1 /Gy, alpha/beta 10 Gy (high-grade glioma); kappa 0 without a drug.

    **Limits:** dead cells vanish at once (for convenience); doses a fraction below 6-8 Gy (mathematical).

    **Reference:** Fowler, Br. J. Radiol. 62 (1989) 679-694, doi:10.1259/0007-1285-62-740-679.
    """

    growth: AbstractGrowthLaw
    drug_kill: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0)
    alpha: Float[Array, "..."] = parameter(unit=units.RADIOSENSITIVITY, default=0.0)
    alpha_beta: Float[Array, "..."] = parameter(unit=units.DOSE, default=10.0)

    reference: ClassVar[str] = "doi:10.1259/0007-1285-62-740-679"

    def initial(self) -> VolumeState:
        """That of the growth law."""
        return self.growth.initial()

    def burden(self, state: VolumeState) -> Float[Array, "..."]:
        """That of the growth law."""
        return self.growth.burden(state)

    def jump(self, state: VolumeState, dose: Float[Array, "..."]) -> VolumeState:
        """One fraction of `dose` [Gy]."""
        return self.growth.jump(state, linear_quadratic(dose, self.alpha, self.alpha_beta))

    def advance(self, state: VolumeState, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> VolumeState:
        """The growth law with the loss rate kappa u."""
        return self.growth.advance(state, duration, self.drug_kill * exposure)
