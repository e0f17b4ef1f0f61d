"""What the population says of a well that it has not seen: from its first reading, and with a reading every day."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.liu2022_radiotherapy.culture import Dishes, Wells
from experiments.liu2022_radiotherapy.population import (
    COUNT,
    MEDIANS,
    Population,
    curve,
    density,
    linearized,
    of_group,
    of_well,
    ornstein_uhlenbeck,
    scale,
    unscale,
)

CHUNK = 16  # wells that are solved at once, so that one compiled function serves all
ITERATIONS = 2  # linearizations after each new reading
LEVEL_95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Forecast:
    """On the scale of the confluence [1]: `median`, `low`, `high` [well, time] of the central 95 %, and which group was
    known of each well: its `plate`, its `batch`, or `nothing`."""

    median: Float[np.ndarray, "well time"]
    low: Float[np.ndarray, "well time"]
    high: Float[np.ndarray, "well time"]
    known: np.ndarray


def expected(
    population: Population, plate: str, batch: str, days: Float[np.ndarray, " time"]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Mean and covariance of [parameters, gamma, curve, slope] of wells of a plate on `days`, and what was known.

    A plate that was seen has its own; another of a batch that was seen has that of the batch and a new plate's spread;
    another has the spreads of both.
    """
    layout, found, hyper, at = population.layout, population.levels, population.hyper, jnp.asarray(days)
    if plate in layout.plates:
        k = layout.plates.index(plate)
        own, extra, groups, on, known = found.plates, None, ("plate", "batch"), population.days[k], "plate"
    elif batch in layout.batches:
        k = layout.batches.index(batch)
        on = population.days[int(np.argmax(layout.batch[k]))]
        own, extra, groups, known = found.batches, of_group(hyper, "plate", at), ("batch",), "batch"
    else:
        mean, covariance = (np.asarray(a) for a in found.everything)
        wide = np.pad(covariance, (0, 2 * len(days))) + of_group(hyper, "plate", at) + of_group(hyper, "batch", at)
        return np.pad(mean, (0, 2 * len(days))), np.asarray(wide), "nothing"
    mean, covariance = _on(days, on, np.asarray(own[0][k]), np.asarray(own[1][k]), hyper, groups)
    return mean, covariance if extra is None else covariance + np.asarray(extra), known


def _on(days: np.ndarray, on: np.ndarray, mean: np.ndarray, covariance: np.ndarray, hyper: dict, groups: tuple) -> tuple:
    """The curves of a group, known `on` some days, on other `days`: the conditional of its process."""
    size, parts, extra = len(on), [np.eye(2 * COUNT)], [np.zeros((2 * COUNT, 2 * COUNT))]
    both = jnp.asarray(np.concatenate([days, on]))
    for what in ("curve", "slope"):
        kernel = np.asarray(sum(ornstein_uhlenbeck(hyper[f"{g}_{what}"], both) for g in groups))
        inner = kernel[len(days) :, len(days) :] + 1e-10 * kernel.max() * np.eye(size)
        weights = np.linalg.solve(inner, kernel[len(days) :, : len(days)]).T
        parts.append(weights)
        extra.append(kernel[: len(days), : len(days)] - weights @ kernel[len(days) :, : len(days)])
    moved = _diagonal(parts)
    return moved @ mean, moved @ covariance @ moved.T + _diagonal(extra)


def _diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    shape = np.sum([b.shape for b in blocks], axis=0)
    out, at = np.zeros(shape), np.zeros(2, int)
    for block in blocks:
        out[at[0] : at[0] + block.shape[0], at[1] : at[1] + block.shape[1]] = block
        at += block.shape
    return out


