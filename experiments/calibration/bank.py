"""One bank of simulations for many patients: the exact likelihood of every member, the noise integrated out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference import AbstractCalibrator, AbstractProblem, Posterior, Problem, effective_draws

POINTS = 200  # of the grid over log sigma
FARTHEST = 40.0  # [nat] below the best: members with less, at their best sigma, are not looked at


class BankCalibrator(AbstractCalibrator):
    """Members drawn from the prior once, weighted by the likelihood of a patient's data.

    $$ w_m \\propto \\int p(\\sigma)\\, \\sigma^{-N} e^{-S_m / 2 \\sigma^2} d\\sigma, \\qquad
       S_m = \\sum_i (y_i - \\eta_i(\\theta_m))^2 $$

    A member comes from the prior, so that its weight is its likelihood; sigma is integrated on a grid of its logarithm
    and drawn from its conditional. There is no tuning, no mode and no gradient in it: an answer of another kind than
    that of the samplers. A single solve serves all patients.

    **Arguments:** `values`: path -> [member]; `predictions` [member, value] at the data that count; `log_noise`,
    `log_prior` [point]: the grid over log sigma and the log prior density of log sigma there; `noise_path`; `draws`.

    **Limits:** the members that the data leave are few where data are sharp (`ess` says how many; mathematical).
    """

    values: dict[str, Float[np.ndarray, " member"]]
    predictions: Float[np.ndarray, "member value"]
    log_noise: Float[np.ndarray, " point"]
    log_prior: Float[np.ndarray, " point"]
    noise_path: str = eqx.field(static=True)
    draws: int = 4000

    def init(self, problem: AbstractProblem, *, key: Array) -> dict[str, np.ndarray]:
        return {"key": np.asarray(jax.random.key_data(key))}

    def step(self, problem: AbstractProblem, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        del problem
        return state

    def terminate(self, problem: AbstractProblem, state: dict[str, np.ndarray]) -> bool:
        del problem, state
        return True

    def progress(self, problem: AbstractProblem, state: dict[str, np.ndarray]) -> tuple[int, int]:
        del problem, state
        return 1, 1

    def postprocess(self, problem: AbstractProblem, state: dict[str, np.ndarray]) -> Posterior:
        assert isinstance(problem, Problem)
        seen = np.concatenate([np.asarray(d.values)[np.asarray(d.valid) > 0] for d in problem.data])
        squares = np.sum((self.predictions - seen.astype(self.predictions.dtype)) ** 2, axis=1, dtype=float)
        near = np.flatnonzero(0.5 * seen.size * np.log(squares / squares.min()) < FARTHEST)
        joint = self.log_prior - seen.size * self.log_noise - 0.5 * squares[near, None] * np.exp(-2 * self.log_noise)
        total = np.logaddexp.reduce(joint, axis=1)
        log_weights = total - np.logaddexp.reduce(total)
        random = np.random.default_rng(state["key"])
        rows = random.choice(near.size, self.draws, p=np.exp(log_weights))
        drawn = {path: value[near[rows]][None] for path, value in self.values.items()}
        drawn[self.noise_path] = _from_grid(joint[rows], self.log_noise, random)[None]
        return Posterior(drawn, None, {"ess": effective_draws(log_weights)}, "", {})


def noise_grid(problem: Problem, path: str, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of log sigma between two values of sigma, and the log prior density of log sigma there."""
    points = np.linspace(np.log(low), np.log(high), POINTS)
    density = problem.prior.distributions[path].log_prob(jnp.exp(jnp.asarray(points)))
    return points, np.asarray(density) + points


def _from_grid(log_density: np.ndarray, points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One draw of sigma from each row of densities of log sigma, linear in the distribution between points."""
    mass = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    below = np.cumsum(0.5 * (mass[:, 1:] + mass[:, :-1]), axis=1)
    below = np.concatenate([np.zeros((len(mass), 1)), below / below[:, -1:]], axis=1)
    levels = random.uniform(size=len(mass))
    return np.exp([np.interp(level, row, points) for level, row in zip(levels, below, strict=True)])
