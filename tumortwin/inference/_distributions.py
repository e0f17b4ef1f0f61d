"""Prior distributions that the field uses and NumPyro does not name."""

import math

from numpyro.distributions import Distribution, LogNormal, TransformedDistribution, TruncatedNormal, constraints
from numpyro.distributions.transforms import ExpTransform


def log_normal(median: float, log_sd: float) -> Distribution:
    """A log-normal by its median, in the parameter's own unit.

    $$ \\log x \\sim N(\\log m, s^2) $$

    **Arguments:** `median` m > 0; `log_sd` s > 0 [1]: a factor of e^s either way.

    **Raises:** `ValueError` unless both are positive.
    """
    if not (median > 0.0 and log_sd > 0.0):
        raise ValueError(f"required: median > 0 and log_sd > 0; received: median {median}, log_sd {log_sd}")
    return LogNormal(math.log(median), log_sd)


def truncated_log_normal(median: float, log_sd: float, low: float, high: float) -> Distribution:
    """A log-normal cut off at `low` and `high`, whose support says so.

    $$ \\log x \\sim N(\\log m, s^2) \\text{ on } [\\log a, \\log b] $$

    The upper end of a diffusivity's prior is what the static number of solver stages is chosen from: a diffusivity
    beyond it would be unstable.

    **Arguments:** `median` m before truncation; `log_sd` s [1]; `low` a, `high` b, in the unit of m.

    **Raises:** `ValueError` unless 0 < low < median < high and log_sd > 0.

    **Good values:** log_sd 0.5 is a factor of 1.65 either way.
    """
    if not (0.0 < low < median < high and log_sd > 0.0):
        raise ValueError(
            f"required: 0 < low < median < high and log_sd > 0; received: low {low}, median {median}, high {high}, "
            f"log_sd {log_sd}"
        )
    ends = math.log(low), math.log(high)
    base = TruncatedNormal(math.log(median), log_sd, low=ends[0], high=ends[1])
    return TransformedDistribution(base, ExpTransform(domain=constraints.interval(*ends)))
