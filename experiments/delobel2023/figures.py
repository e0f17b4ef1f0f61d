"""One picture: every patient's volumes, fit, forecast and treatment."""

import numpy as np

from experiments.delobel2023.model import Weighed
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"
DRAWS = 1000


def draw_forecasts(run: Run, weighed: Weighed, twin: np.ndarray, persistence: np.ndarray) -> None:
    """Dots: known; rings: hidden; line and band: curve and 95 % of it, then of the forecast; dashes: persistence."""
    from matplotlib.figure import Figure

    records = weighed.records
    rows = -(-len(records.names) // 3)
    figure = Figure(figsize=(10, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    place, rng = 0, np.random.default_rng(run.config.seed)
    for i, (axis, name) in enumerate(zip(axes, records.names, strict=False)):
        known, hidden = records.known_days[i], records.hidden_days[i]
        curve = weighed.draws(i, DRAWS, rng).curve[:, : known.size]
        low, middle, high = np.quantile(curve, [0.025, 0.5, 0.975], axis=0)
        axis.fill_between(known, low, high, color=BLUE, alpha=0.25, lw=0)
        axis.plot(known, middle, color=BLUE, lw=1)
        rest = slice(place, place + hidden.size)
        place += hidden.size
        low, middle, high = np.quantile(twin[rest], [0.025, 0.5, 0.975], axis=1)
        axis.fill_between(hidden, low, high, color=ORANGE, alpha=0.25, lw=0)
        axis.plot(hidden, middle, color=ORANGE, lw=1)
        axis.plot(hidden, persistence[rest, 0], "--", color=GRAY, lw=1)
        axis.plot(known, records.known[i], "k.", ms=5)
        axis.plot(hidden, records.hidden[i], "ko", mfc="none", ms=5)
        _courses(axis, np.asarray(records.history.edges[i]), np.asarray(records.history.levels[i]), hidden[-1])
        axis.set_ylim(0, None)
        axis.set_title(f"patient {name}", fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes[len(records.names) :]:
        axis.set_visible(False)
    figure.supxlabel("day after the first volume (bars: treatment; orange: forecast, dashes: persistence)", fontsize=9)
    figure.supylabel("volume, cm$^3$ (dots: known, rings: hidden)", fontsize=9)
    with run.writing("figures", "forecasts.png") as path:
        figure.savefig(path, dpi=130, format="png")


def _courses(axis: object, edges: np.ndarray, levels: np.ndarray, last: float) -> None:
    """Bars along the bottom where there is treatment."""
    ends = np.append(edges, np.inf)
    for start, stop, level in zip(edges, ends[1:], levels[1:], strict=True):
        if level > 0 and start < last:
            axis.axvspan(max(start, 0.0), min(stop, last), ymax=0.04, color=GRAY, lw=0)  # type: ignore[attr-defined]
