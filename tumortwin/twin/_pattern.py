"""Smooth modes of a random field: where a rate may be higher or lower than elsewhere."""

from collections.abc import Sequence

import numpy as np


def smooth_modes(
    region: np.ndarray, spacing: Sequence[float], *, count: int, length: float, spread: float
) -> np.ndarray:
    """Modes `phi` [mode x y z] of a Gaussian random field with covariance `spread^2 exp(-|x - y|^2 / (2 length^2))`.

    $$ \\sum_k \\varphi_k(x)\\,\\varphi_k(y) \\approx C(x, y) $$

    by a partial Cholesky factorization whose pivots are the places of `region` with the most variance left: the first
    `count` columns. Far from the region the modes vanish. What is left of the variance in the region falls with
    `count`; it is never overstated, $\\sum_k \\varphi_k^2 \\le$ `spread`^2.

    **Arguments:** `region` boolean [x y z], not empty; `spacing` and `length` in mm; `spread` [1].

    **Reference:** Harbrecht, Peters & Schneider, Appl. Numer. Math. 62 (2012) 428-440 (pivoted Cholesky).
    """
    shape = region.shape
    places = np.stack([axis * h for axis, h in zip(np.indices(shape), spacing, strict=True)], axis=-1).reshape(-1, 3)
    inside = region.ravel()
    left = np.where(inside, spread**2, -1.0)
    modes: list[np.ndarray] = []
    for _ in range(min(count, int(inside.sum()))):
        pivot = int(np.argmax(left))
        column = spread**2 * np.exp(-0.5 * np.sum((places - places[pivot]) ** 2, axis=1) / length**2)
        for mode in modes:
            column = column - mode * mode[pivot]
        column = column / np.sqrt(column[pivot])
        modes.append(column)
        left = np.where(inside, left - column**2, -1.0)
    return np.stack(modes).reshape(-1, *shape).astype(np.float32)
