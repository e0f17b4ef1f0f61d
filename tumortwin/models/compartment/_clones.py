"""Two clones that leave each other alone, one of which a drug kills: a marker that falls, and comes back."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractFlow, killed
from tumortwin.params import parameter


class ClonesState(eqx.Module):
    """The `sensitive` and the `resistant` part of what is measured, in its unit."""

    sensitive: Float[Array, "..."] = parameter(unit="measured")
    resistant: Float[Array, "..."] = parameter(unit="measured")


class IndependentClones(AbstractFlow):
    """Sensitive cells grow off the drug and shrink on it; resistant ones grow as if there were none.

    $$ S' = (g_S - k\\,u(t)) S, \\qquad R' = g_R R, \\qquad y = S + R $$

    The law of Stein for a treatment that is switched on and off; solved in closed form between switches.

    **State:** S, R [the unit of y: ng/mL of PSA, mm]; the burden is their sum. **Exposure:** u, 1 on and 0 off;
    **dose:** natural log-kill of S [1].

    **Arguments:** `growth_rate` g_S, `drug_kill` k (at exposure 1), `resistant_rate` g_R [1/day]; `start` y_0;
    `resistant_share` R_0 / y_0, in (0, 1) [1].

    **Good values:** PSA under androgen deprivation: g_S 0.01, k 0.04, g_R 0.001 /day, share 0.01 (framework defaults: a
    doubling in ten weeks off treatment, a halving in three weeks on it).

    **Limits:** no competition, no switching between the clones, no bound (for convenience; Hirata et al. let cells
    switch both ways, which one PSA a month hardly identifies in a single patient).

    **Reference:** Hirata, Bruchovsky & Aihara, J. Theor. Biol. 264 (2010) 517-527, doi:10.1016/j.jtbi.2010.02.027
    (piecewise linear, with three kinds of cells).
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    drug_kill: Float[Array, "..."] = parameter(unit=units.RATE)
    resistant_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    resistant_share: Float[Array, "..."] = parameter(unit=units.FRACTION)
    start: Float[Array, "..."] = parameter(unit="measured", default=1.0)

    reference: ClassVar[str] = "doi:10.1016/j.jtbi.2010.02.027"

    def initial(self) -> ClonesState:
        """y_0, divided between the two."""
        return ClonesState(self.start * (1.0 - self.resistant_share), self.start * self.resistant_share)

    def burden(self, state: ClonesState) -> Float[Array, "..."]:
        """S + R."""
        return state.sensitive + state.resistant

    def jump(self, state: ClonesState, dose: Float[Array, "..."]) -> ClonesState:
        """S e^{-dose}; R is what it was."""
        return ClonesState(killed(state.sensitive, dose), state.resistant)

    def advance(self, state: ClonesState, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> ClonesState:
        """Two exponentials."""
        return ClonesState(
            state.sensitive * jnp.exp((self.growth_rate - self.drug_kill * exposure) * duration),
            state.resistant * jnp.exp(self.resistant_rate * duration),
        )
