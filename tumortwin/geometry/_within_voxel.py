"""What a coarse voxel holds of an edge that is thinner than the voxel."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

Shaped = Inexact[Array, "..."]


def smaller_difference(field: Shaped, axis: int) -> Shaped:
    """The smaller absolute difference to the two neighbors along `axis`; one-sided at the ends, zero without any.

    The smaller one is not fooled by the jump at the edge of a domain.
    """
    n = field.shape[axis]
    if n == 1:
        return jnp.zeros_like(field)
    steps = jnp.abs(jnp.diff(field, axis=axis))
    padded = jnp.pad(steps, [(1, 1) if a == axis else (0, 0) for a in range(field.ndim)], constant_values=jnp.inf)
    behind = jax.lax.slice_in_dim(padded, 0, n, axis=axis)
    ahead = jax.lax.slice_in_dim(padded, 1, n + 1, axis=axis)
    return jnp.minimum(behind, ahead)


def steepness(field: Shaped) -> Shaped:
    """By how much a field changes across each voxel, over the last three axes: `sqrt(sum_a d_a^2 + 1e-6)`.

    `d_a` are the smaller differences. Never zero, so that it has a derivative everywhere.
    """
    squares = [smaller_difference(field, axis) ** 2 for axis in range(field.ndim - 3, field.ndim)]
    return jnp.sqrt(squares[0] + squares[1] + squares[2] + jnp.asarray(1e-6, field.dtype))


def level_of_edge(mean: Shaped, rest: Shaped, slope: Shaped) -> Shaped:
    """The logit at a voxel's middle, from the voxel's mean of an edge whose logit changes by `slope` across it.

    $$ \\bar u = \\int_{-1/2}^{1/2} \\sigma(\\ell + t g)\\,dt \\;\\Leftrightarrow\\;
       \\ell = g\\left(\\bar u - \\tfrac12\\right) + \\log(1 - e^{-g \\bar u}) - \\log(1 - e^{-g (1 - \\bar u)}) $$

    For `g -> 0` it is logit u. A mean in a tail that is thin against the voxel comes from the voxel's near side: taken
    as the value of the middle, the edge lies too far out by up to half a voxel.

    **Arguments:** `mean` u and `rest` 1 - u (formed apart, so that neither is rounded away), both in (0, 1); `slope` g
    > 0 (`steepness`).
    """
    near, far = jnp.log(-jnp.expm1(-slope * mean)), jnp.log(-jnp.expm1(-slope * rest))
    return slope * (mean - 0.5) + near - far
