"""How a measurement scatters about a model's curve, exact or known to an interval only."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Inexact
from numpyro.distributions import Distribution, LogNormal, Normal

from tumortwin.params import parameter

Shaped = Inexact[Array, "..."]
# A positive curve below this is held here in the logarithm: 1e-30 of any unit is nothing.
_LEAST = 1e-30


class AbstractResidualError(eqx.Module):
    """The distribution of a measurement `y` about the model's curve `f`, elementwise; parameters broadcast."""

    @abc.abstractmethod
    def noise(self, curve: Shaped) -> Distribution:
        """The distribution of a measurement given the curve."""

    @abc.abstractmethod
    def log_likelihood(self, curve: Shaped, lower: Shaped, upper: Shaped) -> Shaped:
        """Log probability of the interval [lower, upper], or the log density (of a count: the log probability) where
        they are equal."""


class AbstractNormalError(AbstractResidualError):
    """An error that is normal on some scale: of the measurement itself, or of its logarithm."""

    @abc.abstractmethod
    def standardized(self, curve: Shaped, values: Shaped) -> Shaped:
        """`(y - f) / sd` on the scale where the error is normal."""

    def log_likelihood(self, curve: Shaped, lower: Shaped, upper: Shaped) -> Shaped:
        """Log probability of the interval [lower, upper], or the log density where they are equal.

        $$ \\log p = \\begin{cases} \\log \\phi(y \\mid f) & l = u = y \\\\
           \\log\\left(\\Phi(u \\mid f) - \\Phi(l \\mid f)\\right) & l < u \\end{cases} $$

        A value rounded to a millimeter is [y - .5, y + .5]; one below the limit of quantification q is [0, q] or
        [-inf, q]; "grew beyond what can be measured" is [y, inf].
        """
        exact = lower == upper
        density = self.noise(curve).log_prob(jnp.where(exact, lower, jnp.maximum(curve, _LEAST)))

        def with_intervals() -> Shaped:
            low, high = (
                self._bound(curve, jnp.where(exact, -jnp.inf, lower)),
                self._bound(curve, jnp.where(exact, jnp.inf, upper)),
            )
            return jnp.where(exact, density, log_ndtr_between(low, high))

        # Tails of the normal distribution cost several times the density: a table without intervals does not pay.
        return jax.lax.cond(jnp.all(exact), lambda: density, with_intervals)

    def _bound(self, curve: Shaped, values: Shaped) -> Shaped:
        """`standardized`, infinities as they are and without a gradient."""
        finite = jnp.isfinite(values)
        return jnp.where(finite, self.standardized(curve, jnp.where(finite, values, 1.0)), values)


def log_ndtr_between(low: Shaped, high: Shaped) -> Shaped:
    """`log(Phi(high) - Phi(low))` for `low < high`, infinities allowed, without cancellation in either tail.

    $$ \\log\\Phi(b) + \\log\\left(1 - e^{\\log\\Phi(a) - \\log\\Phi(b)}\\right), \\qquad
       (a, b) \\to (-b, -a) \\text{ if } a > 0 $$
    """
    flip = low > 0
    a, b = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    bounded, open_above = a > -jnp.inf, b == jnp.inf
    top = jnp.where(open_above, 0.0, log_ndtr(jnp.where(open_above, 0.0, b)))
    gap = jnp.where(bounded, log_ndtr(jnp.where(bounded, a, 0.0)) - top, -1.0)
    return top + jnp.where(bounded, jnp.log(-jnp.expm1(jnp.minimum(gap, -1e-15))), 0.0)


class AdditiveError(AbstractNormalError):
    """`y = f + sd e`, e standard normal.

    **Arguments:** `sd` in the unit of the curve.
    """

    sd: Array = parameter(unit="measured")

    def noise(self, curve: Shaped) -> Distribution:
        return Normal(curve, self.sd, validate_args=False)

    def standardized(self, curve: Shaped, values: Shaped) -> Shaped:
        return (values - curve) / self.sd


class ProportionalError(AbstractNormalError):
    """`y = f (1 + cv e)`: every measurement off by the same share.

    **Arguments:** `cv` [1]. **Limits:** a curve at zero cannot be measured (mathematical).
    """

    cv: Array = parameter(unit="1")

    def noise(self, curve: Shaped) -> Distribution:
        return Normal(curve, self.cv * jnp.abs(curve), validate_args=False)

    def standardized(self, curve: Shaped, values: Shaped) -> Shaped:
        return (values - curve) / (self.cv * jnp.abs(curve))


class CombinedError(AbstractNormalError):
    """`Var(y) = sd^2 + (cv f)^2`: a floor that dominates for small tumors and a share that dominates for large ones.

    **Arguments:** `sd` in the unit of the curve; `cv` [1].

    **Good values:** calipers on mice: sd 20-40 mm^3, cv .05-.2.

    Reference: Beal & Sheiner, NONMEM users guide; Vaghi et al., PLOS Comput. Biol. 16 (2020) e1007178 (tumor volumes).
    """

    sd: Array = parameter(unit="measured")
    cv: Array = parameter(unit="1")

    def scale(self, curve: Shaped) -> Shaped:
        """Standard deviation of a measurement."""
        return jnp.sqrt(self.sd**2 + (self.cv * curve) ** 2)

    def noise(self, curve: Shaped) -> Distribution:
        return Normal(curve, self.scale(curve), validate_args=False)

    def standardized(self, curve: Shaped, values: Shaped) -> Shaped:
        return (values - curve) / self.scale(curve)


class LogNormalError(AbstractNormalError):
    """`log y = log f + sd e`.

    **Arguments:** `log_sd` [1]. **Limits:** zeros are impossible as exact values: give them as an interval from zero.
    """

    log_sd: Array = parameter(unit="1")

    def noise(self, curve: Shaped) -> Distribution:
        return LogNormal(jnp.log(jnp.maximum(curve, _LEAST)), self.log_sd, validate_args=False)

    def standardized(self, curve: Shaped, values: Shaped) -> Shaped:
        positive = values > 0
        found = jnp.log(jnp.where(positive, values, 1.0)) - jnp.log(jnp.maximum(curve, _LEAST))
        return jnp.where(positive, found / self.log_sd, -jnp.inf)
