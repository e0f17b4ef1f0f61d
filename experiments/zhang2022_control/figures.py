"""Three pictures: the delivered schedule against the PSA, every patient's schedule with bands, and times by plan."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.zhang2022.fit import Fit
from experiments.zhang2022.visits import Visits
from experiments.zhang2022_control.judging import Judged, Plans, label
from experiments.zhang2022_control.policies import HORIZON, PROGRESSION, VISIT, followed
from experiments.zhang2022_control.virtual import Bank, record
from tumortwin.control import SchedulePolicy
from tumortwin.metrics import quantile
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"
COLORS = (BLUE, ORANGE)
COLUMNS = 4
LEVELS = np.asarray([0.025, 0.5, 0.975])


def draw_replay(run: Run, visits: Visits, replay: Fit, banks: Mapping[str, Bank]) -> None:
    """PSA over the first under the drug that was given: readings, the fit, and the posterior of both classes."""
    figure, axes = _panels(len(visits.names))
    for i, (axis, name) in enumerate(zip(axes, visits.names, strict=False)):
        seen = visits.valid[i]
        days, first = visits.days[i, seen], visits.psa[i, 0]
        _drug(axis, days, visits.on[i, seen], GRAY, 0.0)
        for color, bank in zip(COLORS, banks.values(), strict=True):
            curves = np.asarray(record(bank.model, jnp.asarray(visits.days[i]), jnp.asarray(visits.on[i], float)))
            _band(axis, days, (curves / curves[:1])[seen], bank.weights[i], color)
        axis.plot(days, replay.curve[i, seen] * visits.psa[i, seen].max() / first, color="k", lw=0.8)
        psa = visits.psa[i, seen] / first
        axis.plot(days, psa, "k.", ms=3)
        axis.set_yscale("log")
        axis.set_ylim(psa.min() / 5, psa.max() * 5)
        axis.set_title(f"{name}: RMSE {replay.rmse[i]:.2f}", fontsize=8)
    figure.supxlabel(
        "day (bars: abiraterone as given; black line: fit; blue: competition, orange: independent clones)", fontsize=9
    )
    figure.supylabel("PSA / first (line: median, band: 95 %)", fontsize=9)
    _save(run, figure, "replay")


def draw_courses(run: Run, visits: Visits, plans: Plans, judges: Mapping[str, Bank]) -> None:
    """The optimised schedule of every patient and what both classes say of it; above it what was given."""
    figure, axes = _panels(len(visits.names))
    days = VISIT * np.arange(HORIZON)
    for i, (axis, name) in enumerate(zip(axes, visits.names, strict=False)):
        doses = plans.schedules["schedule"][i]
        for color, bank in zip(COLORS, judges.values(), strict=True):
            burden = np.asarray(followed(SchedulePolicy(jnp.asarray(doses)), bank.model).burden)
            _band(axis, days, burden, bank.weights[i], color)
        _drug(axis, np.append(days, HORIZON * VISIT), np.append(doses, 0.0), ORANGE, 0.0)
        seen = visits.valid[i]
        _drug(axis, visits.days[i, seen], visits.on[i, seen], GRAY, 0.95)
        axis.axhline(PROGRESSION, color="k", lw=0.6, ls="--")
        axis.set_yscale("log")
        axis.set_ylim(1e-3, 10.0)
        axis.set_title(f"{name}: drug at {doses.mean():.0%} of visits", fontsize=8)
    figure.supxlabel(
        "day (counterfactual; bars below: optimised, above: as given; blue: competition, orange: clones)",
        fontsize=9,
    )
    figure.supylabel("burden / first (line: median, band: 95 %)", fontsize=9)
    _save(run, figure, "courses")


def draw_times(run: Run, outcomes: Mapping[tuple[str, bool], Judged]) -> None:
    """Counterfactual time to progression by plan: patients, their mean, the mean of their worst fifths."""
    from matplotlib.figure import Figure

    names = list(next(iter(outcomes.values())).mean)
    figure = Figure(figsize=(10, 0.5 * len(names) * 2 + 1.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axis, ((judge, confirmed), outcome) in zip(axes, outcomes.items(), strict=True):
        for row, name in enumerate(names):
            values = outcome.mean[name]
            axis.plot(values, np.full(values.size, row), "|", color=GRAY, ms=7)
            axis.plot(values.mean(), row, "o", color=BLUE)
            axis.plot(outcome.worst[name].mean(), row, "o", color=ORANGE)
        axis.set_title(label(judge, confirmed).replace("_", ", "), fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes[0].invert_yaxis()
    figure.supxlabel("counterfactual days to progression (bars: patients; blue: mean, orange: worst fifth)", fontsize=9)
    _save(run, figure, "times")


def _band(axis: Any, days: np.ndarray, curves: np.ndarray, weights: np.ndarray, color: str) -> None:
    """Median and 95 % band of curves [visit virtual]."""
    low, middle, high = np.stack([quantile(row, LEVELS, weights) for row in curves], axis=1)
    axis.fill_between(days, np.maximum(low, 1e-6), np.maximum(high, 1e-6), color=color, alpha=0.2, lw=0)
    axis.plot(days, np.maximum(middle, 1e-6), color=color, lw=1)


def _drug(axis: Any, days: np.ndarray, on: np.ndarray, color: str, bottom: float) -> None:
    """Bars while the drug is given."""
    for start, stop, given in zip(days[:-1], days[1:], on[:-1], strict=True):
        if given > 0:
            axis.axvspan(start, stop, ymin=bottom, ymax=bottom + 0.05, color=color, lw=0)


def _panels(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(11, 1.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
    for axis in axes:
        axis.tick_params(labelsize=7)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _save(run: Run, figure: Any, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=110, format="png")
