"""The posterior of a grid in seconds, so that it is refitted without each arm.

The joint mode of what is shared and of every animal, a Gaussian about it, and the spread between animals by
expectation-maximization; without a spread between animals, draws about the mode weighted by the exact density."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from tumortwin.inference import PopulationProblem, pareto_smooth

ROUNDS, WARM_ROUNDS = 4, 1  # of the spread between animals
LEAST_SPREAD = 0.02  # of the log parameters
LEAST_CURVATURE = 0.1  # of the prior's
ITERATIONS, WARM_ITERATIONS = 150, 60
BETWEEN = "between."
PROPOSALS, DEGREES = 20_000, 5.0  # draws about the mode that are weighted; of Student's t


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """`heads` [draw, parameter]: draws of what is shared, in the coordinates of the prior; `z`, the joint mode, and
    the `covariance` about it; `log_evidence` by Laplace's formula, or by the weights; `gradient`, the largest that is
    left there; `k_hat` of the weights, not a number where there are none."""

    problem: PopulationProblem
    heads: Float[np.ndarray, "draw parameter"]
    z: Float[np.ndarray, " parameter"]
    covariance: Float[np.ndarray, "parameter parameter"]
    log_evidence: float
    gradient: float
    k_hat: float = np.nan

    def values(self) -> dict[str, np.ndarray]:
        """Path -> [draw]."""
        return {path: np.asarray(v) for path, v in _constrained(self.problem, jnp.asarray(self.heads)).items()}

    def new_animals(self, key: Array) -> dict[str, np.ndarray]:
        """The model's parameters of one animal a draw that was never measured: path -> [draw]."""
        return {p: np.asarray(v) for p, v in _new(self.problem, jnp.asarray(self.heads), key).items()}


@eqx.filter_jit
def _constrained(problem: PopulationProblem, heads: Array) -> Mapping[str, Array]:
    return jax.vmap(problem.prior.constrain)(heads)


@eqx.filter_jit
def _new(problem: PopulationProblem, heads: Array, key: Array) -> Mapping[str, Array]:
    def one(head: Array, k: Array) -> Mapping[str, Array]:
        return {p: v[0] for p, v in problem.new_subjects(problem.prior.constrain(head), 1, key=k).items()}

    return jax.vmap(one)(heads, jax.random.split(key, heads.shape[0]))


def fitted(
    problem: PopulationProblem, draws: int, *, start: Population | None = None, rng: np.random.Generator
) -> Population:
    """Mode, curvature and `draws`. Every effect must be non-centered (standard normal beforehand).

    The spread between animals stays where it is while the mode is sought (a joint mode would run to a spread of 0),
    then takes the value at which the effects have variance one, `omega^2 <- omega^2 mean(eta^2 + var eta)`.

    Without effects of animals the unknowns are few: draws of Student's t about the mode are weighted by the density
    (Pareto-smoothed) and drawn again, so that nothing is Gaussian.

    **Limits:** with effects a Gaussian in all but the spread, whose own uncertainty is that of a standard deviation of
    so many animals (for convenience).

    **Reference:** Lindstrom & Bates, Biometrics 46 (1990) 673; Dempster, Laird & Rubin, J. R. Stat. Soc. B 39 (1977).
    """
    size, effects = problem.prior.size, len(problem.effects)
    z = np.zeros(problem.size) if start is None else start.z
    covariance = None if start is None else start.covariance
    spreads = [problem.prior.names.index(BETWEEN + path) for path in problem.effects]
    free = np.setdiff1d(np.arange(problem.size), spreads)
    for _ in range(ROUNDS if start is None else WARM_ROUNDS):
        z, value = _mode(problem, z, free, covariance)
        covariance = _covariance(problem, z, free)
        z = _with_spread(problem, z, spreads, covariance[size:, size:], effects)
    z, value = _mode(problem, z, free, covariance)
    covariance = _covariance(problem, z, free)
    used = np.asarray(problem.data.valid).any(axis=1).sum()
    covariance[spreads, spreads] = _spread_variance(problem, z, spreads, int(used))
    gradient = float(np.abs(np.asarray(_value_and_slope(problem, jnp.asarray(z))[1])[free]).max())
    if not effects:
        heads, evidence, k_hat = reweighted(problem, z, covariance, draws, rng)
        return Population(problem, heads, z, covariance, evidence, gradient, k_hat)
    head = z[:size] + rng.standard_normal((draws, size)) @ np.linalg.cholesky(covariance[:size, :size]).T
    _, sign_log = np.linalg.slogdet(covariance[np.ix_(free, free)])
    evidence = -value + 0.5 * (sign_log + free.size * np.log(2.0 * np.pi))
    return Population(problem, head, z, covariance, float(evidence), gradient)


