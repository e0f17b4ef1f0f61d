"""A virtual patient: a tumor grown on real anatomy, finer and less regular than the model that will be fitted to it."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Array

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.metrics import bounding_box
from tumortwin.models import (
    AbstractInitialCondition,
    Diffusion,
    DrugResponse,
    GaussianSeed,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule
from tumortwin.twin._patient import Patient, Scan


@dataclasses.dataclass(frozen=True)
class VirtualTumor:
    """What a virtual tumor is drawn from. Medians and log-standard-deviations (natural log) of log-normal truths.

    `gray_ratio` D_g/D_w; `rate_spread`, `rate_length` [mm]: log-standard-deviation and correlation length of rho(x)
    within one tumor;
    `contour_noise` [logit], `contour_length` [mm]: how a rater's outline wanders; `adc_noise` [1] of cellularity,
    `adc_length` [mm] its correlation; `core_volume` [mm^3] range of the T1Gd volume at the first visit.
    """

    diffusivity: tuple[float, float] = (0.10, 0.35)
    rate: tuple[float, float] = (0.035, 0.30)
    alpha: tuple[float, float] = (0.035, 0.30)
    sensitivity: tuple[float, float] = (0.20, 0.30)
    gray_ratio: float = 0.1
    rate_spread: float = 0.25
    rate_length: float = 10.0
    flair_threshold: tuple[float, float] = (0.16, 0.35)
    t1gd_threshold: tuple[float, float] = (0.60, 0.80)
    contour_noise: float = 0.6
    contour_length: float = 3.0
    adc_noise: float = 0.12
    adc_length: float = 2.0
    core_volume: tuple[float, float] = (6e3, 2.5e4)
    longest_growth: float = 900.0
    side: float = 108.0


def virtual_patient(
    id: str,
    grid: Grid,
    brain: np.ndarray,
    domain: np.ndarray,
    tissue: dict[str, np.ndarray],
    anatomy: np.ndarray,
    *,
    days: Sequence[float],
    schedule: Schedule,
    tumor: VirtualTumor | None = None,
    adc_water: float = 3.0,
    adc_tumor: float = 0.8,
    source: str = "",
    key: Array,
) -> Patient:
    """A tumor seeded in white matter, grown on the anatomy's own grid until it is found, then treated and scanned.

    The truth differs from the model fitted to it in what a real tumor may differ in: rho(x) varies in space, the grid
    is finer, the tumor comes from a seed and not from contours, outlines and ADC carry spatially correlated noise.
    `truth` holds D, the tumor-mass-weighted mean of rho(x) at day 0, alpha, the drug sensitivity, thresholds and the
    noise-free volumes at every visit (`volume_<channel>_<day>` [mm^3]).

    **Arguments:** anatomy on one `grid`; `days` of the visits, the first 0; `schedule` of treatment; ADC of free water
    and of densest tumor [1e-3 mm^2/s]; `key`.

    **Raises:** `ValueError` when no seed grows to the wanted volume within `longest_growth` days, and when a solve
    fails.
    """
    tumor = VirtualTumor() if tumor is None else tumor
    truth = _draw_truth(tumor, jax.random.fold_in(key, 0))
    start, local, fields = _place(grid, domain, tissue, tumor, key=jax.random.fold_in(key, 1))
    relative = _smooth_noise(local.shape, local.spacing, tumor.rate_length, key=jax.random.fold_in(key, 2))
    rate = truth["rate"] * np.exp(tumor.rate_spread * relative - 0.5 * tumor.rate_spread**2)
    wanted = _uniform(tumor.core_volume, jax.random.fold_in(key, 3))
    found = _grow(local, fields, rate, truth, wanted, tumor)
    truth["rate"] = float((found * rate).sum() / found.sum())
    treated = _model(fields, rate, truth, GivenDensity(jnp.asarray(found)), tumor.gray_ratio)
    density = _solved(_visits(treated, schedule, tuple(float(d) for d in days)))
    scans, volumes = [], {}
    for i, day in enumerate(days):
        noise_key = jax.random.fold_in(jax.random.fold_in(key, 4), i)
        scan, noise_free = _scan(day, density[i], truth, tumor, local, (adc_water, adc_tumor), key=noise_key)
        volumes.update(noise_free)
        scans.append(_embed(scan, start, grid, brain & domain))
    return Patient(
        id=id,
        grid=grid,
        brain=brain,
        domain=domain,
        tissue=tissue,
        anatomy=anatomy,
        scans=tuple(scans),
        schedule=schedule,
        assumptions=(
            "Virtual patient: the anatomy is real, the tumor is simulated on a finer grid with a growth rate that "
            "varies in space, and every scan carries noise.",
        ),
        truth=truth | volumes,
        source=source,
    )


def _draw_truth(tumor: VirtualTumor, key: Array) -> dict[str, float]:
    keys = iter(jax.random.split(key, 6))
    draw = lambda pair: float(pair[0] * np.exp(pair[1] * float(jax.random.normal(next(keys)))))  # noqa: E731
    return {
        "diffusivity": draw(tumor.diffusivity),
        "rate": draw(tumor.rate),
        "alpha": draw(tumor.alpha),
        "sensitivity": draw(tumor.sensitivity),
        "flair_threshold": _uniform(tumor.flair_threshold, next(keys)),
        "t1gd_threshold": _uniform(tumor.t1gd_threshold, next(keys)),
    }


def _uniform(bounds: tuple[float, float], key: Array) -> float:
    return float(jax.random.uniform(key, minval=bounds[0], maxval=bounds[1]))


def _place(
    grid: Grid, domain: np.ndarray, tissue: dict[str, np.ndarray], tumor: VirtualTumor, *, key: Array
) -> tuple[tuple[int, int, int], Grid, Tissue]:
    """A box of `side` mm around a random deep white-matter voxel, and its tissue."""
    around = bounding_box(domain, 1)
    depth = np.zeros(domain.shape)
    depth[around] = scipy.ndimage.distance_transform_edt(domain[around], sampling=grid.spacing)
    deepest_share = 0.55  # of the greatest depth: away from the skull, not only in the very centre
    candidates = np.argwhere((tissue["white_matter"] > 0.8) & (depth > deepest_share * depth.max()))
    center = candidates[int(jax.random.randint(key, (), 0, len(candidates)))]
    shape = [min(n, int(np.ceil(tumor.side / h))) for n, h in zip(grid.shape, grid.spacing, strict=True)]
    start = [int(np.clip(c - s // 2, 0, n - s)) for c, s, n in zip(center, shape, grid.shape, strict=True)]
    box = tuple(slice(a, a + s) for a, s in zip(start, shape, strict=True))
    # Shape and spacing only: patients share one compiled program wherever their tumor lies.
    local = Grid.from_spacing(shape, grid.spacing)
    fields: dict[str, Array | np.ndarray] = {name: np.asarray(value[box], np.float32) for name, value in tissue.items()}
    a, b, c = start
    return (a, b, c), local, Tissue(Domain(local, domain[box]), fields)


def _smooth_noise(shape: Sequence[int], spacing: Sequence[float], length: float, *, key: Array) -> np.ndarray:
    """A standard-normal field with Gaussian correlation exp(-d^2 / (2 length^2)), length in mm."""
    white = np.asarray(jax.random.normal(key, tuple(shape), jnp.float32))
    # Filtering with sd length/sqrt(2) makes the autocorrelation a Gaussian of sd length.
    smooth = scipy.ndimage.gaussian_filter(white, [length / np.sqrt(2.0) / h for h in spacing], mode="wrap")
    return (smooth - smooth.mean()) / smooth.std()


def _model(
    tissue: Tissue, rate: np.ndarray, truth: dict[str, float], initial: AbstractInitialCondition, gray_ratio: float
) -> ReactionDiffusion:
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(truth["diffusivity"]), jnp.asarray(gray_ratio)),
        "proliferation": LogisticProliferation(jnp.asarray(rate, jnp.float32)),
        "radiotherapy": RadiotherapyResponse(jnp.asarray(truth["alpha"])),
        "chemotherapy": DrugResponse(jnp.asarray(truth["sensitivity"])),
    }
    # Fronts in gray matter are thinner than a voxel even here.
    return ReactionDiffusion(mechanisms, tissue, initial, front_correction=True)


# A fine step: its error (1e-4) is far below every noise, and it is not the step of the model that is fitted.
_TRUTH_STEP = 3.0
_TRUTH_BOUND = 0.6


def _grow(
    local: Grid,
    tissue: Tissue,
    rate: np.ndarray,
    truth: dict[str, float],
    wanted: float,
    tumor: VirtualTumor,
) -> np.ndarray:
    """The density at the first visit: from a seed until the T1Gd volume first exceeds `wanted` [mm^3]."""
    look_every = 30.0
    center = jnp.asarray(_nearest_white(tissue), float)
    density = GaussianSeed(center, jnp.asarray(0.6), jnp.asarray(2.5)).state(tissue).density
    threshold = truth["t1gd_threshold"]
    for _ in range(int(tumor.longest_growth / look_every)):
        grown = _model(tissue, rate, truth, GivenDensity(jnp.asarray(density)), tumor.gray_ratio)
        series = _solved(_advance(grown, look_every))
        volumes = (series > threshold).sum(axis=(1, 2, 3)) * local.cell_volume
        reached = np.flatnonzero(volumes >= wanted)
        if reached.size:
            return series[reached[0]]
        density = series[-1]
    raise ValueError(
        f"required: a tumor of {wanted:.0f} mm^3 within {tumor.longest_growth:g} days; it did not grow so far: raise "
        "`longest_growth` or the growth rate"
    )


@eqx.filter_jit
def _advance(model: ReactionDiffusion, length: float) -> tuple[Array, Array]:
    looks = np.arange(1, 11) * (length / 10.0)
    found = simulate(model, Schedule(), looks, FixedSteps(_TRUTH_STEP, _TRUTH_BOUND), estimate_error=False)
    return found.states.density, found.succeeded


def _solved(found: tuple[Array, Array]) -> np.ndarray:
    density, succeeded = found
    if not bool(succeeded):
        raise ValueError(
            f"required: a true tumor whose solve succeeds; received: one that failed; try: a diffusivity below "
            f"{_TRUTH_BOUND:g} mm^2/day (`tumor.diffusivity`), or a smaller growth rate"
        )
    return np.asarray(density)


def _nearest_white(tissue: Tissue) -> np.ndarray:
    """The white-matter voxel nearest to the middle of the box."""
    middle = np.asarray(tissue.grid.shape) / 2.0
    white = np.argwhere(np.asarray(tissue.fields["white_matter"]) > 0.5)
    return white[np.argmin(((white - middle) ** 2).sum(axis=1))]


@eqx.filter_jit
def _visits(model: ReactionDiffusion, schedule: Schedule, days: tuple[float, ...]) -> tuple[Array, Array]:
    found = simulate(model, schedule, days, FixedSteps(_TRUTH_STEP, _TRUTH_BOUND), estimate_error=False)
    return found.states.density, found.succeeded


def _scan(
    day: float,
    density: np.ndarray,
    truth: dict[str, float],
    tumor: VirtualTumor,
    local: Grid,
    adc_range: tuple[float, float],
    *,
    key: Array,
) -> tuple[Scan, dict[str, float]]:
    masks, volumes = {}, {}
    floor = 1e-6
    logit = np.log(np.clip(density, floor, 1 - floor)) - np.log1p(-np.clip(density, floor, 1 - floor))
    for i, channel in enumerate(("t1gd", "flair")):
        threshold = truth[f"{channel}_threshold"]
        wander = _smooth_noise(local.shape, local.spacing, tumor.contour_length, key=jax.random.fold_in(key, i))
        edge = np.log(threshold) - np.log1p(-threshold)
        masks[channel] = (logit + tumor.contour_noise * wander > edge) & (density > floor)
        volumes[f"volume_{channel}_{day:g}"] = float((density > threshold).sum() * local.cell_volume)
    water, dense = adc_range
    noise = _smooth_noise(local.shape, local.spacing, tumor.adc_length, key=jax.random.fold_in(key, 2))
    adc = water - (density + tumor.adc_noise * noise) * (water - dense)
    # An ADC cannot be negative: the scanner reports at least 0.05e-3 mm^2/s.
    return Scan(day, masks, np.maximum(adc, 0.05).astype(np.float32)), volumes


def _embed(scan: Scan, start: tuple[int, int, int], grid: Grid, inside: np.ndarray) -> Scan:
    """The scan of a box on the whole grid; ADC counts only where the box met the tumor's domain."""
    assert scan.adc is not None
    box = tuple(slice(a, a + n) for a, n in zip(start, scan.adc.shape, strict=True))
    masks = {}
    for channel, mask in scan.masks.items():
        whole = np.zeros(grid.shape, bool)
        whole[box] = mask
        masks[channel] = whole & inside
    adc, valid = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, bool)
    adc[box], valid[box] = scan.adc, True
    # Cellularity is read where the tumor is visible (FLAIR); elsewhere ADC shows tissue, not tumor.
    return Scan(scan.day, masks, adc, valid & masks["flair"])
