"""Where a simulation starts: a given density, a seed, or the contours of the first scan."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.geometry import Tissue
from tumortwin.models._base import AbstractInitialCondition, TumorState
from tumortwin.models._wave import wave_logit, wave_place
from tumortwin.params import parameter


class GivenDensity(AbstractInitialCondition):
    """A density that is simply known: `density` [1] on the tissue's grid."""

    density: Float[Array, "x y z"] = parameter(unit=units.FRACTION)

    def state(self, tissue: Tissue) -> TumorState:
        """The density where there is domain, zero elsewhere."""
        return TumorState(jnp.where(tissue.domain.mask, self.density, jnp.zeros((), self.density.dtype)))


class GaussianSeed(AbstractInitialCondition):
    """A small round tumor.

    $$ u = a\\,e^{-|x - c|^2 / (2 w^2)} $$

    **Arguments:** `center` c, voxel indices of the tissue's grid; `amplitude` a [1]; `width` w [mm].

    **Good values:** a 0.5, w 2 grid spacings (a narrower one is not resolved).
    """

    center: Float[Array, "3"] = parameter(unit="voxel")
    amplitude: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.5)
    width: Float[Array, ""] = parameter(unit=units.LENGTH, default=4.0)

    def state(self, tissue: Tissue) -> TumorState:
        """The seed where there is domain, zero elsewhere."""
        dtype = tissue.fields["white_matter"].dtype
        squares = jnp.zeros((), dtype)
        for axis, (n, spacing) in enumerate(zip(tissue.grid.shape, tissue.grid.spacing, strict=True)):
            offset = (jnp.arange(n, dtype=dtype) - self.center[axis].astype(dtype)) * spacing
            squares = squares + jnp.expand_dims(offset**2, [a for a in range(3) if a != axis])
        density = self.amplitude.astype(dtype) * jnp.exp(-0.5 * squares / self.width.astype(dtype) ** 2)
        return TumorState(jnp.where(tissue.domain.mask, density, jnp.zeros((), dtype)))


class GrownSeed(AbstractInitialCondition):
    """A small round tumor of unknown age: what a single scan can be explained with.

    The seed (`GaussianSeed`) stands `age` days before day 0. One scan identifies D * age, rho * age and the place,
    hence D / rho, not D and rho.

    **Arguments:** `center` voxel indices; `age` [day]; `amplitude` [1]; `width` [mm]; `span` [day] the fixed time over
    which it is grown, with D and rho scaled by age / span; `longest` [day] the greatest age, from its prior's bound.

    **Good values:** width 3 mm at 3 mm spacing; span 200; longest 1000.
    """

    center: Float[Array, "3"] = parameter(unit="voxel")
    age: Float[Array, ""] = parameter(unit=units.TIME, default=300.0)
    amplitude: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.5)
    width: Float[Array, ""] = parameter(unit=units.LENGTH, default=4.0)
    span: float = eqx.field(static=True, default=200.0)
    longest: float = eqx.field(static=True, default=1000.0)

    def state(self, tissue: Tissue) -> TumorState:
        """The seed itself, `age` days before day 0."""
        return GaussianSeed(self.center, self.amplitude, self.width).state(tissue)


