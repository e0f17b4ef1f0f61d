"""Whole numbers: cells in a tube of blood, cells under a microscope, lesions in an organ."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array
from numpyro.distributions import Distribution, NegativeBinomial2, Poisson

from tumortwin.observation._residual import AbstractResidualError, Shaped
from tumortwin.params import parameter

# A positive curve below this is held here: an expected count of 1e-30 is none.
_LEAST = 1e-30
WIDEST = 64
"""The most counts that an interval may hold (an open one: that may lie below it)."""


class PoissonCounts(AbstractResidualError):
    """A count `y` of independent events, `f` of them expected.

    $$ P(y \\mid f) = e^{-f} f^y / y!, \\qquad E\\,y = \\mathrm{Var}\\,y = f $$

    Intervals are sums of these probabilities: `[0, 4]` for "fewer than 5", `[20, inf]` for "20 or more".

    **Limits:** intervals of at most `WIDEST` counts, NaN beyond (for convenience). Counts of circulating cells scatter
    more than this: see `NegativeBinomialCounts`.
    """

    def noise(self, curve: Shaped) -> Distribution:
        return Poisson(jnp.maximum(curve, _LEAST), validate_args=False)

    def log_likelihood(self, curve: Shaped, lower: Shaped, upper: Shaped) -> Shaped:
        curve, lower, upper = jnp.broadcast_arrays(curve, lower, upper)
        rate = jnp.maximum(curve, _LEAST)[..., None]
        return _log_between(lambda y: y * jnp.log(rate) - rate - gammaln(y + 1.0), lower, upper)


class NegativeBinomialCounts(AbstractResidualError):
    """A count that scatters more than a Poisson one: its rate varies from sample to sample by a gamma distribution.

    $$ E\\,y = f, \\qquad \\mathrm{Var}\\,y = f + \\phi f^2 $$

    Over-dispersion 0 is the Poisson limit. Intervals as in `PoissonCounts`.

    **Arguments:** `overdispersion` phi > 0 [1].

    **Good values:** circulating tumor cells in 7.5 mL of blood, phi 4.89 (Wilbaux et al. 2015, as transcribed in this
    project's notes: which of the two usual parametrisations is meant was not checked).

    **Limits:** as `PoissonCounts`.

    **Reference:** Wilbaux et al., CPT Pharmacometrics Syst. Pharmacol. 4 (2015) e17, doi:10.1002/psp4.3.
    """

    overdispersion: Array = parameter(unit="1")

    def noise(self, curve: Shaped) -> Distribution:
        return NegativeBinomial2(jnp.maximum(curve, _LEAST), 1.0 / self.overdispersion, validate_args=False)

    def log_likelihood(self, curve: Shaped, lower: Shaped, upper: Shaped) -> Shaped:
        # Written out: the beta function behind NumPyro's has an error of 1e-6.
        curve, lower, upper, spread = jnp.broadcast_arrays(curve, lower, upper, self.overdispersion)
        mean, size = jnp.maximum(curve, _LEAST)[..., None], 1.0 / spread[..., None]

        def log_mass(y: Array) -> Array:
            ways = gammaln(y + size) - gammaln(size) - gammaln(y + 1.0)
            return ways - size * jnp.log1p(mean / size) + y * (jnp.log(mean) - jnp.log(size + mean))

        return _log_between(log_mass, lower, upper)


def _log_between(log_mass: Callable[[Array], Array], lower: Shaped, upper: Shaped) -> Shaped:
    """`log P(lower <= y <= upper)` from the log probability of each count [..., count]; `upper` may be infinite.

    A sum over the counts inside, or one minus the sum over those below an open interval. NaN where these are more than
    `WIDEST`, -inf where there are none (a fraction between two whole numbers).
    """
    is_open = jnp.isinf(upper)
    first = jnp.maximum(jnp.ceil(lower), 0.0)
    start = jnp.where(is_open, 0.0, first)
    stop = jnp.where(is_open, first - 1.0, jnp.floor(upper))
    each = start[..., None] + jax.lax.broadcasted_iota(start.dtype, (*start.shape, WIDEST), start.ndim)
    inside, some = each <= stop[..., None], stop >= start
    terms = log_mass(jnp.where(inside, each, 0.0))
    # Where there is no count at all the sum is of something finite, and not used: gradients stay finite.
    total = jax.scipy.special.logsumexp(jnp.where(inside | ~some[..., None], terms, -jnp.inf), axis=-1)
    above = jnp.log(-jnp.expm1(jnp.where(some & is_open, jnp.minimum(total, -1e-15), -1.0)))
    found = jnp.where(is_open, jnp.where(some, above, 0.0), jnp.where(some, total, -jnp.inf))
    return jnp.where(stop - start >= WIDEST, jnp.nan, found)
