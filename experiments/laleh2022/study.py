"""Who is forecast from what: the known and the hidden readings, the fit, and the samples of every forecaster."""

import dataclasses
import time

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.laleh2022.baselines import LAWS, law_forecast, random_walk_forecast
from experiments.laleh2022.model import problem_of
from tumortwin._errors import InputError
from tumortwin.inference import Horizon, NutsCalibrator, Posterior, calibrate, sample_ahead, whitened
from tumortwin.io import Padded, Table, load_table
from tumortwin.metrics import (
    Asked,
    Series,
    Targets,
    persistence_forecast,
    population_mean_forecast,
    regressor_forecast,
    targets_of,
)
from tumortwin.models import chance_weights
from tumortwin.observation import Visits

MODEL = "tumortwin"
LEAST, HIDDEN = 6, 2  # readings of a patient who is forecast, and how many of them are hidden
SAMPLER = NutsCalibrator(laplace=None, warmup=150, draws=650, chunk=50, threads=2, tree_depth=7, warmup_tree_depth=5)
CAREFUL = dataclasses.replace(SAMPLER, accept=0.9)  # what is scored: shorter steps, for narrow places
QUICK = NutsCalibrator(laplace=None, warmup=100, draws=80, chunk=60, threads=2, tree_depth=6)


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """All patients [subject] with the number of `known` readings; `chosen`: those with `LEAST` readings, who are
    forecast; `diameters` and `volumes` of one rectangle, hidden readings included; `unit_volume`: relative volume over
    diameter^3 [1/mm^3]; `arms` [subject]."""

    diameters: Padded
    volumes: Padded
    known: Int[np.ndarray, " subject"]
    chosen: Bool[np.ndarray, " subject"]
    unit_volume: float
    arms: np.ndarray

    @property
    def targets(self) -> Targets:
        """The hidden relative volumes."""
        return targets_of(self.series(self.volumes, hidden=True))

    def series(self, rows: Padded, *, hidden: bool = False) -> Series:
        """The known readings of all patients, or the hidden ones of those who are forecast."""
        is_known = np.arange(rows.valid.shape[1])[None, :] < self.known[:, None]
        return Series(rows.times, rows.values, rows.valid & (~is_known if hidden else is_known))


def cohort_of(table: Table, least: int = LEAST, hidden: int = HIDDEN) -> Cohort:
    """Patients with `least` readings have their last `hidden` hidden; of the others all are known.

    **Raises:** `InputError` when diameters and volumes are not of the same visits, or nobody can be forecast.
    """
    diameters, volumes = table.padded("diameter"), table.padded("relative_volume")
    if not np.array_equal(diameters.valid, volumes.valid):
        raise InputError(
            file=table.source, required="a diameter and a relative volume of every visit",
            received="visits with one of them", advice="leave such rows out",
        )  # fmt: skip
    counts = diameters.counts
    chosen = counts >= least
    if not chosen.any():
        raise InputError(
            file=table.source, required=f"patients with {least} readings or more",
            received=f"none; the longest series has {counts.max()}", advice="another table",
        )  # fmt: skip
    known = np.where(chosen, counts - hidden, counts)
    seen = (np.arange(diameters.valid.shape[1])[None, :] < known[:, None]) & (diameters.values > 0)
    ratio = float(np.median(volumes.values[seen] / diameters.values[seen] ** 3))
    return Cohort(diameters, volumes, known, chosen, ratio, table.covariates["arm"])


def fitted(cohort: Cohort, sampler: NutsCalibrator, *, key: Array, **how: object) -> tuple[Posterior, float]:
    """The posterior from the known readings of all patients, and the seconds it took, compile included."""
    start = time.perf_counter()
    posterior = calibrate(whitened(problem_of(cohort.diameters, cohort.known)), sampler, key=key, **how)  # type: ignore[arg-type]
    return posterior, time.perf_counter() - start


def sampling_time(root: str, *, key: Array, sampler: NutsCalibrator = SAMPLER) -> tuple[Posterior, float]:
    """For `make bench`: NUTS on the known readings of those who are forecast, and its seconds, compile included."""
    whole = cohort_of(load_table("laleh", root))
    place = np.flatnonzero(whole.chosen)
    start = time.perf_counter()
    problem = problem_of(_rows(whole.diameters, place), whole.known[place])
    posterior = calibrate(whitened(problem), sampler, key=key)
    return posterior, time.perf_counter() - start


def model_forecast(cohort: Cohort, posterior: Posterior, draws: int, *, key: Array) -> Float[np.ndarray, "case draw"]:
    """Diameters [mm] of the hidden readings, one future a draw of the parameters."""
    place = np.flatnonzero(cohort.chosen)
    rows = _rows(cohort.diameters, place)
    last, subjects = cohort.known[place] - 1, np.arange(place.size)
    days = np.stack([rows.times[subjects, last + step] for step in range(HIDDEN + 1)])
    durations = np.diff(days, axis=0)
    at = Visits(*(jnp.asarray(a) for a in (rows.values[subjects, last], days[0], durations[0])))
    chances = jnp.stack([jnp.asarray(chance_weights(step)) for step in durations])
    horizon = Horizon(at, jnp.asarray(durations), chances)
    values = {path: jnp.asarray(v) for path, v in posterior.resample(draws, key=key).items()}
    found = sample_ahead(problem_of(rows, cohort.known[place]), values, horizon, key=key)
    return np.asarray(found).transpose(2, 1, 0).reshape(-1, draws)


def baseline_forecasts(cohort: Cohort, asked: Asked, draws: int, *, seed: int) -> dict[str, np.ndarray]:
    """Relative volumes [case, draw] of every baseline, from the known readings alone."""
    volumes, diameters = cohort.series(cohort.volumes), cohort.series(cohort.diameters)
    logs = dataclasses.replace(diameters, values=np.log1p(diameters.values))
    walk = random_walk_forecast(diameters, asked, rng=np.random.default_rng(seed), draws=draws)
    by_logs = np.expm1(np.maximum(regressor_forecast(logs, asked), 0.0))
    return {
        "persistence": persistence_forecast(volumes, asked),
        **{law: law_forecast(law, volumes, asked) for law in LAWS},
        "population_mean": population_mean_forecast(volumes, asked),
        "regressor": np.maximum(regressor_forecast(volumes, asked), 0.0),
        "regressor_of_log_diameter": cohort.unit_volume * by_logs**3,
        "random_walk": cohort.unit_volume * walk**3,
    }


def samples_of(cohort: Cohort, posterior: Posterior, draws: int, *, key: Array, seed: int) -> dict[str, np.ndarray]:
    """Relative volumes [case, draw] of the model and of every baseline."""
    diameters = model_forecast(cohort, posterior, draws, key=key)
    others = baseline_forecasts(cohort, cohort.targets.asked, draws, seed=seed)
    return {MODEL: cohort.unit_volume * diameters**3, **others}


def log_diameter(cohort: Cohort, volume: np.ndarray) -> np.ndarray:
    """log(1 + diameter / mm) of relative volumes."""
    return np.log1p(np.cbrt(volume / cohort.unit_volume))


def _rows(rows: Padded, place: np.ndarray) -> Padded:
    arrays = {name: getattr(rows, name)[place] for name in ("times", "values", "lower", "upper", "valid")}
    return dataclasses.replace(rows, subjects=tuple(rows.subjects[i] for i in place), **arrays)
