"""What was given over time, one row a subject: on or off, or a level that is constant between two days."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.params import as_parameter


class StepHistory(eqx.Module):
    """A level that is constant between days at which it steps: a drug that is on or off, a dose rate, a concentration.

    $$ u(t) = \\ell_k \\quad\\text{for}\\quad e_{k-1} < t < e_k $$

    with $e_0 = -\\infty$ on the left of the first edge. Subjects are rows: tables of subjects are padded with edges at
    +inf (whatever their level). Edges and levels have gradients; their number is static.

    **Arguments:** `edges` [day], in order within a subject; `levels`, one more than edges, in the unit in which the
    model wants its exposure (for on/off: 1 and 0).

    **Errors:** `ValueError` when there is not one more level than edges.
    """

    edges: Float[Array, "*batch edge"] = eqx.field(converter=as_parameter, metadata={"unit": units.TIME})
    levels: Float[Array, "*batch level"] = eqx.field(converter=as_parameter, metadata={"unit": units.FRACTION})

    def __check_init__(self) -> None:
        edges, levels = self.edges.shape, self.levels.shape
        if not edges or edges[:-1] != levels[:-1] or edges[-1] + 1 != levels[-1]:
            raise ValueError(f"required: one more level than edges for each subject; received: {edges} and {levels}")

    @classmethod
    def constant(cls, level: Float[Array, "..."] | float) -> "StepHistory":
        """The same level [*batch] at all times."""
        levels = as_parameter(level)[..., None]
        return cls(jnp.zeros((*levels.shape[:-1], 0), levels.dtype), levels)

    @classmethod
    def courses(cls, starts: Float[Array, "*batch course"], ends: Float[Array, "*batch course"]) -> "StepHistory":
        """0 outside and 1 inside of courses from `starts` to `ends` [day], in order and not overlapping."""
        starts, ends = as_parameter(starts), as_parameter(ends)
        edges = jnp.stack([starts, ends], axis=-1).reshape(*starts.shape[:-1], -1)
        on = jnp.arange(edges.shape[-1] + 1) % 2
        return cls(edges, jnp.broadcast_to(on.astype(edges.dtype), (*edges.shape[:-1], on.size)))

    @property
    def size(self) -> int:
        """Number of edges of a subject, padding included (static)."""
        return self.edges.shape[-1]

    def scaled(self, factor: Float[Array, "..."] | float) -> "StepHistory":
        """The levels times `factor` [*batch]: on/off times a sensitivity is a rate of kill."""
        factor = as_parameter(factor)
        return StepHistory(self.edges, self.levels * (factor[..., None] if factor.ndim else factor))
