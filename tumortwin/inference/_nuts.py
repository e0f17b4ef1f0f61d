"""NUTS in the coordinates of the Laplace approximation, in chunks that survive a kill."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, plain, restored, state_key
from tumortwin.inference._identifiability import contraction_statement, identifiability_of_draws
from tumortwin.inference._laplace import LaplaceCalibrator, constrained_draws
from tumortwin.inference._pathfinder import PathfinderCalibrator
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem, Problem, value_and_gradient

LEAF = "kernel_"
HALFWAY = 0.5
# Points tried for every chain until one has a finite density and gradient: a chain on an impossible one never moves.
ATTEMPTS = 100
Space: TypeAlias = tuple[Any, Array, Array]
"""Problem, `m`, `L` (a matrix, or a vector: its diagonal)."""


class NutsCalibrator(AbstractCalibrator):
    """The No-U-Turn sampler on `epsilon`, with `z = m + L epsilon` and `m`, `L L^T` from the Laplace approximation.

    In these coordinates the posterior is close to a standard normal one, so the mass matrix stays the identity and only
    the step size is adapted. A hierarchical model has no useful mode: with `laplace=None` the chains start halfway
    between draws of the prior and its mode, and the mass matrix is adapted in the warmup, as in Stan. With a `start`
    they begin at draws that Pathfinder finds, with its covariance as first mass matrix.

    A step is one chunk of `chunk` transitions of all chains (warmup included); the whole sampler state is in the
    state, so a run that was killed between two chunks ends with bitwise the same numbers.

    Needs a `solve` with reverse-mode derivatives.

    **Arguments:** `laplace`: the stage before, or `None`; `start`: with `laplace=None`, the stage that finds where the
    chains start (`None`: the prior); `dense`: whether an adapted mass matrix has correlations, of `largest_dense`
    parameters at most (`None`: of any number; beyond it the matrix is diagonal);
    `warmup` and `draws` a chain; `accept`: target acceptance; `tree_depth`: at most `2^depth - 1`
    gradients a transition; `warmup_tree_depth`: the same in the warmup (`None`: as after it); `threads`: chains that
    run at the same time, each one after another otherwise (a `vmap` over 3-D solves is 3-5 times slower); `vectorized`
    chains for models with small states.

    **Good values:** warmup 100-300 after a Laplace stage, 500-1000 without; draws 250-1000, accept .8, tree_depth 6-10,
    warmup_tree_depth 5 where a mass matrix is adapted: before it is known trajectories are long and teach little (of
    the 304,000 gradients for 53 mice 244,000 were spent in the warmup; with depth 5 it takes 97,000, and the draws are
    as good). `dense` with more than some 5 transitions of warmup a parameter; its matrix costs size^2 a gradient.

    Reference: Hoffman & Gelman (2014), JMLR 15:1593; Phan, Pradhan & Jankowiak (2019), arXiv:1912.11554 (NumPyro).
    """

    laplace: LaplaceCalibrator | None = LaplaceCalibrator()
    start: PathfinderCalibrator | None = None
    dense: bool = False
    largest_dense: int | None = None
    chains: int = 4
    warmup: int = 150
    draws: int = 250
    chunk: int = 25
    accept: float = 0.8
    tree_depth: int = 8
    warmup_tree_depth: int | None = None
    first_step: float = 0.5
    threads: int = 1
    vectorized: bool = False

    def __check_init__(self) -> None:
        if self.start is not None and self.laplace is not None:
            raise ValueError("required: `laplace=None` with a `start`; received: two stages that say where to start")
        if self.chains < 2 or self.chunk < 1 or self.draws < 4:
            raise ValueError(
                "required: at least 2 chains (R-hat compares them), 4 draws and a chunk of 1; "
                f"received: {self.chains}, {self.draws}, {self.chunk}"
            )
        depths = (self.tree_depth, self.tree_depth if self.warmup_tree_depth is None else self.warmup_tree_depth)
        if min(depths) < 1:
            raise ValueError(f"required: trees of depth 1 or more; received: {depths[0]}, in the warmup {depths[1]}")

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        if self.laplace is not None:
            return self.laplace.init(_with_laplace(problem), key=key)
        if self.start is not None:
            return self.start.init(problem, key=key)
        return {"key": np.asarray(jax.random.key_data(key)), "z": np.zeros(problem.size)}

    def step(self, problem: AbstractProblem, state: State) -> State:
        """A step of the Laplace stage, the start of the chains, or one chunk of every chain."""
        if self.laplace is not None and not self.laplace.terminate(_with_laplace(problem), state):
            return self.laplace.step(_with_laplace(problem), state)
        if self.start is not None and not self.start.terminate(problem, state):
            return self.start.step(problem, state)
        space = self._space(problem, state)
        if "chain_z" not in state:
            return {**state, **self._first(space, state)}
        return {**state, **self._advance(space, state)}

    def _space(self, problem: AbstractProblem, state: State) -> "Space":
        """The problem and the coordinates in which it is sampled."""
        if self.laplace is None:
            return problem, jnp.zeros(problem.size), jnp.ones(problem.size)
        fitted = self.laplace.fitted(state)
        current = _with_laplace(problem).with_weights(jnp.asarray(state["weights"]))
        return current, jnp.asarray(fitted.mean), jnp.asarray(fitted.factor)

    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        del problem
        return "chain_z" in state and state["chain_z"].shape[1] >= self.warmup + self.draws

    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        done, total = (0, 0) if self.laplace is None else self.laplace.progress(_with_laplace(problem), state)
        if self.start is not None:
            done, total = self.start.progress(problem, state)
        chunks = -(-(self.warmup + self.draws) // self.chunk)
        return done + (state["chain_z"].shape[1] // self.chunk if "chain_z" in state else 0), total + chunks

    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        kept = slice(self.warmup, self.warmup + self.draws)
        z, log_density = state["chain_z"][:, kept], state["chain_log_density"][:, kept]
        draws = constrained_draws(problem, z)
        before = self._before(problem, state, z)
        r_hat, ess = split_gelman_rubin(z), effective_sample_size(z)
        return Posterior(
            draws=draws,
            log_weights=None,
            diagnostics={
                **before.diagnostics,
                "r_hat": float(np.max(r_hat)),
                "ess": float(np.min(ess)),
                "divergences": float(np.sum(state["chain_diverging"][:, kept])),
                "gradients": float(np.sum(state["chain_gradients"])),
                "step_size": float(np.mean(state["chain_step_size"][:, -1])),
                "deepest_tree": float(np.log2(np.max(state["chain_gradients"][:, kept]) + 1)),
            },
            statement=before.statement,
            info={**before.info, "slowest_parameter": problem.names[int(np.argmin(ess))]},
            prior_draws=problem.prior_draws(z.shape[0] * z.shape[1], key=child_key(state_key(state), "prior")),
            log_density=log_density,
            monte_carlo_error={path: _standard_error(value) for path, value in draws.items()},
        )

    def _before(self, problem: AbstractProblem, state: State, z: np.ndarray) -> "_Said":
        """What the Laplace stage and the draws `z` [chain, draw, parameter] have to say."""
        if self.laplace is None:
            known = problem.scalars
            spent = {} if self.start is None else {"start_gradients": float(np.sum(state["path_gradients"]))}
            return _Said(
                spent, contraction_statement(known, z[..., : len(known)]), {"parameter_names": list(problem.names)}
            )
        spatial, flat = _with_laplace(problem), z.reshape(-1, z.shape[-1])
        key = child_key(state_key(state), "identifiability")
        report = identifiability_of_draws(spatial, flat, np.ones(len(flat)), key=key)
        info = {**self.laplace.info(spatial, state), "identifiability": report.as_plain()}
        return _Said(self.laplace.diagnostics(spatial, state), report.statement, info)

    def _first(self, space: "Space", state: State) -> State:
        key = child_key(state_key(state), "nuts")
        chain_keys = jax.random.split(child_key(key, "chains"), self.chains)
        states: dict[int, Any] = {}
        for attempt in range(ATTEMPTS):
            starts_key = child_key(key, "starts")
            points, metric = self._points(
                space, state, jax.random.fold_in(starts_key, attempt) if attempt else starts_key
            )
            for chain in (c for c in range(self.chains) if c not in states):
                found = _first_state(self, space, points[chain], chain_keys[chain], metric)
                if np.isfinite(found.potential_energy) and np.isfinite(found.z_grad).all():
                    states[chain] = found
            if len(states) == self.chains:
                break
        else:
            raise FloatingPointError(
                f"required: a point with a finite log density and gradient to start every chain from; received: "
                f"{len(states)} of {self.chains} chains after {ATTEMPTS} points each; try: a prior that keeps away "
                "from where the model fails, or the calibrator nuts_from_pathfinder"
            )
        empty = np.zeros((self.chains, 0))
        fields = {f"chain_{name}": empty for name in ("log_density", "diverging", "gradients", "step_size")}
        size = space[1].shape[0]
        first = _to_arrays([states[chain] for chain in range(self.chains)])
        return {**fields, "chain_z": np.zeros((self.chains, 0, size)), **first}

    def _points(self, space: "Space", state: State, key: Array) -> tuple[Array, Array | None]:
        """Where the chains start, and the inverse mass matrix to start with (`None`: the identity)."""
        if self.start is not None:
            found, covariance = self.start.starts(state, self.chains, key=key)
            return jnp.asarray(found), jnp.asarray(
                covariance if _is_dense(self, len(covariance)) else np.diag(covariance)
            )
        if self.laplace is None:
            return HALFWAY * _prior_points(space[0], self.chains, key), None
        return jax.random.normal(key, (self.chains, space[1].shape[0])), None

    def _advance(self, space: Space, state: State) -> State:
        states = _from_arrays(self, space[1].shape[0], state)
        if self.vectorized:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            moved, seen = _transitions_of_all(self, space, stacked)
            results = [jax.tree.map(lambda leaf, c=chain: leaf[c], (moved, seen)) for chain in range(self.chains)]
        elif self.threads > 1:
            with ThreadPoolExecutor(self.threads) as pool:
                results = list(pool.map(lambda one: jax.block_until_ready(_transitions(self, space, one)), states))
        else:
            results = [_transitions(self, space, one) for one in states]
        update = _to_arrays([result[0] for result in results])
        for name in results[0][1]:
            new = np.stack([np.asarray(result[1][name]) for result in results])
            update[f"chain_{name}"] = np.concatenate([state[f"chain_{name}"], new], axis=1)
        return update


class _Said(NamedTuple):
    """What there is to report beside the draws."""

    diagnostics: dict[str, float]
    statement: str
    info: dict[str, Any]


def _with_laplace(problem: AbstractProblem) -> Problem:
    if not isinstance(problem, Problem):
        raise ValueError(
            f"required: NutsCalibrator(laplace=None) for a {type(problem).__name__}, which has no useful mode; "
            "received: a Laplace stage"
        )
    return problem


@eqx.filter_jit
def _prior_points(problem: AbstractProblem, n: int, key: Array) -> Array:
    return problem.sample_prior(n, key=key)


def _standard_error(draws: np.ndarray) -> np.ndarray:
    """Standard error of the mean of chains [chain, draw, ...]; 0 for what never moves (a correlation with itself)."""
    flat = draws.reshape(*draws.shape[:2], -1)
    spread = flat.std(axis=(0, 1))
    found, moving = np.zeros_like(spread), spread > 0
    found[moving] = spread[moving] / np.sqrt(effective_sample_size(flat[..., moving]))
    return found.reshape(draws.shape[2:])


def _moved(space: "Space", epsilon: Array) -> Array:
    """`m + L epsilon`; a vector `L` is a diagonal."""
    _, mean, factor = space
    return mean + (factor * epsilon if factor.ndim == 1 else factor @ epsilon)


def _potential(problem: AbstractProblem | None, mean: Array, factor: Array) -> Any:
    if problem is None:
        return lambda epsilon: 0.5 * jnp.sum(epsilon**2)
    return lambda epsilon: -problem.log_density(_moved((problem, mean, factor), epsilon))


def _is_dense(settings: NutsCalibrator, size: int) -> bool:
    return settings.dense and (settings.largest_dense is None or size <= settings.largest_dense)


def _kernel(
    settings: NutsCalibrator, space: Space, start: Array | ParamInfo, key: Array, metric: Array | None = None
) -> tuple[Any, Any]:
    """NumPyro's sampler and its state at `start`; it must be made in the trace that samples: it sets the adaptation."""
    init_kernel, sample_kernel = hmc(potential_fn_gen=_potential, algo="NUTS")
    state = init_kernel(
        start,
        num_warmup=settings.warmup,
        step_size=settings.first_step,
        inverse_mass_matrix=metric,
        adapt_mass_matrix=settings.laplace is None,
        dense_mass=_is_dense(settings, space[1].shape[0]),
        target_accept_prob=settings.accept,
        # A pair (warmup, afterwards) is what NumPyro documents; its annotation says int.
        max_tree_depth=(settings.warmup_tree_depth or settings.tree_depth, settings.tree_depth),  # pyright: ignore[reportArgumentType]
        model_args=space,
        rng_key=key,
    )
    return state, sample_kernel


