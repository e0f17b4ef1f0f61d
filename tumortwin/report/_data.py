"""What a report is made of: plain numbers and words. No array library but NumPy, no file format, no configuration.

Units are canonical throughout: days since the first visit, mm, mm^3, Gy. The report prints volumes in mL. Images carry
their own RAS+ affine, so a map on a coarse grid and anatomy on a fine one meet in millimetres, never in voxel indices.
Every part but the title and the question may be missing; a missing part leaves its section with a sentence saying why.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from tumortwin.metrics import quantile

Number: TypeAlias = float | int
TWIN = "twin"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """Values [x y z] and the 4x4 RAS+ affine [mm] that places them."""

    values: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        _require(self.values.ndim == 3, f"required: an image [x y z]; received: shape {self.values.shape}")
        good = self.affine.shape == (4, 4) and bool(np.isfinite(self.affine).all())
        _require(good, f"required: a finite 4x4 affine; received: {self.affine!r}")

    @property
    def spacing(self) -> np.ndarray:
        """Voxel edge lengths [mm]."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def cell_volume(self) -> float:
        """Volume of one voxel [mm^3]."""
        return float(np.prod(self.spacing))


@dataclasses.dataclass(frozen=True, eq=False)
class Anatomy:
    """The gray background; `brain` (bool, same grid) crops and windows it, None shows the whole image."""

    image: Image
    brain: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.brain is not None:
            shapes = (self.brain.shape, self.image.values.shape)
            _require(shapes[0] == shapes[1], f"required: a brain mask on the anatomy's grid; received: shapes {shapes}")


@dataclasses.dataclass(frozen=True)
class Channel:
    """What is outlined: key (`t1gd`) and the words an oncologist reads (`enhancing tumor`), lower case."""

    key: str
    label: str


@dataclasses.dataclass(frozen=True, eq=False)
class Visit:
    """One imaging visit: `volumes` [mm^3] and `masks` (bool or fraction) by channel key.

    `hidden` visits were kept from the twin. Masks carry their own affine. A channel absent from both was not measured.
    """

    day: Number
    volumes: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Image] = dataclasses.field(default_factory=dict)
    hidden: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Treatments:
    """What was given or is assumed: fraction days and doses [Gy], drug days by name, days of surgery."""

    fraction_days: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    fraction_doses: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    drug_days: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    surgery_days: tuple[Number, ...] = ()

    def __post_init__(self) -> None:
        shapes = (self.fraction_days.shape, self.fraction_doses.shape)
        _require(shapes[0] == shapes[1], f"required: one dose a fraction day; received: shapes {shapes}")


@dataclasses.dataclass(frozen=True, eq=False)
class PatientSummary:
    """Who: id, where the data come from, their age in words, whether the patient is simulated, visits in order."""

    id: str
    source: str = ""
    data_age: str = ""
    virtual: bool = False
    visits: tuple[Visit, ...] = ()
    treatments: Treatments = dataclasses.field(default_factory=Treatments)

    def __post_init__(self) -> None:
        days = [visit.day for visit in self.visits]
        _require(days == sorted(days), f"required: visits in time order; received: days {days}")


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterDraws:
    """Prior and posterior draws of one parameter (any shape; flattened), with its plain-word name and unit.

    `weights` (>= 0, same shape as `posterior`) for importance samples; `truth` for a virtual patient, or
    `truth_words` where it is no single number. `posterior` None means that the parameter was not learned.
    """

    path: str
    label: str
    unit: str
    prior: np.ndarray
    posterior: np.ndarray | None = None
    weights: np.ndarray | None = None
    truth: Number | None = None
    truth_words: str = ""

    def __post_init__(self) -> None:
        if self.weights is not None:
            same = self.posterior is not None and self.weights.shape == self.posterior.shape
            _require(same, f"required: one weight a posterior draw; received: weights of shape {self.weights.shape}")


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnostics:
    """How far to trust the inference.

    `values`: name -> number (`k_hat ess r_hat divergences failed_solves` and the flags `map_converged at_mode
    sample_reliable` are judged, others listed); `statement`: identifiability in
    plain words; `method`: the calibrator in words; `labels`: what the paths of the statement are called.
    """

    values: Mapping[str, Number | None]
    statement: str = ""
    method: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class PredictedMask:
    """Probability [0, 1] that each voxel is in the mask of `channel` on `day`."""

    day: Number
    channel: str
    probability: Image


