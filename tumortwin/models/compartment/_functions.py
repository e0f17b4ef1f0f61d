"""Two functions with a removable singularity at 0, safe in value and in gradient."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Below this the exact forms lose digits in their gradient; the series below are exact to 1e-16 there.
_SMALL = 1e-2


def mean_decay(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """(1 - e^{-x}) / x: the mean of e^{-s} over s in [0, x]; 1 at x = 0."""
    small = jnp.abs(x) < _SMALL
    safe = jnp.where(small, 1.0, x)
    series = 1.0 - x / 2.0 * (1.0 - x / 3.0 * (1.0 - x / 4.0 * (1.0 - x / 5.0 * (1.0 - x / 6.0 * (1.0 - x / 7.0)))))
    return jnp.where(small, series, -jnp.expm1(-safe) / safe)


def mean_inverse(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """ln(1 + x) / x: the mean of 1 / (1 + s) over s in [0, x]; 1 at x = 0."""
    small = jnp.abs(x) < _SMALL
    safe = jnp.where(small, 1.0, x)
    series = jnp.zeros_like(x)
    for k in range(9, -1, -1):
        series = 1.0 / (k + 1) - x * series
    return jnp.where(small, series, jnp.log1p(safe) / safe)
