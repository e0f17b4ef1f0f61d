"""Two pictures: a cohort that is known better with each scan, and a field that is followed."""

import jax.numpy as jnp
import numpy as np

from experiments.sequential.cohort import ASKED, SCANS, Course
from experiments.sequential.field import SCALE, SHAPE, SPAN, FieldCase
from tumortwin.inference import Filtered
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_cohort(run: Run, courses: list[Course], width: np.ndarray, error: np.ndarray) -> None:
    """Width and error of the forecast by the number of scans, all patients and their median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    scans = np.arange(1, width.shape[1] + 1)
    labels = (f"width of 95 % for day {ASKED:g}, log volume", "error of the median, log volume")
    for axis, values, label in zip(figure.subplots(1, 2), (width, error), labels, strict=True):
        axis.plot(scans, values.T, color=GRAY, lw=0.5, alpha=0.6)
        axis.plot(scans, np.median(values, axis=0), color=BLUE, lw=2.5, label=f"median of {len(courses)} patients")
        axis.set_xticks(scans, [f"{k}\n{day:g}" for k, day in zip(scans, SCANS, strict=True)])
        axis.set(xlabel="scans assimilated; day of the last", ylabel=label, yscale="log")
        axis.legend(fontsize=8)
    _save(run, figure, "cohort")


def draw_field(run: Run, given: FieldCase, found: Filtered, error: np.ndarray, alone: np.ndarray) -> None:
    """The middle slice at the last scan, and the error by scan."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, field, title in zip(axes, (given.truth[-1], found.mean[-1]), ("truth", "filter"), strict=False):
        density = np.asarray(SCALE.from_scale(jnp.asarray(field[:-2]))).reshape(SHAPE)
        picture = axis.imshow(density[:, :, SHAPE[2] // 2].T, origin="lower", vmin=0, vmax=1, cmap="magma")
        axis.set_title(f"{title}, day {SPAN * len(error):g}", fontsize=9)
        axis.set_axis_off()
    figure.colorbar(picture, ax=axes[1], label="density")
    days = SPAN * np.arange(1, len(error) + 1)
    axes[2].plot(days, alone, "o-", color=GRAY, label="no data")
    axes[2].plot(days, error, "o-", color=BLUE, label="filter")
    axes[2].set(xlabel="day", ylabel="error of the density", ylim=(0, None))
    axes[2].legend(fontsize=8)
    _save(run, figure, "field")