@dataclasses.dataclass(frozen=True, eq=False)
class VolumePrediction:
    """Volume of `channel` over time [mm^3]: median and 95 % (and 50 %) prediction interval at `days`.

    The interval must contain the observation noise. `draws` [draw day] optional; `truth` [day] for a virtual patient.
    """

    channel: str
    days: np.ndarray
    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    lower_half: np.ndarray | None = None
    upper_half: np.ndarray | None = None
    draws: np.ndarray | None = None
    truth: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("median", "lower", "upper", "lower_half", "upper_half", "truth"):
            curve = getattr(self, name)
            if curve is not None and curve.shape != self.days.shape:
                raise ValueError(f"required: {name} at {self.days.shape} days; received: shape {curve.shape}")
            finite = curve is None or bool(np.isfinite(curve).all())
            _require(finite, f"required: finite volumes; received: NaN or infinity in {name} of {self.channel}")
        _require(self.days.size > 0, f"required: at least one day of predicted {self.channel} volume; received: none")

    def at(self, day: Number) -> tuple[float, float, float]:
        """Median and 95 % interval [mm^3] on `day`, linear between the given days."""
        median, lower, upper = (
            float(np.interp(day, self.days, curve)) for curve in (self.median, self.lower, self.upper)
        )
        return median, lower, upper


