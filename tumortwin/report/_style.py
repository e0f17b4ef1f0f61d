"""One palette, one font, one way to make a figure. The object interface only: no pyplot, no global state."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tumortwin.report._data import Picture as Picture

MM_PER_INCH = 25.4
PAGE_MM = 180.0
DPI = 200

# Okabe and Ito (2008), distinguishable with every common colour-vision deficiency, and three grays.
INK, GRAY, PALE, FAINT = "#1f2428", "#6b7280", "#c9ced6", "#eceff2"
TWIN_COLOR, TWIN_BAND, TWIN_HALF = "#0072B2", "#d3e6f3", "#9dc8e4"
PLAN_COLOR, STANDARD_COLOR, TRUTH_COLOR = "#D55E00", "#6b7280", "#009E73"
BASELINE_COLORS = ("#B97A00", "#CC79A7", "#3B9AA8", "#7A5C99", "#8C6D46")
BASELINE_DASHES = ((4.0, 1.6), (1.2, 1.4), (6.0, 1.5, 1.2, 1.5), (2.5, 1.2), (8.0, 2.0))
P_TUMOR_MAP = LinearSegmentedColormap.from_list("p_tumor", ["#fff3c4", "#fdb863", "#e66101", "#a50f15"])
SD_MAP = LinearSegmentedColormap.from_list("sd", ["#e6f0fa", "#7fb8da", "#2171b5", "#08306b"])
VISIT_MAP = LinearSegmentedColormap.from_list("visit", ["#F0C000", "#E8590C", "#C2185B", "#6A1B9A"])

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 7.5,
    "axes.titlesize": 8.0,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.labelcolor": GRAY,
    "axes.edgecolor": PALE,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": GRAY,
    "ytick.labelcolor": GRAY,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 7.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


def new_figure(height_mm: float, width_mm: float = PAGE_MM) -> Figure:
    """An empty figure on the Agg canvas; call inside `render`."""
    figure = Figure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(draw: Callable[[], Figure]) -> bytes:
    """PNG bytes of the figure that `draw` makes, under our style and from Matplotlib's own defaults."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def baseline_style(index: int) -> dict[str, object]:
    """Color and dash of the i-th baseline."""
    return {
        "color": BASELINE_COLORS[index % len(BASELINE_COLORS)],
        "dashes": BASELINE_DASHES[index % len(BASELINE_DASHES)],
    }


def spread(positions: np.ndarray, gap: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Labels moved as little as possible so that neighbours are at least `gap` apart (order kept), all of them within
    `low` and `high`; nearer to one another only where there is no room for `gap`."""
    order = np.argsort(positions, kind="stable")
    placed = np.clip(np.asarray(positions, dtype=float)[order], low, high)
    gap = min(gap, (high - low) / max(placed.size - 1, 1))
    for _ in range(50):
        overlap = gap - np.diff(placed)
        if (overlap <= gap * 1e-6).all():
            break
        for i in np.flatnonzero(overlap > 0):
            shift = max(0.0, gap - (placed[i + 1] - placed[i])) / 2
            placed[i] -= shift
            placed[i + 1] += shift
    steps = gap * np.arange(placed.size)
    placed = np.maximum.accumulate(np.maximum(placed, low) - steps) + steps
    placed = np.minimum(placed, high - steps[::-1])
    result = np.empty_like(placed)
    result[order] = placed
    return result


def bare(axes: Axes) -> None:
    """No ticks, no spines."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
