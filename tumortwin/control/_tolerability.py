"""Objectives of what the patient bears: doses, white cells, body weight. Lower is better."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.control._objective import AbstractObjective, Curve


class GivenDose(AbstractObjective):
    """Sum of the decided doses of one agent, in the unit of its doses. The same for every draw.

    **Raises:** `ValueError` for an agent that the plan does not decide on.
    """

    agent: str = eqx.field(static=True)

    name: ClassVar[str] = "given_dose"
    gain_unit: ClassVar[str] = units.FRACTION

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        if self.agent not in curve.given:
            raise ValueError(
                f"required: an agent that the plan decides on ({', '.join(curve.given) or 'the curve has none'}); "
                f"received: {self.agent!r}"
            )
        return jnp.sum(curve.given[self.agent].doses)


class DrugUsed(AbstractObjective):
    """Days at the full dose between two days, of a level that holds from each day of the curve to the next.

    $$ \\int_{t_0}^{t_1} u(t) dt, \\qquad u(t) = u_k \\;\\text{for}\\; t_k \\le t < t_{k+1} $$

    What a drug costs, also where a rule decides on it: then it differs from draw to draw.

    **Arguments:** `start` and `end` [day]; `quantity`: the name of the level among the quantities of the curve.

    **Raises:** `ValueError` for a curve that has no such quantity.
    """

    start: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    end: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    quantity: str = eqx.field(static=True, default="exposure")

    name: ClassVar[str] = "drug_used"
    gain_unit: ClassVar[str] = units.TIME

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        days = jnp.clip(curve.days, self.start, self.end)
        return jnp.sum(curve.quantity(self.quantity)[:-1] * jnp.diff(days))


def _within(curve: Curve, name: str, start: Array, end: Array) -> Float[Array, " value"]:
    """The values of a quantity on the days of the curve between two days, and on these two (the extremes of a curve
    that is linear between its days)."""
    values = curve.quantity(name)
    ends = jnp.stack([curve.value(name, start), curve.value(name, end)])
    inside = (curve.days >= start) & (curve.days <= end)
    return jnp.concatenate([jnp.where(inside, values, ends[0]), ends])


def _largest(values: Float[Array, " value"], softness: float) -> Float[Array, ""]:
    """The maximum, or s ln mean exp(values / s): below it by at most s ln n, with a gradient in every value."""
    if softness == 0.0:
        return jnp.max(values)
    return softness * (jax.nn.logsumexp(values / softness) - jnp.log(values.size))


class Nadir(AbstractObjective):
    """Minus the lowest value of a state between two days: white cells, platelets.

    $$ -\\min_{t_0 \\le t \\le t_1} x(t) $$

    As a limit: `RiskLimit(Nadir("white_cells", 0, 90, unit="1e9/L"), CVaR(.8), -1.0)` keeps the mean nadir of the worst
    fifth at 1e9/L or above.

    **Arguments:** `quantity`, a name among the curve's; `start` and `end` [day]; `unit` that the curve must declare for
    it; `softness` in that unit (0: exact; above: smooth in time, for gradients).

    **Good values:** white cells in 1e9/L; grade 4 leukopenia is a nadir below 1e9/L (CTCAE v5).

    **Limits:** the lowest value between the days of the curve is looked for on those days (convenience): give it days.
    """

    quantity: str = eqx.field(static=True)
    start: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    end: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    unit: str = eqx.field(static=True, default="1e9/L")
    softness: float = eqx.field(static=True, converter=float, default=0.0)

    name: ClassVar[str] = "nadir"
    gain_unit: ClassVar[str] = "state"

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        if (unit := curve.unit_of(self.quantity)) != self.unit:
            raise ValueError(f"required: {self.quantity!r} in {self.unit}; received: {unit}")
        return _largest(-_within(curve, self.quantity, self.start, self.end), self.softness)


class RelativeLoss(AbstractObjective):
    """The largest relative loss of a state since a baseline day: body weight.

    $$ \\max_{t_0 \\le t \\le t_1} \\left(1 - \\frac{x(t)}{x(t_0)}\\right) $$

    Never below zero (nothing is lost on the baseline day itself). As a chance limit: `ChanceLimit(RelativeLoss(
    "body_weight", 0, 28), 0.15, probability=.8)` is P(loss > 15 %) <= .2.

    **Arguments:** as `Nadir`; `start` is the baseline.

    **Good values:** 0.15-0.20 (limits of animal studies).
    """

    quantity: str = eqx.field(static=True)
    start: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    end: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.TIME})
    softness: float = eqx.field(static=True, converter=float, default=0.0)

    name: ClassVar[str] = "relative_loss"
    gain_unit: ClassVar[str] = units.FRACTION

    def __call__(self, curve: Curve) -> Float[Array, ""]:
        values = _within(curve, self.quantity, self.start, self.end)
        return _largest(1.0 - values / curve.value(self.quantity, self.start), self.softness)
