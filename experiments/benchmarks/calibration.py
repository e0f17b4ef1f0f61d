"""Four parameters calibrated to images of 77 x 116 x 36 voxels of 1.5 x 1.5 x 3 mm over 120 days, with a posterior."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.inference import LaplaceCalibrator, MapCalibrator, Posterior, Prior, Problem, calibrate
from tumortwin.inference import truncated_log_normal as log_normal
from tumortwin.models import (
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.observation import AdcObservation, Datum
from tumortwin.params import set_parameters
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Course, Schedule, weekday_fractions

SHAPE, SPACING, DAYS, BOUND, NOISE = (77, 116, 36), (1.5, 1.5, 3.0), (30.0, 75.0, 120.0), 0.5, 0.1
TRUTH = {
    "mechanisms.diffusion.white_matter": 0.15,
    "mechanisms.proliferation.rate": 0.045,
    "mechanisms.radiotherapy.alpha": 0.045,
    "mechanisms.chemotherapy.sensitivity": 0.25,
}


def _model() -> ReactionDiffusion:
    grid = Grid.from_spacing(SHAPE, SPACING)
    x = [(np.arange(n) + 0.5) * h for n, h in zip(SHAPE, SPACING, strict=True)]
    x, y, z = np.meshgrid(*x, indexing="ij")
    mask = ((x - 58) / 56) ** 2 + ((y - 87) / 84) ** 2 + ((z - 50) / 52) ** 2 < 1
    white = (1 / (1 + np.exp(-6 * np.sin(x / 7 + y / 11) - 4 * np.cos(z / 9 + y / 13))) * mask).astype(np.float32)
    gray = mask.astype(np.float32) - white
    tissue = Tissue(Domain(grid, jnp.asarray(mask)), {"white_matter": white, "gray_matter": gray})
    start = 0.7 * np.exp(-0.5 * ((x - 45) ** 2 + (y - 70) ** 2 + (z - 55) ** 2) / 7.0**2)
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(0.1)),
        "proliferation": LogisticProliferation(jnp.asarray(0.03)),
        "radiotherapy": RadiotherapyResponse(jnp.asarray(0.04)),
        "chemotherapy": DrugResponse(jnp.asarray(0.2)),
    }
    initial = GivenDensity(jnp.asarray(start.astype(np.float32)))
    return ReactionDiffusion(mechanisms, tissue, initial)


class _Solve(eqx.Module):
    schedule: Schedule
    step: float = eqx.field(static=True)

    def __call__(self, model: ReactionDiffusion, days: tuple[float, ...]) -> jax.Array:
        out = simulate(model, self.schedule, days, FixedSteps(self.step, BOUND), estimate_error=False)
        return jnp.where(out.succeeded, out.states.density, jnp.nan)


def problem(seed: int = 0) -> Problem:
    """Noisy cellularity at three visits, simulated at steps a tenth as long as those of the fit."""
    model = _model()
    # Drug and radiation overlap for two weeks only, so that both are identified.
    drug = Course(60.0 + jnp.arange(42.0), jnp.ones(42))
    schedule = Schedule(weekday_fractions(32.0, 30, 2.0), {"temozolomide": drug})
    truth = set_parameters(model, TRUTH)
    fields = np.asarray(eqx.filter_jit(_Solve(schedule, 0.8))(truth, DAYS))
    noise = np.random.default_rng(seed).normal(size=fields.shape) * NOISE
    valid = np.asarray(model.tissue.domain.mask)
    # One independent observation in some twenty voxels.
    data = tuple(
        Datum(day, "adc", (u + e).astype(np.float32), valid, weight=0.05)
        for day, u, e in zip(DAYS, fields, noise, strict=True)
    )
    prior = Prior(
        {
            "mechanisms.diffusion.white_matter": log_normal(0.10, 0.5, 0.005, BOUND),
            "mechanisms.proliferation.rate": log_normal(0.03, 0.5, 0.002, 0.25),
            "mechanisms.radiotherapy.alpha": log_normal(0.04, 0.5, 0.003, 0.3),
            "mechanisms.chemotherapy.sensitivity": log_normal(0.20, 0.5, 0.02, 1.0),
        }
    )
    return Problem(model, {"adc": AdcObservation(jnp.asarray(NOISE))}, prior, data, _Solve(schedule, 8.0), SPACING)


def fit(posed: Problem) -> Posterior:
    """MAP by Levenberg-Marquardt with central differences, then the Gauss-Newton Laplace posterior."""
    return calibrate(posed, LaplaceCalibrator(MapCalibrator(reweightings=0)), key=jax.random.key(0))


def distances(posterior: Posterior) -> dict[str, float]:
    """How many posterior standard deviations the truth is from the mean, by parameter."""
    found = {}
    for path, truth in TRUTH.items():
        draws = np.log(posterior.draws[path])
        found[path.split(".")[-1]] = float((draws.mean() - np.log(truth)) / draws.std())
    return found
