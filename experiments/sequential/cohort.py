"""Virtual patients under radiotherapy, their readings, and what a twin says after each of them."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import Distribution, LogNormal
from scipy.stats import spearmanr

from tumortwin.inference import Measurements, SmcCalibrator
from tumortwin.models import Logistic, Treated
from tumortwin.observation import LogNormalError
from tumortwin.twin import CompartmentTwin, Reading, Treatment

# Brain tumors of adults, as orders of magnitude: 20 cm^3 that grow by 2 % a day towards 150 cm^3; the log-sds are what
# patients differ by. 40 Gy in 15 fractions from day 14 (Roa et al. 2004, JCO 22:1583); outlines are off by 15 %.
CAPACITY = 150_000.0  # [mm^3]
NOISE = 0.15  # log-sd of a reading
PRIOR: dict[str, Distribution] = {
    "growth.growth_rate": LogNormal(np.log(0.02), 0.5),  # [1/day]
    "growth.start": LogNormal(np.log(20_000.0), 0.4),  # [mm^3]
    "alpha": LogNormal(np.log(0.05), 0.5),  # [1/Gy]
}
FRACTIONS = np.asarray([14.0 + 7 * (k // 5) + k % 5 for k in range(15)])  # [day]
DOSE = 40.0 / 15  # [Gy]
SCANS = (0.0, 13.0, 60.0, 90.0, 120.0, 150.0, 180.0)  # [day]
ASKED = 210.0  # [day]
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Course:
    """One patient through all scans: the twins [scan], and of the log volume on the day asked, after each scan, the
    width of the 95 % interval, the error of the median, and whether the truth was inside [scan]."""

    truth: dict[str, float]
    readings: tuple[Reading, ...]
    twins: tuple[CompartmentTwin, ...]
    width: np.ndarray
    error: np.ndarray
    inside: np.ndarray


def fresh(id: str) -> CompartmentTwin:
    """A twin before its first scan."""
    growth = Logistic(jnp.asarray(0.02), jnp.asarray(CAPACITY), jnp.asarray(20_000.0))
    model = Treated(growth, alpha=jnp.asarray(0.05))
    treatment = Treatment(jnp.asarray(FRACTIONS), jnp.full(FRACTIONS.size, DOSE))
    return CompartmentTwin.of(id, model, PRIOR, LogNormalError(jnp.asarray(NOISE)), treatment=treatment)


def patients(n: int, *, key: Array) -> tuple[list[dict[str, float]], np.ndarray, list[tuple[Reading, ...]]]:
    """`n` patients of the prior: parameters, log volume on the day asked [patient], and readings with noise."""
    truth_key, noise_key = jax.random.split(key)
    problem = fresh("truth").problem
    z = problem.sample_prior(n, key=truth_key)
    days = jnp.asarray([*SCANS, ASKED])
    values, curves = _curves(fresh("truth"), z, days)
    noise = NOISE * np.asarray(jax.random.normal(noise_key, (n, len(SCANS))))
    seen = np.asarray(curves)[:, :-1] * np.exp(noise)
    truths = [{path: float(v[i]) for path, v in values.items() if path.startswith("typical.")} for i in range(n)]
    readings = [tuple(Reading.exact(d, v) for d, v in zip(SCANS, row, strict=True)) for row in seen]
    return truths, np.log(np.asarray(curves)[:, -1]), readings


def follow(
    id: str,
    truth: dict[str, float],
    asked: float,
    readings: tuple[Reading, ...],
    settings: SmcCalibrator,
    step: Callable[[], None],
    *,
    key: Array,
) -> Course:
    """One patient, scan after scan."""
    twin, twins, forecasts = fresh(id), [], []
    for k, reading in enumerate(readings):
        twin = twin.assimilate(reading, settings, key=jax.random.fold_in(key, k))
        twins.append(twin)
        draws = np.log(twin.forecast(np.asarray([ASKED]), 2000, key=jax.random.fold_in(key, 1000 + k))[:, 0])
        forecasts.append(np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]))
        step()
    low, middle, high = np.asarray(forecasts).T
    inside = (low <= asked) & (asked <= high)
    return Course(truth, readings, tuple(twins), high - low, np.abs(middle - asked), inside)


def spearman(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    """Rank correlation of `values` [patient, scan] with the number of the scan, and its upper 95 % bound when patients
    are drawn again."""

    def of(rows: np.ndarray) -> float:
        return float(np.asarray(spearmanr(np.tile(np.arange(rows.shape[1]), len(rows)), rows.ravel()))[0])

    rng = np.random.default_rng(seed)
    again = [of(values[rng.integers(len(values), size=len(values))]) for _ in range(resamples)]
    return of(values), float(np.quantile(again, 0.95))


def _curves(twin: CompartmentTwin, z: Array, days: Array) -> tuple[dict[str, Array], Array]:
    problem = twin.problem

    @eqx.filter_jit
    def every(points: Array) -> tuple[dict[str, Array], Array]:
        blank = jnp.zeros((1, days.size))
        asked = Measurements(days[None], blank, blank, blank, given=problem.data.given)

        def one(point: Array) -> tuple[dict[str, Array], Array]:
            values = problem.constrain(point)
            return values, problem.solve(problem.bound(values), asked)[0]

        return jax.vmap(one)(points)

    return every(z)
