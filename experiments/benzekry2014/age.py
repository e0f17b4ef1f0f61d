"""How old is a tumor of which three late volumes are known, and whose first day is not?"""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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
OLDEST, STEP = 90.0, 0.25  # [day] of the grid of ages; flat prior
DRAWS, ANIMALS = 300, 150  # of what is common; new animals of each


@dataclasses.dataclass(frozen=True)
class Age:
    """The truth and what was found [day]: posterior median and central 95 % interval; `k_hat` of leaving it out."""

    truth: float
    median: float
    low: float
    high: float
    k_hat: float
    refitted: bool

    @property
    def error(self) -> float:
        """|a^ - a| / a."""
        return abs(self.median - self.truth) / self.truth

    @property
    def covered(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.truth <= self.high


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
        mass = age_posterior(
            using,
            shared,
            jnp.asarray(weights),
            jnp.asarray(volumes),
            jnp.asarray(days - days[0]),
            jax.random.fold_in(key, 2000 + i),
        )
        found.append(_summary(float(days[0]), np.asarray(mass), k_hat))
        advance()
    return found


def grid() -> np.ndarray:
    """The ages that are considered [day]."""
    return np.arange(STEP, OLDEST + STEP / 2, STEP)


@eqx.filter_jit
def age_posterior(
    problem: PopulationProblem,
    values: dict[str, Array],
    log_weights: Float[Array, " draw"],
    volumes: Float[Array, " time"],
    gaps: Float[Array, " time"],
    key: Array,
) -> Float[Array, " age"]:
    """Posterior mass of every age on the grid, what is common and the animal's own parameters integrated out.

    $$ p(a \\mid v) \\propto \\sum_s w_s \\frac1K \\sum_k
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
    total = jax.scipy.special.logsumexp(by_draw + log_weights[:, None], axis=0)
    return jax.nn.softmax(total)


def _summary(truth: float, mass: np.ndarray, k_hat: float) -> Age:
    cumulative = np.cumsum(mass)
    low, median, high = (float(np.interp(level, cumulative, grid())) for level in (0.025, 0.5, 0.975))
    return Age(truth, median, low, high, k_hat, k_hat > LARGEST_K_HAT)


def mean_age_errors(table: Table) -> np.ndarray:
    """The baseline: the mean of the others' ages at the first of their last three measurements."""
    rows = table.padded()
    truth = np.asarray([rows.times[i][rows.valid[i]][-KNOWN] for i in range(len(rows.subjects))])
    others = (truth.sum() - truth) / (truth.size - 1)
    return np.abs(others - truth) / truth
