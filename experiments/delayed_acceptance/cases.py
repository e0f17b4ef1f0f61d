"""Two simulated gliomas: two maps after a known start (close to normal), and a single map of unknown age (a ridge)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.calibration import glioma
from tumortwin.inference import Prior, Problem, truncated_log_normal
from tumortwin.models import GrownSeed, ReactionDiffusion
from tumortwin.observation import Datum
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule

AGE = "initial.age"
YOUNGEST, OLDEST = 40.0, 1000.0  # [day], as configs/prior/glioma.yaml
LARGEST_DIFFUSIVITY = 0.6  # [mm^2/day], the bound of its prior
STEP = 7.5  # [day] of the solve over the seed's span
# What the single map is of: a tumor of 1.5 cm radius, sqrt(4 D rho) age.
TRUTH = {glioma.DIFFUSIVITY: 0.1, glioma.RATE: 0.03, AGE: 150.0, glioma.NOISE: 0.1}


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem with data, and the numbers that its maps depend on (`inputs`: model -> [input], logarithms)."""

    name: str
    problem: Problem
    inputs: Callable[[Any], Float[Array, " input"]]


def two_maps(key: Array) -> Case:
    """A patient of `experiments/calibration`: D, rho and the noise, a truth drawn from their priors."""
    problem, _ = glioma.Patients(glioma.template(), forecast=False)(key)
    assert isinstance(problem, Problem)
    return Case("two_maps", problem, _rates)


def one_map(key: Array) -> Case:
    """A seed of unknown age in the same window, seen once: only D age and rho age act on the map."""
    base = glioma.template()
    center = jnp.full(3, (glioma.SIDE - 1) / 2.0)
    seed = GrownSeed(center, jnp.asarray(150.0), jnp.asarray(0.5), jnp.asarray(glioma.SPACING), longest=OLDEST)
    model = ReactionDiffusion(base.model.mechanisms, base.model.tissue, seed, front_correction=True)
    age = truncated_log_normal(300.0, 0.6, YOUNGEST, OLDEST)
    prior = Prior({**base.prior.distributions, AGE: age})
    domain = np.asarray(model.tissue.domain.mask)
    empty = (Datum(0.0, "adc", np.zeros(domain.shape, np.float32), domain),)
    problem = Problem(model, base.observations, prior, empty, _grown)
    return Case("one_map", eqx.tree_at(lambda p: p.data[0].values, problem, _map(problem, key)), _products)


def _grown(model: ReactionDiffusion, days: tuple[float, ...]) -> Array:
    """The density of day 0: the seed over its fixed span, with D and rho scaled by age / span."""
    if days != (0.0,):
        raise ValueError(f"required: the one map of day 0; received: {days}")
    seed = model.initial
    assert isinstance(seed, GrownSeed)
    stretch = seed.age / seed.span
    rates = (model.diffusion.white_matter * stretch, model.proliferation.rate * stretch)
    scaled = eqx.tree_at(
        lambda m: (m.mechanisms["diffusion"].white_matter, m.mechanisms["proliferation"].rate), model, rates
    )
    steps = FixedSteps(STEP, LARGEST_DIFFUSIVITY * OLDEST / seed.span)
    found = simulate(scaled, Schedule(), (seed.span,), steps, estimate_error=False)
    return jnp.where(found.succeeded, found.states.density, jnp.nan)


@eqx.filter_jit
def _map(problem: Problem, key: Array) -> Array:
    model, _ = problem.bind({path: jnp.asarray(value) for path, value in TRUTH.items()})
    density = problem.solve(model, (0.0,))[0]
    return density + TRUTH[glioma.NOISE] * jax.random.normal(key, density.shape, density.dtype)


def _rates(model: Any) -> Array:
    return jnp.log(jnp.stack([model.diffusion.white_matter, model.proliferation.rate]))


def _products(model: Any) -> Array:
    age = model.initial.age
    return jnp.log(jnp.stack([model.diffusion.white_matter * age, model.proliferation.rate * age]))
