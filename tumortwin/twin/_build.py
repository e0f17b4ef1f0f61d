"""From a patient to a calibration problem: what is simulated, what is compared with what, what may vary."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import Distribution

from tumortwin.inference import Prior, Problem
from tumortwin.models import (
    AbstractInitialCondition,
    ContourProfile,
    Diffusion,
    DrugResponse,
    GivenDensity,
    GrownSeed,
    LogisticProliferation,
    PatternedProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.observation import AbstractObservation, AdcObservation, Datum, MaskObservation, cellularity_from_adc
from tumortwin.solvers import FixedSteps, Trajectory, simulate
from tumortwin.treatments import Resection, Schedule
from tumortwin.twin._frame import ModelFrame
from tumortwin.twin._patient import Patient, Scan
from tumortwin.twin._pattern import smooth_modes
from tumortwin.twin._unlearned import CHEMOTHERAPY, RADIOTHERAPY, is_given

# The same density is the contour of the initial condition and the threshold of the observation.
TIES = {
    "initial.flair_density": "observation.flair.threshold",
    "initial.t1gd_density": "observation.t1gd.threshold",
    "initial.diffusivity": "mechanisms.diffusion.white_matter",
    "initial.rate": "mechanisms.proliferation.rate",
}
PATTERN = "mechanisms.proliferation.pattern"
_CONTOUR_PATHS = (
    "initial.core_ratio",
    "initial.tail_ratio",
    "initial.flair_shift",
    "initial.t1gd_shift",
)
_HALF = 0.5
_WHOLE = 1.0 - 1e-6  # rounding of a block mean


@dataclasses.dataclass(frozen=True)
class GliomaSettings:
    """The fixed numbers of the imaging glioma twin; everything that a prior addresses is not here.

    `gray_ratio` D_g/D_w; `alpha_beta` [Gy]; `elimination_rate` [1/day] of the drug; `adc_water`, `adc_tumor`
    [1e-3 mm^2/s]; `voxel_weight` the first guess of V_voxel / V_corr before it is estimated; `start`: `contours` (the
    first visit's outlines start the simulation) or `seed` (a seed grown until day 0: for a patient with one visit);
    `pattern_modes`, `pattern_length` [mm], `pattern_spread`: number of modes, correlation length and log-standard-
    deviation of the growth rate within a tumor, when the prior addresses `mechanisms.proliferation.pattern`;
    `front_correction` of the model, for grids that are coarse against sqrt(D/rho).
    """

    gray_ratio: float = 0.1
    alpha_beta: float = 10.0
    elimination_rate: float = 9.242
    adc_water: float = 3.0
    adc_tumor: float = 0.8
    voxel_weight: float = 0.3
    start: str = "contours"
    front_correction: bool = True
    pattern_modes: int = 10
    pattern_length: float = 12.0
    pattern_spread: float = 0.3
    # Starting values, replaced by whatever the prior addresses.
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"t1gd": 0.7, "flair": 0.25})


def build_problem(
    patient: Patient,
    frame: ModelFrame,
    solver: FixedSteps,
    prior: Mapping[str, Distribution],
    settings: GliomaSettings | None = None,
) -> Problem:
    """The calibration problem of a patient.

    Paths of the prior that have nothing to act on are dropped: radiosensitivity of a patient without fractions before
    the last scan, the threshold of a channel that was never acquired, and so on (`dropped_paths`). The effects of
    treatment among them stay in `Problem.unlearned`: forecasts and plans that give the treatment draw them from there.

    **Raises:** `ValueError` for a first visit without any outlined tumor.
    """
    settings = GliomaSettings() if settings is None else settings
    tissue = frame.tissue(patient)
    channels = sorted({c for scan in patient.scans for c in scan.masks})
    observations: dict[str, AbstractObservation] = {
        channel: MaskObservation(jnp.asarray(settings.thresholds.get(channel, _HALF)), jnp.ones(()), within_voxel=True)
        for channel in channels
    }
    if any(scan.adc is not None for scan in patient.scans):
        observations["adc"] = AdcObservation(jnp.asarray(0.1))
    initial = _initial(patient, frame, settings)
    mechanisms = _mechanisms(patient.schedule, settings)
    dropped = dropped_paths(patient, settings, prior, frame)
    kept = {path: d for path, d in prior.items() if path not in dropped}
    if PATTERN in kept:
        mechanisms["proliferation"] = _patterned(patient, frame, settings)
        kept[PATTERN] = kept[PATTERN].expand((mechanisms["proliferation"].pattern.shape[0],))
    model = ReactionDiffusion(mechanisms, tissue, initial, settings.front_correction)
    data = _data(patient, frame, settings, np.asarray(tissue.domain.mask))
    kept, observations = _with_shifts(kept, observations, data)
    waiting = {path: prior[path] for path in dropped if path.startswith((RADIOTHERAPY, CHEMOTHERAPY))}
    ties = {target: source for target, source in TIES.items() if settings.start == "contours" and source in kept}
    return Problem(
        model=model,
        observations=observations,
        prior=Prior(kept),
        data=data,
        solve=Solve(on_frame(patient.schedule, frame), solver),
        spacing=frame.grid.spacing,
        ties=tuple(sorted(ties.items())),
        unlearned=Prior(waiting) if waiting else None,
    )


# How far beyond the outlines [mm] the growth rate may have a pattern of its own.
_PATTERN_REACH = 5.0


def _patterned(patient: Patient, frame: ModelFrame, settings: GliomaSettings) -> PatternedProliferation:
    """Growth with a pattern over everything outlined so far and the tissue around it."""
    near = frame.distance(patient.outlined) < _PATTERN_REACH
    modes = smooth_modes(
        near & np.asarray(frame.tissue(patient).domain.mask),
        frame.grid.spacing,
        count=settings.pattern_modes,
        length=settings.pattern_length,
        spread=settings.pattern_spread,
    )
    return PatternedProliferation(jnp.asarray(modes), jnp.asarray(0.03), jnp.zeros(len(modes)))


def _with_shifts(
    prior: dict[str, Distribution], observations: dict[str, AbstractObservation], data: tuple[Datum, ...]
) -> tuple[dict[str, Distribution], dict[str, AbstractObservation]]:
    """Every channel's shift as a vector over its visits with data."""
    prior, observations = dict(prior), dict(observations)
    for channel, observation in observations.items():
        path, count = f"observation.{channel}.shift", sum(datum.channel == channel for datum in data)
        if path in prior:
            assert isinstance(observation, MaskObservation)
            prior[path] = prior[path].expand((count,))
            observations[channel] = eqx.tree_at(lambda o: o.shift, observation, jnp.zeros(count))
    return prior, observations


def dropped_paths(
    patient: Patient, settings: GliomaSettings, prior: Mapping[str, Distribution], frame: ModelFrame | None = None
) -> dict[str, str]:
    """Prior paths that act on nothing for this patient, each with the reason (for the report).

    With the `frame` also those of an ADC of which no block of the model's grid is left (`unused_adc`).
    """
    last = patient.scans[-1].day
    channels = {c for scan in patient.scans for c in scan.masks}
    reasons: dict[str, str] = {}
    for path in prior:
        if not is_given(path, patient.schedule, last):
            agent = "fraction" if path.startswith(RADIOTHERAPY) else "drug"
            reasons[path] = f"no {agent} was given before the last scan"
        if path in ("initial.flair_shift", "initial.t1gd_shift"):
            outline = patient.scans[0].masks.get(path.removeprefix("initial.").removesuffix("_shift"))
            if outline is None or not outline.any():
                reasons.setdefault(path, "the first visit has no such outline")
        if path == PATTERN and (len(patient.scans) == 1 or settings.start != "contours"):
            reasons[path] = "one visit says nothing about where growth is faster"
        elif path == PATTERN and not settings.pattern_modes:
            reasons[path] = "the settings ask for growth that is alike everywhere (pattern_modes 0)"
        if path.startswith("observation."):
            channel = path.split(".")[1]
            seen = any(s.adc is not None for s in patient.scans) if channel == "adc" else channel in channels
            if not seen:
                reasons[path] = f"channel {channel} was never acquired"
            elif path.endswith(".shift") and not any(
                channel in scan.masks and _outlines_are_data(patient, index, settings)
                for index, scan in enumerate(patient.scans)
            ):
                reasons[path] = f"channel {channel} has no visit but the one that starts the simulation"
        if path.startswith("initial.") and (path in _CONTOUR_PATHS) != (settings.start == "contours"):
            reasons[path] = f"the simulation starts from {settings.start}"
    measured = sum(scan.adc is not None for scan in patient.scans)
    if frame is not None and measured and len(unused_adc(patient, frame)) == measured:
        noise = [path for path in prior if path.startswith("observation.adc.")]
        reasons |= {path: "no model voxel lies wholly where an ADC map counts" for path in noise}
    return reasons


def unused_adc(patient: Patient, frame: ModelFrame) -> tuple[float, ...]:
    """Days whose ADC map is left out, because no block of the model's grid lies wholly where the map counts."""
    domain = np.asarray(frame.tissue(patient).domain.mask) & _outlined_from_the_start(patient, frame)
    measured = [scan for scan in patient.scans if scan.adc is not None]
    return tuple(scan.day for scan in measured if not ((_covered(scan, frame) >= _WHOLE) & domain).any())


def on_frame(schedule: Schedule, frame: ModelFrame) -> Schedule:
    """A patient's schedule with its resections on the model's grid: the share of every block that was removed."""
    resections = [Resection(r.time, jnp.asarray(frame.coarse(np.asarray(r.removed)))) for r in schedule.resections]
    return Schedule(schedule.radiotherapy, schedule.drugs, resections)


class Solve(eqx.Module):
    """`(model, days) -> density [time x y z]`, NaN where the solve failed."""

    schedule: Schedule
    solver: FixedSteps

    def __call__(self, model: ReactionDiffusion, days: tuple[float, ...]) -> Array:
        model, fine = start_at_day_zero(model, self.solver)
        trajectory = simulate(model, self.schedule, days, self.solver, estimate_error=False)
        density = trajectory.states.density
        return jnp.where(trajectory.succeeded & fine, density, jnp.nan)


@eqx.filter_jit
def time_error(problem: Problem, values: Mapping[str, Array], days: tuple[float, ...]) -> Array:
    """Estimated relative L2 error of the density that comes from the time step [day], at one set of parameters.

    Richardson's (`simulate`). The error of the grid is not in it. That of a seed grown until day 0 is added on every
    day, as if nothing of it were lost.
    """
    assert isinstance(problem.solve, Solve)
    solver, model = problem.solve.solver, problem.bind(values)[0]
    before = jnp.zeros(())
    if isinstance(model.initial, GrownSeed):
        before = _grown(model, model.initial, solver, estimate_error=True).error_estimate[-1]
    start, _ = start_at_day_zero(model, solver)
    return before + simulate(start, problem.solve.schedule, days, solver).error_estimate


def start_at_day_zero(model: ReactionDiffusion, solver: FixedSteps) -> tuple[ReactionDiffusion, Array]:
    """The model with its density at day 0 as initial condition, and whether growing it succeeded.

    A seed of unknown age T is grown over a fixed span S with D T / S and rho T / S: the same tumor, static steps.
    """
    initial = model.initial
    if not isinstance(initial, GrownSeed):
        return model, jnp.asarray(True)
    trajectory = _grown(model, initial, solver, estimate_error=False)
    start = GivenDensity(trajectory.states.density[-1])
    return eqx.tree_at(lambda m: m.initial, model, start), trajectory.succeeded


def _grown(model: ReactionDiffusion, initial: GrownSeed, solver: FixedSteps, *, estimate_error: bool) -> Trajectory:
    stretch = initial.age / initial.span
    diffusion, proliferation = model.diffusion, model.proliferation
    grown = eqx.tree_at(
        lambda m: (m.mechanisms["diffusion"].white_matter, m.mechanisms["proliferation"].rate),
        model,
        (diffusion.white_matter * stretch, proliferation.rate * stretch),
    )
    bound = FixedSteps(solver.max_step, solver.max_diffusivity * float(initial.longest) / initial.span)
    return simulate(grown, Schedule(), (initial.span,), bound, estimate_error=estimate_error)


def _mechanisms(schedule: Schedule, settings: GliomaSettings):
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(0.1), jnp.asarray(settings.gray_ratio)),
        "proliferation": LogisticProliferation(jnp.asarray(0.03)),
        "radiotherapy": RadiotherapyResponse(jnp.asarray(0.035), jnp.asarray(settings.alpha_beta)),
    }
    drugs = sorted(schedule.drugs) or ["temozolomide"]
    names = ["chemotherapy"] if len(drugs) == 1 else [f"chemotherapy_{drug}" for drug in drugs]
    for name, drug in zip(names, drugs, strict=True):
        mechanisms[name] = DrugResponse(jnp.asarray(0.2), jnp.asarray(settings.elimination_rate), drug)
    return mechanisms


