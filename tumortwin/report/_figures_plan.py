"""The recommended schedule beside the standard of care: doses week by week, outcomes, and paired gain."""

import textwrap
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from tumortwin.report._data import Plan, Regimen
from tumortwin.report._sentences import compare, helped, paired_gain
from tumortwin.report._style import GRAY, INK, PALE, PLAN_COLOR, STANDARD_COLOR, Picture, new_figure, render
from tumortwin.report._words import interval, number, percent, pretty_unit, shown, summarize, upper_first, with_unit

WEEK = 7.0
LETTERS = 48  # of a title, before it runs into the next panel


def _doses(lanes: np.ndarray, plan: Plan) -> None:
    """One lane a regimen on a shared day axis: the dose of a fraction in each week, at its true time."""
    pairs = ((plan.recommended, PLAN_COLOR), (plan.standard, STANDARD_COLOR))
    top = max(float(np.max(r.weekly_fraction_dose)) for r, _ in pairs)
    for axes, (regimen, color) in zip(lanes, pairs, strict=True):
        starts = float(regimen.start_day) + WEEK * np.arange(regimen.weekly_fraction_dose.size)
        length = float(regimen.fractions_per_week)
        axes.bar(starts, regimen.weekly_fraction_dose, width=length, align="edge", color=color, lw=0)
        for x, dose in zip(starts + length / 2, regimen.weekly_fraction_dose, strict=True):
            axes.text(x, dose + 0.04 * top, f"{dose:.1f}", ha="center", va="bottom", fontsize=6.4, color=color)
        total = f"{regimen.label}\n{regimen.total_dose:.1f} Gy from day {regimen.start_day:g}"
        axes.set_ylabel(total, rotation=0, ha="right", va="center", color=color, labelpad=6)
        axes.set_ylim(0, 1.3 * top)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    lanes[0].tick_params(labelbottom=False)
    lanes[0].set_title("Dose a fraction, Gy, in each week", pad=6)
    lanes[1].set_xlabel("days since the first scan")


def _violin(axes: Axes, values: np.ndarray, row: float, color: str) -> None:
    """Half-density above a line with median and 95 % interval."""
    median, low, high = summarize(values)
    if np.ptp(values) > 0:
        first, last = np.quantile(values, [0.005, 0.995])
        at = np.linspace(float(first), float(last), 200)
        height = gaussian_kde(values)(at)
        axes.fill_between(at, row, row - 0.62 * height / height.max(), color=color, alpha=0.22, lw=0)
    axes.plot([low, high], [row, row], color=color, lw=1.3)
    axes.plot([median], [row], "o", color=color, ms=4)
    axes.text(median, row + 0.09, f"{number(median, like=high)}", color=color, ha="center", va="top", fontsize=6.6)


def _regimens(plan: Plan) -> list[tuple[Regimen, str]]:
    found = [(plan.standard, STANDARD_COLOR), (plan.recommended, PLAN_COLOR)]
    return found if plan.equal_bed is None else [*found, (plan.equal_bed, "#B0720A")]


def _outcomes(axes: Axes, plan: Plan) -> None:
    factor, unit = shown(plan.outcome_unit)
    rows = _regimens(plan)
    for i, (regimen, color) in enumerate(rows):
        _violin(axes, np.ravel(regimen.outcome) * factor, float(i), color)
    axes.set_ylim(len(rows) - 0.6, -0.8)
    axes.set_yticks(range(len(rows)), [r.label for r, _ in rows])
    for tick, (_, color) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(color)
    axes.set_title(textwrap.fill(with_unit(upper_first(plan.outcome_name), pretty_unit(unit)), LETTERS), pad=8)
    axes.set_xlabel("← lower is better" if plan.lower_is_better else "higher is better →")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _gain(axes: Axes, plan: Plan) -> None:
    """Histogram of the paired gain; draws without benefit in gray."""
    factor, unit = shown(plan.outcome_unit)
    gain = np.ravel(paired_gain(plan, plan.standard, plan.recommended)) * factor
    better = np.ravel(helped(plan, plan.standard, plan.recommended))
    threshold = float(plan.benefit_from) * factor
    low, high = np.quantile(gain, [0.005, 0.995])
    width = max(high - low, 1e-12) / 28
    first = threshold - width * np.ceil((threshold - low) / width)
    edges = first + width * np.arange(int(np.ceil((high - first) / width)) + 1)
    none, some = (np.histogram(gain[chosen], bins=edges)[0] for chosen in (~better, better))
    axes.bar(edges[:-1], none, width=0.92 * width, align="edge", color=PALE, lw=0)
    axes.bar(edges[:-1], some, bottom=none, width=0.92 * width, align="edge", color=PLAN_COLOR, lw=0)
    axes.axvline(threshold, color=INK, lw=0.7)
    said = compare(plan, plan.standard, plan.recommended)
    axes.set_title("Gain over standard of care, draw by draw", pad=8)
    axes.set_xlabel(with_unit("gain", pretty_unit(unit)))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    text: dict[str, Any] = dict(transform=axes.transAxes, fontsize=6.8, va="top")
    axes.text(1.0, 1.0, f"helps in {percent(said.p_benefit)}", ha="right", color=PLAN_COLOR, **text)
    axes.text(1.0, 0.9, f"no benefit in {percent(1 - said.p_benefit)}", ha="right", color=GRAY, **text)


def plan_figure(plan: Plan) -> Picture:
    """Doses, outcomes and paired gain side by side."""

    def draw() -> Figure:
        figure = new_figure(112.0)
        upper, lower = cast(np.ndarray, figure.subfigures(2, 1, height_ratios=[1.0, 1.15]))
        _doses(upper.subplots(2, 1, sharex=True), plan)
        left, right = lower.subplots(1, 2)
        _outcomes(left, plan)
        _gain(right, plan)
        return figure

    said = compare(plan, plan.standard, plan.recommended)
    scale = max(abs(said.low), abs(said.high))
    size = f"{number(said.median, like=scale)} {said.unit}"
    gain = f"median gain {size}, 95 % of draws {interval(said.low, said.high)}"
    caption = (
        f"Orange: {plan.recommended.label}. Gray: {plan.standard.label}. Outcomes on fresh posterior draws that the "
        f"optimizer never saw; dot and line: median and 95 % of draws ({gain})."
    )
    alt = f"Weekly doses of both schedules, and the distribution of {plan.outcome_name} under each; {gain}."
    return Picture("plan", render(draw), caption, alt)
