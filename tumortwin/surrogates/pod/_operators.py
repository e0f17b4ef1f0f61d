"""The equations projected on the modes: diffusion as a matrix, crowding as a quadratic form, and what is left out."""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.geometry import Faces, add_ring, divergence
from tumortwin.models import ReactionDiffusion

PATHS = ("mechanisms.diffusion.white_matter", "mechanisms.proliferation.rate")
_VOXELS_AT_ONCE = 4096


class ReducedOperators(eqx.Module):
    """Galerkin projections of the model's right-hand side on orthonormal modes `phi`.

    $$ A_{ij}(\\kappa) = \\langle \\varphi_i, \\nabla\\cdot(d_\\kappa \\nabla \\varphi_j) \\rangle, \\qquad
       B_{i,jk} = \\langle \\varphi_i, \\varphi_j \\varphi_k \\rangle $$

    with d the diffusivity at D_w = 1 mm^2/day. The front correction makes it depend on $\\kappa = \\rho / D_w$
    alone: `diffusion` holds the coefficients of a Chebyshev expansion in log kappa on `log_ratio`, a single one where
    there is no such correction. `crowding` holds B for pairs j <= k, those with j < k doubled: it is exact.

    What the projection leaves out, $(1 - \\Phi\\Phi^T)$ times the right-hand side, is known through a random sketch
    `S` of `sketch` rows: `sketched_diffusion`, `sketched_crowding`. Its norm is that of the residual within some
    $1/\\sqrt{2\\,\\mathrm{sketch}}$ (9 % for 64 rows), at a cost that does not depend on the number of voxels.

    **Reference:** Quarteroni, Manzoni & Negri, Reduced Basis Methods for PDEs, Springer 2016; Balabanov & Nouy, Adv.
    Comput. Math. 45 (2019) 2969-3019, doi:10.1007/s10444-019-09725-6 (sketched residuals).
    """

    diffusion: Float[Array, "degree mode mode"]
    crowding: Float[Array, "mode pair"]
    sketched_diffusion: Float[Array, "degree sketch mode"]
    sketched_crowding: Float[Array, "sketch pair"]
    log_ratio: Float[Array, "2"]

    @property
    def size(self) -> int:
        """Number of modes."""
        return self.diffusion.shape[-1]

    def at_ratio(self, log_ratio: Float[Array, ""]) -> tuple[Float[Array, "mode mode"], Float[Array, "sketch mode"]]:
        """A and its sketched remainder at log kappa [1/day at D_w = 1 mm^2/day]."""
        low, high = self.log_ratio
        x = (2.0 * log_ratio - low - high) / (high - low)
        terms = [jnp.ones_like(x), x]
        while len(terms) < self.diffusion.shape[0]:
            terms.append(2.0 * x * terms[-1] - terms[-2])
        weights = jnp.stack(terms[: self.diffusion.shape[0]])
        return jnp.tensordot(weights, self.diffusion, 1), jnp.tensordot(weights, self.sketched_diffusion, 1)

    def pairs(self, a: Float[Array, " mode"]) -> Float[Array, " pair"]:
        """a_j a_k for j <= k."""
        first, second = np.triu_indices(self.size)
        return a[first] * a[second]

    def first(self, count: int) -> "ReducedOperators":
        """The operators of the first `count` modes; the remainder then lacks what the others held."""
        first, second = np.triu_indices(self.size)
        chosen = np.flatnonzero((first < count) & (second < count))
        return ReducedOperators(
            self.diffusion[:, :count, :count],
            self.crowding[:count][:, chosen],
            self.sketched_diffusion[:, :, :count],
            self.sketched_crowding[:, chosen],
            self.log_ratio,
        )


def project(
    model: ReactionDiffusion,
    modes: Float[np.ndarray, "mode voxel"],
    log_ratio: tuple[float, float],
    *,
    degree: int = 12,
    sketch: int = 64,
    seed: int = 0,
) -> ReducedOperators:
    """The reduced operators of a model.

    **Arguments:** `modes`: orthonormal, on all voxels of the model's grid, zero outside of the domain; `log_ratio`: the
    range of log(rho / D_w) that will be asked for; `degree`: number of Chebyshev terms in it (12 leave 1e-5 over a
    range of 6); `sketch`: rows of the random sketch, from `seed`.
    """
    degree = degree if model.front_correction else 1
    nodes = np.cos(np.pi * (np.arange(degree) + 0.5) / degree)
    middle, half = 0.5 * (log_ratio[0] + log_ratio[1]), 0.5 * (log_ratio[1] - log_ratio[0])
    # c_k = (2 - [k = 0]) / n sum_j f(x_j) T_k(x_j)
    k = np.arange(degree)
    to_coefficients = np.cos(k[:, None] * np.arccos(nodes)[None, :]) * (np.where(k == 0, 1.0, 2.0)[:, None] / degree)
    random = np.random.default_rng(seed)
    reduced_a, sketched_a, reduced_b, sketched_b = [], [], 0.0, 0.0
    there = np.flatnonzero(np.asarray(model.tissue.domain.mask).ravel())  # elsewhere every mode is zero
    images = [_diffused(model, modes, middle + half * x)[:, there] for x in nodes]
    modes = modes[:, there]
    first, second = np.triu_indices(len(modes))
    doubled = np.where(first == second, 1.0, 2.0)
    sketched_modes, sketched_images = 0.0, [0.0] * degree
    for part in _parts(modes.shape[1]):
        inside = modes[:, part]
        rows = random.standard_normal((sketch, inside.shape[1])) / np.sqrt(sketch)
        products = (inside[first] * inside[second]).T * doubled
        reduced_b = reduced_b + inside @ products
        sketched_b = sketched_b + rows @ products
        sketched_modes = sketched_modes + rows @ inside.T
        sketched_images = [s + rows @ image[:, part].T for s, image in zip(sketched_images, images, strict=True)]
    for image, sketched in zip(images, sketched_images, strict=True):
        a = modes @ image.T
        reduced_a.append(0.5 * (a + a.T))
        sketched_a.append(sketched - sketched_modes @ a)
    return ReducedOperators(
        jnp.asarray(np.tensordot(to_coefficients, np.stack(reduced_a), 1)),
        jnp.asarray(reduced_b),
        jnp.asarray(np.tensordot(to_coefficients, np.stack(sketched_a), 1)),
        jnp.asarray(sketched_b - sketched_modes @ np.asarray(reduced_b)),
        jnp.asarray(log_ratio),
    )


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _VOXELS_AT_ONCE, size)) for start in range(0, size, _VOXELS_AT_ONCE))


def _diffused(model: ReactionDiffusion, modes: np.ndarray, log_ratio: float) -> np.ndarray:
    """div(d grad) of every mode at D_w = 1 and rho = exp(log_ratio) [mode voxel]."""
    shape = model.tissue.grid.shape
    unit = eqx.tree_at(
        lambda m: (m.diffusion.white_matter, m.mechanisms["proliferation"].rate),
        model,
        (jnp.ones_like(model.diffusion.white_matter), jnp.asarray(np.exp(log_ratio))),
    )
    fields = jnp.asarray(modes.reshape(-1, *shape))
    return np.asarray(_divergences(unit.relative_faces(), fields)).reshape(modes.shape)


@jax.jit
def _divergences(faces: Faces, fields: Float[Array, "mode x y z"]) -> Float[Array, "mode x y z"]:
    wide = Faces(*(face.astype(fields.dtype) for face in faces))
    return jax.lax.map(lambda field: divergence(add_ring(field), wide), fields)
