"""Sequential Monte Carlo over the terms of the likelihood: the data come in by day, the particles follow."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, state_key
from tumortwin.inference._identifiability import contraction_statement
from tumortwin.inference._laplace import constrained_draws
from tumortwin.inference._map import MapCalibrator
from tumortwin.inference._pareto import effective_draws
from tumortwin.inference._pathfinder import weighted_error, weights_of
from tumortwin.inference._posterior import Posterior, systematic_rows
from tumortwin.inference._problem import AbstractProblem, Problem
from tumortwin.inference._smc_moves import KERNELS, Moves, log_terms_of, moved

BISECTIONS = 50
# A day is taken in whole when this much of it at most is left over (rounding of the bisection).
LEAST_SHARE = 1e-9


class SmcCalibrator(AbstractCalibrator):
    """Iterated batch importance sampling: particles that take in the terms of the likelihood by day.

    $$ \\pi_{k,\\tau}(z) \\propto \\pi(z) \\prod_{d < d_k} p(y_d \\mid z)\\; p(y_{d_k} \\mid z)^{\\tau}, \\qquad
       w_i \\leftarrow w_i\\, p(y_{d_k} \\mid z_i)^{\\Delta\\tau} $$

    A day is taken in at once (`tau` 0 to 1) while the effective number of particles stays above `least_share` of them;
    where it would not, `tau` rises in steps that just keep it (adaptive tempering), and after each the particles are
    resampled and rejuvenated: moved by a Metropolis kernel that leaves the present target invariant, with proposals in
    the coordinates of the particles' own covariance, until they have forgotten where they were (correlation below
    `largest_correlation` in every coordinate) or `sweeps` are spent. A last rejuvenation follows the last day, so that
    the draws have equal weights. The product of the mean incremental weights estimates the evidence, and its factors
    the predictive density of each day given the days before.

    The same engine takes in new data later (`assimilate`).

    **Arguments:** `particles`; `kernel`: `random_walk`, `independent` (Student-t fitted to the particles) or `hmc`
    (`leapfrog` gradients a proposal; needs a `solve` with reverse-mode derivatives); `chunk` sweeps a step;
    `vectorized`: particles side by side (small states) or one after another (3-D); `weigh_by`: the stage before that
    estimates the weights of a power likelihood (images).

    **Good values:** 1000 particles; random_walk up to some five parameters, hmc beyond; least_share .5.

    **Limits:** as every importance sampler it is blind to a mode that no particle of the prior reached; the error of
    the evidence counts the resampling of each step as independent (for convenience) and is a lower bound.

    Reference: Chopin (2002), Biometrika 89:539; Del Moral, Doucet & Jasra (2006), JRSS B 68:411; Buchholz, Chopin &
    Jacob (2021), Bayesian Anal. 16:745 (adaptive moves).
    """

    particles: int = 1000
    kernel: str = "random_walk"
    least_share: float = 0.5
    largest_correlation: float = 0.15
    sweeps: int = 60
    chunk: int = 10
    leapfrog: int = 8
    vectorized: bool = True
    weigh_by: MapCalibrator | None = None

    def __check_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"required: a kernel among {sorted(KERNELS)}; received: {self.kernel!r}")
        if self.particles < 50 or not 0 < self.least_share < 1 or self.sweeps < 1 or self.chunk < 1:
            raise ValueError(
                "required: at least 50 particles, 0 < least_share < 1, sweeps and chunk at least 1; received: "
                f"{self.particles}, {self.least_share}, {self.sweeps}, {self.chunk}"
            )

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        if self.weigh_by is not None:
            return self.weigh_by.init(_with_weights(problem), key=key)
        return self.start(problem, key=key)

    def start(self, problem: AbstractProblem, *, key: Array) -> State:
        """Particles that have seen nothing."""
        z = np.asarray(_prior_points(problem, self.particles, child_key(key, "particles")))
        return {
            "key": np.asarray(jax.random.key_data(key)),
            "z": z,
            **weights_of(problem),
            **self.fresh(problem, z),
            "exponents": np.zeros(problem.term_days.size),
            "log_evidence": np.zeros(()),
            "log_evidence_variance": np.zeros(()),
        }

    def fresh(self, problem: AbstractProblem, z: np.ndarray) -> State:
        """The part of a state that is of one run: equal weights, no move yet, no history."""
        del problem
        n = len(z)
        return {
            "log_weights": np.full(n, -np.log(n)),
            "moving": np.asarray(False),
            "moved": np.asarray(True),
            "origin": np.zeros((0, z.shape[1])),
            "swept": np.asarray(0),
            "scale": np.asarray(KERNELS[self.kernel].first_scale(z.shape[1])),
            "solves": np.asarray(0),
            **{f"stage_{name}": np.zeros(0) for name in STAGES},
        }

    def step(self, problem: AbstractProblem, state: State) -> State:
        """A step of the stage before, one stage of weights, or one chunk of sweeps of the particles."""
        if self.weigh_by is not None and "exponents" not in state:
            if not self.weigh_by.terminate(_with_weights(problem), state):
                return self.weigh_by.step(_with_weights(problem), state)
            return {**state, **self.start(problem, key=state_key(state)), "weights": state["weights"]}
        if state["moving"]:
            return self._sweep(problem, state)
        pending = pending_days(problem, state)
        return self._weigh(problem, state, float(pending[0])) if pending.size else self._resampled(state)

    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        if "exponents" not in state:
            return False
        return not state["moving"] and bool(state["moved"]) and pending_days(problem, state).size == 0

    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        if self.weigh_by is not None and "exponents" not in state:
            return self.weigh_by.progress(_with_weights(problem), state)
        total = np.unique(problem.term_days[~np.isnan(problem.term_days)]).size
        return total - pending_days(problem, state).size, total

    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        z, log_weights = state["z"], state["log_weights"]
        draws, weights, known = constrained_draws(problem, z[None]), np.exp(log_weights), problem.scalars
        left = float(state["stage_correlation"][-1]) if state["stage_correlation"].size else 0.0
        least = float(np.min(state["stage_ess"], initial=float(len(z))))
        # What resampling has lost comes back as far as the moves have not forgotten it.
        wider = np.sqrt(1 + left**2 * len(z) / least)
        worst = float(np.max(state["stage_correlation"], initial=0.0))
        reliable = worst < self.largest_correlation
        statement = contraction_statement(known, z[None][..., : len(known)])
        return Posterior(
            draws=draws,
            log_weights=None if np.ptp(log_weights) == 0 else log_weights[None],
            diagnostics={
                "ess": float(effective_draws(log_weights) / wider**2),
                "least_ess": least,
                "log_evidence": float(state["log_evidence"]),
                "log_evidence_sd": float(np.sqrt(state["log_evidence_variance"])),
                "stages": float(state["stage_ess"].size),
                "acceptance": float(np.min(state["stage_acceptance"], initial=1.0)),
                "correlation_left": worst,
                "sample_reliable": float(reliable),
                "solves": float(state["solves"]),
            },
            statement=statement if reliable else f"The particles have not forgotten where they were. {statement}",
            info={"parameter_names": list(problem.names), **self.scores(state), **_weights_by_name(problem, state)},
            prior_draws=problem.prior_draws(len(z), key=child_key(state_key(state), "prior")),
            log_density=np.asarray(log_targets(problem, self, state))[None],
            monte_carlo_error={p: np.asarray(wider * weighted_error(value[0], weights)) for p, value in draws.items()},
        )

    def scores(self, state: State) -> dict[str, Any]:
        """`log p(y_day | days before)` by day: the evidence, one day at a time."""
        days = np.unique(state["stage_day"])
        gained = [float(np.sum(state["stage_log_evidence"][state["stage_day"] == day])) for day in days]
        return {"days": days.tolist(), "log_score_by_day": gained}

    def _weigh(self, problem: AbstractProblem, state: State, day: float) -> State:
        """Takes in as much of a day as the particles stand; with too few left over, they are resampled."""
        current = weighted(problem, state)
        mask = (problem.term_days == day) & (state["exponents"] < 1)
        terms = np.asarray(log_terms_of(current, self.vectorized, jnp.asarray(state["z"])))
        gain = _impossible_unless_finite(terms[:, mask].sum(axis=1))
        rest = 1.0 - float(state["exponents"][mask][0])
        enough = self.least_share * self.particles
        share = _largest_share(state["log_weights"], gain, rest, enough)
        increments = _incremented(state["log_weights"], gain, share)
        gained = float(np.logaddexp.reduce(increments))
        if not np.isfinite(gained):
            raise FloatingPointError(
                f"required: a particle that the data of day {day:g} do not exclude; received: none of "
                f"{self.particles}; try: more particles, a wider prior, or a larger residual error"
            )
        log_weights = increments - gained
        whole = share >= rest - LEAST_SHARE
        exponents = np.where(mask, 1.0 if whole else 1.0 - rest + share, state["exponents"])
        ess = effective_draws(log_weights)
        state = {
            **state,
            "log_weights": log_weights,
            "exponents": exponents,
            "log_evidence": state["log_evidence"] + gained,
            "log_evidence_variance": state["log_evidence_variance"]
            + _relative_variance(state["log_weights"], increments),
            "moved": np.asarray(False),
            "solves": state["solves"] + self.particles,
        }
        seen = {"day": day, "exponent": exponents[mask][0], "ess": ess, "log_evidence": gained}
        state = _recorded(state, {**seen, "acceptance": 1.0, "correlation": 0.0, "sweeps": 0.0})
        return state if whole and ess >= enough else self._resampled(state)

    def _resampled(self, state: State) -> State:
        """Equal weights by systematic resampling, and the start of a rejuvenation."""
        n = len(state["z"])
        key = child_key(self._key(state), "resample")
        z = state["z"][systematic_rows(np.exp(state["log_weights"]), n, key=key)]
        return {
            **state,
            "z": z,
            "origin": z,
            "log_weights": np.full(n, -np.log(n)),
            "moving": np.asarray(True),
            "swept": np.asarray(0),
        }

    def _sweep(self, problem: AbstractProblem, state: State) -> State:
        given = Moves(
            jnp.asarray(state["exponents"]),
            *preconditioner(state["origin"]),
            jnp.asarray(state["origin"]),
            jnp.asarray(self.largest_correlation),
        )
        settings = (self.kernel, self.leapfrog, self.vectorized)
        limit = min(self.chunk, self.sweeps - int(state["swept"]))
        key = jax.random.fold_in(child_key(self._key(state), "sweep"), int(state["swept"]))
        found = moved(
            weighted(problem, state),
            settings,
            given,
            jnp.asarray(state["z"]),
            jnp.asarray(state["scale"]),
            jnp.asarray(limit),
            key,
        )
        swept = int(state["swept"]) + int(found.sweeps)
        correlation = float(found.correlation)
        done = correlation < self.largest_correlation or swept >= self.sweeps
        per_sweep = self.leapfrog if self.kernel == "hmc" else 1
        state = {
            **state,
            "z": np.asarray(found.z),
            "scale": np.asarray(found.scale),
            "swept": np.asarray(swept),
            "solves": state["solves"] + (int(found.sweeps) * per_sweep + 1) * len(state["z"]),
        }
        if not done:
            return state
        for name, value in (("acceptance", float(found.acceptance)), ("correlation", correlation), ("sweeps", swept)):
            column = state[f"stage_{name}"].copy()
            column[-1:] = value
            state[f"stage_{name}"] = column
        return {**state, "moving": np.asarray(False), "moved": np.asarray(True), "origin": state["origin"][:0]}

    def _key(self, state: State) -> Array:
        """A key of the present stage, in which the particles are resampled once at most."""
        return jax.random.fold_in(child_key(state_key(state), "stage"), state["stage_ess"].size)


STAGES = ("day", "exponent", "ess", "log_evidence", "acceptance", "correlation", "sweeps")
"""What is kept of every stage."""


def pending_days(problem: AbstractProblem, state: State) -> np.ndarray:
    """Days with terms that are not taken in wholly, increasing."""
    days = problem.term_days
    return np.unique(days[(state["exponents"] < 1) & ~np.isnan(days)])


def weighted(problem: AbstractProblem, state: State) -> AbstractProblem:
    """The problem with the power-likelihood weights of the state."""
    return problem.with_weights(jnp.asarray(state["weights"])) if isinstance(problem, Problem) else problem


def log_targets(problem: AbstractProblem, calibrator: SmcCalibrator, state: State) -> np.ndarray:
    """Log of prior x the terms taken in, of every particle."""
    current, z = weighted(problem, state), jnp.asarray(state["z"])
    terms = np.asarray(log_terms_of(current, calibrator.vectorized, z))
    taken = state["exponents"] > 0
    return _impossible_unless_finite(terms[:, taken] @ state["exponents"][taken]) + np.asarray(_log_priors(current, z))


def preconditioner(z: np.ndarray) -> tuple[Array, Array]:
    """Mean of the particles and a factor of their covariance, correlations shrunk as far as particles are few."""
    mean, covariance = z.mean(axis=0), np.atleast_2d(np.cov(z.T))
    held = z.shape[1] / (z.shape[1] + len(z))
    diagonal = np.diag(covariance)
    covariance = (1 - held) * covariance + held * np.diag(diagonal)
    return jnp.asarray(mean), jnp.asarray(np.linalg.cholesky(covariance + 1e-12 * np.diag(np.maximum(diagonal, 1e-12))))


@eqx.filter_jit
def _prior_points(problem: AbstractProblem, n: int, key: Array) -> Array:
    return problem.sample_prior(n, key=key)


@eqx.filter_jit
def _log_priors(problem: AbstractProblem, z: Array) -> Array:
    return jax.vmap(problem.log_prior)(z)


def _impossible_unless_finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, -np.inf)


def _incremented(log_weights: np.ndarray, gain: np.ndarray, share: float) -> np.ndarray:
    """Unnormalized log weights after a share of the gain; what is impossible stays so at any share."""
    possible = np.isfinite(gain)
    return np.where(possible, log_weights + share * np.where(possible, gain, 0.0), -np.inf)


def _largest_share(log_weights: np.ndarray, gain: np.ndarray, rest: float, enough: float) -> float:
    """The largest exponent up to `rest` that leaves `enough` effective particles, by bisection; 0 when none does."""

    def ess(share: float) -> float:
        raw = _incremented(log_weights, gain, share)
        top = float(np.logaddexp.reduce(raw))
        return effective_draws(raw - top) if np.isfinite(top) else 0.0

    if ess(rest) >= enough:
        return rest
    low, high = 0.0, rest
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if ess(middle) >= enough else (low, middle)
    return low if low > 0 else high


def _relative_variance(log_weights: np.ndarray, increments: np.ndarray) -> float:
    """Relative variance of the mean incremental weight (delta method)."""
    with np.errstate(invalid="ignore"):
        raw = np.exp(increments - log_weights - np.logaddexp.reduce(increments))
    ratios = np.where(np.isneginf(increments), 0.0, raw)
    weights = np.exp(log_weights)
    return float(np.sum(weights**2 * (ratios - np.sum(weights * ratios)) ** 2))


def _recorded(state: State, seen: dict[str, Any]) -> State:
    return {**state, **{f"stage_{k}": np.append(state[f"stage_{k}"], float(v)) for k, v in seen.items()}}


def _weights_by_name(problem: AbstractProblem, state: State) -> dict[str, Any]:
    if not isinstance(problem, Problem):
        return {}
    known = {"weights": "weights", "correlation_volume": "correlation_volume_mm3"}
    names = [datum.name for datum in problem.data]
    return {
        said: dict(zip(names, map(float, state[name]), strict=True)) for name, said in known.items() if name in state
    }


def _with_weights(problem: AbstractProblem) -> Problem:
    if not isinstance(problem, Problem):
        raise ValueError(
            f"required: weigh_by=None for a {type(problem).__name__}, which has no power likelihood; received: a stage "
            "that estimates weights"
        )
    return problem
