"""Recovered terms, ranks with intervals, and calibration curves."""

import numpy as np

from experiments.hybrid_ablation.rows import HYBRID, MECHANISM, NETWORK
from experiments.hybrid_ablation.scores import Ranking
from experiments.hybrid_ablation.synthetic import Result
from tumortwin.runs import Run

COLORS = {MECHANISM: "#d9791a", NETWORK: "#7a5195", HYBRID: "#1f6fb2", "persistence": "#8a8a8a"}


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_recovered(run: Run, truth: str, results: list[Result]) -> None:
    """Growth per volume as every world learned it (left), and the error after the window (right)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for r in results:
        for kind in (MECHANISM, NETWORK, HYBRID):
            left.plot(r.sizes, r.rates[kind], color=COLORS[kind], lw=0.9, alpha=0.7, label=kind)
    left.plot(results[0].sizes, results[0].rates["truth"], "k--", lw=1.4, label="truth")
    left.axvspan(results[0].sizes[0], min(r.top for r in results), color="#000000", alpha=0.05, lw=0)
    left.set_xscale("log")
    left.set_xlabel("volume, mm³ (shaded: seen in training)")
    left.set_ylabel("growth per volume, 1/day")
    handles, labels = left.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    left.legend(list(once.values()), list(once), fontsize=8)
    for k, kind in enumerate((MECHANISM, NETWORK, HYBRID)):
        values = [r.later[kind].mean() for r in results]
        right.plot(np.full(len(values), k), values, "o", color=COLORS[kind], alpha=0.7)
    right.set_xticks(range(3), (MECHANISM, NETWORK, HYBRID))
    right.set_yscale("log")
    right.set_ylabel("mean |log error| after the window, a world a dot", fontsize=8)
    figure.suptitle(f"truth: {truth}", fontsize=10)
    _save(run, figure, f"recovered_{truth}")


def draw_ranking(run: Run, rankings: dict[str, Ranking], units: dict[str, str]) -> None:
    """Mean CRPS with 95 % bootstrap intervals over subjects, best on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(rankings), 2.8), layout="constrained")
    for axis, (name, rank) in zip(figure.subplots(1, len(rankings), squeeze=False)[0], rankings.items(), strict=True):
        for place, who in enumerate(rank.names):
            axis.errorbar(
                rank.mean[who], -place,
                xerr=[[rank.mean[who] - rank.low[who]], [rank.high[who] - rank.mean[who]]],
                fmt="o", color=COLORS[who], capsize=3,
            )  # fmt: skip
        axis.set_yticks([-k for k in range(len(rank.names))], list(rank.names))
        axis.set_xlim(left=0)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xlabel(f"mean CRPS, {units[name].replace('_', ' ')}", fontsize=8)
    _save(run, figure, "ranking")


def draw_calibration(run: Run, inside: dict[str, dict[str, np.ndarray]], levels: np.ndarray) -> None:
    """Share of readings inside the central intervals of each level, first seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(inside), 3.2), layout="constrained")
    for axis, (name, of_table) in zip(figure.subplots(1, len(inside), squeeze=False)[0], inside.items(), strict=True):
        axis.plot([0, 1], [0, 1], "k:", lw=0.8)
        for who, found in of_table.items():
            axis.plot(levels, found.mean(axis=1), ".-", color=COLORS[who], label=who, lw=1)
        axis.set_title(name.replace("_", " "), fontsize=8)
        axis.set_xlabel("level")
    figure.axes[0].set_ylabel("share inside")
    figure.axes[0].legend(fontsize=7)
    _save(run, figure, "calibration")
