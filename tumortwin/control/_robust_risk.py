"""Risks by an auxiliary variable, and the worst draw."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin._types import ScalarLike
from tumortwin.control._risk import AbstractRisk, check_level, normalized_weights

BISECTIONS = 80
FAR = 50.0
"""Softness units beyond the extreme losses within which the optimal threshold lies for levels up to 1 - e^-50."""


class WorstCase(AbstractRisk):
    """The largest loss over the draws that carry weight. Its gradient is that of a single draw.

    **Limits:** grows with the number of draws and has no limit for an unbounded loss (mathematical).
    """

    name: ClassVar[str] = "worst_case"

    def __call__(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> Float[Array, ""]:
        if weights is None:
            return jnp.max(values)
        return jnp.max(jnp.where(weights > 0.0, values, -jnp.inf))

    def describe(self) -> dict[str, float | str]:
        return {"measure": self.name}


class RockafellarUryasev(AbstractRisk):
    """CVaR as a minimum over a threshold t, which a controller may choose together with the plan.

    $$ CVaR_a(Z) = \\min_t F(t), \\qquad F(t) = t + \\frac{E[(Z - t)_+]}{1 - a} $$

    `at(t, values)` is F: jointly convex in (t, plan) where the loss is convex in the plan, with a gradient in every
    draw that exceeds t. Called as a risk it minimises over t, and then equals the sorted estimator `CVaR`. With a
    `softness` s > 0 the positive part is s softplus((z - t)/s): smooth in the plan, above the exact value by at most
    s ln 2 / (1 - a).

    **Arguments:** `level` a in [0, 1); `softness` in the unit of the loss.

    **Good values:** softness 0.01-0.1 of the spread of the loss.

    **Reference:** Rockafellar and Uryasev, "Optimization of conditional value-at-risk", J Risk 2 (2000).
    """

    level: float = eqx.field(static=True, converter=float, default=0.8)
    softness: float = eqx.field(static=True, converter=float, default=0.0)

    name: ClassVar[str] = "rockafellar_uryasev"

    def __check_init__(self) -> None:
        check_level(self.level)
        if self.softness < 0.0:
            raise ValueError(f"required: a softness of 0 or more; received: {self.softness}")

    def at(
        self, threshold: ScalarLike, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None
    ) -> Float[Array, ""]:
        """F(t): what is minimised over the threshold t."""
        probability = normalized_weights(values, weights)
        over = values - threshold
        positive = jnp.maximum(over, 0.0) if self.softness == 0.0 else self._soft(over)
        return threshold + jnp.sum(probability * positive) / (1.0 - self.level)

    def threshold(
        self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None
    ) -> Float[Array, ""]:
        """The t that minimises F: the quantile at `level`, or its smooth counterpart (by bisection on F')."""
        probability = normalized_weights(values, weights)
        if self.softness == 0.0:
            order = jnp.argsort(values)
            cumulative = jnp.cumsum(probability[order])
            rounding = 1e-12
            return values[order[jnp.argmax(cumulative >= self.level - rounding)]]

        def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            above = jnp.sum(probability * jax.nn.sigmoid((values - middle) / self.softness)) > 1.0 - self.level
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        reach = FAR * self.softness
        ends = (jnp.min(values) - reach, jnp.max(values) + reach)
        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, ends)
        return 0.5 * (low + high)

    def __call__(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> Float[Array, ""]:
        # dF/dt = 0 at the minimum: the threshold needs no gradient of its own
        best = jax.lax.stop_gradient(self.threshold(jax.lax.stop_gradient(values), weights))
        return self.at(best, values, weights)

    def describe(self) -> dict[str, float | str]:
        return {"measure": self.name, "level": self.level, "softness": self.softness}

    def _soft(self, over: Array) -> Array:
        return self.softness * jax.nn.softplus(over / self.softness)
