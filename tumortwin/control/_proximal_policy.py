"""Proximal policy optimisation: a learned rule, as a baseline that has to be compared with planned ones."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from tumortwin.control._environment import AbstractEnvironment


class PolicyNetwork(eqx.Module):
    """Two tanh networks of one observation: log-probabilities of the actions (`actor`) and minus the cost to
    come (`critic`). Called, it gives the most probable action."""

    actor: eqx.nn.MLP
    critic: eqx.nn.MLP

    def __call__(self, observation: Float[Array, " observation"]) -> Int[Array, ""]:
        return jnp.argmax(self.actor(observation))


@dataclasses.dataclass(frozen=True)
class Training:
    """The trained rule, the mean cost of the episodes of every iteration, and the steps of the environment spent."""

    rule: PolicyNetwork
    costs: np.ndarray
    steps: int


class ProximalPolicy(eqx.Module):
    """Clipped policy gradient with generalised advantage estimation.

    $$ L = -E\\left[\\min(r A, clip(r, 1 - c, 1 + c) A)\\right] + v E[(V - G)^2] - h E[H], \\qquad
       r = \\pi(a | o) / \\pi_{old}(a | o) $$

    with A the advantage (minus the excess cost, normalised over a batch), G the discounted return and H the entropy.
    A batch is one whole episode of each of `patients` new patients.

    **Arguments:** `iterations`, each with `epochs` passes over `minibatches` parts of the batch; `discount`, `trace`
    (lambda of the advantage), `clip`, `entropy`, `value_weight`, `learning_rate`, `largest_gradient`; `width` of the
    two hidden layers.

    **Good values:** the defaults, for horizons up to about 100; the last cost should have settled (`Training.costs`).

    **Limits:** a baseline: it needs orders of magnitude more solves than a gradient through the model, and finds a rule
    that may be far from the best. Whatever it finds is to be put beside a planned rule with `compare_rules`, which says
    so when it loses.

    **Reference:** Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal policy optimization algorithms",
    arXiv:1707.06347; Schulman, Moritz, Levine, Jordan and Abbeel, arXiv:1506.02438 (advantages).
    """

    iterations: int = eqx.field(static=True, default=100)
    patients: int = eqx.field(static=True, default=32)
    epochs: int = eqx.field(static=True, default=4)
    minibatches: int = eqx.field(static=True, default=4)
    discount: float = eqx.field(static=True, default=0.99)
    trace: float = eqx.field(static=True, default=0.95)
    clip: float = eqx.field(static=True, default=0.2)
    entropy: float = eqx.field(static=True, default=0.01)
    value_weight: float = eqx.field(static=True, default=0.5)
    learning_rate: float = eqx.field(static=True, default=3e-3)
    largest_gradient: float = eqx.field(static=True, default=0.5)
    width: int = eqx.field(static=True, default=32)

    def train(self, environment: AbstractEnvironment, *, key: Array) -> Training:
        """A rule for the environment, from nothing."""
        actor_key, critic_key, scale_key, run_key = jax.random.split(key, 4)
        state = environment.reset(scale_key)
        size = environment.observe(state).size
        actor = eqx.nn.MLP(size, environment.n_actions, self.width, 2, jnp.tanh, key=actor_key)
        critic = eqx.nn.MLP(size, "scalar", self.width, 2, jnp.tanh, key=critic_key)
        network = PolicyNetwork(actor, critic)
        rule = optax.chain(
            optax.clip_by_global_norm(self.largest_gradient),
            optax.adam(
                optax.linear_schedule(self.learning_rate, 0.0, self.iterations * self.epochs * self.minibatches)
            ),
        )
        weights, fixed = eqx.partition(network, eqx.is_inexact_array)
        carry = (weights, rule.init(weights))

        @jax.jit
        def run(carry: Any, keys: Array) -> Any:
            return jax.lax.scan(lambda c, k: self._iteration(environment, fixed, rule, c, k), carry, keys)

        (weights, _), costs = run(carry, jax.random.split(run_key, self.iterations))
        spent = self.iterations * self.patients * environment.horizon
        return Training(eqx.combine(weights, fixed), np.asarray(costs), spent)

    def _iteration(
        self, environment: AbstractEnvironment, fixed: PyTree, rule: Any, carry: Any, key: Array
    ) -> tuple[Any, Array]:
        weights, optimizer = carry
        roll_key, order_key = jax.random.split(key)
        network = eqx.combine(weights, fixed)
        batch, total = jax.vmap(lambda k: self._episode(environment, network, k))(
            jax.random.split(roll_key, self.patients)
        )
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
        count = flat["going"].size

        def epoch(carry: Any, k: Array) -> tuple[Any, None]:
            order = jax.random.permutation(k, count)[: count - count % self.minibatches]
            parts = order.reshape(self.minibatches, -1)

            def update(carry: Any, rows: Array) -> tuple[Any, None]:
                weights, optimizer = carry
                part = jax.tree.map(lambda leaf: leaf[rows], flat)
                slope = jax.grad(lambda w: self._loss(eqx.combine(w, fixed), part))(weights)
                change, optimizer = rule.update(slope, optimizer, weights)
                return (optax.apply_updates(weights, change), optimizer), None

            return jax.lax.scan(update, carry, parts)

        carry, _ = jax.lax.scan(epoch, (weights, optimizer), jax.random.split(order_key, self.epochs))
        return carry, jnp.mean(total)

    def _episode(
        self, environment: AbstractEnvironment, network: PolicyNetwork, key: Array
    ) -> tuple[dict[str, Array], Array]:
        """One patient: what was seen and done, advantages and returns; and the total cost."""
        first_key, rest = jax.random.split(key)

        def step(carry: tuple[PyTree, Array], k: Array) -> tuple[tuple[PyTree, Array], dict[str, Array]]:
            state, going = carry
            act_key, step_key = jax.random.split(k)
            seen = environment.observe(state)
            log_probability = jax.nn.log_softmax(network.actor(seen))
            action = jax.random.categorical(act_key, log_probability)
            state, cost, ended = environment.step(state, action, step_key)
            done = {
                "seen": seen,
                "action": action,
                "log_probability": log_probability[action],
                "reward": -going * cost,
                "value": going * network.critic(seen),
                "going": going,
            }
            return (state, going * (1.0 - ended)), done

        start = (environment.reset(first_key), jnp.ones(()))
        (last, going), taken = jax.lax.scan(step, start, jax.random.split(rest, environment.horizon))
        del last, going  # the horizon ends the episode: nothing is to come
        following = jnp.append(taken["value"][1:], 0.0)
        surprise = taken["reward"] + self.discount * following - taken["value"]

        def back(advantage: Array, one: Array) -> tuple[Array, Array]:
            advantage = one + self.discount * self.trace * advantage
            return advantage, advantage

        _, advantage = jax.lax.scan(back, jnp.zeros(()), surprise, reverse=True)
        kept = {name: taken[name] for name in ("seen", "action", "log_probability", "going")}
        return kept | {"advantage": advantage, "target": advantage + taken["value"]}, -jnp.sum(taken["reward"])

    def _loss(self, network: PolicyNetwork, part: dict[str, Array]) -> Float[Array, ""]:
        going = part["going"]
        share = going / jnp.maximum(jnp.sum(going), 1.0)
        log_all = jax.nn.log_softmax(jax.vmap(network.actor)(part["seen"]))
        log_new = jnp.take_along_axis(log_all, part["action"][:, None], axis=1)[:, 0]
        middle = jnp.sum(share * part["advantage"])
        spread = jnp.sqrt(jnp.sum(share * (part["advantage"] - middle) ** 2)) + 1e-8
        advantage = (part["advantage"] - middle) / spread
        ratio = jnp.exp(log_new - part["log_probability"])
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - self.clip, 1.0 + self.clip) * advantage)
        error = (jax.vmap(network.critic)(part["seen"]) - part["target"]) ** 2
        entropy = -jnp.sum(jnp.exp(log_all) * log_all, axis=1)
        return jnp.sum(share * (-gain + self.value_weight * error - self.entropy * entropy))