class ContourProfile(AbstractInitialCondition):
    """The density implied by the first visit's contours: the front that the model itself would have brought there.

    $$ u = U\\left(x_F + \\frac{\\tau_F}{\\kappa \\sqrt{D/\\rho}}\\right) \\quad \\text{outside FLAIR}, \\qquad
       u = U\\left(x_T + \\frac{\\tau_T}{\\kappa_c \\sqrt{D/\\rho}}\\right) \\quad \\text{inside T1Gd}, $$

    with U the front of least speed (`wave_logit`), `U(x_F)` the density at the FLAIR contour and `U(x_T)` that at the
    T1Gd contour; the place in the front is interpolated between the two contours, by the distances to both. `tau` is
    the signed travel distance (`travel_distance`), so that a front is three times as steep in gray matter as in white.
    A tumor that grew by the model's own law has kappa = kappa_c = 1; both are inferred, with priors about 1. (A tail
    flatter than its front, or the same tail in gray and white matter, is a faster front for as long as one looks.)

    A model voxel is coarse against the tail: the profile is taken at several `parts` of every voxel and averaged.
    Without a T1Gd contour (an empty or missing mask: its distance is infinite) the front goes on inside the FLAIR
    contour; without FLAIR the T1Gd contour alone is used. The logit is capped at that of `cap`.

    **Arguments:** `flair_distance`, `t1gd_distance` tau [mm of white matter] in parts of every voxel of the tissue's
    grid, +inf everywhere where there is no such contour; `tail_ratio` kappa, `core_ratio` kappa_c [1]; `diffusivity` D
    of white matter [mm^2/day] and `rate` rho [1/day], tied to the model's; `flair_density`, `t1gd_density`, `cap` [1];
    `flair_shift`, `t1gd_shift` [logit]: the first visit's own shift (as `MaskObservation` has one a visit): the density
    at its contour is that of logit u_F - shift.

    **Good values:** ratios .7-1.5, shifts 0 with sd .3, u_F 0.1-0.4, u_T 0.6-0.8, cap 0.99.

    **Errors:** on two virtual tumors with sqrt(D/rho) of .9 and 1.2 mm (3 mm voxels, outlines that wander by .6 logit,
    true parameters, kappa 1) the mean error is -.01 and the rms .06 where u > .02. Of the tumor 2-5 mm of travel beyond
    the FLAIR contour it has .75 and .95, at 5-8 mm .5 and .97, at 8-11 mm .2 and .8: what came early somewhere is not
    in the outline. (An exponential tail of sqrt(D/rho): .33 and .48, .10 and .25, .02 and .11.)

    **Reference:** Konukoglu et al., IEEE Trans. Med. Imaging 29 (2010) 77-95, doi:10.1109/TMI.2009.2026413 (travel
    time of fronts, density extrapolated from outlines).
    """

    flair_distance: Float[Array, "part x y z"]
    t1gd_distance: Float[Array, "part x y z"]
    tail_ratio: Float[Array, ""] = parameter(unit="1", default=1.0)
    core_ratio: Float[Array, ""] = parameter(unit="1", default=1.0)
    diffusivity: Float[Array, ""] = parameter(unit=units.DIFFUSIVITY, default=0.1)
    rate: Float[Array, ""] = parameter(unit=units.RATE, default=0.03)
    flair_density: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.25)
    t1gd_density: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.7)
    flair_shift: Float[Array, ""] = parameter(unit="1", default=0.0)
    t1gd_shift: Float[Array, ""] = parameter(unit="1", default=0.0)
    cap: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.99)

    def state(self, tissue: Tissue) -> TumorState:
        """The profile where there is domain, zero elsewhere."""
        dtype = self.flair_distance.dtype
        length = jnp.sqrt(self.diffusivity / self.rate)
        levels = _logit(self.flair_density) - self.flair_shift, _logit(self.t1gd_density) - self.t1gd_shift
        places = wave_place(jnp.stack(levels))
        at_flair, at_core, tail, core_length, logit_cap = (
            jnp.asarray(value, dtype)
            for value in (
                places[0],
                places[1],
                self.tail_ratio * length,
                self.core_ratio * length,
                _logit(self.cap),
            )
        )
        has_flair, has_core = jnp.isfinite(self.flair_distance), jnp.isfinite(self.t1gd_distance)
        f, c = jnp.where(has_flair, self.flair_distance, 0.0), jnp.where(has_core, self.t1gd_distance, 0.0)
        from_flair = at_flair + f / jnp.where(f > 0, tail, core_length)
        from_core = at_core + c / jnp.where(c > 0, tail, core_length)
        depth, gap = jnp.maximum(-f, 0.0), jnp.maximum(c, 0.0)
        share = depth / jnp.maximum(depth + gap, jnp.asarray(1e-3, dtype))
        between = (1.0 - share) * at_flair + share * at_core
        inside_flair = jnp.where(has_core, jnp.where(c > 0, between, from_core), from_flair)
        both = jnp.where(f > 0, jnp.where(has_core & (c <= 0), from_core, from_flair), inside_flair)
        logit = wave_logit(jnp.where(has_flair, both, from_core))
        parts = jnp.where(has_flair | has_core, jax.nn.sigmoid(jnp.minimum(logit, logit_cap)), 0.0)
        return TumorState(jnp.where(tissue.domain.mask, jnp.mean(parts, axis=0), jnp.zeros((), dtype)))


def _logit(p: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.log(p) - jnp.log1p(-p)
