"""A posterior learned once for all patients: a normalizing flow conditioned on the data."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import AbstractDistribution, Normal
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from jaxtyping import Array, Float

from tumortwin.inference import Checkpoint
from tumortwin.surrogates._features import AbstractFeatures

KNOTS, REACH = 8, 5.0  # of a spline; beyond REACH standard deviations it is the identity
PILOT = 8  # batches from which centers and scales are taken
VALIDATION = 8  # batches
_NAME = "amortised_posterior"

Simulate: TypeAlias = Callable[[Array], tuple[Float[Array, "draw parameter"], Float[Array, "draw value"]]]
"""`key -> (z, values)`: a fresh batch from the prior, in the coordinates of a `Problem`, and the data of each."""

Progress: TypeAlias = Callable[[int, int], None]


class AmortisedPosterior(eqx.Module):
    """q(z | y): draws and densities for any patient whose data look like those it was trained on.

    $$ z = m_z + s_z \\odot f(\\epsilon; x), \\qquad \\epsilon \\sim N(0, 1), \\qquad x = \\mathrm{features}(y) $$

    `f` is an invertible network (a normalizing flow with rational-quadratic splines). It knows nothing outside of what
    it was trained on: `distance` says how far data are from there, and `outside` whether they are farther than all but
    a share `OUTSIDE` of the simulated ones.
    """

    flow: AbstractDistribution
    features: AbstractFeatures
    z_center: Float[Array, " parameter"]
    z_scale: Float[Array, " parameter"]
    x_center: Float[Array, " feature"]
    x_whiten: Float[Array, "feature feature"]
    farthest: Float[Array, ""]

    def condition(self, values: Float[Array, " value"]) -> Float[Array, " feature"]:
        """The whitened features of a patient's data."""
        return self.x_whiten @ (self.features(values) - self.x_center)

    def log_density(self, z: Float[Array, "draw parameter"], values: Float[Array, " value"]) -> Float[Array, " draw"]:
        """log q(z | y) of many points."""
        flow, known = paramax.unwrap(self.flow), self.condition(values)
        own = jax.vmap(lambda row: flow.log_prob((row - self.z_center) / self.z_scale, known))(z)
        return own - jnp.sum(jnp.log(self.z_scale))

    def sample(self, values: Float[Array, " value"], n: int, *, key: Array) -> Float[Array, "draw parameter"]:
        """`n` draws of z given a patient's data."""
        flow, known = paramax.unwrap(self.flow), self.condition(values)
        return jax.vmap(lambda own: self.z_center + self.z_scale * flow.sample(own, (), known))(
            jax.random.split(key, n)
        )

    def distance(self, values: Float[Array, " value"]) -> Float[Array, ""]:
        """Root mean square of the whitened features: about 1 for data like the simulated ones."""
        return jnp.sqrt(jnp.mean(self.condition(values) ** 2))

    def outside(self, values: Float[Array, " value"]) -> bool:
        """Whether the data are farther from the simulated ones than all but a hundredth of these."""
        return bool(~(self.distance(values) <= self.farthest))


OUTSIDE = 0.01


class Training(eqx.Module):
    """How an amortised posterior is trained.

    **Arguments:** `steps` of Adam with a cosine schedule from `learning_rate` to a hundredth of it, gradients clipped
    at norm `clip`; `chunk` steps between checkpoints and validations; `layers` of the flow, each with a network of
    `width` x `depth`; `coupling`: coupling layers (fast draws and densities) instead of autoregressive ones, which
    need two parameters or more.

    **Good values:** 5,000-20,000 steps of batches of 256; rate 1e-3; 5 layers of width 64.
    """

    steps: int = 6000
    learning_rate: float = 1e-3
    chunk: int = 500
    layers: int = 5
    width: int = 64
    depth: int = 2
    clip: float = 5.0
    coupling: bool = True

    def __check_init__(self) -> None:
        if self.steps % self.chunk or min(self.steps, self.chunk, self.layers, self.width, self.depth) < 1:
            raise ValueError(f"required: positive sizes, steps a multiple of chunk; received: {self}")

    def optimizer(self) -> optax.GradientTransformation:
        """Clipped Adam on a cosine schedule."""
        return _optimizer(self)

    def untrained(self, n_parameters: int, n_features: int, *, key: Array) -> AbstractDistribution:
        """A flow that knows nothing yet."""
        return _untrained_flow(self, n_parameters, n_features, tuple(np.asarray(jax.random.key_data(key)).tolist()))


