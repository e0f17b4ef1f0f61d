"""Thousands of virtual patients through one record of visits: the model's own equations, split into exact halves.

The adaptive solver of `simulate_compartment` is the reference; the experiment prints the largest difference between
the two. (The published code took one Runge-Kutta step of 1/6 a recorded day, so that six of its days were one: a solver
must be checked in true days.)
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.models import SensitiveResistant

SUBSTEPS = 24  # between two visits: steps of little more than a day


def advance(
    model: SensitiveResistant, cells: tuple[Array, Array], duration: Array, drug: Array, substeps: int = SUBSTEPS
) -> tuple[Array, Array]:
    """(S, R) after `duration` [day] under `drug` (0 or 1), elementwise.

    Strang's splitting: R for half a step with S held, S for a step with R held, R for half a step. Each part is a
    logistic equation x' = x (a - b x), solved exactly, so that the cells stay positive at any step; second order.
    """
    step = duration / substeps
    room = model.carrying_capacity
    under_drug = room * (1.0 - model.capacity_reduction * drug)

    def once(_: int, now: tuple[Array, Array]) -> tuple[Array, Array]:
        s, r = now
        r = _logistic(
            r, model.resistant_rate * (1.0 - model.competition * s / room), model.resistant_rate / room, step / 2
        )
        s = _logistic(s, model.sensitive_rate * (1.0 - r / under_drug), model.sensitive_rate / under_drug, step)
        r = _logistic(
            r, model.resistant_rate * (1.0 - model.competition * s / room), model.resistant_rate / room, step / 2
        )
        return s, r

    return jax.lax.fori_loop(0, substeps, once, cells)


def _logistic(x: Array, gain: Array, loss: Array, step: Array) -> Array:
    """x' = x (gain - loss x) after `step`."""
    grown = gain * step
    small = jnp.abs(grown) < 1e-6
    # (e^{a h} - 1) / a, which is h where a is 0
    reach = step * jnp.where(small, 1.0 + grown / 2, jnp.expm1(grown) / jnp.where(small, 1.0, grown))
    return x * jnp.exp(grown) / (1.0 + loss * x * reach)


@eqx.filter_jit
def records(
    model: SensitiveResistant, days: Float[Array, " visit"], on: Float[Array, " visit"]
) -> tuple[Float[Array, "visit virtual"], Float[Array, "visit virtual"]]:
    """S and R of virtual patients (the model's parameters, [virtual]) at one patient's visits, under his drug."""
    shape = jnp.broadcast_shapes(*(leaf.shape for leaf in jax.tree.leaves(model)))
    start = (jnp.broadcast_to(model.start_sensitive, shape), jnp.broadcast_to(model.start_resistant, shape))

    def visit(
        cells: tuple[Array, Array], interval: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        after = advance(model, cells, *interval)
        return after, after

    _, later = jax.lax.scan(visit, start, (jnp.diff(days), on[:-1]))
    s, r = (jnp.concatenate([first[None], rest]) for first, rest in zip(start, later, strict=True))
    return s, r
