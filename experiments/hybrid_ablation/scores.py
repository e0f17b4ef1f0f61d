"""Intervals from the errors of subjects that were not learned from, and who is ahead, with what certainty."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.hybrid_ablation.rows import Task
from tumortwin.metrics import crps

LEVELS = np.array([0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
RESAMPLES = 5000


def conformal_interval(errors: Float[np.ndarray, " calibration"], level: float) -> tuple[float, float]:
    """Ends of a central split-conformal interval of a new error.

    With n exchangeable errors the interval from the k-th smallest to the k-th largest, k = floor((n + 1)(1 - level)/2),
    holds a new one with probability at least `level`; where n is too small for that (k = 0) it is the whole range of
    errors, and holds less: (n - 1)/(n + 1).

    **Reference:** Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005); Lei et al., J. Am. Stat.
    Assoc. 113 (2018) 1094, doi:10.1080/01621459.2017.1307116.
    """
    ordered = np.sort(errors)
    k = max(int(np.floor((ordered.size + 1) * (1.0 - level) / 2.0 + 1e-9)), 1)
    return float(ordered[k - 1]), float(ordered[-k])


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """One forecaster on every tested reading, on the scale of the scores: absolute error, CRPS of the forecast plus the
    calibration errors, and the ends of the central intervals of `LEVELS` and whether they hold the reading."""

    error: Float[np.ndarray, " case"]
    crps: Float[np.ndarray, " case"]
    inside: Bool[np.ndarray, "level case"]
    low: Float[np.ndarray, " case"]
    high: Float[np.ndarray, " case"]
    middle: Float[np.ndarray, " case"]


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """The tested readings of a task, in one order for all forecasters: where they stand, whose they are."""

    row: Int[np.ndarray, " case"]
    time: Int[np.ndarray, " case"]
    subject: np.ndarray


def cases_of(task: Task, test: np.ndarray) -> Cases:
    """Those of the rows of a round."""
    row, time = np.nonzero((np.asarray(task.rows.valid) > 0) & test[:, None])
    return Cases(row, time, task.subject[row])


def scored(task: Task, forecast: np.ndarray, calibrating: np.ndarray, cases: Cases) -> Scored:
    """A forecast [row, time] on the scale h, with the errors of the calibrating rows about it, pool by pool."""
    valid = (np.asarray(task.rows.valid) > 0) & calibrating[:, None]
    wrong = np.asarray(task.rows.seen) - forecast
    pools = {pool: np.sort(wrong[valid & (task.pool == pool)]) for pool in np.unique(task.pool)}
    size = cases.row.size
    error, score, middle = np.empty(size), np.empty(size), np.empty(size)
    ends = np.empty((2, LEVELS.size, size))
    intervals = {p: np.array([conformal_interval(e, float(q)) for q in LEVELS]).T for p, e in pools.items() if e.size}
    for i, (row, time) in enumerate(zip(cases.row, cases.time, strict=True)):
        pool, at, seen = task.pool[row, time], forecast[row, time], task.raw[row, time]
        middle[i] = task.back(np.asarray(at))
        error[i] = abs(middle[i] - seen)
        score[i] = crps(task.back(at + pools[pool]), float(seen))
        ends[:, :, i] = task.back(at + intervals[pool])
    seen = task.raw[cases.row, cases.time]
    inside = (ends[0] <= seen) & (seen <= ends[1])
    return Scored(error, score, inside, ends[0, -1], ends[1, -1], middle)


def together(parts: list[tuple[Cases, dict[str, Scored]]]) -> tuple[Cases, dict[str, Scored]]:
    """The rounds of a rotation as one."""
    cases = Cases(*(np.concatenate([getattr(c, f.name) for c, _ in parts]) for f in dataclasses.fields(Cases)))
    found = {
        who: Scored(
            *(np.concatenate([getattr(s[who], f.name) for _, s in parts], axis=-1) for f in dataclasses.fields(Scored))
        )
        for who in parts[0][1]
    }
    return cases, found


def calibration_error(inside: Bool[np.ndarray, "level case"]) -> float:
    """Mean over levels of |coverage - level|."""
    return float(np.mean(np.abs(inside.mean(axis=1) - LEVELS)))


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Mean score of every forecaster, best first, with its 95 % bootstrap interval over subjects, the 95 % interval of
    its rank, and how often it is the best; and of each pair the mean difference with its interval."""

    names: tuple[str, ...]
    mean: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    rank: dict[str, tuple[float, float]]
    best: dict[str, float]
    difference: dict[tuple[str, str], tuple[float, float, float]]


def ranking(scores: dict[str, np.ndarray], subject: np.ndarray, rng: np.random.Generator) -> Ranking:
    """Subjects are drawn with replacement, the same ones for every forecaster, all their cases with them.

    **Reference:** Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
    """
    names = sorted(scores, key=lambda who: scores[who].mean())
    _, place = np.unique(subject, return_inverse=True)
    count = np.bincount(place).astype(float)
    sums = np.stack([np.bincount(place, weights=scores[who]) for who in names])
    drawn = rng.integers(0, count.size, (RESAMPLES, count.size))
    means = sums[:, drawn].sum(axis=2) / count[drawn].sum(axis=1)
    ranks = np.argsort(np.argsort(means, axis=0, kind="stable"), axis=0, kind="stable") + 1

    def interval(values: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    ends = {who: interval(means[k]) for k, who in enumerate(names)}
    return Ranking(
        tuple(names),
        {who: float(scores[who].mean()) for who in names},
        {who: ends[who][0] for who in names},
        {who: ends[who][1] for who in names},
        {who: interval(ranks[k]) for k, who in enumerate(names)},
        {who: float(np.mean(ranks[k] == 1)) for k, who in enumerate(names)},
        {
            (a, b): (float(scores[a].mean() - scores[b].mean()), *interval(means[i] - means[j]))
            for i, a in enumerate(names)
            for j, b in enumerate(names)
            if i != j
        },
    )