def volume_prediction(
    channel: str,
    days: np.ndarray,
    draws: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    truth: np.ndarray | None = None,
) -> VolumePrediction:
    """A `VolumePrediction` from predictive draws [draw day] (observation noise included), with weights [draw]."""
    levels = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
    curves = np.stack([quantile(column, levels, weights) for column in draws.T], axis=1)
    lower, lower_half, median, upper_half, upper = curves
    return VolumePrediction(channel, days, median, lower, upper, lower_half, upper_half, draws, truth)


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """What a method that knows no biology would have said: volumes [mm^3] of `channel` at `days`."""

    name: str
    channel: str
    days: np.ndarray
    volumes: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ForecastMaps:
    """Maps on `day` over the posterior: P(tumor) [0, 1], and mean and sd of the density when there."""

    day: Number
    p_tumor: Image
    mean: Image | None = None
    sd: Image | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """The future as the twin sees it from `origin_day` (the last scan used).

    `headline_day`: the day of the one-line answer; None takes the last hidden visit, or else the last day predicted.
    `assumed_treatment`: the treatment the forecast assumes, a phrase (`the treatment already given, and none after`).
    """

    origin_day: Number
    volumes: tuple[VolumePrediction, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    maps: tuple[ForecastMaps, ...] = ()
    headline_day: Number | None = None
    assumed_treatment: str = ""


@dataclasses.dataclass(frozen=True)
class Score:
    """One number of one method on the hidden scans. `method` `twin` is ours, any other a baseline.

    `metric`: `dice hd95 ccc crps coverage` are known (hd95 in mm, crps in mm^3); others are printed, not judged.
    An infinite hd95 is the worst of all: one of the two outlines was empty. `value` None: not defined.
    """

    method: str
    metric: str
    value: Number | None
    channel: str | None = None
    day: Number | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Coverage:
    """Share of truths inside intervals of nominal level (both in [0, 1]), over `count` truths; from a study of many."""

    label: str
    nominal: np.ndarray
    empirical: np.ndarray
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Regimen:
    """A course of radiotherapy: dose a fraction [Gy] in each week, first day, and its outcome for each fresh draw.

    `outcome` [draw]: the same draws, in the same order, for every regimen of a plan (gains are paired). `bed` [Gy]:
    biologically effective dose to normal tissue.
    """

    label: str
    weekly_fraction_dose: np.ndarray
    start_day: Number
    outcome: np.ndarray
    bed: Number | None = None
    fractions_per_week: int = 5

    @property
    def total_dose(self) -> float:
        """Total dose [Gy]."""
        return float(np.sum(self.weekly_fraction_dose) * self.fractions_per_week)


@dataclasses.dataclass(frozen=True)
class PlanRow:
    """A further line of the comparison table, printed as given (`low`, `high`: interval or None).

    `interval` says what it is an interval of: the draws, or a mean or share of finitely many draws.
    """

    name: str
    value: Number
    low: Number | None = None
    high: Number | None = None
    unit: str = ""
    interval: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A finished figure: file stem, PNG bytes, caption, and what a reader who cannot see it needs to know."""

    name: str
    png: bytes
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedSchedule:
    """A plan of any kind of decision, in words and numbers.

    `label`: for whom (empty: the patient); `sentences`: what is proposed and what it gains; `rows` of the comparison;
    `picture` of schedules and burden, where there is one; `chosen`: how it was sought and within which limits.
    """

    label: str
    sentences: tuple[str, ...]
    rows: tuple[PlanRow, ...] = ()
    picture: Picture | None = None
    chosen: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The recommended regimen beside the standard of care, scored on fresh draws.

    `outcome_name`, `outcome_unit`: what `Regimen.outcome` measures (`enhancing tumor volume on day 180`, `mm^3`).
    `equal_bed`: the recommended shape scaled to the standard's normal-tissue BED, if fraction size may explain a gain.
    `picture`: doses and burden over time, where one was drawn; `front`: what less of a second aim costs, in words.
    `benefit_from`: the smallest gain that counts as benefit, in the outcome's unit; `benefit_share`: the same as a
    share of the other regimen's outcome (the two add up); `risk`: what was minimised.
    """

    recommended: Regimen
    standard: Regimen
    outcome_name: str
    outcome_unit: str
    equal_bed: Regimen | None = None
    lower_is_better: bool = True
    benefit_from: Number = 0.0
    benefit_share: Number = 0.0
    risk: str = ""
    constraints: tuple[str, ...] = ()
    rows: tuple[PlanRow, ...] = ()
    picture: Picture | None = None
    front: str = ""

    def __post_init__(self) -> None:
        others = [self.standard] if self.equal_bed is None else [self.standard, self.equal_bed]
        for other in others:
            shapes = (self.recommended.outcome.shape, other.outcome.shape)
            _require(shapes[0] == shapes[1], f"required: paired outcomes of equal length; received: shapes {shapes}")


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of results.json."""

    name: str
    value: Number | str | None
    unit: str = ""
    target: str = ""
    source: str = ""


@runtime_checkable
class Learned(Protocol):
    """A report that says what was learned, whatever of."""

    @property
    def parameters(self) -> tuple[ParameterDraws, ...]: ...
    @property
    def diagnostics(self) -> Diagnostics | None: ...


@runtime_checkable
class Documented(Protocol):
    """A report that states its limits and its record, whatever on."""

    @property
    def limits(self) -> tuple[str, ...]: ...
    @property
    def assumptions(self) -> tuple[str, ...]: ...
    @property
    def results(self) -> tuple[Result, ...]: ...
    @property
    def provenance(self) -> Mapping[str, object]: ...
    @property
    def citations(self) -> tuple[str, ...]: ...
    @property
    def reproduce(self) -> str: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ReportData:
    """Everything the report says. See the parts for their units.

    `channels`: in order of importance; the first one gives the headline. `absent`: section name -> sentence that
    replaces the standard one when that section is missing (`anatomy parameters fit forecast maps scores plan`).
    `schedules`: plans that are not weekly fractions, in place of `plan`.
    `reproduce`: the one command that repeats this report. `beyond`: a sentence on what is expected beyond the edge.
    """

    title: str
    question: str
    patient: PatientSummary
    channels: tuple[Channel, ...]
    anatomy: Anatomy | None = None
    parameters: tuple[ParameterDraws, ...] = ()
    diagnostics: Diagnostics | None = None
    fit: tuple[PredictedMask, ...] = ()
    forecast: Forecast | None = None
    scores: tuple[Score, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    plan: Plan | None = None
    schedules: tuple[PlannedSchedule, ...] = ()
    limits: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    provenance: Mapping[str, object] = dataclasses.field(default_factory=dict)
    citations: tuple[str, ...] = ()
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reproduce: str = ""
    beyond: str = ""

    def label(self, channel: str | None) -> str:
        """The words of a channel key."""
        return next((c.label for c in self.channels if c.key == channel), channel or "all channels")

    def volume_of(self, visit: Visit, channel: str) -> float | None:
        """Observed volume [mm^3]: as given, else from the mask, else None."""
        if channel in visit.volumes:
            return float(visit.volumes[channel])
        if channel in visit.masks:
            mask = visit.masks[channel]
            return float(mask.values.sum()) * mask.cell_volume
        return None

    def tumor_seen(self, score: Score) -> bool:
        """Whether the scan that `score` belongs to shows any tumor (True when nothing is known of it)."""
        volumes = [self.volume_of(v, score.channel or "") for v in self.patient.visits if v.day == score.day]
        return not volumes or volumes[0] is None or volumes[0] > 0

    def prediction(self, channel: str) -> VolumePrediction | None:
        """The predicted volume of a channel, if there is one."""
        found = () if self.forecast is None else self.forecast.volumes
        return next((v for v in found if v.channel == channel), None)

    @property
    def headline_channel(self) -> str | None:
        """The first channel that has a predicted volume."""
        return next((c.key for c in self.channels if self.prediction(c.key) is not None), None)

    @property
    def headline_day(self) -> float | None:
        """The day of the one-line answer."""
        if self.forecast is None:
            return None
        if self.forecast.headline_day is not None:
            return float(self.forecast.headline_day)
        hidden = [visit.day for visit in self.patient.visits if visit.hidden]
        ends = [float(v.days[-1]) for v in self.forecast.volumes] or [float(m.day) for m in self.forecast.maps]
        return float(max(hidden)) if hidden else max(ends, default=None)
