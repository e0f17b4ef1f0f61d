"""Draws of NUTS and of delayed acceptance over one another, and what an effective draw costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tumortwin.runs import Run

COLORS = {"nuts": "#000000", "delayed": "#1f6fb2"}


def _save(run: Run, figure: Any, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")


def draw_pairs(run: Run, shown: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> None:
    """Diffusivity against rate in the coordinates of the prior."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(shown), 3.8), layout="constrained")
    for axis, (name, (case, answers)) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
    ):
        names = list(case.problem.names)
        pair = [i for i, n in enumerate(names) if n.startswith("mechanisms.")]
        for kind, color in COLORS.items():
            x, y = answers[kind].draws[:, pair].T
            axis.plot(x, y, ".", ms=2, alpha=0.4, color=color, label=kind)
        axis.set_xlabel(f"{names[pair[0]].split('.', 1)[1]} [prior sd]", fontsize=8)
        axis.set_ylabel(f"{names[pair[1]].split('.', 1)[1]} [prior sd]", fontsize=8)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.legend(fontsize=8)
    _save(run, figure, "draws")


def draw_costs(run: Run, costs: Mapping[str, Mapping[str, float]]) -> None:
    """Solves of the PDE per effective draw, everything counted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(costs)
    for k, (name, each) in enumerate(costs.items()):
        axis.bar(
            np.arange(len(each)) + (k - 0.5) * width, list(each.values()), 0.9 * width, label=name.replace("_", " ")
        )
        axis.set_xticks(range(len(each)), [kind.replace("_", "\n") for kind in each], fontsize=8)
    axis.set_yscale("log")
    axis.set_ylabel("solves per effective draw", fontsize=8)
    axis.legend(fontsize=8)
    _save(run, figure, "costs")
