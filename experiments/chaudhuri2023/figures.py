"""Three pictures: doses by week, gains of patients, and total dose against CVaR."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.chaudhuri2023.plans import SETS, STANDARD_PLAN, total_of
from experiments.chaudhuri2023.study import Chosen, Known
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"
MEASURE = {"total_dose": "toxicity: total dose 60 Gy", "bed_3": "toxicity: BED$_3$ 100 Gy"}


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_doses(run: Run, sets: Sequence[Chosen]) -> None:
    """Dose a fraction by week: every personal plan, the common one, and the standard of care."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(sets), 3.4), layout="constrained")
    axes = figure.subplots(1, len(sets), squeeze=False)[0]
    weeks = np.arange(1, STANDARD_PLAN.size + 1)
    for axis, one in zip(axes, sets, strict=True):
        for k, doses in enumerate(one.personal.doses):
            axis.plot(weeks, doses, color=BLUE, alpha=0.25, lw=0.8, label=None if k else "personal")
        axis.plot(weeks, one.common.doses[0], color=ORANGE, marker="o", ms=4, label="common to all")
        axis.plot(weeks, STANDARD_PLAN, color=GRAY, ls="--", label="standard of care")
        axis.set_title(f"{one.limits.words}\n{MEASURE[one.limits.measure]}", fontsize=8)
        axis.set_xlabel("week of radiotherapy (week 1 has been given)", fontsize=8)
        axis.set_ylim(0.0, None)
    axes[0].set_ylabel("dose a fraction [Gy]")
    axes[0].legend(fontsize=7)
    _save(run, figure, "doses")


def draw_gains(run: Run, has: Known, sets: Sequence[Chosen]) -> None:
    """Gains of patients over the standard of care by CVaR on fresh draws, and what the personal plan adds to them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(sets), 5.2), layout="constrained")
    axes = figure.subplots(2, len(sets), squeeze=False)
    for column, one in enumerate(sets):
        ours, shared = has.gain(one.personal.doses), has.gain(one.common.doses)
        top, bottom = axes[:, column]
        every = np.concatenate([ours, shared])
        edges = np.linspace(float(every.min()), float(np.percentile(every, 98)), 25)
        top.hist(ours, edges, color=BLUE, alpha=0.7, label="personal")
        top.hist(shared, edges, histtype="step", color=ORANGE, lw=1.5, label="common to all")
        top.axvline(float(np.median(ours)), color=BLUE, lw=1)
        top.set_title(f"{one.limits.words}\n{MEASURE[one.limits.measure]}", fontsize=8)
        top.set_xlabel("gain of CVaR over standard of care [day]", fontsize=8)
        bottom.hist(np.round(ours - shared, 9), 25, color=GRAY)
        bottom.axvline(0.0, color="black", lw=0.8)
        bottom.set_xlabel("personal minus common [day]", fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("patients")
    axes[0, 0].legend(fontsize=7)
    _save(run, figure, "gains")


def draw_front(run: Run, front: Mapping[str, Mapping[str, list[tuple[float, float, float]]]]) -> None:
    """Total dose, and beside it the BED_3 that it comes with, against the CVaR."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    by_total, by_effect = figure.subplots(1, 2, sharey=True)
    colors = dict(zip([limits.name for limits in SETS], (BLUE, ORANGE, "#3a8f4d"), strict=True))
    words = {limits.name: limits.words for limits in SETS}
    for name, kinds in front.items():
        for kind, points in kinds.items():
            total, effect, change = np.asarray(points).T
            style = {"color": colors[name], "ls": "-" if kind == "personal" else ":", "marker": "o", "ms": 3}
            by_total.plot(total, change, label=f"{words[name]}, {kind}", **style)
            by_effect.plot(effect, change, **style)
    by_total.plot(total_of(STANDARD_PLAN), 0.0, marker="*", ms=12, color="black", ls="", label="standard of care")
    by_effect.plot(100.0, 0.0, marker="*", ms=12, color="black", ls="")
    by_total.set_xlabel("total dose [Gy]")
    by_effect.set_xlabel("normal-tissue BED$_3$ of the same plans (median) [Gy]")
    by_total.set_ylabel("change of CVaR of the time to\nprogression, mean of patients [day]")
    figure.legend(loc="outside lower center", ncols=3, fontsize=6)
    _save(run, figure, "front")