def _root(covariance: np.ndarray) -> np.ndarray:
    """A square root; rounding may have left eigenvalues below 0 by a part in 1e-9."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


@eqx.filter_jit
def _curves(logs: Float[Array, "parameter column"], dishes: Dishes) -> Float[Array, "column time"]:
    return curve(logs, dishes)


def from_first_reading(population: Population, wells: Wells, draws: int, *, key: Array) -> tuple[Forecast, np.ndarray]:
    """The forecast of every reading from the one at t = 0, and its draws [draw, well, time]: parameters and curves drawn,
    the mechanism solved, noise added."""
    source = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    noise = float(np.exp(population.hyper["noise"][0]))
    own = np.exp(np.asarray(population.hyper["wells"]))
    logs, added = np.zeros((len(wells), draws, COUNT)), np.zeros((len(wells), draws, wells.days.shape[1]))
    known, x = np.empty(len(wells), object), density(wells.start)
    for plate in np.unique(wells.plate):
        mine = np.flatnonzero(wells.plate == plate)
        days = wells.days[mine[0]]
        mean, covariance, said = expected(population, plate, wells.batch[mine[0]], days)
        root, own_root = _root(covariance), _root(np.asarray(of_well(population.hyper, jnp.asarray(days))))
        known[mine] = said
        for i in mine:
            w = mean + source.normal(size=(draws, len(mean))) @ root.T
            logs[i] = np.asarray(MEDIANS) + w[:, :COUNT] + x[i] * w[:, COUNT : 2 * COUNT]
            logs[i] += own * source.normal(size=(draws, COUNT))
            curves = w[:, 2 * COUNT :].reshape(draws, 2, -1)
            added[i] = curves[:, 0] + x[i] * curves[:, 1] + source.normal(size=(draws, len(days))) @ own_root.T
    last = float(wells.days.max())
    values = np.zeros_like(added)
    for at in range(0, len(wells), CHUNK):
        mine = np.arange(at, at + CHUNK) % len(wells)
        columns = np.repeat(mine, draws)
        dishes = Dishes.of(wells.where(columns), last)
        found = _curves(jnp.asarray(logs[mine].reshape(-1, COUNT).T), dishes)
        values[mine] = np.asarray(found).reshape(CHUNK, draws, -1)
    values = values + added + noise * source.normal(size=values.shape)
    sample = np.swapaxes(unscale(values), 0, 1)
    low, median, high = np.quantile(sample, [0.025, 0.5, 0.975], axis=0)
    return Forecast(median, low, high, known), sample


def with_updates(population: Population, wells: Wells, every: float = 1.0) -> tuple[Forecast, np.ndarray, np.ndarray]:
    """The forecast of every reading from the well's own readings up to the last update, `every` day; also mean and
    standard deviation [well, time] on the scale h, where it is normal.

    The well's curve is made linear at its estimate after each update and conditioned exactly (iterated Kalman).
    """
    last, x = float(wells.days.max()), density(wells.start)
    dishes = Dishes.of(wells, last)
    priors = {p: expected(population, p, wells.batch[wells.plate == p][0], wells.days[wells.plate == p][0])
              for p in np.unique(wells.plate)}  # fmt: skip
    middle = np.stack([priors[p][0] for p in wells.plate])
    typical = np.asarray(MEDIANS) + middle[:, :COUNT] + x[:, None] * middle[:, COUNT : 2 * COUNT]
    logs, seen = typical.copy(), np.asarray(scale(wells.seen))
    mean, spread = np.zeros_like(seen), np.ones_like(seen)
    for update in np.arange(0.0, last, every):
        known = wells.valid & (wells.days <= update + 1e-9)
        for _ in range(ITERATIONS):
            value, jacobian = (np.asarray(a) for a in linearized(jnp.asarray(logs.T), dishes))
            after = [
                _conditioned(population, priors[wells.plate[i]], x[i], typical[i], logs[i], value[i], jacobian[i],
                             seen[i], known[i], wells.days[i])
                for i in range(len(wells))
            ]  # fmt: skip
            logs = logs + np.clip(np.stack([a[0] for a in after]) - logs, -0.5, 0.5)
        due = wells.valid & (wells.days > update + 1e-9) & (wells.days <= update + every + 1e-9)
        mean[due], spread[due] = np.stack([a[1] for a in after])[due], np.stack([a[2] for a in after])[due]
    groups = np.array([priors[p][2] for p in wells.plate], object)
    return (
        Forecast(unscale(mean), unscale(mean - LEVEL_95 * spread), unscale(mean + LEVEL_95 * spread), groups),
        mean,
        spread,
    )


def _conditioned(
    population: Population, prior: tuple, x: float, typical: np.ndarray, logs: np.ndarray, value: np.ndarray,
    jacobian: np.ndarray, seen: np.ndarray, known: np.ndarray, days: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Log parameters, mean and standard deviation of all readings of one well, given those that are `known`."""
    middle, covariance, _ = prior
    size = len(days)
    design = np.concatenate([jacobian, x * jacobian, np.eye(size), x * np.eye(size)], axis=1)
    own = np.exp(2.0 * np.asarray(population.hyper["wells"]))
    noise = float(np.exp(2.0 * population.hyper["noise"][0]))
    across = covariance @ design.T
    total = design @ across + (jacobian * own) @ jacobian.T + _well_covariance(population, days) + noise * np.eye(size)
    along = across[:COUNT] + x * across[COUNT : 2 * COUNT] + own[:, None] * jacobian.T
    curves = middle[2 * COUNT : 2 * COUNT + size] + x * middle[2 * COUNT + size :]
    mean = value + jacobian @ (typical - logs) + curves
    if not known.any():
        return typical, mean, np.sqrt(np.diagonal(total))
    gain = np.linalg.solve(total[np.ix_(known, known)], np.concatenate([total[known], along[:, known].T], axis=1))
    rest = seen[known] - mean[known]
    variance = np.diagonal(total) - np.einsum("ij,ij->j", gain[:, :size], total[known])
    return typical + gain[:, size:].T @ rest, mean + gain[:, :size].T @ rest, np.sqrt(variance)


def _well_covariance(population: Population, days: np.ndarray) -> np.ndarray:
    key = days.tobytes()
    if key not in population.kernels:
        population.kernels[key] = np.asarray(of_well(population.hyper, jnp.asarray(days)))
    return population.kernels[key]
