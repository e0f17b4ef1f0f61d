"""Size under treatment as clinical pharmacology writes it: Stein's and Claret's equations."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractFlow, killed
from tumortwin.models.compartment._functions import mean_decay
from tumortwin.params import parameter


class SteinState(eqx.Module):
    """The part that shrinks, the part that grows, and what was counted twice at the start [mm^3 or mm]."""

    shrinking: Float[Array, "..."] = parameter(unit=units.VOLUME)
    growing: Float[Array, "..."] = parameter(unit=units.VOLUME)
    counted_twice: Float[Array, "..."] = parameter(unit=units.VOLUME)


class Stein(AbstractFlow):
    """Simultaneous decay and regrowth from the first day of a treatment.

    $$ V(t) = V_0\\,(e^{-d t} + e^{g t} - 1) $$

    made autonomous by three variables, $s' = -d s$, $q' = g q$, $c' = 0$, all V_0 at the start, and V = s + q - c. The
    least value comes at $t^* = \\ln(d/g) / (d + g)$.

    **State:** s, q, c [mm^3, or mm for a sum of diameters]. **Exposure:** loss rate of everything [1/day], beside the
    treatment that d describes (0 in ordinary use); **dose:** natural log-kill of everything [1].

    **Arguments:** `decay_rate` d [1/day]; `growth_rate` g [1/day]; `start` V_0.

    **Good values:** d 0.02, g 0.004 /day: nadir of 0.569 V_0 at day 67.1.

    **Limits:** an empirical curve: s and q are no populations (their sum is 2 V_0 at the start). Day 0 is the first day
    of treatment, which never stops.

    **Reference:** Stein et al., Clin. Cancer Res. 17 (2011) 907-917, doi:10.1158/1078-0432.CCR-10-1762.
    """

    decay_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1158/1078-0432.CCR-10-1762"

    def initial(self) -> SteinState:
        """V_0 in each variable."""
        return SteinState(self.start, self.start, self.start)

    def burden(self, state: SteinState) -> Float[Array, "..."]:
        """V = s + q - c."""
        return state.shrinking + state.growing - state.counted_twice

    def jump(self, state: SteinState, dose: Float[Array, "..."]) -> SteinState:
        """Everything times e^{-dose}."""
        return killed(state, dose)

    def advance(self, state: SteinState, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> SteinState:
        """Three exponentials."""
        return SteinState(
            state.shrinking * jnp.exp(-(self.decay_rate + exposure) * duration),
            state.growing * jnp.exp((self.growth_rate - exposure) * duration),
            state.counted_twice * jnp.exp(-exposure * duration),
        )

    def nadir(self) -> Float[Array, "..."]:
        """The day of the least value, ln(d/g) / (d + g) [day]; negative when the tumor never shrinks."""
        return jnp.log(self.decay_rate / self.growth_rate) / (self.decay_rate + self.growth_rate)


class ClaretState(eqx.Module):
    """The `size` [mm^3 or mm] and the `effect` [1] that a drug still has (1 at the start)."""

    size: Float[Array, "..."] = parameter(unit=units.VOLUME)
    effect: Float[Array, "..."] = parameter(unit=units.FRACTION)


class Claret(AbstractFlow):
    """Exponential growth against a drug whose effect wears off.

    $$ y' = K_L y - K_D\\,u(t)\\,e^{-\\lambda t} y $$

    made autonomous by the effect $w' = -\\lambda w$, w(0) = 1. For constant u: $\\ln y$ grows by
    $K_L t - K_D u w\\,(1 - e^{-\\lambda t}) / \\lambda$, regular at lambda = 0.

    **State:** y [mm^3, or mm for a sum of diameters], w [1]. **Exposure:** u, daily dose, area under the curve, or 1
    and 0; **dose:** natural log-kill of y [1].

    **Arguments:** `growth_rate` K_L [1/day]; `drug_kill` K_D [1/day at exposure 1]; `resistance_rate` lambda [1/day];
    `start` y_0.

    **Good values:** K_L 0.003, K_D 0.01, lambda 0.007 /day at exposure 1 (framework defaults of the order of clinical
    sums of diameters).

    **Limits:** the effect wears off with time since day 0, whether the drug is given or not (mathematical).

    **Reference:** Claret et al., J. Clin. Oncol. 27 (2009) 4103-4108, doi:10.1200/JCO.2008.21.0807.
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    drug_kill: Float[Array, "..."] = parameter(unit=units.RATE)
    resistance_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    start: Float[Array, "..."] = parameter(unit=units.VOLUME, default=1.0)

    reference: ClassVar[str] = "doi:10.1200/JCO.2008.21.0807"

    def initial(self) -> ClaretState:
        """y_0 and the whole effect."""
        return ClaretState(self.start, jnp.ones_like(self.start))

    def burden(self, state: ClaretState) -> Float[Array, "..."]:
        """y."""
        return state.size

    def jump(self, state: ClaretState, dose: Float[Array, "..."]) -> ClaretState:
        """y e^{-dose}; the drug's effect is what it was."""
        return ClaretState(killed(state.size, dose), state.effect)

    def advance(self, state: ClaretState, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> ClaretState:
        """The closed form above."""
        worn = self.resistance_rate * duration
        kill = self.drug_kill * exposure * state.effect * duration * mean_decay(worn)
        return ClaretState(state.size * jnp.exp(self.growth_rate * duration - kill), state.effect * jnp.exp(-worn))
