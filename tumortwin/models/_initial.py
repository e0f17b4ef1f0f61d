"""Where a simulation starts: a given density, a seed, or the contours of the first scan."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.geometry import Tissue
from tumortwin.models._base import AbstractInitialCondition, TumorState
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
    """The density implied by the first visit's contours.

    With d the signed distance [mm] to a contour (positive outside),

    $$ \\mathrm{logit}\\,u = \\mathrm{logit}\\,u_F - d_F/\\lambda \\quad \\text{outside FLAIR,} $$

    linear in logit between the FLAIR contour (`u_F`) and the T1Gd contour (`u_T`), rising by $1/\\lambda_c$ a
    millimeter inside the T1Gd contour, and capped at `u_cap`. For a Fisher-Kolmogorov front of least speed lambda =
    sqrt(D/rho) (u ~ exp(-x/lambda) ahead of it) and lambda_c = lambda / (sqrt 2 - 1) (1 - u ~ exp(-x/lambda_c)
    behind it), but each is inferred on its own: outlines that wander make the inside look steeper, and one length
    for both then made the edge too sharp and D two to three times too large. Without a T1Gd contour (an empty or
    missing mask: its distance is infinite) the rise inside holds from the FLAIR contour on; without FLAIR the T1Gd
    contour alone is used.

    **Arguments:** `flair_distance`, `t1gd_distance` [mm] on the tissue's grid, +inf everywhere where there is no
    such contour; `flair_density`, `t1gd_density`, `cap` [1]; `infiltration_length` lambda, `core_length` lambda_c
    [mm]. `flair_shift`, `t1gd_shift` [logit]: the first visit's own shift (as `MaskObservation` has one a visit):
    the density at its contour is that of logit u_F - shift. Contours that wander run, on average, where the density
    is higher.

    **Good values:** shifts 0 with sd .3, lambda 1-5 mm, lambda_c 2-10 mm, u_F 0.1-0.4, u_T 0.6-0.8, cap 0.99.

    **Reference:** Konukoglu et al., IEEE Trans. Med. Imaging 29 (2010) 77-95, doi:10.1109/TMI.2009.2026413 (tail).
    """

    flair_distance: Float[Array, "x y z"]
    t1gd_distance: Float[Array, "x y z"]
    infiltration_length: Float[Array, ""] = parameter(unit=units.LENGTH, default=2.5)
    core_length: Float[Array, ""] = parameter(unit=units.LENGTH, default=4.0)
    flair_density: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.25)
    t1gd_density: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.7)
    flair_shift: Float[Array, ""] = parameter(unit="1", default=0.0)
    t1gd_shift: Float[Array, ""] = parameter(unit="1", default=0.0)
    cap: Float[Array, ""] = parameter(unit=units.FRACTION, default=0.99)

    def state(self, tissue: Tissue) -> TumorState:
        """The profile where there is domain, zero elsewhere."""
        flair, core = self.flair_distance, self.t1gd_distance
        dtype = flair.dtype
        logit_flair, logit_core, logit_cap, length, core_length = (
            jnp.asarray(v, dtype)
            for v in (
                _logit(self.flair_density) - self.flair_shift,
                _logit(self.t1gd_density) - self.t1gd_shift,
                _logit(self.cap),
                self.infiltration_length,
                self.core_length,
            )
        )
        has_flair, has_core = jnp.isfinite(flair), jnp.isfinite(core)
        f = jnp.where(has_flair, flair, 0.0)
        c = jnp.where(has_core, core, 0.0)
        from_flair = logit_flair - f / jnp.where(f > 0, length, core_length)
        from_core = logit_core - c / jnp.where(c > 0, length, core_length)
        depth, gap = jnp.maximum(-f, 0.0), jnp.maximum(c, 0.0)
        share = depth / jnp.maximum(depth + gap, jnp.asarray(1e-3, dtype))
        between = (1.0 - share) * logit_flair + share * logit_core
        inside_flair = jnp.where(has_core, jnp.where(c > 0, between, from_core), from_flair)
        both = jnp.where(f > 0, jnp.where(has_core & (c <= 0), from_core, from_flair), inside_flair)
        logit = jnp.where(has_flair, both, from_core)
        density = jax.nn.sigmoid(jnp.minimum(logit, logit_cap))
        empty = ~(has_flair | has_core)
        return TumorState(jnp.where(tissue.domain.mask & ~empty, density, jnp.zeros((), dtype)))


def _logit(p: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.log(p) - jnp.log1p(-p)