# Made once, since what is made twice (functions inside) is compiled twice.
@cache
def _optimizer(training: Training) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(training.learning_rate, training.steps, alpha=0.01)
    return optax.chain(optax.clip_by_global_norm(training.clip), optax.adam(schedule))


@lru_cache(maxsize=8)
def _untrained_flow(training: Training, n_parameters: int, n_features: int, key: tuple) -> AbstractDistribution:
    make = coupling_flow if training.coupling and n_parameters > 1 else masked_autoregressive_flow
    return make(
        jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32)),
        base_dist=Normal(jnp.zeros(n_parameters)),
        transformer=RationalQuadraticSpline(knots=KNOTS, interval=REACH),
        cond_dim=n_features,
        flow_layers=training.layers,
        nn_width=training.width,
        nn_depth=training.depth,
    )


def train_amortised(
    simulate: Simulate,
    features: AbstractFeatures,
    training: Training,
    *,
    key: Array,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[AmortisedPosterior, np.ndarray]:
    """Neural posterior estimation: the flow that makes simulated parameters most probable given their data.

    $$ \\min_\\phi \\; -\\mathbb{E}_{p(z)\\, p(y \\mid z)} \\log q_\\phi(z \\mid y) $$

    whose minimum, over all densities, is the posterior itself for every y. Every step sees a fresh batch: there is no
    training set to learn by heart, and the loss of a validation set that is drawn once measures what is left.

    **Arguments:** `simulate`: a fresh batch for a key (traced, so that a whole chunk of steps is one program);
    `checkpoint` keeps arrays after every chunk: a training that was killed ends with the same numbers to the bit.

    **Returns:** the posterior at its best validation, and the validation loss [nat] after every chunk.

    **Raises:** `ValueError` when a simulated batch is not finite, with its number, or a checkpoint of another key.

    Reference: Papamakarios & Murray (2016), NeurIPS 29; Greenberg et al. (2019), ICML; Durkan et al. (2019), NeurIPS.
    """
    untrained = _untrained(simulate, features, training, key)
    validation = _batches(simulate, jax.random.fold_in(key, 1), VALIDATION)
    optimizer = training.optimizer()
    weights, static = eqx.partition(untrained, _is_weight)
    # With its type: a weak one would be another after the first chunk, and the program compiled twice.
    state = _State(weights, optimizer.init(weights.flow), weights, jnp.asarray(jnp.inf, float))
    losses: list[float] = []
    saved = None if checkpoint is None else checkpoint.load(_NAME)
    if saved is not None:
        state, losses = _restored(saved, state, key)
    for chunk in range(len(losses), training.steps // training.chunk):
        keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 2), chunk), training.chunk)
        state, loss, trained = _chunk(state, static, simulate, optimizer, keys, validation)
        if not (np.isfinite(np.asarray(trained)).all() and np.isfinite(float(loss))):
            bad = np.flatnonzero(~np.isfinite(np.asarray(trained)))
            first = chunk * training.chunk + (int(bad[0]) if bad.size else training.chunk)
            raise ValueError(
                f"required: finite simulated data and a finite loss; received: a loss that is not, on batch {first}; "
                "try: a simulator that refuses failed solves, a smaller learning_rate"
            )
        losses.append(float(loss))
        if checkpoint is not None:
            checkpoint.save(_NAME, _stored(state, losses, key))
        if progress is not None:
            progress((chunk + 1) * training.chunk, training.steps)
    return eqx.combine(state.best, static), np.asarray(losses)


class _State(eqx.Module):
    """What training carries: weights, the optimizer's moments, the weights of the best validation and its loss."""

    weights: AmortisedPosterior
    moments: optax.OptState
    best: AmortisedPosterior
    least: Array


def _is_weight(leaf: object) -> bool:
    return eqx.is_inexact_array(leaf)


