"""A source that a drug does not kill, and the sensitive cells that it keeps making: stem cells in closed form."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractFlow
from tumortwin.models.compartment._functions import mean_decay
from tumortwin.params import parameter


class StemSourceState(eqx.Module):
    """`source`: what stem cells add [measured/day]; `sensitive`: the cells that are measured [measured]."""

    source: Float[Array, "..."] = parameter(unit="measured/day")
    sensitive: Float[Array, "..."] = parameter(unit="measured")


class StemSource(AbstractFlow):
    """A constant or slowly growing source of cells, which the drug kills as they come; alone they grow at a rate.

    $$ Q' = \\sigma Q,\\qquad
       P' = \\big((1 - u) + \\eta u\\big) Q + \\big(\\gamma (1 - u) - \\kappa u\\big) P $$

    Under a drug P falls at the rate kappa to a plateau, eta Q / kappa; off it P returns first in a line of slope Q,
    then at the rate gamma. Both the nadir and the return rise with Q, cycle by cycle, by sigma: this is resistance.

    `StemDifferentiatedPsa` with few stem cells (S << D), PSA at the steady state of its cells, and self-renewal at a
    constant rate is this model with gamma = 0 and eta = 1.

    **State:** Q [measured/day], P [measured]; the burden is P. **Exposure:** u, 1 on and 0 off, or between; **dose:**
    natural log-kill of P [1]; the source stays.

    **Arguments:** `start` P_0 [measured]; `start_source` Q_0 [measured/day]; `source_rate` sigma (either sign),
    `growth_rate` gamma (either sign), `decline_rate` kappa [1/day]; `source_share` eta [1], what is left of the source
    under the drug.

    **Good values:** PSA [ng/mL] under intermittent androgen deprivation, `experiments/bruchovsky2006`: start 15, Q
    0.01-0.03 ng/mL/day, the defaults otherwise.

    **Limits:** no carrying capacity (for convenience); eta Q / kappa alone, not its parts, is known before the first
    time off the drug (mathematical).

    **Reference:** framework model, a limit of Brady-Nicholls et al., Nat. Commun. 11 (2020) 1750,
    doi:10.1038/s41467-020-15424-4.
    """

    start: Float[Array, "..."] = parameter(unit="measured")
    start_source: Float[Array, "..."] = parameter(unit="measured/day")
    source_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=5e-4)
    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=2e-3)
    decline_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.05)
    source_share: Float[Array, "..."] = parameter(unit=units.FRACTION, default=1.0)

    reference: ClassVar[str] = "doi:10.1038/s41467-020-15424-4"

    def initial(self) -> StemSourceState:
        """The two starts."""
        return StemSourceState(self.start_source, self.start)

    def burden(self, state: StemSourceState) -> Float[Array, "..."]:
        """P."""
        return state.sensitive

    def jump(self, state: StemSourceState, dose: Float[Array, "..."]) -> StemSourceState:
        """P e^{-dose}."""
        return StemSourceState(state.source, state.sensitive * jnp.exp(-dose))

    def advance(
        self, state: StemSourceState, duration: Float[Array, "..."], exposure: Float[Array, "..."]
    ) -> StemSourceState:
        """P e^{at} plus the source since, (e^{sigma t} - e^{at}) / (sigma - a), regular at a = sigma."""
        off = 1.0 - exposure
        rate = self.growth_rate * off - self.decline_rate * exposure
        grown = jnp.exp(self.source_rate * duration)
        since = grown * duration * mean_decay((self.source_rate - rate) * duration)
        made = (off + self.source_share * exposure) * state.source * since
        return StemSourceState(state.source * grown, state.sensitive * jnp.exp(rate * duration) + made)
