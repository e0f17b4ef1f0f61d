"""The law of the lesions, its priors, and the table as the law reads it."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import LogNormal, Normal, TruncatedNormal

from tumortwin.inference import Prior, StateSpaceProblem, Steps, step_order
from tumortwin.io import Padded
from tumortwin.models import SwitchingGrowth, chance_weights
from tumortwin.observation import LesionReadings, Visits

SIX_WEEKS = 42.0  # [day]


def vector(*values: float) -> Array:
    """One value a regime."""
    return jnp.asarray(values, float)


def lesion_prior() -> Prior:
    """What is believed before the data; log-odds are normal, rates of the three regimes apart from each other.

    Regimes are labels: without ranges of their own a regime that few lesions are in takes the name of another one in
    some chains. Jumps are wider than steps, and a reader repeats an entry less often while a lesion moves.
    """
    rates = TruncatedNormal(
        vector(-0.2, 0.0, 0.1) / SIX_WEEKS,
        vector(0.1, 0.02, 0.05) / SIX_WEEKS,
        low=vector(-0.8, -0.04, 0.04) / SIX_WEEKS,
        high=vector(-0.04, 0.04, 0.5) / SIX_WEEKS,
    )
    return Prior(
        {
            "growth.rate": rates,
            "growth.size_exponent": Normal(0.3, 0.3).expand([3]),
            "growth.start": Normal(vector(0.0, 0.0), vector(1.0, 1.0)),
            "growth.moves": Normal(0.0, 1.0).expand([6]),
            "spread": LogNormal(jnp.log(vector(0.12, 0.06, 0.10)), 0.5 * jnp.ones(3)),
            "between": LogNormal(np.log(0.5), 0.5),
            "kept": Normal(vector(-2.5, -1.0, -2.5), 0.5 * jnp.ones(3)),
            "kept_by_class": Normal(1.0, 0.7),
            "duration_exponent": Normal(0.5, 0.2),
            "spread_exponent": Normal(0.3, 0.2),
            "time_exponent": Normal(0.0, 0.2),
            "jump_share": Normal(-3.0, 1.0).expand([3]),
            "jump_spread": LogNormal(np.log(0.45), 0.15),
            "jump_shift": Normal(0.0, 0.2),
            "vanishing": Normal(vector(-3.5, -6.0, -6.0), vector(1.0, 1.0, 1.0)),
            "vanishing_exponent": Normal(1.0, 0.5),
            "below_as_gone": Normal(0.0, 1.0),
            "returning": Normal(-4.0, 1.0),
        }
    )


def law(values: Mapping[str, Array]) -> LesionReadings:
    """The law with the given parameters."""
    get = {k: jnp.asarray(v) for k, v in values.items()}
    growth = SwitchingGrowth(**{k.removeprefix("growth."): v for k, v in get.items() if k.startswith("growth.")})
    return LesionReadings(growth, **{k: v for k, v in get.items() if "." not in k})


def steps_of(rows: Padded, known: np.ndarray) -> Steps:
    """The first `known` readings of every subject, as steps."""
    order = step_order(known)
    i, j = order.subject, order.reading
    duration = rows.times[i, j] - rows.times[i, j - 1]
    at = Visits(*(jnp.asarray(a) for a in (rows.values[i, j - 1], rows.times[i, j - 1], duration)))
    entry, lower, upper = (jnp.asarray(a[i, j]) for a in (rows.values, rows.lower, rows.upper))
    chances = jnp.asarray(chance_weights(duration))
    return Steps(at, entry, lower, upper, chances, jnp.asarray(order.place), order.counts)


def problem_of(rows: Padded, known: np.ndarray) -> StateSpaceProblem:
    """The first `known` readings of every subject and the law with its prior."""
    prior = lesion_prior()
    middle = eqx.filter_jit(prior.constrain)(jnp.zeros(prior.size))
    return StateSpaceProblem(law(middle), prior, steps_of(rows, known))
