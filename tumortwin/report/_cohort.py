"""What a report on many subjects is made of: plain numbers and words, in the units of the table."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tumortwin.report._data import Diagnostics, ParameterDraws, PlannedSchedule, Result


@dataclasses.dataclass(frozen=True, eq=False)
class SubjectPanel:
    """One subject: readings and what was expected.

    `days`, `values`, `lower`, `upper`, `hidden` [reading]; `grid` [day] with the predictive `median` and the 95 %
    interval `low`, `high`; `edges` [day] and `levels` (one more) of the treatment, or None.
    """

    name: str
    days: np.ndarray
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    hidden: np.ndarray
    grid: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    edges: np.ndarray | None = None
    levels: np.ndarray | None = None

    def __post_init__(self) -> None:
        readings = {getattr(self, n).shape for n in ("days", "values", "lower", "upper", "hidden")}
        curves = {getattr(self, n).shape for n in ("grid", "median", "low", "high")}
        if len(readings) != 1 or len(curves) != 1:
            raise ValueError(f"required: one shape a reading and one a day; received: {readings} and {curves}")


@dataclasses.dataclass(frozen=True)
class MethodScore:
    """One forecaster on all held-out readings; `low`, `high` [of the coverage] and `width` None for a point forecast.

    `worse_by`: mean CRPS of the twin minus that of this one with its 95 % bootstrap interval over subjects.
    """

    method: str
    error: float
    crps: float
    log_crps: float | None = None
    coverage: float | None = None
    coverage_low: float | None = None
    coverage_high: float | None = None
    width: float | None = None
    worse_by: tuple[float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What is expected of the subjects `horizon` days after the last known reading of each.

    `larger`: how many are more likely than not to have more than on that day; `certain`: for how many the 95 % interval
    of the change leaves 0 out; `middle`, `low`, `high`: median and quartiles, over subjects, of the expected value.
    """

    horizon: float
    subjects: int
    larger: int
    certain: int
    middle: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, eq=False)
class CohortReport:
    """Everything a report on a cohort says.

    `quantity` and `unit`: what was measured; `subjects`, `readings`, `held_out` counts; `inside`: held-out readings
    within their 95 % interval; `facts`: name -> words, the cohort in a table; `subgroups`: label, subjects, error,
    coverage with its interval; `schedules` of some subjects, and what is said before them; `card`: of the replay.
    """

    title: str
    question: str
    name: str
    quantity: str
    unit: str
    subjects: int
    readings: int
    held_out: int
    facts: Mapping[str, str]
    notes: tuple[str, ...] = ()
    parameters: tuple[ParameterDraws, ...] = ()
    diagnostics: Diagnostics | None = None
    outlook: Outlook | None = None
    panels: tuple[SubjectPanel, ...] = ()
    scores: tuple[MethodScore, ...] = ()
    steps: tuple[tuple[str, float, float, float], ...] = ()
    subgroups: tuple[tuple[str, float, float, float, float, float], ...] = ()
    schedules: tuple[PlannedSchedule, ...] = ()
    schedules_lead: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    provenance: Mapping[str, object] = dataclasses.field(default_factory=dict)
    citations: tuple[str, ...] = ()
    card: Mapping[str, object] = dataclasses.field(default_factory=dict)
    reproduce: str = ""

    def score(self, method: str) -> MethodScore | None:
        """The scores of one forecaster."""
        return next((s for s in self.scores if s.method == method), None)
