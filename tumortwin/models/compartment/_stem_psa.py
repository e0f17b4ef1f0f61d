"""Prostate cancer stem cells, the cells they make, and the PSA that those make."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates
from tumortwin.params import parameter


class StemDifferentiatedPsaState(eqx.Module):
    """Cells `stem` and `differentiated`, and `psa` [ng/mL]."""

    stem: Float[Array, "..."] = parameter(unit="cells")
    differentiated: Float[Array, "..."] = parameter(unit="cells")
    psa: Float[Array, "..."] = parameter(unit="ng/mL")


class StemDifferentiatedPsa(AbstractRates):
    """Stem cells divide symmetrically the more, the more of the tumor they are; androgen deprivation kills the others.

    $$ S' = p_s \\frac{S}{S+D} \\lambda S,\\quad
       D' = \\Big(1 - p_s\\frac{S}{S+D}\\Big) \\lambda S - \\alpha u D,\\quad P' = \\rho D - \\varphi P $$

    Every cycle of treatment enriches stem cells: PSA returns faster, and resistance is selected.

    **State:** S, D [cells], P [ng/mL]; the burden is P. **Exposure:** u, 1 on and 0 off; **dose:** natural log-kill of
    both kinds of cells [1], PSA stays.

    **Arguments:** `self_renewal` p_s in [0, 1] [1]; `division_rate` lambda, `drug_kill` alpha, `psa_decay` phi [1/day];
    `psa_production` rho [ng/mL/day a cell]; `start_stem`, `start_differentiated`, `start_psa`.

    **Good values:** lambda ln 2 /day (unverified); a public variant lists alpha 0.07, rho 1e-4, phi 0.01 /day; p_s
    0.01-0.05 (framework default).

    **Limits:** only rho times a scale of cells is identified by PSA: fix one (mathematical). S + D > 0.

    **Reference:** Brady-Nicholls et al., Nat. Commun. 11 (2020) 1750, doi:10.1038/s41467-020-15424-4.
    """

    self_renewal: Float[Array, "..."] = parameter(unit=units.FRACTION)
    start_stem: Float[Array, "..."] = parameter(unit="cells")
    start_differentiated: Float[Array, "..."] = parameter(unit="cells")
    start_psa: Float[Array, "..."] = parameter(unit="ng/mL")
    division_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.693147)
    drug_kill: Float[Array, "..."] = parameter(unit=units.RATE, default=0.07)
    psa_production: Float[Array, "..."] = parameter(unit="ng/mL/day", default=1e-4)
    psa_decay: Float[Array, "..."] = parameter(unit=units.RATE, default=0.01)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1038/s41467-020-15424-4"

    def initial(self) -> StemDifferentiatedPsaState:
        """The three starts."""
        return StemDifferentiatedPsaState(self.start_stem, self.start_differentiated, self.start_psa)

    def burden(self, state: StemDifferentiatedPsaState) -> Float[Array, "..."]:
        """PSA [ng/mL]."""
        return state.psa

    def jump(self, state: StemDifferentiatedPsaState, dose: Float[Array, "..."]) -> StemDifferentiatedPsaState:
        """Cells times e^{-dose}."""
        left = jnp.exp(-dose)
        return StemDifferentiatedPsaState(state.stem * left, state.differentiated * left, state.psa)

    def rate(self, state: StemDifferentiatedPsaState, exposure: Float[Array, "..."]) -> StemDifferentiatedPsaState:
        """The equations above."""
        divisions = self.division_rate * state.stem
        symmetric = self.self_renewal * state.stem / (state.stem + state.differentiated)
        return StemDifferentiatedPsaState(
            symmetric * divisions,
            (1.0 - symmetric) * divisions - self.drug_kill * exposure * state.differentiated,
            self.psa_production * state.differentiated - self.psa_decay * state.psa,
        )
