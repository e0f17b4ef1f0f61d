"""The most probable parameters, by Levenberg-Marquardt."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, state_key
from tumortwin.inference._correlation import reweight
from tumortwin.inference._linearize import STEP, Linearization, compiled_linearization
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._prior import prior_draws
from tumortwin.inference._problem import AbstractProblem, Problem

# The prior's curvature is taken to be at least this during the search (it may vanish in the tail of a heavy prior).
LEAST_CURVATURE = 0.1
# Optimistix's own criterion; the search ends on the Newton decrement, after which a step of zero satisfies this one.
CAUCHY_TOLERANCE = 1e-4
# First damping of the first round, as a share of the effective number of observations (Marquardt's tau).
FIRST_DAMPING = 1e-3
# Room below a loss of zero, for densities above one (a noise sd of e^-50 is beyond every scanner).
NATS_OF_ROOM = 50.0
# Between two reweightings the weights count as settled when none changes by more than this share.
SETTLED = 0.05
# Of the prior, to show beside the point.
PRIOR_DRAWS = 1000

Fit = tuple[Linearization, Array, Array]


class MapCalibrator(AbstractCalibrator):
    """Maximum a posteriori by Levenberg-Marquardt (Optimistix), the weights of the power likelihood re-estimated.

    $$ \\min_z L(z), \\qquad L = -\\log \\pi(z) - \\sum_k w_k \\sum_i \\log p(y_{ki} \\mid \\eta_{ki}(z)) $$

    Optimistix sees the `p + 1` residuals of `compressed_residuals`, whose half sum of squares is `L` (plus a constant),
    whose gradient is exactly that of `L`, and whose Gauss-Newton Hessian is `J^T W J` + prior curvature with the
    observed information `W` of each voxel. Deviance residuals have the same minimum but only .72 of a probit's
    curvature at its threshold, so that least squares on them creeps (28 steps instead of 9 on a 3-D toy). `J` is one of
    central differences: `2p + 1` solves a step, one after another, for the `p` parameters that move the states.

    **Arguments:**

    - `reweightings`: how often the weights are re-estimated from the residuals at the MAP (0: weights stay).
    - `starts`: the first round is run from the prior's mode and `starts - 1` prior draws; the best is kept.
    - `step`: of the central differences, in units of the prior's spread.
    - `tolerance`: distance to the mode at which the search ends [posterior standard deviations].
    - `max_steps`: a round.

    **Good values:** reweightings 2-3; starts 1 for an informative prior, 4 for a vague one; step .01.

    Convergence is reported, not assumed: `map_converged` and, from the Laplace stage, the Newton decrement.
    """

    reweightings: int = 2
    starts: int = 1
    step_size: float = STEP
    tolerance: float = 0.05
    max_steps: int = 30

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        if not isinstance(problem, Problem):
            raise ValueError(
                f"required: a problem with a mode; received: a {type(problem).__name__}, whose density is unbounded "
                "where subjects do not differ; try: NutsCalibrator(laplace=None), SmcCalibrator or SviCalibrator"
            )
        points = [jnp.zeros(problem.prior.size)]
        if self.starts > 1:
            draws = problem.prior.sample((self.starts - 1,), key=child_key(key, "starts"))
            points += [problem.prior.unconstrain({p: v[i] for p, v in draws.items()}) for i in range(self.starts - 1)]
        return {
            "key": np.asarray(jax.random.key_data(key)),
            "starts": np.asarray(jnp.stack(points)),
            "objectives": np.full(self.starts, np.nan),
            "z": np.asarray(points[0]),
            "information": np.full((problem.prior.size, problem.prior.size), np.nan),
            "curvature": np.full(problem.prior.size, np.nan),
            "gradient": np.full(problem.prior.size, np.nan),
            "log_density": np.asarray(np.nan),
            "weights": np.asarray(problem.weights),
            "correlation_volume": np.full(len(problem.data), np.nan),
            "round": np.asarray(0),
            "steps": np.asarray(0),
            "converged": np.asarray(False),
            "settled": np.asarray(False),
        }

    def step(self, problem: Problem, state: State) -> State:
        """One start of the first round, or one reweighting with the round that follows it."""
        state = dict(state)
        waiting = np.flatnonzero(np.isnan(state["objectives"]))
        if waiting.size:
            return self._first_round(problem, state, int(waiting[0]))
        current = problem.with_weights(jnp.asarray(state["weights"]))
        reweighted, volumes = reweight(current, jnp.asarray(state["z"]))
        new, old = np.asarray(reweighted.weights), state["weights"]
        fit = self._solve(reweighted, jnp.asarray(state["z"]), False)
        state.update(_record(fit, state["steps"]))
        state["weights"], state["correlation_volume"] = new, volumes
        state["settled"] = np.asarray(np.all(np.abs(new - old) <= SETTLED * old))
        state["round"] = np.asarray(int(state["round"]) + 1)
        return state

    def terminate(self, problem: Problem, state: State) -> bool:
        if np.isnan(state["objectives"]).any():
            return False
        return bool(state["round"] >= self.reweightings or state["settled"] or problem.spacing is None)

    def progress(self, problem: Problem, state: State) -> tuple[int, int]:
        done = self.starts - int(np.isnan(state["objectives"]).sum()) + int(state["round"])
        total = self.starts + (self.reweightings if problem.spacing is not None else 0)
        return (total, total) if self.terminate(problem, state) else (done, total)

    def postprocess(self, problem: Problem, state: State) -> Posterior:
        values = problem.prior.constrain(jnp.asarray(state["z"]))
        return Posterior(
            draws={path: np.asarray(value)[None, None] for path, value in values.items()},
            log_weights=None,
            diagnostics=self.diagnostics(problem, state),
            statement="A point estimate carries no uncertainty: no direction of the parameters was examined.",
            info=self.info(problem, state),
            prior_draws=prior_draws(problem.prior, PRIOR_DRAWS, key=child_key(state_key(state), "prior")),
        )

    def diagnostics(self, problem: Problem, state: State) -> dict[str, float]:
        """What the MAP stage has to report."""
        moving, _ = problem.entries()
        solves = int(state["steps"]) * (2 * moving.size + 1)
        finite = np.nan_to_num(state["objectives"], nan=np.inf, posinf=np.inf)
        near = np.abs(finite - finite.min()) < 1.0 if np.isfinite(finite.min()) else np.zeros(1)
        return {
            "map_converged": float(state["converged"]),
            "map_solves": float(solves),
            "map_starts_agreeing": float(np.mean(near)),
        }

    def info(self, problem: Problem, state: State) -> dict[str, Any]:
        """Weights and correlation volumes by datum, and the point itself."""
        names = [datum.name for datum in problem.data]
        return {
            "weights": dict(zip(names, map(float, state["weights"]), strict=True)),
            "correlation_volume_mm3": dict(zip(names, map(float, state["correlation_volume"]), strict=True)),
            "map_z": np.asarray(state["z"]).tolist(),
        }

    def _first_round(self, problem: Problem, state: State, index: int) -> State:
        fit = self._solve(problem, jnp.asarray(state["starts"][index]), True)
        objectives = state["objectives"].copy()
        objective = -float(fit[0].log_density)
        objectives[index] = objective if np.isfinite(objective) else np.inf
        best = objectives[index] <= np.nanmin(objectives)
        record = _record(fit, state["steps"])
        if not best:
            record = {"steps": record["steps"]}
        return {**state, **record, "objectives": objectives}

    def _solve(self, problem: Problem, start: Array, first: bool) -> Fit:
        damping = jnp.maximum(FIRST_DAMPING * effective_observations(problem), 1.0) if first else jnp.ones(())
        return _least_squares(problem, start, damping, self.step_size, self.tolerance, self.max_steps)


def _record(fit: Fit, steps: np.ndarray) -> State:
    local, converged, used = fit
    return {
        "z": np.asarray(local.z),
        "information": np.asarray(local.information),
        "curvature": np.asarray(local.curvature),
        "gradient": np.asarray(local.gradient),
        "log_density": np.asarray(local.log_density),
        "converged": np.asarray(converged),
        "steps": np.asarray(steps + int(used)),
    }


def compressed_residuals(
    value: Array, gradient: Array, hessian: Array, offset: Array, tolerance: float
) -> tuple[Array, Array]:
    """Residuals `rho` [p + 1] and their Jacobian that stand for a loss `L` with gradient `g` and Hessian `H`.

    $$ \\rho = \\left( R^{-T} g,\\; \\sqrt{2 (L + c) - |R^{-T} g|^2} \\right), \\qquad
       \\partial \\rho = (R, 0), \\qquad H = R^T R $$

    so that `|rho|^2 / 2 = L + c`, `J^T rho = g` and `J^T J = H`. The first part is the distance to the mode in units of
    the posterior's spread (the Newton decrement); below `tolerance` it counts as zero, because a loss of single-
    precision fields cannot show the gain. The offset `c` keeps the root real.
    """
    lower = jnp.linalg.cholesky(hessian)
    scaled = jax.scipy.linalg.solve_triangular(lower, gradient, lower=True)
    scaled = jnp.where(jnp.sum(scaled**2) < tolerance**2, 0, scaled)
    rest = 2 * (value + offset) - jnp.sum(scaled**2)
    jacobian = jnp.concatenate([lower.T, jnp.zeros((1, gradient.shape[0]), gradient.dtype)])
    return jnp.concatenate([scaled, jnp.sqrt(rest)[None]]), jacobian


@eqx.filter_jit
def _least_squares(
    problem: Problem, start: Array, damping: Array, step: float, tolerance: float, max_steps: int
) -> Fit:
    """MAP from `start`: the problem around it, whether Optimistix converged, steps taken."""
    arrays, rest = eqx.partition(problem, eqx.is_array)
    offset = _offset(problem)

    def expand(z: Array, arrays: Problem, offset: Array, damping: Array) -> tuple[Array, Array, Linearization]:
        # Compiled on its own: Optimistix asks for it three times, and it is traced once.
        local = compiled_linearization(eqx.combine(arrays, rest), z, step)
        hessian = local.observed + jnp.diag(jnp.maximum(local.curvature, LEAST_CURVATURE))
        rho, jacobian = compressed_residuals(-local.log_density, -local.gradient, hessian, offset, tolerance)
        return rho / jnp.sqrt(damping), jacobian / jnp.sqrt(damping), local

    @jax.custom_jvp
    def compressed(z: Array, args: tuple[Problem, Array, Array]) -> tuple[Array, Linearization]:
        rho, _, local = expand(z, *args)
        return rho, local

    @compressed.defjvp
    def _rule(primals: tuple, tangents: tuple) -> tuple[tuple[Array, Linearization], tuple[Array, Linearization]]:
        rho, jacobian, local = expand(primals[0], *primals[1])
        return (rho, local), (jacobian @ tangents[0], jax.tree.map(jnp.zeros_like, local))

    solver = optx.LevenbergMarquardt(rtol=CAUCHY_TOLERANCE, atol=CAUCHY_TOLERANCE)
    args = (arrays, offset, damping)
    solution = optx.least_squares(compressed, solver, start, args, has_aux=True, max_steps=max_steps, throw=False)
    converged = solution.result == optx.RESULTS.successful
    return solution.aux, converged, solution.stats["num_steps"]


def _offset(problem: Problem) -> Array:
    """A constant that exceeds minus the loss by far: 50 nats an observation."""
    return NATS_OF_ROOM * (problem.prior.size + effective_observations(problem))


def effective_observations(problem: Problem) -> Array:
    """`sum_k w_k n_k`: what the data are worth, in independent observations."""
    return sum((jnp.sum(group.weight * group.counts) for group in problem.groups()), jnp.zeros(()))
