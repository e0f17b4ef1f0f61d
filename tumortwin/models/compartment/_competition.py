"""Populations that compete for room, one of which a drug takes away: adaptive therapy."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates, killed
from tumortwin.params import parameter


class SensitiveResistantState(eqx.Module):
    """Drug-sensitive and drug-resistant cells, in the unit of the capacity (there: that of the PSA they make)."""

    sensitive: Float[Array, "..."] = parameter(unit="cells")
    resistant: Float[Array, "..."] = parameter(unit="cells")


class SensitiveResistant(AbstractRates):
    """Sensitive cells lose their room under the drug; resistant ones suffer from the company of sensitive ones.

    $$ S' = r_S S\\Big(1 - \\frac{S + R}{K(1 - \\epsilon u)}\\Big),\\qquad
       R' = r_R R\\Big(1 - \\frac{\\beta S + R}{K}\\Big) $$

    **State:** S, R [cells, in the unit of K]; the burden, a PSA, is S + R. **Exposure:** u, 1 on and 0 off; **dose:**
    natural log-kill of both [1].

    **Arguments:** `sensitive_rate` r_S, `resistant_rate` r_R [1/day]; `competition` beta [1]; `carrying_capacity` K;
    `capacity_reduction` epsilon [1]; `start_sensitive` S_0, `start_resistant` R_0.

    **Good values:** castration-resistant prostate cancer under abiraterone (Zhang et al. 2022): K 10 000, epsilon 0.95,
    beta 6, r_S 0.0156 c and r_R 0.0091 c /day with a growth scale c; the defaults are those at c = 8/6, which is what
    the authors' published fits (c = 8, one Runge-Kutta step of 1/6 a recorded day) amount to in days. PSA is compared
    after division by each patient's maximum.

    **Limits:** resistance does not come or go: no mutation and no cost beside the slower rate. epsilon u < 1.

    **Reference:** Zhang, Cunningham, Brown & Gatenby, eLife 11 (2022) e76284, doi:10.7554/eLife.76284.
    """

    start_sensitive: Float[Array, "..."] = parameter(unit="cells")
    start_resistant: Float[Array, "..."] = parameter(unit="cells")
    sensitive_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0208)
    resistant_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0121333)
    competition: Float[Array, "..."] = parameter(unit=units.FRACTION, default=6.0)
    carrying_capacity: Float[Array, "..."] = parameter(unit="cells", default=1e4)
    capacity_reduction: Float[Array, "..."] = parameter(unit=units.FRACTION, default=0.95)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.7554/eLife.76284"

    def initial(self) -> SensitiveResistantState:
        """S_0 and R_0."""
        return SensitiveResistantState(self.start_sensitive, self.start_resistant)

    def burden(self, state: SensitiveResistantState) -> Float[Array, "..."]:
        """S + R."""
        return state.sensitive + state.resistant

    def jump(self, state: SensitiveResistantState, dose: Float[Array, "..."]) -> SensitiveResistantState:
        """Both times e^{-dose}."""
        return killed(state, dose)

    def rate(self, state: SensitiveResistantState, exposure: Float[Array, "..."]) -> SensitiveResistantState:
        """The equations above."""
        s, r, room = state.sensitive, state.resistant, self.carrying_capacity
        under_drug = room * (1.0 - self.capacity_reduction * exposure)
        return SensitiveResistantState(
            self.sensitive_rate * s * (1.0 - (s + r) / under_drug),
            self.resistant_rate * r * (1.0 - (self.competition * s + r) / room),
        )


class PopulationsState(eqx.Module):
    """Sizes `cells` of the populations [*batch population]."""

    cells: Float[Array, "*batch population"] = parameter(unit="cells")


class LotkaVolterra(AbstractRates):
    """Two, three or more populations that compete pairwise; a drug lowers the capacity of each by its own share.

    $$ x_i' = r_i x_i\\Big(1 - \\frac{\\sum_j a_{ij} x_j}{K_i (1 - \\epsilon_i u)}\\Big) $$

    The number of populations is the length of the arrays.

    **State:** x [cells, *batch population]; the burden is the sum of x_i w_i. **Exposure:** u, 1 on and 0 off, or
    between; **dose:** natural log-kill of all [1].

    **Arguments:** all [*batch population]: `start`; `growth_rate` r [1/day]; `carrying_capacity` K;
    `capacity_reduction` epsilon [1]; `weight` w, what a cell adds to the burden; and [*batch population population]:
    `competition` a, with a_ii = 1.

    **Good values:** three prostate cancer populations (dependent on testosterone, producing it, independent of both):
    r (2.5, 1, 0.5)e-3 a step, off-diagonal a between 0 and 1, K 800 each off drug (public code of the trial's authors).

    **Limits:** competition is symmetric in time and has no memory; epsilon u < 1 for every population.

    **Reference:** Zhang, Cunningham, Brown & Gatenby, Nat. Commun. 8 (2017) 1816, doi:10.1038/s41467-017-01968-5.
    """

    start: Float[Array, "*batch population"] = parameter(unit="cells")
    growth_rate: Float[Array, "*batch population"] = parameter(unit=units.RATE)
    carrying_capacity: Float[Array, "*batch population"] = parameter(unit="cells")
    competition: Float[Array, "*batch population population"] = parameter(unit=units.FRACTION)
    capacity_reduction: Float[Array, "*batch population"] = parameter(unit=units.FRACTION)
    weight: Float[Array, "*batch population"] = parameter(unit=units.FRACTION)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1038/s41467-017-01968-5"

    def initial(self) -> PopulationsState:
        """The sizes at the start."""
        return PopulationsState(self.start)

    def burden(self, state: PopulationsState) -> Float[Array, "..."]:
        """The weighted sum of the populations."""
        return jnp.sum(self.weight * state.cells, axis=-1)

    def jump(self, state: PopulationsState, dose: Float[Array, "..."]) -> PopulationsState:
        """All times e^{-dose}."""
        return killed(state, dose)

    def rate(self, state: PopulationsState, exposure: Float[Array, "..."]) -> PopulationsState:
        """The equations above."""
        pressure = jnp.einsum("...ij,...j->...i", self.competition, state.cells)
        room = self.carrying_capacity * (1.0 - self.capacity_reduction * exposure[..., None])
        return PopulationsState(self.growth_rate * state.cells * (1.0 - pressure / room))
