"""Three pictures: who is ranked where, whether a probability means what it says, and some patients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from experiments.bruchovsky2006.cycles import QUANTIFICATION, Landmarks, records_of
from experiments.bruchovsky2006.folds import Calls, noise_of
from experiments.bruchovsky2006.psa import COURSE, Course, courses_of, curve_of
from experiments.bruchovsky2006.scores import Scored
from tumortwin.io import Table
from tumortwin.metrics import wilson
from tumortwin.runs import Run

BLUE, ORANGE, GRAY, GREEN = "#1f6fb2", "#d9791a", "#8a8a8a", "#3a8f4d"
SHOWN = {"mechanism": BLUE, "logistic": ORANGE, "both": GREEN, "nadir_only": GRAY}
TITLES = {"next": "relapse in the next cycle", "ever": "relapse ever, from the first off-phase"}
GROUPS, PATIENTS, POINTS = 4, 6, 160


def _save(run: Run, figure: object, name: str) -> None:
    with run.writing("figures", f"{name}.png") as path:
        figure.savefig(path, dpi=130, format="png")  # type: ignore[attr-defined]


def draw_roc(run: Run, tables: dict[str, Scored]) -> None:
    """Sensitivity against 1 - specificity over all thresholds; the dot is the threshold chosen inside the folds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axis, (name, one) in zip(np.ravel(figure.subplots(1, len(tables))), tables.items(), strict=True):
        for forecaster, color in SHOWN.items():
            order = np.argsort(-one.probability[forecaster], kind="stable")
            hit, miss = np.cumsum(one.event[order]), np.cumsum(~one.event[order])
            last = np.r_[np.diff(one.probability[forecaster][order]) != 0, True]  # ties: one step
            x, y = np.r_[0, miss[last] / miss[-1]], np.r_[0, hit[last] / hit[-1]]
            label = f"{forecaster.replace('_', ' ')}, AUC {one.auc(forecaster):.2f}"
            axis.plot(x, y, color=color, lw=1.4, label=label)
            called = one.called[forecaster]
            axis.plot(called[~one.event].mean(), called[one.event].mean(), "o", color=color, ms=5)
        axis.plot([0, 1], [0, 1], color="k", lw=0.6, ls=":", label="prevalence")
        axis.set_title(f"{TITLES[name]} ({one.event.sum()} of {len(one.event)})", fontsize=10)
        axis.set_xlabel("1 - specificity")
        axis.legend(fontsize=8, loc="lower right")
    figure.axes[0].set_ylabel("sensitivity")
    _save(run, figure, "roc")


def draw_calibration(run: Run, tables: dict[str, Scored]) -> None:
    """Observed share of relapses (95 % Wilson) against the stated one, in groups of equal size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axis, (name, one) in zip(np.ravel(figure.subplots(1, len(tables))), tables.items(), strict=True):
        for shift, (forecaster, color) in enumerate((("mechanism", BLUE), ("logistic", ORANGE))):
            groups = np.array_split(np.argsort(one.probability[forecaster], kind="stable"), GROUPS)
            stated = np.asarray([one.probability[forecaster][g].mean() for g in groups if g.size])
            shares = [wilson(int(one.event[g].sum()), g.size) for g in groups if g.size]
            value = np.asarray([s.value for s in shares])
            reach = np.abs([[s.value - s.low for s in shares], [s.high - s.value for s in shares]])
            axis.errorbar(stated + 0.003 * shift, value, yerr=reach, fmt="o", color=color, ms=4, label=forecaster)
        axis.plot([0, 1], [0, 1], color="k", lw=0.6, ls=":")
        axis.set_xlim(-0.02, 0.7)
        axis.set_ylim(-0.02, 0.8)
        axis.set_title(TITLES[name], fontsize=10)
        axis.set_xlabel("stated probability (mean of a group)")
        axis.legend(fontsize=8)
    figure.axes[0].set_ylabel("share that relapsed (95 % Wilson)")
    _save(run, figure, "calibration")


@eqx.filter_jit
def _curves(course: Course, drawn: jax.Array, days: jax.Array) -> jax.Array:
    return jax.vmap(lambda parameters: curve_of(parameters, course, days))(drawn)


def draw_patients(run: Run, table: Table, landmarks: Landmarks, calls: Calls) -> None:
    """Last landmark of some patients, half of them relapsing: what was known, the forecast of a course, what came."""
    from matplotlib.figure import Figure

    last = np.flatnonzero(landmarks.judged & (np.diff(landmarks.patient, append=-1) != 0))
    relapse, other = last[landmarks.relapses[last]], last[~landmarks.ever[last] & ~landmarks.metastasis[last]]
    cases = np.r_[relapse[: PATIENTS // 2], other[: PATIENTS // 2]]
    records, known, noise = records_of(table), courses_of(landmarks.known), noise_of(run.key("figure"))
    figure = Figure(figsize=(11, 2.6 * -(-len(cases) // 3)), layout="constrained")
    axes = np.ravel(figure.subplots(-(-len(cases) // 3), 3, sharey=True, squeeze=False))
    for axis, case in zip(axes, cases, strict=False):
        row, day = landmarks.patient[case], landmarks.day[case]
        course = jax.tree.map(lambda x, case=case: x[case], known)
        # The forecast is that of a course that begins on the landmark: an on-switch is put there.
        free = int(np.isfinite(landmarks.known.switches[case]).sum())
        switches = np.r_[landmarks.known.switches[case], np.inf]
        switches[free] = day
        course = eqx.tree_at(lambda c: c.switches, course, jnp.asarray(switches))
        drawn = calls.parameters[case] + np.asarray(noise) @ np.linalg.cholesky(calls.spreads[case]).T
        days = np.linspace(0.0, day + COURSE, POINTS)
        low, middle, high = np.quantile(
            np.asarray(_curves(course, jnp.asarray(drawn), jnp.asarray(days))), [0.025, 0.5, 0.975], axis=0
        )
        past = days <= day
        for part, color in ((past, BLUE), (~past, ORANGE)):
            axis.fill_between(days[part], low[part], high[part], color=color, alpha=0.25, lw=0)
            axis.plot(days[part], middle[part], color=color, lw=1.1)
        seen = records.valid[row]
        axis.plot(records.times[row][seen], records.upper[row][seen], "k.", ms=3)
        axis.axvline(day, color=GRAY, lw=0.8)
        axis.axhline(QUANTIFICATION, color=GRAY, lw=0.5, ls=":")
        axis.set_yscale("log")
        axis.set_ylim(0.05, 100.0)
        said = "relapse" if landmarks.relapses[case] else "no relapse"
        chance = calls.probability["mechanism"][case]
        axis.set_title(f"{table.subjects[row]}: p = {chance:.2f}, then {said}", fontsize=8)
    for axis in axes[len(cases) :]:
        axis.set_visible(False)
    figure.supylabel("PSA [ng/mL] (band: 95 % of the curve; dots below the dotted line: not quantified)", fontsize=8)
    figure.supxlabel("days since the first treatment (orange: forecast of a course from the landmark on)", fontsize=9)
    _save(run, figure, "patients")
