"""From an optimum in real numbers to a plan that a clinic can deliver: whole days, doses in steps."""

import numpy as np

from tumortwin.control._feasible import FeasibleSet
from tumortwin.control._schedule import PlanVariables

ALMOST = 1e-6
"""A dose this close (in steps) to a multiple is that multiple."""


def deliverable(
    feasible: FeasibleSet, variables: PlanVariables, dose_step: float, start_step: float, anchor: float
) -> list[PlanVariables]:
    """Plans near `variables` with doses in multiples of `dose_step` [Gy] and start days `start_step` [day] apart.

    Start days are whole steps from the day `anchor`: a step of 7 days keeps its weekday. The two neighbours inside the
    window are returned, or the day of the grid in the window that is nearest. Doses are rounded down, then raised by a
    step where the limits allow, largest remainder first: the limits are kept.

    **Raises:** `ValueError` for a window that holds no day of the grid.
    """
    doses = _rounded_doses(feasible, np.asarray(variables.weekly_fraction_dose, dtype=float), dose_step)
    first, last = (float(day) for day in feasible.start)
    lowest, highest = np.ceil((first - anchor) / start_step - ALMOST), np.floor((last - anchor) / start_step + ALMOST)
    if lowest > highest:
        raise ValueError(
            f"required: a start window with a day that is a whole number of steps of {start_step:g} days from day "
            f"{anchor:g}; received: days {first:g} to {last:g}"
        )
    steps = (float(variables.start_day) - anchor) / start_step
    near = {float(np.clip(k, lowest, highest)) for k in (np.floor(steps + ALMOST), np.ceil(steps - ALMOST))}
    return [PlanVariables(doses, float(np.clip(anchor + k * start_step, first, last))) for k in sorted(near)]


def _rounded_doses(feasible: FeasibleSet, doses: np.ndarray, step: float) -> np.ndarray:
    low, high = np.asarray(feasible.low), np.asarray(feasible.high)
    count = np.floor(doses / step + ALMOST)
    rounded = np.clip(np.round(count * step, 9), low, high)
    if not _keeps(feasible, rounded):  # "almost a multiple" was on the wrong side of a limit
        rounded = np.clip(np.round(np.floor(doses / step) * step, 9), low, high)
    for week in np.argsort(count - doses / step):
        raised = rounded.copy()
        raised[week] = np.round(raised[week] + step, 9)
        if raised[week] <= doses[week] + step and _keeps(feasible, raised):
            rounded = raised
    return rounded


def _keeps(feasible: FeasibleSet, doses: np.ndarray) -> bool:
    return bool(feasible.contains(PlanVariables(doses, float(feasible.start[0])), tolerance=1e-9))
