"""What a plan is judged by, for one draw: a burden curve becomes one number, lower is better."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin._types import ScalarLike
from tumortwin.treatments import Course


def _pairs(units_by_name: Mapping[str, str] | tuple) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(dict(units_by_name).items()))


class Curve(eqx.Module):
    """Tumor burden over time for one draw and one plan: `days` [day] in order, `burden` > 0 in any one unit.

    A day that stands twice is a jump: the burden before and after that day's dose. The days may be traced and move with
    the doses; a curve sampled on fixed days that fall between doses has no correct gradient with respect to the start
    day in objectives that integrate over treatment (`MeanLogBurden`, `TimeToProgression`), and a correct one in
    `LogBurden` after the last dose.

    What else a burden function may hand over: `quantities`, further states on the same days by name (white cells, body
    weight, resistant cells); `parameters`, constants of the draw by name (growth_rate, carrying_capacity);
    `given`, the decided doses by agent (a planning problem adds them); `units` by name, `burden` among them: an
    objective that needs a unit asks for it.
    """

    days: Float[Array, " time"] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    burden: Float[Array, " time"] = eqx.field(converter=jnp.asarray)
    quantities: dict[str, Float[Array, " time"]] = eqx.field(default_factory=dict)
    parameters: dict[str, Float[Array, ""]] = eqx.field(default_factory=dict)
    given: dict[str, Course] = eqx.field(default_factory=dict)
    units: tuple[tuple[str, str], ...] = eqx.field(static=True, default=(), converter=_pairs)

    def __check_init__(self) -> None:
        # A batch of curves carries leading axes; one curve has at least two days.
        if self.days.shape != self.burden.shape or self.days.shape[-1:] < (2,):
            raise ValueError(
                f"required: one burden a day and two days or more; received: {self.days.shape} days and "
                f"{self.burden.shape} burdens"
            )

    def unit_of(self, name: str) -> str:
        """The unit of `burden`, of a quantity or of a parameter.

        **Raises:** `ValueError` where none was declared.
        """
        declared = dict(self.units)
        if name not in declared:
            raise ValueError(
                f"required: the unit of {name!r}; received: units of {sorted(declared) or 'nothing'}; "
                f"try: Curve(..., units={{{name!r}: ...}}) in the burden function"
            )
        return declared[name]

    def quantity(self, name: str) -> Float[Array, " time"]:
        """The values of a named state on the days of the curve; `burden` is one.

        **Raises:** `ValueError` for a name that the burden function does not hand over.
        """
        known = {"burden": self.burden, **self.quantities}
        if name not in known:
            raise ValueError(f"required: a quantity of the curve ({', '.join(known)}); received: {name!r}")
        return known[name]

    def parameter(self, name: str) -> Float[Array, ""]:
        """A constant of the draw.

        **Raises:** `ValueError` for a name that the burden function does not hand over.
        """
        if name not in self.parameters:
            raise ValueError(
                f"required: a parameter of the curve ({', '.join(self.parameters) or 'it has none'}); "
                f"received: {name!r}; try: Curve(..., parameters={{{name!r}: ...}}) in the burden function"
            )
        return self.parameters[name]

    def value(self, name: str, day: ScalarLike) -> Float[Array, ""]:
        """A named state at `day`, linear between the days given and constant outside them; after a jump."""
        index, share = self._place(day, before=False)
        values = self.quantity(name)
        return values[index] + share * (values[index + 1] - values[index])

    def with_given(self, given: dict[str, Course]) -> "Curve":
        """The same curve, with the doses that led to it."""
        return dataclasses.replace(self, given=given)

    def _place(self, day: ScalarLike, *, before: bool) -> tuple[Array, Array]:
        """Index of the piece that `day` falls into and the share of the piece that lies before it."""
        # jnp.interp is not used: on a repeated day it takes neither limit reliably.
        days = self.days
        at = jnp.clip(jnp.asarray(day, days.dtype), days[0], days[-1])
        index = jnp.searchsorted(days, at, side="left" if before else "right") - 1
        index = jnp.clip(index, 0, days.size - 2)
        span = days[index + 1] - days[index]
        share = (at - days[index]) / jnp.where(span > 0.0, span, 1.0)
        return index, jnp.where(span > 0.0, share, 0.0 if before else 1.0)  # a jump on the last day: after it

    def log_burden(self, day: ScalarLike, *, before: bool = False) -> Float[Array, ""]:
        """Natural logarithm of the burden at `day`, linear between the days given and constant outside them.

        On a day with a jump the value after it, or the value `before` it.
        """
        index, share = self._place(day, before=before)
        values = jnp.log(self.burden)
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
    """Minus the time [day] that the burden spends below a reference, up to a horizon.

    $$ -\\int_{t_0}^{T} \\sigma\\!\\left(\\frac{\\ln (f N_{ref}) - \\ln N(t)}{s}\\right) dt, \\qquad N_{ref} = N(t_0) $$

    integrated exactly for a log burden that is linear between the days of the curve. With softness s -> 0 and one
    excursion below the reference this is the time to progression; the soft form has a gradient also where the burden
    touches the reference. Beyond the horizon nothing is gained.

    **Arguments:** `reference_day` t_0 [day], the start of treatment or an earlier scan (the burden before that day's
    dose); `horizon` T [day]; `softness` s in units of the natural log of the burden; `factor` f [1] above the reference
    that counts as progression; `reference`: the name of a parameter of the curve (`first_burden`) that is N_ref in
    place of N(t_0).

    **Good values:** softness 0.02-0.1; factor 1.2 (RECIST 1.1: a fifth above the smallest sum of diameters); curve days
    every 2-7 days (the crossing is interpolated).

    **Limits:** a burden that rises above the reference and falls again counts with all its time below (mathematical).
    """

    reference_day: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    horizon: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    softness: float = eqx.field(static=True, converter=float, default=0.02)
    factor: float = eqx.field(static=True, converter=float, default=1.0)
    reference: str | None = eqx.field(static=True, default=None)

    name: ClassVar[str] = "time_to_progression"
    gain_unit: ClassVar[str] = units.TIME

    def __check_init__(self) -> None:
        if self.softness <= 0.0 or self.factor <= 0.0:
            raise ValueError(f"required: a softness and a factor above 0; received: {self.softness} and {self.factor}")

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        if self.reference is None:
            reference = curve.log_burden(self.reference_day, before=True)
        else:
            reference = jnp.log(curve.parameter(self.reference))
        duration, left, right = curve.segments(self.reference_day, self.horizon)
        top = reference + math.log(self.factor)
        below = _mean_sigmoid((top - left) / self.softness, (top - right) / self.softness)
        return -jnp.sum(duration * below)


def _mean_sigmoid(a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Mean of the logistic function over [a, b]: (softplus(b) - softplus(a)) / (b - a)."""
    gap = b - a
    near = jnp.abs(gap) < 1e-4  # below this the difference quotient loses digits; the midpoint is exact to 1e-9
    safe = jnp.where(near, 1.0, gap)
    return jnp.where(near, jax.nn.sigmoid(0.5 * (a + b)), (jax.nn.softplus(b) - jax.nn.softplus(a)) / safe)
