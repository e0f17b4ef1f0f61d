"""Error against basis size, estimate against error, and one tumor beside the other."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.rom_glioma.study import Scores
from tumortwin.cli_train_reduced import TrainingCase
from tumortwin.runs import Run
from tumortwin.solvers import simulate
from tumortwin.surrogates import FnoSurrogate, HeldOut, PodSurrogate

BLUE, ORANGE = "#1f6fb2", "#e08214"


def draw_sizes(run: Run, every: Mapping[int, Scores]) -> None:
    """Median and 95th percentile of the relative error, and the 5th percentile of Dice, against the number of modes."""
    counts = sorted(every)
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(counts, [every[c].median for c in counts], "o-", color=BLUE, label="median")
    left.semilogy(counts, [every[c].q95 for c in counts], "s--", color=ORANGE, label="95th percentile")
    left.axhline(0.01, color="black", lw=0.8, ls=":")
    left.set(xlabel="modes", ylabel="relative L2 error")
    left.legend(fontsize=8)
    right.plot(counts, [every[c].dice for c in counts], "o-", color=BLUE)
    right.axhline(0.95, color="black", lw=0.8, ls=":")
    right.set(xlabel="modes", ylabel="Dice, 5th percentile")
    _save(run, figure, "basis_size")


def draw_errors(run: Run, surrogate: PodSurrogate | FnoSurrogate, tested: HeldOut) -> None:
    """The estimate of the error beside the error itself, greatest over the days, one point a test case."""
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axis = figure.subplots()
    bound = np.asarray(surrogate.error.density_bound(jnp.asarray(tested.estimate))).max(axis=1)
    error = tested.error.max(axis=1)
    for chosen, color, label in ((tested.inside, BLUE, "in the domain"), (~tested.inside, ORANGE, "flagged")):
        axis.loglog(bound[chosen], error[chosen], ".", ms=4, color=color, label=label)
    ends = [max(min(bound.min(), error.min()), 1e-5), min(max(bound.max(), error.max()), 1e3)]
    axis.loglog(ends, ends, color="black", lw=0.8)
    axis.axvline(float(surrogate.error.tolerance), color="black", lw=0.8, ls=":")
    axis.set(xlabel="bound of the relative L2 error", ylabel="relative L2 error")
    axis.legend(fontsize=8)
    _save(run, figure, "bound")


def draw_slices(run: Run, case: TrainingCase, surrogate: PodSurrogate) -> None:
    """The model at the prior's medians, by the PDE, by the surrogate, and their difference."""
    days = (case.days[1], case.days[-1])
    truth = np.asarray(simulate(case.model, case.schedule, days, case.solver, estimate_error=False).states.density)
    ours = np.asarray(surrogate(case.model, case.schedule, days).states.density)
    height = int(np.argmax(truth[-1].sum(axis=(0, 1))))
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots(2, 3)
    for row, day in enumerate(days):
        shown = (truth[row], ours[row], ours[row] - truth[row])
        for axis, field, title in zip(axes[row], shown, ("PDE", "reduced", "difference x 20"), strict=True):
            factor = 20.0 if title.startswith("difference") else 1.0
            limits = {"vmin": -1.0, "vmax": 1.0, "cmap": "RdBu_r"} if factor > 1 else {"vmin": 0.0, "vmax": 1.0}
            axis.imshow(np.rot90(factor * field[:, :, height]), **limits)
            axis.set(title=f"{title}, day {day:g}", xticks=[], yticks=[])
    _save(run, figure, "slices")


def _save(run: Run, figure: Any, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=110, format="png")
