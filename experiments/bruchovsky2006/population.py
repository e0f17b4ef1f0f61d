"""How patients differ, and what one patient's readings add: empirical Bayes by the Laplace approximation.

$$ \\theta_i \\sim N(\\mu, \\Omega),\\quad y_i \\sim p(y \\mid \\theta_i);\\qquad
   \\hat\\theta_i = \\arg\\max \\log p(y_i \\mid \\theta) + \\log N(\\theta; \\mu, \\Omega),\\quad
   C_i = \\big(-\\nabla^2\\big)^{-1} $$

$$ \\mu = \\frac{\\mu_0 + \\sum_i \\hat\\theta_i}{1 + n},\\quad
   \\Omega = \\frac{\\nu_0\\Omega_0 + (\\mu - \\mu_0)(\\mu - \\mu_0)^T
   + \\sum_i \\big[(\\hat\\theta_i - \\mu)(\\hat\\theta_i - \\mu)^T + C_i\\big]}{\\nu_0 + 1 + n} $$

and again until mu and Omega stay. The population counts as one patient for the mean and `PSEUDO` for the covariance
before any is seen, which keeps small cohorts proper. The sums let go of one patient at no cost.

References: Lindstrom & Bates, Biometrics 46 (1990) 673; Beal & Sheiner, NONMEM users guide (Laplace estimation); Gelman
et al., Bayesian Data Analysis (2013), ch. 3.6 (normal-inverse-Wishart).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.bruchovsky2006.psa import PARAMETERS, Course, log_likelihood, scaled

PSEUDO = float(len(PARAMETERS) + 2)  # patients that the prior covariance counts for
NEWTON = 40  # most steps to a mode
FEW = 6  # steps from a mode of a population nearby
FLAT, STUCK = 1e-5, 1e6  # gradient in prior sd that ends a search; damping that ends it without
ROUNDS, CLOSE = 60, 1e-3  # most rounds of a population; the change of mu, in sd between patients, that ends them


class Population(eqx.Module):
    """Mean and covariance of the parameters over patients, on the scale of `psa.scaled`."""

    mean: Float[Array, "*fold parameter"]
    covariance: Float[Array, "*fold parameter parameter"]


class Individuals(eqx.Module):
    """Mode and covariance of every row's parameters; `evidence`: log of the marginal likelihood (Laplace); `gradient`:
    what is left at the mode, in prior sd (near 0)."""

    mode: Float[Array, "row parameter"]
    covariance: Float[Array, "row parameter parameter"]
    evidence: Float[Array, " row"]
    gradient: Float[Array, " row"]


class _Step(eqx.Module):
    """The best point so far, what is known there, and how careful the next step is."""

    unit: Array
    value: Array
    gradient: Array
    hessian: Array
    damping: Array


def before_any() -> Population:
    """The population before any patient is seen."""
    mean = jnp.asarray([scaled(name, value) for name, value, _ in PARAMETERS])
    return Population(mean, jnp.diag(jnp.asarray([sd**2 for _, _, sd in PARAMETERS])))


@eqx.filter_jit
def individuals(
    courses: Course, population: Population, start: Float[Array, "row parameter"], steps: int | Array = NEWTON
) -> Individuals:
    """The posterior of every row under the population (one for all, or one a row), by damped Newton from `start`."""
    per_row = 0 if population.mean.ndim == 2 else None
    axes = (0, Population(per_row, per_row), 0)  # type: ignore[arg-type]
    return jax.vmap(lambda c, p, s: _one(c, p, s, steps), in_axes=axes)(courses, population, start)


def _one(course: Course, population: Population, start: Array, steps: int | Array) -> Individuals:
    """In the population's own units, where the prior is standard normal."""
    factor = jnp.linalg.cholesky(population.covariance)

    def cost(unit: Array) -> Array:
        value = 0.5 * jnp.sum(unit**2) - log_likelihood(population.mean + factor @ unit, course)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    def step(best: _Step) -> _Step:
        values, vectors = jnp.linalg.eigh(best.hessian)
        curvature = jnp.maximum(jnp.abs(values), 1.0) + best.damping
        there = best.unit - vectors @ ((vectors.T @ best.gradient) / curvature)
        value, gradient = jax.value_and_grad(cost)(there)
        better = value <= best.value
        softer, harder = best.damping / 10.0, 10.0 * best.damping + 1.0
        tried = _Step(there, value, gradient, jax.hessian(cost)(there), softer)
        kept = eqx.tree_at(lambda s: s.damping, best, harder)
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), tried, kept)

    begin = jax.scipy.linalg.solve_triangular(factor, start - population.mean, lower=True)
    # The first step goes nowhere: it is there to look.
    blind = _Step(begin, jnp.asarray(jnp.inf), jnp.zeros_like(begin), jnp.eye(begin.size), jnp.zeros(()))

    def going(count_and_best: tuple[Array, _Step]) -> Array:
        count, best = count_and_best
        # At a kink (a switch that passes a reading) no step helps, and the damping says so.
        moving = (jnp.linalg.norm(best.gradient) > FLAT) & (best.damping < STUCK)
        return (count == 0) | ((count <= steps) & moving)

    _, best = jax.lax.while_loop(going, lambda s: (s[0] + 1, step(s[1])), (jnp.asarray(0), blind))
    values, vectors = jnp.linalg.eigh(best.hessian)
    # A direction in which the readings say less than nothing (a saddle) is left to the prior.
    curvature = jnp.maximum(values, 1.0)
    spread = factor @ (vectors / jnp.sqrt(curvature)[None])
    mode, left = population.mean + factor @ best.unit, jnp.linalg.norm(best.gradient)
    return Individuals(mode, spread @ spread.T, -best.value - 0.5 * jnp.sum(jnp.log(curvature)), left)


