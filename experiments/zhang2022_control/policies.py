"""Rules and schedules at visits, and when virtual patients progress under them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.zhang2022_control.virtual import SUBSTEPS, Model, moved, started
from tumortwin.control import AbstractFeedbackPolicy, HysteresisPolicy

VISIT = 28.0  # [day] between two decisions
HORIZON = 65  # visits: five years
PROGRESSION = 1.2  # of the first PSA (Gallagher et al. 2024)
STOPS, WIDTHS = (0.2, 0.35, 0.5, 0.65, 0.8, 1.0), (0.0, 0.2, 0.5)
NEVER = 1e-9  # a stop threshold that is never reached: continuous drug


class Followed(eqx.Module):
    """`days` [day] to progression or the horizon and days `on` drug until then, [virtual]; `crossed`: as `days`, by
    interpolation of the log burden within the last interval; the `burden` over the first at every visit and the `dose`
    from it on, [visit virtual]."""

    days: Float[Array, " virtual"]
    crossed: Float[Array, " virtual"]
    on: Float[Array, " virtual"]
    burden: Float[Array, "visit virtual"]
    dose: Float[Array, "visit virtual"]


def thresholds() -> tuple[list[str], Array, Array]:
    """Names, stop and restart: continuous drug, the trial's rule, then all thresholds of the grid."""
    pairs = [(NEVER, 1.0), (0.5, 1.0)] + [(s, s + w) for s in STOPS for w in WIDTHS]
    names = ["continuous", "adaptive", *(f"stop_{a:g}_restart_{b:g}" for a, b in pairs[2:])]
    stop, restart = (jnp.asarray(column) for column in zip(*pairs, strict=True))
    return names, stop, restart


@eqx.filter_jit
def followed(
    policy: AbstractFeedbackPolicy, model: Model, *, confirmed: bool = False, substeps: int = SUBSTEPS
) -> Followed:
    """Virtual patients under a policy that sees the burden at visits without error.

    Progression: the first visit above 1.2 of the first burden. `confirmed`: above it the drug is given whatever the
    policy says, and progression is the second such visit in a row (a rise off the drug that the drug undoes is none).
    """
    cells = started(model)
    first = cells[0] + cells[1]

    def visit(now: tuple, _: None) -> tuple[tuple, tuple[Array, Array]]:
        cells, memory, above, free, days, crossed, on = now
        seen = (cells[0] + cells[1]) / first
        memory, dose = jax.vmap(policy.decide)(memory, seen)
        dose = jnp.where(above, 1.0, dose) if confirmed else dose
        days, on = days + VISIT * free, on + VISIT * free * dose
        later = moved(model, cells, dose, jnp.asarray(VISIT, first.dtype), substeps)
        above_later = later[0] + later[1] > PROGRESSION * first
        ended = above & above_later if confirmed else above_later
        rise = jnp.log((later[0] + later[1]) / (cells[0] + cells[1]))
        share = jnp.clip(jnp.log(PROGRESSION / seen) / jnp.where(ended & (rise > 0.0), rise, 1.0), 0.0, 1.0)
        crossed = crossed + VISIT * free * jnp.where(ended, share, 1.0)
        return (later, memory, above_later, free * ~ended, days, crossed, on), (seen, dose)

    zero = jnp.zeros_like(first)
    begun = (cells, jax.vmap(policy.start)(jnp.ones_like(first)), zero > 1.0, jnp.ones_like(first), zero, zero, zero)
    (*_, days, crossed, on), (burden, dose) = jax.lax.scan(visit, begun, None, length=HORIZON)
    return Followed(days, crossed, on, burden, dose)


@eqx.filter_jit
def _of_thresholds(stop: Array, restart: Array, model: Model, confirmed: bool) -> tuple[Array, Array]:
    def one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        found = followed(HysteresisPolicy(*pair), model, confirmed=confirmed)
        return found.days, found.on

    return jax.lax.map(one, (stop, restart))


def under_thresholds(
    model: Model, *, confirmed: bool = False
) -> tuple[Float[np.ndarray, "policy virtual"], Float[np.ndarray, "policy virtual"]]:
    """Days to progression, and days on drug, under every pair of `thresholds`."""
    _, stop, restart = thresholds()
    days, on = _of_thresholds(stop, restart, model, confirmed)
    return np.asarray(days), np.asarray(on)
