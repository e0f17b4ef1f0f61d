"""Pareto-smoothed importance sampling from the Laplace approximation: forward solves only."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin._chunks import in_chunks
from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, state_key
from tumortwin.inference._identifiability import identifiability_of_draws
from tumortwin.inference._laplace import LaplaceCalibrator, constrained_draws
from tumortwin.inference._pareto import LARGEST_K_HAT, effective_draws, pareto_smooth
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._prior import prior_draws
from tumortwin.inference._problem import AbstractProblem, Problem, log_density_batch
from tumortwin.inference._student import mixture_log_density, refitted, student_draws

# Few enough that the calls, several at a time, end together.
DRAWS_A_CALL = 13
# After a refit, the largest move of a mean (in sds) or an sd (relative) by the last third of the draws that counts as
# none.
LARGEST_MOVE = 0.1


class PsisCalibrator(AbstractCalibrator):
    """Draws from a Student-t about the MAP, weighted by posterior over proposal, the weights Pareto-smoothed.

    $$ z_s \\sim q, \\qquad w_s \\propto p(z_s) / q(z_s), \\qquad
       q = \\sum_j \\frac{n_j}{N}\\, t_\\nu(m_j, \\Sigma_j) $$

    The first proposal is the Laplace approximation. When k-hat >= .7 or the effective sample size is below
    `least_effective`, a further proposal is fitted to the weighted sample (`refitted`) and `batch` more draws are
    taken; all draws are then weighted against the mixture of all proposals, so none is lost. Once a proposal has been
    refitted, k-hat alone is no proof (it cannot see what no draw has reached): the last third of the draws must also
    leave the moments where they were. After `rounds` it stops as it is, with `sample_reliable` 0 among the diagnostics.

    **Arguments:** `batch` draws a round, `chunk` of them a step (each solved one after another, `lax.map`); `degrees`
    of freedom `nu`, at least as many as there are parameters: the radius of a t of few degrees in many dimensions
    spreads over far more than the posterior's shell, and most draws are wasted (of a normal target's draws in 28
    dimensions 59 % are effective with 7 degrees, 74 % with 14, 86 % with 28).

    **Good values:** batch 250: what a batch teaches serves the next (three at least, where one cannot have
    `least_effective`); degrees 5-10; rounds 32. One forward solve a draw.

    **Limits:** (mathematical) neither k-hat nor settled moments see what no proposal reaches. A ridge that is bent
    (b + 0.3 a^2 known) among ten or more other parameters is called reliable while sd(a) is a third too small; with the
    two alone it is right within a fifth or called unreliable. NUTS that agrees is better evidence.

    Reference: Vehtari et al. (2024), JMLR 25(72); Cornuet et al. (2012), Scand. J. Stat. 39:798 (adaptive multiple
    importance sampling).
    """

    laplace: LaplaceCalibrator = LaplaceCalibrator()
    batch: int = 250
    chunk: int = 125
    degrees: float = 7.0
    rounds: int = 32
    least_effective: float = 400.0
    largest_k_hat: float = LARGEST_K_HAT

    def __check_init__(self) -> None:
        if self.batch % self.chunk or self.degrees <= 2:
            raise ValueError(
                "required: a batch that is a multiple of chunk, degrees > 2; "
                f"received: {self.batch}, {self.chunk}, {self.degrees}"
            )

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        return self.laplace.init(problem, key=key)

    def step(self, problem: Problem, state: State) -> State:
        """A step of the Laplace stage, or one chunk of draws; the last of a batch also judges the sample."""
        if not self.laplace.terminate(problem, state):
            state = self.laplace.step(problem, state)
            return self._first_proposal(state) if self.laplace.terminate(problem, state) else state
        current = problem.with_weights(jnp.asarray(state["weights"]))
        drawn = state["draws"].shape[0]
        key = jax.random.fold_in(child_key(state_key(state), "importance"), drawn // self.chunk)
        z = student_draws(state["means"][-1], state["factors"][-1], self._degrees(state), self.chunk, key=key)
        target = np.asarray(in_chunks(lambda rows: log_density_batch(current, rows), z, DRAWS_A_CALL))
        state = {**state, "draws": np.concatenate([state["draws"], z])}
        state["targets"] = np.concatenate([state["targets"], target])
        return self._judge(state) if (drawn + self.chunk) % self.batch == 0 else state

    def terminate(self, problem: Problem, state: State) -> bool:
        del problem
        return "finished" in state and bool(state["finished"])

    def progress(self, problem: Problem, state: State) -> tuple[int, int]:
        done, total = self.laplace.progress(problem, state)
        rounds = len(state["means"]) if "means" in state else 1
        chunks = state["draws"].shape[0] // self.chunk if "draws" in state else 0
        return done + chunks, total + rounds * self.batch // self.chunk

    def postprocess(self, problem: Problem, state: State) -> Posterior:
        log_weights, k_hat = pareto_smooth(self._log_ratios(state))
        weights = np.exp(log_weights)
        draws = constrained_draws(problem, state["draws"][None])
        errors = {path: _standard_error(value[0], weights) for path, value in draws.items()}
        size = weights.size
        report = identifiability_of_draws(
            problem, state["draws"], weights, key=child_key(state_key(state), "identifiability")
        )
        return Posterior(
            draws=draws,
            log_weights=log_weights[None],
            diagnostics={
                **self.laplace.diagnostics(problem, state),
                "k_hat": k_hat,
                "ess": effective_draws(log_weights),
                "draws": float(size),
                "proposals": float(len(state["means"])),
                "sample_reliable": float(state["reliable"]),
                "failed_solves": float(np.sum(~np.isfinite(state["targets"]))),
            },
            statement=report.statement,
            info={**self.laplace.info(problem, state), "identifiability": report.as_plain()},
            prior_draws=prior_draws(problem.prior, size, key=child_key(state_key(state), "prior")),
            log_density=state["targets"][None],
            monte_carlo_error=errors,
        )

    def _degrees(self, state: State) -> float:
        return max(self.degrees, float(state["means"].shape[-1]))

    def _first_proposal(self, state: State) -> State:
        fitted = self.laplace.fitted(state)
        return {
            **state,
            "means": fitted.mean[None],
            "factors": fitted.factor[None],
            "moments": np.zeros((0, 2, fitted.mean.size)),
            "draws": np.zeros((0, fitted.mean.size)),
            "targets": np.zeros(0),
            "finished": np.asarray(False),
        }

    def _log_ratios(self, state: State) -> np.ndarray:
        counts = np.full(len(state["means"]), float(self.batch))
        return state["targets"] - mixture_log_density(
            state["draws"], state["means"], state["factors"], counts, self._degrees(state)
        )

    def _judge(self, state: State) -> State:
        """Stop, or add a proposal fitted to the sample so far."""
        ratios = self._log_ratios(state)
        log_weights, k_hat = pareto_smooth(ratios)
        moments = weighted_moments(state["draws"], np.exp(log_weights))
        good = k_hat < self.largest_k_hat and effective_draws(log_weights) >= self.least_effective
        history = np.concatenate([state["moments"], moments[None]])
        good = good and at_rest(history)
        state = {**state, "moments": history}
        if good or len(state["means"]) >= self.rounds:
            return {**state, "finished": np.asarray(True), "reliable": np.asarray(good)}
        mean, factor = refitted(state["draws"], ratios, state["means"][0], state["factors"][0])
        return {
            **state,
            "means": np.concatenate([state["means"], mean[None]]),
            "factors": np.concatenate([state["factors"], factor[None]]),
        }


def weighted_moments(draws: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means and standard deviations [2, parameter]."""
    mean = weights @ draws
    return np.stack([mean, np.sqrt(weights @ (draws - mean) ** 2)])


def at_rest(history: np.ndarray) -> bool:
    """Whether the last third of the judgements left the moments [judgement, 2, parameter] where they were; a first
    judgement, of a proposal that was not refitted, has nothing to compare with."""
    return len(history) == 1 or (len(history) >= 3 and _settled(history[-1], history[2 * len(history) // 3 - 1]))


def _settled(new: np.ndarray, old: np.ndarray) -> bool:
    """Whether neither a mean differs by a tenth of its sd nor an sd by a tenth."""
    shift = np.abs(new[0] - old[0]) / new[1]
    stretch = np.abs(new[1] - old[1]) / new[1]
    return bool(np.all(shift < LARGEST_MOVE) and np.all(stretch < LARGEST_MOVE))


def _standard_error(draws: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Standard error of a self-normalized weighted mean, `sqrt(sum w^2 (x - mean)^2)`."""
    centered = draws - np.tensordot(weights, draws, axes=1)
    return np.asarray(np.sqrt(np.tensordot(weights**2, centered**2, axes=1)))
