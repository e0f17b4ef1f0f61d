"""What the data alone can tell, the prior set aside: profile likelihood and Fisher information."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import stats
from scipy.optimize import minimize

from tumortwin.inference._identifiability import Identifiability, identifiability_report
from tumortwin.inference._linearize import compiled_linearization
from tumortwin.inference._problem import Problem

# A direction is called unidentified when the data say less of it than a prior of unit spread does.
LEAST_INFORMATION = 1.0
_LOADING = 0.3  # of the largest, from which a parameter is named


@dataclasses.dataclass(frozen=True)
class Profile:
    """The largest log-likelihood at each of `values` of one parameter, less the largest of all [point].

    `low`, `high`: where the drop reaches half the chi-squared quantile (1.92 for 95 %); infinite where it does not
    reach it within the range.
    """

    name: str
    values: Float[np.ndarray, " point"]
    log_likelihood: Float[np.ndarray, " point"]
    low: float
    high: float

    @property
    def identified(self) -> bool:
        """Whether the data bound the parameter on both sides, within the range that was looked at."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def statement(self) -> str:
        """In words."""
        if self.identified:
            return f"{self.name}: {self.low:.3g} to {self.high:.3g} by the data alone."
        open_ends = [end for end, at in (("below", self.low), ("above", self.high)) if not np.isfinite(at)]
        return (
            f"{self.name} is not identified: its profile does not fall {' nor '.join(open_ends)} within "
            f"{self.values.min():.3g} to {self.values.max():.3g}; whatever a posterior says there is the prior's."
        )


def profile_likelihood(
    problem: Problem, name: str, values: Sequence[float] | np.ndarray, start: Float[np.ndarray, " parameter"],
    *, level: float = 0.95,
) -> Profile:  # fmt: skip
    """The likelihood of one parameter, all others at their best for each value.

    $$ \\ell_p(\\theta) = \\max_{\\psi}\\, \\log p(y \\mid \\theta, \\psi), \\qquad
       CI = \\left\\{\\theta : \\ell_p(\\theta) \\ge \\max \\ell - \\tfrac12 \\chi^2_1(level)\\right\\} $$

    A flat profile is a parameter that the data do not fix (structurally), one that falls on one side only a parameter
    they do not fix well enough (practically). The prior enters through its support alone.

    **Arguments:** `name`: one of `problem.names`, a scalar; `values`: increasing, in the parameter's unit, wide of the
    estimate on both sides; `start`: `z` of the estimate, such as `posterior.info["map_z"]`. Each maximum starts from
    its neighbor's, outward from the value nearest to the estimate. Needs a `solve` with reverse-mode derivatives.

    **Good values:** 15-30 values over four or more posterior standard deviations.

    **Limits:** a local maximum of the others is taken for the global one (for convenience).

    Reference: Raue et al. (2009), Bioinformatics 25:1923.
    """
    points = np.asarray(values, dtype=float)
    if name not in problem.names or problem.prior.shapes.get(name) != () or (np.diff(points) <= 0).any():
        raise ValueError(
            f"required: a scalar among {', '.join(problem.names)} and increasing values; received: {name!r}"
        )
    index = problem.names.index(name)
    there = problem.constrain(jnp.asarray(start))
    fixed = [float(problem.prior.unconstrain({**there, name: jnp.asarray(v)})[index]) for v in points]
    nearest = int(np.argmin(np.abs(np.asarray(fixed) - float(start[index]))))
    found, rest = np.zeros(points.size), {}
    for order in (range(nearest, points.size), range(nearest - 1, -1, -1)):
        others = rest.get(nearest, np.delete(np.asarray(start, dtype=float), index))
        for i in order:
            others, found[i] = _maximized(problem, index, fixed[i], others)
            rest[i] = others
    best = max(float(found.max()), _maximized_all(problem, np.asarray(start, dtype=float)))
    drop = found - best
    limit = -0.5 * float(stats.chi2.ppf(level, 1))
    return Profile(name, points, drop, _crossing(points, drop, limit, -1), _crossing(points, drop, limit, 1))


