"""One mouse: a Gompertz tumor measured six times by caliper."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro.distributions import Distribution, LogNormal

from experiments.amortised.study import Case
from experiments.calibration.population import FITTED
from tumortwin.inference import AbstractProblem, NutsCalibrator, Posterior, Prior, Problem
from tumortwin.models import Gompertz
from tumortwin.observation import AbstractObservation, CombinedError, Datum
from tumortwin.params import parameter
from tumortwin.solvers import simulate_compartment
from tumortwin.surrogates import AbstractFeatures, Counted, FreshSimulator, counted, noisy_values, predicted_values

RATE, DECELERATION, SD, CV = "growth_rate", "deceleration", "observation.volume.sd", "observation.volume.cv"
JUDGED = (RATE, DECELERATION, SD, CV)
SHORT = {SD: "error_sd", CV: "error_cv"}
FIT = "log_likelihood"
# A new mouse of the populations of experiments/calibration: log-sd .08 between populations and .10 between animals.
SPREAD = float(np.hypot(0.08, 0.10))
ADDITIVE, SHARE = 20.0, 0.1  # [mm^3] and [1]: medians of the two parts of the error, as there


class Caliper(AbstractObservation):
    """A volume [mm^3] with combined error, `Var(y) = sd^2 + (cv V)^2`."""

    sd: Float[Array, ""] = parameter(unit="mm^3")
    cv: Float[Array, ""] = parameter(unit="1")

    def at_visit(self, visit: Int[Array, ""] | int | None) -> "Caliper":
        """Itself: nothing varies from visit to visit."""
        del visit
        return self

    def predict(self, density: Array) -> Array:
        """The volume itself."""
        return density

    def noise(self, prediction: Array) -> Distribution:
        return self._error.noise(prediction)

    def residual(self, prediction: Array, values: Array) -> Array:
        return self._error.standardized(prediction, values)

    def information(self, prediction: Array) -> Array:
        return 1 / self._error.scale(prediction) ** 2

    def log_scale(self, prediction: Array) -> Array:
        return jnp.log(self._error.scale(prediction))

    @property
    def _error(self) -> CombinedError:
        return CombinedError(self.sd, self.cv)


class Stabilized(AbstractFeatures):
    """`asinh(cv y / sd) / cv`: on this scale the combined error has variance 1, whatever the volume.

    **Arguments:** `bend` sd / cv [mm^3], `share` cv [1], both at the medians of the prior.
    """

    bend: Array
    share: Array

    def __call__(self, values: Float[Array, " value"]) -> Float[Array, " feature"]:
        return jnp.arcsinh(values / self.bend) / self.share


def prior() -> Prior:
    """Rates of a new mouse and the error of its volumes, as `experiments/calibration` draws them."""
    return Prior(
        {
            RATE: LogNormal(np.log(0.75), SPREAD),
            DECELERATION: LogNormal(np.log(0.08), SPREAD),
            SD: LogNormal(np.log(ADDITIVE), 0.4),
            CV: LogNormal(np.log(SHARE), 0.4),
        }
    )


def template() -> Problem:
    """The problem with empty volumes."""
    model = Gompertz(jnp.asarray(0.75), jnp.asarray(0.08))
    observations: dict[str, AbstractObservation] = {"volume": Caliper(jnp.asarray(ADDITIVE), jnp.asarray(SHARE))}
    return Problem(model, observations, prior(), tuple(Datum(day, "volume", 0.0) for day in FITTED), _volumes)


def _volumes(model: Gompertz, days: tuple[float, ...]) -> Float[Array, " time"]:
    found = simulate_compartment(model, jnp.asarray(days)[None])
    return jnp.where(found.succeeded[:, None], found.burden, jnp.nan)[0]


@dataclasses.dataclass(frozen=True)
class Mice:
    """Draws a truth from the prior and its volumes."""

    base: Problem

    def __call__(self, key: Array) -> tuple[AbstractProblem, Mapping[str, Any]]:
        truth, volumes, fit = _simulated(self.base, counted(self.base), key)
        problem = with_volumes(self.base, volumes)
        return problem, {path: np.asarray(truth[path]) for path in JUDGED} | {FIT: np.asarray(fit)}


def with_volumes(base: Problem, volumes: Float[Array, " time"]) -> Problem:
    """The problem with these volumes [mm^3] in the order of its days."""
    return eqx.tree_at(lambda p: tuple(d.values for d in p.data), base, tuple(volumes))


def fits(problem: AbstractProblem, posterior: Posterior, key: Array) -> dict[str, np.ndarray]:
    """The log-likelihood of every draw: what moves with all parameters at once."""
    del key
    assert isinstance(problem, Problem)
    flat = {path: jnp.asarray(posterior.draws[path]).ravel() for path in JUDGED}
    return {FIT: np.asarray(_fit(problem, flat)).reshape(posterior.weights.shape)}


def case(batch: int) -> Case:
    """Training on fresh simulations: a solve is a closed form."""
    base = template()
    features = Stabilized(jnp.asarray(ADDITIVE / SHARE), jnp.asarray(SHARE))
    sampler = NutsCalibrator(warmup=300, draws=1000, chunk=650, vectorized=True, accept=0.9)
    return Case("mouse", base, FreshSimulator(base, batch), features, Mice(base), JUDGED, SHORT, sampler, fits)


@eqx.filter_jit
def _simulated(problem: Problem, chosen: Counted, key: Array) -> tuple[dict[str, Array], Array, Array]:
    draw_key, noise_key = jax.random.split(key)
    z = problem.sample_prior(1, key=draw_key)[0]
    values, truth = predicted_values(problem, chosen, z), problem.constrain(z)
    volumes = noisy_values(problem, chosen, z, values, key=noise_key)
    return truth, volumes, problem_fit(with_volumes(problem, volumes), truth)


def problem_fit(problem: Problem, values: Mapping[str, Array]) -> Array:
    """The log-likelihood of one set of values."""
    return jnp.sum(problem.log_likelihoods(values))


@eqx.filter_jit
def _fit(problem: Problem, values: Mapping[str, Array]) -> Array:
    return jax.lax.map(lambda drawn: problem_fit(problem, drawn), dict(values))
