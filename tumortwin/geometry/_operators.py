"""Conservative finite-volume diffusion on a masked grid, zero flux at the mask and at the edge of the array.

Arrays that meet the stencil carry a one-voxel *ring* of zeros, so tissue may touch the edge of the patient's array
without losing mass and the stencil is made of interior slices alone.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.geometry._domain import Domain


class Faces(NamedTuple):
    """Conductances of the faces between voxel `i` and `i + 1` along each axis, ring included [.. of the quantity]."""

    x: Float[Array, "x y z"]
    y: Float[Array, "x y z"]
    z: Float[Array, "x y z"]

    def scaled(self, factor: Float[Array, ""] | float) -> "Faces":
        """Every conductance times `factor`."""
        return Faces(self.x * factor, self.y * factor, self.z * factor)


def add_ring(field: Float[Array, "x y z"]) -> Float[Array, "x2 y2 z2"]:
    """The field inside a ring of zeros, one voxel thick."""
    return jnp.pad(field, 1)


def drop_ring(field: Float[Array, "... x2 y2 z2"]) -> Float[Array, "... x y z"]:
    """The field without its ring."""
    return field[..., 1:-1, 1:-1, 1:-1]


def _harmonic(left: Array, right: Array) -> Array:
    total = left + right
    safe = jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, 2.0 * left * right / safe, 0.0)


def _arithmetic(left: Array, right: Array) -> Array:
    return jnp.where((left > 0) & (right > 0), 0.5 * (left + right), 0.0)


def face_conductances(diffusivity: Float[Array, "x y z"], domain: Domain, *, mean: str = "harmonic") -> Faces:
    """Face conductances D_f / h^2 [1/day] of a diffusivity [mm^2/day], zero where either neighbour is outside.

    The harmonic mean is exact for a jump of D at a face in one dimension (flux continuity); the arithmetic one is
    offered for comparison with other codes.

    **Reference:** Patankar, Numerical Heat Transfer and Fluid Flow (1980), section 4.2-3.
    """
    average = {"harmonic": _harmonic, "arithmetic": _arithmetic}[mean]
    inside = add_ring(jnp.where(domain.mask, diffusivity, jnp.zeros((), diffusivity.dtype)))
    faces = []
    for axis, spacing in enumerate(domain.grid.spacing):
        neighbour = jnp.roll(inside, -1, axis)
        faces.append(average(inside, neighbour) / spacing**2)
    return Faces(*faces)


def divergence(density: Float[Array, "x2 y2 z2"], faces: Faces) -> Float[Array, "x y z"]:
    """div(D grad u) at the interior voxels of a ringed density, given ringed face conductances.

    $$ (\\nabla\\cdot D\\nabla u)_i = \\sum_{f \\in \\partial i} k_f (u_{j(f)} - u_i) $$

    Antisymmetric in every face: mass is conserved to rounding.
    """
    u, m, p, c = density, slice(0, -2), slice(2, None), slice(1, -1)
    here = u[c, c, c]
    flux_x = faces.x[c, c, c] * (u[p, c, c] - here) - faces.x[m, c, c] * (here - u[m, c, c])
    flux_y = faces.y[c, c, c] * (u[c, p, c] - here) - faces.y[c, m, c] * (here - u[c, m, c])
    flux_z = faces.z[c, c, c] * (u[c, c, p] - here) - faces.z[c, c, m] * (here - u[c, c, m])
    return flux_x + flux_y + flux_z


def spectral_bound(max_diffusivity: float, spacing: tuple[float, ...]) -> float:
    """An upper bound of the largest eigenvalue of -div(D grad) [1/day] (Gershgorin): 4 D sum(1/h^2)."""
    return 4.0 * max_diffusivity * sum(1.0 / h**2 for h in spacing)
