"""Yes/no data with a share: the deviance residual and the logit of the detection limits."""

import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Inexact

Shaped = Inexact[Array, "..."]


def binary_deviance_residual(log_p: Shaped, log_q: Shaped, share: Shaped) -> Shaped:
    """Signed deviance residual of a share `y` in [0,1] under probability `p` (`q = 1 - p`), from their logarithms.

    $$ r = \\mathrm{sgn}(y - p) \\sqrt{2\\,[\\,y \\log(y/p) + (1-y) \\log((1-y)/q)\\,]} $$

    so that `r^2 / 2` is the cross-entropy minus the entropy of the share; for `y` in {0,1} it is `-log p(y)`.
    """
    divergence = -entr(share) - entr(1 - share) - share * log_p - (1 - share) * log_q
    positive = divergence > 0  # rounding may leave -1e-17 where share equals p; the square root needs the guard
    root = jnp.sqrt(2 * jnp.where(positive, divergence, 1))
    return jnp.where(positive, jnp.sign(share - jnp.exp(log_p)) * root, 0)


def floored_logit(density: Shaped, floor: Shaped) -> Shaped:
    """Logit of the density as a scanner could tell it from none and from all.

    $$ \\mathrm{logit}\\, v = \\log v - \\log(1 - v), \\qquad v = f + (1 - 2 f)\\, u $$

    The floor `f` is the share of tumor that no image shows (and, mirrored, the share of normal tissue that no image
    shows inside full tumor). It is an affine map, not a clip: its derivative never vanishes. `1 - v` is formed from
    `1 - u`, so that nothing is lost in single precision when `u` is near one.
    """
    span = 1 - 2 * floor
    return jnp.log(floor + span * density) - jnp.log(floor + span * (1 - density))
