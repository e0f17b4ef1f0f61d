"""The posterior as a Gaussian at its mode."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, state_key
from tumortwin.inference._identifiability import identifiability_report
from tumortwin.inference._map import MapCalibrator
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._prior import Values, prior_draws
from tumortwin.inference._problem import AbstractProblem, Problem

# Half the squared Newton decrement is the log density still to be gained [nats].
LARGEST_GAIN = 0.05


class Laplace(eqx.Module):
    """The Gaussian approximation in the coordinates of the prior.

    $$ z \\sim N(m, H^{-1}), \\qquad H = F + \\mathrm{diag}(\\kappa) $$

    with `F` the Fisher information of the power likelihood (`J^T W J`, the Gauss-Newton Hessian) and `kappa` the
    curvature of the prior at the mode `m`.
    """

    mean: Float[np.ndarray, " parameter"]
    information: Float[np.ndarray, "parameter parameter"]
    curvature: Float[np.ndarray, " parameter"]
    gradient: Float[np.ndarray, " parameter"]
    log_density: float

    @property
    def precision(self) -> np.ndarray:
        """`H`."""
        return self.information + np.diag(self.curvature)

    @property
    def covariance(self) -> np.ndarray:
        """`H^{-1}`."""
        return np.linalg.inv(self.precision)

    @property
    def factor(self) -> np.ndarray:
        """Lower triangular `L` with `L L^T = H^{-1}`."""
        return np.linalg.cholesky(self.covariance)

    @property
    def newton_decrement(self) -> float:
        """`sqrt(g^T H^{-1} g)`: how many posterior standard deviations the mode is away from `m`."""
        return float(np.sqrt(max(self.gradient @ self.covariance @ self.gradient, 0.0)))


class LaplaceCalibrator(AbstractCalibrator):
    """MAP, then a Gaussian with the Gauss-Newton Hessian there (which the search has already); `draws` samples of it.

    **Good values:** draws 1000. Use it as a first look; the importance sample that starts from it costs seconds more.
    """

    map: MapCalibrator = MapCalibrator()
    draws: int = 1000

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        return self.map.init(problem, key=key)

    def step(self, problem: Problem, state: State) -> State:
        state = self.map.step(problem, state)
        if self.terminate(problem, state):
            _check_finite(state)
        return state

    def terminate(self, problem: Problem, state: State) -> bool:
        return self.map.terminate(problem, state)

    def progress(self, problem: Problem, state: State) -> tuple[int, int]:
        return self.map.progress(problem, state)

    def postprocess(self, problem: Problem, state: State) -> Posterior:
        fitted = self.fitted(state)
        noise = jax.random.normal(child_key(state_key(state), "laplace"), (self.draws, problem.prior.size))
        z = fitted.mean + np.asarray(noise) @ fitted.factor.T
        draws = constrained_draws(problem, z[None])
        errors = {path: np.asarray(value.std(axis=(0, 1)) / np.sqrt(self.draws)) for path, value in draws.items()}
        return Posterior(
            draws=draws,
            log_weights=None,
            diagnostics=self.diagnostics(problem, state),
            statement=identifiability_report(problem, fitted.mean, fitted.information, fitted.curvature).statement,
            info=self.info(problem, state),
            prior_draws=prior_draws(problem.prior, self.draws, key=child_key(state_key(state), "prior")),
            monte_carlo_error=errors,
        )

    def fitted(self, state: State) -> Laplace:
        """The Gaussian of a finished state."""
        return Laplace(
            state["z"], state["information"], state["curvature"], state["gradient"], float(state["log_density"])
        )

    def diagnostics(self, problem: Problem, state: State) -> dict[str, float]:
        """Those of the MAP, and how far it is from the mode."""
        decrement = self.fitted(state).newton_decrement
        return {
            **self.map.diagnostics(problem, state),
            "newton_decrement": decrement,
            "at_mode": float(decrement**2 / 2 < LARGEST_GAIN),
            "map_log_density": float(state["log_density"]),
        }

    def info(self, problem: Problem, state: State) -> dict[str, Any]:
        """Those of the MAP, with the Gaussian itself and the information by direction."""
        fitted = self.fitted(state)
        report = identifiability_report(problem, fitted.mean, fitted.information, fitted.curvature)
        return {
            **self.map.info(problem, state),
            "parameter_names": list(problem.prior.names),
            "laplace_covariance_z": fitted.covariance.tolist(),
            "identifiability": report.as_plain(),
        }


def _check_finite(state: State) -> None:
    if not (np.isfinite(state["information"]).all() and np.isfinite(state["log_density"])):
        raise ValueError(
            "required: a finite Fisher information at the MAP; received: NaN or inf (a solve failed next to it); "
            "try: a prior that keeps away from where the solver fails, or more `starts`"
        )


def constrained_draws(problem: AbstractProblem, z: np.ndarray) -> dict[str, np.ndarray]:
    """`z` [chain, draw, parameter] to parameter values by path [chain, draw, ...]."""
    return {path: np.asarray(value) for path, value in _constrained(problem, jnp.asarray(z)).items()}


@eqx.filter_jit
def _constrained(problem: AbstractProblem, z: Array) -> Values:
    return jax.vmap(jax.vmap(problem.constrain))(z)