@eqx.filter_jit
def population_of(found: Individuals, weights: Float[Array, " row"]) -> Population:
    """The population of the rows with weight 1 (0: left out)."""
    prior = before_any()
    mean = (prior.mean + weights @ found.mode) / (1.0 + jnp.sum(weights))
    off = found.mode - mean[None]
    scatter = jnp.einsum("i,ij,ik->jk", weights, off, off) + jnp.einsum("i,ijk->jk", weights, found.covariance)
    pull = jnp.outer(mean - prior.mean, mean - prior.mean)
    return Population(mean, (PSEUDO * prior.covariance + pull + scatter) / (PSEUDO + 1.0 + jnp.sum(weights)))


@dataclasses.dataclass(frozen=True)
class Fit:
    """A population, its patients, and its last change in sd between patients."""

    population: Population
    found: Individuals
    change: float


def fit(courses: Course, weights: np.ndarray, begin: Fit | None = None, rounds: int = ROUNDS) -> Fit:
    """The population of the rows with weight 1, from scratch or from that of other weights.

    Rows of weight 0 are carried along (their posterior under this population), and do not touch it.
    """
    population = before_any() if begin is None else begin.population
    rows = courses.until.shape[0]
    start = jnp.broadcast_to(population.mean, (rows, len(PARAMETERS))) if begin is None else begin.found.mode
    found, steps, change = None, NEWTON if begin is None else FEW, np.inf
    for _ in range(rounds):
        found = individuals(courses, population, start, jnp.asarray(steps))
        moved = population_of(found, jnp.asarray(weights, float))
        sd = jnp.sqrt(jnp.diagonal(population.covariance))
        shift = jnp.abs(moved.mean - population.mean) / sd
        widened = jnp.abs(jnp.log(jnp.diagonal(moved.covariance)) - 2.0 * jnp.log(sd))
        change = float(jnp.maximum(shift.max(), widened.max()))
        population, start, steps = moved, found.mode, FEW
        if change < CLOSE:
            break
    assert found is not None
    return Fit(population, found, change)