def reweighted(
    problem: PopulationProblem, z: np.ndarray, covariance: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, float, float]:
    """`(draws, log evidence, k-hat)`: Student's t about the mode `z`, weighted by the density, drawn again and mixed.

    **Reference:** Vehtari, Simpson, Gelman, Yao & Gabry, JMLR 25(72) (2024).
    """
    factor, size = np.linalg.cholesky(covariance), z.size
    scale = np.sqrt(rng.chisquare(DEGREES, PROPOSALS) / DEGREES)
    away = rng.standard_normal((PROPOSALS, size)) / scale[:, None]
    proposed = z + away @ factor.T
    student = multivariate_t(shape=np.eye(size), df=DEGREES)  # pyright: ignore[reportArgumentType]
    log_proposal = student.logpdf(away) - np.log(np.diagonal(factor)).sum()
    log_ratio = np.asarray(_log_densities(problem, jnp.asarray(proposed))) - log_proposal
    weights, k_hat = pareto_smooth(log_ratio)
    ends = np.cumsum(np.exp(weights))
    chosen = np.searchsorted(ends / ends[-1], (np.arange(draws) + rng.uniform()) / draws)
    return proposed[rng.permutation(chosen)], float(logsumexp(log_ratio) - np.log(PROPOSALS)), k_hat


@eqx.filter_jit
def _log_densities(problem: PopulationProblem, z: Array) -> Array:
    return jax.vmap(problem.log_density)(z)


@eqx.filter_jit
def _value_and_slope(problem: PopulationProblem, z: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda x: -problem.log_density(x))(z)


def _mode(
    problem: PopulationProblem, z: np.ndarray, free: np.ndarray, covariance: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """The mode in the `free` entries, sought in the coordinates in which an earlier `covariance` is the identity."""
    size = free.size
    factor = np.eye(size) if covariance is None else np.linalg.cholesky(covariance[np.ix_(free, free)])

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        whole = z.copy()
        whole[free] = z[free] + factor @ x
        value, slope = _value_and_slope(problem, jnp.asarray(whole))
        return min(float(value), 1e12), factor.T @ np.nan_to_num(np.asarray(slope, dtype=float)[free])

    options = {"maxiter": ITERATIONS if covariance is None else WARM_ITERATIONS, "maxcor": 30, "ftol": 1e-10}
    found = minimize(function, np.zeros(size), jac=True, method="L-BFGS-B", options=options)
    best = z.copy()
    best[free] = z[free] + factor @ found.x
    return best, float(found.fun)


@eqx.filter_jit
def _hessian(problem: PopulationProblem, z: Array) -> Array:
    slope = jax.grad(lambda x: -problem.log_density(x))
    return jax.lax.map(lambda v: jax.jvp(slope, (z,), (v,))[1], jnp.eye(z.size), batch_size=32)


def _covariance(problem: PopulationProblem, z: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Inverse curvature of the free entries (no curvature below a tenth of the prior's), 0 of the others."""
    found = np.asarray(_hessian(problem, jnp.asarray(z)))[np.ix_(free, free)]
    values, vectors = np.linalg.eigh(0.5 * (found + found.T))
    whole = np.zeros((z.size, z.size))
    whole[np.ix_(free, free)] = (vectors / np.maximum(values, LEAST_CURVATURE)) @ vectors.T
    return whole


def _with_spread(
    problem: PopulationProblem, z: np.ndarray, spreads: list[int], covariance: np.ndarray, effects: int
) -> np.ndarray:
    """One step of the spread; animals without a reading say nothing."""
    if not effects:
        return z
    size = problem.prior.size
    used = np.asarray(problem.data.valid).any(axis=1)
    second = (z[size:] ** 2 + np.diagonal(covariance)).reshape(-1, effects)[used].mean(axis=0)
    values = problem.prior.constrain(jnp.asarray(z[:size]))
    for k, path in enumerate(problem.effects):
        spread = max(float(values[BETWEEN + path]) * np.sqrt(second[k]), LEAST_SPREAD)
        values = {**values, BETWEEN + path: jnp.asarray(spread)}
    moved = z.copy()
    moved[spreads] = np.asarray(problem.prior.unconstrain(values))[spreads]
    return moved


def _spread_variance(problem: PopulationProblem, z: np.ndarray, spreads: list[int], used: int) -> np.ndarray:
    """Variance, in the coordinates of the prior, of a log spread known to 1 / sqrt(2 n)."""
    found = []
    for k in spreads:
        away = z[: problem.prior.size] + 1e-4 * (np.arange(problem.prior.size) == k)
        name = problem.prior.names[k]
        here, there = (
            float(jnp.log(problem.prior.constrain(jnp.asarray(x))[name])) for x in (z[: problem.prior.size], away)
        )
        found.append(1.0 / (2.0 * max(used, 1)) / ((there - here) / 1e-4) ** 2)
    return np.array(found)
