"""Time to progression of logistic growth in closed form."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin._types import ScalarLike
from tumortwin.control._objective import AbstractObjective, Curve


def logistic_time_to_progression(
    last_day: ScalarLike,
    last_burden: ScalarLike,
    reference_burden: ScalarLike,
    growth_rate: ScalarLike,
    carrying_capacity: ScalarLike,
) -> Float[Array, ""]:
    """The day [day] on which logistic regrowth from `last_burden` on `last_day` reaches `reference_burden`.

    $$ t = t_{last} + \\frac{logit(N_{ref}/K) - logit(N_{last}/K)}{\\rho} $$

    With a last burden above the reference the same formula gives the day on which it *would have* stood there, earlier
    than `last_day`: an extrapolation that keeps a gradient and ranks failures. Burdens in one unit, below the carrying
    capacity; `growth_rate` [1/day].

    **Good values:** 30 x 2 Gy, alpha .05 1/Gy, alpha/beta 10 Gy, rho .05 1/day, N_ref/K .2: 79.2051 days.
    """

    def logit(burden: ScalarLike) -> Array:
        share = jnp.asarray(burden) / carrying_capacity
        return jnp.log(share) - jnp.log1p(-share)

    return last_day + (logit(reference_burden) - logit(last_burden)) / growth_rate


class LogisticTimeToProgression(AbstractObjective):
    """Minus the closed-form day of return to the burden of a reference day, counted from that day, up to a horizon.

    $$ -\\min\\left(t_{last} - t_{ref} + \\frac{logit(N(t_{ref})/K) - logit(N(t_{last}+)/K)}{\\rho},
       \\; T - t_{ref}\\right) $$

    N(t_ref) is the burden before that day's dose and t_last the first day after which the curve only regrows (the last
    fraction: the curve has it twice, before and after). The curve must carry `growth_rate` [1/day] and
    `carrying_capacity` (unit of the burden) as parameters.

    **Arguments:** `reference_day` and `horizon` [day]; `last_day` [day] of the last dose when it does not move, else
    the last decided dose is taken.

    **Limits:** right for logistic growth with constant parameters after the last dose, and only there (mathematical);
    `TimeToProgression` needs no law. Nothing is gained beyond the horizon, so there the gradient is zero.

    **Raises:** `ValueError` for a curve without the parameters, or without a last dose.
    """

    reference_day: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    horizon: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    last_day: float | None = eqx.field(static=True, default=None)

    name: ClassVar[str] = "logistic_time_to_progression"
    gain_unit: ClassVar[str] = units.TIME

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        last = self._last(curve)
        found = logistic_time_to_progression(
            last,
            jnp.exp(curve.log_burden(last)),
            jnp.exp(curve.log_burden(self.reference_day, before=True)),
            curve.parameter("growth_rate"),
            curve.parameter("carrying_capacity"),
        )
        return -(jnp.minimum(found, self.horizon) - self.reference_day)

    def _last(self, curve: Curve) -> Array:
        if self.last_day is not None:
            return jnp.asarray(self.last_day)
        if not curve.given:
            raise ValueError(
                "required: the day of the last dose; received: a curve without doses; "
                "try: LogisticTimeToProgression(..., last_day=...)"
            )
        return jnp.max(jnp.concatenate([course.times for course in curve.given.values()]))
