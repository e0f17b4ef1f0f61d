"""A cheap density proposes, the model's own accepts: the chain's law is the posterior of the model."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, state_key
from tumortwin.inference._identifiability import contraction_statement
from tumortwin.inference._laplace import constrained_draws
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem, Problem

# Roberts & Rosenthal (2001), Stat. Sci. 16:351: scale and acceptance of a random walk on a normal target.
WALK, WANTED = 2.38, 0.234
ROUNDS = 10  # of the search, each with the covariance that the one before has found
GAIN = 1.0  # the log of a scale changes by at most this for one proposal, and by less and less
ATTEMPTS = 1000  # points tried for every chain until one is possible
HALFWAY = 0.5
LARGEST_R_HAT = 1.05  # beyond it a sample is not called reliable; `require_converged` is stricter


class DelayedAcceptanceCalibrator(AbstractCalibrator):
    """Two-stage Metropolis: `inner` random-walk steps on a surrogate's density, then one solve of the model.

    $$ y \\sim K^*_n(x, \\cdot), \\quad K^* \\text{ reversible for } \\pi^*, \\qquad
       a(x, y) = \\min\\Big(1, \\frac{\\pi(y)\\, \\pi^*(x)}{\\pi(x)\\, \\pi^*(y)}\\Big) $$

    Since a power of a reversible kernel is reversible, the outer chain is reversible for the model's own density `pi`:
    its draws are those of the model, and a bad surrogate costs solves, not truth. A surrogate that equals the model is
    always accepted. An inner chain that ends where it began costs no solve.

    Where the surrogate is zero nothing is ever proposed. Therefore a share `direct` of the outer steps is a plain
    random-walk step on `pi` itself: the mixture is still reversible, and reaches whatever the model allows. A state at
    which the surrogate is zero can only be left by such a step; `outside_surrogate` is the share of the draws there,
    and `sample_reliable` is 0 where there are any, since a chain crosses that border by direct steps alone, or where
    R-hat exceeds 1.05.

    The search before (`search` steps a chain, on the surrogate only) finds the covariance and the scale of the random
    walk; both are then fixed, so that nothing adapts while the model is asked. No gradient is taken of either.

    **Arguments:** `surrogate`: a problem in the same coordinates (`stand_in`, or any other `AbstractProblem` of the
    same parameters); `inner` steps a proposal; `direct` share of plain steps; `search` steps a chain; `chains`,
    `warmup` and `draws` each; `chunk` transitions a step; `vectorized`: chains side by side (small states) or one after
    another (3-D; a proposal that ended where it began is then really not solved).

    **Good values:** inner 10-50 (some five steps a parameter and more, as they are nearly free); direct .05-.1; search
    500 steps a round (ten rounds) and more; warmup 20-50, since the chains start in the surrogate's posterior.

    **Limits:** (mathematical) where the surrogate's tails are thinner than the model's, pi / pi* has no bound and a
    chain may sit in a tail for long; R-hat and the effective draws of several chains say so late. A surrogate with one
    of two modes leaves the other to the direct steps. (For convenience) the inner chain is a random walk: on a thin,
    bent ridge it does not travel, however good the surrogate (`experiments/delayed_acceptance`).

    Reference: Christen & Fox (2005), J. Comput. Graph. Stat. 14:795; Liu (2001), Monte Carlo Strategies in Scientific
    Computing, 9.4.3 (surrogate transitions); Lykkegaard et al. (2023), SIAM/ASA J. Uncertain. Quantif. 11:1.
    """

    surrogate: AbstractProblem
    inner: int = 25
    direct: float = 0.05
    search: int = 5000
    chains: int = 4
    warmup: int = 25
    draws: int = 250
    chunk: int = 25
    vectorized: bool = False

    def __check_init__(self) -> None:
        sizes = (self.inner, self.search // (2 * ROUNDS), self.chunk, self.warmup + 1)
        if min(sizes) < 1 or self.chains < 2 or self.draws < 4 or not 0 < self.direct < 1:
            raise ValueError(
                f"required: inner and chunk at least 1, search at least {2 * ROUNDS}, 2 chains, 4 draws, and "
                "0 < direct < 1 (without plain steps a surrogate that is zero leaves a hole); received: "
                f"{self.inner}, {self.chunk}, {self.search}, {self.chains}, {self.draws}, {self.direct}"
            )

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        if self.surrogate.names != problem.names:
            raise ValueError(
                f"required: a surrogate with the parameters of the problem, {', '.join(problem.names)}; "
                f"received: {', '.join(self.surrogate.names)}"
            )
        weights = {"weights": np.asarray(problem.weights)} if isinstance(problem, Problem) else {}
        return {"key": np.asarray(jax.random.key_data(key)), "z": np.zeros((self.chains, problem.size)), **weights}

    def step(self, problem: AbstractProblem, state: State) -> State:
        """The search on the surrogate, the first solves, or one chunk of every chain."""
        if "chain_z" not in state:
            return {**state, **self._start(problem, state)}
        done = state["chain_z"].shape[1]
        keys = jax.random.split(jax.random.fold_in(child_key(state_key(state), "delayed"), done), self.chains)
        here = _Place(*(jnp.asarray(state[name]) for name in ("z", "target", "cheap")))
        walk = jnp.asarray(state["factor"])
        there, seen = _transitions(self, problem, walk, here, keys)
        grown = {
            f"chain_{name}": np.concatenate([state[f"chain_{name}"], np.asarray(rows)], axis=1)
            for name, rows in seen._asdict().items()
        }
        return {**state, **{name: np.asarray(value) for name, value in there._asdict().items()}, **grown}

    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        del problem
        return "chain_z" in state and state["chain_z"].shape[1] >= self.warmup + self.draws

    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        del problem
        total = 1 - (-(self.warmup + self.draws) // self.chunk)
        return (1 + state["chain_z"].shape[1] // self.chunk if "chain_z" in state else 0), total

    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        kept = slice(self.warmup, self.warmup + self.draws)
        z = state["chain_z"][:, kept]
        draws, known = constrained_draws(problem, z), problem.scalars
        ess = effective_sample_size(z)
        outside = float(np.mean(~np.isfinite(state["chain_cheap"][:, kept])))
        r_hat = float(np.max(split_gelman_rubin(z)))
        solves = float(state["first_solves"] + state["chain_solved"].sum())
        return Posterior(
            draws=draws,
            log_weights=None,
            diagnostics={
                "r_hat": r_hat,
                "ess": float(np.min(ess)),
                "solves": solves,
                "surrogate_solves": self._surrogate_solves(state),
                "solves_per_effective_draw": solves / float(np.min(ess)),
                "first_stage_moved": _share(state["chain_moved"], ~state["chain_direct"]),
                "second_stage_accepted": _share(state["chain_accepted"], state["chain_moved"]),
                "direct_accepted": _share(state["chain_accepted"], state["chain_direct"]),
                "outside_surrogate": outside,
                "sample_reliable": float(outside == 0.0 and r_hat < LARGEST_R_HAT),
            },
            statement=contraction_statement(known, z[..., : len(known)]),
            info={"slowest_parameter": problem.names[int(np.argmin(ess))]},
            prior_draws=problem.prior_draws(z.shape[0] * z.shape[1], key=child_key(state_key(state), "prior")),
            log_density=state["chain_target"][:, kept],
            monte_carlo_error={path: _standard_error(value) for path, value in draws.items()},
        )

    def _surrogate_solves(self, state: State) -> float:
        """Densities of the surrogate: the search, the inner steps, and one for every direct step."""
        plain = float(state["chain_direct"].sum())
        return self.chains * self.search + self.inner * (state["chain_direct"].size - plain) + plain

    def _start(self, problem: AbstractProblem, state: State) -> State:
        """Covariance and scale from the surrogate, and a possible point of both densities for every chain."""
        key = child_key(state_key(state), "search")
        z = self._possible(key)
        size, steps = problem.size, self.search // ROUNDS
        factor = HALFWAY * jnp.eye(size)
        scale = jnp.asarray(WALK / np.sqrt(size))
        rows = np.zeros((self.chains, 0, size))
        for i in range(ROUNDS):
            keys = jax.random.split(jax.random.fold_in(key, i), self.chains)
            z, scales, path = _searched(self.surrogate, factor, scale, z, keys, steps)
            rows = np.asarray(path)[:, steps // 2 :]
            scale = jnp.exp(jnp.mean(jnp.log(scales)))
            if i < ROUNDS - 1:
                factor, scale = _factor(rows, factor, scale), jnp.asarray(WALK / np.sqrt(size))
        places, solves = self._solved_starts(problem, np.array(z), rows.reshape(-1, size), child_key(key, "starts"))
        empty = np.zeros((self.chains, 0))
        flags = {f"chain_{name}": empty.astype(bool) for name in ("direct", "moved", "solved", "accepted")}
        return {
            **places,
            "factor": np.asarray(scale * factor),
            "first_solves": np.asarray(solves),
            "chain_z": np.zeros((self.chains, 0, size)),
            "chain_target": empty,
            "chain_cheap": empty,
            **flags,
        }

    def _solved_starts(
        self, problem: AbstractProblem, points: np.ndarray, pool: np.ndarray, key: Array
    ) -> tuple[State, float]:
        """Both densities at `points`; one at which the model's is zero is replaced by another of `pool`."""
        random, solves = np.random.default_rng(np.asarray(jax.random.key_data(key))), 0.0
        for _ in range(ATTEMPTS):
            target, cheap = (np.asarray(value) for value in _both(self, problem, jnp.asarray(points)))
            solves += len(points)
            bad = np.flatnonzero(~np.isfinite(target))
            if not bad.size:
                return {"z": points, "target": target, "cheap": cheap}, solves
            points[bad] = pool[random.choice(len(pool), bad.size)]
        raise FloatingPointError(
            f"required: a point of the surrogate's posterior at which the model's density is not zero, for each of "
            f"{self.chains} chains; received: none in {ATTEMPTS} tries; try: another surrogate"
        )

    def _possible(self, key: Array) -> Array:
        """Points halfway between draws of the prior and its middle, where the surrogate is not zero."""
        found: list[np.ndarray] = []
        for i in range(ATTEMPTS // self.chains):
            drawn = HALFWAY * self.surrogate.sample_prior(self.chains, key=jax.random.fold_in(key, ROUNDS + i))
            found += list(np.asarray(drawn)[np.isfinite(np.asarray(_densities(self.surrogate, drawn)))])
            if len(found) >= self.chains:
                return jnp.asarray(np.stack(found[: self.chains]))
        raise FloatingPointError(
            f"required: a surrogate that is not zero over all of the prior; received: {len(found)} of {ATTEMPTS} "
            "points at which it is not; try: another surrogate"
        )


class _Place(NamedTuple):
    """Where a chain is, with the logs of both densities there."""

    z: Array
    target: Array
    cheap: Array


class _Seen(NamedTuple):
    """What is kept of every outer step: the place after it, and what it did."""

    z: Array
    target: Array
    cheap: Array
    direct: Array
    moved: Array
    solved: Array
    accepted: Array


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    """Of those in `whole`, the share that is in `part`; 1 of none."""
    return float(np.mean(part[whole])) if whole.any() else 1.0


def _standard_error(draws: np.ndarray) -> np.ndarray:
    flat = draws.reshape(*draws.shape[:2], -1)
    error = flat.std(axis=(0, 1)) / np.sqrt(effective_sample_size(flat))
    return error.reshape(draws.shape[2:])


def _factor(rows: np.ndarray, before: Array, scale: Array) -> Array:
    """Triangular factor of the covariance of the second half of a round, held by the one before.

    The proposals of the round count as one draw a parameter: chains that hardly moved do not end in a singular matrix.
    """
    flat = rows.reshape(-1, rows.shape[-1])
    size = flat.shape[1]
    moved = np.asarray(scale * before)
    spread = np.cov(flat, rowvar=False).reshape(size, size)
    n = len(flat) / 10.0  # neighbors of a random walk are alike
    return jnp.asarray(np.linalg.cholesky((n * spread + size * moved @ moved.T) / (n + size)))


@eqx.filter_jit
def _densities(problem: AbstractProblem, z: Float[Array, "chain parameter"]) -> Array:
    return jax.lax.map(problem.log_density, z)


@eqx.filter_jit
def _both(settings: DelayedAcceptanceCalibrator, problem: AbstractProblem, z: Array) -> tuple[Array, Array]:
    return jax.lax.map(problem.log_density, z), jax.lax.map(settings.surrogate.log_density, z)


def _walked(
    surrogate: AbstractProblem, factor: Array, z: Array, value: Array, key: Array
) -> tuple[Array, Array, Array]:
    """One random-walk step on the surrogate, and the chance with which it was taken."""
    move_key, accept_key = jax.random.split(key)
    there = z + factor @ jax.random.normal(move_key, z.shape)
    found = surrogate.log_density(there)
    chance = jnp.where(jnp.isfinite(found), jnp.exp(jnp.minimum(found - value, 0.0)), 0.0)
    taken = jax.random.uniform(accept_key) < chance
    return jnp.where(taken, there, z), jnp.where(taken, found, value), chance


@eqx.filter_jit
def _searched(
    surrogate: AbstractProblem, factor: Array, scale: Array, z: Array, keys: Array, steps: int
) -> tuple[Array, Array, Array]:
    """A round of the search: last places, scales and paths [chain, step, parameter]."""

    def one(start: Array, key: Array) -> tuple[Array, Array, Array]:
        def step(carry: tuple[Array, Array, Array], given: tuple[Array, Array]) -> tuple[tuple, Array]:
            place, value, size = carry
            own, i = given
            place, value, chance = _walked(surrogate, size * factor, place, value, own)
            return (place, value, size * jnp.exp(GAIN * (chance - WANTED) / jnp.sqrt(i + 1.0))), place

        first = (start, surrogate.log_density(start), scale)
        given = (jax.random.split(key, steps), jnp.arange(steps))
        (place, _, size), path = jax.lax.scan(step, first, given)
        return place, size, path

    return jax.vmap(one)(z, keys)


def _outer(
    settings: DelayedAcceptanceCalibrator, problem: AbstractProblem, factor: Array, here: _Place, key: Array
) -> tuple[_Place, _Seen]:
    """One outer step: a proposal by the surrogate or a plain one, and at most one solve."""
    kind_key, inner_key, accept_key = jax.random.split(key, 3)
    direct = jax.random.uniform(kind_key) < settings.direct
    possible = jnp.isfinite(here.cheap)

    def by_surrogate(start: Array) -> tuple[Array, Array]:
        def step(carry: tuple[Array, Array], own: Array) -> tuple[tuple[Array, Array], None]:
            return _walked(settings.surrogate, factor, *carry, own)[:2], None

        return jax.lax.scan(step, (start, here.cheap), jax.random.split(inner_key, settings.inner))[0]

    def plainly(start: Array) -> tuple[Array, Array]:
        there = start + factor @ jax.random.normal(inner_key, start.shape)
        return there, settings.surrogate.log_density(there)

    def stay(start: Array) -> tuple[Array, Array]:
        return start, here.cheap

    branch = jnp.where(direct, 2, jnp.where(possible, 1, 0))
    there, cheap = jax.lax.switch(branch, (stay, by_surrogate, plainly), here.z)
    moved = jnp.any(there != here.z)
    target = jax.lax.cond(moved, lambda at: problem.log_density(at), lambda _: here.target, there)
    # Written so that equal densities give exactly 0: a surrogate that is the model is never refused.
    ratio = jnp.where(direct, target - here.target, (target - cheap) - (here.target - here.cheap))
    chance = jnp.where(jnp.isfinite(target), jnp.exp(jnp.minimum(ratio, 0.0)), 0.0)
    accepted = moved & (jax.random.uniform(accept_key) < chance)
    new = jax.tree.map(lambda now, then: jnp.where(accepted, now, then), _Place(there, target, cheap), here)
    return new, _Seen(new.z, new.target, new.cheap, direct, moved & ~direct, moved, accepted)


@eqx.filter_jit
def _transitions(
    settings: DelayedAcceptanceCalibrator, problem: AbstractProblem, factor: Array, here: _Place, keys: Array
) -> tuple[_Place, _Seen]:
    """One chunk of every chain: places after it, and what was seen [chain, step, ...]."""

    def one(given: tuple[_Place, Array]) -> tuple[_Place, _Seen]:
        place, key = given
        own = jax.random.split(key, settings.chunk)
        return jax.lax.scan(lambda carry, k: _outer(settings, problem, factor, carry, k), place, own)

    return jax.vmap(one)((here, keys)) if settings.vectorized else jax.lax.map(one, (here, keys))
