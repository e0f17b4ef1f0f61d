"""Regret by planner, and what the planners say of the courses."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments.decision_regret.regret import Regrets
from tumortwin.runs import Run

BLUE, ORANGE = "#1f6fb2", "#e08214"
LEAST = 1e-5  # regrets below are drawn there


def draw_regret(run: Run, every: Mapping[str, Mapping[str, Regrets]], truth: str) -> None:
    """By objective and planner: personal regrets as strokes, their mean and the common regret as marks."""
    names = [name for name in next(iter(every.values())) if name != truth]
    figure = Figure(figsize=(9, 0.3 * len(names) + 1.4), layout="constrained")
    for axis, (objective, found) in zip(figure.subplots(1, len(every), sharey=True), every.items(), strict=True):
        for place, name in enumerate(names):
            each = np.maximum(found[name].personal, LEAST)
            axis.semilogx(each, np.full(each.size, place), "|", color=BLUE, alpha=0.4)
            axis.semilogx(max(found[name].personal.mean(), LEAST), place, "o", color=BLUE)
            axis.semilogx(max(found[name].common, LEAST), place, "D", color=ORANGE, ms=4)
        axis.axvline(0.01, color="black", lw=0.8, ls=":")
        axis.set(title=objective.replace("_", " "), xlim=(LEAST / 2, 2.0))
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    figure.axes[0].invert_yaxis()
    figure.supxlabel(
        "regret / (worst - best): strokes one tumor each, disc their mean, diamond one course for all", fontsize=8
    )
    _save(run, figure, "regret")


def draw_losses(run: Run, objective: str, said: Mapping[str, np.ndarray], truth: str, planning: int) -> None:
    """Mean loss of every course by each planner against that of the PDE, over the fresh draws."""
    names = [name for name in said if name != truth]
    columns = 4
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.4 * lines), layout="constrained")
    axes = np.atleast_2d(figure.subplots(lines, columns))
    x = said[truth][:, planning:].mean(axis=1)
    for axis, name in zip(axes.ravel(), names, strict=False):
        y = said[name][:, planning:].mean(axis=1)
        fine = np.isfinite(y)
        axis.plot(x, x, color="black", lw=0.8)
        axis.plot(x[fine], y[fine], ".", color=BLUE, ms=5)
        axis.set_title(name.replace("_", " ") + ("" if fine.all() else f" ({(~fine).sum()} without)"), fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes.ravel()[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel(f"{objective.replace('_', ' ')}, mean of ln mass over fresh tumors, PDE", fontsize=8)
    figure.supylabel("the planner's", fontsize=8)
    _save(run, figure, f"losses_{objective}")


def _save(run: Run, figure: Figure, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")
