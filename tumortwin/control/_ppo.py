"""Proximal policy optimization: a network that learns what to give by trying, the baseline of learned control."""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

SMALL = 1e-8


class AbstractEnvironment(eqx.Module):
    """What a learner tries its decisions on: one patient, whose state is a pytree; batches are made by `vmap`.

    `features` and `actions` are the numbers of what is seen and of what can be chosen.
    """

    features: eqx.AbstractVar[int]
    actions: eqx.AbstractVar[int]

    @abc.abstractmethod
    def start(self, *, key: Array) -> PyTree:
        """A fresh patient."""

    @abc.abstractmethod
    def observe(self, state: PyTree) -> Float[Array, " feature"]:
        """What is seen, of order 1."""

    @abc.abstractmethod
    def step(
        self, state: PyTree, action: Int[Array, ""], *, key: Array
    ) -> tuple[PyTree, Float[Array, ""], Bool[Array, ""]]:
        """The next state, the reward (higher is better, of order 1 or less) and whether the episode is over."""


class LearnedPolicy(eqx.Module):
    """Two networks of what is seen: `actor` gives the logits of the actions, `critic` the value."""

    actor: eqx.nn.MLP
    critic: eqx.nn.MLP

    def action(self, seen: Float[Array, " feature"]) -> Int[Array, ""]:
        """The most probable action."""
        return jnp.argmax(self.actor(seen))


class Batch(eqx.Module):
    """Steps that were tried: leaves [step environment] or, for an update, [sample]."""

    seen: Array
    action: Array
    log_probability: Array
    reward: Array
    ended: Array
    value: Array


@dataclasses.dataclass(frozen=True)
class Learned:
    """The `policy`, the mean reward a step of every iteration, and the number of environment steps that were used."""

    policy: LearnedPolicy
    rewards: Float[np.ndarray, " iteration"]
    steps: int


class Ppo(eqx.Module):
    """Proximal policy optimization with a clipped objective, by `learn(environment, key=)`.

    With the ratio r of new to old probability of an action and the advantage A (generalized estimate, discount gamma,
    trace lambda), every iteration maximises over `epochs` of `minibatches`

    $$ E\\left[\\min(r A, \\mathrm{clip}(r, 1 - \\epsilon, 1 + \\epsilon) A)\\right]
       - c_v E\\left[(V - V_{target})^2\\right] + c_h E[H] $$

    **Arguments:** `environments` tried side by side, `length` steps of each an iteration, `iterations`; `width` and
    `depth` of both networks; `learning_rate` at the start, falling to 0. Environment steps: environments x length x
    iterations.

    **Good values:** the defaults; 1e5 steps for a handful of states, 1e6-1e7 for a patient.

    **Limits:** finds a local optimum of what the network can say, with luck: compare with dynamic programming or a
    planner on the same model, over several keys (mathematical). The most probable action is used afterwards.

    **Reference:** Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal policy optimization algorithms",
    arXiv:1707.06347.
    """

    environments: int = eqx.field(static=True, default=64)
    length: int = eqx.field(static=True, default=32)
    iterations: int = eqx.field(static=True, default=50)
    epochs: int = eqx.field(static=True, default=4)
    minibatches: int = eqx.field(static=True, default=4)
    width: int = eqx.field(static=True, default=32)
    depth: int = eqx.field(static=True, default=2)
    discount: float = eqx.field(static=True, converter=float, default=0.99)
    trace: float = eqx.field(static=True, converter=float, default=0.95)
    clip: float = eqx.field(static=True, converter=float, default=0.2)
    value_share: float = eqx.field(static=True, converter=float, default=0.5)
    entropy_share: float = eqx.field(static=True, converter=float, default=0.01)
    learning_rate: float = eqx.field(static=True, converter=float, default=1e-3)

    def __check_init__(self) -> None:
        if not 0.0 < self.discount <= 1.0 or (self.environments * self.length) % self.minibatches:
            raise ValueError(
                "required: a discount in (0, 1], and environments x length divisible by minibatches; received: "
                f"{self.discount:g}, {self.environments} x {self.length} and {self.minibatches}"
            )

    @property
    def steps(self) -> int:
        """Environment steps in all."""
        return self.environments * self.length * self.iterations

    def learn(self, environment: AbstractEnvironment, *, key: Array) -> Learned:
        """A policy for `environment`."""
        policy, rewards = _learn(self, environment, key)
        return Learned(policy, np.asarray(rewards), self.steps)


def _network(settings: Ppo, environment: AbstractEnvironment, outputs: int, key: Array) -> eqx.nn.MLP:
    return eqx.nn.MLP(environment.features, outputs, settings.width, settings.depth, jnp.tanh, key=key)


