"""A small tumor in three dimensions whose density and parameters are estimated as scans come in."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.inference import EnsembleKalmanFilter, Filtered, LogitScale, Seen, filter_states
from tumortwin.models import Diffusion, GivenDensity, LogisticProliferation, ReactionDiffusion
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule

SHAPE, SPACING = (12, 12, 12), 4.0  # voxels, [mm]
SPAN, SCANS = 20.0, 5  # [day] between scans
NOISE = 0.08  # sd of a seen density
DIFFUSIVITY, RATE = (0.15, 0.5), (0.04, 0.4)  # median [mm^2/day], [1/day] and log-sd
SCALE = LogitScale()
GRID = Grid.from_spacing(SHAPE, (SPACING,) * 3)
# Every second voxel of the middle is seen: a map on a coarser grid than the model's.
EVERY = np.zeros(SHAPE, bool)
EVERY[2:10:2, 2:10:2, 2:10:2] = True
VISIBLE = np.flatnonzero(EVERY)


@dataclasses.dataclass(frozen=True)
class FieldCase:
    """The truth [scan, size] on the filter's scale, what was seen of it, and a first ensemble."""

    truth: np.ndarray
    seen: list[Seen]
    members: Array


def forecast(x: Array, begin: Array, end: Array) -> Array:
    """One span of reaction and diffusion of a member: density on its scale, then log D and log rho."""
    del begin, end  # all spans are the same
    tissue = Tissue(Domain(GRID, np.ones(SHAPE, bool)), {"white_matter": np.ones(SHAPE)})
    mechanisms = {"diffusion": Diffusion(jnp.exp(x[-2])), "proliferation": LogisticProliferation(jnp.exp(x[-1]))}
    start = GivenDensity(SCALE.from_scale(x[:-2]).reshape(SHAPE))
    model = ReactionDiffusion(mechanisms, tissue, start)
    found = simulate(model, Schedule(), (SPAN,), FixedSteps(5.0, 2.0), estimate_error=False)
    density = jnp.where(found.succeeded, found.states.density[-1], jnp.nan)
    return x.at[:-2].set(SCALE.to_scale(density.ravel()))


def observe(x: Array) -> Array:
    """The densities that a scan shows."""
    return SCALE.from_scale(x[VISIBLE])


def members_of_prior(n: int, *, key: Array) -> Array:
    """Tumors of one blob each: place, width and height unknown, and D and rho with them."""
    keys = jax.random.split(key, 5)
    places = (jnp.stack(jnp.meshgrid(*(jnp.arange(k) for k in SHAPE), indexing="ij"), axis=-1) + 0.5) * SPACING
    center = SPACING * jnp.asarray(SHAPE) / 2 + 4.0 * jax.random.normal(keys[0], (n, 3))
    width = 6.0 * jnp.exp(0.2 * jax.random.normal(keys[1], (n,)))
    height = jax.nn.sigmoid(0.5 * jax.random.normal(keys[2], (n,)))

    def one(middle: Array, wide: Array, high: Array) -> Array:
        square = jnp.sum((places - middle) ** 2, axis=-1)
        return SCALE.to_scale(high * jnp.exp(-0.5 * square / wide**2)).ravel()

    fields = jax.vmap(one)(center, width, height)
    pairs = zip(keys[3:], (DIFFUSIVITY, RATE), strict=True)
    parameters = [jnp.log(median) + sd * jax.random.normal(k, (n, 1)) for k, (median, sd) in pairs]
    return jnp.concatenate([fields, *parameters], axis=1)


def case(members: int, *, key: Array) -> FieldCase:
    """A truth of the same prior as the ensemble."""
    truth_key, ensemble_key, noise_key = jax.random.split(key, 3)
    x, states, seen = members_of_prior(1, key=truth_key)[0], [], []
    step = jax.jit(forecast)
    for k in range(SCANS):
        x = step(x, jnp.zeros(()), jnp.zeros(()))
        states.append(np.asarray(x))
        noise = NOISE * np.asarray(jax.random.normal(jax.random.fold_in(noise_key, k), VISIBLE.shape))
        seen.append(Seen(SPAN * (k + 1), np.asarray(observe(x)) + noise, np.full(VISIBLE.size, NOISE)))
    return FieldCase(np.stack(states), seen, members_of_prior(members, key=ensemble_key))


def filtered(given: FieldCase, settings: EnsembleKalmanFilter, *, key: Array) -> Filtered:
    """The filter through all scans."""
    return filter_states(given.members, forecast, observe, given.seen, settings, vectorized=False, key=key)


def field_errors(given: FieldCase, means: np.ndarray) -> np.ndarray:
    """Root mean square error of the density [1] after each scan."""
    apart = SCALE.from_scale(jnp.asarray(means[:, :-2])) - SCALE.from_scale(jnp.asarray(given.truth[:, :-2]))
    return np.sqrt(np.mean(np.asarray(apart) ** 2, axis=1))


def without_data(given: FieldCase, step: Callable[[], None]) -> np.ndarray:
    """Means [scan, size] of the ensemble that no scan has corrected."""
    advance = jax.jit(lambda all_members: jax.lax.map(lambda x: forecast(x, jnp.zeros(()), jnp.zeros(())), all_members))
    members, means = given.members, []
    for _ in range(SCANS):
        members = advance(members)
        means.append(np.asarray(members.mean(axis=0)))
        step()
    return np.stack(means)
