"""Three pictures: the fits, the forecasts of every cycle, and the errors beside the baselines."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.zhang2022.fit import Fit
from experiments.zhang2022.forecast import Forecast
from experiments.zhang2022.visits import Cycle, Visits
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"
COLUMNS = 4


def draw_fits(run: Run, visits: Visits, fitted: Fit) -> None:
    """PSA over its maximum: readings, the model's curve, the drug."""
    figure, axes = _panels(len(visits.names))
    for i, name in enumerate(visits.names):
        seen = visits.valid[i]
        days = visits.days[i, seen]
        _drug(axes[i], days, visits.on[i, seen])
        axes[i].plot(days, visits.relative[i, seen], "k.", ms=4)
        axes[i].plot(days, fitted.curve[i, seen], color=BLUE, lw=1)
        axes[i].set_title(f"{name}: RMSE {fitted.rmse[i]:.2f}", fontsize=8)
    figure.supxlabel("day (bars: abiraterone)", fontsize=9)
    figure.supylabel("PSA / largest PSA (dots: seen, line: fit)", fontsize=9)
    _save(run, figure, "fits")


def draw_forecasts(run: Run, visits: Visits, cycles: list[Cycle], forecasts: list[Forecast]) -> None:
    """Every forecast cycle with its 95 % band, under the given drug (blue) and under the rule (orange)."""
    patients = sorted({cycle.patient for cycle in cycles})
    figure, axes = _panels(len(patients))
    for axis, i in zip(axes, patients, strict=False):
        seen = visits.valid[i]
        days, psa = visits.days[i, seen], visits.psa[i, seen]
        _drug(axis, days, visits.on[i, seen])
        for cycle, forecast in zip(cycles, forecasts, strict=True):
            if cycle.patient == i:
                _band(axis, visits, cycle, forecast.given, BLUE)
                _band(axis, visits, cycle, forecast.ruled, ORANGE)
        axis.plot(days, psa, "k.", ms=3)
        axis.set_yscale("log")
        axis.set_ylim(psa.min() / 5, psa.max() * 10)
        axis.set_title(visits.names[i], fontsize=8)
    figure.supxlabel("day (bars: abiraterone; blue: under the given drug, orange: under the rule)", fontsize=9)
    figure.supylabel("PSA, ng/mL (dots: seen, line: median, band: 95 %)", fontsize=9)
    _save(run, figure, "forecasts")


def draw_scores(run: Run, errors: Mapping[str, np.ndarray]) -> None:
    """Errors of all cycles, their mean, by forecaster."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.5 * len(errors) + 1), layout="constrained")
    axis = figure.subplots()
    for row, values in enumerate(errors.values()):
        axis.plot(values, np.full(values.size, row), "|", color=GRAY, ms=8)
        axis.plot(values.mean(), row, "o", color=BLUE)
    axis.set_yticks(range(len(errors)), [name.replace("_", " ") for name in errors])
    axis.invert_yaxis()
    axis.set_xlabel("RMSE of a cycle / largest PSA of the patient (dot: mean)")
    _save(run, figure, "errors")


def _band(axis: Any, visits: Visits, cycle: Cycle, draws: np.ndarray, color: str) -> None:
    days = visits.days[cycle.patient, cycle.asked]
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975], axis=0)
    axis.fill_between(days, low, high, color=color, alpha=0.2, lw=0)
    axis.plot(days, middle, color=color, lw=1)


def _drug(axis: Any, days: np.ndarray, on: np.ndarray) -> None:
    """Bars along the bottom while the drug is given."""
    for start, stop, given in zip(days[:-1], days[1:], on[:-1], strict=True):
        if given > 0:
            axis.axvspan(start, stop, ymax=0.05, color=ORANGE, lw=0)


def _panels(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(11, 1.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.tick_params(labelsize=7)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes


def _save(run: Run, figure: Any, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=110, format="png")
