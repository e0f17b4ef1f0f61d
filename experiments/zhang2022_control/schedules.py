"""On or off at every visit: the schedule of least CVaR over a patient's draws, and one for all patients.

A schedule is delivered whatever is seen. The search (`LocalSearch`: one visit switched, or two neighbors exchanged)
starts from continuous drug, from drug at equal shares of the visits, and from what most draws would get under the
best thresholds.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.zhang2022_control.policies import HORIZON, VISIT, followed
from experiments.zhang2022_control.virtual import Bank, Model
from tumortwin.control import (
    AbstractFeedbackPolicy,
    AbstractRisk,
    CountedDays,
    Curve,
    CVaR,
    GroupedRisk,
    LocalSearch,
    Mean,
    OnOff,
    Plan,
    PlanningProblem,
    SchedulePolicy,
    Slots,
    optimize,
)

AGENT = "abiraterone"
DAYS = tuple(VISIT * k for k in range(HORIZON))
DUTIES = (0.2, 0.25, 1 / 3, 0.5, 2 / 3, 1.0)  # shares of visits under drug
LEVEL = 0.8
OF_MEAN = 0.02  # weight of the mean beside CVaR: it decides between schedules with the same worst fifth
SUBSTEPS = (
    12  # between two visits while planning; judged with twice as many (four gave a search 40 days that were not there)
)


class TailThenMean(AbstractRisk):
    """(1 - w) CVaR + w mean, coherent; a small w orders the visits that the tail does not reach.

    $$ (1 - w) \\, CVaR_{.8}(Z) + w \\, E Z, \\qquad w = .02 $$
    """

    name: ClassVar[str] = "cvar_then_mean"

    def __call__(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> Float[Array, ""]:
        return (1.0 - OF_MEAN) * CVaR(LEVEL)(values, weights) + OF_MEAN * Mean()(values, weights)

    def describe(self) -> dict[str, float | str]:
        return {"measure": self.name, "level": LEVEL, "weight_of_mean": OF_MEAN}


def lived(draw: Model, schedule: Any) -> Curve:
    """The burden function: days until the burden crosses 1.2 of the first, at most the horizon.

    The day is interpolated between visits, so that a search sees what a single switch is worth; judged by visits.
    """
    one = jax.tree.map(lambda leaf: leaf[None], draw)
    found = followed(SchedulePolicy(schedule.drugs[AGENT].doses), one, substeps=SUBSTEPS)
    return Curve(jnp.arange(2.0), jnp.ones(2), parameters={"days": found.crossed[0]})


def problem(draws: Model, risk: AbstractRisk) -> PlanningProblem:
    """All draws at once, in single precision (a search of days to progression by visits)."""
    draws = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), draws)
    return PlanningProblem(lived, draws, OnOff((Slots(AGENT, DAYS),)), CountedDays(), risk, (), sequential=False)


def starts(policy: AbstractFeedbackPolicy, draws: Model) -> Float[np.ndarray, "start visit"]:
    """Equal shares of the visits, and what most draws get under a policy."""
    place = np.arange(HORIZON)
    duties = [np.floor((place + 1) * duty + 1e-9) > np.floor(place * duty + 1e-9) for duty in DUTIES]
    # Drug first: a course that begins with a holiday is one that the search may find.
    duties = [duty[::-1] for duty in duties]
    most = np.asarray(jnp.mean(followed(policy, draws).dose, axis=1)) >= 0.5
    return np.asarray([*duties, most], dtype=float)


def personal(bank: Bank, patient: int, count: int, policy: AbstractFeedbackPolicy) -> Plan:
    """The schedule for one patient."""
    draws = bank.drawn(patient, count)
    return optimize(problem(draws, TailThenMean()), LocalSearch(jnp.asarray(starts(policy, draws))))


def common(bank: Bank, count: int, others: Float[np.ndarray, "start visit"]) -> Plan:
    """One schedule for all patients: the mean of their risks; the search starts from `others`."""
    patients = len(bank.weights)
    every = [bank.drawn(patient, count) for patient in range(patients)]
    draws = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *every)
    return optimize(problem(draws, GroupedRisk(TailThenMean(), patients)), LocalSearch(jnp.asarray(others)))


def doses_of(plan: Plan) -> Float[np.ndarray, " visit"]:
    """The doses of a plan, visit by visit."""
    return np.asarray(plan.variables, dtype=float)
