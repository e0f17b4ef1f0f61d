"""Cells that survive a drug by sleeping, and wake up resistant or sensitive."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractFlow
from tumortwin.models.compartment._functions import mean_decay
from tumortwin.params import parameter


class PersisterState(eqx.Module):
    """Volumes [mm^3, or cm^3: the unit of `start`] of `sensitive`, `dying`, `persister` and `resistant` cells."""

    sensitive: Float[Array, "..."] = parameter(unit=units.VOLUME)
    dying: Float[Array, "..."] = parameter(unit=units.VOLUME)
    persister: Float[Array, "..."] = parameter(unit=units.VOLUME)
    resistant: Float[Array, "..."] = parameter(unit=units.VOLUME)


class Persister(AbstractFlow):
    """Sensitive, persister and resistant cells under a drug; written for low-grade glioma under temozolomide.

    Under a drug level D sensitive cells die (slowly: they stay visible for months) or fall asleep; sleeping cells wake
    up by themselves, and further drug makes them resistant:

    $$ \\begin{aligned}
       S' &= \\rho_S S - (\\psi + a_1) D S + b P, & X' &= \\psi D S - \\tau X, \\\\
       P' &= a_1 D S - a_2 D P - b P, & R' &= \\rho_R R + a_2 D P .
       \\end{aligned} $$

    For a constant D the equations are linear and solved by a matrix exponential. A *dose* d of temozolomide is gone
    within a day (D = d e^{-kt} with k = 8.3 /day), when nothing else has moved: it acts at once, with the area d/k
    under the curve. Sensitive cells go down by the factor e^{-(psi + a_1) d/k}, in proportion psi : a_1 to dying and to
    persister; of the persisters *that were there before the dose* a share 1 - e^{-a_2 d/k} becomes resistant. (The
    published system holds new persisters back in a waiting compartment until the drug is gone, to the same effect.)

    **State:** S, X, P, R [the unit of `start`]; the burden is their sum. **Exposure:** D [multiples of the level just
    after one dose] for as long as it is there; **dose:** d [doses].

    **Arguments:** `growth_rate` rho_S, `resistant_rate` rho_R, `clearance_rate` tau of dying cells, `reversion_rate` b,
    `elimination_rate` k of the drug [1/day]; `kill_rate` psi, `persistence_rate` a_1, `resistance_rate` a_2 [1/day at
    level 1]; `start` S_0.

    **Good values:** public fits of seven patients with low-grade glioma: rho_S 0.0006-0.0013, rho_R 0.0017-0.010, tau
    0.0017-0.0096, psi 0.19-0.98, a_1 0.22-0.51, a_2 0.04-0.10, b 0.1, k 8.318 /day (half-life 2 h); a dose is one day
    of a course (5 days of 28), S_0 in cm^3.

    **Limits:** no saturation of growth; a day's dose acts at once (for convenience: volumes are within 0.5 % of the
    published system's through six cycles and within 2 % half a year later).

    **Reference:** Delobel et al., PLOS Comput. Biol. 19 (2023) e1011208, doi:10.1371/journal.pcbi.1011208.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    resistant_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    clearance_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    kill_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    persistence_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    resistance_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME)
    reversion_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.1)
    elimination_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=8.318)

    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1011208"

    def initial(self) -> PersisterState:
        """Sensitive cells only."""
        none = jnp.zeros_like(self.start)
        return PersisterState(self.start, none, none, none)

    def burden(self, state: PersisterState) -> Float[Array, "..."]:
        """All of them, the dying included."""
        return state.sensitive + state.dying + state.persister + state.resistant

    def jump(self, state: PersisterState, dose: Float[Array, "..."]) -> PersisterState:
        """One administration, acting at once."""
        area = dose / self.elimination_rate
        hit = (self.kill_rate + self.persistence_rate) * area
        # S (1 - e^{-hit}) in proportion psi : a_1, regular where both are 0.
        struck = state.sensitive * area * mean_decay(hit)
        turned = -state.persister * jnp.expm1(-self.resistance_rate * area)
        return PersisterState(
            state.sensitive * jnp.exp(-hit),
            state.dying + self.kill_rate * struck,
            state.persister - turned + self.persistence_rate * struck,
            state.resistant + turned,
        )

    def advance(
        self, state: PersisterState, duration: Float[Array, "..."], exposure: Float[Array, "..."]
    ) -> PersisterState:
        """The matrix exponential of the linear system."""
        kill, sleep = self.kill_rate * exposure, self.persistence_rate * exposure
        turn, wake = self.resistance_rate * exposure, self.reversion_rate
        none = jnp.zeros_like(state.sensitive)
        rows = (
            (self.growth_rate - kill - sleep, none, wake, none),
            (kill, -self.clearance_rate, none, none),
            (sleep, none, -turn - wake, none),
            (none, none, turn, self.resistant_rate),
        )
        shape = jnp.broadcast_shapes(*(jnp.shape(x) for row in rows for x in row), jnp.shape(duration))
        matrix = jnp.stack([jnp.stack([jnp.broadcast_to(x * duration, shape) for x in row], -1) for row in rows], -2)
        cells = (state.sensitive, state.dying, state.persister, state.resistant)
        before = jnp.stack([jnp.broadcast_to(x, shape) for x in cells], -1)
        after = jnp.einsum("...ij,...j->...i", jax.scipy.linalg.expm(matrix), before)
        return PersisterState(*(after[..., i] for i in range(len(cells))))
