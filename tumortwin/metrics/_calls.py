"""Scores of a probability of a yes-or-no event: ranking, sharpness, and whether it means what it says."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats


def auc(probability: Float[np.ndarray, " case"], event: Bool[np.ndarray, " case"]) -> float:
    """Probability that a case with the event is ranked above one without; ties count half. NaN when one kind is absent.

    $$ AUC = \\frac{\\sum_{i: y_i = 1} \\mathrm{rank}_i - n_1 (n_1 + 1) / 2}{n_1 n_0} $$

    **Limits:** pooled over folds that leave one subject out it is too low for a forecast that knows little: without a
    subject with the event the others have fewer events, and its probability is lowered.

    **Reference:** Hanley and McNeil, Radiology 143 (1982) 29; Airola et al., Comput. Stat. Data Anal. 55 (2011) 1828.
    """
    positive = int(event.sum())
    if positive in (0, event.size):
        return float("nan")
    ranks = stats.rankdata(probability)
    return float((ranks[event].sum() - positive * (positive + 1) / 2) / (positive * (event.size - positive)))


def brier(probability: Float[np.ndarray, " case"], event: Bool[np.ndarray, " case"]) -> float:
    """Mean of (p - y)^2: 0 is perfect, p (1 - p) is what the prevalence p alone gives.

    **Reference:** Brier, Mon. Weather Rev. 78 (1950) 1.
    """
    return float(np.mean((probability - event) ** 2))


def spiegelhalter(probability: Float[np.ndarray, " case"], event: Bool[np.ndarray, " case"]) -> float:
    """Spiegelhalter's z: standard normal if every event happens with the probability that was stated for it.

    $$ z = \\frac{\\sum_i (y_i - p_i)(1 - 2 p_i)}{\\sqrt{\\sum_i (1 - 2 p_i)^2 p_i (1 - p_i)}} $$

    Beyond +-1.96 calibration is refused at the 5 % level. **Limits:** cases are taken as independent; p = 1/2
    throughout cannot be tested (NaN).

    **Reference:** Spiegelhalter, Stat. Med. 5 (1986) 421.
    """
    weight = 1.0 - 2.0 * probability
    spread = np.sum(weight**2 * probability * (1.0 - probability))
    return float(np.sum((event - probability) * weight) / np.sqrt(spread)) if spread > 0.0 else float("nan")


@dataclasses.dataclass(frozen=True)
class Recalibration:
    """`logit P(y = 1) = intercept + slope logit p`, with standard errors: 0 and 1 where calibrated."""

    intercept: float
    intercept_error: float
    slope: float
    slope_error: float


def recalibration(probability: Float[np.ndarray, " case"], event: Bool[np.ndarray, " case"]) -> Recalibration:
    """Intercept and slope by maximum likelihood, fitted together.

    **Raises:** `ValueError` where the events are separated by the probability, or absent: no finite slope exists.

    **Reference:** Cox, Biometrika 45 (1958) 562; Van Calster et al., BMC Med. 17 (2019) 230.
    """
    design = np.stack([np.ones_like(probability), np.log(probability) - np.log1p(-probability)], axis=1)
    beta, information = np.asarray([0.0, 1.0]), np.eye(2)
    for _ in range(100):
        fitted = 1.0 / (1.0 + np.exp(-design @ beta))
        information = (design * (fitted * (1.0 - fitted))[:, None]).T @ design
        if not np.linalg.cond(information) < 1e12:
            break
        step = np.linalg.solve(information, design.T @ (event - fitted))
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            errors = np.sqrt(np.diag(np.linalg.inv(information)))
            return Recalibration(*(float(x) for x in (beta[0], errors[0], beta[1], errors[1])))
    raise ValueError(
        f"required: events and non-events that the probability does not separate; received: {int(event.sum())} events "
        f"of {event.size}; try: more cases, or Spiegelhalter's z, which needs no slope"
    )


@dataclasses.dataclass(frozen=True)
class AucDifference:
    """AUC of a forecaster minus that of another on the same cases, with a bootstrap interval over subjects; `used`:
    resamples that held both kinds of case."""

    difference: float
    low: float
    high: float
    used: int


def auc_difference(
    probability: Float[np.ndarray, " case"],
    other: Float[np.ndarray, " case"],
    event: Bool[np.ndarray, " case"],
    subject: Int[np.ndarray, " case"],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> AucDifference:
    """Subjects are drawn with replacement, all their cases with them: cases of one subject are not independent.

    **Limits:** percentile interval; the forecasters are not fitted again, so the interval is that of the cases only.
    """
    rows = [np.flatnonzero(subject == s) for s in np.unique(subject)]
    found = []
    for _ in range(resamples):
        drawn = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        gap = auc(probability[drawn], event[drawn]) - auc(other[drawn], event[drawn])
        if np.isfinite(gap):
            found.append(gap)
    ends = [0.5 - confidence / 2, 0.5 + confidence / 2]
    low, high = np.quantile(found, ends) if found else (np.nan, np.nan)
    gap = auc(probability, event) - auc(other, event)
    return AucDifference(gap, float(low), float(high), len(found))
