"""Looking back: what was known of every subject, what is asked, and a proof that the answer was not known."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """Readings of every subject in order of time, padded on the right.

    `times` [subject, time, day]; `values` [subject, time]; `valid` False for padding. Both parts of a split have the
    same subjects in the same places; a part may hold no reading of a subject.
    """

    times: Float[np.ndarray, "subject time"]
    values: Float[np.ndarray, "subject time"]
    valid: Bool[np.ndarray, "subject time"]

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("times", "values", "valid")}
        if len(set(shapes.values())) != 1:
            raise ValueError(f"required: arrays of one shape [subject, time]; received: {shapes}")

    @property
    def counts(self) -> Int[np.ndarray, " subject"]:
        """Readings of each subject."""
        return self.valid.sum(axis=1)

    def of(self, subject: int) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, " time"]]:
        """Days and values of one subject."""
        return self.times[subject, self.valid[subject]], self.values[subject, self.valid[subject]]


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What is to be forecast: `subject` (its place in the series), `day`, and `step` (1: the first hidden reading)."""

    subject: Int[np.ndarray, " case"]
    day: Float[np.ndarray, " case"]
    step: Int[np.ndarray, " case"]


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """The hidden readings: what is asked, and what was `observed`. A forecaster is given `asked` alone."""

    asked: Asked
    observed: Float[np.ndarray, " case"]

    @property
    def cases(self) -> int:
        """Number of hidden readings."""
        return len(self.observed)


Forecaster: TypeAlias = Callable[[Series, Asked], np.ndarray]
"""`(known, asked) -> sample [case, draw]` of the predictive distribution; one column is a point forecast."""


def targets_of(held: Series) -> Targets:
    """The hidden readings, subject by subject in order of time.

    **Raises:** `ValueError` when nothing is hidden.
    """
    subject, place = np.nonzero(held.valid)
    if subject.size == 0:
        raise ValueError("required: at least one hidden reading; received: none; try: fewer known readings")
    step = (np.cumsum(held.valid, axis=1))[subject, place]
    return Targets(Asked(subject, held.times[subject, place], step), held.values[subject, place])


def leakage(
    forecast: Callable[[Series], np.ndarray],
    series: Series,
    hidden: Bool[np.ndarray, "subject time"],
    *,
    rng: np.random.Generator,
) -> float:
    """The largest change of a forecast when every hidden value is replaced by another: 0, or it has seen the future.

    **Arguments:** `forecast`: from the *whole* series (it splits for itself) to a sample; `hidden`: which of the
    readings it must not use. Hidden values are permuted and scaled by factors 2-5.

    **Reference:** the poisoned-future test; Kaufman et al., ACM Trans. Knowl. Discov. Data 6 (2012) 15, on leakage.
    """
    hidden = hidden & series.valid
    if not hidden.any():
        raise ValueError("required: at least one hidden reading; received: none")
    poisoned = series.values.copy()
    poisoned[hidden] = rng.permutation(series.values[hidden]) * rng.uniform(2.0, 5.0, hidden.sum()) + 1.0
    before, after = forecast(series), forecast(dataclasses.replace(series, values=poisoned))
    if before.shape != after.shape:
        raise ValueError(f"required: as many forecasts from both; received: {before.shape} and {after.shape}")
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    return float(np.max(np.where(same, 0.0, np.abs(after - before))))