def _first_state(settings: NutsCalibrator, space: Space, start: Array, key: Array, metric: Array | None) -> Any:
    """The sampler at `start`, density and gradient by the program that others may have compiled (`whitened` has)."""
    problem, _, factor = space
    value, slope = value_and_gradient(problem, _moved(space, start))
    slope = factor * slope if factor.ndim == 1 else factor.T @ slope
    return _state_at(settings, space, ParamInfo(start, -value, -slope), key, metric)


@eqx.filter_jit
def _state_at(settings: NutsCalibrator, space: Space, start: ParamInfo, key: Array, metric: Array | None) -> Any:
    return _kernel(settings, (None, *space[1:]), start, key, metric)[0]


def _scan(settings: NutsCalibrator, space: Space, state: Any) -> tuple[Any, dict[str, Array]]:
    _, sample = _kernel(settings, (None, *space[1:]), jnp.zeros_like(space[1]), jax.random.key(0))

    def transition(carry: Any, _: None) -> tuple[Any, dict[str, Array]]:
        carry = sample(carry, space, {})
        seen = {
            "z": _moved(space, carry.z),
            "log_density": -carry.potential_energy,
            "diverging": carry.diverging.astype(float),
            "gradients": carry.num_steps.astype(float),
            "step_size": carry.adapt_state.step_size,
        }
        return carry, seen

    return jax.lax.scan(transition, state, None, length=settings.chunk)


