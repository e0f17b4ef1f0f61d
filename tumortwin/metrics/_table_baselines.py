"""Forecasts of a series that need no mechanism. What does not beat them has not earned its keep."""

from typing import Any

import numpy as np

from tumortwin.metrics._replay import Asked, Series

FEATURES = ("last", "before_last", "mean", "largest", "slope", "readings", "days_since_first", "days_ahead")
_LEVELS = np.linspace(0.005, 0.995, 100)


def persistence_forecast(known: Series, asked: Asked) -> np.ndarray:
    """The last known value [case, 1].

    **Raises:** `ValueError` for a subject of which nothing is known.
    """
    return np.asarray([_known(known, s)[1][-1] for s in asked.subject.tolist()])[:, None]


def exponential_forecast(known: Series, asked: Asked) -> np.ndarray:
    """Least squares of log value on day, over a subject's positive readings [case, 1].

    A subject with fewer than two positive readings on different days persists: there is no rate to be had. One whose
    last value is 0 stays there.
    """
    found = []
    for s, day in zip(asked.subject.tolist(), asked.day.tolist(), strict=True):
        days, values = _known(known, s)
        positive = values > 0.0
        if values[-1] <= 0.0 or np.unique(days[positive]).size < 2:
            found.append(values[-1])
            continue
        rate, level = np.polyfit(days[positive], np.log(values[positive]), 1)
        found.append(np.exp(level + rate * day))
    return np.asarray(found)[:, None]


def population_mean_forecast(known: Series, asked: Asked) -> np.ndarray:
    """The mean of all subjects' mean known values, the same for everybody [case, 1]."""
    means = [known.of(s)[1].mean() for s in np.flatnonzero(known.counts > 0).tolist()]
    return np.full((asked.subject.size, 1), np.mean(means))


def regressor_forecast(known: Series, asked: Asked, *, model: Any = None, folds: int = 5, ahead: int = 2) -> np.ndarray:
    """Machine learning alone: a regressor from a subject's readings so far to the change of a later one.

    Trained on every pair (readings up to the k-th, a later reading at most `ahead` further) of the known parts, as
    scikit-learn would have it: features of the past (`FEATURES`), target `value - last`. The sample [case, 100] is the
    prediction plus quantiles of the residuals out of fold, folds being subjects.

    **Arguments:** `model`: a scikit-learn regressor (none: gradient boosting, Huber's loss, 200 trees of depth 3).

    **Limits:** one spread for all cases; at least `folds` subjects with two readings.

    **Reference:** Pedregosa et al., JMLR 12 (2011) 2825-2830.
    """
    from sklearn.base import clone
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import GroupKFold, cross_val_predict

    if model is None:
        model = GradientBoostingRegressor(loss="huber", n_estimators=200, learning_rate=0.05, random_state=0)
    rows, change, group = [], [], []
    for s in range(len(known.counts)):
        days, values = known.of(s)
        for k in range(1, len(values)):
            for later in range(k, min(k + ahead, len(values))):
                rows.append(_features(days[:k], values[:k], float(days[later])))
                change.append(values[later] - values[k - 1])
                group.append(s)
    if np.unique(group).size < folds:
        raise ValueError(
            f"required: {folds} subjects with two known readings or more; received: {np.unique(group).size}; "
            "try: fewer folds"
        )
    x, y = np.asarray(rows), np.asarray(change)
    outside = cross_val_predict(clone(model), x, y, groups=np.asarray(group), cv=GroupKFold(folds))
    spread = np.quantile(y - outside, _LEVELS)
    asks = [
        _features(*_known(known, s), day) for s, day in zip(asked.subject.tolist(), asked.day.tolist(), strict=True)
    ]
    last = persistence_forecast(known, asked)
    fitted: Any = clone(model)
    return last + fitted.fit(x, y).predict(np.asarray(asks))[:, None] + spread[None]


def _known(known: Series, subject: int) -> tuple[np.ndarray, np.ndarray]:
    days, values = known.of(subject)
    if not values.size:
        raise ValueError(f"required: a known reading of every subject that is asked for; received: none of {subject}")
    return days, values


def _features(days: np.ndarray, values: np.ndarray, day: float) -> list[float]:
    before = values[-2] if values.size > 1 else values[-1]
    gap = days[-1] - days[-2] if values.size > 1 else 1.0
    return [
        values[-1], before, values.mean(), values.max(), (values[-1] - before) / max(gap, 1e-9), float(values.size),
        days[-1] - days[0], day - days[-1],
    ]  # fmt: skip
