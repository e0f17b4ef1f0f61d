"""How well a model predicts a measurement, or a subject, that it has not seen: leave-one-out without refitting."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference._pareto import pareto_smooth
from tumortwin.inference._population import SUBJECT, PopulationProblem
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._student import student_draws, student_log_density

DEGREES = 5.0
WIDER = 1.5
_JITTER = 1e-10


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """`elpd` [point]: log predictive density of what is left out (a subject, a measurement) given all the rest;
    `k_hat` [point]."""

    elpd: Float[np.ndarray, " point"]
    k_hat: Float[np.ndarray, " point"]

    @property
    def total(self) -> float:
        """Sum over points."""
        return float(self.elpd.sum())

    def difference(self, other: "LeaveOneOut") -> tuple[float, float]:
        """Total of this minus total of the other, and its standard error over points."""
        gap = self.elpd - other.elpd
        return float(gap.sum()), float(gap.std(ddof=1) * np.sqrt(gap.size))


def leave_one_subject_out(
    problem: PopulationProblem, posterior: Posterior, *, draws: int = 500, points: int = 400, key: Array
) -> LeaveOneOut:
    """Expected log predictive density of new subjects, the effects integrated out.

    $$ \\mathrm{elpd}_i = \\log \\int p(y_i \\mid \\phi)\\, p(\\phi \\mid y_{-i})\\, d\\phi, \\qquad
       p(y_i \\mid \\phi) = \\int p(y_i \\mid \\theta_i, \\phi)\\, p(\\theta_i \\mid \\phi)\\, d\\theta_i $$

    `phi` is what is common. The inner integral by importance sampling from a Student-t around the subject's own
    posterior (the same points for every draw of `phi`), the outer one by Pareto-smoothed importance sampling with the
    ratios `1 / p(y_i | phi)`.

    It is the *marginal* predictive density that ranks models of new subjects: with the effects kept, a model that has
    more of them is hardly ever worse.

    **Good values:** draws 500, points 400; a `k_hat` above .7 asks for a refit without the subject.

    Reference: Vehtari, Gelman & Gabry (2017), Stat. Comput. 27:1413; Merkle, Furr & Rabe-Hesketh (2019), Psychometrika
    84:802 (marginal against conditional).
    """
    pick_key, t_key = jax.random.split(key)
    values = posterior.resample(draws, key=pick_key)
    marginal = np.asarray(
        marginal_log_likelihoods(problem, {p: jnp.asarray(v) for p, v in values.items()}, points, t_key)
    )
    return pareto_leave_one_out(marginal)


def pareto_leave_one_out(
    log_likelihoods: Float[np.ndarray, "draw point"], log_weights: Float[np.ndarray, " draw"] | None = None
) -> LeaveOneOut:
    """Leave-one-out from the pointwise log-likelihoods of posterior draws: no refit.

    $$ \\mathrm{elpd}_i = \\log \\sum_s \\tilde w_{is}\\, p(y_i \\mid \\theta_s), \\qquad
       \\tilde w_{is} \\propto w_s / p(y_i \\mid \\theta_s) \\text{ Pareto-smoothed} $$

    A point may be a measurement or all that was measured of a subject, whatever a column stands for: it is what would
    be unseen. **Arguments:** `log_weights`: of the draws, where they are not equal.

    **Good values:** 1000 draws or more; a `k_hat` above .7 asks for a refit without the point.

    Reference: Vehtari, Gelman & Gabry (2017), Stat. Comput. 27:1413.
    """
    own = np.zeros(len(log_likelihoods)) if log_weights is None else np.asarray(log_weights)
    found, shapes = [], []
    for column in np.asarray(log_likelihoods).T:
        weights, k_hat = pareto_smooth(own - column)
        found.append(np.logaddexp.reduce(weights + column))
        shapes.append(k_hat)
    return LeaveOneOut(np.asarray(found), np.asarray(shapes))


def leave_one_measurement_out(
    problem: PopulationProblem, posterior: Posterior, *, draws: int = 1000, key: Array
) -> LeaveOneOut:
    """Expected log predictive density of every measurement given all the others, those of its own subject included.

    The points are the valid measurements, subject after subject: how well the model fills a gap in a known subject, not
    how well it predicts a new one (`leave_one_subject_out`).
    """
    values = {path: jnp.asarray(value) for path, value in posterior.resample(draws, key=key).items()}
    found = np.asarray(_pointwise(problem, values))
    return pareto_leave_one_out(found[:, np.asarray(problem.data.valid) > 0])


@eqx.filter_jit
def _pointwise(problem: PopulationProblem, values: Mapping[str, Array]) -> Float[Array, "draw subject time"]:
    return jax.lax.map(problem.log_likelihoods, dict(values))


def marginal_log_likelihoods(
    problem: PopulationProblem, values: Mapping[str, Array], points: int, key: Array
) -> Float[Array, "draw subject"]:
    """`log p(y_i | phi)` of every draw of `values` [draw ...] and subject, the effects integrated out.

    A point at which the model fails counts as impossible.
    """
    proposed, log_proposal = _around(np.asarray(_scaled(problem, values)), points, key)
    effects = {SUBJECT + path for path in problem.effects}
    common = {path: value for path, value in values.items() if path not in effects}
    return _marginal(problem, common, jnp.asarray(proposed), jnp.asarray(log_proposal))


def _around(scaled: np.ndarray, points: int, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Points about the draws `scaled` [draw, subject, effect] of every subject, and their log density under the
    proposal: [point, subject, effect] and [point, subject]."""
    proposed, log_proposal = [], []
    for i, own in enumerate(np.moveaxis(scaled, 1, 0)):
        covariance = np.atleast_2d(np.cov(own.T)) + _JITTER * np.eye(own.shape[1])
        mean, factor = own.mean(axis=0), WIDER * np.linalg.cholesky(covariance)
        proposed.append(student_draws(mean, factor, DEGREES, points, key=jax.random.fold_in(key, i)))
        log_proposal.append(student_log_density(proposed[-1], mean, factor, DEGREES))
    return np.stack(proposed, axis=1), np.stack(log_proposal, axis=1)


@eqx.filter_jit
def _scaled(problem: PopulationProblem, values: Mapping[str, Array]) -> Array:
    return jax.vmap(problem.scaled)(values)


@eqx.filter_jit
def _marginal(problem: PopulationProblem, common: Mapping[str, Array], proposed: Array, log_proposal: Array) -> Array:
    def of_draw(drawn: Mapping[str, Array]) -> Array:
        def of_point(point: Array) -> Array:
            there = problem.with_scaled(drawn, point)
            return jnp.sum(problem.log_likelihoods(there), axis=1) + problem.log_population(drawn, point)

        terms = jax.vmap(of_point)(proposed) - log_proposal
        terms = jnp.where(jnp.isnan(terms), -jnp.inf, terms)
        return jax.scipy.special.logsumexp(terms, axis=0) - jnp.log(proposed.shape[0])

    return jax.lax.map(of_draw, common)