@dataclasses.dataclass(frozen=True)
class FisherInformation:
    """The information of the data in the coordinates `z` of a problem (prior spread 1) and what follows from it.

    `standard_errors`: Cramer-Rao, infinite where nothing is known; `eigenvalues` ascending and their `directions`
    [direction, parameter]; `unidentified`: for each direction of too little information, the parameters that share it.
    """

    names: tuple[str, ...]
    information: Float[np.ndarray, "parameter parameter"]
    standard_errors: Float[np.ndarray, " parameter"]
    eigenvalues: Float[np.ndarray, " parameter"]
    directions: Float[np.ndarray, "parameter parameter"]
    unidentified: tuple[tuple[str, ...], ...]


def fisher_information(
    problem: Problem, z: Float[np.ndarray, " parameter"], *, least: float = LEAST_INFORMATION
) -> FisherInformation:
    """Expected information of the data at `z`, and the combinations of parameters of which they say too little.

    $$ F = \\sum_k J_k^T W_k J_k = \\sum_i \\lambda_i v_i v_i^T, \\qquad \\lambda_i < \\mathrm{least}:\\;
       v_i \\text{ is unidentified} $$

    `z` is in units of the prior, so that `lambda` is what the data are worth in priors: at 1 they halve the variance.
    A direction that several parameters share is a combination the data cannot split.

    Reference: Rothenberg (1971), Econometrica 39:577; Gutenkunst et al. (2007), PLOS Comput. Biol. 3:e189 (sloppiness).
    """
    information = np.asarray(compiled_linearization(problem, jnp.asarray(z)).information)
    eigenvalues, vectors = np.linalg.eigh(information)
    positive = eigenvalues > np.finfo(float).eps * max(float(eigenvalues[-1]), 1.0) * len(eigenvalues)
    squares = vectors**2
    variance = squares[:, positive] @ (1.0 / eigenvalues[positive])
    lost = squares[:, ~positive].sum(axis=1) > np.sqrt(np.finfo(float).eps)
    shared = tuple(
        tuple(n for n, size in zip(problem.names, np.abs(v), strict=True) if size >= _LOADING * np.abs(v).max())
        for value, v in zip(eigenvalues, vectors.T, strict=True)
        if value < least
    )
    return FisherInformation(
        problem.names, information, np.where(lost, np.inf, np.sqrt(variance)), eigenvalues, vectors.T, shared
    )


def fisher_identifiability(problem: Problem, z: Float[np.ndarray, " parameter"]) -> Identifiability:
    """`identifiability_report` of the information and the prior's curvature at `z`: in words, before any sampling."""
    found = compiled_linearization(problem, jnp.asarray(z))
    return identifiability_report(problem, np.asarray(z), np.asarray(found.information), np.asarray(found.curvature))


@eqx.filter_jit
def _loss(problem: Problem, z: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda point: -problem.log_likelihood(problem.constrain(point)))(z)


def _maximized(problem: Problem, index: int, at: float, others: np.ndarray) -> tuple[np.ndarray, float]:
    """The best of the others with entry `index` held, and the log-likelihood there."""

    def loss(rest: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _loss(problem, jnp.asarray(np.insert(rest, index, at)))
        return float(value), np.delete(np.asarray(slope), index)

    if others.size == 0:
        return others, -loss(others)[0]
    found = minimize(loss, others, jac=True, method="BFGS")
    return found.x, -float(found.fun)


def _maximized_all(problem: Problem, start: np.ndarray) -> float:
    found = minimize(lambda z: tuple(map(np.asarray, _loss(problem, jnp.asarray(z)))), start, jac=True, method="BFGS")
    return -float(found.fun)


def _crossing(values: np.ndarray, drop: np.ndarray, limit: float, side: int) -> float:
    """Where the profile falls through `limit` on one side of its top, linear between points; else infinite."""
    top = int(np.argmax(drop))
    inward = np.arange(top, values.size) if side > 0 else np.arange(top, -1, -1)
    for a, b in zip(inward[:-1], inward[1:], strict=True):
        if drop[b] < limit:
            share = (limit - drop[a]) / (drop[b] - drop[a])
            return float(values[a] + share * (values[b] - values[a]))
    return side * np.inf
