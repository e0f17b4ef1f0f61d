"""Objectives of the burden itself: over time, on a day, as a complete response, and of its resistant part."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.control._objective import AbstractObjective, Curve

COMPLETE_RESPONSE_MM3 = 10.0
"""Residual [mm^3] at or below which a tumor counts as gone: 0.01 cm^3. Convention of the neoadjuvant breast models."""

NEARLY_LEVEL = 1e-4
"""A change of the log burden over a piece below which its mean is taken by series (exact to 1e-13)."""


class AreaUnderBurden(AbstractObjective):
    """Area under the burden between two days, in burden x day.

    $$ \\int_{t_0}^{t_1} N(t) dt $$

    exact for a log burden that is linear between the days of the curve (exponential pieces; treatment jumps included).

    **Good values:** start of treatment to a horizon of 90-180 days.

    **Limits:** dominated by the largest burdens; `MeanLogBurden` weighs all sizes alike.
    """

    start: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    end: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})

    name: ClassVar[str] = "area_under_burden"
    gain_unit: ClassVar[str] = "burden day"

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        duration, left, right = curve.segments(self.start, self.end)
        gap = right - left
        near = jnp.abs(gap) < NEARLY_LEVEL
        safe = jnp.where(near, 1.0, gap)
        mean = jnp.where(near, 1.0 + gap / 2.0 + gap**2 / 6.0, jnp.expm1(safe) / safe)
        return jnp.sum(duration * jnp.exp(left) * mean)


class BurdenAtDay(AbstractObjective):
    """N(day): the burden itself at a day, in its own unit (`LogBurden` is its logarithm)."""

    day: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})

    name: ClassVar[str] = "burden"
    gain_unit: ClassVar[str] = "burden"

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        return jnp.exp(curve.log_burden(self.day))


class CompleteResponse(AbstractObjective):
    """One where the residual on a day is above the threshold, zero where the response is complete.

    $$ \\sigma\\!\\left(\\frac{\\ln N(day) - \\ln N_{cr}}{s}\\right), \\qquad s = 0: \\; [N(day) > N_{cr}] $$

    Its mean over draws is the probability that the response is not complete. The soft form is for searches with
    gradients; softness 0 is what is reported.

    **Arguments:** `day` [day] of the operation; `threshold` [mm^3]; `softness` s in units of the natural log of the
    burden. The curve must declare its burden in mm^3.

    **Good values:** threshold 10 mm^3 (0.01 cm^3); softness 0.1-0.5 in a search.

    **Raises:** `ValueError` for a burden in another unit or none.
    """

    day: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    threshold: float = eqx.field(static=True, converter=float, default=COMPLETE_RESPONSE_MM3)
    softness: float = eqx.field(static=True, converter=float, default=0.0)

    name: ClassVar[str] = "no_complete_response"
    gain_unit: ClassVar[str] = units.FRACTION

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        if (unit := curve.unit_of("burden")) != units.VOLUME:
            raise ValueError(f"required: a burden in {units.VOLUME}; received: {unit}")
        excess = curve.log_burden(self.day) - jnp.log(self.threshold)
        if self.softness > 0.0:
            return jax.nn.sigmoid(excess / self.softness)
        return jnp.where(excess > 0.0, 1.0, 0.0)


class ResistantFraction(AbstractObjective):
    """R(day) / N(day): the share of the burden that a resistant population makes up, in [0, 1].

    **Arguments:** `day` [day]; `resistant`: the name of the resistant state among the quantities of the curve, in the
    unit of the burden.

    **Raises:** `ValueError` where units are declared and differ.
    """

    day: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    resistant: str = eqx.field(static=True, default="resistant")

    name: ClassVar[str] = "resistant_fraction"
    gain_unit: ClassVar[str] = units.FRACTION

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        declared = {unit for name, unit in curve.units if name in ("burden", self.resistant)}
        if len(declared) > 1:
            raise ValueError(
                f"required: {self.resistant!r} in the unit of the burden; received: {' and '.join(sorted(declared))}"
            )
        return curve.value(self.resistant, self.day) / curve.value("burden", self.day)
