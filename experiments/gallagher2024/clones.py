"""The same records told by another class of models: two clones that leave each other alone.

Every patient of the published equations is treated by a simple rule (stop below half of the baseline, restart at 70 %)
until progression. Independent clones are fitted to the readings of that record, one patient at a time:

$$ \\hat\\theta = \\arg\\min_\\theta \\sum_k \\left(\\frac{\\ln N_\\theta(t_k) - y_k}{\\sigma}\\right)^2
   + \\sum_i \\left(\\frac{\\theta_i - m_i}{s_i}\\right)^2, \\qquad \\theta = \\ln(g_S, k, g_R), \\; logit(R_0 / N_0) $$

by Levenberg-Marquardt (Optimistix) from several shares of resistant cells. The fitted patient is a truth that would
have shown the same record and has another future: its resistant clone does not care how big the tumor is.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from experiments.gallagher2024.course import Courses
from experiments.gallagher2024.population import BASELINE, NOISE, PUBLISHED, VISIT, Truths
from tumortwin.models import IndependentClones

# Weak: the growth of the published patient's cells at the baseline, and what the drug takes; a factor e either way
# (e^3 for the share of resistant cells).
_ROOM = 1.0 - BASELINE
CENTER = (
    float(np.log(PUBLISHED.sensitive_rate * _ROOM - PUBLISHED.sensitive_death)),
    float(np.log(PUBLISHED.sensitive_rate * _ROOM * PUBLISHED.kill_of_division)),
    float(np.log(PUBLISHED.resistant_rate * _ROOM - PUBLISHED.resistant_death)),
    float(np.log(PUBLISHED.start_resistant / BASELINE)),
)
SPREAD = (1.0, 1.0, 1.0, 3.0)
STARTS = (-4.0, -2.0, 0.0, 2.0, 4.0)  # of the logit of the resistant share, about its center
TOLERANCE, STEPS = 1e-6, 200


@dataclasses.dataclass(frozen=True)
class Retold:
    """The `truths` of the other class; `misfit` [patient]: root mean square of (model - reading) / noise over the
    record, 1 where nothing but noise is left; and how many readings each had."""

    truths: Truths
    misfit: Float[np.ndarray, " patient"]
    readings: np.ndarray


def clones(theta: Float[Array, "... parameter"]) -> IndependentClones:
    """The model of ln g_S, ln k, ln g_R and the logit of the resistant share; all begin with the baseline."""
    growth, kill, resistant = (jnp.exp(theta[..., k]) for k in range(3))
    return IndependentClones(growth, kill, resistant, jax.nn.sigmoid(theta[..., 3]), jnp.full_like(growth, BASELINE))


def _log_burden(theta: Float[Array, " parameter"], doses: Float[Array, " visit"]) -> Float[Array, " visit"]:
    """ln N at the end of every interval, in closed form."""
    model = clones(theta)
    first = model.initial()
    days = VISIT * jnp.arange(1, doses.size + 1)
    sensitive = jnp.log(first.sensitive) + model.growth_rate * days - model.drug_kill * VISIT * jnp.cumsum(doses)
    return jnp.logaddexp(sensitive, jnp.log(first.resistant) + model.resistant_rate * days)


@eqx.filter_jit
def _fitted(doses: Array, readings: Array, seen: Array) -> tuple[Array, Array]:
    """The best fit [patient parameter] over the starts, and its misfit [patient]."""
    center, spread = jnp.asarray(CENTER), jnp.asarray(SPREAD)

    def residuals(theta: Array, record: tuple[Array, Array, Array]) -> Array:
        dose, reading, there = record
        miss = jnp.where(there, (_log_burden(theta, dose) - reading) / NOISE, 0.0)
        return jnp.concatenate([miss, (theta - center) / spread])

    def from_start(offset: Array, record: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        solver = optx.LevenbergMarquardt(rtol=TOLERANCE, atol=TOLERANCE)
        found = optx.least_squares(residuals, solver, center.at[3].add(offset), record, max_steps=STEPS, throw=False)
        return found.value, jnp.sum(residuals(found.value, record) ** 2)

    def one(record: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        values, losses = jax.vmap(lambda offset: from_start(offset, record))(jnp.asarray(STARTS))
        best = values[jnp.argmin(losses)]
        miss = residuals(best, record)[: record[0].size]
        return best, jnp.sqrt(jnp.sum(miss**2) / jnp.sum(record[2]))

    return jax.vmap(one)((doses, readings, seen))


def retold(truths: Truths, record: Courses) -> Retold:
    """Patients of the other class with the same errors, fitted to `record` (what `truths` went through)."""
    # A reading ends the interval it stands at; that of the interval of progression is there, too.
    seen = np.isfinite(record.burden)
    theta, misfit = _fitted(jnp.asarray(record.dose), jnp.asarray(record.reading), jnp.asarray(seen))
    return Retold(Truths(clones(theta), truths.errors), np.asarray(misfit), seen.sum(axis=1))
