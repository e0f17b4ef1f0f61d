"""Virtual patients: who is drawn, and how a truth lives between two visits."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.gallagher2024.tumor import LIMIT, State, held
from tumortwin.models import AbstractCompartmentModel, TurnoverCompetition

VISIT = 28  # [day] between visits, and between decisions
VISITS = 130  # the horizon: 3,640 days
NOISE = 0.10  # standard deviation of the log of a measured burden over the true one
NAMES = ("sensitive_rate", "resistant_rate", "start_resistant")
PUBLISHED = TurnoverCompetition()
BASELINE = float(PUBLISHED.burden(PUBLISHED.initial()))  # known: the unit of all burdens
CENTER = tuple(float(np.log(getattr(PUBLISHED, name))) for name in NAMES)
SPREAD = (0.15, 0.15, 1.5)  # standard deviations of the logs
PROGRESSION = LIMIT * BASELINE


def drawn(n: int, *, key: Array) -> Float[Array, "n parameter"]:
    """Logs of (rS, rR, R0): independent normals around the published patient."""
    return jnp.asarray(CENTER) + jnp.asarray(SPREAD) * jax.random.normal(key, (n, 3))


def log_prior(theta: Float[Array, "... parameter"]) -> Float[Array, "..."]:
    """Up to a constant."""
    off = (theta - jnp.asarray(CENTER, theta.dtype)) / jnp.asarray(SPREAD, theta.dtype)
    return -0.5 * jnp.sum(off**2, axis=-1)


def tumors(theta: Float[Array, "... parameter"]) -> TurnoverCompetition:
    """The model of every draw; all have the same burden at the start."""
    sensitive_rate, resistant_rate, resistant = (jnp.exp(theta[..., k]) for k in range(3))
    known = jax.tree.map(lambda leaf: leaf.astype(theta.dtype), PUBLISHED)
    return dataclasses.replace(
        known,
        sensitive_rate=sensitive_rate,
        resistant_rate=resistant_rate,
        start_resistant=resistant,
        start_sensitive=jnp.asarray(BASELINE, theta.dtype) - resistant,
    )


class Lived(NamedTuple):
    """After a visit's interval: the state, days lived in it without progression, and whether it was passed."""

    state: Any
    days: Float[Array, "..."]
    passed: Bool[Array, "..."]


def lived_exactly(model: AbstractCompartmentModel, state: Any, dose: Array) -> Lived:
    """An interval of a true patient: the burden is looked at every morning, as in the daily decisions."""

    def day(_: Array, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        state, days, inside = carry
        state, (burden,) = held(model, state, dose, days=1.0, steps=1)
        return state, days + inside, inside & (burden <= PROGRESSION)

    burden = model.burden(state)
    start = (state, jnp.zeros_like(burden), jnp.ones(burden.shape, bool))
    state, days, passed = jax.lax.fori_loop(0, VISIT, day, start)
    return Lived(state, days, passed)


def lived_coarsely(model: TurnoverCompetition, state: State, dose: Array, steps: int = 2) -> Lived:
    """An interval of an imagined patient: two long steps, the day of progression by interpolation of ln N."""
    before = model.burden(state)
    state, burdens = held(model, state, dose, days=VISIT, steps=steps)
    days, passed = jnp.zeros_like(burdens[-1]), jnp.ones(burdens[-1].shape, bool)
    for after in burdens:
        rise = jnp.log(after) - jnp.log(before)
        share = (jnp.log(PROGRESSION) - jnp.log(before)) / jnp.where(jnp.abs(rise) > 1e-12, rise, 1e-12)
        out = after > PROGRESSION
        lasted = jnp.where(out, jnp.clip(share, 0.0, 1.0), 1.0)
        days = days + jnp.where(passed, lasted * (VISIT / steps), 0.0)
        passed = passed & ~out
        before = after
    return Lived(state, days, passed)


class Truths(eqx.Module):
    """The patients that rules are tried on: a `model` of whatever class whose leaves are [patient], and the standard
    normal error of every reading (common to all rules)."""

    model: AbstractCompartmentModel
    errors: Float[Array, "patient visit"]

    @property
    def size(self) -> int:
        """How many."""
        return self.errors.shape[0]


def patients(n: int, visits: int, *, key: Array) -> Truths:
    """Fresh patients of the published equations, with their errors."""
    draw_key, error_key = jax.random.split(key)
    model = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n,)), tumors(drawn(n, key=draw_key)))
    return Truths(model, jax.random.normal(error_key, (n, visits)))
