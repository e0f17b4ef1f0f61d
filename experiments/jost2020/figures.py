"""Four pictures: nadirs by timing, optimised schedules, the same in another class, and losses of the closed loop."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.jost2020.bank import SLOTS
from experiments.jost2020.loop import Outcome
from experiments.jost2020.optimised import PLANNED, Plans
from experiments.jost2020.timings import NONE, POST, PRE, SIMULTANEOUS, Timing
from tumortwin.runs import Run

COLORS = {NONE: "#555555", SIMULTANEOUS: "#b22222", PRE: "#1f6fb2", POST: "#d9791a"}


def _save(run: Run, figure: Any, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")


def draw_timings(run: Run, timings: list[Timing]) -> None:
    """Median nadir over patients, by the first day of lenograstim."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axis = figure.subplots()
    for group, color in COLORS.items():
        found = [t for t in timings if t.group == group]
        if group == NONE:
            axis.axhline(np.median(found[0].nadir), color=color, lw=1, label="none")
            continue
        sizes = [8.0 * t.days for t in found]
        axis.scatter([t.first for t in found], [np.median(t.nadir) for t in found], sizes, color=color, label=group)
    axis.axvspan(0.0, 3.0, color="#cccccc", alpha=0.5, lw=0, label="cytarabine")
    axis.set_xlabel("first day of lenograstim (size: number of days)")
    axis.set_ylabel("median nadir of white cells [G/L]")
    axis.legend(fontsize=8)
    _save(run, figure, "timings")


def draw_plans(run: Run, standard: Plans, plans: Mapping[str, Plans]) -> None:
    """Mean doses and vials of the optimised schedules, and nadirs against the standard."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, plan in plans.items():
        label = name.replace("_", " ")
        left.plot(SLOTS, plan.cytarabine.mean(axis=0), "o-", ms=4, label=label)
        middle.plot(PLANNED.factor_days, plan.factor.mean(axis=0), "o-", ms=3)
        right.plot(standard.nadir, plan.nadir, "o", ms=3)
    ends = [standard.nadir.min(), standard.nadir.max()]
    right.plot(ends, ends, color="black", lw=0.8)
    right.set(xscale="log", yscale="log", xlabel="nadir, standard [G/L]", ylabel="nadir, optimised [G/L]")
    left.set(xlabel="day", ylabel="cytarabine, share of 3 g/m2", ylim=(0.0, 1.05))
    middle.set(xlabel="day", ylabel="lenograstim, share of a vial")
    left.legend(fontsize=7)
    _save(run, figure, "plans")


def draw_elsewhere(run: Run, plans: Mapping[str, Plans], moved: Mapping[str, Plans]) -> None:
    """Nadir and blasts of the same schedules in the planner's class and in the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    for axis, what, words in zip(
        figure.subplots(1, 2), ("nadir", "blasts"), ("nadir of white cells [G/L]", "blasts on day 28 [%]"), strict=True
    ):
        values = []
        for name, plan in plans.items():
            pair = getattr(plan, what), getattr(moved[name], what)
            values += pair
            axis.plot(*pair, "o", ms=3, label=name.replace("_", " "))
        ends = [np.min(values), np.max(values)]
        axis.plot(ends, ends, color="black", lw=0.8)
        axis.set(xscale="log", yscale="log", xlabel=f"{words}, planner's class", ylabel="another class")
    figure.axes[0].legend(fontsize=7)
    _save(run, figure, "elsewhere")


def draw_loop(run: Run, outcomes: Mapping[str, Outcome]) -> None:
    """Loss of every patient, sorted by that of the best course, by the class of the truths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(outcomes), 3.6), layout="constrained")
    shown = (("standard", "#555555"), ("open_loop", "#d9791a"), ("closed_loop", "#1f6fb2"), ("perfect", "#2e8b57"))
    for axis, (title, outcome) in zip(figure.subplots(1, len(outcomes), sharey=True), outcomes.items(), strict=True):
        order = np.argsort(outcome.perfect)
        for name, color in shown:
            axis.plot(getattr(outcome, name)[order], ".-", ms=4, lw=0.8, color=color, label=name.replace("_", " "))
        axis.set(title=title, xlabel="patient", ylabel="loss [days of leukopenia]")
    figure.axes[0].legend(fontsize=8)
    _save(run, figure, "loop")
