"""How old is a tumor of which three late volumes are known, and whose first day is not?"""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import stats

from experiments.benzekry2014.laws import Law, problem_of
from tumortwin.inference import (
    LARGEST_K_HAT,
    NutsCalibrator,
    PopulationProblem,
    Posterior,
    calibrate,
    marginal_log_likelihoods,
    pareto_smooth,
    with_subjects,
)
from tumortwin.io import Table
from tumortwin.solvers import simulate_compartment

KNOWN = 3  # volumes
OLDEST, STEP = 90.0, 0.25  # [day] of the grid of ages
DRAWS, ANIMALS = 300, 150  # of what is common; new animals of each


@dataclasses.dataclass(frozen=True)
class Answer:
    """One posterior of an age [day]: the `estimate` that minimizes the expected relative error, central 95 %."""

    estimate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Age:
    """The truth [day] and two answers: under the ages of the other animals as a prior (what the baseline knows as
    well), and under a flat prior; `k_hat` of leaving the animal out."""

    truth: float
    informed: Answer
    flat: Answer
    k_hat: float
    refitted: bool

    @property
    def error(self) -> float:
        """|a^ - a| / a."""
        return abs(self.informed.estimate - self.truth) / self.truth

    @property
    def flat_error(self) -> float:
        """The same under the flat prior."""
        return abs(self.flat.estimate - self.truth) / self.truth

    @property
    def covered(self) -> bool:
        """Whether the interval holds the truth."""
        return self.informed.low <= self.truth <= self.informed.high


def ages(
    law: Law,
    table: Table,
    posterior: Posterior,
    sampler: NutsCalibrator,
    subjects: Sequence[str],
    advance: Callable[[], object],
    *,
    key: Array,
) -> list[Age]:
    """The given animals of the table, each by the population of the others.

    The posterior of all animals is weighted by `1 / p(y_i | phi)` to what it is without animal `i` (Pareto-smoothed);
    where that cannot be trusted the population is refitted without it.
    """
    problem, rows = problem_of(law, table), table.padded()
    truths = true_ages(table)
    common = posterior.resample(DRAWS, key=jax.random.fold_in(key, 0))
    values = {path: jnp.asarray(value) for path, value in common.items()}
    marginal = np.asarray(marginal_log_likelihoods(problem, values, 400, jax.random.fold_in(key, 1)))
    found = []
    for subject in subjects:
        i = table.subjects.index(subject)
        weights, k_hat = pareto_smooth(-marginal[:, i])
        without, using = values, problem
        if k_hat > LARGEST_K_HAT:
            rest = table.select([s for s in table.subjects if s != subject])
            using = problem_of(law, rest)
            refit = calibrate(using, sampler, key=jax.random.fold_in(key, 1000 + i))
            without = {p: jnp.asarray(v) for p, v in refit.resample(DRAWS, key=jax.random.fold_in(key, 2)).items()}
            weights = np.full(DRAWS, -np.log(DRAWS))
        days = rows.times[i][rows.valid[i]][-KNOWN:]
        volumes = rows.values[i][rows.valid[i]][-KNOWN:]
        shared = {p: v for p, v in without.items() if not p.startswith("subject.")}
        log_likelihood = age_log_likelihood(
            using,
            shared,
            jnp.asarray(weights),
            jnp.asarray(volumes),
            jnp.asarray(days - days[0]),
            jax.random.fold_in(key, 2000 + i),
        )
        of_others = np.delete(truths, i)
        flat = np.asarray(log_likelihood)
        informed = flat + log_prior_of(of_others)
        found.append(Age(float(days[0]), answer(informed), answer(flat), k_hat, k_hat > LARGEST_K_HAT))
        advance()
    return found


def grid() -> np.ndarray:
    """The ages that are considered [day]."""
    return np.arange(STEP, OLDEST + STEP / 2, STEP)


@eqx.filter_jit
def age_log_likelihood(
    problem: PopulationProblem,
    values: dict[str, Array],
    log_weights: Float[Array, " draw"],
    volumes: Float[Array, " time"],
    gaps: Float[Array, " time"],
    key: Array,
) -> Float[Array, " age"]:
    """Log-likelihood of every age on the grid, what is common and the animal's own parameters integrated out.

    $$ p(v \\mid a) = \\sum_s w_s \\frac1K \\sum_k
       \\prod_j p(v_j \\mid f(a + \\Delta_j; \\theta_{sk}), \\sigma_s),
       \\qquad \\theta_{sk} \\sim p(\\theta \\mid \\phi_s) $$
    """
    at = jnp.asarray(grid())
    days = (at[:, None] + gaps[None, :]).ravel()

    def of_draw(drawn: tuple[dict[str, Array], Array]) -> Array:
        common, draw_key = drawn
        animals = problem.new_subjects(common, ANIMALS, key=draw_key)
        model = with_subjects(problem.model, animals)
        curve = simulate_compartment(model, jnp.broadcast_to(days, (ANIMALS, days.size))).burden
        curve = curve.reshape(ANIMALS, at.size, gaps.size)
        term = jnp.sum(problem.error(common).log_likelihood(curve, volumes, volumes), axis=-1)
        return jax.scipy.special.logsumexp(jnp.where(jnp.isfinite(term), term, -jnp.inf), axis=0)

    by_draw = jax.lax.map(of_draw, (values, jax.random.split(key, log_weights.size)))
    return jax.scipy.special.logsumexp(by_draw + log_weights[:, None], axis=0)


def log_prior_of(ages: np.ndarray) -> np.ndarray:
    """Log density, on the grid, of the next age after `ages`: log-normal, mean and spread unknown (a Student-t in the
    logarithm under the usual flat prior of both)."""
    logs = np.log(ages)
    spread = logs.std(ddof=1) * np.sqrt(1.0 + 1.0 / logs.size)
    return stats.t.logpdf(np.log(grid()), logs.size - 1, logs.mean(), spread) - np.log(grid())


def answer(log_density: np.ndarray) -> Answer:
    """The estimate that minimizes E|a^ - a|/a, which is the median of p(a)/a, and the central 95 % of p."""
    mass = np.exp(log_density - log_density.max())

    def quantile(of: np.ndarray, level: float) -> float:
        return float(np.interp(level, np.cumsum(of) / of.sum(), grid()))

    return Answer(quantile(mass / grid(), 0.5), quantile(mass, 0.025), quantile(mass, 0.975))


def true_ages(table: Table) -> np.ndarray:
    """The day of the first of the last three measurements of every animal."""
    rows = table.padded()
    return np.asarray([rows.times[i][rows.valid[i]][-KNOWN] for i in range(len(rows.subjects))])


def mean_age_errors(table: Table) -> np.ndarray:
    """The baseline: the mean of the others' ages at the first of their last three measurements."""
    truth = true_ages(table)
    others = (truth.sum() - truth) / (truth.size - 1)
    return np.abs(others - truth) / truth
