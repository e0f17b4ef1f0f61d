"""Simulated mice: a Gompertz population of eight animals, and two truths that it does not hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import LogNormal

from tumortwin.inference import AbstractProblem, Measurements, NutsCalibrator, PopulationProblem, Posterior, Varying
from tumortwin.models import Gompertz, Logistic
from tumortwin.observation import CombinedError
from tumortwin.twin import BurdenCurves

ANIMALS = 8
FITTED = (8.0, 11.0, 14.0, 17.0, 20.0, 23.0)  # [day]
HELD_OUT = (26.0, 29.0)  # [day]
RATES = ("growth_rate", "deceleration")
CORRELATION, FORECAST, FIT = "correlation_of_rates", "held_out", "log_likelihood"
JUDGED = (
    "typical.growth_rate",
    "typical.deceleration",
    "between.growth_rate",
    "between.deceleration",
    CORRELATION,
    "residual.sd",
    "residual.cv",
)
"""The parameters whose ranks are judged."""

SAMPLER = NutsCalibrator(
    laplace=None,
    dense=True,
    chains=2,
    warmup=200,
    draws=250,
    chunk=450,
    vectorized=True,
    accept=0.85,
    tree_depth=8,
    warmup_tree_depth=5,
)

# The first truth that is wrong: logistic growth; medians, log-sd between populations and between animals. The logistic
# curve that is nearest to a Gompertz tumor of median parameters over days 8-29: off by a factor of .56 to 1.57.
LOGISTIC = {"growth_rate": (0.485, 0.08, 0.08), "carrying_capacity": (3000.0, 0.2, 0.2)}
# The second: errors of a Student distribution, of the same scale.
DEGREES = 3.0


def problem_of(values: Array) -> PopulationProblem:
    """The model that is fitted to volumes [animal, day of FITTED]; its priors are those that truths are drawn from.

    Lewis lung carcinoma (alpha .75, beta .08 /day; errors of 20 mm^3 and 10 %); populations and animals within a
    population differ by some 10 %, which keeps the volumes of day 29 within what a mouse can bear in most draws.
    """
    days = jnp.broadcast_to(jnp.asarray(FITTED), (ANIMALS, len(FITTED)))
    data = Measurements(days, values, values, jnp.ones_like(days))
    varying = {
        "growth_rate": Varying(LogNormal(np.log(0.75), 0.08), LogNormal(np.log(0.08), 0.3), centered=True),
        "deceleration": Varying(LogNormal(np.log(0.08), 0.08), LogNormal(np.log(0.10), 0.3), centered=True),
    }
    error = CombinedError(jnp.asarray(20.0), jnp.asarray(0.1))
    priors = {"sd": LogNormal(np.log(20.0), 0.4), "cv": LogNormal(np.log(0.1), 0.4)}
    model = Gompertz(jnp.asarray(0.75), jnp.asarray(0.08))
    return PopulationProblem(model, varying, error, priors, data, BurdenCurves(), RATES, concentration=4.0)


@dataclasses.dataclass(frozen=True)
class Mice:
    """Draws a truth and its data under one `law`: `gompertz` (the fitted model), `logistic` or `heavy_tails`."""

    law: str
    base: PopulationProblem

    def __call__(self, key: Array) -> tuple[AbstractProblem, Mapping[str, Any]]:
        truth, seen = _simulated(self.base, self.law, key)
        given = seen[:, : len(FITTED)]
        problem = eqx.tree_at(lambda p: (p.data.lower, p.data.upper), self.base, (given, given))
        found = {FORECAST: np.asarray(seen[:, len(FITTED) :])}
        if self.law == "logistic":
            return problem, found
        found |= {path: np.asarray(truth[path]) for path in JUDGED if path != CORRELATION}
        found[CORRELATION] = np.asarray(truth["correlation"][0, 1])
        found[FIT] = np.asarray(_fit(problem, {path: value[None] for path, value in truth.items()})[0])
        return problem, found


def quantities(problem: AbstractProblem, posterior: Posterior, key: Array) -> dict[str, np.ndarray]:
    """Draws [chain, draw, ...] of the correlation, the log-likelihood and the held-out volumes with their error."""
    assert isinstance(problem, PopulationProblem)
    shape = posterior.weights.shape
    flat = {path: jnp.asarray(v).reshape(-1, *v.shape[2:]) for path, v in posterior.draws.items()}
    seen = np.asarray(_forecast(problem, flat, key))
    return {
        CORRELATION: posterior.draws["correlation"][..., 0, 1],
        FIT: np.asarray(_fit(problem, flat)).reshape(shape),
        FORECAST: seen.reshape(*shape, *seen.shape[1:]),
    }


@eqx.filter_jit
def _simulated(problem: PopulationProblem, law: str, key: Array) -> tuple[dict[str, Array], Array]:
    """Values by path, and volumes with their error on all days [animal, day]."""
    keys = jax.random.split(key, 3)
    truth = problem.constrain(problem.sample_prior(1, key=keys[0])[0])
    curve = _curve(problem, problem.bound(truth), (*FITTED, *HELD_OUT))
    if law == "logistic":
        curve = _curve(problem, _logistic(keys[2]), (*FITTED, *HELD_OUT))
    scale = jnp.sqrt(truth["residual.sd"] ** 2 + (truth["residual.cv"] * curve) ** 2)
    heavy = law == "heavy_tails"
    error = jax.random.t(keys[1], DEGREES, curve.shape) if heavy else jax.random.normal(keys[1], curve.shape)
    return truth, curve + scale * error


def _curve(problem: PopulationProblem, model: Any, days: tuple[float, ...]) -> Array:
    at = jnp.broadcast_to(jnp.asarray(days), (ANIMALS, len(days)))
    blank = jnp.zeros_like(at)
    return problem.solve(model, Measurements(at, blank, blank, blank))


def _logistic(key: Array) -> Logistic:
    found = {}
    for name, one in zip(LOGISTIC, jax.random.split(key, len(LOGISTIC)), strict=True):
        median, populations, animals = LOGISTIC[name]
        drawn = jax.random.normal(one, (1 + ANIMALS,))
        found[name] = median * jnp.exp(populations * drawn[0] + animals * drawn[1:])
    return Logistic(**found)


@eqx.filter_jit
def _fit(problem: PopulationProblem, values: Mapping[str, Array]) -> Array:
    return jax.lax.map(lambda drawn: jnp.sum(problem.log_likelihoods(drawn)), dict(values))


@eqx.filter_jit
def _forecast(problem: PopulationProblem, values: Mapping[str, Array], key: Array) -> Array:
    def one(given: tuple[dict[str, Array], Array]) -> Array:
        drawn, noise_key = given
        curve = _curve(problem, problem.bound(drawn), HELD_OUT)
        return jnp.asarray(problem.error(drawn).noise(curve).sample(noise_key))

    n = next(iter(values.values())).shape[0]
    return jax.lax.map(one, (dict(values), jax.random.split(key, n)))