@eqx.filter_jit
def _learn(settings: Ppo, environment: AbstractEnvironment, key: Array) -> tuple[LearnedPolicy, Array]:
    actor_key, critic_key, start_key, key = jax.random.split(key, 4)
    actor = _network(settings, environment, environment.actions, actor_key)
    # Small last weights: the first policy hardly prefers anything.
    actor = eqx.tree_at(lambda net: net.layers[-1].weight, actor, replace_fn=lambda w: 0.01 * w)
    policy = LearnedPolicy(actor, _network(settings, environment, 1, critic_key))
    updates = settings.iterations * settings.epochs * settings.minibatches
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adam(optax.linear_schedule(settings.learning_rate, 0.0, updates))
    )
    weights, fixed = eqx.partition(policy, eqx.is_inexact_array)
    states = jax.vmap(lambda k: environment.start(key=k))(jax.random.split(start_key, settings.environments))

    def iteration(carry: tuple[Any, Any, Any], step_key: Array) -> tuple[tuple[Any, Any, Any], Array]:
        weights, memory, states = carry
        try_key, update_key = jax.random.split(step_key)
        states, batch, last = _tried(settings, environment, eqx.combine(weights, fixed), states, try_key)
        advantage = _advantages(settings, batch, last)
        weights, memory = _updated(settings, optimizer, weights, fixed, memory, batch, advantage, update_key)
        return (weights, memory, states), jnp.mean(batch.reward)

    start = (weights, optimizer.init(weights), states)
    (weights, _, _), rewards = jax.lax.scan(iteration, start, jax.random.split(key, settings.iterations))
    return eqx.combine(weights, fixed), rewards


def _tried(
    settings: Ppo, environment: AbstractEnvironment, policy: LearnedPolicy, states: PyTree, key: Array
) -> tuple[PyTree, Batch, Array]:
    """`length` steps of all environments, one that is over begun afresh; and the value of where they are then."""

    def one(state: PyTree, key: Array) -> tuple[PyTree, Batch]:
        act_key, move_key, fresh_key = jax.random.split(key, 3)
        seen = environment.observe(state)
        logits = jax.nn.log_softmax(policy.actor(seen))
        action = jax.random.categorical(act_key, logits)
        reached, reward, ended = environment.step(state, action, key=move_key)
        fresh = environment.start(key=fresh_key)
        state = jax.tree.map(lambda a, b: jnp.where(ended, a, b), fresh, reached)
        return state, Batch(seen, action, logits[action], reward, ended, policy.critic(seen)[0])

    def together(states: PyTree, key: Array) -> tuple[PyTree, Batch]:
        return jax.vmap(one)(states, jax.random.split(key, settings.environments))

    states, batch = jax.lax.scan(together, states, jax.random.split(key, settings.length))
    return states, batch, jax.vmap(lambda s: policy.critic(environment.observe(s))[0])(states)


def _advantages(settings: Ppo, batch: Batch, last: Array) -> Array:
    """The generalized advantage estimate, [step environment]."""

    def back(carry: tuple[Array, Array], step: Batch) -> tuple[tuple[Array, Array], Array]:
        advantage, following = carry
        on = 1.0 - step.ended
        error = step.reward + settings.discount * on * following - step.value
        advantage = error + settings.discount * settings.trace * on * advantage
        return (advantage, step.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(last), last), batch, reverse=True)[1]


def _updated(
    settings: Ppo,
    optimizer: optax.GradientTransformation,
    weights: PyTree,
    fixed: PyTree,
    memory: PyTree,
    batch: Batch,
    advantage: Array,
    key: Array,
) -> tuple[PyTree, PyTree]:
    flat, gain = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (batch, advantage))

    def part(carry: tuple[PyTree, PyTree], rows: Array) -> tuple[tuple[PyTree, PyTree], None]:
        weights, memory = carry
        some, chosen = jax.tree.map(lambda leaf: leaf[rows], (flat, gain))
        slope = jax.grad(lambda w: _loss(settings, eqx.combine(w, fixed), some, chosen))(weights)
        change, memory = optimizer.update(slope, memory, weights)
        return (eqx.apply_updates(weights, change), memory), None

    def epoch(carry: tuple[PyTree, PyTree], epoch_key: Array) -> tuple[tuple[PyTree, PyTree], None]:
        rows = jax.random.permutation(epoch_key, gain.size).reshape(settings.minibatches, -1)
        return jax.lax.scan(part, carry, rows)

    return jax.lax.scan(epoch, (weights, memory), jax.random.split(key, settings.epochs))[0]


def _loss(settings: Ppo, policy: LearnedPolicy, batch: Batch, advantage: Array) -> Array:
    logits = jax.nn.log_softmax(jax.vmap(policy.actor)(batch.seen))
    chosen = jnp.take_along_axis(logits, batch.action[:, None], axis=1)[:, 0]
    ratio = jnp.exp(chosen - batch.log_probability)
    scaled = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + SMALL)
    held = jnp.clip(ratio, 1.0 - settings.clip, 1.0 + settings.clip)
    gain = jnp.mean(jnp.minimum(ratio * scaled, held * scaled))
    value = jax.vmap(policy.critic)(batch.seen)[:, 0]
    error = jnp.mean((value - (batch.value + advantage)) ** 2)
    entropy = -jnp.mean(jnp.sum(jnp.exp(logits) * logits, axis=-1))
    return settings.value_share * error - gain - settings.entropy_share * entropy
