"""Linear programs, with or without whole numbers, by HiGHS through SciPy."""

from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp


def linear_program(
    cost: np.ndarray,
    *,
    matrix: np.ndarray,
    bound: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    whole: np.ndarray,
) -> tuple[np.ndarray | None, str]:
    """min cost x subject to matrix x <= bound, lower <= x <= upper, x[whole] whole numbers.

    The minimum (whole numbers exactly so), or None, and what the solver says.

    **Reference:** Huangfu and Hall, "Parallelizing the dual revised simplex method", Math Program Comput 10 (2018).
    """
    # SciPy declares its bounds as numbers: arrays are what they are for.
    low, high, none, limit = (np.asarray(v, dtype=float) for v in (lower, upper, -np.inf, bound))
    box: Any = Bounds(*_untyped(low, high))
    rows: Any = LinearConstraint(matrix, *_untyped(none, limit)) if bound.size else None
    found: Any = milp(cost, integrality=whole.astype(int), bounds=box, constraints=rows)
    if found.x is None:
        return None, str(found.message)
    vector = np.array(found.x)
    vector[whole] = np.round(vector[whole])
    return vector, str(found.message)


def _untyped(*values: Any) -> tuple[Any, ...]:
    return values
