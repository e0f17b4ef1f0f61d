"""CAR T-cells as predators of a tumor."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates
from tumortwin.params import parameter


class CarrgoState(eqx.Module):
    """`tumor` and `effector` cells (CAR T), both in units of the cell index."""

    tumor: Float[Array, "..."] = parameter(unit="cell index")
    effector: Float[Array, "..."] = parameter(unit="cell index")


class Carrgo(AbstractRates):
    """Logistic tumor cells X, eaten by CAR T-cells Y that grow or are exhausted by it; dexamethasone u harms both.

    $$ X' = \\rho X (1 - X/K) - \\kappa_1 X Y - c_0 u X,\\qquad Y' = \\kappa_2 X Y - \\theta Y - c_3 u Y $$

    **State:** X, Y [cell index]; the burden is X. **Exposure:** u, dexamethasone [ug/mL] (or its level); **dose:** CAR
    T-cells added at once [cell index].

    **Arguments:** `growth_rate` rho, `effector_death` theta [1/day]; `carrying_capacity` K; `kill_rate` kappa_1,
    `expansion_rate` kappa_2 [1/day per cell index], kappa_2 of either sign; `tumor_drug_kill` c_0,
    `effector_drug_kill` c_3 [1/day per ug/mL]; `start_tumor`, `start_effector`.

    **Good values:** patient-derived glioblastoma PBT030 without CAR T-cells: rho 1.09 /day (0.0455 /h), 1/K 0.188; with
    CAR T at 0.25: kappa_1 13.4 /day (0.557 /h), kappa_2 0.58 /day (0.0242 /h). Public fits are in hours.

    **Limits:** well mixed, one phenotype; kappa_1 and the unseen Y are confounded unless the dose of cells is known.

    **Reference:** Sahoo et al., J. R. Soc. Interface 17 (2020) 20190734, doi:10.1098/rsif.2019.0734; Brummer et al.,
    PLOS Comput. Biol. 18 (2022) e1009504, doi:10.1371/journal.pcbi.1009504.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    carrying_capacity: Float[Array, "..."] = parameter(unit="cell index")
    kill_rate: Float[Array, "..."] = parameter(unit="1/day")
    expansion_rate: Float[Array, "..."] = parameter(unit="1/day")
    effector_death: Float[Array, "..."] = parameter(unit=units.RATE)
    start_tumor: Float[Array, "..."] = parameter(unit="cell index")
    start_effector: Float[Array, "..."] = parameter(unit="cell index", default=0.0)
    tumor_drug_kill: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0)
    effector_drug_kill: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1098/rsif.2019.0734"

    def initial(self) -> CarrgoState:
        """The two starts."""
        return CarrgoState(self.start_tumor, self.start_effector)

    def burden(self, state: CarrgoState) -> Float[Array, "..."]:
        """The tumor cells (the cell index is theirs)."""
        return state.tumor

    def jump(self, state: CarrgoState, dose: Float[Array, "..."]) -> CarrgoState:
        """An infusion of CAR T-cells."""
        return CarrgoState(state.tumor, state.effector + dose)

    def rate(self, state: CarrgoState, exposure: Float[Array, "..."]) -> CarrgoState:
        """The equations above."""
        x, y = state.tumor, state.effector
        growth = self.growth_rate * (1.0 - x / self.carrying_capacity)
        return CarrgoState(
            (growth - self.kill_rate * y - self.tumor_drug_kill * exposure) * x,
            (self.expansion_rate * x - self.effector_death - self.effector_drug_kill * exposure) * y,
        )
