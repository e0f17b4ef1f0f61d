"""65 virtual patients, and the volume of cytarabine that gives the published share of leukopenia."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.jost2020.bank import SLOTS, STEPS_PER_DAY, Cycle, simulate
from tumortwin.models import LeukemiaMyelosuppression

# Log standard deviation of what differs between patients, around the defaults of the model (their sources stand there).
# No table of them could be read: framework defaults, of the size that population models of white cells report.
SPREAD = {
    "baseline": 0.30,
    "transit_rate": 0.15,
    "kill_slope": 0.35,
    "division_exponent": 0.10,
    "maturation_exponent": 0.10,
    "start_marrow": 0.40,
}
# Blasts at the start: a gap. 5 G/L is 1 % of the marrow (remission is below 5 %); chosen so that nearly all patients
# keep below 5 % on day 28 under full cytarabine, before any schedule was optimised.
START_MARROW, START_BLOOD = 5.0, 0.05  # [G/L]
LEUKOPENIA = 1.0  # [G/L]: white cells below it
PLAIN = Cycle(-17.0, 42.0, ())
FROM = round(-PLAIN.first * STEPS_PER_DAY)  # index of day 0
VOLUMES = (5.0, 50_000.0)  # [L], searched


def patients(number: int, seed: int, volume: float | None = None) -> LeukemiaMyelosuppression:
    """Models with parameters [patient]."""
    rng = np.random.default_rng(seed)
    default = LeukemiaMyelosuppression(start_marrow=jnp.asarray(START_MARROW), start_blood=jnp.asarray(START_BLOOD))
    drawn = {
        name: jnp.asarray(float(getattr(default, name)) * np.exp(spread * rng.normal(size=number)))
        for name, spread in SPREAD.items()
    }
    found = dataclasses.replace(default, **drawn)
    return found if volume is None else with_volume(found, volume)


def with_volume(models: LeukemiaMyelosuppression, volume: float | Array) -> LeukemiaMyelosuppression:
    """The same patients with another volume of cytarabine [L]."""
    return eqx.tree_at(lambda m: m.volume, models, jnp.asarray(volume))


def calibrated_volume(models: LeukemiaMyelosuppression, share: float) -> tuple[float, float]:
    """The volume [L] at which `share` of the patients has leukopenia under full cytarabine and no growth factor, and
    the share that is reached (patients are counted: the nearest number of them).

    A nadir rises with the volume, so bisection in the log finds the volume at which the wanted number of patients is
    below the limit; the middle between it and the volume of the next patient is taken.
    """
    lowest = eqx.filter_jit(
        lambda v: jnp.min(
            simulate(with_volume(models, v), PLAIN, jnp.ones(len(SLOTS)), jnp.zeros(0)).white[FROM:], axis=0
        )
    )
    n = models.baseline.size
    ends = [_crossing(lowest, k) for k in (round(share * n), round(share * n) + 1)]
    volume = float(np.sqrt(ends[0] * ends[1]))
    return volume, float(np.mean(np.asarray(lowest(jnp.asarray(volume))) < LEUKOPENIA))


def _crossing(lowest, number: int) -> float:  # noqa: ANN001
    """The largest volume with at least `number` patients below the limit."""
    low, high = (float(np.log(v)) for v in VOLUMES)
    for _ in range(30):
        middle = 0.5 * (low + high)
        enough = int(np.sum(np.asarray(lowest(jnp.asarray(np.exp(middle)))) < LEUKOPENIA)) >= number
        low, high = (middle, high) if enough else (low, middle)
    return float(np.exp(low))
