"""A Gaussian process in the place of the PDE: the maps of a patient from the logarithms of the rates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import qmc

from experiments.delayed_acceptance.cases import Case
from tumortwin.inference import Problem, SmcCalibrator, calibrate, child_key
from tumortwin.observation import Datum
from tumortwin.surrogates import counted, observed_values, predicted_values

LOST = 1e-8  # share of the variance of the solved maps that the modes leave out
LENGTHS = np.geomspace(0.3, 6.0, 16)  # sds of the training inputs
NUGGET = 1e-8
SMC = SmcCalibrator(particles=400, vectorized=True)


class Emulator(eqx.Module):
    """`(model, days) -> [1, mode + 1]`: coordinates of the maps along orthonormal modes, and a zero.

    $$ M (\\eta - m) = k(x, X)\\, \\alpha, \\qquad k(x, x') = e^{-|x - x'|^2 / 2 \\ell^2} $$

    the mean of a Gaussian process a mode; `x`: standardized inputs. Rows of `alpha` beyond the training points and
    columns beyond the modes are 0: one shape, one program.
    """

    inputs: Callable[[Any], Array] = eqx.field(static=True)
    center: Float[Array, " input"]
    scale: Float[Array, " input"]
    points: Float[Array, "point input"]
    alpha: Float[Array, "point mode"]
    length: Float[Array, ""]

    def coordinates(self, model: Any) -> Float[Array, " mode"]:
        """Along the modes."""
        x = (self.inputs(model) - self.center) / self.scale
        return jnp.exp(-0.5 * jnp.sum((self.points - x[None]) ** 2, axis=1) / self.length**2) @ self.alpha

    def __call__(self, model: Any, days: tuple[float, ...]) -> Float[Array, "one value"]:
        """As the `solve` of the problem of `reduced`, whatever its one day."""
        del days
        return jnp.append(self.coordinates(model), 0.0)[None]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """An emulator with the modes [mode value] about the mean [value] in which it speaks."""

    emulator: Emulator
    mean: np.ndarray
    modes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Design:
    """How many solves: Sobol points of the prior, then `rounds` times `more` draws of the emulator's own posterior."""

    first: int = 32
    rounds: int = 4
    more: int = 16

    @property
    def solves(self) -> int:
        """Of the model, in all."""
        return self.first + self.rounds * self.more


def emulated(case: Case, design: Design, *, key: Array) -> tuple[Problem, float]:
    """The problem with an emulator in the place of its solver, and the error of the last round's maps before they
    were learned (root mean square over values that count).

    Each round solves the model where the emulator, so far, believes the parameters to be.
    """
    problem = case.problem
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    levels = qmc.Sobol(problem.size, rng=random).random(design.first)
    z = np.asarray(_at_levels(problem, jnp.asarray(levels)))
    maps, error = solved(problem, z), np.nan
    for i in range(design.rounds):
        fitted = fit(case, z, maps, design.solves, near=i * design.more)
        found = calibrate(reduced(problem, fitted), SMC, key=child_key(jax.random.fold_in(key, i), "design"))
        rows = found.resample_rows(design.more, key=jax.random.fold_in(key, i))
        new = np.asarray(_coordinates(problem, {p: jnp.asarray(v.ravel()[rows]) for p, v in found.draws.items()}))
        here = solved(problem, new)
        error = float(np.sqrt(np.mean((predicted(problem, fitted, new) - here) ** 2)))
        z, maps = np.concatenate([z, new]), np.concatenate([maps, here])
    return reduced(problem, fit(case, z, maps, design.solves, near=design.rounds * design.more)), error


def solved(problem: Problem, z: Float[np.ndarray, "draw parameter"]) -> Float[np.ndarray, "draw value"]:
    """The model's maps, the values that count; one solve after another."""
    chosen = counted(problem)
    found = np.asarray(_solved(problem, chosen, jnp.asarray(z)), float)
    if not np.isfinite(found).all():
        raise FloatingPointError("required: solves that succeed over the prior; received: one that failed")
    return found


