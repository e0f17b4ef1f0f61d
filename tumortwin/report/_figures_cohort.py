"""Subjects beside each other: what was seen, what was expected, and what was held out."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tumortwin.report._cohort import CohortReport, SubjectPanel
from tumortwin.report._data import TWIN
from tumortwin.report._style import (
    FAINT,
    GRAY,
    INK,
    PALE,
    PLAN_COLOR,
    TWIN_BAND,
    TWIN_COLOR,
    Picture,
    new_figure,
    render,
)

COLUMNS = 3
LOG_FROM_RATIO = 20.0
LETTERS = 22


def subject_panels(data: CohortReport) -> Picture | None:
    """One panel a subject: readings (hollow: held out), predictive median and 95 % interval, treatment shaded."""
    if not data.panels:
        return None
    rows = -(-len(data.panels) // COLUMNS)
    treated = any(p.edges is not None for p in data.panels)

    def draw() -> Figure:
        figure = new_figure(40.0 * rows + 12.0)
        grid = figure.add_gridspec(rows, COLUMNS)
        for i, panel in enumerate(data.panels):
            axes = figure.add_subplot(grid[i // COLUMNS, i % COLUMNS])
            _panel(axes, panel)
            if i % COLUMNS == 0:
                axes.set_ylabel(f"{data.quantity}, {data.unit}")
            if i >= len(data.panels) - COLUMNS:
                axes.set_xlabel("day")
        figure.legend(*_legend(treated), loc="outside lower center", ncols=5, labelcolor=GRAY)
        return figure

    shaded = " Gray ground: on treatment." if treated else ""
    caption = (
        f"{len(data.panels)} subjects. Filled: readings that the twin was shown; hollow: held out; bars: known to an "
        f"interval only. Blue: median, and 95 % prediction interval of a reading.{shaded}"
    )
    return Picture("subjects", render(draw), caption, caption)


def _legend(treated: bool) -> tuple[list, list[str]]:
    marks = [
        Line2D([], [], marker="o", ls="", color=INK, ms=3.5),
        Line2D([], [], marker="o", ls="", mfc="white", mec=PLAN_COLOR, ms=4.5, mew=1.3),
        Line2D([], [], color=TWIN_COLOR, lw=1.2),
        Patch(color=TWIN_BAND),
    ]
    words = ["shown", "held out", "median", "95 % prediction interval"]
    return ([*marks, Patch(color=FAINT)], [*words, "on treatment"]) if treated else (marks, words)


def _panel(axes: Axes, panel: SubjectPanel) -> None:
    _treatment(axes, panel)
    axes.fill_between(panel.grid, panel.low, panel.high, color=TWIN_BAND, lw=0)
    axes.plot(panel.grid, panel.median, color=TWIN_COLOR, lw=1.1)
    for chosen, style in (
        (~panel.hidden, {"color": INK, "ms": 2.8}),
        (panel.hidden, {"mfc": "white", "mec": PLAN_COLOR, "ms": 4.0, "mew": 1.2}),
    ):
        axes.plot(panel.days[chosen], panel.values[chosen], "o", ls="", zorder=3, **style)
    wide = (panel.upper > panel.lower) & np.isfinite(panel.upper)
    axes.vlines(panel.days[wide], panel.lower[wide], panel.upper[wide], color=GRAY, lw=0.8, zorder=2)
    shown = np.concatenate([panel.values, panel.high, panel.low])
    if shown.min() > 0 and shown.max() / shown.min() > LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(panel.name if len(panel.name) <= LETTERS else f"{panel.name[: LETTERS - 1]}…", fontsize=7.2)


def _treatment(axes: Axes, panel: SubjectPanel) -> None:
    if panel.edges is None or panel.levels is None:
        return
    ends = np.concatenate([[panel.grid[0]], panel.edges[np.isfinite(panel.edges)], [panel.grid[-1]]])
    for k in range(len(ends) - 1):
        left, right = max(ends[k], panel.grid[0]), min(ends[k + 1], panel.grid[-1])
        if panel.levels[k] > 0 and right > left:
            axes.axvspan(left, right, color=FAINT, lw=0, zorder=0)


def method_dots(data: CohortReport) -> Picture | None:
    """Mean absolute error and CRPS, one row a forecaster; the twin in blue."""
    if not data.scores:
        return None
    order = [s.method for s in data.scores]

    def draw() -> Figure:
        figure = new_figure(8.0 * len(order) + 20.0)
        columns = (("error", "Mean absolute error"), ("crps", "CRPS"), ("log_crps", "CRPS of log(1 + y)"))
        for axes, (field, label) in zip(figure.subplots(1, 3, sharey=True), columns, strict=True):
            for row, score in enumerate(data.scores):
                value, own = getattr(score, field), score.method == TWIN
                axes.axhline(row, color=FAINT, lw=0.7, zorder=0)
                if value is not None:
                    fill = TWIN_COLOR if own else "white"
                    axes.plot([value], [row], "o", color=TWIN_COLOR if own else GRAY, mfc=fill, ms=4.5)
            axes.set_title(label)
            axes.set_xlabel(f"{'' if field == 'log_crps' else data.unit}  ← lower is better".strip(), fontsize=6.6)
            axes.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
            axes.set_ylim(len(order) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_color(PALE)
            axes.margins(x=0.15)
        return figure

    caption = f"The twin (blue, filled) beside forecasts that need no mechanism, on {data.held_out} held-out readings."
    return Picture("scores", render(draw), caption, caption)
