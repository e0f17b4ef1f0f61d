"""Two populations that share one room and die all the time: what adaptive therapy is tried on."""

from typing import ClassVar

from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates, killed
from tumortwin.models.compartment._competition import SensitiveResistantState
from tumortwin.params import parameter


class TurnoverCompetition(AbstractRates):
    """Sensitive and resistant cells in one room; the drug kills cells that divide, and all cells turn over.

    $$ S' = r_S \\Big(1 - \\frac{S + R}{K}\\Big)(1 - \\delta u) S - d_S S,\\qquad
       R' = r_R \\Big(1 - \\frac{S + R}{K}\\Big) R - d_R R $$

    **State:** S, R [cells, in the unit of K]; the burden is S + R. **Exposure:** u, 1 on and 0 off, or between;
    **dose:** natural log-kill of both [1].

    **Arguments:** `sensitive_rate` r_S, `resistant_rate` r_R, `sensitive_death` d_S, `resistant_death` d_R [1/day];
    `kill_of_division` delta [1]: above 1 a dividing cell is lost; `carrying_capacity` K; `start_sensitive` S_0,
    `start_resistant` R_0.

    **Good values:** the defaults, a published patient (number 25) under abiraterone: progression, when the burden
    passes 1.2 times its start, after 29 days without drug, 1,076 under continuous drug, 1,844 when it is stopped at
    half the start and given again at the start (decisions once a day).

    **Limits:** no mutation, no cost of resistance beside the slower rate; the room is shared by all cells alike
    (mathematical: a bigger tumor always holds resistant cells back).

    **Reference:** Strobl, West, Viossat et al., Cancer Res. 81 (2021) 1135, doi:10.1158/0008-5472.CAN-20-0806;
    Gallagher, Strobl, Park et al., Cancer Res. 84 (2024) 1929, doi:10.1158/0008-5472.CAN-23-2040 (the values).
    """

    start_sensitive: Float[Array, "..."] = parameter(unit="cells", default=0.42567)
    start_resistant: Float[Array, "..."] = parameter(unit="cells", default=4.25675e-6)
    sensitive_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.027)
    resistant_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.0207928)
    sensitive_death: Float[Array, "..."] = parameter(unit=units.RATE, default=0.00786822)
    resistant_death: Float[Array, "..."] = parameter(unit=units.RATE, default=0.00786822)
    kill_of_division: Float[Array, "..."] = parameter(unit=units.FRACTION, default=1.5)
    carrying_capacity: Float[Array, "..."] = parameter(unit="cells", default=1.0)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1158/0008-5472.CAN-23-2040"

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
        s, r = state.sensitive, state.resistant
        room = 1.0 - (s + r) / self.carrying_capacity
        dividing = self.sensitive_rate * room * (1.0 - self.kill_of_division * exposure)
        return SensitiveResistantState(
            (dividing - self.sensitive_death) * s, (self.resistant_rate * room - self.resistant_death) * r
        )