def _untrained(simulate: Simulate, features: AbstractFeatures, training: Training, key: Array) -> AmortisedPosterior:
    """Centers and scales from a pilot, and the distance that a share `OUTSIDE` of it exceeds."""
    z, values = _batches(simulate, jax.random.fold_in(key, 0), PILOT)
    if not bool(jnp.isfinite(z).all() & jnp.isfinite(values).all()):
        raise ValueError("required: finite simulated parameters and data; received: some that are not, in the pilot")
    x = jax.vmap(features)(values)
    center = x.mean(axis=0)
    spread, axes = jnp.linalg.eigh(jnp.atleast_2d(jnp.cov(x, rowvar=False)))
    whiten = axes.T / jnp.sqrt(jnp.maximum(spread, 1e-10 * spread.max()))[:, None]
    found = AmortisedPosterior(
        training.untrained(z.shape[1], x.shape[1], key=jax.random.fold_in(key, 3)),
        features,
        z.mean(axis=0),
        z.std(axis=0),
        center,
        whiten,
        jnp.asarray(jnp.inf),
    )
    distances = jax.vmap(found.distance)(values)
    return eqx.tree_at(lambda p: p.farthest, found, jnp.quantile(distances, 1.0 - OUTSIDE))


@eqx.filter_jit
def _batches(simulate: Simulate, key: Array, n: int) -> tuple[Array, Array]:
    z, values = jax.lax.map(simulate, jax.random.split(key, n))
    return z.reshape(-1, z.shape[-1]), values.reshape(-1, values.shape[-1])


def _loss(posterior: AmortisedPosterior, z: Array, values: Array) -> Array:
    """Mean of -log q(z | y) in the flow's own coordinates, each draw with its own data."""
    flow = paramax.unwrap(posterior.flow)

    def one(drawn: Array, seen: Array) -> Array:
        return flow.log_prob((drawn - posterior.z_center) / posterior.z_scale, posterior.condition(seen))

    return -jnp.mean(jax.vmap(one)(z, values))


@eqx.filter_jit
def _chunk(
    state: _State,
    static: AmortisedPosterior,
    simulate: Simulate,
    optimizer: optax.GradientTransformation,
    keys: Array,
    validation: tuple[Array, Array],
) -> tuple[_State, Array, Array]:
    """A chunk of steps in one program, and the validation loss after it."""

    def loss_of(flow: AbstractDistribution, z: Array, values: Array) -> Array:
        whole = eqx.combine(eqx.tree_at(lambda w: w.flow, state.weights, flow), static)
        return _loss(whole, z, values)

    def step(carry: tuple, key: Array) -> tuple[tuple, Array]:
        flow, moments = carry
        loss, gradient = eqx.filter_value_and_grad(loss_of)(flow, *simulate(key))
        updates, moments = optimizer.update(gradient, moments, flow)
        return (eqx.apply_updates(flow, updates), moments), loss

    (flow, moments), trained = jax.lax.scan(step, (state.weights.flow, state.moments), keys)
    weights = eqx.tree_at(lambda w: w.flow, state.weights, flow)
    loss = loss_of(flow, *validation)
    better = loss < state.least
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), weights, state.best)
    return _State(weights, moments, best, jnp.where(better, loss, state.least)), loss, trained


def _stored(state: _State, losses: list[float], key: Array) -> dict[str, np.ndarray]:
    leaves = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    return {"key": np.asarray(jax.random.key_data(key)), "losses": np.asarray(losses), **leaves}


def _restored(saved: dict[str, np.ndarray], like: _State, key: Array) -> tuple[_State, list[float]]:
    leaves, tree = jax.tree.flatten(like)
    stored = [saved.get(f"leaf_{i}") for i in range(len(leaves))]
    same = [s is not None and s.shape == leaf.shape for s, leaf in zip(stored, leaves, strict=True)]
    if not (all(same) and np.array_equal(saved["key"], np.asarray(jax.random.key_data(key)))):
        raise ValueError(
            "required: a checkpoint of this training and key; received: one of another; try: a new run directory"
        )
    found = [jnp.asarray(s, leaf.dtype) for s, leaf in zip(stored, leaves, strict=True)]
    return jax.tree.unflatten(tree, found), [float(v) for v in saved["losses"]]
