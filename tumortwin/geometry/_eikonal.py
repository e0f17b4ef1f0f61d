"""How far a front has to go: distance from an edge in a medium where fronts are faster here than there."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Change of an iteration [mm] below which the distances have settled.
_SETTLED = 1e-3


def travel_distance(
    signed_distance: np.ndarray, speed: np.ndarray, spacing: Sequence[float], *, reach: float = 100.0
) -> np.ndarray:
    """Signed travel distance tau from the zero level of `signed_distance`.

    $$ |\\nabla \\tau| = 1 / s(x), \\qquad \\tau = 0 \\text{ on the edge} $$

    with `s` the speed of a front relative to that in a reference medium: where `s = 1` it is the distance itself. The
    first-order upwind scheme of Rouy and Tourin, iterated until nothing changes; voxels within the longest voxel edge
    keep their distance over the speed.

    **Arguments:** `signed_distance` [mm], positive outside; `speed` [1], positive; `spacing` [mm]; `reach`: |tau| is
    cut there [mm].

    **Errors:** first order. Up to thirty voxels from a ball of radius 15 voxels, at speed 1: mean .28, at most .61
    voxels too long.

    **Raises:** `ValueError` for a speed that is not positive; `FloatingPointError` when it has not settled after four
    iterations a voxel of the array's sides.

    **Reference:** Rouy & Tourin, SIAM J. Numer. Anal. 29 (1992) 867-884, doi:10.1137/0729053.
    """
    if not (np.asarray(speed) > 0).all():
        raise ValueError("required: a positive speed everywhere; received: zero, a negative one or NaN")
    distance, slowness = np.asarray(signed_distance, np.float32), (1.0 / np.asarray(speed)).astype(np.float32)
    known = np.abs(distance) <= max(spacing)
    start = np.where(known, np.abs(distance) * slowness, reach).astype(np.float32)
    widths = tuple(float(h) for h in spacing)
    travelled, change = _marched(jnp.asarray(start), jnp.asarray(known), jnp.asarray(slowness), widths)
    if not float(change) <= _SETTLED:
        raise FloatingPointError(
            f"required: travel distances that settle to {_SETTLED:g} mm; received: a last change of "
            f"{float(change):g} mm; "
            "try: a smaller window (geometry.margin), and look at the tissue for NaN"
        )
    return np.sign(distance) * np.asarray(travelled)


@eqx.filter_jit
def _marched(
    start: Float[Array, "x y z"], known: Bool[Array, "x y z"], slowness: Float[Array, "x y z"], spacing: tuple
) -> tuple[Float[Array, "x y z"], Float[Array, ""]]:
    """The fixed point of the upwind update, from above, and its last change."""

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        tau, _, count = carry
        new = jnp.where(known, tau, jnp.minimum(tau, _upwind(tau, slowness, spacing)))
        return new, jnp.max(tau - new), count + 1

    most = 4 * sum(start.shape)
    first = (start, jnp.asarray(np.inf, start.dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(lambda c: (c[1] > _SETTLED) & (c[2] < most), step, first)[:2]


def _upwind(tau: Array, slowness: Array, spacing: tuple[float, ...]) -> Array:
    """The root of `sum_a max((T - a_a) / h_a, 0)^2 = slowness^2`, `a_a` the lower neighbor along each axis."""
    lower = [_lower_neighbor(tau, axis) for axis in range(3)]
    weights = [jnp.full_like(tau, 1.0 / h**2) for h in spacing]
    for i, j in ((0, 1), (1, 2), (0, 1)):  # neighbors in increasing order
        swap = lower[i] > lower[j]
        lower[i], lower[j] = jnp.where(swap, lower[j], lower[i]), jnp.where(swap, lower[i], lower[j])
        weights[i], weights[j] = jnp.where(swap, weights[j], weights[i]), jnp.where(swap, weights[i], weights[j])
    found = lower[0] + slowness / jnp.sqrt(weights[0])
    weight, moment, square = weights[0], jnp.zeros_like(tau), jnp.zeros_like(tau)  # of the distances beyond the lowest
    for low, one in zip(lower[1:], weights[1:], strict=True):
        beyond = jnp.where(jnp.isfinite(low), low - lower[0], 0.0)
        weight, moment, square = weight + one, moment + one * beyond, square + one * beyond**2
        inside = jnp.maximum(slowness**2 - (square - moment**2 / weight), 0.0)
        root = lower[0] + moment / weight + jnp.sqrt(inside / weight)
        found = jnp.where(found > low, root, found)
    return found


def _lower_neighbor(tau: Array, axis: int) -> Array:
    """The lower of the two neighbors along `axis`."""
    padded = jnp.pad(tau, [(1, 1) if a == axis else (0, 0) for a in range(3)], constant_values=np.inf)
    n = tau.shape[axis]
    ahead = jax.lax.slice_in_dim(padded, 2, n + 2, axis=axis)
    return jnp.minimum(jax.lax.slice_in_dim(padded, 0, n, axis=axis), ahead)
