"""What is known without a network: growth and kill of a voxel for itself, and the few numbers that describe them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.models import ReactionDiffusion
from tumortwin.treatments import LogKill, Schedule

# Intervals between day 0 and a day, over which the kill is taken as one jump in the middle.
INTERVALS = 64
# The kill is read at these shares of the time.
SHARES = (0.25, 0.5, 0.75, 1.0)


class Reacted(NamedTuple):
    """Growth and kill since day 0 of a voxel without neighbors, as a map of [0, 1] onto itself.

    $$ u(t) = \\frac{\\alpha\\,u_0}{\\alpha\\,u_0 + (1 - u_0) + \\gamma\\,u_0}, \\qquad
       \\alpha = e^{\\rho t - \\Lambda(t)}, \\qquad
       \\gamma = \\int_0^t e^{\\rho s - \\Lambda(s)}\\,d\\Lambda(s) $$

    the exact solution of du = rho u (1 - u) dt - u dLambda. All terms are positive: in [0, 1] in floating point too.
    """

    growth: Float[Array, " time"]
    lost: Float[Array, " time"]

    def __call__(self, start: Float[Array, "x y z"]) -> Float[Array, "time x y z"]:
        """The densities that grow out of a start."""
        shape = (-1, 1, 1, 1)
        growth, lost = (jnp.asarray(v, start.dtype).reshape(shape) for v in self)
        grown = growth * start[None]
        return grown / (grown + (1.0 - start[None]) + lost * start[None])


def reacted(rate: Float[Array, ""], kill: LogKill, days: Float[Array, " time"]) -> Reacted:
    """The maps from day 0 to `days`; the kill is exact, its timing within a 64th of the time."""

    def one(day: Array) -> tuple[Array, Array]:
        edges = day * jnp.linspace(0.0, 1.0, INTERVALS + 1)
        killed = kill.cumulative(edges)
        middle = 0.5 * (edges[1:] + edges[:-1])
        lost = jnp.exp(rate * middle - killed[:-1]) * -jnp.expm1(-jnp.diff(killed))
        return jnp.exp(rate * day - killed[-1]), jnp.sum(lost)

    return Reacted(*jax.vmap(one)(days))


def summary_of(
    model: ReactionDiffusion, schedule: Schedule, days: Float[Array, " time"]
) -> tuple[Float[Array, "time number"], Reacted]:
    """What the network is told of parameters, treatment and time [1, by voxel and day], and growth and kill themselves.

    sqrt(D t) / h, rho t, log(sqrt(D / rho) / h), the natural log-kill in [0, t/4), [0, t/2), [0, 3t/4) and [0, t),
    log(1 + gamma), and log(1 + t). The integrated kill is among them, and D, rho and t can be told from them.

    **Raises:** `ValueError` for a resection, or a rate that varies in space.
    """
    if schedule.resections:
        raise ValueError("required: a schedule without resections; received: one with; try: the model itself")
    diffusivity, rate = model.diffusion.white_matter, model.proliferation.local_rate()
    if rate.ndim:
        raise ValueError("required: growth alike everywhere; received: a field rho(x); try: the model itself")
    edge = model.tissue.grid.spacing[0]
    last = jnp.max(days)
    kill = model.log_kill(schedule, 0.0, last)
    maps = reacted(rate, kill, days)
    path = jnp.stack([kill.cumulative(share * days) for share in SHARES], axis=1)
    length = jnp.broadcast_to(jnp.log(jnp.sqrt(diffusivity / rate) / edge), days.shape)
    # The root of each: on day 0 that of the product has no slope.
    numbers = (jnp.sqrt(diffusivity) * jnp.sqrt(days) / edge, rate * days, length)
    return jnp.column_stack([*numbers, path, jnp.log1p(maps.lost), jnp.log1p(days)]), maps


SUMMARY = 3 + len(SHARES) + 2
