"""Segmentations in the form of GliomaSolver."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int
from numpyro.distributions import BernoulliLogits, Distribution

from tumortwin.observation._base import AbstractObservation
from tumortwin.observation._binary import binary_deviance_residual
from tumortwin.params import parameter

Shaped = Inexact[Array, "..."]


class GliomaMaskObservation(AbstractObservation):
    """A mask whose probability rises with the squared distance from the threshold density.

    $$ P(\\mathrm{mask} = 1 \\mid u) = \\tfrac12 + \\tfrac12 \\,\\mathrm{sgn}(\\eta)\\,(1 - e^{-\\eta^2}), \\qquad
       \\eta = (u - u_c) / \\sigma $$

    **Arguments:** `threshold` density `u_c` [1]; `width` `sigma` [1].

    **Good values:** `u_c` .6-.8 (T1 with gadolinium), .05-.6 (FLAIR); `sigma` .05-.08.

    **Limits:** (mathematical) the slope is zero at the threshold itself, so a voxel there carries no information.
    (choice) the symmetric form above is used on both sides; the published code cuts the upper side short.

    Reference: Lipkova et al. (2019), IEEE Trans. Med. Imaging 38:1875.
    """

    threshold: Float[Array, ""] = parameter(unit="1")
    width: Float[Array, ""] = parameter(unit="1")

    def at_visit(self, visit: Int[Array, ""] | int | None) -> "GliomaMaskObservation":
        """Itself: nothing varies from visit to visit."""
        del visit
        return self

    def predict(self, density: Shaped) -> Shaped:
        """The scaled distance `eta` from the threshold."""
        return (density - self.threshold.astype(density.dtype)) / self.width.astype(density.dtype)

    def noise(self, prediction: Shaped) -> Distribution:
        log_p, log_q = _log_probabilities(prediction)
        return BernoulliLogits(logits=log_p - log_q, validate_args=False)  # shares in (0, 1) are data too

    def residual(self, prediction: Shaped, values: Shaped) -> Shaped:
        log_p, log_q = _log_probabilities(prediction)
        return binary_deviance_residual(log_p, log_q, values)

    def information(self, prediction: Shaped) -> Shaped:
        """`(eta e^{-eta^2})^2 / (p q)`."""
        tail = jnp.exp(-(prediction**2))
        return 2 * prediction**2 * tail / (1 - tail / 2)

    def log_scale(self, prediction: Shaped) -> Shaped:
        return jnp.zeros((), prediction.dtype)


def _log_probabilities(scaled: Shaped) -> tuple[Shaped, Shaped]:
    """`log p` and `log(1 - p)`, each exact in its own tail."""
    square = scaled**2
    near = jnp.log1p(-jnp.exp(-square) / 2)
    far = -square - jnp.log(jnp.asarray(2.0, scaled.dtype))
    above = scaled > 0
    return jnp.where(above, near, far), jnp.where(above, far, near)
