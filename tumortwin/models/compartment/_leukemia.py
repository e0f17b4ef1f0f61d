"""Leukemia and white cells under cytarabine and a growth factor: what kills the one starves the other."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models.compartment._base import AbstractRates
from tumortwin.params import parameter

CONCENTRATION, COUNT = "umol/L", "G/L"
MARROW = 500.0  # [G/L]: cellularity 0.5 times 1e12 cells/L
SHARE_OF_TRANSIT = 0.005  # of transit cells count as blasts


class LeukemiaState(eqx.Module):
    """Cytarabine in `plasma` [umol/L] and in `tissue` (in plasma's volume); lenograstim in the `depot`, `absorbing`
    and `absorbed` [ng/L]; `growth_factor` G-CSF [ng/L]; `proliferating`, `transit` and circulating `white` cells
    [G/L]; leukemic blasts in `marrow` and in `blood` [G/L].
    """

    plasma: Float[Array, "..."] = parameter(unit=CONCENTRATION, negligible=1e-9)
    tissue: Float[Array, "..."] = parameter(unit=CONCENTRATION, negligible=1e-9)
    depot: Float[Array, "..."] = parameter(unit="ng/L", negligible=1e-7)
    absorbing: Float[Array, "..."] = parameter(unit="ng/L", negligible=1e-7)
    absorbed: Float[Array, "..."] = parameter(unit="ng/L", negligible=1e-7)
    growth_factor: Float[Array, "..."] = parameter(unit="ng/L")
    proliferating: Float[Array, "..."] = parameter(unit=COUNT)
    transit: Float[Array, "..."] = parameter(unit=COUNT)
    white: Float[Array, "..."] = parameter(unit=COUNT)
    marrow: Float[Array, "..."] = parameter(unit=COUNT)
    blood: Float[Array, "..."] = parameter(unit=COUNT)


class LeukemiaMyelosuppression(AbstractRates):
    """Acute myeloid leukemia: blasts and white cells under infusions of cytarabine and injections of lenograstim.

    $$ C_1' = \\frac{u}{V} - (k_{10} + k_{12}) C_1 + k_{21} C_2, \\quad C_2' = k_{12} C_1 - k_{21} C_2, \\quad
       E = s \\ln(1 + C_1) $$

    $$ X_g' = (k_{eg} + k_{ANC} B) B_g + k_{a2} X_{e2} - (k_{eg} + k_{ANC}(W + L_2)) X_g, \\quad g = X_g / B_g $$

    $$ P' = -g^{\\beta} k_{tr} P + g^{\\gamma} k_{tr} (1 - E) P, \\quad T' = g^{\\beta} k_{tr} (P - T), \\quad
       W' = g^{\\beta} k_{tr} T - k_{wbc} W $$

    $$ L_1' = (2 a k - 1) p L_1 - p E L_1, \\quad L_2' = 2 (1 - a k) p L_1 - d L_2, \\quad
       k = \\frac{1}{1 + c (W + L_2)} $$

    A drop in white cells leaves more G-CSF, which drives both division (gamma) and maturation (beta).

    **State:** `LeukemiaState`; the burden is the share of blasts in the marrow [%], 100 (L_1 + 0.005 T) / 500.
    **Exposure:** u, the infusion rate of cytarabine [umol/day]; **dose:** lenograstim [ug], into the depot.

    **Arguments:** `baseline` B [G/L]; `transit_rate` k_tr, `white_death` k_wbc [1/day]; `division_exponent` gamma,
    `maturation_exponent` beta [1]; `kill_slope` s [1 per log]; `volume` V [L] and `elimination` k_10,
    `to_tissue` k_12, `from_tissue` k_21 [1/day] of cytarabine; `absorption` k_a1 [1/day] (k_a2 is 10/3 of it) and
    `factor_volume` V_g [L] of lenograstim; `factor_baseline` B_g [ng/L], `factor_elimination` k_eg [1/day],
    `factor_uptake` k_ANC [L/G/day] of G-CSF; `self_renewal` a [1], `blast_division` p, `blast_death` d [1/day],
    `inhibition` c [L/G]; `start_marrow`, `start_blood` L_1 and L_2 at the start [G/L].

    **Good values:** the defaults: a public implementation of the published model, Quartino et al. (G-CSF, white cells)
    and Stiehl et al. (blasts); the pharmacokinetics of cytarabine have half-lives of 10 min and 2 h (framework default)
    and a volume that no source could be read for: calibrate it, and say so.

    **Limits:** untreated and without blasts white cells stay where they are: P = T = B k_wbc / k_tr. The kill is
    log-linear in the concentration, without bound: E > 1 is a loss. A published variant doses lenograstim over 61 s;
    here it is an instant.

    **Reference:** Jost, Schalk, Weber, Doehner, Fischer & Sager, IEEE Trans. Biomed. Eng. 67 (2020) 3296,
    arXiv:1911.08980; Quartino et al., Pharm. Res. 31 (2014) 3390 (G-CSF); Stiehl, Baran, Ho &
    Marciniak-Czochra, J. R. Soc. Interface 11 (2014) 20140079 (blasts).
    """

    baseline: Float[Array, "..."] = parameter(unit=COUNT, default=4.67)
    transit_rate: Float[Array, "..."] = parameter(unit=units.RATE, default=0.236)
    white_death: Float[Array, "..."] = parameter(unit=units.RATE, default=2.3765)
    division_exponent: Float[Array, "..."] = parameter(unit=units.FRACTION, default=0.651)
    maturation_exponent: Float[Array, "..."] = parameter(unit=units.FRACTION, default=0.234)
    kill_slope: Float[Array, "..."] = parameter(unit=units.FRACTION, default=7.94)
    volume: Float[Array, "..."] = parameter(unit="L", default=30.0)
    elimination: Float[Array, "..."] = parameter(unit=units.RATE, default=67.0)
    to_tissue: Float[Array, "..."] = parameter(unit=units.RATE, default=28.7)
    from_tissue: Float[Array, "..."] = parameter(unit=units.RATE, default=12.4)
    absorption: Float[Array, "..."] = parameter(unit=units.RATE, default=3.15)
    factor_volume: Float[Array, "..."] = parameter(unit="L", default=14.5)
    factor_baseline: Float[Array, "..."] = parameter(unit="ng/L", default=24.4)
    factor_elimination: Float[Array, "..."] = parameter(unit=units.RATE, default=14.208)
    factor_uptake: Float[Array, "..."] = parameter(unit="L/G/day", default=135.36)
    self_renewal: Float[Array, "..."] = parameter(unit=units.FRACTION, default=0.875)
    blast_division: Float[Array, "..."] = parameter(unit=units.RATE, default=0.1)
    blast_death: Float[Array, "..."] = parameter(unit=units.RATE, default=2.3)
    inhibition: Float[Array, "..."] = parameter(unit="L/G", default=0.01)
    start_marrow: Float[Array, "..."] = parameter(unit=COUNT, default=10.0)
    start_blood: Float[Array, "..."] = parameter(unit=COUNT, default=0.1)

    stiff: ClassVar[bool] = True
    reference: ClassVar[str] = "arXiv:1911.08980"

    def initial(self) -> LeukemiaState:
        """No drug, white cells at their baseline, blasts as given."""
        cells = self.baseline * self.white_death / self.transit_rate
        none = jnp.zeros_like(cells)
        blasts = jnp.broadcast_arrays(self.start_marrow, self.start_blood, none, self.factor_baseline, self.baseline)
        marrow, blood, _, factor, white = blasts
        return LeukemiaState(none, none, none, none, none, factor, cells, cells, white, marrow, blood)

    def burden(self, state: LeukemiaState) -> Float[Array, "..."]:
        """Share of blasts in the marrow [%]."""
        return 100.0 * (state.marrow + SHARE_OF_TRANSIT * state.transit) / MARROW

    def jump(self, state: LeukemiaState, dose: Float[Array, "..."]) -> LeukemiaState:
        """Lenograstim [ug] into the depot."""
        return eqx.tree_at(lambda s: s.depot, state, state.depot + 1000.0 * dose / self.factor_volume)

    def kill(self, state: LeukemiaState) -> Float[Array, "..."]:
        """E, the loss of dividing cells [per division] at the concentration of cytarabine in plasma."""
        return self.kill_slope * jnp.log1p(state.plasma)

    def rate(self, state: LeukemiaState, exposure: Float[Array, "..."]) -> LeukemiaState:
        """The equations above."""
        s, kill = state, self.kill(state)
        excess = s.growth_factor / self.factor_baseline
        maturing = excess**self.maturation_exponent * self.transit_rate
        dividing = excess**self.division_exponent * self.transit_rate * (1.0 - kill)
        second = 10.0 / 3.0 * self.absorption
        produced = (self.factor_elimination + self.factor_uptake * self.baseline) * self.factor_baseline
        cleared = self.factor_elimination + self.factor_uptake * (s.white + s.blood)
        renewal = self.self_renewal / (1.0 + self.inhibition * (s.white + s.blood))
        return LeukemiaState(
            exposure / self.volume - (self.elimination + self.to_tissue) * s.plasma + self.from_tissue * s.tissue,
            self.to_tissue * s.plasma - self.from_tissue * s.tissue,
            -self.absorption * s.depot,
            self.absorption * s.depot - second * s.absorbing,
            second * (s.absorbing - s.absorbed),
            produced + second * s.absorbed - cleared * s.growth_factor,
            (dividing - maturing) * s.proliferating,
            maturing * (s.proliferating - s.transit),
            maturing * s.transit - self.white_death * s.white,
            ((2.0 * renewal - 1.0) - kill) * self.blast_division * s.marrow,
            2.0 * (1.0 - renewal) * self.blast_division * s.marrow - self.blast_death * s.blood,
        )
