"""How the training went, errors by part, and one tumor of the operator beside the PDE's."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.rom_glioma.figures import BLUE, ORANGE, _save
from tumortwin.inference import Fitted
from tumortwin.runs import Run
from tumortwin.surrogates import Courses, FnoSurrogate, HeldOut, course_model, course_schedule

COLORS = {"atlas": BLUE, "sri24": ORANGE, "patients": "#3a923a"}
WORDS = {"atlas": "other boxes of the atlas", "sri24": "SRI24 atlas", "patients": "patients"}


def draw_training(run: Run, fitted: Fitted) -> None:
    """Loss on training batches and on held-out anatomies, by epoch."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    epochs = 1 + np.arange(len(fitted.losses))
    axis.semilogy(epochs, fitted.losses, "o-", ms=3, color=BLUE, label="training anatomies")
    axis.semilogy(epochs, fitted.scores, "s--", ms=3, color=ORANGE, label="held-out anatomies (averaged weights)")
    axis.axvline(fitted.epoch, color="black", lw=0.8, ls=":")
    axis.set(xlabel="epoch", ylabel="mean relative L2 error")
    axis.legend(fontsize=8)
    _save(run, figure, "training")


def draw_distributions(run: Run, parts: Mapping[str, HeldOut]) -> None:
    """Distribution of the greatest relative error over the days, by part."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    for name, held in parts.items():
        error = np.sort(held.true_error[:, 1:].max(axis=1))
        axis.semilogx(error, (1 + np.arange(len(error))) / len(error), color=COLORS[name], label=WORDS[name])
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set(xlabel="relative L2 error, greatest over the days", ylabel="share of cases", ylim=(0, 1))
    axis.legend(fontsize=8)
    _save(run, figure, "errors")


def draw_slices(run: Run, surrogate: FnoSurrogate, courses: Courses) -> None:
    """The first course: its anatomy and start, the PDE, the operator, and their difference."""
    inputs = {k: jnp.asarray(v[0]) for k, v in courses.inputs.items()}
    model = course_model(surrogate.model, {p: jnp.asarray(v[0]) for p, v in courses.values.items()}, inputs)
    found = surrogate(model, course_schedule(surrogate.model, inputs), courses.days)
    start, truth, ours = courses.inputs["start"][0], courses.density[0], np.asarray(found.states.density)
    height = int(np.argmax(start.sum(axis=(0, 1))))
    white = courses.inputs["white_matter"][0][:, :, height]
    chosen = (1, len(courses.days) - 1)
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots(len(chosen), 4)
    for row, k in enumerate(chosen):
        day = courses.days[k]
        shown = (start, truth[k], ours[k], ours[k] - truth[k])
        titles = ("start", f"PDE, day {day:g}", f"operator, day {day:g}", "difference x 5")
        for axis, field, title in zip(axes[row], shown, titles, strict=True):
            wrong = title.startswith("difference")
            limits = {"vmin": -1.0, "vmax": 1.0, "cmap": "RdBu_r"} if wrong else {"vmin": 0.0, "vmax": 1.0}
            axis.imshow(np.rot90((5.0 if wrong else 1.0) * field[:, :, height]), **limits)
            axis.contour(np.rot90(white), levels=[0.5], colors="gray", linewidths=0.5)
            axis.set(title=title, xticks=[], yticks=[])
    _save(run, figure, "slices")
