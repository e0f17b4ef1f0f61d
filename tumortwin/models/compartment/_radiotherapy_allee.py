"""Irradiated cells in a dish: what still divides, what is doomed, what is dying; all of it is seen."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates, linear_quadratic
from tumortwin.params import parameter


class ConfluenceState(eqx.Module):
    """Shares of the dish that are covered by `proliferating`, `damaged` and `dying` cells [1]."""

    proliferating: Float[Array, "..."] = parameter(unit=units.FRACTION)
    damaged: Float[Array, "..."] = parameter(unit=units.FRACTION)
    dying: Float[Array, "..."] = parameter(unit=units.FRACTION)


class RadiotherapyAllee(AbstractRates):
    """Logistic growth with a weak Allee effect; a fraction dooms cells, which leave the dish with a delay.

    $$ P' = k P \\frac{N}{N + A}\\Big(1 - \\frac{N}{\\theta}\\Big),\\quad D' = -m D,\\quad X' = m D - c X $$

    with N = P + D + X, and at a fraction of d Gy

    $$ P(t_i^+) = s P(t_i^-),\\quad D(t_i^+) = D(t_i^-) + (1 - s) P(t_i^-),
       \\quad s = e^{-\\alpha d_i (1 + d_i/(\\alpha/\\beta))} $$

    A fraction changes the composition, not the confluence: the loss is seen days later.

    **State:** P, D, X [share of the dish]; the burden is the confluence N. **Exposure:** loss rate of proliferating
    cells [1/day]; **dose:** d [Gy].

    **Arguments:** `growth_rate` k [1/day]; `carrying_capacity` theta [1]; `allee_density` A [1]; `alpha` [1/Gy];
    `alpha_beta` [Gy]; `death_rate` m of damaged and `clearance_rate` c of dying cells [1/day]; `start` P_0 [1].

    **Good values:** 9L rat glioma k 1.89 /day (0.0788 /h), theta 0.98; C6 k 3.72 /day (0.155 /h), theta 0.81. The Allee
    densities published with them (0.333 and 0.146) belong to the authors' own Allee factor, which was not read. alpha
    0.1 /Gy, alpha/beta 10 Gy, m 0.5, c 0.5 /day are framework defaults.

    **Limits:** a model of the same kind as that of Liu et al., not theirs. With dN/dt of the growth term positive for
    0 < N < theta the Allee effect is weak: no dish dies out by itself (mathematical). Doses of 4-10 Gy are at the edge
    of the linear-quadratic law.

    **Reference:** Liu et al., Front. Oncol. 12 (2022) 811415, doi:10.3389/fonc.2022.811415 (data and structure).
    """

    growth_rate: Float[Array, "..."] = parameter(unit=units.RATE)
    carrying_capacity: Float[Array, "..."] = parameter(unit=units.FRACTION)
    allee_density: Float[Array, "..."] = parameter(unit=units.FRACTION)
    start: Float[Array, "..."] = parameter(unit=units.FRACTION)
    alpha: Float[Array, "..."] = parameter(unit=units.RADIOSENSITIVITY, default=0.1)
    alpha_beta: Float[Array, "..."] = parameter(unit=units.DOSE, default=10.0)
    death_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.5)
    clearance_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.5)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.3389/fonc.2022.811415"

    def initial(self) -> ConfluenceState:
        """Proliferating cells only."""
        none = jnp.zeros_like(self.start)
        return ConfluenceState(self.start, none, none)

    def burden(self, state: ConfluenceState) -> Float[Array, "..."]:
        """The confluence [1]."""
        return state.proliferating + state.damaged + state.dying

    def jump(self, state: ConfluenceState, dose: Float[Array, "..."]) -> ConfluenceState:
        """One fraction of `dose` [Gy]."""
        kill = linear_quadratic(dose, self.alpha, self.alpha_beta)
        return ConfluenceState(
            state.proliferating * jnp.exp(-kill), state.damaged - state.proliferating * jnp.expm1(-kill), state.dying
        )

    def rate(self, state: ConfluenceState, exposure: Float[Array, "..."]) -> ConfluenceState:
        """The equations above."""
        seen = self.burden(state)
        growth = self.growth_rate * seen / (seen + self.allee_density) * (1.0 - seen / self.carrying_capacity)
        doomed = self.death_rate * state.damaged
        return ConfluenceState(
            (growth - exposure) * state.proliferating, -doomed, doomed - self.clearance_rate * state.dying
        )
