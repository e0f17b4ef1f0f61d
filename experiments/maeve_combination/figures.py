"""Two pictures: volumes of every arm with the model's band, and the probability of harm over the two doses."""

import jax.numpy as jnp
import numpy as np

from experiments.maeve_combination.plan import CHANCE, grid_of, harm_probabilities
from experiments.maeve_combination.population import Population
from experiments.maeve_combination.record import Animals
from tumortwin.inference._population import with_subjects
from tumortwin.runs import Run

BLUE, ORANGE = "#1f6fb2", "#d9791a"
LAST = 63.0


def draw_arms(run: Run, animals: Animals, volume: Population) -> None:
    """Lines: animals, as recorded; band: 80 % of new animals under the model that saw all arms."""
    from matplotlib.figure import Figure

    rows, columns = (sorted({a[j] for a in animals.arms}) for j in (0, 1))
    figure = Figure(figsize=(2.6 * len(columns), 2.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    drawn = {p: jnp.asarray(v) for p, v in volume.new_animals(run.key("figure")).items()}
    model, days = with_subjects(volume.problem.model, drawn), np.linspace(0.0, LAST, 64)
    count = volume.heads.shape[0]
    start = jnp.full(count, float(np.median(animals.first)))
    for k, (a, b) in enumerate(animals.arms):
        axis = axes[rows.index(a), columns.index(b)]
        curve = np.asarray(model.volume(jnp.asarray(days)[None, :], start, jnp.full(count, a), jnp.full(count, b)))
        low, middle, high = np.quantile(curve, [0.1, 0.5, 0.9], axis=0)
        axis.fill_between(days, low, high, color=BLUE, alpha=0.25, lw=0)
        axis.plot(days, middle, color=BLUE, lw=1)
        for i in np.flatnonzero(animals.arm == k):
            seen = animals.valid[i] & (animals.days[i] <= LAST)
            axis.plot(
                np.append(0.0, animals.days[i][seen]),
                np.append(animals.first[i], animals.volume[i][seen]),
                "k-",
                lw=0.6,
            )
        axis.set_yscale("log")
        axis.set_ylim(8, 5000)
        axis.set_title(f"{animals.drugs[0]} {a:g}, {animals.drugs[1]} {b:g}", fontsize=7)
        axis.tick_params(labelsize=6)
    figure.supxlabel("day", fontsize=9)
    figure.supylabel("volume, mm$^3$ (16 or 32: too small to measure)", fontsize=9)
    with run.writing("figures", "arms.png") as path:
        figure.savefig(path, dpi=130, format="png")


def draw_harm(run: Run, animals: Animals, weight: Population, pairs: dict[str, tuple[float, float]]) -> None:
    """P(weight loss > 15 %) over the doses, the limit, and the pairs that were chosen."""
    from matplotlib.figure import Figure

    first, second = (grid_of(each) for each in animals.levels)
    values = {p.removeprefix("typical."): v for p, v in weight.values().items()}
    mean = np.array([[harm_probabilities(weight.problem.model, values, (a, b)).mean() for b in second] for a in first])
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    shown = axis.contourf(second, first, mean, levels=np.linspace(0, 1, 11), cmap="Blues")
    figure.colorbar(shown, label="P(weight loss > 15 %)")
    if mean.min() < CHANCE < mean.max():
        axis.contour(second, first, mean, levels=[CHANCE], colors=ORANGE)
    for name, (a, b) in pairs.items():
        axis.plot(b, a, "o", color=ORANGE, ms=5)
        axis.annotate(name, (b, a), fontsize=7, xytext=(4, 4), textcoords="offset points")
    axis.set_xlabel(f"{animals.drugs[1]}, mg/kg")
    axis.set_ylabel(f"{animals.drugs[0]}, mg/kg")
    with run.writing("figures", "harm.png") as path:
        figure.savefig(path, dpi=130, format="png")
