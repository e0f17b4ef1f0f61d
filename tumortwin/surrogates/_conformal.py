"""Split-conformal bounds: what a held-out set of errors says of the next one, whatever their distribution."""

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import beta


def conformal_quantile(scores: Float[np.ndarray, " case"], level: float) -> float:
    """The bound that the score of a new case keeps with probability `level`, given scores of exchangeable cases.

    $$ q = s_{(k)}, \\qquad k = \\lceil (n + 1)\\,\\ell \\rceil, \\qquad
       \\ell \\le P(s_{n+1} \\le q) \\le \\ell + \\tfrac{1}{n+1} $$

    (the upper bound for scores without ties), over the calibration cases and the new one together; infinity when k > n:
    so few cases bound nothing at that level. Given the calibration cases the coverage is a draw of Beta(k, n + 1 - k)
    (`coverage_range`).

    **Arguments:** `scores`: of cases that were not used to train, drawn as the new one is; infinity for a case without
    an answer; `level` in (0, 1).

    **Good values:** 1,000 cases and level .95: coverage .936-.963 in 95 of 100 calibrations.

    **Raises:** `ValueError` for no scores, scores that are NaN, or a level out of range.

    **Reference:** Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, Springer 2005; Angelopoulos &
    Bates, Found. Trends Mach. Learn. 16 (2023) 494-591, doi:10.1561/2200000101.
    """
    values = np.asarray(scores, dtype=float).ravel()
    if values.size == 0 or np.isnan(values).any() or not 0.0 < level < 1.0:
        raise ValueError(
            f"required: scores without NaN and a level within (0, 1); received: {values.size} scores, "
            f"{int(np.isnan(values).sum())} of them NaN, and level {level}"
        )
    k = rank(values.size, level)
    return math.inf if k > values.size else float(np.partition(values, k - 1)[k - 1])


def rank(n: int, level: float) -> int:
    """k, the rank of the score that is the bound: the least integer of at least (n + 1) level."""
    return math.ceil((n + 1) * level - 1e-9)  # 1e-9: 100 * .95 is no integer in floating point


def coverage_range(n: int, level: float, confidence: float = 0.95) -> tuple[float, float]:
    """Central range of the coverage that a bound from `n` cases has, over calibration sets: Beta(k, n + 1 - k).

    **Raises:** `ValueError` when `n` cases bound nothing at that level.
    """
    k = rank(n, level)
    if k > n:
        least = math.ceil(level / (1.0 - level) - 1e-9)
        raise ValueError(f"required: at least {least} cases for level {level}; received: {n}")
    tail = 0.5 * (1.0 - confidence)
    low, high = beta.ppf([tail, 1.0 - tail], k, n + 1 - k)
    return float(low), float(high)
