"""The coordinate of a truncated normal prior in which a bound is no cliff."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array
from numpyro.distributions import Distribution, ExpandedDistribution, Normal
from numpyro.distributions.truncated import TwoSidedTruncatedDistribution

_LOG_SQRT_TWO_PI = 0.9189385332046727


class Quantile(eqx.Module):
    """A standard normal `t` and the value x of a truncated normal prior at the same quantile.

    $$ F(x) = \\Phi(t), \\qquad
       F(x) = \\frac{\\Phi(\\xi) - \\Phi(a)}{\\Phi(b) - \\Phi(a)}, \\qquad \\xi = \\frac{x - m}{s} $$

    A posterior that leans on a bound has the tail of a normal distribution there; in a logit coordinate it has an
    exponential one.

    **Arguments:** `location` m, `scale` s, in the unit of x; `low` a, `high` b: the ends in units of s, from m.

    **Limits:** beyond |t| = 8 (64 bits; 5 with 32) x is the bound itself, to rounding. A truncated log-normal keeps the
    logit of its support (for convenience: the imaging experiments were run with it).
    """

    location: Array
    scale: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, entry: Distribution) -> "Quantile | None":
        """That of a normal distribution truncated at both ends, as it is or expanded; `None` for any other."""
        single = entry.base_dist if isinstance(entry, ExpandedDistribution) else entry
        if not isinstance(single, TwoSidedTruncatedDistribution) or not isinstance(single.base_dist, Normal):
            return None
        fields = single.base_dist.loc, single.base_dist.scale, single.low, single.high
        location, scale, low, high = (jnp.broadcast_to(jnp.asarray(a), entry.batch_shape) for a in fields)
        return cls(location, scale, (low - location) / scale, (high - location) / scale)

    def value(self, t: Array) -> Array:
        """x at `t`."""
        return self.location + self.scale * _deviate(t, self.low, self.high)

    def coordinate(self, value: Array) -> Array:
        """`t` at x; infinite at a bound."""
        xi, whole = (value - self.location) / self.scale, _mass(self.low, self.high)
        below, above = _mass(self.low, xi) / whole, _mass(xi, self.high) / whole
        return jnp.where(below < above, ndtri(jnp.minimum(below, 0.5)), -ndtri(jnp.minimum(above, 0.5)))

    def potential(self, t: Array) -> Array:
        """Minus the log density of `t`: that of a standard normal."""
        return 0.5 * t**2 + _LOG_SQRT_TWO_PI


def _mass(low: Array, high: Array) -> Array:
    """Phi(high) - Phi(low), from the side on which neither is near 1."""
    turned = low + high > 0
    least, most = jnp.where(turned, -high, low), jnp.where(turned, -low, high)
    return ndtr(most) - ndtr(least)


@jax.custom_jvp
def _deviate(t: Array, low: Array, high: Array) -> Array:
    """xi with Phi(xi) = Phi(low) + Phi(t) (Phi(high) - Phi(low)), from the side on which the sum is at most a half."""
    whole = _mass(low, high)
    below, above = ndtr(low) + ndtr(t) * whole, ndtr(-high) + ndtr(-t) * whole
    found = jnp.where(below < above, ndtri(jnp.minimum(below, 0.5)), -ndtri(jnp.minimum(above, 0.5)))
    return jnp.clip(found, low, high)


@_deviate.defjvp
def _deviate_jvp(primals: tuple[Array, Array, Array], tangents: tuple[Any, Any, Any]) -> tuple[Array, Array]:
    """phi(xi) dxi = phi(t) M dt + Phi(-t) phi(a) da + Phi(t) phi(b) db, with M the mass between the ends."""
    (t, low, high), (dt, dlow, dhigh) = primals, tangents
    xi = _deviate(t, low, high)

    def over(x: Array) -> Array:
        """phi(x) / phi(xi)."""
        return jnp.exp(0.5 * (xi**2 - x**2))

    return xi, over(t) * _mass(low, high) * dt + ndtr(-t) * over(low) * dlow + ndtr(t) * over(high) * dhigh