def _initial(patient: Patient, frame: ModelFrame, settings: GliomaSettings) -> AbstractInitialCondition:
    first = patient.scans[0]
    if not any(mask.any() for mask in first.masks.values()):
        raise ValueError("required: a tumor outlined at the first visit; received: empty masks only")
    if settings.start == "seed":
        outlined = [m for m in (first.masks.get("t1gd"), first.masks.get("flair")) if m is not None and m.any()]
        share = frame.coarse(outlined[0].astype(np.float32))
        center = np.asarray([(share * axis).sum() / share.sum() for axis in np.indices(share.shape)])
        return GrownSeed(jnp.asarray(center))
    empty = np.zeros(patient.grid.shape, bool)
    speed = _front_speed(patient, settings)
    travelled = [frame.travel(first.masks.get(channel, empty), speed) for channel in ("flair", "t1gd")]
    flair, core = frame.parts(travelled, patient.domain)
    return ContourProfile(jnp.asarray(flair), jnp.asarray(core))


def _front_speed(patient: Patient, settings: GliomaSettings) -> np.ndarray:
    """sqrt(D / D_w) [1], the speed of a front; outside the domain and where there is no tissue that of gray matter."""
    white = np.asarray(patient.tissue["white_matter"], np.float32)
    gray = np.asarray(patient.tissue.get("gray_matter", np.zeros_like(white)), np.float32)
    slowest = settings.gray_ratio
    return np.sqrt(np.where(patient.domain, np.maximum(white + slowest * gray, slowest), slowest))


