"""How good the forecast was: scores beside baselines, and coverage over many patients."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tumortwin.report._data import TWIN, Coverage, ReportData, Score
from tumortwin.report._style import (
    FAINT,
    GRAY,
    INK,
    PALE,
    TWIN_COLOR,
    Picture,
    baseline_style,
    new_figure,
    render,
)
from tumortwin.report._words import METRICS, listing, metric_value, score_words, unique

MARKERS = ("o", "s", "D", "^", "v")
Z_95 = 1.96


def ranked_metrics(data: ReportData) -> list[str]:
    """Known metrics that have a finite number, in the order of the table."""
    values = [(s.metric, metric_value(s)) for s in data.scores]
    present = {name for name, value in values if value is not None and math.isfinite(value)}
    return [name for name in METRICS if name in present and name != "coverage"]


def methods(data: ReportData) -> list[str]:
    """The twin first, then the baselines in the order given."""
    found = unique(s.method for s in data.scores)
    return [m for m in found if m == TWIN] + [m for m in found if m != TWIN]


def _case(score: Score) -> tuple[str | None, float | None]:
    return score.channel, None if score.day is None else float(score.day)


def _cases(data: ReportData) -> list[tuple[str | None, float | None]]:
    found = {_case(s) for s in data.scores}
    return sorted(found, key=lambda c: (c[0] or "", -1.0 if c[1] is None else c[1]))


def _case_words(data: ReportData, case: tuple[str | None, float | None]) -> str:
    day = "all hidden days" if case[1] is None else f"day {case[1]:g}"
    return f"{data.label(case[0])}, {day}"


def _metric_panel(axes: Axes, data: ReportData, metric: str, order: list[str], cases: list) -> None:
    label, unit, direction = METRICS[metric]
    here = [c for c in cases if any(s.metric == metric and _case(s) == c for s in data.scores)]
    for score in (s for s in data.scores if s.metric == metric):
        value = metric_value(score)
        if value is None:
            continue
        y = order.index(score.method) + _offset(here.index(_case(score)), len(here))
        if math.isinf(value):
            _say(axes, score, score_words(value, tumor_seen=data.tumor_seen(score)), y)
        else:
            _mark(axes, score, value, y, cases.index(_case(score)))
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_yticks(range(len(order)), order)
    for row in range(len(order)):
        axes.axhline(row, color=FAINT, lw=0.7, zorder=0)
    arrow = "higher is better →" if direction > 0 else "← lower is better"
    axes.set_title(label, pad=4)
    axes.set_xlabel(f"{unit}  {arrow}".strip(), fontsize=6.6)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.12)


def _offset(case: int, count: int) -> float:
    return 0.0 if count < 2 else (case / (count - 1) - 0.5) * 0.5


def _mark(axes: Axes, score: Score, value: float, y: float, case: int) -> None:
    twin = score.method == TWIN
    color = TWIN_COLOR if twin else GRAY
    marker = MARKERS[case % len(MARKERS)]
    axes.plot([value], [y], marker, color=color, ms=4.6 if twin else 3.8, mfc=color if twin else "white", mew=1.0)


def _say(axes: Axes, score: Score, text: str, y: float) -> None:
    color = TWIN_COLOR if score.method == TWIN else GRAY
    where = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    axes.text(1.0, y, text, color=color, fontsize=6.0, **where)


def score_dots(data: ReportData) -> Picture | None:
    """One panel a metric, one row a method; the twin in blue."""
    metrics, order, cases = ranked_metrics(data), methods(data), _cases(data)
    if not metrics:
        return None

    def draw() -> Figure:
        figure = new_figure(9.0 * len(order) + 26.0)
        figure.get_layout_engine().set(wspace=0.06)  # pyright: ignore
        row = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(row, metrics, strict=True):
            _metric_panel(axes, data, metric, order, cases)
        row[0].get_yticklabels()[0].set_color(TWIN_COLOR)
        lines = [Line2D([], [], marker=MARKERS[i % len(MARKERS)], ls="", color=GRAY, ms=4) for i, _ in enumerate(cases)]
        words = [_case_words(data, case) for case in cases]
        figure.legend(lines, words, loc="outside lower center", ncols=min(len(words), 4), labelcolor=GRAY)
        return figure

    names = listing([METRICS[m][0] for m in metrics])
    caption = f"The twin (blue, filled) beside baselines (gray, hollow) on the hidden scans: {names}."
    return Picture("scores", render(draw), caption, caption)


def coverage_plot(curves: tuple[Coverage, ...]) -> Picture | None:
    """Empirical against nominal coverage; the gray lens is where an honest interval would fall by chance."""
    if not curves:
        return None

    def draw() -> Figure:
        figure = new_figure(72.0, 110.0)
        axes = figure.subplots()
        count = min(c.count for c in curves)
        level = np.linspace(0.0, 1.0, 101)
        spread = Z_95 * np.sqrt(level * (1 - level) / max(count, 1))
        axes.fill_between(level, level - spread, level + spread, color=FAINT, lw=0)
        axes.plot([0, 1], [0, 1], color=PALE, lw=0.8)
        for i, curve in enumerate(curves):
            color = TWIN_COLOR if i == 0 else str(baseline_style(i - 1)["color"])
            axes.plot(curve.nominal, curve.empirical, "o-", color=color, lw=1.2, ms=3.5, label=curve.label)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("stated probability of the interval")
        axes.set_ylabel("share of truths inside")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), labelcolor=INK)
        return figure

    counts = listing([f"{c.label}: {c.count} truths" for c in curves])
    caption = (
        f"Are the intervals honest? On the diagonal they are; below it they are too narrow, above it too wide "
        f"({counts}). Gray: the scatter that chance alone would give."
    )
    return Picture("coverage", render(draw), caption, caption)
