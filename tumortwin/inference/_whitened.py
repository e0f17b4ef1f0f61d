"""A posterior of few parameters seen from its mode, in units of its own spread."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from tumortwin.inference._prior import Values
from tumortwin.inference._problem import AbstractProblem, value_and_gradient

LEAST_CURVATURE = 0.25  # per unit of the prior, squared: no direction is taken to be wider than twice the prior
_STEP = 1e-4


class WhitenedProblem(AbstractProblem):
    """`problem` in the coordinates `epsilon` with `z = m + L epsilon`: close to a standard normal, so that NUTS needs
    short trees from its first transition on and little warmup. The posterior is the same: the map is linear.

    **Good values:** `NutsCalibrator(laplace=None, dense=False, warmup=150)`. A dense mass matrix must not be adapted
    again from a short warmup: of fewer draws than parameters it is worse than none.

    **Arguments:** `problem`; `center` m; `factor` L, both from `whitened`.
    """

    problem: AbstractProblem
    center: Float[Array, " parameter"]
    factor: Float[Array, "parameter parameter"]

    @property
    def size(self) -> int:
        return self.problem.size

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"direction[{k}]" for k in range(self.size))

    @property
    def scalars(self) -> tuple[str, ...]:
        """None: a coordinate is a direction, not a parameter."""
        return ()

    def log_density(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        return self.problem.log_density(self.center + self.factor @ z)

    def log_prior(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """That of the problem, the volume of the map left out: it is one number."""
        return self.problem.log_prior(self.center + self.factor @ z)

    def log_terms(self, z: Float[Array, " parameter"]) -> Float[Array, " term"]:
        return self.problem.log_terms(self.center + self.factor @ z)

    @property
    def term_days(self) -> np.ndarray:
        return self.problem.term_days

    def term_names(self) -> tuple[str, ...]:
        return self.problem.term_names()

    def constrain(self, z: Float[Array, " parameter"]) -> Values:
        return self.problem.constrain(self.center + self.factor @ z)

    def sample_prior(self, n: int, *, key: Array) -> Float[Array, "draw parameter"]:
        drawn = self.problem.sample_prior(n, key=key)
        return jax.scipy.linalg.solve_triangular(self.factor, (drawn - self.center[None, :]).T, lower=True).T

    def prior_draws(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        return self.problem.prior_draws(n, key=key)


def whitened(problem: AbstractProblem, *, iterations: int = 300) -> WhitenedProblem:
    """The mode by L-BFGS from the middle of the prior, and the curvature there by differences of the gradient.

    **Good values:** up to some hundred parameters: 2 gradients a parameter. **Limits:** a local mode is enough (it is a
    change of coordinates, not an approximation), but one far from the mass makes NUTS slow again.

    **Raises:** `ValueError` when the log density is not finite in the middle of the prior.
    """

    # In the form in which a sampler meets it, so that one program serves both.
    plain = WhitenedProblem(problem, jnp.zeros(problem.size), jnp.eye(problem.size))

    def negative(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradient(plain, jnp.asarray(z))
        return -float(value), -np.asarray(gradient)

    if not np.isfinite(negative(np.zeros(problem.size))[0]):
        raise ValueError(
            "required: a finite log density in the middle of the prior; received: none; try: another prior"
        )
    mode = minimize(negative, np.zeros(problem.size), jac=True, method="L-BFGS-B", options={"maxiter": iterations}).x
    moves = _STEP * np.eye(problem.size)
    columns = [negative(mode + m)[1] - negative(mode - m)[1] for m in moves]
    curvature = np.stack(columns) / (2 * _STEP)
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    covariance = (vectors / np.maximum(values, LEAST_CURVATURE)) @ vectors.T
    return WhitenedProblem(problem, jnp.asarray(mode), jnp.asarray(np.linalg.cholesky(covariance)))
