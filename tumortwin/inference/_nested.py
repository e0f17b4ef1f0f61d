"""Effects nested in groups, all Gaussian: what the groups above, and the siblings, say about one of them."""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

Information = tuple[Float[Array, "k k"], Float[Array, " k"]]
"""`(M, v)`: a log density -w' M w / 2 + v' w of the coefficients w, up to a constant; M may be singular."""


def root_of(covariance: Float[Array, "k k"], jitter: float = 1e-12) -> Float[Array, "k k"]:
    """A Cholesky factor; `jitter` times the largest variance is added, so that a coefficient may have no variance."""
    return jnp.linalg.cholesky(covariance + jitter * jnp.max(jnp.diagonal(covariance)) * jnp.eye(len(covariance)))


def marginalized(information: Information, root: Float[Array, "k k"]) -> tuple[Information, Float[Array, ""]]:
    """What data that speak of w + u say of w, when u ~ N(0, L L') is of no interest.

    $$ M' = (M^{-1} + L L')^{-1}, \\qquad v' = (I + M L L')^{-1} v $$

    computed without inverses of M or of the covariance. Also the log of the density gained: summed over all groups and
    levels, with the constants of the data, it is the log marginal likelihood.

    **Arguments:** `information` (M, v); `root` L.
    """
    matrix, shift = information
    spread = matrix @ root
    factor = jnp.linalg.cholesky(jnp.eye(root.shape[1]) + root.T @ spread)
    lowered = solve_triangular(factor, spread.T, lower=True)
    along = solve_triangular(factor, root.T @ shift, lower=True)
    gained = 0.5 * along @ along - jnp.sum(jnp.log(jnp.diagonal(factor)))
    return (matrix - lowered.T @ lowered, shift - lowered.T @ along), gained


def updated(
    mean: Float[Array, " k"], covariance: Float[Array, "k k"], information: Information
) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """Mean and covariance of w ~ N(mean, covariance) after `information`.

    $$ C' = L (I + L' M L)^{-1} L', \\qquad m' = m + C' (v - M m), \\qquad C = L L' $$
    """
    matrix, shift = information
    root = root_of(covariance)
    factor = jnp.linalg.cholesky(jnp.eye(len(mean)) + root.T @ matrix @ root)
    narrow = solve_triangular(factor, root.T, lower=True)
    after = narrow.T @ narrow
    return mean + after @ (shift - matrix @ mean), after
