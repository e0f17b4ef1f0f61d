"""What was learned: prior against posterior, one small panel a parameter."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.stats import gaussian_kde

from tumortwin.report._data import ParameterDraws
from tumortwin.report._style import FAINT, GRAY, PALE, TRUTH_COLOR, TWIN_BAND, TWIN_COLOR, Picture, new_figure, render
from tumortwin.report._words import listing, median_interval, pretty_unit, summarize, upper_first

COLUMNS = 3
LOG_FROM_RATIO = 15.0
LETTERS = 38  # of a title, before it runs into the next panel


def density(draws: np.ndarray, at: np.ndarray, weights: np.ndarray | None, low: float, high: float) -> np.ndarray:
    """Weighted kernel density, reflected at the ends of the prior's range so that no mass leaks past a bound."""
    values = np.ravel(draws).astype(float)
    mass = None if weights is None else np.ravel(weights).astype(float)
    if np.ptp(values) <= 0:
        return np.zeros_like(at)
    kernel = gaussian_kde(values, weights=mass)
    inside = (at >= low) & (at <= high)
    return np.where(inside, kernel(at) + kernel(2 * low - at) + kernel(2 * high - at), 0.0)


def uses_log_axis(draws: np.ndarray) -> bool:
    """Whether a positive parameter is spread over more than about one decade."""
    low, high = np.quantile(draws, [0.01, 0.99])
    return bool(draws.min() > 0 and high / low > LOG_FROM_RATIO)


def narrowing(parameter: ParameterDraws) -> float:
    """By what share the 95 % interval shrank from prior to posterior (log scale where the panel is)."""
    if parameter.posterior is None:
        return 0.0
    log = uses_log_axis(parameter.prior)
    _, *prior = summarize(parameter.prior)
    _, *posterior = summarize(parameter.posterior, parameter.weights)
    ends = np.log([prior, posterior]) if log and min(*prior, *posterior) > 0 else np.array([prior, posterior])
    widths = ends[:, 1] - ends[:, 0]
    return float(1 - widths[1] / widths[0]) if widths[0] > 0 else 0.0


def narrowing_words(parameter: ParameterDraws) -> str:
    """`interval 62 % narrower`, or that the data said little."""
    share = narrowing(parameter)
    if parameter.posterior is None:
        return "not learned: prior only"
    if np.ptp(parameter.posterior) <= 0:
        return "one value, no interval"
    if share < 0.1:
        return "little learned"
    return f"interval {100 * share:.0f} % narrower"


def _panel(axes: Axes, parameter: ParameterDraws) -> None:
    log = uses_log_axis(parameter.prior)
    forward = np.log if log else np.asarray
    prior = forward(np.ravel(parameter.prior).astype(float))
    shown = [prior] if parameter.posterior is None else [prior, forward(np.ravel(parameter.posterior).astype(float))]
    low, high = min(float(v.min()) for v in shown), max(float(v.max()) for v in shown)
    view = np.quantile(prior, [0.002, 0.998])
    if parameter.posterior is not None:
        extra = np.quantile(shown[1], [0.002, 0.998])
        view = np.array([min(view[0], extra[0]), max(view[1], extra[1])])
    at = np.linspace(float(view[0]), float(view[1]), 300)
    x = np.exp(at) if log else at
    base = density(prior, at, None, low, high)
    axes.fill_between(x, base, color=FAINT, lw=0)
    axes.plot(x, base, color=PALE, lw=0.8)
    top = float(base.max())
    if parameter.posterior is not None:
        learned = density(shown[1], at, parameter.weights, low, high)
        axes.fill_between(x, learned, color=TWIN_BAND, lw=0, alpha=0.75)
        axes.plot(x, learned, color=TWIN_COLOR, lw=1.2)
        top = max(top, float(learned.max()))
    _below(axes, parameter, top)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(-0.16 * top, 1.06 * top)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(pretty_unit(parameter.unit), labelpad=1)


def _below(axes: Axes, parameter: ParameterDraws, top: float) -> None:
    """Median and 95 % interval as a dot on a line under the density; truth as a green line."""
    draws = parameter.prior if parameter.posterior is None else parameter.posterior
    color = GRAY if parameter.posterior is None else TWIN_COLOR
    median, low, high = summarize(draws, parameter.weights)
    axes.plot([low, high], [-0.08 * top] * 2, color=color, lw=1.6)
    axes.plot([median], [-0.08 * top], "o", color=color, ms=3.6)
    if parameter.truth is not None:
        axes.plot([parameter.truth] * 2, [-0.16 * top, top], color=TRUTH_COLOR, lw=1.1, ls=(0, (3, 2)))
    label = upper_first(parameter.label)
    words = median_interval(median, low, high)
    axes.set_title(f"{textwrap.fill(label, LETTERS)}\n", fontsize=7.8)
    axes.text(0, 1.03, f"{words}, {narrowing_words(parameter)}", transform=axes.transAxes, color=color, fontsize=6.4)


def prior_posterior(parameters: tuple[ParameterDraws, ...], *, virtual: bool) -> Picture | None:
    """Small multiples of prior (gray) and posterior (blue)."""
    if not parameters:
        return None
    rows = -(-len(parameters) // COLUMNS)

    def draw() -> Figure:
        figure = new_figure(42.0 * rows + 8.0)
        figure.get_layout_engine().set(hspace=0.08)  # pyright: ignore
        grid = figure.add_gridspec(rows, COLUMNS)
        for i, parameter in enumerate(parameters):
            _panel(figure.add_subplot(grid[i // COLUMNS, i % COLUMNS]), parameter)
        lines = [Line2D([], [], color=PALE, lw=3), Line2D([], [], color=TWIN_COLOR, lw=1.4)]
        words = ["prior (before the data)", "posterior (after the data)"]
        if any(p.truth is not None for p in parameters):
            lines.append(Line2D([], [], color=TRUTH_COLOR, lw=1.1, ls=(0, (3, 2))))
            words.append("truth (known, because the patient is simulated)" if virtual else "reference value")
        figure.legend(lines, words, loc="outside lower center", ncols=3, labelcolor=GRAY)
        return figure

    caption = (
        "Gray: what was believed before. Blue: after. Dot and line: median and 95 % interval. "
        "Where blue lies on gray the data said little, and the forecast rests on the prior."
    )
    names = listing([p.label for p in parameters])
    return Picture("parameters", render(draw), caption, f"Prior and posterior densities of {names}.")
