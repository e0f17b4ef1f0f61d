"""Forecasts of a well that need no mechanism. `train` are the wells that may be learned from; nothing else is used."""

from collections.abc import Callable

import numpy as np

from experiments.liu2022_radiotherapy.culture import Wells, effective_dose

NEIGHBORS = 5
Baseline = Callable[[Wells, Wells], np.ndarray]
"""`(train, asked) -> [well, time]`."""


def on_days(wells: Wells, days: np.ndarray) -> np.ndarray:
    """[well, day] of every well, straight between its readings."""
    return np.stack([np.interp(days, wells.days[i][_there(wells, i)], wells.seen[i][_there(wells, i)])
                     for i in range(len(wells))])  # fmt: skip


def _there(wells: Wells, i: int) -> np.ndarray:
    return np.concatenate([[True], wells.valid[i][1:]])


def _each(asked: Wells, one: Callable[[int], np.ndarray]) -> np.ndarray:
    return np.stack([one(i) for i in range(len(asked))])


def _known_until(days: np.ndarray) -> np.ndarray:
    """The day of the last daily update before each reading."""
    return np.maximum(np.ceil(days - 1e-9) - 1.0, 0.0)


def _fitted(features: np.ndarray, asked: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares on an intercept and `features` [well, feature], a column of `target` at a time."""
    design = np.column_stack([np.ones(len(features)), features])
    return np.concatenate([[1.0], asked]) @ np.linalg.lstsq(design, target, rcond=None)[0]


def plate_mean(train: Wells, asked: Wells) -> np.ndarray:
    """The mean curve of the plate."""
    return _each(asked, lambda i: on_days(train.where(train.plate == asked.plate[i]), asked.days[i]).mean(axis=0))


def plate_neighbors(train: Wells, asked: Wells) -> np.ndarray:
    """The mean of the five wells of the plate whose initial confluence is nearest."""
    return _each(asked, lambda i: _nearest(train.where(train.plate == asked.plate[i]), asked, i))


def _nearest(train: Wells, asked: Wells, i: int) -> np.ndarray:
    order = np.argsort(np.abs(train.start - asked.start[i]), kind="stable")[:NEIGHBORS]
    return on_days(train.where(order), asked.days[i]).mean(axis=0)


def plate_regression(train: Wells, asked: Wells) -> np.ndarray:
    """Of the plate, linear in the initial confluence, each time by itself."""

    def one(i: int) -> np.ndarray:
        mine = train.where(train.plate == asked.plate[i])
        return _fitted(mine.start[:, None], asked.start[i : i + 1], on_days(mine, asked.days[i]))

    return _each(asked, one)


def schedule_neighbors(train: Wells, asked: Wells) -> np.ndarray:
    """Five nearest neighbors on initial confluence in the schedule whose BED is nearest."""
    bed = _bed(train)
    gap = np.abs(bed[None, :] - _bed(asked)[:, None])
    return _each(asked, lambda i: _nearest(train.where(gap[i] == gap[i].min()), asked, i))


def batch_neighbors(train: Wells, asked: Wells) -> np.ndarray:
    """Five nearest neighbors on initial confluence in the batch (in all wells where the batch was not seen)."""

    def one(i: int) -> np.ndarray:
        mine = train.batch == asked.batch[i]
        return _nearest(train.where(mine) if mine.any() else train, asked, i)

    return _each(asked, one)


def _bed(wells: Wells) -> np.ndarray:
    return np.array([effective_dose(d, n) for d, n in zip(wells.dose, wells.fractions, strict=True)])


def quadratic_regression(train: Wells, asked: Wells) -> np.ndarray:
    """Quadratic in initial confluence and BED, each time by itself."""

    def features(start: np.ndarray, bed: np.ndarray) -> np.ndarray:
        return np.stack([start, bed, start**2, start * bed, bed**2], axis=-1)

    known, wanted = features(train.start, _bed(train)), features(asked.start, _bed(asked))
    return _each(asked, lambda i: _fitted(known, wanted[i], on_days(train, asked.days[i])))


def persistence(train: Wells, asked: Wells) -> np.ndarray:
    """The reading at the last update."""
    del train
    return _each(asked, lambda i: on_days(asked.where(np.array([i])), _known_until(asked.days[i]))[0])


def mean_increment(train: Wells, asked: Wells) -> np.ndarray:
    """The reading at the last update and the mean increment since, over the plate (over all where it was not seen)."""
    return persistence(train, asked) + _each(asked, lambda i: _increments(train, asked, i).mean(axis=0))


def _increments(train: Wells, asked: Wells, i: int) -> np.ndarray:
    mine = _plate_or_all(train, asked.plate[i])
    return on_days(mine, asked.days[i]) - on_days(mine, _known_until(asked.days[i]))


def _plate_or_all(train: Wells, plate: str) -> Wells:
    return train.where(train.plate == plate) if (train.plate == plate).any() else train


def updated_regression(train: Wells, asked: Wells) -> np.ndarray:
    """Linear in the readings at the last update and at t = 0, over the plate (over all where it was not seen)."""
    last = persistence(train, asked)

    def one(i: int) -> np.ndarray:
        mine = _plate_or_all(train, asked.plate[i])
        target, known = on_days(mine, asked.days[i]), on_days(mine, _known_until(asked.days[i]))
        return np.array([
            _fitted(np.stack([known[:, k], mine.start], axis=1), np.array([last[i, k], asked.start[i]]), target[:, k])
            for k in range(len(asked.days[i]))
        ])  # fmt: skip

    return _each(asked, one)


SAME_PLATE: dict[str, Baseline] = {
    "same_schedule_mean_curve": plate_mean,
    "five_nearest_neighbors": plate_neighbors,
    "regression": plate_regression,
}
OTHER_SCHEDULES: dict[str, Baseline] = {
    "five_nearest_neighbors_of_nearest_bed": schedule_neighbors,
    "five_nearest_neighbors_of_batch": batch_neighbors,
    "quadratic_regression": quadratic_regression,
}
UPDATED: dict[str, Baseline] = {
    "persistence": persistence,
    "last_and_mean_increment": mean_increment,
    "updated_regression": updated_regression,
}
