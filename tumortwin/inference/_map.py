"""The most probable parameters: Levenberg-Marquardt on weighted deviance residuals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key
from tumortwin.inference._correlation import reweight
from tumortwin.inference._linearize import STEP, central_difference_jvp
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import Problem

# Room for the log of a free noise scale to fall during one round: the pseudo-residual below stays real.
LOG_SCALE_ROOM = 10.0
# Between two reweightings the weights count as settled when none changes by more than this share.
SETTLED = 0.05


class MapCalibrator(AbstractCalibrator):
    """Maximum a posteriori by Levenberg-Marquardt (Optimistix), with the weights of the power likelihood re-estimated.

    $$ \\min_z \\tfrac12 \\sum_k w_k \\sum_i r_{ki}(z)^2 + \\sum_k n_k \\log s_k(z)
       + \\tfrac12 \\sum_j r_j^{prior}(z)^2, \\qquad n_k = w_k \\sum_i valid_{ki} $$

    The Jacobian is one of central differences (`2p + 1` solves a step, one after another). A free noise scale `s_k`
    enters by the residual `sqrt(2 n (log s - log s_0 + 10))`, whose value and gradient are exact, and by a residual of
    value zero whose slope lifts its curvature to the Fisher information `2 n`.

    **Arguments:**

    - `reweightings`: how often the weights are re-estimated from the residuals at the MAP (0: weights stay).
    - `starts`: the first round is run from the prior's mode and `starts - 1` prior draws; the best is kept.
    - `step`: of the central differences, in units of the prior's spread.
    - `rtol`, `atol`: on `z` and on the residuals; `max_steps` a round.

    **Good values:** reweightings 2-3; starts 1 for an informative prior, 4 for a vague one; step .01.

    Convergence is reported, not assumed: `map_converged` and, from the Laplace stage, the Newton decrement.
    """

    reweightings: int = 2
    starts: int = 1
    step_size: float = STEP
    rtol: float = 1e-3
    atol: float = 1e-3
    max_steps: int = 40

    def init(self, problem: Problem, *, key: Array) -> State:
        draws = problem.prior.sample((max(self.starts - 1, 0),), key=child_key(key, "starts"))
        points = [jnp.zeros(problem.prior.size)]
        points += [problem.prior.unconstrain({p: v[i] for p, v in draws.items()}) for i in range(self.starts - 1)]
        return {
            "key": np.asarray(jax.random.key_data(key)),
            "starts": np.asarray(jnp.stack(points)),
            "objectives": np.full(self.starts, np.nan),
            "z": np.asarray(points[0]),
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
        fit = self._solve(reweighted, jnp.asarray(state["z"]))
        state.update(_record(fit, state["steps"]))
        state["weights"], state["correlation_volume"] = new, volumes
        state["settled"] = np.asarray(np.all(np.abs(new - old) <= SETTLED * old))
        state["round"] = state["round"] + 1
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
        )

    def diagnostics(self, problem: Problem, state: State) -> dict[str, float]:
        """What the MAP stage has to report."""
        solves = int(state["steps"]) * (2 * problem.prior.size + 1)
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
        fit = self._solve(problem, jnp.asarray(state["starts"][index]))
        objectives = state["objectives"].copy()
        objective = float(fit[1])
        objectives[index] = objective if np.isfinite(objective) else np.inf
        best = objectives[index] <= np.nanmin(objectives)
        record = _record(fit, state["steps"])
        if not best:
            record = {"steps": record["steps"]}
        return {**state, **record, "objectives": objectives}

    def _solve(self, problem: Problem, start: Array) -> tuple[Array, Array, Array, Array]:
        return _least_squares(problem, start, self.step_size, self.rtol, self.atol, self.max_steps)


def _record(fit: tuple[Array, Array, Array, Array], steps: np.ndarray) -> State:
    z, _, converged, used = fit
    return {"z": np.asarray(z), "converged": np.asarray(converged), "steps": steps + np.asarray(used)}


def stacked_residuals(problem: Problem, z: Float[Array, " parameter"], reference: Float[Array, " datum"]) -> Array:
    """Every residual of the least-squares problem; half their sum of squares is minus the log density plus a constant.

    `reference` holds the log noise scales about which the pseudo-residual of `MapCalibrator` is built.
    """
    predictions, observations = problem.predict(problem.prior.constrain(z))
    parts = [problem.prior.residual(z)]
    for datum, prediction, origin in zip(problem.data, predictions, reference, strict=True):
        observation = observations[datum.channel]
        residual = jnp.where(datum.valid > 0, observation.residual(prediction, datum.values), 0)
        root = jnp.sqrt(datum.valid.astype(z.dtype) * datum.weight)
        parts.append(jnp.ravel(root * residual.astype(z.dtype)))
        parts.append(_scale_residuals(observation.log_scale(), origin, datum.weight * jnp.sum(datum.valid)))
    return jnp.concatenate(parts)


def _scale_residuals(log_scale: Array, origin: Array, count: Array) -> Array:
    """Exact value and slope of `count log s`, and a zero whose slope completes the curvature (see `MapCalibrator`)."""
    above = log_scale - origin + LOG_SCALE_ROOM
    missing = jnp.sqrt(count * jnp.maximum(1 - 1 / (2 * above), 0))
    return jnp.stack([jnp.sqrt(2 * count * above), missing * log_scale])


def _is_companion(problem: Problem) -> np.ndarray:
    """Where `stacked_residuals` holds the entries that count by their slope alone."""
    marks = [np.zeros(problem.prior.size, bool)]
    for datum in problem.data:
        marks += [np.zeros(datum.values.size, bool), np.asarray([False, True])]
    return np.concatenate(marks)


@eqx.filter_jit
def _least_squares(
    problem: Problem, start: Array, step: float, rtol: float, atol: float, max_steps: int
) -> tuple[Array, Array, Array, Array]:
    """MAP from `start`: point, half sum of squares, whether Optimistix converged, steps taken."""
    _, observations = problem.bind(problem.prior.constrain(jnp.zeros_like(start)))
    reference = jnp.stack([observations[d.channel].log_scale() for d in problem.data])
    companion = _is_companion(problem)
    arrays, rest = eqx.partition(problem, eqx.is_array)

    def stacked(z: Array, arrays: Problem, reference: Array) -> Array:
        return stacked_residuals(eqx.combine(arrays, rest), z, reference)

    def residuals(z: Array, args: tuple[Problem, Array]) -> tuple[Array, Array]:
        found = central_difference_jvp(stacked, step)(z, *args)
        value = jnp.where(companion, found - jax.lax.stop_gradient(found), found)
        return value, 0.5 * jnp.sum(jax.lax.stop_gradient(value) ** 2)

    solver = optx.LevenbergMarquardt(rtol=rtol, atol=atol, linear_solver=lx.Normal(lx.Cholesky()))
    solution = optx.least_squares(
        residuals, solver, start, args=(arrays, reference), has_aux=True, max_steps=max_steps, throw=False
    )
    converged = solution.result == optx.RESULTS.successful
    return solution.value, solution.aux, converged, solution.stats["num_steps"]
