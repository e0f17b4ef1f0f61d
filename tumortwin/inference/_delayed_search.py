"""Before the model is asked: chains spread over the mass of the surrogate, its covariance, and the size of a step."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference._calibrate import child_key
from tumortwin.inference._delayed_kernels import AbstractInnerKernel, Moved, Spot
from tumortwin.inference._problem import AbstractProblem
from tumortwin.inference._smc import preconditioner

GAIN = 1.0  # the log of a scale changes by at most this for one step, and by less and less


class Tuned(NamedTuple):
    """`factor` of the covariance, `scale` of a step, last places of the chains, and what the surrogate was asked."""

    factor: Float[Array, "parameter parameter"]
    scale: Float[Array, ""]
    z: Float[np.ndarray, "chain parameter"]
    densities: int
    gradients: int


def tuned(
    surrogate: AbstractProblem,
    kernel: AbstractInnerKernel,
    particles: Float[np.ndarray, "particle parameter"],
    *,
    chains: int,
    steps: int,
    key: Array,
) -> Tuned:
    """`steps` steps of `kernel` for `chains` chains that start at particles of the surrogate's posterior.

    $$ \\log h_{i+1} = \\log h_i + (a_i - a^*) / \\sqrt{i + 1} $$

    with `a` the chance of the step and `a*` the wanted one; the scale is the geometric mean of the second half, over
    chains. The covariance is that of the particles and stays.
    """
    random = np.random.default_rng(np.asarray(jax.random.key_data(child_key(key, "starts"))))
    z = jnp.asarray(particles[random.choice(len(particles), chains, replace=False)])
    _, factor = preconditioner(particles)
    first = jnp.asarray(kernel.first_scale(z.shape[1]))
    keys = jax.random.split(child_key(key, "scale"), chains)
    spots, scales, seen = _adapted(surrogate, kernel, factor, first, z, keys, steps)
    scale = jnp.exp(jnp.mean(jnp.log(scales[:, steps // 2 :])))
    asked = int(seen.densities.sum()) + chains, int(seen.gradients.sum()) + chains * kernel.gradients_at_start
    return Tuned(factor, scale, np.array(spots.z), *asked)


@eqx.filter_jit
def _adapted(
    surrogate: AbstractProblem,
    kernel: AbstractInnerKernel,
    factor: Array,
    first: Array,
    z: Array,
    keys: Array,
    steps: int,
) -> tuple[Spot, Array, Moved]:
    """Last spots, scales [chain, step], and what was seen [chain, step, ...]."""
    density = surrogate.log_density

    def one(start: Array, key: Array) -> tuple[Spot, Array, Moved]:
        def step(carry: tuple[Spot, Array], given: tuple[Array, Array]) -> tuple[tuple[Spot, Array], tuple]:
            spot, scale = carry
            own, i = given
            moved = kernel.move(density, factor, scale, spot, key=own)
            scale = scale * jnp.exp(GAIN * (moved.chance - kernel.acceptance) / jnp.sqrt(i + 1.0))
            return (moved.spot, scale), (scale, moved)

        begun = kernel.begin(density, start, density(start))
        given = (jax.random.split(key, steps), jnp.arange(steps))
        (spot, _), (scales, moved) = jax.lax.scan(step, (begun, first), given)
        return spot, scales, moved

    return jax.vmap(one)(z, keys)
