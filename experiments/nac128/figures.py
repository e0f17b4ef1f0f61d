"""Two pictures: the risk of all schedules by component, and what each controller took to find the best."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.nac128.schedules import NAMES
from tumortwin.runs import Run

BLUE, ORANGE = "#1f6fb2", "#d9791a"
LEVELS = {
    "order": ("pair first", "taxane first"),
    "interval": ("14 d", "21 d"),
    "split": ("4 full", "8 half"),
    "taxane": ("10 d x 12", "7 d x 12", "14 d x 6", "21 d x 4"),
    "gap": ("7 d", "21 d"),
    "start": ("day 0", "day 7"),
}


def _save(run: Run, figure: Any, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")


def draw_levels(run: Run, every: np.ndarray, risks: np.ndarray) -> None:
    """Every schedule a point, by the level of each component."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for k, (axis, name) in enumerate(zip(figure.subplots(1, len(NAMES), sharey=True), NAMES, strict=True)):
        jitter = np.random.default_rng(k).uniform(-0.2, 0.2, len(every))
        axis.plot(every[:, k] + jitter, risks, "o", ms=2.5, color=BLUE, alpha=0.6)
        for level in np.unique(every[:, k]):
            mean = risks[every[:, k] == level].mean()
            axis.plot([level - 0.3, level + 0.3], [mean, mean], color=ORANGE, lw=2)
        axis.set_xticks(range(len(LEVELS[name])), LEVELS[name], fontsize=7, rotation=30)
        axis.set_title(name, fontsize=9)
    figure.supylabel("CVaR .8 of ln(burden / capacity),\n21 d after the last dose", fontsize=8)
    _save(run, figure, "schedules")


def draw_controllers(run: Run, chosen: Mapping[str, Mapping[str, Any]]) -> None:
    """Evaluations and seconds of each controller."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(next(iter(chosen.values())))
    for k, (label, found) in enumerate(chosen.items()):
        at = np.arange(len(names)) + (k - 0.5) * 0.35
        color = (BLUE, ORANGE)[k]
        left.barh(at, [found[n].evaluations + found[n].gradients for n in names], 0.33, color=color, label=label)
        right.barh(at, [found[n].seconds for n in names], 0.33, color=color)
    left.set_yticks(range(len(names)), [n.replace("_", " ") for n in names], fontsize=8)
    left.set_xlabel("schedules solved and gradients [1]")
    right.set_xlabel("time, compilation included [s]")
    left.legend(fontsize=8)
    _save(run, figure, "controllers")
