"""Doses day by day, and what is gained draw by draw."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.glioma_schedule.decision import DECISION, DRUG, FRACTIONS
from tumortwin.control import Comparison, Plan
from tumortwin.runs import Run

COLORS = {"recommended": "#1f6fb2", "common": "#e08214", "standard of care": "#777777"}


def draw_doses(run: Run, *plans: Plan) -> None:
    """Doses of radiotherapy and of the drug, a line a plan."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for plan in plans:
        courses = DECISION.courses(plan.variables)
        for axis, agent in zip(axes, ("radiotherapy", DRUG), strict=True):
            course = courses[agent]
            axis.step(course.times, course.doses, where="mid", color=COLORS[plan.name], label=plan.name, lw=1.6)
    axes[0].set(xlabel="day after the decision", ylabel="Gy a fraction", title=f"{FRACTIONS} fractions")
    axes[1].set(xlabel="day after the decision", ylabel="dose of 75 mg/m$^2$", title="temozolomide")
    axes[0].legend(fontsize=8)
    _save(run, figure, "doses")


def draw_gains(run: Run, found: Comparison) -> None:
    """The gain over the standard of care, one bar a fresh draw, in order."""
    gains = np.sort(found.gains["mean_log_burden"])
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    axis.bar(np.arange(gains.size), gains, color=COLORS["recommended"])
    axis.axhline(0.0, color="black", lw=0.8)
    axis.set(xlabel="fresh draw", ylabel="gain of the mean log burden [ln]")
    _save(run, figure, "gains")


def _save(run: Run, figure: Any, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=110, format="png")
