"""Three pictures: the fits, the ranking of the laws, and the ages."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benzekry2014.age import Age
from tumortwin.inference import LeaveOneOut, Measurements, PopulationProblem, Posterior
from tumortwin.io import Table
from tumortwin.runs import Run

DRAWS = 100
BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_fits(run: Run, problem: PopulationProblem, posterior: Posterior, table: Table) -> None:
    """Every animal: measurements, posterior median and 95 % of the curve."""
    from matplotlib.figure import Figure

    rows = table.padded()
    last = rows.times.max()
    days = jnp.broadcast_to(jnp.linspace(1.0, last, 60), (len(rows.subjects), 60))
    blank = jnp.zeros_like(days)
    dense = Measurements(days, blank, blank, blank)
    drawn = {p: jnp.asarray(v) for p, v in posterior.resample(DRAWS, key=run.key("figure")).items()}
    curves = jax.lax.map(lambda values: problem.solve(problem.bound(values), dense), drawn)
    low, middle, high = np.quantile(np.asarray(curves), [0.025, 0.5, 0.975], axis=0)
    columns = 5
    figure = Figure(figsize=(10, 2.0 * -(-len(rows.subjects) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(rows.subjects) // columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, subject in enumerate(rows.subjects):
        valid = rows.valid[i]
        axes[i].fill_between(days[i], low[i], high[i], color=BLUE, alpha=0.25, lw=0)
        axes[i].plot(days[i], middle[i], color=BLUE, lw=1)
        axes[i].plot(rows.times[i][valid], rows.values[i][valid], "k.", ms=4)
        axes[i].set_title(f"animal {subject}", fontsize=8)
        axes[i].tick_params(labelsize=7)
    for axis in axes[len(rows.subjects) :]:
        axis.set_visible(False)
    figure.supxlabel("day after injection", fontsize=9)
    figure.supylabel("volume, mm$^3$ (line: median, band: 95 % of the curve)", fontsize=9)
    _save(run, figure, "gompertz_fits")


def draw_ranking(run: Run, scores: dict[str, LeaveOneOut], order: list[str]) -> None:
    """Difference to the best law, with one standard error over animals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.5 * len(order) + 1), layout="constrained")
    axis = figure.subplots()
    gaps = [scores[name].difference(scores[order[0]]) for name in order]
    axis.errorbar([g[0] for g in gaps], range(len(order)), xerr=[g[1] for g in gaps], fmt="o", color=BLUE)
    axis.axvline(0, color=GRAY, lw=0.8)
    axis.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
    axis.invert_yaxis()
    axis.set_xlabel("log predictive density of unseen animals, minus that of the best law [nat]")
    _save(run, figure, "ranking")


def draw_ages(run: Run, cohort: str, found: dict[str, list[Age]]) -> None:
    """Predicted against true age, with 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(found), 4.2), layout="constrained")
    for axis, (name, ages) in zip(np.ravel(figure.subplots(1, len(found), sharey=True)), found.items(), strict=True):
        truth, middle = np.asarray([a.truth for a in ages]), np.asarray([a.informed.estimate for a in ages])
        ends = [a.informed for a in ages]
        reach = np.abs(np.asarray([[e.estimate - e.low for e in ends], [e.high - e.estimate for e in ends]]))
        axis.errorbar(truth, middle, yerr=reach, fmt="o", ms=3.5, color=BLUE, ecolor=BLUE, elinewidth=0.8)
        line = [truth.min() - 1, truth.max() + 1]
        axis.plot(line, line, color=GRAY, lw=0.8)
        axis.set_title(f"{cohort}, {name.replace('_', ' ')}: {np.mean([a.error for a in ages]):.1%} off", fontsize=10)
        axis.set_xlabel("true age [day]")
    figure.axes[0].set_ylabel("age from three volumes [day], 95 % interval")
    _save(run, figure, f"ages_{cohort}")
