"""Agreement of predicted and measured numbers: Lin's concordance and Pearson's correlation."""

import numpy as np

MINIMUM_PAIRS = 2


def concordance(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Lin's concordance correlation coefficient, in [-1, 1].

    $$ CCC = \\frac{2 s_{xy}}{s_x^2 + s_y^2 + (\\bar x - \\bar y)^2} $$

    with moments of the sample (divisor n). Unlike a correlation it falls with a bias or a wrong scale. NaN when neither
    series varies and the means are equal (0/0), or for fewer than two pairs; 0 when one series is constant.

    **Reference:** Lin, Biometrics 45 (1989).
    """
    x, y = _pairs(predicted, measured)
    if x.size < MINIMUM_PAIRS:
        return float("nan")
    scale = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return float(2.0 * covariance / scale) if scale > 0.0 else float("nan")


def correlation(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Pearson correlation coefficient (PCC); NaN when a series does not vary or for fewer than two pairs."""
    x, y = _pairs(predicted, measured)
    if x.size < MINIMUM_PAIRS:
        return float("nan")
    scale = np.sqrt(x.var() * y.var())
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return float(covariance / scale) if scale > 0.0 else float("nan")


def _pairs(predicted: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(predicted, dtype=float).ravel(), np.asarray(measured, dtype=float).ravel()
    if x.shape != y.shape:
        raise ValueError(f"required: as many predictions as measurements; received: {x.size} and {y.size}")
    return x, y
