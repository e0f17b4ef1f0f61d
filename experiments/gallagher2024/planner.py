"""What to give until the next visit: imagined courses of what is known, and the risk of each candidate schedule."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.gallagher2024.particles import Particles, Record, learned, picked, resampled, started
from experiments.gallagher2024.population import VISIT, drawn, lived_coarsely, tumors
from experiments.gallagher2024.tumor import State
from tumortwin.control import (
    AbstractRisk,
    CountedDays,
    Curve,
    Known,
    LocalSearch,
    OnOff,
    PlanningProblem,
    Slots,
    Visit,
    optimize,
    receding_each,
)

AGENT = "drug"
DUTIES = (0.0, 0.2, 0.25, 1 / 3, 0.4, 0.5, 0.6, 0.75, 1.0)  # shares of visits under drug after the first decisions


@eqx.filter_jit
def _even(particles: Particles, draws: int) -> tuple[Array, State]:
    return picked(particles, resampled(particles.log_weight, draws, jnp.asarray(0.5)))


class Imagined(NamedTuple):
    """A draw of a plan: logs of the parameters, and the state that it has reached; of many, leaves [... draw]."""

    theta: Float[Array, "... parameter"]
    state: State

    @classmethod
    def of(cls, particles: Particles, draws: int) -> "Imagined":
        """Equally weighted draws of every patient [patient draw], without chance."""
        return cls(*_even(particles, draws))

    @classmethod
    def at_first(cls, theta: Float[Array, "draw parameter"]) -> "Imagined":
        """Before the first visit."""
        return cls(theta, tumors(theta).initial())


class Onward(eqx.Module):
    """The burden function of a draw that is a state at the visit `first`: days to progression from there, at most to
    the horizon."""

    first: Int[Array, ""]

    def __call__(self, draw: Imagined, schedule: Any) -> Curve:
        model, doses = tumors(draw.theta), schedule.drugs[AGENT].doses.astype(draw.theta.dtype)

        def interval(k: Array, carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
            state, going, days = carry
            found = lived_coarsely(model, state, doses[k])
            return found.state, going & found.passed, days + jnp.where(going, found.days, 0.0)

        start = (draw.state, jnp.asarray(True), jnp.zeros((), doses.dtype))
        days = jax.lax.fori_loop(self.first, doses.size, interval, start)[2]
        return Curve(jnp.arange(2.0), jnp.ones(2), parameters={"days": days})


def problem_of(risk: AbstractRisk, visits: int, draws: Any = None) -> PlanningProblem:
    """Drug or none at each of `visits`, against the risk of minus the days to progression."""
    days = tuple(float(VISIT * k) for k in range(visits))
    return PlanningProblem(
        Onward(jnp.asarray(0)), draws, OnOff((Slots(AGENT, days),)), CountedDays(), risk, (), sequential=False
    )


class SchedulePlanner(eqx.Module):
    """Plans the rest of the course as a schedule, which imagined patients follow whatever is seen later.

    Candidates: all combinations of the next `first` decisions, each followed by drug at a share `DUTIES` of the visits;
    and the plan of the visit before, which wins when nothing is better (`receding_each`).

    **Arguments:** `risk` over `draws` of what is known of minus the days to progression.
    """

    risk: AbstractRisk
    draws: int = eqx.field(static=True, default=64)
    first: int = eqx.field(static=True, default=3)

    def imagined_intervals(self, visits: int) -> int:
        """Intervals between visits simulated in planning for one patient who lives to the horizon."""
        return (1 + 2**self.first * len(DUTIES)) * self.draws * visits * (visits + 1) // 2

    def propose(self, vector: Float[Array, " visit"], now: Int[Array, ""]) -> Float[Array, "candidate visit"]:
        """The candidates from the visit `now` on."""
        place = jnp.arange(vector.size) - now
        bits = jnp.asarray((np.arange(2**self.first)[:, None] >> np.arange(self.first)) & 1, vector.dtype)
        duty = jnp.asarray(DUTIES, vector.dtype)[:, None]
        after = (place - self.first)[None]
        later = jnp.floor((after + 1) * duty + 1e-4) > jnp.floor(after * duty + 1e-4)
        soon = bits[:, None, jnp.clip(place, 0, self.first - 1)]
        tried = jnp.where(place[None, None] < self.first, soon, later.astype(vector.dtype)[None])
        return tried.reshape(-1, vector.size)

    def delivered(
        self, reestimate: Any, *, patients: int, visits: int, key: Array
    ) -> Float[np.ndarray, "patient visit"]:
        """The doses that every patient gets when the rest is planned again at every visit."""
        days = [float(VISIT * k) for k in range(visits)]
        return receding_each(
            problem_of(self.risk, visits), self.propose, reestimate, visits=days, component_days=days,
            start=np.ones((patients, visits)), burden_from=Onward, key=key,
        ).course  # fmt: skip


def open_loop(planner: SchedulePlanner, prior: Float[Array, "particle parameter"], visits: int) -> np.ndarray:
    """The schedule that the planner comes to when nothing is ever seen: known before the first visit, [visit]."""
    particles, silent = started(prior.astype(jnp.float32), 1), jnp.zeros((1, visits), jnp.float32)

    def unseen(visit: Visit, key: Array) -> Known:
        nonlocal particles
        del key
        if visit.index:
            record = Record(jnp.asarray(visit.delivered, jnp.float32), silent, jnp.zeros((), jnp.float32))
            particles = learned(particles, record, jnp.asarray(visit.index - 1))
        return Known(Imagined.of(particles, planner.draws))

    return planner.delivered(unseen, patients=1, visits=visits, key=jax.random.key(0))[0]


def polished(
    plan: Float[np.ndarray, " visit"], risk: AbstractRisk, *, draws: int, most: int, key: Array
) -> tuple[np.ndarray, int]:
    """A schedule improved by the best change of one visit, or exchange of two neighbors, until none helps (or `most`
    times), on fresh draws of the prior; and how often it was changed."""
    known = Imagined.at_first(drawn(draws, key=key).astype(jnp.float32))
    search = LocalSearch(jnp.asarray(plan, float)[None], max_steps=most)
    found = optimize(problem_of(risk, plan.size, known), search)
    return np.asarray(found.variables), int(found.convergence["steps"])
