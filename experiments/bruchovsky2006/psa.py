"""PSA of one patient under intermittent treatment: parameters, curve, likelihood, and the next on-phase."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.bruchovsky2006.cycles import Records
from tumortwin.models import StemSource, StemSourceState
from tumortwin.observation import LogNormalError

# [day] a course of treatment: 36 weeks (Bruchovsky et al. 2006).
COURSE = 252.0

# (name, typical value, sd between patients on the parameter's scale) before any patient is seen; framework defaults.
# The typical value counts as much as one patient, the spreads as much as `population.PSEUDO`.
PARAMETERS: tuple[tuple[str, float, float], ...] = (
    ("start", 12.0, 0.7),  # [ng/mL]
    ("start_source", 0.015, 1.0),  # [ng/mL/day]
    ("source_rate", 5e-4, 5e-4),  # [1/day]
    ("growth_rate", 2e-3, 2e-3),  # [1/day]
    ("decline_rate", 0.05, 0.4),  # [1/day]
    ("source_share", 0.7, 0.7),  # [1]
    ("lag", 40.0, 0.5),  # [day] that a course acts beyond its last visit: depots, and testosterone that has to recover
    ("log_sd", 0.3, 0.3),  # [1] of a reading
)
NAMES = tuple(name for name, _, _ in PARAMETERS)
EITHER_SIGN = ("source_rate", "growth_rate")  # these scatter as they are, the others in their logarithms


def scaled(name: str, value: float) -> float:
    """A parameter on the scale on which patients scatter."""
    return value if name in EITHER_SIGN else float(np.log(value))


class Course(eqx.Module):
    """One row of `Records`, as arrays for a compiled function."""

    times: Float[Array, "*row reading"]
    lower: Float[Array, "*row reading"]
    upper: Float[Array, "*row reading"]
    valid: Array
    switches: Float[Array, "*row switch"]
    until: Float[Array, "*row"]


def courses_of(records: Records) -> Course:
    """All rows, as arrays with a leading axis."""
    fields = (records.times, records.lower, records.upper, records.valid, records.switches, records.until)
    return Course(*(jnp.asarray(f) for f in fields))


def values_of(parameters: Float[Array, " parameter"]) -> dict[str, Array]:
    """The natural values of one patient's parameters."""
    return {name: parameters[i] if name in EITHER_SIGN else jnp.exp(parameters[i]) for i, name in enumerate(NAMES)}


def model_of(parameters: Float[Array, " parameter"]) -> StemSource:
    """The patient's model; `lag` belongs to the treatment and `log_sd` to the readings."""
    values = values_of(parameters)
    return StemSource(**{name: values[name] for name in NAMES if name not in ("lag", "log_sd")})


def acting(switches: Float[Array, " switch"], lag: Float[Array, ""]) -> Float[Array, " switch"]:
    """The switches as the tumor feels them: each off comes `lag` days late, though not after the next on."""
    late = jnp.minimum(switches + lag, jnp.append(switches[1:], jnp.inf))
    return jnp.where(jnp.arange(switches.size) % 2 == 1, late, switches)


def states_at(model: StemSource, switches: Float[Array, " switch"], days: Float[Array, " day"]) -> StemSourceState:
    """States on `days` >= 0 under a treatment that is switched on, off, on, ... on `switches` (the first: day 0).

    Each phase starts where the last one ended, and each day is reached from the start of its phase: the number of
    steps is that of the switches, not that of the readings.
    """
    finite = jnp.isfinite(switches)
    starts = jnp.where(finite, switches, jnp.max(jnp.where(finite, switches, 0.0)))
    on = jnp.arange(switches.size) % 2 == 0
    lengths = jnp.diff(starts, append=starts[-1:])

    def phase(state: Any, now: tuple[Array, Array]) -> tuple[Any, Any]:
        return model.advance(state, now[0], now[1]), state

    _, at_switch = jax.lax.scan(phase, model.initial(), (lengths, on * 1.0))
    which = jnp.clip(jnp.sum(switches[None] <= days[:, None], axis=1) - 1, 0)
    begun = jax.tree.map(lambda x: x[which], at_switch)
    return jax.vmap(model.advance)(begun, days - starts[which], on[which] * 1.0)


def curve_of(
    parameters: Float[Array, " parameter"], course: Course, days: Float[Array, " day"]
) -> Float[Array, " day"]:
    """PSA [ng/mL] on `days`."""
    model, switches = model_of(parameters), acting(course.switches, values_of(parameters)["lag"])
    return model.burden(states_at(model, switches, days))


def log_likelihood(parameters: Float[Array, " parameter"], course: Course) -> Float[Array, ""]:
    """Of all readings; what is not quantified is an interval."""
    curve = curve_of(parameters, course, course.times)
    error = LogNormalError(values_of(parameters)["log_sd"])
    lower, upper = (jnp.where(course.valid, bound, 1.0) for bound in (course.lower, course.upper))
    terms = error.log_likelihood(jnp.where(course.valid, curve, 1.0), lower, upper)
    return jnp.sum(jnp.where(course.valid, terms, 0.0))


def next_course(parameters: Float[Array, " parameter"], course: Course) -> Float[Array, ""]:
    """Log of the PSA [ln ng/mL] at the end of 36 weeks of treatment that would begin on the last known day."""
    model, switches = model_of(parameters), acting(course.switches, values_of(parameters)["lag"])
    now = jax.tree.map(lambda x: x[0], states_at(model, switches, course.until[None]))
    return jnp.log(model.burden(model.advance(now, jnp.asarray(COURSE), jnp.asarray(1.0))))
