"""The same counts told by another class of models: three transit stages, and blasts that know no white cell.

Every patient of the published equations goes through one standard cycle (full cytarabine, ten vials from day 7); white
cells are counted every other day and blasts in the marrow on three days, with an error of 10 %. The other class is
fitted to this record, one patient at a time, by the mode of

$$ \\sum_k \\left(\\frac{\\ln f_\\theta(t_k) - y_k}{\\sigma}\\right)^2
   + \\sum_i \\left(\\frac{\\ln\\theta_i - \\ln m_i}{s_i}\\right)^2 $$

(Levenberg-Marquardt, Optimistix; weak priors). How sensitive blasts are to cytarabine is free, too (`blast_division`,
which no longer sets their growth). The fitted patient would have shown the same record; under another
schedule he goes his own way: cells come back after another delay, and fewer white cells do not speed up the blasts.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from experiments.jost2020.bank import MARROW, SLOTS, STEPS_PER_DAY, Law, simulate
from experiments.jost2020.optimised import FROM, PLANNED, standard_factor
from experiments.jost2020.patients import SPREAD, START_BLOOD, START_MARROW
from tumortwin.models import LeukemiaMyelosuppression

STAGES = 3
COUNTED, ASPIRATED = np.arange(0, 29, 2), np.asarray([0, 14, 28])  # [day] of white cells, of marrow
NOISE = 0.1  # [ln]
SPREADS = 0.7  # [ln] about the centers: weak, a factor of two either way
TOLERANCE, STEPS = 1e-6, 60


@dataclasses.dataclass(frozen=True)
class Other:
    """Patients of the other class; root mean square of (model - reading) / noise of white cells and of blasts
    [patient], 1 where nothing but noise is left."""

    models: LeukemiaMyelosuppression
    law: Law
    misfit_white: Float[np.ndarray, " patient"]
    misfit_blasts: Float[np.ndarray, " patient"]


def centers() -> dict[str, float]:
    """The middle of the prior: the same mean transit time, (stages + 1) over the rate, and the same growth of blasts
    at the start."""
    with jax.ensure_compile_time_eval():  # numbers, also where a compiled function asks
        m = LeukemiaMyelosuppression(start_marrow=jnp.asarray(START_MARROW), start_blood=jnp.asarray(START_BLOOD))
        middle = {name: float(getattr(m, name)) for name in SPREAD}
        renewal = m.self_renewal / (1.0 + m.inhibition * (m.baseline + m.start_blood))
        growth = m.blast_division * (2.0 * renewal - 1.0) / np.log(MARROW / START_MARROW)
        middle |= {"blast_growth": float(growth), "blast_division": float(m.blast_division)}
    middle["transit_rate"] *= (STAGES + 1.0) / 2.0
    return middle


def described(theta: Float[Array, "... parameter"], volume: Array) -> tuple[LeukemiaMyelosuppression, Law]:
    """The model of the logs over the centers."""
    middle = centers()
    values = {name: middle[name] * jnp.exp(theta[..., i]) for i, name in enumerate(middle)}
    growth = values.pop("blast_growth")
    default = LeukemiaMyelosuppression(start_blood=jnp.asarray(START_BLOOD), volume=volume)
    return dataclasses.replace(default, **values), Law(STAGES, growth)


def _readings(models: LeukemiaMyelosuppression, law: Law) -> Float[Array, "reading ..."]:
    """ln of white cells, then ln of blasts, under the standard."""
    found = simulate(models, PLANNED, jnp.ones(len(SLOTS)), jnp.asarray(standard_factor(True)), law)
    at = [FROM + days * STEPS_PER_DAY for days in (COUNTED, ASPIRATED)]
    return jnp.concatenate([jnp.log(found.white[at[0]]), jnp.log(found.marrow[at[1]])])


@eqx.filter_jit
def fitted(
    record: Float[Array, "patient reading"], volume: Array
) -> tuple[Float[Array, "patient parameter"], Float[Array, "patient reading"]]:
    """The mode of every patient, and (model - reading) / noise there."""
    size = len(centers())

    def residuals(theta: Array, readings: Array) -> Array:
        miss = (_readings(*described(theta, volume)) - readings) / NOISE
        return jnp.concatenate([miss, theta / SPREADS])

    def one(readings: Array) -> tuple[Array, Array]:
        solver = optx.LevenbergMarquardt(rtol=TOLERANCE, atol=TOLERANCE)
        found = optx.least_squares(residuals, solver, jnp.zeros(size), readings, max_steps=STEPS, throw=False)
        return found.value, residuals(found.value, readings)[: readings.size]

    return jax.vmap(one)(record)


def retold(models: LeukemiaMyelosuppression, seed: int) -> Other:
    """The other class fitted to the noisy record of each of `models` (the published class)."""
    exact = np.asarray(eqx.filter_jit(_readings)(models, Law())).T
    record = exact + NOISE * np.random.default_rng(seed).normal(size=exact.shape)
    theta, miss = fitted(jnp.asarray(record), models.volume)
    white, blasts = (np.sqrt(np.mean(p**2, axis=1)) for p in np.split(np.asarray(miss), [COUNTED.size], axis=1))
    return Other(*described(theta, models.volume), white, blasts)
