"""A calibrator that asks a trained network and lets the model correct it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin._chunks import in_chunks
from tumortwin.inference import (
    AbstractCalibrator,
    AbstractProblem,
    Posterior,
    Problem,
    State,
    at_rest,
    child_key,
    constrained_draws,
    effective_draws,
    identifiability_of_draws,
    log_density_batch,
    mixture_log_density,
    pareto_smooth,
    refitted,
    state_key,
    student_draws,
    weighted_moments,
)
from tumortwin.surrogates._amortised import AmortisedPosterior
from tumortwin.surrogates._features import observed_values

DRAWS_A_CALL = 13  # few enough that the calls, several at a time, end together
LARGEST_K_HAT = 0.7
DEGREES = 7.0  # of freedom of a further proposal, at least


class AmortisedCalibrator(AbstractCalibrator):
    """Draws from q(z | y), weighted by posterior over proposal where `corrected`, the weights Pareto-smoothed.

    $$ z_s \\sim q(z \\mid y), \\qquad w_s \\propto \\frac{p(z_s \\mid y)}{Q(z_s)}, \\qquad
       Q = \\frac{n_0}{N}\\,q(z \\mid y) + \\sum_j \\frac{n_j}{N}\\,t_\\nu(m_j, \\Sigma_j) $$

    Uncorrected, a posterior takes milliseconds and is as right as the network; its diagnostics then say only whether
    the data look like those of the training (`inside` 1, `distance` in root mean squares). Corrected, it costs a solve
    a draw and is the model's own posterior. Where k-hat is .7 or more, or fewer than `least_effective` draws are
    effective, a Student-t is fitted to the weighted draws, as `PsisCalibrator` does, `chunk` more are taken from it,
    and all are weighted against the mixture. k-hat, the effective draws and `proposals` say how much the network had
    to be corrected. Once a proposal was fitted, the last third of the judgements must also have left every mean and sd
    where it was, within a tenth of an sd; after `rounds` further proposals the posterior is returned as it is, with
    `sample_reliable` 0.

    **Arguments:** `network`; `draws` of it in all, `chunk` of them a step; `least_effective` draws for
    `sample_reliable`; `rounds`, 0 for the network's draws alone.

    **Raises:** `FloatingPointError` when no draw, or a single one, has a positive density.

    **Limits:** (mathematical) neither k-hat nor settled moments see what no proposal reaches: a mode that the network
    does not know, or the end of a bent ridge.

    **Good values:** 1000 draws; corrected unless a study of calibration (`simulation_based_calibration`) has passed.

    Reference: Dax et al. (2023), Phys. Rev. Lett. 130:171403 (importance-corrected neural posteriors); Cornuet et al.
    (2012), Scand. J. Stat. 39:798 (adaptive multiple importance sampling).
    """

    network: AmortisedPosterior
    draws: int = 1000
    chunk: int = 250
    corrected: bool = True
    least_effective: float = 400.0
    rounds: int = 8

    def __check_init__(self) -> None:
        if self.draws % self.chunk or self.draws < 1 or self.rounds < 0:
            raise ValueError(
                "required: draws a multiple of chunk, rounds of at least 0; "
                f"received: {self.draws}, {self.chunk}, {self.rounds}"
            )

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        """All draws of the network, none of them solved yet."""
        given = _of(problem)
        if self.network.z_center.shape != (given.size,):
            raise ValueError(
                f"required: a problem of {self.network.z_center.size} parameters, as the network was trained on; "
                f"received: one of {given.size}"
            )
        values = observed_values(given)
        z, log_q, distance = _drawn(self.network, values, self.draws, child_key(key, "amortised"))
        return {
            "key": np.asarray(jax.random.key_data(key)),
            "weights": np.asarray(given.weights),
            "z": np.asarray(z),
            "log_q": np.asarray(log_q),
            "distance": np.asarray(distance),
            "targets": np.zeros(0),
            "means": np.zeros((0, given.size)),
            "factors": np.zeros((0, given.size, given.size)),
            "moments": np.zeros((0, 2, given.size)),
            "finished": np.asarray(not self.corrected),
            "reliable": np.asarray(False),
        }

    def step(self, problem: AbstractProblem, state: State) -> State:
        """The log density of one chunk of draws; the last of those that were drawn also judges the sample."""
        given, done = _of(problem), state["targets"].size
        rows = jnp.asarray(state["z"][done : done + self.chunk])
        found = np.asarray(in_chunks(lambda part: log_density_batch(given, part), rows, DRAWS_A_CALL))
        state = {**state, "targets": np.concatenate([state["targets"], found])}
        return self._judged(given, state) if state["targets"].size == len(state["z"]) else state

    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        del problem
        return bool(state["finished"])

    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        del problem
        return state["targets"].size, len(state["z"])

    def _judged(self, problem: Problem, state: State) -> State:
        """Finished, or with further draws of a proposal fitted to those there are."""
        ratios = self._log_ratios(state)
        if np.sum(np.isfinite(ratios)) < 2:
            raise FloatingPointError(
                f"required: draws of the network at which the model has a density; received: "
                f"{int(np.sum(np.isfinite(ratios)))} of {ratios.size}; try: whether the data are like those of the "
                "training (`inside` without correction), or another calibrator"
            )
        log_weights, k_hat = pareto_smooth(ratios)
        moments = weighted_moments(state["z"], np.exp(log_weights))
        good = k_hat < LARGEST_K_HAT and effective_draws(log_weights) >= self.least_effective
        # What a refitted proposal does not reach no k-hat can see: the moments must have come to rest too.
        history = np.concatenate([state["moments"], moments[None]])
        good = good and at_rest(history)
        state = {**state, "moments": history}
        if good or len(state["means"]) >= self.rounds:
            return {**state, "finished": np.asarray(True), "reliable": np.asarray(good)}
        own = state["z"][: self.draws]
        # 1e-12: the draws of a network that has collapsed onto a line or a point have no Cholesky factor.
        spread = np.atleast_2d(np.cov(own, rowvar=False))
        factor = np.linalg.cholesky(spread + 1e-12 * max(np.trace(spread), 1e-12) * np.eye(len(spread)))
        mean, factor = refitted(state["z"], ratios, own.mean(axis=0), factor)
        key = jax.random.fold_in(child_key(state_key(state), "further"), len(state["means"]))
        z = student_draws(mean, factor, self._degrees(state), self.chunk, key=key)
        log_q = _log_density(self.network, jnp.asarray(z), observed_values(problem))
        return {
            **state,
            "z": np.concatenate([state["z"], z]),
            "log_q": np.concatenate([state["log_q"], np.asarray(log_q)]),
            "means": np.concatenate([state["means"], mean[None]]),
            "factors": np.concatenate([state["factors"], factor[None]]),
        }

    def _log_ratios(self, state: State) -> np.ndarray:
        log_q, further = state["log_q"], len(state["means"])
        if further:
            counts = np.full(further, float(self.chunk))
            others = mixture_log_density(state["z"], state["means"], state["factors"], counts, self._degrees(state))
            total = self.draws + counts.sum()
            log_q = np.logaddexp(np.log(self.draws / total) + log_q, np.log(counts.sum() / total) + others)
        return state["targets"] - log_q

    def _degrees(self, state: State) -> float:
        return max(DEGREES, float(state["z"].shape[1]))

    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        given, z = _of(problem), state["z"]
        inside = float(state["distance"] <= np.asarray(self.network.farthest))
        said = {"draws": float(len(z)), "distance": float(state["distance"]), "inside": inside}
        log_weights, density = None, None
        if self.corrected:
            log_weights, k_hat = pareto_smooth(self._log_ratios(state))
            said |= {
                "k_hat": k_hat,
                "ess": effective_draws(log_weights),
                "proposals": float(1 + len(state["means"])),
                "sample_reliable": float(state["reliable"]),
                "failed_solves": float(np.sum(~np.isfinite(state["targets"]))),
            }
            density = state["targets"][None]
        weights = np.full(len(z), 1 / len(z)) if log_weights is None else np.exp(log_weights)
        report = identifiability_of_draws(given, z, weights, key=child_key(state_key(state), "identifiability"))
        return Posterior(
            draws=constrained_draws(given, z[None]),
            log_weights=None if log_weights is None else log_weights[None],
            diagnostics=said,
            statement=report.statement,
            info={"identifiability": report.as_plain(), "corrected": self.corrected},
            prior_draws=given.prior_draws(len(z), key=child_key(state_key(state), "prior")),
            log_density=density,
        )


def _of(problem: AbstractProblem) -> Problem:
    if not isinstance(problem, Problem):
        raise ValueError(f"required: a Problem, whose data a network can be shown; received: {type(problem).__name__}")
    return problem


@eqx.filter_jit
def _drawn(network: AmortisedPosterior, values: Array, n: int, key: Array) -> tuple[Array, Array, Array]:
    z = network.sample(values, n, key=key)
    return z, network.log_density(z, values), network.distance(values)


@eqx.filter_jit
def _log_density(network: AmortisedPosterior, z: Array, values: Array) -> Array:
    return network.log_density(z, values)
