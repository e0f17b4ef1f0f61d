"""Three pictures: some patients with bands, PIT of both steps, and CRPS of every forecaster."""

import numpy as np

from experiments.laleh2022.study import MODEL, Cohort
from tumortwin.metrics import ReplayScores, Targets, quantile
from tumortwin.runs import Run

BLUE, ORANGE, GRAY = "#1f6fb2", "#d9791a", "#8a8a8a"
SHOWN = 12


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_patients(run: Run, cohort: Cohort, sample: np.ndarray) -> None:
    """Every so manieth patient: known and hidden diameters, median and 95 % of the forecast."""
    from matplotlib.figure import Figure

    asked = cohort.targets.asked
    people = np.flatnonzero(cohort.chosen)
    people = people[np.linspace(0, len(people) - 1, min(SHOWN, len(people))).astype(int)]
    figure = Figure(figsize=(10, 2.2 * -(-len(people) // 4)), layout="constrained")
    axes = np.ravel(figure.subplots(-(-len(people) // 4), 4, squeeze=False))
    rows = cohort.diameters
    for axis, s in zip(axes, people.tolist(), strict=False):
        cases, k = np.flatnonzero(asked.subject == s), cohort.known[s]
        seen = np.flatnonzero(rows.valid[s])
        levels = np.asarray([0.025, 0.25, 0.5, 0.75, 0.975])
        ends = np.cbrt(np.asarray([quantile(sample[c], levels) for c in cases]) / cohort.unit_volume)
        days = np.append(rows.times[s, k - 1], asked.day[cases])
        band = np.vstack([np.full(len(levels), rows.values[s, k - 1]), ends])
        axis.fill_between(days, band[:, 0], band[:, 4], color=BLUE, alpha=0.2, lw=0)
        axis.fill_between(days, band[:, 1], band[:, 3], color=BLUE, alpha=0.3, lw=0)
        axis.plot(days, band[:, 2], color=BLUE, lw=1)
        axis.plot(rows.times[s, seen[:k]], rows.values[s, seen[:k]], "k.-", ms=4, lw=0.6)
        axis.plot(rows.times[s, seen[k:]], rows.values[s, seen[k:]], "o", mfc="none", color=ORANGE, ms=5)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
    for axis in axes[len(people) :]:
        axis.set_visible(False)
    figure.supxlabel("day after the first dose", fontsize=9)
    figure.supylabel("diameter, mm (dots: known; rings: hidden; bands: 50 and 95 %)", fontsize=9)
    _save(run, figure, "patients")


def draw_pit(run: Run, targets: Targets, score: ReplayScores) -> None:
    """PIT of every step; flat if calibrated (ties count half: entries kept as they were gather in the middle)."""
    from matplotlib.figure import Figure

    steps = np.unique(targets.asked.step).tolist()
    figure = Figure(figsize=(4 * len(steps), 3), layout="constrained")
    for axis, step in zip(np.ravel(figure.subplots(1, len(steps), sharey=True)), steps, strict=True):
        axis.hist(score.pit[targets.asked.step == step], bins=20, range=(0, 1), density=True, color=BLUE, alpha=0.7)
        axis.axhline(1, color=GRAY, lw=0.8)
        axis.set_title(f"hidden reading {step}", fontsize=10)
        axis.set_xlabel("probability integral transform")
    figure.axes[0].set_ylabel("density")
    _save(run, figure, "pit")


def draw_crps(run: Run, scores: dict[str, dict[str, ReplayScores]], scales: dict[str, str]) -> None:
    """Mean CRPS of every forecaster on both scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axis, (scale, of_scale) in zip(figure.subplots(1, len(scores)), scores.items(), strict=True):
        order = sorted(of_scale, key=lambda name, of=of_scale: -of[name].crps.mean())
        colors = [BLUE if name == MODEL else GRAY for name in order]
        axis.barh(
            [name.replace("_", " ") for name in order], [of_scale[name].crps.mean() for name in order], color=colors
        )
        axis.set_xlabel(f"mean CRPS of the {scales[scale]} (lower is better)", fontsize=9)
        axis.tick_params(labelsize=8)
    _save(run, figure, "crps")
