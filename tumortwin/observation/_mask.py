"""Segmentations as a probit of the tumor's logit."""

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, logit
from jaxtyping import Array, Float, Inexact, Int
from numpyro.distributions import BernoulliLogits, Distribution

from tumortwin.geometry import level_of_edge, steepness
from tumortwin.observation._base import AbstractObservation
from tumortwin.observation._binary import binary_deviance_residual, floored_logit
from tumortwin.params import parameter

Shaped = Inexact[Array, "..."]
LOG_SQRT_TWO_PI = 0.9189385332046727


class MaskObservation(AbstractObservation):
    """A mask drawn by a person or a network: tumor is outlined where its density exceeds a threshold, not sharply.

    $$ P(\\mathrm{mask} = 1 \\mid u) = \\Phi(\\eta), \\qquad
       \\eta = \\frac{\\mathrm{logit}\\, u - \\mathrm{logit}\\, \\theta + \\delta_v}{w} $$

    The width `w` is fitted: it is the noise model. In the tail of a traveling front `logit u` falls linearly with the
    distance, so `w` is the rater's error in millimeters divided by the infiltration length. Data may be shares in
    [0,1]: of the fine voxels of a coarse voxel, the share inside the mask (cross-entropy likelihood).

    The shift `delta_v` is common to all voxels of a visit: raters, scanners and contrast drift between visits, and a
    model's density is off as a whole sooner than voxel by voxel. Left out, a thousand voxels of an empty outline would
    pin the density of that day down.

    A voxel that is coarse against the edge holds a share of the mask, not a yes or no: with `within_voxel` the
    probit is averaged over the voxel, in which `eta` is taken to be linear with the smaller of its two differences
    along each axis,

    $$ \\int \\Phi(\\eta + t \\cdot \\nabla \\eta)\\,dt \\approx
       \\Phi\\Big(\\eta \\Big/ \\sqrt{1 + \\tfrac{1}{12} |\\nabla \\eta|^2}\\Big) $$

    (`eta` per voxel; the variance of a uniform `t` is 1/12). The density is the mean of a voxel, too, not the value of
    its middle: `logit u` is that of the middle of an edge with this mean (`level_of_edge`). Without both, a sharp edge
    on coarse voxels looks blurred and lies too far out, which moves the threshold of every other visit.

    **Arguments:**

    - `threshold`: density `theta` at which half of the raters outline [1].
    - `width`: width `w` on the logit scale [1].
    - `shift`: `delta_v` on the logit scale [1]: a number, or one for each visit of the channel with data.
    - `within_voxel`: whether to average over voxels; the density is then a field whose axes are all in space.
    - `floor`: detection floor [1]; `u` enters as `floor + (1 - 2 floor) u`, so that an empty voxel has a finite logit.

    **Good values:** threshold .6-.8 for T1 with gadolinium, .05-.6 for FLAIR (Lipkova et al. 2019 used [.6,.8] and
    [.05,.6] as priors; Swanson's group .8 and .16); width .2-2; shift 0 with sd .3;
    floor 1e-4.

    **Limits:** (convenience) voxels are independent given `u`; the power likelihood of `inference` repairs that.

    Reference: Lipkova et al. (2019), IEEE Trans. Med. Imaging 38:1875 (the idea of a soft threshold; another form).
    """

    threshold: Float[Array, ""] = parameter(unit="1")
    width: Float[Array, ""] = parameter(unit="1")
    floor: Float[Array, ""] = parameter(unit="1", default=1e-4)
    shift: Float[Array, "*visit"] = parameter(unit="1", default=0.0)
    within_voxel: bool = eqx.field(static=True, default=False)

    def at_visit(self, visit: Int[Array, ""] | int | None) -> "MaskObservation":
        """With the visit's own shift; with none for a visit without data."""
        if visit is None:
            return eqx.tree_at(lambda o: o.shift, self, jnp.zeros((), self.shift.dtype))
        return self if self.shift.ndim == 0 else eqx.tree_at(lambda o: o.shift, self, self.shift[visit])

    def predict(self, density: Shaped) -> Shaped:
        """The probit argument `eta`, in the precision of the density; `shift` must be a scalar (`at_visit`)."""
        level = self.level(density)
        return level * self.averaging(level)

    def averaging(self, level: Shaped) -> Shaped:
        """What `eta` of a voxel's share is of `eta` at its middle; the same for any shift."""
        return 1 / jnp.sqrt(1 + steepness(level) ** 2 / 12) if self.within_voxel else jnp.ones_like(level)

    def level(self, density: Shaped) -> Shaped:
        """`eta` at the middle of every voxel."""
        edge = (logit(self.threshold) - self.shift).astype(density.dtype)
        floor = self.floor.astype(density.dtype)
        inside = floored_logit(density, floor)
        if self.within_voxel:
            span = 1 - 2 * floor
            inside = level_of_edge(floor + span * density, floor + span * (1 - density), steepness(inside))
        return (inside - edge) / self.width.astype(density.dtype)

    def noise(self, prediction: Shaped) -> Distribution:
        # Shares in (0, 1) have a cross-entropy, which the check for {0, 1} would refuse.
        return BernoulliLogits(logits=log_ndtr(prediction) - log_ndtr(-prediction), validate_args=False)

    def residual(self, prediction: Shaped, values: Shaped) -> Shaped:
        return binary_deviance_residual(log_ndtr(prediction), log_ndtr(-prediction), values)

    def information(self, prediction: Shaped) -> Shaped:
        """`phi(eta)^2 / (Phi(eta) Phi(-eta))`, in logarithms: exact to `eta` = +-37 and beyond."""
        log_density = -0.5 * prediction**2 - LOG_SQRT_TWO_PI
        return jnp.exp(2 * log_density - log_ndtr(prediction) - log_ndtr(-prediction))

    def log_scale(self, prediction: Shaped) -> Shaped:
        return jnp.zeros((), prediction.dtype)
