"""A table of subjects under one compartment model: their curves, and forecasts of single subjects."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference import Measurements, PopulationProblem, Posterior
from tumortwin.solvers import simulate_compartment

CHUNK = 25
MOST_FAILED = 0.05


class BurdenCurves(eqx.Module):
    """The burden of every subject on its days: the `solve` of a `PopulationProblem`.

    A subject whose solve failed is NaN from day to day, which the problem counts as impossible.
    """

    def __call__(self, model: Any, data: Measurements) -> Float[Array, "subject time"]:
        found = simulate_compartment(model, data.times, exposure=data.given)
        return jnp.where(found.succeeded[:, None], found.burden, jnp.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class CohortForecast:
    """What is expected of every subject on its days.

    `days` [subject, time] of the problem's clock; `curve` [draw, subject, time], the burden; `predictive`, a new
    measurement of it, its error included; `failed`: draws that were left out because a subject could not be solved.
    """

    days: Float[np.ndarray, "subject time"]
    curve: Float[np.ndarray, "draw subject time"]
    predictive: Float[np.ndarray, "draw subject time"]
    failed: int


def forecast_cohort(
    problem: PopulationProblem,
    posterior: Posterior,
    days: Float[np.ndarray, "subject time"],
    *,
    n_draws: int = 200,
    key: Array,
) -> CohortForecast:
    """The subjects of `problem` on other `days`, under the treatment that its data hold.

    `days` [subject, time], in any order; `n_draws` of equal weight are taken from the posterior.

    **Raises:** `ValueError` when more than 5 % of the draws could not be solved: the model does not suit the data.

    **Good values:** 200 draws for medians and 95 % intervals of a report; 1000 for tails.
    """
    rows_key, noise_key = jax.random.split(key)
    rows = posterior.resample_rows(n_draws, key=rows_key)
    draws = {p: v.reshape(-1, *v.shape[2:])[rows] for p, v in posterior.draws.items()}
    blank = jnp.zeros(days.shape)
    asked = eqx.tree_at(
        lambda data: (data.times, data.lower, data.upper, data.valid),
        problem.data,
        (jnp.asarray(days, blank.dtype), blank, blank, jnp.ones(days.shape)),
    )
    keys, parts = jax.random.split(noise_key, n_draws), []
    for start in range(0, n_draws, CHUNK):
        part = {path: jnp.asarray(value[start : start + CHUNK]) for path, value in draws.items()}
        parts.append(jax.tree.map(np.asarray, _predicted(problem, asked, part, keys[start : start + CHUNK])))
    curve, predictive = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    good = np.isfinite(curve).all(axis=(1, 2)) & np.isfinite(predictive).all(axis=(1, 2))
    failed = int((~good).sum())
    if failed > MOST_FAILED * n_draws:
        raise ValueError(
            f"required: at most {MOST_FAILED:.0%} of the draws that cannot be solved up to the last day asked for; "
            f"received: {failed} of {n_draws}; try: a shorter horizon, or another model"
        )
    return CohortForecast(np.asarray(days, float), curve[good], predictive[good], failed)


@eqx.filter_jit
def _predicted(
    problem: PopulationProblem, asked: Measurements, draws: dict[str, Array], keys: Array
) -> tuple[Array, Array]:
    def one(values: dict[str, Array], key: Array) -> tuple[Array, Array]:
        curve = problem.solve(problem.bound(values), asked)
        noisy = problem.error(values).noise(jnp.where(jnp.isfinite(curve), curve, 1.0)).sample(key)
        return curve, jnp.where(jnp.isfinite(curve), noisy, jnp.nan)

    return jax.lax.map(lambda pair: one(*pair), (draws, keys))
