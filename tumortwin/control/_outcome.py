"""Limits on what a plan leads to: a risk, or a probability, of a second objective over the draws."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from tumortwin.control._objective import AbstractObjective
from tumortwin.control._region import TOLERANCE
from tumortwin.control._risk import AbstractRisk, CVaR, normalized_weights


class AbstractOutcomeLimit(eqx.Module):
    """A limit on the distribution of an `objective` over draws; `residual <= 0` where it is kept."""

    objective: eqx.AbstractVar[AbstractObjective]
    name: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def residual(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> Float[Array, ""]:
        """How far the limit is exceeded for the objective's `values`, in the unit of the objective."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain numbers: the limit and what defines it."""

    @abc.abstractmethod
    def checked(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> dict[str, Any]:
        """What is reported of the plan that was found: whether the limit that was meant is kept, without surrogate."""


def _number(value: ArrayLike) -> Array:
    """An array: a limit of another size runs the same program."""
    return jnp.asarray(value, float)


class RiskLimit(AbstractOutcomeLimit):
    """risk(objective) <= `limit`, in the unit of the objective.

    **Good values:** `Nadir("white_cells", ...)` with CVaR 0.8 and a limit of -1 (1e9 cells/L).
    """

    objective: AbstractObjective
    risk: AbstractRisk
    limit: Float[Array, ""] = eqx.field(converter=_number)

    name: ClassVar[str] = "risk_limit"

    def residual(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> Float[Array, ""]:
        return self.risk(values, weights) - self.limit

    def describe(self) -> dict[str, Any]:
        return {"objective": self.objective.name, **self.risk.describe(), "limit": float(self.limit)}

    def checked(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> dict[str, Any]:
        found = float(self.risk(values, weights))
        return {"value": found, "kept": found <= float(self.limit) + TOLERANCE}


class ChanceLimit(AbstractOutcomeLimit):
    """P(objective <= limit) >= `probability`, by its convex surrogate.

    $$ CVaR_{probability}(Z - limit) \\le 0 \\;\\Rightarrow\\; P(Z \\le limit) \\ge probability $$

    The surrogate is what a search keeps (it has a gradient, and it is convex where Z is); it is conservative. The exact
    probability on the draws is reported afterwards (`checked`). With `exact=True` the search itself looks at the
    probability, through the quantile: for controllers that need no gradient.

    **Good values:** probability 0.8-0.95; draws >= 10 / (1 - probability).

    **Raises:** `ValueError` for a probability outside [0, 1).

    **Reference:** Nemirovski and Shapiro, "Convex approximations of chance constrained programs", SIAM J Optim 17
    (2006).
    """

    objective: AbstractObjective
    limit: Float[Array, ""] = eqx.field(converter=_number)
    probability: float = eqx.field(static=True, converter=float, default=0.9)
    exact: bool = eqx.field(static=True, default=False)

    name: ClassVar[str] = "chance_limit"

    def __check_init__(self) -> None:
        if not 0.0 <= self.probability < 1.0:
            raise ValueError(f"required: a probability in [0, 1); received: {self.probability}")

    def residual(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> Float[Array, ""]:
        if not self.exact:
            return CVaR(self.probability)(values, weights) - self.limit
        order = jnp.argsort(values)
        cumulative = jnp.cumsum(normalized_weights(values, weights)[order])
        rounding = 1e-9
        return values[order[jnp.argmax(cumulative >= self.probability - rounding)]] - self.limit

    def describe(self) -> dict[str, Any]:
        return {"objective": self.objective.name, "limit": float(self.limit), "probability": self.probability}

    def checked(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> dict[str, Any]:
        found = probability_within(values, float(self.limit), weights)
        return {"value": found, "kept": found >= self.probability - TOLERANCE}


def probability_within(
    values: Float[Array, " draw"], limit: float, weights: Float[Array, " draw"] | None = None
) -> float:
    """The exact probability of values <= limit under the draws: the sum of their weights."""
    return float(jnp.sum(jnp.where(values <= limit, normalized_weights(values, weights), 0.0)))