def _outlines_are_data(patient: Patient, index: int, settings: GliomaSettings) -> bool:
    """Whether the outlines of visit `index` are compared with the simulation.

    Those of the first visit are the initial condition of a contour start; they are not used twice. When there is
    nothing else they are data all the same: of day 0 they say how sharp an edge is, nothing of D or rho.
    """
    alone = len(patient.scans) == 1 and patient.scans[0].adc is None
    return index > 0 or settings.start == "seed" or alone


def _data(patient: Patient, frame: ModelFrame, settings: GliomaSettings, domain: np.ndarray) -> tuple[Datum, ...]:
    data: list[Datum] = []
    from_the_start = _outlined_from_the_start(patient, frame)
    for index, scan in enumerate(patient.scans):
        if _outlines_are_data(patient, index, settings):
            for channel, mask in sorted(scan.masks.items()):
                share = frame.coarse(mask.astype(np.float32))
                data.append(Datum(scan.day, channel, share, domain, settings.voxel_weight))
        adc = adc_datum(scan, frame, settings, domain & from_the_start)
        if adc is not None:
            data.append(adc)
    return tuple(data)


def _outlined_from_the_start(patient: Patient, frame: ModelFrame) -> np.ndarray:
    """Blocks wholly inside the first visit's outline: where the ADC of any visit may count.

    A place outside it is inside a later outline only when the tumor got there early: of what the model expects there,
    only the high side would ever be compared. Those voxels made tails flatter, fronts faster and rho lower.
    """
    first = patient.scans[0].outline
    if first is None:
        return np.ones(frame.window.shape, bool)
    return frame.coarse(first.astype(np.float32)) >= _WHOLE


