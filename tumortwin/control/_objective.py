"""What a plan is judged by, for one draw: a burden curve becomes one number, lower is better."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin._types import ScalarLike


class Curve(eqx.Module):
    """Tumor burden over time for one draw and one plan: `days` [day] in order, `burden` > 0 in any one unit.

    A day that stands twice is a jump: the burden before and after that day's dose. The days may be traced and move with
    the doses; a curve sampled on fixed days that fall between doses has no correct gradient with respect to the start
    day in objectives that integrate over treatment (`MeanLogBurden`, `TimeToProgression`), and a correct one in
    `LogBurden` after the last dose.
    """

    days: Float[Array, " time"] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    burden: Float[Array, " time"] = eqx.field(converter=jnp.asarray)

    def __check_init__(self) -> None:
        # A batch of curves carries leading axes; one curve has at least two days.
        if self.days.shape != self.burden.shape or self.days.shape[-1:] < (2,):
            raise ValueError(
                f"required: one burden a day and two days or more; received: {self.days.shape} days and "
                f"{self.burden.shape} burdens"
            )

    def log_burden(self, day: ScalarLike, *, before: bool = False) -> Float[Array, ""]:
        """Natural logarithm of the burden at `day`, linear between the days given and constant outside them.

        On a day with a jump the value after it, or the value `before` it.
        """
        # jnp.interp is not used: on a repeated day it takes neither limit reliably.
        days, values = self.days, jnp.log(self.burden)
        at = jnp.clip(jnp.asarray(day, days.dtype), days[0], days[-1])
        index = jnp.searchsorted(days, at, side="left" if before else "right") - 1
        index = jnp.clip(index, 0, days.size - 2)
        span = days[index + 1] - days[index]
        share = (at - days[index]) / jnp.where(span > 0.0, span, 1.0)
        return values[index] + share * (values[index + 1] - values[index])

    def segments(self, start: ScalarLike, end: ScalarLike) -> tuple[Array, Array, Array]:
        """Pieces of the log burden between two days: durations [day] and the log burden at their two ends."""
        days, values = self.days, jnp.log(self.burden)
        span = days[1:] - days[:-1]
        slope = (values[1:] - values[:-1]) / jnp.where(span > 0.0, span, 1.0)
        left, right = jnp.clip(days[:-1], start, end), jnp.clip(days[1:], start, end)
        return right - left, values[:-1] + slope * (left - days[:-1]), values[:-1] + slope * (right - days[:-1])


class AbstractObjective(eqx.Module):
    """`Curve` of one draw -> scalar, lower is better. `name` and `gain_unit` describe the decrease of the objective."""

    name: eqx.AbstractClassVar[str]
    gain_unit: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def __call__(self, curve: Curve) -> Float[Array, ""]:
        """The objective of one draw."""


class LogBurden(AbstractObjective):
    """ln N(day): natural log of the burden at a fixed horizon day.

    A gain of 0.69 halves the burden on that day. Under exponential growth and a log-kill proportional to dose this does
    not depend on when doses are given (Skipper): an optimizer that gains there is wrong.

    **Good values:** 90-180 days after the first fraction, and after the last one.

    **Limits:** growth that slows as the tumor fills its space makes a late kill worth more on a fixed day, so this
    objective asks for back-loaded doses and for the latest start that is allowed, whatever the burden meanwhile
    (mathematical). With a movable start day use `MeanLogBurden` or `TimeToProgression`, or fix the start.
    """

    day: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})

    name: ClassVar[str] = "log_burden"
    gain_unit: ClassVar[str] = "ln"

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        return curve.log_burden(self.day)


class MeanLogBurden(AbstractObjective):
    """Time average of ln N between two days (area under the log burden divided by the span), trapezoidal."""

    start: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    end: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})

    name: ClassVar[str] = "mean_log_burden"
    gain_unit: ClassVar[str] = "ln"

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        duration, left, right = curve.segments(self.start, self.end)
        return jnp.sum(0.5 * duration * (left + right)) / (self.end - self.start)


class TimeToProgression(AbstractObjective):
    """Minus the time [day] that the burden spends below its value on a reference day, up to a horizon.

    $$ -\\int_{t_0}^{T} \\sigma\\!\\left(\\frac{\\ln N(t_0) - \\ln N(t)}{s}\\right) dt $$

    integrated exactly for a log burden that is linear between the days of the curve. With softness s -> 0 and one
    excursion below the reference this is the time to progression; the soft form has a gradient also where the burden
    touches the reference. Beyond the horizon nothing is gained.

    **Arguments:** `reference_day` t_0 [day], the start of treatment or an earlier scan (the burden before that day's
    dose); `horizon` T [day]; `softness` s in units of the natural log of the burden.

    **Good values:** softness 0.02-0.1; curve days every 2-7 days (the crossing is interpolated).
    """

    reference_day: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    horizon: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    softness: float = eqx.field(static=True, converter=float, default=0.02)

    name: ClassVar[str] = "time_to_progression"
    gain_unit: ClassVar[str] = units.TIME

    def __check_init__(self) -> None:
        if self.softness <= 0.0:
            raise ValueError(f"required: a softness above 0; received: {self.softness}")

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        reference = curve.log_burden(self.reference_day, before=True)
        duration, left, right = curve.segments(self.reference_day, self.horizon)
        below = _mean_sigmoid((reference - left) / self.softness, (reference - right) / self.softness)
        return -jnp.sum(duration * below)


def _mean_sigmoid(a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Mean of the logistic function over [a, b]: (softplus(b) - softplus(a)) / (b - a)."""
    gap = b - a
    near = jnp.abs(gap) < 1e-4  # below this the difference quotient loses digits; the midpoint is exact to 1e-9
    safe = jnp.where(near, 1.0, gap)
    return jnp.where(near, jax.nn.sigmoid(0.5 * (a + b)), (jax.nn.softplus(b) - jax.nn.softplus(a)) / safe)
