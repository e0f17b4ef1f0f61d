"""Variational inference: the best Gaussian of low rank, and whether it is good enough."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jaxtyping import Array
from numpyro.infer import SVI, Trace_ELBO

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, plain, restored, state_key
from tumortwin.inference._identifiability import contraction_statement
from tumortwin.inference._laplace import constrained_draws
from tumortwin.inference._pareto import LARGEST_K_HAT, effective_draws, pareto_smooth
from tumortwin.inference._pathfinder import weighted_error, weights_of
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem, log_densities

LEAF = "svi_"
# The guide starts this narrow, in units of the prior's spread: wide draws of a model of many subjects are far from any
# data, and their slopes are noise.
FIRST_SCALE = 0.1
FIRST_FACTOR = 0.01
LARGEST_SLOPE = 100.0
# Of the rate of learning, left at the end.
LAST_RATE = 0.01


class SviCalibrator(AbstractCalibrator):
    """The Gaussian of low rank with the largest evidence bound (NumPyro's SVI), judged by importance sampling.

    $$ q(z) = N\\big(m,\\; D (I + F F^T) D\\big), \\qquad
       \\max_{m, D, F}\\; E_q[\\log p(z) - \\log q(z)] $$

    `D` diagonal, `F` [parameter rank], on the unconstrained vector of any problem; Adam with a rate that falls by a
    cosine. Afterwards `draws` of `q` get Pareto-smoothed weights `p/q`: with k-hat below .7 they are the posterior;
    above it the guide misses mass, the draws come back unweighted and `sample_reliable` is 0. The bound itself is no
    check: it may settle on a bad guide.

    A step is `chunk` gradient steps, each of `bound_draws` draws. Needs a `solve` with reverse-mode derivatives.

    **Arguments:** `rank` of F (0: mean field); `rate` of learning; `steps` in all; `vectorized`: draws of the last
    sample side by side or one after another.

    **Good values:** rank 5-20; rate .02-.05; steps 2000-5000; bound_draws 4-8.

    **Limits:** spreads come out too small where the posterior is no Gaussian (mathematical: the divergence punishes
    draws where the posterior has none, not the reverse), and k-hat is as blind as every importance sample to what no
    draw of the guide reaches: of a ridge that is bent (b + 0.3 a^2 known to .05) a guide that held a fifth of sd(a) was
    given .64 to 1.0. NUTS that agrees is better evidence.

    Reference: Kucukelbir et al. (2017), JMLR 18:14 (automatic differentiation variational inference); Ong, Nott & Smith
    (2018), J. Comput. Graph. Stat. 27:465 (low rank); Yao et al. (2018), ICML, arXiv:1802.02538 (k-hat of a guide).
    """

    rank: int = 8
    rate: float = 0.03
    steps: int = 3000
    chunk: int = 250
    bound_draws: int = 8
    draws: int = 2000
    least_effective: float = 100.0
    vectorized: bool = True

    def __check_init__(self) -> None:
        if self.rank < 0 or self.draws < 50 or min(self.steps, self.chunk, self.bound_draws) < 1 or self.rate <= 0:
            raise ValueError(
                "required: rank at least 0, 50 draws, a rate above 0, one step, chunk and draw of the bound; received: "
                f"{self.rank}, {self.draws}, {self.rate}, {self.steps}, {self.chunk}, {self.bound_draws}"
            )

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        first = _first(self, problem, child_key(key, "svi"))
        return {
            "key": np.asarray(jax.random.key_data(key)),
            "z": np.zeros(problem.size),
            **weights_of(problem),
            **_arrays(first),
            "elbo": np.zeros(0),
        }

    def step(self, problem: AbstractProblem, state: State) -> State:
        """One chunk of gradient steps."""
        moved, losses = _chunk(self, problem, _svi_state(self, problem, state))
        return {**state, **_arrays(moved), "elbo": np.append(state["elbo"], -np.asarray(losses))}

    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        del problem
        return state["elbo"].size >= self.steps

    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        del problem
        return state["elbo"].size // self.chunk, -(-self.steps // self.chunk)

    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        key = child_key(state_key(state), "guide")
        drawn = _guide_draws(self, problem, _svi_state(self, problem, state), key)
        z, targets, densities = (np.asarray(a) for a in drawn)
        ratios = np.where(np.isfinite(targets), targets - densities, -np.inf)
        log_weights, k_hat = pareto_smooth(ratios)
        ess = effective_draws(log_weights)
        reliable = k_hat < LARGEST_K_HAT and ess >= self.least_effective
        draws, known = constrained_draws(problem, z[None]), problem.scalars
        weights = np.exp(log_weights) if reliable else np.full(len(z), 1 / len(z))
        said = contraction_statement(known, z[None][..., : len(known)])
        tail = state["elbo"][-max(self.steps // 10, 1) :]
        return Posterior(
            draws=draws,
            log_weights=log_weights[None] if reliable else None,
            diagnostics={
                "k_hat": k_hat,
                "ess": ess,
                "draws": float(len(z)),
                "sample_reliable": float(reliable),
                "elbo": float(np.mean(tail)),
                "elbo_sd": float(np.std(tail)),
                "gradients": float(state["elbo"].size * self.bound_draws),
            },
            statement=said if reliable else f"The guide misses a part of the posterior. {said}",
            info={
                "parameter_names": list(problem.names),
                "elbo": state["elbo"].reshape(-1)[:: max(state["elbo"].size // 200, 1)].tolist(),
            },
            prior_draws=problem.prior_draws(len(z), key=child_key(state_key(state), "prior")),
            log_density=targets[None],
            monte_carlo_error={path: weighted_error(value[0], weights) for path, value in draws.items()},
        )


def _guide(rank: int, problem: AbstractProblem) -> None:
    """`z` from the Gaussian of low rank."""
    mean = numpyro.param("mean", jnp.zeros(problem.size))
    scale = jnp.exp(jnp.asarray(numpyro.param("log_scale", jnp.full(problem.size, jnp.log(FIRST_SCALE)))))
    start = FIRST_FACTOR * jnp.cos(jnp.arange(problem.size * max(rank, 1), dtype=float).reshape(problem.size, -1))
    factor = jnp.asarray(numpyro.param("factor", start if rank else jnp.zeros_like(start)))
    numpyro.sample("z", _gaussian(mean, scale, factor if rank else jnp.zeros_like(factor)))


def _gaussian(mean: Any, scale: Array, factor: Array) -> dist.LowRankMultivariateNormal:
    return dist.LowRankMultivariateNormal(mean, scale[:, None] * factor, scale**2)


def _model(rank: int, problem: AbstractProblem) -> None:
    del rank
    flat = dist.ImproperUniform(dist.constraints.real_vector, (), (problem.size,))
    numpyro.factor("log_density", problem.log_density(jnp.asarray(numpyro.sample("z", flat))))


def _svi(settings: SviCalibrator) -> SVI:
    rate = optax.cosine_decay_schedule(settings.rate, settings.steps, LAST_RATE)
    optimizer = optax.chain(optax.clip_by_global_norm(LARGEST_SLOPE), optax.adam(rate))
    bound = Trace_ELBO(num_particles=settings.bound_draws, vectorize_particles=settings.vectorized)
    return SVI(_model, _guide, optimizer, bound)


@eqx.filter_jit
def _first(settings: SviCalibrator, problem: AbstractProblem, key: Array) -> Any:
    return _svi(settings).init(key, settings.rank, problem)


@eqx.filter_jit
def _chunk(settings: SviCalibrator, problem: AbstractProblem, state: Any) -> tuple[Any, Array]:
    svi = _svi(settings)
    svi.init(jax.random.key(0), settings.rank, problem)  # makes the transforms; its state is not used

    def one(carry: Any, _: None) -> tuple[Any, Array]:
        return svi.stable_update(carry, settings.rank, problem)

    return jax.lax.scan(one, state, None, length=settings.chunk)


@eqx.filter_jit
def _guide_draws(
    settings: SviCalibrator, problem: AbstractProblem, state: Any, key: Array
) -> tuple[Array, Array, Array]:
    """Draws of the guide, the log posterior and the log guide there."""
    svi = _svi(settings)
    svi.init(jax.random.key(0), settings.rank, problem)
    found = svi.get_params(state)
    guide = _gaussian(found["mean"], jnp.exp(found["log_scale"]), found["factor"])
    z = jax.vmap(guide.sample)(jax.random.split(key, settings.draws))
    return z, log_densities(problem, z, settings.vectorized), jax.vmap(guide.log_prob)(z)


def _arrays(state: Any) -> State:
    """The leaves of NumPyro's state; keys as their data."""
    return {f"{LEAF}{i:02d}": plain(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}


def _svi_state(settings: SviCalibrator, problem: AbstractProblem, state: State) -> Any:
    """The inverse of `_arrays`."""
    shapes = eqx.filter_eval_shape(_first, settings, problem, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    values = [restored(state[f"{LEAF}{i:02d}"], leaf) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)