@eqx.filter_jit
def _transitions(settings: NutsCalibrator, space: Space, state: Any) -> tuple[Any, dict[str, Array]]:
    """One chunk of one chain."""
    return _scan(settings, space, state)


@eqx.filter_jit
def _transitions_of_all(settings: NutsCalibrator, space: Space, states: Any) -> tuple[Any, dict[str, Array]]:
    """One chunk of all chains side by side."""
    return jax.vmap(lambda state: _scan(settings, space, state))(states)


def _to_arrays(states: list[Any]) -> State:
    """The leaves of the sampler states, chains first; keys as their data."""
    columns = zip(*(jax.tree.leaves(state) for state in states), strict=True)
    return {f"{LEAF}{i:02d}": np.stack([plain(leaf) for leaf in column]) for i, column in enumerate(columns)}


def _from_arrays(settings: NutsCalibrator, size: int, state: State) -> list[Any]:
    """The inverse of `_to_arrays`; the structure comes from a sampler on a standard normal."""
    mean = jax.ShapeDtypeStruct((size,), jnp.zeros(0).dtype)
    shapes = jax.eval_shape(
        lambda start, key: _kernel(settings, (None, start, start), start, key)[0], mean, jax.random.key(0)
    )
    leaves, structure = jax.tree.flatten(shapes)
    chains = []
    for chain in range(settings.chains):
        values = [restored(np.asarray(state[f"{LEAF}{i:02d}"][chain]), leaf) for i, leaf in enumerate(leaves)]
        chains.append(jax.tree.unflatten(structure, values))
    return chains
