"""What the model would have us see, before the data and after them, beside what was seen."""

import dataclasses
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference._calibrate import child_key
from tumortwin.inference._population import PopulationProblem
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._prior import Values

Statistic = Callable[[np.ndarray], float]
LEAST_PLAUSIBLE = 0.8


def posterior_predictive(
    problem: PopulationProblem, posterior: Posterior, n: int, *, key: Array
) -> Float[np.ndarray, "draw subject time"]:
    """New measurements of the same subjects on the same days, from `n` draws of the posterior; NaN for padding."""
    values = posterior.resample(n, key=child_key(key, "draws"))
    return np.asarray(_replicated(problem, {p: jnp.asarray(v) for p, v in values.items()}, child_key(key, "noise")))


def prior_predictive(problem: PopulationProblem, n: int, *, key: Array) -> Float[np.ndarray, "draw subject time"]:
    """Measurements of such subjects on those days, from `n` draws of the prior; NaN for padding."""
    drawn = problem.prior_draws(n, key=child_key(key, "draws"))
    values = {path: jnp.asarray(value[0]) for path, value in drawn.items()}
    return np.asarray(_replicated(problem, values, child_key(key, "noise")))


@eqx.filter_jit
def _replicated(problem: PopulationProblem, values: Values, key: Array) -> Array:
    def one(given: tuple[Values, Array]) -> Array:
        drawn, noise_key = given
        curve = problem.curve(drawn)
        seen = problem.error(drawn).noise(jnp.where(problem.data.valid > 0, curve, 1.0)).sample(noise_key)
        return jnp.where(problem.data.valid > 0, seen, jnp.nan)

    n = next(iter(values.values())).shape[0]
    return jax.lax.map(one, (values, jax.random.split(key, n)))


@dataclasses.dataclass(frozen=True)
class PredictiveCheck:
    """A statistic of the data, its central 95 % interval over replications, and the two-sided tail probability."""

    observed: float
    low: float
    high: float
    p_value: float


def predictive_check(
    observed: np.ndarray, replicated: Float[np.ndarray, "draw ..."], statistics: Mapping[str, Statistic]
) -> dict[str, PredictiveCheck]:
    """Statistics of the data beside those of data that the fitted model makes, by name.

    $$ p = 2 \\min\\left(P(T(y^{rep}) \\ge T(y)),\\; P(T(y^{rep}) \\le T(y))\\right) $$

    at most 1. Where p is small the model cannot make data like these in that respect. Choose statistics that no
    parameter fits directly (the largest value, the share below a limit, the lag-one correlation of residuals): the data
    are used twice, so p is conservative, and that of a fitted mean is near 1 whatever the model.

    **Arguments:** `statistics`: name -> function of one data set, NaN where there is no measurement.

    **Raises:** `ValueError` for replications of another shape than the data.

    Reference: Gelman, Meng & Stern (1996), Stat. Sin. 6:733.
    """
    if replicated.shape[1:] != observed.shape:
        raise ValueError(f"required: replications [draw, *{observed.shape}]; received: {replicated.shape}")
    found = {}
    for name, statistic in statistics.items():
        there, made = float(statistic(observed)), np.asarray([statistic(one) for one in replicated])
        low, high = np.quantile(made, [0.025, 0.975])
        tail = 2.0 * min(float(np.mean(made >= there)), float(np.mean(made <= there)))
        found[name] = PredictiveCheck(there, float(low), float(high), min(tail, 1.0))
    return found


@dataclasses.dataclass(frozen=True)
class Plausibility:
    """How much of what the prior expects could be: shares `inside`, `below`, `above` the possible range and not finite
    (`failed`), the central 95 % of the finite values, and whether enough of it is inside."""

    inside: float
    below: float
    above: float
    failed: float
    central: tuple[float, float]
    plausible: bool

    @property
    def statement(self) -> str:
        """In words."""
        end = "" if self.plausible else " Tighten the priors until it is: data that are few would be outvoted."
        return (
            f"Of what the prior expects {self.inside:.0%} could be ({self.below:.0%} too small, {self.above:.0%} too "
            f"large, {self.failed:.0%} no number); 95 % lie in {self.central[0]:.3g} to {self.central[1]:.3g}.{end}"
        )


def prior_plausibility(sample: np.ndarray, low: float, high: float, *, least: float = LEAST_PLAUSIBLE) -> Plausibility:
    """Whether a prior expects what could be seen at all.

    **Arguments:** `sample`: of the prior predictive distribution of a quantity, of any shape (leave padding out first);
    `low`, `high`: what is physically possible (a mouse's tumor weighs less than the mouse), not what is expected, and
    never read off the data; `least`: share that must be inside.

    **Good values:** least .8 for priors that should inform, .5 for vague ones.

    Reference: Gabry, Simpson, Vehtari, Betancourt & Gelman (2019), J. R. Stat. Soc. A 182:389.
    """
    values = np.ravel(np.asarray(sample, dtype=float))
    if values.size == 0 or not low < high:
        raise ValueError(f"required: draws, and low < high; received: {values.size} draws, {low} and {high}")
    finite = values[np.isfinite(values)]
    failed = 1.0 - finite.size / values.size
    below, above = float(np.sum(finite < low)) / values.size, float(np.sum(finite > high)) / values.size
    inside = 1.0 - failed - below - above
    ends = np.quantile(finite, [0.025, 0.975]) if finite.size else np.full(2, np.nan)
    return Plausibility(inside, below, above, failed, (float(ends[0]), float(ends[1])), inside >= least)
