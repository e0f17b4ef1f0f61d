"""Simulated gliomas on the atlas at 4 mm: invasion, growth and the noise of the map, calibrated in two ways."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.ndimage import gaussian_filter
from scipy.stats import qmc

from experiments.calibration.bank import BankCalibrator, noise_grid
from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.inference import AbstractProblem, Prior, Problem, truncated_log_normal
from tumortwin.io import atlas_tissue
from tumortwin.models import Diffusion, GivenDensity, LogisticProliferation, ReactionDiffusion
from tumortwin.observation import AbstractObservation, AdcObservation, Datum
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule

SPACING = 4.0  # [mm]
SIDE = 20  # [voxel] of the window
VISITS = (45.0, 90.0)  # [day] of the maps; the density of day 0 is known
LATER = 150.0  # [day] of the forecast
EDGE, SLOPE, TOP = 10.0, 3.0, 0.8  # [mm], [mm], [1]: density of day 0, top / (1 + exp((r - edge) / slope))
OUTLINED = 0.16  # [1]: where the density of day 0 is above it, maps count (as in the twin: the first outline)
DIFFUSIVITY, RATE, NOISE = (
    "mechanisms.diffusion.white_matter",
    "mechanisms.proliferation.rate",
    "observation.adc.noise_sd",
)
JUDGED = (DIFFUSIVITY, RATE, NOISE)
MASS = "log_mass_150"
NOISE_LOW, NOISE_HIGH = 0.01, 0.5
SHORT = {DIFFUSIVITY: "diffusivity", RATE: "rate", NOISE: "noise"}


def prior() -> Prior:
    """The priors of D, rho and the noise of the map that the glioma twin has (`configs/prior/glioma.yaml`)."""
    return Prior(
        {
            DIFFUSIVITY: truncated_log_normal(0.10, 0.5, 0.005, 0.6),
            RATE: truncated_log_normal(0.03, 0.5, 0.002, 0.25),
            NOISE: truncated_log_normal(0.10, 0.5, NOISE_LOW, NOISE_HIGH),
        }
    )


def template() -> Problem:
    """The twin's problem with empty maps: a window around the deepest white matter of one hemisphere."""
    anatomy = atlas_tissue(SPACING)
    depth = gaussian_filter(np.asarray(anatomy.white_matter, float), 2.0)
    depth[: depth.shape[0] // 2] = 0.0
    center = np.unravel_index(int(depth.argmax()), depth.shape)
    box = tuple(slice(int(c) - SIDE // 2, int(c) + SIDE // 2) for c in center)
    grid = Grid.from_spacing((SIDE,) * 3, (SPACING,) * 3)
    fields: dict[str, Array | np.ndarray] = {n: np.asarray(f[box], np.float32) for n, f in anatomy.tissue.items()}
    tissue = Tissue(Domain(grid, anatomy.domain[box]), fields)
    radius = np.sqrt(sum(((axis - SIDE // 2) * SPACING) ** 2 for axis in np.indices((SIDE,) * 3)))
    start = TOP / (1.0 + np.exp((radius - EDGE) / SLOPE))
    mechanisms = {"diffusion": Diffusion(jnp.asarray(0.1), jnp.asarray(0.1)),
                  "proliferation": LogisticProliferation(jnp.asarray(0.03))}  # fmt: skip
    model = ReactionDiffusion(mechanisms, tissue, GivenDensity(jnp.asarray(start, jnp.float32)), front_correction=True)
    counts = (start > OUTLINED) & anatomy.domain[box]
    data = tuple(Datum(day, "adc", np.zeros(start.shape, np.float32), counts) for day in VISITS)
    observations: dict[str, AbstractObservation] = {"adc": AdcObservation(jnp.asarray(0.1))}
    return Problem(model, observations, prior(), data, _density)


def _density(model: ReactionDiffusion, days: tuple[float, ...]) -> Array:
    found = simulate(model, Schedule(), days, FixedSteps(7.5, 0.6), estimate_error=False)
    return jnp.where(found.succeeded, found.states.density, jnp.nan)


@dataclasses.dataclass(frozen=True)
class Patients:
    """Draws a truth from the prior, and its maps with independent noise in every voxel; `forecast`: whether the mass of
    a later day is among the truths (the bank's posterior holds it, a sampler's the parameters alone)."""

    base: Problem
    forecast: bool

    def __call__(self, key: Array) -> tuple[AbstractProblem, Mapping[str, Any]]:
        truth, maps, mass = _simulated(self.base, key)
        problem = eqx.tree_at(lambda p: tuple(d.values for d in p.data), self.base, tuple(maps))
        found = {path: np.asarray(truth[path]) for path in JUDGED}
        return problem, found | ({MASS: np.asarray(mass)} if self.forecast else {})


def bank_of(base: Problem, members: int, *, chunk: int, advance: Any, key: Array) -> BankCalibrator:
    """`members` values of D and rho, each solved once: quantiles of the prior at a scrambled Sobol sequence, whose
    weighted means err less than those of random draws."""
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    levels = jnp.asarray(qmc.Sobol(2, rng=random).random(members))
    drawn = {path: _quantiles(base, path, levels[:, i]) for i, path in enumerate((DIFFUSIVITY, RATE))}
    predictions, masses = [], []
    for first in range(0, members, chunk):
        part = {path: drawn[path][first : first + chunk] for path in (DIFFUSIVITY, RATE)}
        maps, mass = _solved(base, part)
        predictions.append(np.asarray(maps))
        masses.append(np.asarray(mass))
        advance(len(predictions) * chunk)
    kept = np.concatenate([np.asarray(d.valid) > 0 for d in base.data], axis=0).ravel()
    log_noise, log_prior = noise_grid(base, NOISE, NOISE_LOW, NOISE_HIGH)
    values = {path: np.asarray(drawn[path]) for path in (DIFFUSIVITY, RATE)}
    values[MASS] = np.concatenate(masses)
    flat = np.concatenate(predictions)
    return BankCalibrator(values, flat[:, kept], log_noise, log_prior, NOISE)


@eqx.filter_jit
def _quantiles(problem: Problem, path: str, levels: Array) -> Array:
    return jnp.asarray(problem.prior.distributions[path].icdf(levels))


def _states(problem: Problem, values: Mapping[str, Array]) -> Array:
    """Density on the visits and on the day of the forecast [time, x, y, z]."""
    model, _ = problem.bind(values)
    return problem.solve(model, (*VISITS, LATER))


def _log_mass(density: Array) -> Array:
    return jnp.log(SPACING**3 * jnp.sum(density, dtype=float))


@eqx.filter_jit
def _simulated(problem: Problem, key: Array) -> tuple[dict[str, Array], Array, Array]:
    draw_key, noise_key = jax.random.split(key)
    truth = {path: value[0] for path, value in problem.prior.sample((1,), key=draw_key).items()}
    states = _states(problem, truth)
    noise = truth[NOISE].astype(states.dtype) * jax.random.normal(noise_key, states[:-1].shape, states.dtype)
    return truth, states[:-1] + noise, _log_mass(states[-1])


@eqx.filter_jit
def _solved(problem: Problem, values: Mapping[str, Array]) -> tuple[Array, Array]:
    """Maps flattened [member, visit x y z], and the log mass on the day of the forecast."""

    def one(drawn: Mapping[str, Array]) -> tuple[Array, Array]:
        states = _states(problem, drawn)
        return jnp.ravel(states[:-1]), _log_mass(states[-1])

    return jax.lax.map(one, dict(values))
