"""Is the inference right? Truths from the prior, data from the model, and the rank of every truth in its posterior."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array

from tumortwin.inference._calibrate import AbstractCalibrator, Checkpoint, calibrate, child_key
from tumortwin.inference._diagnostics import Coverage, ranks, share_inside, uniformity
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem

RANK, PROBABILITY, DIAGNOSTIC = "rank/", "probability/", "diagnostic/"
_NAME = "simulation_based_calibration"

Simulate: TypeAlias = Callable[[Array], tuple[AbstractProblem, Mapping[str, Any]]]
"""`key -> (problem with simulated data, truths by name)`."""

Quantities: TypeAlias = Callable[[AbstractProblem, Posterior, Array], Mapping[str, np.ndarray]]
"""`(problem, posterior, key) -> draws [chain, draw, ...]` of every truth that is not a path of the posterior."""

Progress: TypeAlias = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class SimulationBasedCalibration:
    """Ranks of the truths, 0 to `thinned`, and the posterior probability below them, by name [simulation, ...].

    `diagnostics`: what the calibrator said of every posterior [simulation].
    """

    thinned: int
    ranks: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    diagnostics: dict[str, np.ndarray]

    @property
    def simulations(self) -> int:
        """How many posteriors were made."""
        return len(next(iter(self.ranks.values())))

    def histogram(self, name: str, bins: int = 10) -> tuple[np.ndarray, float]:
        """Counts of the ranks of one scalar quantity in equal bins, and the chi-squared p-value of uniformity."""
        found = self.ranks[name]
        if found.ndim != 1 or (self.thinned + 1) % bins:
            raise ValueError(
                f"required: a scalar quantity (the entries of a vector are not independent) and bins that divide "
                f"{self.thinned + 1} ranks; received: {name} of shape {found.shape[1:]} and {bins} bins"
            )
        return uniformity((found + 0.5) / (self.thinned + 1), bins)

    def uniform(self, names: tuple[str, ...], level: float = 0.01, bins: int = 10) -> dict[str, bool]:
        """Whether each of `names` has p above `level / len(names)` (Bonferroni)."""
        return {name: self.histogram(name, bins)[1] > level / len(names) for name in names}

    def coverage(self, name: str, level: float = 0.95) -> Coverage:
        """How often the central interval held the truth, over simulations and entries (see `coverage` of tables)."""
        below = self.probabilities[name]
        return share_inside((below >= (1 - level) / 2) & (below <= (1 + level) / 2))


def simulation_based_calibration(
    simulate: Simulate,
    calibrator: AbstractCalibrator,
    n: int,
    *,
    thinned: int = 99,
    quantities: Quantities | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    key: Array,
) -> SimulationBasedCalibration:
    """Ranks of `n` truths among `thinned` draws of their posteriors.

    $$ \\tilde\\theta \\sim p(\\theta), \\quad \\tilde y \\sim p(y \\mid \\tilde\\theta), \\quad
       \\theta_1 \\dots \\theta_L \\sim p(\\theta \\mid \\tilde y)
       \\;\\Rightarrow\\; \\#\\{\\theta_l < \\tilde\\theta\\} \\sim U\\{0 \\dots L\\} $$

    for every quantity of parameters and data, held-out data among them. The draws must be close to independent: chains
    are thinned evenly, weighted draws resampled; ties are broken at random. A U shape means intervals that are too
    narrow, a hump too wide ones, a slope a bias. No posterior is left out, whatever its diagnostics: they are returned.

    **Arguments:** `simulate` draws truth and data of one simulation (any truth but the prior's makes a study of a
    misspecified model, whose ranks need not be uniform); truths may be arrays; `quantities`: draws for truths
    that are no path of the posterior. The i-th simulation depends on the key and on i alone, so that
    `checkpoint` may resume, and a longer study holds a shorter one. Problems that differ in their arrays alone share
    one compiled program.

    **Good values:** 200 simulations or more; `thinned + 1` a multiple of the bins of the histogram; posteriors with
    more effective draws than `thinned`.

    **Limits:** it verifies the inference under the model. It cannot see a model that is wrong, nor a bias that all
    parameters' ranks hide: give it quantities such as the log-likelihood or a forecast.

    Reference: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv:1804.06788; Modrak et al. (2023), Bayesian
    Anal., doi:10.1214/23-BA1404 (quantities of parameters and data).
    """
    found = None if checkpoint is None else checkpoint.load(_NAME)
    record = {} if found is None else dict(found)
    start = len(next(iter(record.values()))) if record else 0
    for i in range(start, n):
        own = jax.random.fold_in(key, i)
        problem, truth = simulate(child_key(own, "simulate"))
        posterior = calibrate(problem, calibrator, key=child_key(own, "calibrate"))
        if quantities is not None:
            more = quantities(problem, posterior, child_key(own, "quantities"))
            posterior = dataclasses.replace(posterior, draws={**posterior.draws, **more})
        _append(record, _row(posterior, truth, thinned, child_key(own, "ranks")))
        if checkpoint is not None:
            checkpoint.save(_NAME, record)
        if progress is not None:
            progress(i + 1, n)
    return _result({name: rows[:n] for name, rows in record.items()}, thinned)


def thinned_ranks(
    posterior: Posterior, truth: Mapping[str, Any], thinned: int = 99, *, key: Array
) -> dict[str, np.ndarray]:
    """Ranks 0 to `thinned` of the truths among that many draws: evenly spaced ones of chains, resampled weighted ones.

    **Raises:** `ValueError` when the posterior holds fewer draws.
    """
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    size = posterior.weights.size
    if size < thinned:
        raise ValueError(f"required: at least {thinned} draws; received: {size}; try: more draws, fewer ranks")
    if posterior.log_weights is None:
        rows = np.floor((np.arange(thinned) + 0.5) * size / thinned).astype(int)
    else:
        rows = random.choice(size, thinned, p=posterior.weights.ravel() / posterior.weights.sum())
    found = {}
    for path, value in truth.items():
        draws = posterior.draws[path].reshape(size, *posterior.draws[path].shape[2:])[rows]
        below, ties = (draws < np.asarray(value)).sum(axis=0), (draws == np.asarray(value)).sum(axis=0)
        found[path] = np.asarray(below + random.integers(0, ties, endpoint=True))
    return found


def _row(posterior: Posterior, truth: Mapping[str, Any], thinned: int, key: Array) -> dict[str, np.ndarray]:
    """Everything that is kept of one simulation."""
    row = {RANK + name: value for name, value in thinned_ranks(posterior, truth, thinned, key=key).items()}
    row |= {PROBABILITY + name: value for name, value in ranks(posterior, truth).items()}
    return row | {DIAGNOSTIC + name: np.asarray(float(value)) for name, value in posterior.diagnostics.items()}


def _append(record: dict[str, np.ndarray], row: Mapping[str, np.ndarray]) -> None:
    for name, value in row.items():
        new = np.asarray(value)[None]
        record[name] = np.concatenate([record[name], new]) if name in record else new


def _result(record: Mapping[str, np.ndarray], thinned: int) -> SimulationBasedCalibration:
    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}

    return SimulationBasedCalibration(thinned, part(RANK), part(PROBABILITY), part(DIAGNOSTIC))
