"""A breast tumor under two drugs: logistic growth, kills that decay after every dose, survivors that resist a while.

$$ N_i' = k N_i (1 - N / \\theta) - \\lambda_i(t) N_i + \\text{exchange}, \\qquad
   \\lambda_d(t) = \\alpha_d \\sum_j w_{dj} e^{-\\beta_d (t - \\tau_{dj})} H(t - \\tau_{dj}) $$

with populations S (sensitive to both), A (spared by the anthracycline pair) and T (spared by the taxane). Of the
sensitive cells that drug d would kill a share `escape_d` enters the population that d spares; from there cells return
to S at `reversion`. Drug d kills the population that it spares at `spared_d` of its rate.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.control import Curve
from tumortwin.treatments import Course

ANTHRACYCLINE, TAXANE = "anthracycline_cyclophosphamide", "taxane"
AFTER = 21.0  # [day] from the last dose to the day that is judged
STEPS = 240  # equal steps from day 0 to the day that is judged
HALF_LIFE = {
    ANTHRACYCLINE: 30.0 / 24.0,
    TAXANE: 20.0 / 24.0,
}  # [day] of the kill; a gap of the source: default

# Median and log standard deviation of each parameter of a draw. Growth and kill lie in the published ranges ([0, .5]
# and [0, 1] per day, demonstration .025 and .2); all spreads, escape, reversion and sparing are framework defaults.
PRIOR = {
    "growth_rate": (0.025, 0.3),  # [1/day]
    "filled": (0.3, 0.3),  # [1], start over capacity
    "kill_anthracycline": (0.45, 0.3),  # [1/day] a full dose
    "kill_taxane": (0.25, 0.3),  # [1/day] a weekly dose
    "escape_anthracycline": (0.10, 0.3),  # [1]
    "escape_taxane": (0.25, 0.3),  # [1]
    "spared_anthracycline": (0.15, 0.3),  # [1]
    "spared_taxane": (0.25, 0.3),  # [1]
    "reversion": (0.02, 0.3),  # [1/day]
}


MOST = 0.9  # of any of them


def draws(number: int, seed: int) -> dict[str, Array]:
    """Log-normal draws of every parameter; none above .9."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, (median, spread) in PRIOR.items():
        found[name] = jnp.asarray(np.minimum(median * np.exp(spread * rng.normal(size=number)), MOST))
    return found


def killed(course: Course, decay: float, days: Float[Array, " edge"]) -> Float[Array, " step"]:
    """Integral over every step of the sum of the dose-weighted exponentials, a dose at a time."""
    age = jnp.maximum(days[:, None] - course.times[None, :], 0.0)
    done = jnp.sum(course.doses[None, :] * -jnp.expm1(-decay * age), axis=1) / decay
    return jnp.diff(done)


def burden(draw: dict[str, Array], schedule: Any, *, steps: int = STEPS, end: float | None = None) -> Curve:
    """The tumor, as a share of its capacity, from day 0 to 21 days from the last dose, or to the day `end`."""
    last = schedule.end + AFTER if end is None else jnp.asarray(end)
    days = last * jnp.arange(steps + 1) / steps
    decay = {agent: np.log(2.0) / half for agent, half in HALF_LIFE.items()}
    kills = jnp.stack([killed(schedule.drugs[a], decay[a], days) for a in (ANTHRACYCLINE, TAXANE)], axis=1)
    start = jnp.stack([draw["filled"], 0.0 * draw["filled"], 0.0 * draw["filled"]])
    half = 0.5 * last / steps

    def step(cells: Array, kill: Array) -> tuple[Array, Array]:
        after_step = _growth(draw, _killed(draw, _growth(draw, cells, half), kill), half)
        return after_step, after_step

    _, cells = jax.lax.scan(step, start, kills)
    every = jnp.concatenate([start[None], cells])
    return Curve(days, jnp.sum(every, axis=1), units={"burden": "1"})


def _growth(draw: dict[str, Array], cells: Array, duration: Array) -> Array:
    """Logistic growth of the whole and return of the spared, each exact."""
    total, grown = jnp.sum(cells), jnp.exp(draw["growth_rate"] * duration)
    cells = cells * grown / (1.0 + total * (grown - 1.0))
    back = -jnp.expm1(-draw["reversion"] * duration) * cells[1:]
    return jnp.concatenate([cells[:1] + jnp.sum(back), cells[1:] - back])


def _killed(draw: dict[str, Array], cells: Array, kill: Array) -> Array:
    """One step of both drugs."""
    by_a, by_t = draw["kill_anthracycline"] * kill[0], draw["kill_taxane"] * kill[1]
    lost = cells[0] * -jnp.expm1(-(by_a + by_t))
    share = by_a / jnp.maximum(by_a + by_t, 1e-30)
    spared_a = cells[1] * jnp.exp(-draw["spared_anthracycline"] * by_a - by_t)
    spared_t = cells[2] * jnp.exp(-by_a - draw["spared_taxane"] * by_t)
    escaped = jnp.stack([draw["escape_anthracycline"] * share, draw["escape_taxane"] * (1.0 - share)]) * lost
    return jnp.stack([cells[0] - lost, spared_a + escaped[0], spared_t + escaped[1]])


class Timed(eqx.Module):
    """Two drug courses and the day of the last dose."""

    drugs: dict[str, Course]
    end: Float[Array, ""]