def predicted(
    problem: Problem, fitted: Fitted, z: Float[np.ndarray, "draw parameter"]
) -> Float[np.ndarray, "draw value"]:
    """The emulated maps."""
    along = np.asarray(_along(problem, fitted.emulator, jnp.asarray(z)))
    return fitted.mean + along[:, : len(fitted.modes)] @ fitted.modes


def reduced(problem: Problem, fitted: Fitted) -> Problem:
    """The problem whose maps are the emulated ones, in few numbers and without loss.

    $$ |y - \\eta|^2 = |M (y - m) - c|^2 + R, \\qquad R = |y - m - M^T M (y - m)|^2 $$

    for \\eta = m + M^T c: under noise of one size the data are their coordinates, and one value
    sqrt(R / (N - r)) about 0 that counts N - r times. Needs `AdcObservation` of width 0 in every channel.
    """
    apart = np.asarray(observed_values(problem), float) - fitted.mean
    along = fitted.modes @ apart
    rest, size = float(apart @ apart - along @ along), fitted.emulator.alpha.shape[1]
    values, counts = np.zeros(size + 1), np.zeros(size + 1)
    values[: len(along)], counts[: len(along)] = along, 1.0
    left = apart.size - along.size
    values[-1], counts[-1] = np.sqrt(max(rest, 0.0) / left), left
    (channel,) = problem.observations
    data = (Datum(0.0, channel, values, counts),)
    return dataclasses.replace(problem, data=data, solve=fitted.emulator)


def fit(case: Case, z: np.ndarray, maps: Float[np.ndarray, "draw value"], size: int, near: int = 0) -> Fitted:
    """Modes of the maps, at most `size`; the length that predicts the last `near` points (0: every point) best, each
    from all others."""
    inputs = np.asarray(_inputs(case.problem, case.inputs, jnp.asarray(z)), float)
    center, scale = inputs.mean(axis=0), inputs.std(axis=0)
    x, mean = (inputs - center) / scale, maps.mean(axis=0)
    _, spread, modes = np.linalg.svd(maps - mean, full_matrices=False)
    share = np.cumsum(spread**2) / np.sum(spread**2)
    modes = modes[: int(np.searchsorted(share, 1.0 - LOST)) + 1]
    along = (maps - mean) @ modes.T
    squares = np.sum((x[:, None] - x[None]) ** 2, axis=2)
    best, length, alpha = np.inf, LENGTHS[0], along
    for candidate in LENGTHS:
        inverse = np.linalg.inv(np.exp(-0.5 * squares / candidate**2) + NUGGET * np.eye(len(x)))
        left_out = (inverse @ along) / np.diag(inverse)[:, None]  # errors of leave-one-out prediction
        if (error := float(np.sum(left_out[-near:] ** 2))) < best:
            best, length, alpha = error, candidate, inverse @ along
    padded, points = np.zeros((size, size)), np.zeros((size, x.shape[1]))
    padded[: alpha.shape[0], : alpha.shape[1]], points[: len(x)] = alpha, x
    arrays = [jnp.asarray(a) for a in (center, scale, points, padded, length)]
    return Fitted(Emulator(case.inputs, *arrays), mean, modes)


@eqx.filter_jit
def _solved(problem: Problem, chosen: Any, z: Array) -> Array:
    return jax.lax.map(lambda row: predicted_values(problem, chosen, row), z)


@eqx.filter_jit
def _along(problem: Problem, emulator: Emulator, z: Array) -> Array:
    return jax.vmap(lambda row: emulator.coordinates(problem.bind(problem.prior.constrain(row))[0]))(z)


@eqx.filter_jit
def _at_levels(problem: Problem, levels: Array) -> Array:
    paths = problem.prior.paths

    def one(row: Array) -> Array:
        return problem.prior.unconstrain({p: problem.prior.quantile(u)[p] for p, u in zip(paths, row, strict=True)})

    return jax.vmap(one)(levels)


@eqx.filter_jit
def _coordinates(problem: Problem, values: dict[str, Array]) -> Array:
    return jax.vmap(problem.prior.unconstrain)(values)


@eqx.filter_jit
def _inputs(problem: Problem, inputs: Callable[[Any], Array], z: Array) -> Array:
    return jax.vmap(lambda row: inputs(problem.bind(problem.prior.constrain(row))[0]))(z)