def adc_datum(scan: Scan, frame: ModelFrame, settings: GliomaSettings, domain: np.ndarray) -> Datum | None:
    """Cellularity on the model's grid: block means, of blocks that are valid throughout.

    At the edge of the outline the valid part of a block is its denser part: its mean would say more than the block
    holds. Without `adc_valid` the blocks inside the visit's own outline count. `domain`: the blocks that may count.

    **Raises:** `ValueError` for an ADC map with neither `adc_valid` nor an outline.
    """
    if scan.adc is None:
        return None
    cellularity = cellularity_from_adc(jnp.asarray(scan.adc), water=settings.adc_water, minimum=settings.adc_tumor)
    covered = _covered(scan, frame)
    enough = (covered >= _WHOLE) & domain
    if not enough.any():
        return None
    total = frame.coarse(np.where(_counts(scan), cellularity, 0.0))
    values = total / np.where(enough, covered, 1.0)
    return Datum(scan.day, "adc", values.astype(np.float32), enough, settings.voxel_weight)


def _counts(scan: Scan) -> np.ndarray:
    """Where the ADC of a visit tells of the tumor."""
    valid = scan.outline if scan.adc_valid is None else scan.adc_valid
    if valid is None:
        raise ValueError(
            f"required: where the ADC of day {scan.day:g} tells of the tumor; received: neither an outline nor "
            "adc_valid; try: Scan(day, masks, adc, adc_valid)"
        )
    return valid


def _covered(scan: Scan, frame: ModelFrame) -> np.ndarray:
    """Share of each block of the model's grid in which the ADC counts."""
    return frame.coarse(_counts(scan).astype(np.float32))
