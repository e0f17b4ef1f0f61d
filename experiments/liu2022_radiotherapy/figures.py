"""Two pictures: forecasts with bands, schedule by schedule; concordance beside the baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tumortwin.metrics import concordance
from tumortwin.runs import Run

SHOWN = 3  # wells of a plate: the sparsest, the middle one, the densest
COLORS = ("#1f6fb2", "#d9791a", "#3a923a")
GRAY = "#8a8a8a"


def draw_schedules(run: Run, name: str, tasks: Sequence[Any]) -> None:
    """Three wells of every plate: readings, median and 95 % of a reading."""
    from matplotlib.figure import Figure

    plates = [(t, plate) for t in tasks for plate in np.unique(t.wells.plate)]
    rows = -(-len(plates) // 3)
    figure = Figure(figsize=(11, 2.6 * rows), layout="constrained")
    axes = np.ravel(figure.subplots(rows, 3, squeeze=False, sharex=True))
    for axis, (t, plate) in zip(axes, plates, strict=False):
        mine = np.flatnonzero(t.wells.plate == plate)
        mine = mine[np.argsort(t.wells.start[mine], kind="stable")]
        for color, i in zip(COLORS, mine[np.linspace(0, len(mine) - 1, SHOWN).astype(int)], strict=True):
            valid, days = t.wells.valid[i], t.wells.days[i]
            low, high = t.forecast.low[i][valid], t.forecast.high[i][valid]
            axis.fill_between(days[valid], low, high, color=color, alpha=0.2, lw=0)
            axis.plot(days[valid], t.forecast.median[i][valid], color=color, lw=1)
            axis.plot(days[valid], t.wells.seen[i][valid], ".", color=color, ms=2)
        axis.set_title(f"{plate} ({len(mine)} wells)", fontsize=9)
    for axis in axes[len(plates) :]:
        axis.set_visible(False)
    figure.supxlabel("day after the first fraction", fontsize=9)
    figure.supylabel("confluence (dots: seen; line: median, band: 95 % of a reading)", fontsize=9)
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")


def draw_bars(run: Run, prefix: str, parts: Mapping[str, Sequence[Any]]) -> None:
    """Mean CCC of every schedule that was left out, ours beside the baselines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4 * len(parts)), layout="constrained")
    for axis, (title, tasks) in zip(np.ravel(figure.subplots(len(parts), 1)), parts.items(), strict=True):
        names = list(tasks[0].curves())
        for k, who in enumerate(names):
            heights = [_mean_concordance(t, who) for t in tasks]
            at = np.arange(len(tasks)) + 0.8 * (k / len(names) - 0.4)
            color = COLORS[0] if k == 0 else str(0.35 + 0.5 * k / len(names))
            axis.bar(at, heights, 0.8 / len(names), color=color, label=who.replace("_", " "))
        axis.set_xticks(range(len(tasks)), [t.wells.schedule[0] for t in tasks])
        axis.set_ylabel("mean CCC of a well")
        axis.set_title(f"schedule left out, {title}", fontsize=10)
        axis.set_ylim(0, 1)
        axis.legend(fontsize=7, ncols=2, loc="lower right")
    with run.writing("figures", f"{prefix}concordance.png") as path:
        figure.savefig(path, dpi=130, format="png")


def _mean_concordance(task: Any, who: str) -> float:
    wells, predicted = task.wells, task.curves()[who]
    each = [concordance(predicted[i][wells.valid[i]], wells.seen[i][wells.valid[i]]) for i in range(len(wells))]
    return float(np.mean(each))
