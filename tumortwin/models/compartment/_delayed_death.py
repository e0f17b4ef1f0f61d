"""Irradiated cells in a dish that go on growing until they die of it, hours to days later."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates, linear_quadratic
from tumortwin.params import parameter


class CultureState(eqx.Module):
    """Shares of the dish that are covered by `surviving`, doomed (`early`, `middle`, `late`) and `dead` cells [1]."""

    surviving: Float[Array, "..."] = parameter(unit=units.FRACTION)
    early: Float[Array, "..."] = parameter(unit=units.FRACTION)
    middle: Float[Array, "..."] = parameter(unit=units.FRACTION)
    late: Float[Array, "..."] = parameter(unit=units.FRACTION)
    dead: Float[Array, "..."] = parameter(unit=units.FRACTION)


class DelayedDeath(AbstractRates):
    """A fraction dooms cells; they divide and swell on, die after three stages, and let go of the dish.

    $$ S' = k\\,q S,\\quad E' = (g q - m) E,\\quad M' = (g q - m) M + m E,\\quad L' = (g q - m) L + m M,\\quad
       X' = m L - c X $$

    with q = 1 - N / theta, N = S + E + M + L + X, and at a fraction of d Gy

    $$ S(t_i^+) = s S(t_i^-),\\quad E(t_i^+) = E(t_i^-) + (1 - s) S(t_i^-),
       \\quad s = e^{-\\alpha d_i (1 + d_i/(\\alpha/\\beta))} $$

    A cell dies 3/m days after it was doomed (standard deviation 1.7/m). A fraction changes the composition, not the
    confluence.

    **State:** S, E, M, L, X [share of the dish]; the burden is the confluence N. **Exposure:** loss rate of surviving
    cells [1/day]; **dose:** d [Gy].

    **Arguments:** `survivor_rate` k of cells that survived and `doomed_rate` g of doomed ones [1/day]; `death_rate` m
    of one stage and `clearance_rate` c of dead cells [1/day]; `carrying_capacity` theta [1]; `start` S_0 [1]; `alpha`
    [1/Gy]; `alpha_beta` [Gy].

    **Good values:** 9L rat glioma, each schedule fitted by itself: g 1.1-1.7 /day, m 2-4 /day, c 0.3-1.2 /day, k
    0.05-0.3 /day, alpha 0.05-0.25 /Gy at alpha/beta 10 Gy.

    **Limits:** k, alpha and g are hardly told apart by confluence alone (mathematical); a cell that is hit again while
    doomed is not doomed sooner (convenience). Doses of 4-10 Gy are at the edge of the linear-quadratic law.

    **Reference:** Liu et al., Front. Oncol. 12 (2022) 811415, doi:10.3389/fonc.2022.811415 (data; the model is this
    framework's). Delay by stages: Lloyd, Proc. R. Soc. B 268 (2001) 985-993, doi:10.1098/rspb.2001.1599.
    """

    start: Float[Array, "..."] = parameter(unit=units.FRACTION)
    doomed_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=1.4)
    survivor_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.15)
    carrying_capacity: Float[Array, "..."] = parameter(unit=units.FRACTION, default=0.9)
    alpha: Float[Array, "..."] = parameter(unit=units.RADIOSENSITIVITY, default=0.15)
    death_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=3.0)
    clearance_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.4)
    alpha_beta: Float[Array, "..."] = parameter(unit=units.DOSE, default=10.0)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.3389/fonc.2022.811415"

    def initial(self) -> CultureState:
        """Surviving cells only."""
        none = jnp.zeros_like(self.start)
        return CultureState(self.start, none, none, none, none)

    def burden(self, state: CultureState) -> Float[Array, "..."]:
        """The confluence [1]."""
        return state.surviving + state.early + state.middle + state.late + state.dead

    def jump(self, state: CultureState, dose: Float[Array, "..."]) -> CultureState:
        """One fraction of `dose` [Gy]."""
        kill = linear_quadratic(dose, self.alpha, self.alpha_beta)
        return CultureState(
            state.surviving * jnp.exp(-kill),
            state.early - state.surviving * jnp.expm1(-kill),
            state.middle,
            state.late,
            state.dead,
        )

    def rate(self, state: CultureState, exposure: Float[Array, "..."]) -> CultureState:
        """The equations above."""
        room = 1.0 - self.burden(state) / self.carrying_capacity
        gain = self.doomed_rate * room - self.death_rate
        return CultureState(
            (self.survivor_rate * room - exposure) * state.surviving,
            gain * state.early,
            gain * state.middle + self.death_rate * state.early,
            gain * state.late + self.death_rate * state.middle,
            self.death_rate * state.late - self.clearance_rate * state.dead,
        )
