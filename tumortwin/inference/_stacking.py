"""Several models, one forecast: weights that predict unseen data best."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize

from tumortwin.inference._leave_one_out import LeaveOneOut
from tumortwin.inference._pareto import LARGEST_K_HAT

_TOLERANCE = 1e-14
_GAP = 1e-5  # of the mean log density, by which the optimum may be missed


@dataclasses.dataclass(frozen=True)
class Stacking:
    """`weights` by model, sum 1; `elpd`: leave-one-out log predictive density of the mixture, in all; `unreliable`:
    share of points with a k-hat above .7, by model."""

    weights: dict[str, float]
    elpd: float
    unreliable: dict[str, float]


def stacking_weights(scores: Mapping[str, LeaveOneOut]) -> Stacking:
    """The mixture of models with the best leave-one-out predictive density.

    $$ \\max_{w \\ge 0,\\; \\sum w_k = 1} \\; \\sum_i \\log \\sum_k w_k\\, p(y_i \\mid y_{-i}, M_k) $$

    a concave problem. Unlike the posterior probabilities of models, the weights do not run to one model as data grow
    when none of them is true, and two models that say the same share one weight. The optimum is verified: with
    `g_k` the mean of `p_k / sum_j w_j p_j`, no model could add more than `max g_k - 1` to the mean log density.

    **Arguments:** `scores`: by model, of the same points in the same order.

    **Raises:** `ValueError` for fewer than two models, or scores of different numbers of points.

    **Limits:** the weights have the sampling error of the points; do not read them as probabilities of a model.

    Reference: Yao, Vehtari, Simpson & Gelman (2018), Bayesian Anal. 13:917.
    """
    sizes = {name: score.elpd.size for name, score in scores.items()}
    if len(scores) < 2 or len(set(sizes.values())) != 1:
        raise ValueError(f"required: two or more models scored on the same points; received: {sizes}")
    elpd = np.stack([score.elpd for score in scores.values()], axis=1)
    top = elpd.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():
        raise ValueError("required: a finite score of every point under some model; received: a point without")
    density = np.exp(elpd - top)
    weights = _best(density)
    mixed = float(np.sum(np.log(density @ weights)) + top.sum())
    shaky = {name: float(np.mean(score.k_hat > LARGEST_K_HAT)) for name, score in scores.items()}
    return Stacking(dict(zip(scores, map(float, weights), strict=True)), mixed, shaky)


def _best(density: np.ndarray) -> np.ndarray:
    """The optimum over the simplex: a few steps of EM for a start inside it, then sequential quadratic programming."""
    weights = np.full(density.shape[1], 1.0 / density.shape[1])
    for _ in range(50):
        weights = weights * np.mean(density / (density @ weights)[:, None], axis=0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.maximum(density @ w, np.finfo(float).tiny)
        return -float(np.mean(np.log(mixed))), -np.mean(density / mixed[:, None], axis=0)

    found = minimize(
        loss,
        weights,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * weights.size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": _TOLERANCE, "maxiter": 1000},
    )
    best = np.clip(found.x, 0.0, None)
    best = best / best.sum()
    gap = float(np.max(np.mean(density / (density @ best)[:, None], axis=0)) - 1.0)
    if not gap < _GAP:
        raise RuntimeError(f"required: the optimum within {_GAP:g}; received: {gap:g} ({found.message})")
    return best
