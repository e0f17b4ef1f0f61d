"""Two pictures: histograms of ranks, and coverage of forecasts under three truths."""

from collections.abc import Mapping

import numpy as np
from scipy import stats

from tumortwin.inference import SimulationBasedCalibration
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"
COLUMNS = 5
NOMINAL = 0.95


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_ranks(
    run: Run,
    studies: Mapping[str, tuple[SimulationBasedCalibration, tuple[str, ...]]],
    bins: int,
    short: Mapping[str, str],
) -> None:
    """A histogram a parameter, with the band in which 99 % of the bars of uniform ranks lie."""
    from matplotlib.figure import Figure

    shown = [(part, study, name) for part, (study, names) in studies.items() for name in names]
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(2.4 * COLUMNS, 1.9 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis, (part, study, name) in zip(axes, shown, strict=False):
        n, fewer = study.simulations, bins if study.simulations >= 5 * bins else 2
        counts, p_value = study.histogram(name, fewer)
        low, high = stats.binom.ppf([0.005, 0.995], n, 1.0 / fewer)
        axis.axhspan(low, high, color=GRAY, alpha=0.3, lw=0)
        axis.bar((np.arange(fewer) + 0.5) / fewer, counts, width=0.9 / fewer, color=BLUE)
        axis.set_title(f"{part.replace('_', ' ')}\n{short.get(name, name)}: p = {p_value:.2g}", fontsize=7)
        axis.tick_params(labelsize=6)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel(
        "rank of the truth among the posterior draws, as a share (band: 99 % of uniform counts)", fontsize=9
    )
    figure.supylabel("simulations", fontsize=9)
    _save(run, figure, "ranks")


def draw_coverage(
    run: Run, mice: Mapping[str, SimulationBasedCalibration], forecast: str, names: tuple[str, ...]
) -> None:
    """Share of held-out volumes, and of parameters, inside intervals of 50, 80 and 95 %."""
    from matplotlib.figure import Figure

    levels = (0.5, 0.8, NOMINAL)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    width = 0.8 / len(mice)
    for k, (law, study) in enumerate(mice.items()):
        shares = [study.coverage(forecast, level).share for level in levels]
        color = (BLUE, ORANGE, GRAY)[k]
        left.bar(np.arange(3) + (k - 1) * width, shares, width=0.9 * width, color=color, label=law.replace("_", " "))
    for i, level in enumerate(levels):
        left.plot([i - 0.45, i + 0.45], [level, level], color="black", lw=1)
    left.set_xticks(range(3), [f"{level:.0%}" for level in levels])
    left.set_xlabel("interval of the forecast (line: nominal)")
    left.set_ylabel("held-out volumes inside [1]")
    left.legend(fontsize=8, title="truth", title_fontsize=8)
    found = [next(iter(mice.values())).coverage(name, NOMINAL) for name in names]
    share = np.asarray([c.share for c in found])
    reach = np.abs(np.asarray([[c.share - c.low for c in found], [c.high - c.share for c in found]]))
    right.errorbar(share, range(len(names)), xerr=reach, fmt="o", ms=4, color=BLUE, elinewidth=0.8)
    right.axvline(NOMINAL, color=GRAY, lw=0.8)
    right.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=7)
    right.invert_yaxis()
    right.set_xlabel("parameters inside 95 % intervals [1]", fontsize=9)
    _save(run, figure, "coverage")
