"""From features at a landmark to the probability of a relapse: a Bayesian logistic regression, and a threshold.

$$ \\mathrm{logit}\\,p = a + \\sum_k b_k z_k,\\qquad a \\sim N(0, 3^2),\\; b_k \\sim N(0, 1.5^2) $$

with features z in training standard deviations. The posterior by Laplace, the probability its mean over it
(Gauss-Hermite). Many fits that differ in their cases are made at once.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

PRIOR_SD_INTERCEPT, PRIOR_SD_SLOPE = 3.0, 1.5
NEWTON, CLOSE = 40, 1e-9
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(21)


def _fits(
    design: Float[np.ndarray, "case column"], event: Bool[np.ndarray, " case"], used: Float[np.ndarray, "fit case"]
) -> tuple[Float[np.ndarray, "fit column"], Float[np.ndarray, "fit column column"]]:
    """Mode and covariance of the coefficients of every fit."""
    precision = np.diag(np.r_[PRIOR_SD_INTERCEPT**-2, np.full(design.shape[1] - 1, PRIOR_SD_SLOPE**-2)])
    beta, curvature = np.zeros((len(used), design.shape[1])), np.broadcast_to(precision, (len(used), *precision.shape))
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    for _ in range(NEWTON):
        fitted = 1.0 / (1.0 + np.exp(-beta @ design.T))
        gradient = (used * (event - fitted)) @ design - beta @ precision
        curvature = (used * fitted * (1.0 - fitted)) @ squares + precision.ravel()
        curvature = curvature.reshape(len(used), *precision.shape)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        if np.abs(step).max() < CLOSE:
            break
        # A step of more than two logits a standard deviation is cut: Newton then cannot overshoot the concave summit.
        beta = beta + step / np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True) / 2.0)
    return beta, np.linalg.inv(curvature)


def _design(features: np.ndarray, training: np.ndarray) -> np.ndarray:
    """An intercept, and features in standard deviations of the training cases."""
    own = features[training]
    spread = own.std(axis=0)
    scaled = (features - own.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return np.concatenate([np.ones((len(features), 1)), scaled], axis=1)


def _probability(design: np.ndarray, beta: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Posterior mean of the probability of each case: design [case, column], beta and covariance of its fit [case]."""
    middle = np.sum(design * beta, axis=1)
    sd = np.sqrt(np.einsum("ci,cij,cj->c", design, covariance, design))
    logits = middle[:, None] + sd[:, None] * NODES
    return (1.0 / (1.0 + np.exp(-logits))) @ (WEIGHTS / WEIGHTS.sum())


def called(
    features: Float[np.ndarray, "case feature"],
    event: Bool[np.ndarray, " case"],
    subject: Int[np.ndarray, " case"],
    training: Bool[np.ndarray, " case"],
) -> tuple[Float[np.ndarray, " case"], float]:
    """Probabilities of all cases from a fit to the `training` ones, and the threshold that those choose.

    The threshold has the largest sensitivity + specificity (Youden) on the training cases, each patient's called by a
    fit to the other training patients; it lies half-way between two probabilities. Events of cases that are not in
    training are not read.
    """
    event = event & training
    design = _design(features, training)
    patients = np.unique(subject[training])
    inner = training & (subject != patients[:, None])
    beta, covariance = _fits(design, event, np.concatenate([inner, training[None]]).astype(float))
    whole = np.full(len(features), len(patients))
    probability = _probability(design, beta[whole], covariance[whole])
    rows = np.flatnonzero(training)
    own = np.searchsorted(patients, subject[rows])
    return probability, youden(_probability(design[rows], beta[own], covariance[own]), event[rows])


def youden(probability: Float[np.ndarray, " case"], event: Bool[np.ndarray, " case"]) -> float:
    """The threshold of largest sensitivity + specificity; the highest of equals. 1/2 where one kind is absent."""
    if not event.any() or event.all():
        return 0.5
    levels = np.unique(probability)
    edges = np.r_[levels[0] / 2, (levels[1:] + levels[:-1]) / 2]
    above = probability >= edges[:, None]
    gain = (above & event).sum(axis=1) / event.sum() - (above & ~event).sum(axis=1) / (~event).sum()
    return float(edges[np.flatnonzero(gain == gain.max())[-1]])
