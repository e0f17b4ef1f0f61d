"""Schedules side by side: what is given and when, what the draws go through, and what a gain costs."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortwin.metrics import quantile
from tumortwin.report._style import BASELINE_COLORS, INK, PLAN_COLOR, STANDARD_COLOR, Picture, new_figure, render
from tumortwin.report._words import number, pretty_unit, with_unit

COLORS = (PLAN_COLOR, STANDARD_COLOR, *BASELINE_COLORS)
LEVELS = np.asarray([0.025, 0.25, 0.5, 0.75, 0.975])
LANE_MM, CURVES_MM = 13.0, 58.0
LETTERS = 34  # of a title beside the curves


@dataclasses.dataclass(frozen=True, eq=False)
class ShownSchedule:
    """One schedule: `doses` by agent as (days, doses), and the `burden` [draw time] that follows on `days` [time]."""

    label: str
    doses: Mapping[str, tuple[np.ndarray, np.ndarray]]
    days: np.ndarray
    burden: np.ndarray

    def __post_init__(self) -> None:
        if self.burden.ndim != 2 or self.burden.shape[1:] != self.days.shape:
            raise ValueError(
                f"required: a burden [draw time] on days [time]; received: shapes {self.burden.shape} and "
                f"{self.days.shape}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class ShownFront:
    """A front of `risk` against `price` [point], both lower better, with the words of their axes.

    `standard`: (risk, price) of the standard of care, where it is to be seen beside the front.
    """

    risk: np.ndarray
    price: np.ndarray
    risk_words: str
    price_words: str
    standard: tuple[float, float] | None = None


def schedule_picture(
    schedules: Sequence[ShownSchedule],
    *,
    burden_words: str = "burden",
    unit: str = "1",
    dose_units: Mapping[str, str] | None = None,
    front: ShownFront | None = None,
    name: str = "schedules",
) -> Picture:
    """Doses agent by agent, the burden of the draws (median, half and 95 % of them), and a front where one is given.

    **Arguments:** `schedules`: the plan first, then what it is compared with; `unit` of the burden, `dose_units` by
    agent.

    **Raises:** `ValueError` for no schedule.
    """
    if not schedules:
        raise ValueError("required: one schedule or more; received: none")
    agents = sorted({agent for shown in schedules for agent in shown.doses})

    def draw() -> Figure:
        figure = new_figure(LANE_MM * len(agents) + CURVES_MM + 10.0)
        heights = [LANE_MM] * len(agents) + [CURVES_MM]
        widths = [1.0] if front is None else [1.7, 1.0]
        grid = figure.add_gridspec(len(heights), len(widths), height_ratios=heights, width_ratios=widths)
        below = figure.add_subplot(grid[-1, 0])
        for row, agent in enumerate(agents):
            lane = figure.add_subplot(grid[row, 0], sharex=below)
            _lane(lane, agent, schedules, (dose_units or {}).get(agent, "1"))
        _curves(below, schedules, with_unit(burden_words, pretty_unit(unit)))
        if front is not None:
            _front(figure.add_subplot(grid[:, 1]), front)
        return figure

    last = [f"{shown.label} {number(float(quantile(shown.burden[:, -1], 0.5)))}" for shown in schedules]
    day = schedules[0].days[-1]
    caption = (
        "Above: what is given, agent by agent. Below: the burden, line the median, dark half of the draws, pale 95 %. "
        f"Medians on day {day:g}: {', '.join(last)} {pretty_unit(unit)}.".replace(" .", ".")
    )
    alt = f"Schedules and {burden_words} over time: {', '.join(last)}."
    if front is not None:
        caption += f" Right: the front, {front.risk_words} against {front.price_words}, both lower is better."
        alt += f" A front of {len(front.price)} plans: {front.risk_words} against {front.price_words}."
    return Picture(name, render(draw), caption, alt)


def _lane(axes: Axes, agent: str, schedules: Sequence[ShownSchedule], unit: str) -> None:
    """The doses of one agent as stems, those of several schedules a little apart."""
    span = max(float(np.ptp(shown.days)) for shown in schedules)
    for index, shown in enumerate(schedules):
        if agent in shown.doses:
            days, doses = (np.asarray(v, float) for v in shown.doses[agent])
            given = doses > 0.0
            shift = 0.004 * span * (index - 0.5 * (len(schedules) - 1))
            axes.vlines(days[given] + shift, 0.0, doses[given], color=COLORS[index % len(COLORS)], lw=1.4)
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel(with_unit(agent, pretty_unit(unit)), rotation=0, ha="right", va="center")
    axes.yaxis.set_major_locator(MaxNLocator(2))
    axes.tick_params(labelbottom=False)


def _curves(axes: Axes, schedules: Sequence[ShownSchedule], words: str) -> None:
    everything = np.concatenate([np.ravel(shown.burden) for shown in schedules])
    if everything.min() > 0.0 and everything.max() > 100.0 * everything.min():
        axes.set_yscale("log")
    for index, shown in enumerate(schedules):
        color = COLORS[index % len(COLORS)]
        bands = np.stack([cast(np.ndarray, quantile(column, LEVELS)) for column in shown.burden.T], axis=1)
        axes.fill_between(shown.days, bands[0], bands[4], color=color, alpha=0.12, lw=0)
        axes.fill_between(shown.days, bands[1], bands[3], color=color, alpha=0.25, lw=0)
        axes.plot(shown.days, bands[2], color=color, lw=1.3, label=shown.label)
    axes.set_title(words)
    axes.set_xlabel("day")
    axes.legend(loc="best")


def _front(axes: Axes, front: ShownFront) -> None:
    order = np.argsort(front.price)
    axes.step(front.price[order], front.risk[order], where="post", color=INK, lw=0.9)
    axes.plot(front.price, front.risk, "o", color=PLAN_COLOR, ms=4, label="front")
    if front.standard is not None:
        axes.plot(front.standard[1], front.standard[0], "s", color=STANDARD_COLOR, ms=4.5, label="standard of care")
        axes.legend(loc="best")
    values = np.append(front.risk, [] if front.standard is None else front.standard[0])
    if values.min() > 0.0 and values.max() > 100.0 * values.min():
        axes.set_yscale("log")
    axes.set_title(textwrap.fill(front.risk_words, LETTERS))
    axes.set_xlabel(front.price_words)
