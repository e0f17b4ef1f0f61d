"""A learned rule beside the best one, which dynamic programming knows: it comes near, and says so when it loses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.control import (
    AbstractEnvironment,
    MarkovDecision,
    ProximalPolicy,
    compare_rules,
    episode_costs,
    finite_horizon,
)

SIZES, STEPS = 6, 12


class Clinic(AbstractEnvironment):
    """A tumor of size 0-5: it grows by one with probability .5, under treatment it shrinks by one with .8.

    A step costs size / 5, and treatment .35 more.
    """

    n_actions: int = eqx.field(static=True, default=2)
    horizon: int = eqx.field(static=True, default=STEPS)

    def reset(self, key):
        return jax.random.randint(key, (), 1, 5)

    def observe(self, state):
        return jnp.stack([state / 5.0, 1.0])

    def step(self, state, action, key):
        grows, shrinks = (jax.random.bernoulli(k, p) for k, p in zip(jax.random.split(key), (0.5, 0.8), strict=True))
        cost = state / 5.0 + 0.35 * action
        state = jnp.where(action == 1, state - shrinks, state + grows)
        return jnp.clip(state, 0, SIZES - 1), cost, jnp.zeros(())


def process():
    transition = np.zeros((2, SIZES, SIZES))
    for s in range(SIZES):
        transition[0, s, min(s + 1, SIZES - 1)] += 0.5
        transition[0, s, s] += 0.5
        transition[1, s, max(s - 1, 0)] += 0.8
        transition[1, s, s] += 0.2
    return MarkovDecision.dense(transition, np.arange(SIZES) / 5.0 + 0.35 * np.arange(2.0)[:, None])


def never(observation):
    return jnp.zeros((), int) * observation[0].astype(int)


def test_a_fixed_rule_costs_what_the_process_says():
    transition = process()
    value = np.zeros(SIZES)
    for _ in range(STEPS):
        expected = np.asarray(transition.expected(jnp.asarray(value)))
        value = transition.cost[0] + expected[0]
    costs = np.asarray(episode_costs(Clinic(), never, 20_000, key=jax.random.key(0)))
    error = costs.std() / np.sqrt(costs.size)
    assert costs.mean() == pytest.approx(value[1:5].mean(), abs=4 * error)


@pytest.fixture(scope="module")
def trained():
    return ProximalPolicy(iterations=80, patients=32).train(Clinic(), key=jax.random.key(1))


def test_a_learned_rule_comes_near_the_best_and_beats_doing_nothing(trained):
    best = finite_horizon(process(), STEPS, np.zeros(SIZES)).value[0, 1:5].mean()
    costs = np.asarray(episode_costs(Clinic(), trained.rule, 4000, key=jax.random.key(2)))
    nothing = np.asarray(episode_costs(Clinic(), never, 4000, key=jax.random.key(2)))
    assert best - 4 * costs.std() / np.sqrt(costs.size) <= costs.mean()  # nothing beats the optimum
    assert costs.mean() <= best + 0.1 * (nothing.mean() - best)
    assert trained.costs[-10:].mean() < trained.costs[:5].mean()
    assert trained.steps == 80 * 32 * STEPS


def test_a_rule_that_loses_says_so(trained):
    rules = {"learned": trained.rule, "never": never}
    found = compare_rules(Clinic(), rules, "learned", episodes=512, key=jax.random.key(3))
    assert found.beats == ("never",) and not found.loses_to
    other = compare_rules(Clinic(), rules, "never", episodes=512, key=jax.random.key(3))
    assert other.loses_to == ("learned",) and "never loses to learned" in other.describe()
    itself = compare_rules(Clinic(), {"a": never, "b": never}, "a", key=jax.random.key(4))
    assert itself.describe() == "a cannot be told from b"
