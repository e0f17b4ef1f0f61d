"""The posteriors of one held-out data set of each twin: NUTS, the network, the network corrected."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import gaussian_kde

from experiments.amortised.study import BANK, CORRECTED, NUTS, PLAIN, Case, Compared
from tumortwin.runs import Run

COLORS = {NUTS: "#000000", PLAIN: "#d9791a", CORRECTED: "#1f6fb2", BANK: "#8a8a8a"}
POINTS = 200


def draw_posteriors(run: Run, shown: Mapping[str, tuple[Case, Compared]]) -> None:
    """Marginal densities in the coordinates of the prior (0 +- 1 where the data say nothing)."""
    from matplotlib.figure import Figure

    columns = max(case.base.size for case, _ in shown.values())
    figure = Figure(figsize=(2.6 * columns, 2.3 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), columns, squeeze=False)
    for row, (name, (case, found)) in zip(axes, shown.items(), strict=True):
        for k, axis in enumerate(row):
            if k >= case.base.size:
                axis.set_visible(False)
                continue
            path = case.base.names[k]
            every = np.concatenate([draws[:, k] for draws in found.draws.values()])
            at = np.linspace(every.min(), every.max(), POINTS)
            for kind, draws in found.draws.items():
                axis.plot(
                    at, gaussian_kde(draws[:, k])(at), color=COLORS[kind], lw=2 if kind == NUTS else 1, label=kind
                )
            axis.set_title(f"{name}: {case.short.get(path, path).replace('_', ' ')}", fontsize=8)
            axis.set_yticks([])
            axis.tick_params(labelsize=7)
    axes[-1, 0].legend(fontsize=7)
    figure.supxlabel("coordinate of the prior [prior sd]", fontsize=9)
    with run.writing("figures", "posteriors.png") as path:
        figure.savefig(path, dpi=130, format="png")
