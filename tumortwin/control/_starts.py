"""Where a search begins: the reference plan and the corners of the feasible set that clinicians would name."""

import numpy as np

from tumortwin.control._feasible import FeasibleSet
from tumortwin.control._schedule import PlanVariables


def filled(feasible: FeasibleSet, order: np.ndarray, cap: np.ndarray | None = None) -> np.ndarray:
    """Weekly fraction doses [Gy]: lowest doses everywhere, then each week of `order` raised as far as limits allow.

    `cap` replaces the highest dose a week. The last raised week takes what is left of the total dose and of every BED
    limit (positive root of d (1 + d / r) = what is left).
    """
    low, high = np.asarray(feasible.low), np.asarray(feasible.high) if cap is None else cap
    dose, n, ratio = low.copy(), feasible.fractions, feasible.alpha_beta
    for week in order:
        others = np.delete(dose, week)
        total_left = feasible.total_dose / n - others.sum()
        effective_left = feasible.effective_dose / n - (others * (1.0 + others / ratio[:, None])).sum(axis=-1)
        root = 0.5 * ratio * (np.sqrt(1.0 + 4.0 * np.maximum(effective_left, 0.0) / ratio) - 1.0)
        dose[week] = max(min(high[week], total_left, root.min()), low[week])
    return dose


def default_starts(feasible: FeasibleSet, reference: PlanVariables) -> dict[str, PlanVariables]:
    """Reference, front-loaded, back-loaded, and hypofractionated at the effective dose of the reference.

    All keep the limits (projected). The hypofractionated start gives two weeks fewer (one, if there are no three).
    """
    doses = np.asarray(reference.weekly_fraction_dose, dtype=float)
    weeks = np.arange(doses.size)
    given = weeks[: max(doses.size - 2, 1)]
    ratio = feasible.alpha_beta[0]
    effective = (doses * (1.0 + doses / ratio)).sum() / given.size
    fewer = np.zeros_like(doses)
    fewer[given] = 0.5 * ratio * (np.sqrt(1.0 + 4.0 * effective / ratio) - 1.0)
    candidates = {
        "reference": doses,
        "front_loaded": filled(feasible, weeks),
        "back_loaded": filled(feasible, weeks[::-1]),
        "hypofractionated": fewer,
    }
    return {k: feasible.project(PlanVariables(v, reference.start_day)) for k, v in candidates.items()}
