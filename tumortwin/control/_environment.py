"""A treatment as a sequence of decisions by a patient who answers: the environment, and rules judged in it."""

import abc
import dataclasses
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""

ActionRule = Callable[[Float[Array, " observation"]], Int[Array, ""]]


class AbstractEnvironment(eqx.Module):
    """An episode of decisions. Costs, lower is better; everything compiles, and randomness comes by key.

    `n_actions` and `horizon` (decisions at most) are static.
    """

    n_actions: eqx.AbstractVar[int]
    horizon: eqx.AbstractVar[int]

    @abc.abstractmethod
    def reset(self, key: Array) -> PyTree:
        """The state of a new patient."""

    @abc.abstractmethod
    def observe(self, state: PyTree) -> Float[Array, " observation"]:
        """What is seen of a state, of the order of one."""

    @abc.abstractmethod
    def step(
        self, state: PyTree, action: Int[Array, ""], key: Array
    ) -> tuple[PyTree, Float[Array, ""], Float[Array, ""]]:
        """The next state, the cost of the step, and 1 where the episode has ended, else 0."""


@eqx.filter_jit
def episode_costs(
    environment: AbstractEnvironment, rule: ActionRule, episodes: int, *, key: Array
) -> Float[Array, " episode"]:
    """The total cost of `rule` for each of `episodes` patients; one key, the same patients for every rule."""

    def one(k: Array) -> Array:
        first_key, rest = jax.random.split(k)

        def step(carry: tuple[PyTree, Array], k: Array) -> tuple[tuple[PyTree, Array], Array]:
            state, going = carry
            state, cost, ended = environment.step(state, rule(environment.observe(state)), k)
            return (state, going * (1.0 - ended)), going * cost

        keys = jax.random.split(rest, environment.horizon)
        _, costs = jax.lax.scan(step, (environment.reset(first_key), jnp.ones(())), keys)
        return jnp.sum(costs)

    return jax.vmap(one)(jax.random.split(key, episodes))


@dataclasses.dataclass(frozen=True)
class RuleComparison:
    """A rule against others on the same patients: mean paired difference of cost (positive: the rule is worse) with its
    95 % interval, by the name of the other; `loses_to` and `beats` those whose interval excludes zero."""

    rule: str
    difference: Mapping[str, tuple[float, float, float]]

    @property
    def loses_to(self) -> tuple[str, ...]:
        """Rules that are better than this one beyond chance."""
        return tuple(name for name, (_, low, _) in self.difference.items() if low > 0.0)

    @property
    def beats(self) -> tuple[str, ...]:
        """Rules that are worse than this one beyond chance."""
        return tuple(name for name, (_, _, high) in self.difference.items() if high < 0.0)

    def describe(self) -> str:
        """One sentence, losses first."""
        parts = [f"loses to {', '.join(self.loses_to)}"] if self.loses_to else []
        parts += [f"beats {', '.join(self.beats)}"] if self.beats else []
        even = [n for n in self.difference if n not in self.loses_to and n not in self.beats]
        parts += [f"cannot be told from {', '.join(even)}"] if even else []
        return f"{self.rule} {'; '.join(parts)}"


def compare_rules(
    environment: AbstractEnvironment,
    rules: Mapping[str, ActionRule],
    rule: str,
    *,
    episodes: int = 256,
    key: Array,
) -> RuleComparison:
    """The rule named `rule` against every other of `rules` on the same `episodes` patients.

    **Good values:** always beside a plan by gradients on the same model, and the standard of care.
    """
    costs = {name: np.asarray(episode_costs(environment, r, episodes, key=key)) for name, r in rules.items()}
    found = {}
    for name, other in costs.items():
        if name != rule:
            gap = costs[rule] - other
            half = Z_95 * gap.std(ddof=1) / np.sqrt(gap.size)
            found[name] = (float(gap.mean()), float(gap.mean() - half), float(gap.mean() + half))
    return RuleComparison(rule, found)
