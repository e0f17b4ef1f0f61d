"""A cheap density proposes, the model's own accepts: the chain's law is the posterior of the model."""

from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, state_key
from tumortwin.inference._delayed_kernels import AbstractInnerKernel, RandomWalk, Spot
from tumortwin.inference._delayed_search import tuned
from tumortwin.inference._identifiability import contraction_statement
from tumortwin.inference._laplace import constrained_draws
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem, Problem
from tumortwin.inference._smc import SmcCalibrator

ATTEMPTS = 1000  # points tried for every chain until one is possible
LARGEST_R_HAT = 1.05  # beyond it a sample is not called reliable; `require_converged` is stricter
SEARCH = "search_"
Steps: TypeAlias = tuple[Array, Array]
"""`factor` and `scale` of a step."""
Proposed: TypeAlias = tuple[Array, Array, Array, Array]
"""A place, the log of the cheap density there, and the densities and gradients that it took."""


class DelayedAcceptanceCalibrator(AbstractCalibrator):
    """Two-stage Metropolis: `inner` steps of `kernel` on a surrogate's density, then one solve of the model.

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

    The search before, on the surrogate only: `search` carries particles from the prior to the surrogate's posterior
    (chains that climb by themselves may end on a lesser mode and stay there), their covariance is that of the steps,
    and `tuning` steps a chain find the size of one. All is then fixed: nothing adapts while the model is asked. Of the
    model no gradient is taken, of the surrogate where the kernel wants it.

    **Arguments:** `surrogate`: a problem in the same coordinates (`stand_in`, or any other `AbstractProblem` of the
    same parameters); `kernel`: `RandomWalk()`, or `Hamiltonian()` for thin, bent ridges; `inner` steps a proposal;
    `direct` share of plain steps; `search`: the stage before; `tuning` steps a chain; `chains`, `warmup` and `draws`
    each; `chunk` transitions a step; `vectorized`: chains side by side (small states) or one after another (3-D; a
    proposal that ended where it began is then really not solved).

    **Diagnostics:** `solves` of the model; `surrogate_solves`: densities of the surrogate without a gradient, and
    `surrogate_gradients`: with one; of the search, the tuning and the chains together. `search_reliable` 0: the
    particles had not forgotten where they were; the chains are right all the same, but may start too close together.

    **Good values:** inner 10-50 of the random walk (some five a parameter and more, as they are nearly free), 5-10
    Hamiltonian; direct .05-.1; tuning 200; warmup 20-50, since the chains start in the surrogate's posterior. A dear
    surrogate: `SmcCalibrator(particles=100, sweeps=20, vectorized=False)`.

    **Limits:** (mathematical) where the surrogate's tails are thinner than the model's, pi / pi* has no bound and a
    chain may sit in a tail for long; R-hat and the effective draws of several chains say so late. A surrogate with one
    of two modes leaves the other to the direct steps. (For convenience) the coordinates are those of one covariance.

    Reference: Christen & Fox (2005), J. Comput. Graph. Stat. 14:795; Liu (2001), Monte Carlo Strategies in Scientific
    Computing, 9.4.3 (surrogate transitions); Lykkegaard et al. (2023), SIAM/ASA J. Uncertain. Quantif. 11:1.
    """

    surrogate: AbstractProblem
    kernel: AbstractInnerKernel = RandomWalk()
    inner: int = 25
    direct: float = 0.05
    search: SmcCalibrator = SmcCalibrator(particles=400, sweeps=200)
    tuning: int = 200
    chains: int = 4
    warmup: int = 25
    draws: int = 250
    chunk: int = 25
    vectorized: bool = False

    def __check_init__(self) -> None:
        sizes = (self.inner, self.tuning // 2, self.chunk, self.warmup + 1)
        if min(sizes) < 1 or self.chains < 2 or self.draws < 4 or not 0 < self.direct < 1:
            raise ValueError(
                "required: inner and chunk at least 1, tuning at least 2, 2 chains, 4 draws, and 0 < direct < 1 "
                "(without plain steps a surrogate that is zero leaves a hole); received: "
                f"{self.inner}, {self.chunk}, {self.tuning}, {self.chains}, {self.draws}, {self.direct}"
            )
        if self.search.weigh_by is not None or self.search.particles < self.chains:
            raise ValueError(
                "required: a search with weigh_by=None (the surrogate has its weights) and a particle for every chain; "
                f"received: {self.search.weigh_by}, {self.search.particles} for {self.chains}"
            )

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        if self.surrogate.names != problem.names:
            raise ValueError(
                f"required: a surrogate with the parameters of the problem, {', '.join(problem.names)}; "
                f"received: {', '.join(self.surrogate.names)}"
            )
        weights = {"weights": np.asarray(problem.weights)} if isinstance(problem, Problem) else {}
        searching = self.search.init(self.surrogate, key=child_key(key, "search"))
        if not np.isfinite(np.asarray(_densities(self.surrogate, jnp.asarray(searching["z"])))).any():
            raise FloatingPointError(
                "required: a surrogate that is not zero over all of the prior; received: one that is at all of "
                f"{self.search.particles} points; try: another surrogate"
            )
        return {
            "key": np.asarray(jax.random.key_data(key)),
            "z": np.zeros((self.chains, problem.size)),
            **weights,
            **{SEARCH + name: value for name, value in searching.items()},
        }

    def step(self, problem: AbstractProblem, state: State) -> State:
        """A step of the search, the size of a step with the first solves, or one chunk of every chain."""
        if "chain_z" not in state:
            searching = _searching(state)
            if not self.search.terminate(self.surrogate, searching):
                moved = self.search.step(self.surrogate, searching)
                return {**state, **{SEARCH + name: value for name, value in moved.items()}}
            rest = {name: value for name, value in state.items() if not name.startswith(SEARCH)}
            return {**rest, **self._start(problem, state)}
        done = state["chain_z"].shape[1]
        keys = jax.random.split(jax.random.fold_in(child_key(state_key(state), "delayed"), done), self.chains)
        here = _Place(*(jnp.asarray(state[name]) for name in ("z", "target", "cheap")))
        steps = jnp.asarray(state["factor"]), jnp.asarray(state["scale"])
        there, seen = _transitions(self, problem, steps, here, keys)
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
        chunks = -(-(self.warmup + self.draws) // self.chunk)
        if "chain_z" not in state:
            done, total = self.search.progress(self.surrogate, _searching(state))
            return done, total + 1 + chunks
        found = int(state["search_steps"])
        return found + 1 + state["chain_z"].shape[1] // self.chunk, found + 1 + chunks

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
                "surrogate_solves": float(state["first_densities"] + state["chain_densities"].sum()),
                "surrogate_gradients": float(state["first_gradients"] + state["chain_gradients"].sum()),
                "search_reliable": float(state["first_reliable"]),
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

    def _start(self, problem: AbstractProblem, state: State) -> State:
        """Covariance and scale from the surrogate, and a possible point of both densities for every chain."""
        searching, key = _searching(state), child_key(state_key(state), "tuning")
        particles = searching["z"]
        found = tuned(self.surrogate, self.kernel, particles, chains=self.chains, steps=self.tuning, key=key)
        places, solves = self._solved_starts(problem, found.z, particles, child_key(key, "pool"))
        densities, gradients = self._searched(searching)
        empty = np.zeros((self.chains, 0))
        flags = {f"chain_{name}": empty.astype(bool) for name in ("direct", "moved", "solved", "accepted")}
        return {
            **places,
            "factor": np.asarray(found.factor),
            "scale": np.asarray(found.scale),
            "search_steps": np.asarray(self.search.progress(self.surrogate, searching)[1]),
            "first_solves": np.asarray(solves),
            "first_densities": np.asarray(densities + found.densities + solves),
            "first_gradients": np.asarray(gradients + found.gradients),
            "first_reliable": np.asarray(
                self.search.postprocess(self.surrogate, searching).diagnostics["sample_reliable"]
            ),
            "chain_z": np.zeros((self.chains, 0, problem.size)),
            **{f"chain_{name}": empty for name in ("target", "cheap", "densities", "gradients")},
            **flags,
        }

    def _searched(self, searching: State) -> tuple[float, float]:
        """Densities and gradients of the surrogate in the search."""
        asked = float(searching["solves"]) + self.search.particles  # the first look, in `init`
        if self.search.kernel != "hmc":
            return asked, 0.0
        # It counts its leapfrog steps alone: a trajectory takes a gradient more, and a density.
        leapfrog = self.search.leapfrog
        return asked / leapfrog, asked * (leapfrog + 1) / leapfrog

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
    densities: Array
    gradients: Array


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    """Of those in `whole`, the share that is in `part`; 1 of none."""
    return float(np.mean(part[whole])) if whole.any() else 1.0


def _standard_error(draws: np.ndarray) -> np.ndarray:
    flat = draws.reshape(*draws.shape[:2], -1)
    error = flat.std(axis=(0, 1)) / np.sqrt(effective_sample_size(flat))
    return error.reshape(draws.shape[2:])


def _searching(state: State) -> State:
    """The part of a state that is the search's."""
    return {name.removeprefix(SEARCH): value for name, value in state.items() if name.startswith(SEARCH)}


@eqx.filter_jit
def _densities(problem: AbstractProblem, z: Array) -> Array:
    return jax.lax.map(problem.log_density, z)


@eqx.filter_jit
def _both(settings: DelayedAcceptanceCalibrator, problem: AbstractProblem, z: Array) -> tuple[Array, Array]:
    return jax.lax.map(problem.log_density, z), jax.lax.map(settings.surrogate.log_density, z)


def _outer(
    settings: DelayedAcceptanceCalibrator, problem: AbstractProblem, steps: Steps, here: _Place, key: Array
) -> tuple[_Place, _Seen]:
    """One outer step: a proposal by the surrogate or a plain one, and at most one solve."""
    kind_key, inner_key, accept_key = jax.random.split(key, 3)
    direct = jax.random.uniform(kind_key) < settings.direct
    possible, (factor, scale) = jnp.isfinite(here.cheap), steps
    density, kernel = settings.surrogate.log_density, settings.kernel
    none = jnp.asarray(0)

    def by_surrogate(start: Array) -> Proposed:
        def step(carry: tuple[Spot, Array, Array], own: Array) -> tuple[tuple[Spot, Array, Array], None]:
            spot, densities, gradients = carry
            moved = kernel.move(density, factor, scale, spot, key=own)
            return (moved.spot, densities + moved.densities, gradients + moved.gradients), None

        begun = kernel.begin(density, start, here.cheap), none, none + kernel.gradients_at_start
        spot, densities, gradients = jax.lax.scan(step, begun, jax.random.split(inner_key, settings.inner))[0]
        return spot.z, spot.value, densities, gradients

    def plainly(start: Array) -> Proposed:
        there = start + scale * (factor @ jax.random.normal(inner_key, start.shape))
        return there, density(there), none + 1, none

    def stay(start: Array) -> Proposed:
        return start, here.cheap, none, none

    branch = jnp.where(direct, 2, jnp.where(possible, 1, 0))
    there, cheap, densities, gradients = jax.lax.switch(branch, (stay, by_surrogate, plainly), here.z)
    moved = jnp.any(there != here.z)
    target = jax.lax.cond(moved, lambda at: problem.log_density(at), lambda _: here.target, there)
    # Written so that equal densities give exactly 0: a surrogate that is the model is never refused.
    ratio = jnp.where(direct, target - here.target, (target - cheap) - (here.target - here.cheap))
    chance = jnp.where(jnp.isfinite(target), jnp.exp(jnp.minimum(ratio, 0.0)), 0.0)
    accepted = moved & (jax.random.uniform(accept_key) < chance)
    new = jax.tree.map(lambda now, then: jnp.where(accepted, now, then), _Place(there, target, cheap), here)
    return new, _Seen(new.z, new.target, new.cheap, direct, moved & ~direct, moved, accepted, densities, gradients)


@eqx.filter_jit
def _transitions(
    settings: DelayedAcceptanceCalibrator, problem: AbstractProblem, steps: Steps, here: _Place, keys: Array
) -> tuple[_Place, _Seen]:
    """One chunk of every chain: places after it, and what was seen [chain, step, ...]."""

    def one(given: tuple[_Place, Array]) -> tuple[_Place, _Seen]:
        place, key = given
        own = jax.random.split(key, settings.chunk)
        return jax.lax.scan(lambda carry, k: _outer(settings, problem, steps, carry, k), place, own)

    return jax.vmap(one)((here, keys)) if settings.vectorized else jax.lax.map(one, (here, keys))
