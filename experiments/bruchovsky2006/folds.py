"""Leave one patient out: the population, every patient's forecast, the link and the threshold, all without him.

In the fold of patient i the population is that of the others, refitted. The forecast of each case j is made with a
population without i and without j's own patient (his part of the sums is taken out), so that the link is trained on
forecasts made as i's is. Nothing of i enters but what was known at his landmark: not his later readings, not his
outcome, not even as a starting point of an iteration, which is why folds start from the population of a block of
patients that i is not among.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.bruchovsky2006.cycles import Landmarks, Records, plain_features
from experiments.bruchovsky2006.link import called
from experiments.bruchovsky2006.population import (
    FEW,
    NEWTON,
    Fit,
    Individuals,
    Population,
    fit,
    individuals,
    population_of,
)
from experiments.bruchovsky2006.psa import PARAMETERS, Course, courses_of, next_course

BLOCKS, FEW_BLOCKS = 6, 3  # with and without a refit for each patient
DRAWS = 128  # of a patient's posterior; half of them mirror the other half
FORECASTERS = ("mechanism", "logistic", "both", "nadir_only", "nowcast")


@dataclasses.dataclass(frozen=True, eq=False)
class Calls:
    """Out-of-fold probabilities and thresholds of every case: name -> [case]; NaN where a case cannot be called.

    `forecast` [case, 2]: mean and sd of the log PSA at the end of the next course, out of fold; `parameters` [case,
    parameter]; `rounds`, `change`: of the populations.
    """

    probability: dict[str, np.ndarray]
    threshold: dict[str, np.ndarray]
    ever_probability: dict[str, np.ndarray]
    ever_threshold: dict[str, np.ndarray]
    forecast: Float[np.ndarray, "case 2"]
    parameters: Float[np.ndarray, "case parameter"]
    spreads: Float[np.ndarray, "case parameter parameter"]
    change: float


@eqx.filter_jit
def forecast_of(courses: Course, found: Individuals, noise: Float[Array, "draw parameter"]) -> Float[Array, "row 2"]:
    """Mean and sd, over each row's posterior, of the log PSA at the end of the next course."""

    def one(course: Course, mode: Array, covariance: Array) -> Array:
        drawn = mode[None] + noise @ jnp.linalg.cholesky(covariance).T
        logs = jax.vmap(lambda parameters: next_course(parameters, course))(drawn)
        return jnp.stack([jnp.mean(logs), jnp.std(logs)])

    return jax.vmap(one)(courses, found.mode, found.covariance)


def noise_of(key: Array) -> Float[Array, "draw parameter"]:
    """Standard normal draws, each with its mirror image."""
    half = jax.random.normal(key, (DRAWS // 2, len(PARAMETERS)))
    return jnp.concatenate([half, -half])


def leave_one_out(
    records: Records,
    landmarks: Landmarks,
    *,
    key: Array,
    refit: bool = True,
    advance: Callable[[], None] = lambda: None,
    only: tuple[int, ...] | None = None,
) -> Calls:
    """Calls of every landmark of every patient (or of those in `only`) by all forecasters.

    `refit=False` takes for each patient the population without his whole block.
    """
    patients = len(records.until)
    everyone, known, noise = courses_of(records), courses_of(landmarks.known), noise_of(key)
    plain, found, changes = plain_features(landmarks.known), _nothing(len(landmarks.patient)), [0.0]
    treated = np.isfinite(records.switches).any(axis=1)
    places = np.arange(patients)
    blocks = min(BLOCKS if refit else FEW_BLOCKS, patients)
    for block in range(blocks):
        members = [i for i in range(block, patients, blocks) if only is None or i in only]
        if not members:
            continue
        outside = treated & (places % blocks != block)
        begin = fit(everyone, outside)
        prior = _without_own(begin, outside, landmarks)
        rows = individuals(known, prior, prior.mean, jnp.asarray(NEWTON))
        start, ahead = rows.mode, np.asarray(forecast_of(known, rows, noise))
        changes.append(begin.change)
        for i in members:
            mine = landmarks.patient == i
            if refit and mine.any():
                weights = treated & (places != i)
                near = fit(everyone, weights, begin)
                changes.append(near.change)
                rows = individuals(known, _without_own(near, weights, landmarks), start, jnp.asarray(FEW))
                ahead = np.asarray(forecast_of(known, rows, noise))
            found.forecast[mine] = ahead[mine]
            found.parameters[mine] = np.asarray(rows.mode)[mine]
            found.spreads[mine] = np.asarray(rows.covariance)[mine]
            _call(found, landmarks, ahead[:, :1], plain, i)
            advance()
    return dataclasses.replace(found, change=max(changes))


def _nothing(cases: int) -> Calls:
    """No case called yet."""
    columns = [{name: np.full(cases, np.nan) for name in FORECASTERS} for _ in range(4)]
    one, size = np.full((cases, 2), np.nan), len(PARAMETERS)
    modes, spreads = np.full((cases, size), np.nan), np.full((cases, size, size), np.nan)
    return Calls(columns[0], columns[1], columns[2], columns[3], one, modes, spreads, 0.0)


def _without_own(near: Fit, weights: np.ndarray, landmarks: Landmarks) -> Population:
    """For every case the population without its own patient."""
    others = jnp.asarray(weights[None] * (1.0 - np.eye(len(weights))), float)
    each = jax.vmap(lambda w: population_of(near.found, w))(others)
    return jax.tree.map(lambda x: x[landmarks.patient], each)


def _call(found: Calls, landmarks: Landmarks, mechanism: np.ndarray, plain: np.ndarray, patient: int) -> None:
    """The calls of one patient's landmarks by links to all the others."""
    mine = landmarks.patient == patient
    seen = np.log(np.where(landmarks.judged, landmarks.nadir, 1.0))[:, None]
    features = {
        "mechanism": mechanism,
        "logistic": plain,
        "both": np.concatenate([mechanism, plain], axis=1),
        "nadir_only": plain[:, :1],
        "nowcast": seen,
    }
    fair = ~landmarks.metastasis & ~mine
    first = landmarks.cycle == 2
    for name, columns in features.items():
        for event, training, into, cut in (
            (landmarks.relapses, fair & landmarks.judged, found.probability, found.threshold),
            (landmarks.ever, fair & first, found.ever_probability, found.ever_threshold),
        ):
            probability, threshold = called(columns, event, landmarks.patient, training)
            into[name][mine], cut[name][mine] = probability[mine], threshold
    for into in (found.probability, found.threshold):
        into["nowcast"][mine & ~landmarks.judged] = np.nan
    for into in (found.ever_probability, found.ever_threshold):
        into["nowcast"][:] = np.nan
