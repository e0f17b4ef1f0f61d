"""What to give until the next visit: imagined courses of what is known, and the risk of each candidate schedule."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.gallagher2024.particles import Particles, Record, learned, picked, resampled, started
from experiments.gallagher2024.population import drawn, lived_coarsely, tumors
from experiments.gallagher2024.tumor import State
from tumortwin.control import AbstractRisk

DUTIES = (0.0, 0.2, 0.25, 1 / 3, 0.4, 0.5, 0.6, 0.75, 1.0)  # shares of visits under drug after the first decisions


class Imagined(eqx.Module):
    """The draws of a plan, for every patient: leaves [patient 1 draw ...]."""

    theta: Float[Array, "patient one draw parameter"]
    state: State

    @classmethod
    def of(cls, particles: Particles, draws: int) -> "Imagined":
        """Equally weighted, without chance."""
        theta, state = picked(particles, resampled(particles.log_weight, draws, jnp.asarray(0.5)))
        return cls(theta[:, None], jax.tree.map(lambda leaf: leaf[:, None], state))

    def days(
        self, plans: Float[Array, "patient candidate visit"], visit: Array
    ) -> Float[Array, "patient candidate draw"]:
        """Days to progression from `visit` on, at most to the horizon, under each schedule."""
        model = tumors(self.theta)
        shape = (*plans.shape[:2], self.theta.shape[2])
        state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), self.state)

        def interval(k: Array, carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
            state, going, days = carry
            found = lived_coarsely(model, state, plans[:, :, k][..., None])
            return found.state, going & found.passed, days + jnp.where(going, found.days, 0.0)

        start = (state, jnp.ones(shape, bool), jnp.zeros(shape, self.theta.dtype))
        return jax.lax.fori_loop(visit, plans.shape[2], interval, start)[2]


class SchedulePlanner(eqx.Module):
    """Plans the rest of the course as a schedule, which imagined patients follow whatever is seen later.

    Candidates: all combinations of the next `first` decisions, each followed by drug at a share `DUTIES` of the visits;
    and the plan of the visit before, which wins when nothing is better.

    **Arguments:** `risk` over `draws` of what is known of minus the days to progression.
    """

    risk: AbstractRisk
    draws: int = eqx.field(static=True, default=64)
    first: int = eqx.field(static=True, default=3)

    def planned(
        self, particles: Particles, plan: Float[Array, "patient visit"], visit: Array
    ) -> Float[Array, "patient visit"]:
        """The new plan, of which the decision of this visit is given."""
        tried = self._candidates(plan, visit)
        days = Imagined.of(particles, self.draws).days(tried, visit)
        chosen = jnp.argmin(jax.vmap(jax.vmap(self.risk))(-days), axis=1)
        return jnp.take_along_axis(tried, chosen[:, None, None], axis=1)[:, 0]

    def imagined_intervals(self, visits: int) -> int:
        """Intervals between visits simulated in planning for one patient who lives to the horizon."""
        return (1 + 2**self.first * len(DUTIES)) * self.draws * visits * (visits + 1) // 2

    def _candidates(self, plan: Array, visit: Array) -> Float[Array, "patient candidate visit"]:
        place = jnp.arange(plan.shape[1]) - visit
        bits = jnp.asarray((np.arange(2**self.first)[:, None] >> np.arange(self.first)) & 1, plan.dtype)
        duty = jnp.asarray(DUTIES, plan.dtype)[:, None]
        after = place - self.first
        later = jnp.floor((after + 1) * duty + 1e-4) > jnp.floor(after * duty + 1e-4)
        soon = bits[:, None, jnp.clip(place, 0, self.first - 1)]
        tried = jnp.where(place < self.first, soon, later.astype(plan.dtype)[None]).reshape(-1, plan.shape[1])
        tried = jnp.broadcast_to(tried, (plan.shape[0], *tried.shape))
        tried = jnp.where(place < 0, plan[:, None], tried)
        return jnp.concatenate([plan[:, None], tried], axis=1)


@eqx.filter_jit
def decided(planner: SchedulePlanner, particles: Particles, plan: Array, visit: Array) -> Array:
    """`planner.planned`, compiled."""
    return planner.planned(particles, plan, visit)


def open_loop(planner: SchedulePlanner, prior: Float[Array, "particle parameter"], visits: int) -> np.ndarray:
    """The schedule that the planner comes to when nothing is ever seen: known before the first visit, [visit]."""
    particles = started(prior.astype(jnp.float32), 1)
    plan = jnp.ones((1, visits), jnp.float32)
    silent = jnp.zeros((1, visits), jnp.float32)
    for k in range(visits):
        plan = decided(planner, particles, plan, jnp.asarray(k))
        particles = learned(particles, Record(plan, silent, jnp.zeros((), jnp.float32)), jnp.asarray(k))
    return np.asarray(plan[0])


def polished(
    plan: Float[np.ndarray, " visit"], risk: AbstractRisk, *, draws: int, most: int, key: Array
) -> tuple[np.ndarray, int]:
    """A schedule improved by the best change of one visit, or exchange of two neighbors, until none helps (or `most`
    times), on fresh draws of the prior; and how often it was changed."""
    theta = drawn(draws, key=key).astype(jnp.float32)[None, None]
    known = Imagined(theta, tumors(theta).initial())

    @eqx.filter_jit
    def risks(tried: Array) -> Array:
        return jax.vmap(risk)(-known.days(tried[None], jnp.asarray(0))[0])

    now = np.asarray(plan, np.float32)
    for changes in range(most):
        flips = np.abs(now - np.eye(now.size, dtype=np.float32))
        swaps = np.stack([np.r_[now[:k], now[k + 1], now[k], now[k + 2 :]] for k in range(now.size - 1)])
        tried = np.concatenate([now[None], flips, swaps.astype(np.float32)])
        chosen = int(np.argmin(np.asarray(risks(jnp.asarray(tried)))))
        if chosen == 0:
            return now, changes
        now = tried[chosen]
    return now, most
