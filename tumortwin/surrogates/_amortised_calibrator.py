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
    child_key,
    constrained_draws,
    effective_draws,
    identifiability_of_draws,
    log_density_batch,
    pareto_smooth,
    state_key,
)
from tumortwin.surrogates._amortised import AmortisedPosterior
from tumortwin.surrogates._features import observed_values

DRAWS_A_CALL = 13  # few enough that the calls, several at a time, end together
LARGEST_K_HAT = 0.7


class AmortisedCalibrator(AbstractCalibrator):
    """Draws from q(z | y), weighted by posterior over q where `corrected`, the weights Pareto-smoothed.

    $$ z_s \\sim q(z \\mid y), \\qquad w_s \\propto p(z_s \\mid y) / q(z_s \\mid y) $$

    Uncorrected, a posterior takes milliseconds and is as right as the network; its diagnostics then say only whether
    the data look like those of the training (`inside` 1, `distance` in root mean squares). Corrected, it costs a solve
    a draw and is the model's own posterior: k-hat and the effective draws say how much the network had to be corrected,
    and `sample_reliable` is 0 where it could not be.

    **Arguments:** `network`; `draws` in all, `chunk` of them a step; `least_effective` draws for `sample_reliable`.

    **Good values:** 1000 draws; corrected unless a study of calibration (`simulation_based_calibration`) has passed.

    Reference: Dax et al. (2023), Phys. Rev. Lett. 130:171403 (importance-corrected neural posteriors).
    """

    network: AmortisedPosterior
    draws: int = 1000
    chunk: int = 250
    corrected: bool = True
    least_effective: float = 400.0

    def __check_init__(self) -> None:
        if self.draws % self.chunk or self.draws < 1:
            raise ValueError(f"required: draws a multiple of chunk; received: {self.draws}, {self.chunk}")

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
        }

    def step(self, problem: AbstractProblem, state: State) -> State:
        """The log density of one chunk of draws."""
        given, done = _of(problem), state["targets"].size
        rows = jnp.asarray(state["z"][done : done + self.chunk])
        found = np.asarray(in_chunks(lambda part: log_density_batch(given, part), rows, DRAWS_A_CALL))
        return {**state, "targets": np.concatenate([state["targets"], found])}

    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        del problem
        return not self.corrected or state["targets"].size >= self.draws

    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        del problem
        return state["targets"].size, self.draws

    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        given, z = _of(problem), state["z"]
        inside = float(state["distance"] <= np.asarray(self.network.farthest))
        said = {"draws": float(self.draws), "distance": float(state["distance"]), "inside": inside}
        log_weights, density = None, None
        if self.corrected:
            log_weights, k_hat = pareto_smooth(state["targets"] - state["log_q"])
            ess = effective_draws(log_weights)
            good = k_hat < LARGEST_K_HAT and ess >= self.least_effective
            failed = float(np.sum(~np.isfinite(state["targets"])))
            said |= {"k_hat": k_hat, "ess": ess, "sample_reliable": float(good), "failed_solves": failed}
            density = state["targets"][None]
        weights = np.full(len(z), 1 / len(z)) if log_weights is None else np.exp(log_weights)
        report = identifiability_of_draws(given, z, weights, key=child_key(state_key(state), "identifiability"))
        return Posterior(
            draws=constrained_draws(given, z[None]),
            log_weights=None if log_weights is None else log_weights[None],
            diagnostics=said,
            statement=report.statement,
            info={"identifiability": report.as_plain(), "corrected": self.corrected},
            prior_draws=given.prior_draws(self.draws, key=child_key(state_key(state), "prior")),
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
