"""Scores of arms: means of log relative volume on a day, the baselines for an arm that was left out, and the time to a
volume with animals that never reached it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from experiments.maeve_combination.record import Animals

Grid = Float[np.ndarray, "first second"]
DAYS = (14.0, 21.0, 28.0)
ENDPOINT = 1000.0  # [mm^3]
HORIZON = 60.0  # [day] of the restricted mean time to the endpoint


def read_on(animals: Animals, day: float, arm: int) -> tuple[np.ndarray, np.ndarray]:
    """First volumes and volumes of the animals of an arm that were read on that very day."""
    there = animals.valid & (animals.days == day) & (animals.arm == arm)[:, None]
    who, when = np.nonzero(there)
    return animals.first[who], animals.volume[who, when]


def observed(animals: Animals, day: float) -> dict[int, float]:
    """Arm -> mean of log(volume / first volume), as recorded; arms without a reading that day are left out."""
    found = {}
    for arm in range(len(animals.arms)):
        first, volume = read_on(animals, day, arm)
        if first.size:
            found[arm] = float(np.mean(np.log(volume / first)))
    return found


def bliss(animals: Animals, known: dict[int, float], arm: int) -> float:
    """The effects of the two drugs alone, added on the log scale."""
    a, b = animals.arms[arm]
    alone = [known.get(_index(animals, pair), np.nan) for pair in ((a, 0.0), (0.0, b), (0.0, 0.0))]
    return alone[0] + alone[1] - alone[2]


def same_second_dose(animals: Animals, known: dict[int, float], arm: int) -> float:
    """The mean of the other arms with this dose of the second drug."""
    mates = [v for k, v in known.items() if k != arm and animals.arms[k][1] == animals.arms[arm][1]]
    return float(np.mean(mates)) if mates else np.nan


def additive(animals: Animals, known: dict[int, float], arm: int) -> float:
    """Rows plus columns, fitted to all other arms by least squares."""
    others = [k for k in known if k != arm]
    rows, columns = (sorted({a[j] for a in animals.arms}) for j in (0, 1))

    def design(k: int) -> np.ndarray:
        a, b = animals.arms[k]
        return np.concatenate([np.equal(rows, a), np.equal(columns, b)]).astype(float)

    matrix = np.array([design(k) for k in others])
    return float(design(arm) @ np.linalg.lstsq(matrix, np.array([known[k] for k in others]), rcond=None)[0])


BASELINES: dict[str, Callable[[Animals, dict[int, float], int], float]] = {
    "bliss": bliss,
    "same_second_dose": same_second_dose,
    "additive": additive,
}


def root_mean_square(errors: list[float]) -> float:
    """Over the errors that are numbers."""
    kept = np.array([e for e in errors if np.isfinite(e)])
    return float(np.sqrt(np.mean(kept**2))) if kept.size else float("nan")


def endpoint_times(animals: Animals, arm: int) -> tuple[np.ndarray, np.ndarray]:
    """`(time, reached)`: the first reading at the endpoint or above; else the last reading, censored."""
    times, reached = [], []
    for i in np.flatnonzero(animals.arm == arm):
        days, volume = animals.days[i][animals.valid[i]], animals.volume[i][animals.valid[i]]
        over = np.flatnonzero(volume >= ENDPOINT)
        reached.append(bool(over.size))
        times.append(float(days[over[0]] if over.size else days[-1]))
    return np.array(times), np.array(reached)


def restricted_mean(times: np.ndarray, reached: np.ndarray, horizon: float = HORIZON) -> float:
    """Area under the Kaplan-Meier curve up to the horizon (its last value holds beyond the last time)."""
    alive, area, last = 1.0, 0.0, 0.0
    for t in np.unique(times[reached & (times <= horizon)]):
        area += alive * (t - last)
        alive *= 1.0 - np.sum(reached & (times == t)) / np.sum(times >= t)
        last = float(t)
    return area + alive * (horizon - last)


def _index(animals: Animals, pair: tuple[float, float]) -> int:
    return animals.arms.index(pair) if pair in animals.arms else -1
