"""What is done with either twin: train, rank truths, and hold the draws against those of NUTS."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.cli_files import Checkpoints
from tumortwin.inference import (
    AbstractCalibrator,
    NutsCalibrator,
    Posterior,
    Problem,
    SimulationBasedCalibration,
    calibrate,
    child_key,
    simulation_based_calibration,
)
from tumortwin.metrics import classifier_two_sample
from tumortwin.runs import Run
from tumortwin.surrogates import (
    AbstractFeatures,
    AmortisedCalibrator,
    AmortisedPosterior,
    Training,
    train_amortised,
)

NUTS, PLAIN, CORRECTED, BANK = "nuts", "plain", "corrected", "bank"


@dataclasses.dataclass(frozen=True)
class Case:
    """A twin: the problem with empty data, batches to train on, what the network is shown of the data, patients with
    known truths, the parameters that are judged with their short names, and the sampler it is held against."""

    name: str
    base: Problem
    simulate: Callable[[Array], tuple[Array, Array]]
    features: AbstractFeatures
    patients: Callable[[Array], tuple[Any, Mapping[str, Any]]]
    judged: tuple[str, ...]
    short: Mapping[str, str]
    sampler: NutsCalibrator
    quantities: Any = None


@dataclasses.dataclass(frozen=True)
class Compared:
    """One held-out data set. By kind of answer: `draws` [draw parameter] in the coordinates of the prior, `c2st`
    against NUTS, `shift`: the largest difference of a mean from that of NUTS in its sd, `seconds`; and what NUTS and
    the correction said of themselves."""

    draws: dict[str, Float[np.ndarray, "draw parameter"]]
    c2st: dict[str, float]
    shift: dict[str, float]
    seconds: dict[str, float]
    said: dict[str, float]


def trained(run: Run, case: Case, training: Training, *, key: Array) -> tuple[AmortisedPosterior, np.ndarray, float]:
    """The network, its validation losses and the seconds it took (of the last start, if the training was resumed)."""
    begun = time.perf_counter()
    with run.progress.task(f"train {case.name}", total=training.steps) as bar:
        network, losses = train_amortised(
            case.simulate,
            case.features,
            training,
            key=key,
            progress=bar.update,
            checkpoint=Checkpoints(run, f"{case.name}_training"),
        )
    return network, losses, time.perf_counter() - begun


def ranked(
    run: Run, case: Case, kind: str, calibrator: AbstractCalibrator, n: int, *, key: Array
) -> SimulationBasedCalibration:
    """Ranks of `n` truths in the posteriors of one kind; plain and corrected see the same patients."""
    with run.progress.task(f"ranks {case.name} {kind}", total=n) as bar:
        return simulation_based_calibration(
            case.patients,
            calibrator,
            n,
            quantities=case.quantities,
            progress=bar.update,
            checkpoint=Checkpoints(run, f"{case.name}_{kind}"),
            key=key,
        )


def compared(
    case: Case, network: AmortisedPosterior, size: int, draws: int, chunk: int, others: Mapping[str, Any], *, key: Array
) -> Compared:
    """One patient answered by NUTS, by the network, by the network and the model, and by `others`.

    `size` draws of each go into the classifier; `draws` of the network are corrected. Seconds are those of a second
    call for what takes little; a first call also compiles.
    """
    problem, _ = case.patients(child_key(key, "patient"))
    kinds: dict[str, AbstractCalibrator] = {
        PLAIN: AmortisedCalibrator(network, draws=draws, chunk=draws, corrected=False),
        CORRECTED: AmortisedCalibrator(network, draws=draws, chunk=chunk),
        **others,
    }
    found, seconds = {}, {}
    found[NUTS], seconds[NUTS] = _timed(problem, case.sampler, key)
    for kind, calibrator in kinds.items():
        found[kind], seconds[kind] = _timed(problem, calibrator, key)
    for kind in (PLAIN, *others):
        seconds[kind] = _timed(problem, kinds[kind], key)[1]
    rows = {kind: coordinates(case.base, posterior) for kind, posterior in found.items()}
    chains = rows[NUTS].reshape(*found[NUTS].weights.shape, -1)
    kept = {kind: distinct(p, rows[kind], size, np.random.default_rng(0)) for kind, p in found.items() if kind != NUTS}
    kept[NUTS] = thinned(chains, size)
    half = len(chains) // 2
    pair = {kind: (kept[NUTS], kept[kind]) for kind in kept if kind != NUTS}
    pair["nuts_halves"] = thinned(chains[:half], size // 2), thinned(chains[half:], size // 2)
    mean, sd = chains.mean(axis=(0, 1)), chains.std(axis=(0, 1))
    means = {kind: found[kind].weights.ravel() @ rows[kind] for kind in kept}
    corrected = found[CORRECTED].diagnostics
    said = {name: found[NUTS].diagnostics[name] for name in ("r_hat", "ess", "divergences")}
    said |= {
        f"correction_{name}": corrected[name]
        for name in ("ess", "k_hat", "draws", "inside", "proposals", "sample_reliable")
    }
    said["distinct_corrected_draws"] = float(len(kept[CORRECTED]))
    return Compared(
        draws=kept,
        c2st={kind: classifier_two_sample(*two) for kind, two in pair.items()},
        shift={kind: float(np.max(np.abs(means[kind] - mean) / sd)) for kind in kept if kind != NUTS},
        seconds=seconds,
        said=said,
    )


def coordinates(base: Problem, posterior: Posterior) -> Float[np.ndarray, "draw parameter"]:
    """The draws in the coordinates of the prior, chain by chain."""
    return np.asarray(unconstrained(base, {p: jnp.asarray(posterior.draws[p]).ravel() for p in base.prior.paths}))


@eqx.filter_jit
def unconstrained(base: Problem, values: dict[str, Array]) -> Float[Array, "draw parameter"]:
    """Values by path [draw] in the coordinates of the prior."""
    return jax.vmap(base.prior.unconstrain)(values)


def thinned(chains: Float[np.ndarray, "chain draw parameter"], size: int) -> Float[np.ndarray, "row parameter"]:
    """About `size` evenly spaced draws."""
    every = max(1, chains.shape[0] * chains.shape[1] // size)
    return chains[:, ::every].reshape(-1, chains.shape[2])[:size]


def distinct(
    posterior: Posterior, rows: Float[np.ndarray, "draw parameter"], size: int, rng: np.random.Generator
) -> Float[np.ndarray, "row parameter"]:
    """At most `size` draws of equal weight, none of them twice: each is kept with probability w / max w.

    A classifier would know resampled draws by their repetition.
    """
    weights = posterior.weights.ravel()
    return rows[rng.uniform(size=weights.size) * weights.max() < weights][:size]


def _timed(problem: Problem, calibrator: AbstractCalibrator, key: Array) -> tuple[Posterior, float]:
    begun = time.perf_counter()
    found = calibrate(problem, calibrator, key=child_key(key, type(calibrator).__name__))
    return found, time.perf_counter() - begun
