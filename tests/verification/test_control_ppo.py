"""The learner against the exact answer, on a Markov decision process of few states."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.control import AbstractEnvironment, LearnedPolicy, MarkovDecision, Ppo, value_iteration
from tumortwin.control._ppo import Batch, _advantages

STATES, ACTIONS, DISCOUNT = 6, 3, 0.9


class Chain(AbstractEnvironment):
    """A Markov decision process seen as the unit vector of its state; an episode ends after a random number of steps
    (probability 1 - discount a step), which is what a discount means."""

    transition: Any
    reward: Any
    features: int = eqx.field(static=True, default=STATES)
    actions: int = eqx.field(static=True, default=ACTIONS)

    def start(self, *, key):
        return jax.random.randint(key, (), 0, STATES)

    def observe(self, state):
        return jax.nn.one_hot(state, STATES)

    def step(self, state, action, *, key):
        move_key, end_key = jax.random.split(key)
        reached = jax.random.categorical(move_key, jnp.log(self.transition[action, state]))
        return reached, self.reward[action, state], jax.random.uniform(end_key) > DISCOUNT


def process():
    """Sharp transitions and rewards, so that chance and myopia are far from the optimum."""
    rng = np.random.default_rng(7)
    transition = rng.dirichlet(np.full(STATES, 0.3), size=(ACTIONS, STATES))
    return transition, rng.uniform(size=(ACTIONS, STATES)) ** 3


def mean_return(transition, reward, choice):
    """The exact discounted return of action probabilities [state action], from a uniform start."""
    matrix = np.einsum("sa,ast->st", choice, transition)
    gained = np.einsum("sa,as->s", choice, reward)
    return float(np.linalg.solve(np.eye(STATES) - DISCOUNT * matrix, gained).mean())


@pytest.mark.slow
def test_it_comes_close_to_dynamic_programming_and_beats_chance():
    transition, reward = process()
    exact = value_iteration(MarkovDecision.dense(transition, -reward), DISCOUNT)
    best = mean_return(transition, reward, np.eye(ACTIONS)[exact.action])
    chance = mean_return(transition, reward, np.full((STATES, ACTIONS), 1.0 / ACTIONS))
    assert best == pytest.approx(-exact.value.mean(), rel=1e-6) and chance < 0.8 * best
    # Every ended step is a true end here: the learner's own discount is 1.
    settings = Ppo(environments=32, length=16, iterations=30, width=16, depth=1, discount=1.0, learning_rate=1e-2)
    learn = Chain(transition=jnp.asarray(transition), reward=jnp.asarray(reward))
    for seed in range(5):
        policy = settings.learn(learn, key=jax.random.key(seed)).policy
        taken = np.asarray(jax.vmap(policy.action)(jnp.eye(STATES)))
        found = mean_return(transition, reward, np.eye(ACTIONS)[taken])
        assert found > chance and found >= 0.95 * best, seed


def test_the_advantage_is_the_return_minus_the_value_where_the_trace_is_one():
    """Lambda = 1: A = sum of discounted rewards up to the end (or the value of the last state) - V."""
    rng = np.random.default_rng(0)
    reward, value, last = rng.normal(size=5), rng.normal(size=5), 0.7
    ended = np.asarray([0, 0, 1, 0, 0])
    column = [jnp.asarray(part)[:, None] for part in (reward, ended, value)]
    batch = Batch(column[0], column[0], column[0], *column)
    found = np.asarray(_advantages(Ppo(discount=0.8, trace=1.0), batch, jnp.asarray([last])))[:, 0]
    after = last
    for k in reversed(range(5)):
        after = reward[k] + 0.8 * (0.0 if ended[k] else after)
        assert found[k] == pytest.approx(after - value[k])


def test_the_policy_says_its_most_probable_action():
    net = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    policy = LearnedPolicy(net, net)
    seen = jnp.asarray([0.3, -1.0])
    assert int(policy.action(seen)) == int(np.argmax(np.asarray(net(seen))))


def test_settings_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divisible by minibatches"):
        Ppo(environments=3, length=5, minibatches=4)
