"""Four pictures: the optimal policy, daily courses, courses by visits, and days to progression by rule."""

from collections.abc import Mapping

import numpy as np

from experiments.gallagher2024.course import Courses
from experiments.gallagher2024.daily import Daily, Optimum
from experiments.gallagher2024.population import BASELINE, VISIT
from experiments.gallagher2024.tumor import LIMIT
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"
SHOWN = 6  # patients


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_policy(run: Run, best: Optimum) -> None:
    """Where dynamic programming gives the drug, in the plane of resistant cells and burden, and its course."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.pcolormesh(
        np.exp(best.log_resistant),
        best.burdens / BASELINE,
        best.given,
        cmap="Oranges",
        vmin=0,
        vmax=2.0,
        shading="auto",
    )
    days = int(best.course.days)
    axis.plot(best.course.resistant[:days], best.course.burden[:days] / BASELINE, color=BLUE, lw=0.8)
    axis.set_xscale("log")
    axis.set_ylim(0.95, 1.01 * LIMIT)
    axis.axhline(LIMIT, color="k", lw=0.8, ls="--")
    axis.set_xlabel("resistant cells R (share of the capacity)")
    axis.set_ylabel("burden N / baseline (dashed: progression)")
    axis.set_title("orange: drug for the next day; blue: the optimal course", fontsize=9)
    _save(run, figure, "policy")


def draw_daily(run: Run, courses: Mapping[str, Daily]) -> None:
    """Burden of the published patient under each rule, with the days of drug."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 * len(courses)), layout="constrained")
    axes = figure.subplots(len(courses), 1, sharex=True, squeeze=False).ravel()
    for axis, (name, course) in zip(axes, courses.items(), strict=True):
        days = int(course.days)
        on = np.asarray(course.dose[:days]) > 0
        axis.plot(np.asarray(course.burden[:days]) / BASELINE, color=BLUE, lw=0.8)
        axis.fill_between(np.arange(days), 0, 0.08, where=on, color=ORANGE, lw=0, step="post")
        axis.axhline(LIMIT, color="k", lw=0.6, ls="--")
        axis.set_title(f"{name.replace('_', ' ')}: {days} days, drug on {on.mean():.0%} of them", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.supxlabel("day (bars: drug)", fontsize=9)
    figure.supylabel("burden / baseline", fontsize=9)
    _save(run, figure, "daily")


def draw_courses(run: Run, courses: Mapping[str, Courses]) -> None:
    """The first patients in closed loop (blue, bars: its drug) and under the open-loop schedule (gray)."""
    from matplotlib.figure import Figure

    closed, other = courses["closed_loop"], courses["open_loop"]
    count = min(SHOWN, closed.days.size)
    figure = Figure(figsize=(9, 1.5 * count), layout="constrained")
    for i, axis in enumerate(figure.subplots(count, 1, sharex=True, squeeze=False).ravel()):
        days = VISIT * np.arange(closed.dose.shape[1])
        axis.plot(days, other.burden[i] / BASELINE, color=GRAY, lw=1)
        axis.plot(days, closed.burden[i] / BASELINE, color=BLUE, lw=1)
        seen = np.isfinite(closed.burden[i])
        axis.plot(days[seen] + VISIT, np.exp(closed.reading[i, seen]) / BASELINE, "k.", ms=2)
        axis.bar(days[seen], 0.08 * closed.dose[i, seen], VISIT, align="edge", color=ORANGE)
        axis.axhline(LIMIT, color="k", lw=0.6, ls="--")
        axis.set_title(f"closed loop {closed.days[i]:.0f} days, open loop {other.days[i]:.0f}", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.supxlabel("day (dots: readings, bars: drug, blue: closed loop, gray: open loop)", fontsize=9)
    figure.supylabel("burden / baseline", fontsize=9)
    _save(run, figure, "courses")


def draw_days(run: Run, parts: Mapping[str, Mapping[str, Courses]]) -> None:
    """Days to progression of every patient by rule, with the mean and the mean of the worst fifth."""
    from matplotlib.figure import Figure

    rows = sum(len(courses) for courses in parts.values())
    figure = Figure(figsize=(8, 0.42 * rows + 1.6), layout="constrained")
    axes = figure.subplots(
        len(parts), 1, sharex=True, squeeze=False, height_ratios=[len(courses) for courses in parts.values()]
    ).ravel()
    for axis, courses in zip(axes, parts.values(), strict=True):
        for row, course in enumerate(courses.values()):
            worst = np.sort(course.days)[: max(1, course.days.size // 5)].mean()
            axis.plot(course.days, np.full(course.days.size, row), "|", color=GRAY, ms=8)
            axis.plot(course.days.mean(), row, "o", color=BLUE)
            axis.plot(worst, row, "o", color=ORANGE)
        axis.set_yticks(range(len(courses)), [name.replace("_", " ") for name in courses])
        axis.invert_yaxis()
    axes[-1].set_xlabel("days to progression (blue: mean; orange: mean of the worst fifth)")
    _save(run, figure, "days")
