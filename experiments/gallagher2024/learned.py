"""The learned policy: what a network may see of a patient, and patients under it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.gallagher2024.population import BASELINE, NOISE, VISIT, VISITS, drawn, lived_coarsely, tumors
from experiments.gallagher2024.tumor import State
from tumortwin.control import AbstractEnvironment, AbstractFeedbackPolicy, LearnedPolicy, Ppo

REWARD = 0.1  # for an interval without progression
SMOOTH = 0.8  # memory of the running means
TRAINING = Ppo(environments=256, length=64, iterations=160, epochs=3, minibatches=8, discount=0.99, learning_rate=1e-3)
QUICK_TRAINING = Ppo(environments=64, length=32, iterations=20, epochs=3, minibatches=4, discount=0.99)


class Memory(NamedTuple):
    """Log readings over the baseline (last, the one before, smoothed), doses (last, smoothed), their covariation
    (smoothed change of the reading under drug and without), the number of the visit."""

    last: Array
    before: Array
    level: Array
    dose: Array
    share: Array
    change_on: Array
    change_off: Array
    visit: Array


def blank() -> Memory:
    """Before the first visit: the burden is known then."""
    zero = jnp.zeros(())
    return Memory(zero, zero, zero, jnp.ones(()), 0.5 * jnp.ones(()), zero, zero, zero)


def remembered(memory: Memory, reading: Array, dose: Array) -> Memory:
    """After an interval under `dose` that ended with a log reading over the baseline."""
    change = reading - memory.last
    keep, add = SMOOTH, 1.0 - SMOOTH
    return Memory(
        reading,
        memory.last,
        keep * memory.level + add * reading,
        dose,
        keep * memory.share + add * dose,
        jnp.where(dose > 0.5, keep * memory.change_on + add * change, memory.change_on),
        jnp.where(dose > 0.5, memory.change_off, keep * memory.change_off + add * change),
        memory.visit + 1.0,
    )


def features(memory: Memory) -> Float[Array, " feature"]:
    """Of order 1."""
    m = memory
    return jnp.stack(
        [
            3.0 * m.last,
            3.0 * m.before,
            3.0 * m.level,
            m.dose,
            m.share,
            5.0 * m.change_on,
            5.0 * m.change_off,
            m.visit / VISITS,
        ]
    )


class Patient(NamedTuple):
    """A patient in training."""

    theta: Array
    state: State
    memory: Memory


class VirtualPatients(AbstractEnvironment):
    """Patients of the prior, one interval a step, seen as every rule sees them: through readings with noise."""

    features: int = eqx.field(static=True, default=8)
    actions: int = eqx.field(static=True, default=2)

    def start(self, *, key: Array) -> Patient:
        theta = drawn(1, key=key)[0].astype(jnp.float32)
        memory = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), blank())
        return Patient(theta, tumors(theta).initial(), memory)

    def observe(self, state: Patient) -> Float[Array, " feature"]:
        return features(state.memory)

    def step(self, state: Patient, action: Array, *, key: Array) -> tuple[Patient, Array, Array]:
        model, dose = tumors(state.theta), action.astype(jnp.float32)
        found = lived_coarsely(model, state.state, dose)
        error = NOISE * jax.random.normal(key, dtype=jnp.float32)
        reading = jnp.log(model.burden(found.state) / BASELINE) + error
        memory = remembered(state.memory, reading, dose)
        ended = ~found.passed | (memory.visit >= VISITS)
        return Patient(state.theta, found.state, memory), REWARD * found.days / VISIT, ended


class NetworkPolicy(AbstractFeedbackPolicy):
    """The most probable action of the learned policy; the first thing seen is the baseline, which is known."""

    policy: LearnedPolicy

    def start(self, observed: Float[Array, ""]) -> tuple[Memory, Array]:
        return blank(), jnp.zeros_like(observed, bool)

    def decide(
        self, memory: tuple[Memory, Array], observed: Float[Array, ""]
    ) -> tuple[tuple[Memory, Array], Float[Array, ""]]:
        known, begun = memory
        later = remembered(known, jnp.log(observed / BASELINE), known.dose)
        known = jax.tree.map(lambda a, b: jnp.where(begun, a, b), later, known)
        dose = self.policy.action(features(known)).astype(observed.dtype)
        return (known._replace(dose=dose), jnp.ones_like(begun)), dose
