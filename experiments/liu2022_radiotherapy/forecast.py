"""What the population says of a well that it has not seen: from its first reading, and with a reading every day."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.liu2022_radiotherapy.culture import Dishes, Wells
from experiments.liu2022_radiotherapy.population import (
    COUNT,
    OF_BATCH,
    SPREADS,
    Hyper,
    Population,
    density,
    linearized,
    of_group,
    of_well,
    ornstein_uhlenbeck,
    scale,
    unscale,
)

NORMAL_95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Forecast:
    """On the scale of the confluence [1]: `median`, `low`, `high` [well, time] of the central 95 %; on the scale h,
    where it is normal, its `mean` and `spread`; and what was `known` of each well: its plate, its batch, or nothing."""

    median: Float[np.ndarray, "well time"]
    low: Float[np.ndarray, "well time"]
    high: Float[np.ndarray, "well time"]
    mean: Float[np.ndarray, "well time"]
    spread: Float[np.ndarray, "well time"]
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
        fitted = np.diag(np.pad((OF_BATCH * np.asarray(SPREADS)) ** 2, (0, COUNT + 2 * len(days))))
        fresh = of_group(hyper, "plate", at) + of_group(hyper, "batch", at)
        wide = fitted + np.pad(covariance, (0, 2 * len(days))) + fresh
        return np.pad(mean, (0, 2 * len(days))), np.asarray(wide), "nothing"
    mean, covariance = _on(days, on, np.asarray(own[0][k]), np.asarray(own[1][k]), hyper, groups)
    return mean, covariance if extra is None else covariance + np.asarray(extra), known


def _on(
    days: np.ndarray, on: np.ndarray, mean: np.ndarray, covariance: np.ndarray, hyper: Hyper, groups: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
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


def forecast(population: Population, wells: Wells, every: float | None = None) -> Forecast:
    """The forecast of every reading, from the one at t = 0 alone or (`every`, day) from the well's own readings up to
    the last update; at t = 0 it is the reading itself. On the scale h it is normal: the curve is linear about the
    mechanism's, and conditioned exactly."""
    last, x = float(wells.days.max()), density(wells.start)
    value, jacobian = (
        np.asarray(a) for a in linearized(jnp.asarray(population.mechanism.typical(wells)), Dishes.of(wells, last))
    )
    seen = np.asarray(scale(wells.seen))
    mean, spread, groups = np.zeros_like(seen), np.ones_like(seen), np.empty(len(wells), object)
    updates = np.arange(0.0, last, every) if every else np.zeros(1)
    for i in range(len(wells)):
        days = wells.days[i]
        prior = _expected(population, wells.plate[i], wells.batch[i], days.tobytes())
        groups[i] = prior[2]
        own_mean, total = _joint(population, prior, x[i], value[i], jacobian[i], days)
        for update in updates:
            known = wells.valid[i] & (days <= update + 1e-9)
            due = wells.valid[i] & (days > update + 1e-9) & (days <= update + (every or np.inf) + 1e-9)
            gain = np.linalg.solve(total[np.ix_(known, known)], total[np.ix_(known, due)])
            mean[i, due] = own_mean[due] + gain.T @ (seen[i, known] - own_mean[known])
            variance = np.diagonal(total)[due] - np.einsum("ij,ij->j", gain, total[np.ix_(known, due)])
            spread[i, due] = np.sqrt(variance)
    mean[:, 0], spread[:, 0] = seen[:, 0], 0.0
    low, high = unscale(mean - NORMAL_95 * spread), unscale(mean + NORMAL_95 * spread)
    return Forecast(unscale(mean), low, high, mean, spread, groups)


def _joint(
    population: Population, prior: tuple, x: float, value: np.ndarray, jacobian: np.ndarray, days: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all readings of one well."""
    middle, covariance, _ = prior
    size = len(days)
    design = np.concatenate([jacobian, x * jacobian, np.eye(size), x * np.eye(size)], axis=1)
    own = np.exp(2.0 * np.asarray(population.hyper["wells"]))
    noise = float(np.exp(2.0 * population.hyper["noise"][0]))
    total = design @ covariance @ design.T + (jacobian * own) @ jacobian.T + noise * np.eye(size)
    return value + design @ middle, total + _well_covariance(population, days)


def _expected(population: Population, plate: str, batch: str, key: bytes) -> tuple[np.ndarray, np.ndarray, str]:
    at = (plate, batch, key)
    if at not in population.kernels:
        population.kernels[at] = expected(population, plate, batch, np.frombuffer(key))
    return population.kernels[at]


def _well_covariance(population: Population, days: np.ndarray) -> np.ndarray:
    key = days.tobytes()
    if key not in population.kernels:
        population.kernels[key] = np.asarray(of_well(population.hyper, jnp.asarray(days)))
    return population.kernels[key]
