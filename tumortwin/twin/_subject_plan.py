"""From the posterior of a table to schedules of a drug for its subjects: what each draw goes through from today on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin import units
from tumortwin.control import (
    AbstractConstraint,
    AbstractController,
    AbstractFeedbackPolicy,
    AbstractObjective,
    AbstractOutcomeLimit,
    AbstractParametrization,
    AbstractRisk,
    Curve,
    GroupedRisk,
    Plan,
    PlanningProblem,
    Recommendation,
    SecondAim,
    plan,
    recommend,
)
from tumortwin.inference import SUBJECT, PopulationProblem, Posterior
from tumortwin.params import set_parameters
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import Schedule, StepHistory

EXPOSURE, FIRST = "exposure", "first_burden"
DEFAULT_LEVEL = 0.8


class SubjectDraw(eqx.Module):
    """A posterior draw of one subject on the day of the decision: its parameters `values` by path, the `state` that
    they have led to under the treatment so far, the burden `first` of the first reading, and whether that solve came
    through (`usable`)."""

    values: dict[str, Array]
    state: Any
    first: Float[Array, "*draw"]
    usable: Bool[Array, "*draw"]


class TreatedSubject(eqx.Module):
    """`(draw, schedule) -> Curve` of one subject's burden, days counted from the day of the decision.

    A dose of the schedule's drug is a level that holds from its day to the next one's; a feedback policy looks at the
    burden on each of the `visits` and sets the level until the next. The curve carries the level (`exposure`), the
    model's states by name, and the burden of the first reading (`first_burden`).

    **Limits:** a policy sees the burden itself, without the error of a reading (convenience); its baseline is that of
    the first reading.
    """

    model: Any
    days: tuple[float, ...] = eqx.field(static=True)
    visits: tuple[float, ...] = eqx.field(static=True)
    unit: str = eqx.field(static=True, default=units.FRACTION)

    def __call__(self, draw: SubjectDraw, schedule: Schedule | AbstractFeedbackPolicy) -> Curve:
        model = set_parameters(self.model, draw.values)
        if isinstance(schedule, AbstractFeedbackPolicy):
            level, found = self._seen(model, draw, schedule)
        else:
            (course,) = schedule.drugs.values()
            level = StepHistory(course.times, jnp.concatenate([jnp.zeros(1), course.doses]))
            found = simulate_compartment(model, jnp.asarray(self.days), level, state=draw.state)
        usable = found.succeeded & draw.usable
        place = jnp.searchsorted(level.edges, jnp.asarray(self.days), side="right")
        states = {entry.name: getattr(found.states, entry.name) for entry in dataclasses.fields(found.states)}
        return Curve(
            jnp.asarray(self.days),
            jnp.where(usable, found.burden, jnp.nan),
            {**states, EXPOSURE: level.levels[place]},
            {FIRST: draw.first},
            units={"burden": self.unit},
        )

    def _seen(self, model: Any, draw: SubjectDraw, policy: AbstractFeedbackPolicy) -> tuple[StepHistory, Any]:
        """The levels that a policy has given at the visits, and the solve under them."""
        visits = jnp.asarray(self.visits)

        def visit(now: tuple[Any, Any], duration: Array) -> tuple[tuple[Any, Any], Array]:
            state, memory = now
            memory, dose = policy.decide(memory, model.burden(state))
            after = simulate_compartment(model, duration[None], dose, state=state).states
            return (jax.tree.map(lambda x: x[0], after), memory), dose

        durations = jnp.diff(visits, append=jnp.asarray(self.days[-1:]))
        _, doses = jax.lax.scan(visit, (draw.state, policy.start(draw.first)), durations)
        level = StepHistory(visits, jnp.concatenate([jnp.zeros(1), doses]))
        return level, simulate_compartment(model, jnp.asarray(self.days), level, state=draw.state)


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """What is decided of the drug of a subject, and by which measure: all that a plan needs beside the draws.

    `horizon` [day] after the decision up to which a subject is followed; `visits` [day], where a level may change;
    `unit` of the burden.
    """

    parametrization: AbstractParametrization
    objective: AbstractObjective
    risk: AbstractRisk
    limits: tuple[AbstractConstraint | AbstractOutcomeLimit, ...]
    horizon: float
    visits: tuple[float, ...]
    unit: str = units.FRACTION

    @property
    def days(self) -> tuple[float, ...]:
        """The days of the curves: visits, the middle between two, and the horizon."""
        ends = (*self.visits, self.horizon)
        middle = [0.5 * (a + b) for a, b in zip(ends, ends[1:], strict=False)]
        return tuple(sorted({0.0, *ends, *middle}))


def subject_draws(problem: PopulationProblem, drawn: Mapping[str, np.ndarray], subject: int, day: float) -> SubjectDraw:
    """Draws [draw ...] by path, brought to `day` of one subject's clock under the treatment given before it."""
    values = {
        path.removeprefix(SUBJECT): jnp.asarray(value[:, subject], float)
        for path, value in drawn.items()
        if path.startswith(SUBJECT)
    }
    given = problem.data.given
    history = None if given is None else StepHistory(given.edges[subject], given.levels[subject])
    return _brought(problem.model, values, history, jnp.asarray(day, float))


@eqx.filter_jit
def _brought(model: Any, values: dict[str, Array], history: StepHistory | None, day: Array) -> SubjectDraw:
    def one(draw: dict[str, Array]) -> SubjectDraw:
        own = set_parameters(model, draw)
        found = simulate_compartment(own, day[None], history)
        state = jax.tree.map(lambda x: x[0], found.states)
        return SubjectDraw(draw, state, own.burden(own.initial()), found.succeeded)

    return jax.vmap(one)(values)


def subject_problem(
    problem: PopulationProblem,
    posterior: Posterior,
    decision: Decision,
    subject: int,
    day: float,
    *,
    n_draws: int = 64,
    key: Array,
) -> PlanningProblem:
    """The planning problem of one subject on `day` of its clock: `n_draws` of the first half of the posterior."""
    drawn = posterior.halves()[0].resample(n_draws, key=key)
    limits = decision.limits
    return PlanningProblem(
        TreatedSubject(problem.model, decision.days, decision.visits, decision.unit),
        subject_draws(problem, drawn, subject, day),
        decision.parametrization,
        decision.objective,
        decision.risk,
        tuple(c for c in limits if isinstance(c, AbstractConstraint)),
        sequential=False,
        outcome_limits=tuple(c for c in limits if isinstance(c, AbstractOutcomeLimit)),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Fresh:
    """Draws that no plan was chosen with: of one subject, and the log density of the population's prior at each."""

    draws: SubjectDraw
    log_prior: Float[np.ndarray, " draw"]


def fresh_draws(
    problem: PopulationProblem, posterior: Posterior, subject: int, day: float, *, n_draws: int, key: Array
) -> Fresh:
    """`n_draws` of the second half of the posterior."""
    drawn = posterior.halves()[1].resample(n_draws, key=key)
    return Fresh(subject_draws(problem, drawn, subject, day), np.asarray(problem.prior.log_probability(drawn)))


def recommend_for_subject(
    planning: PlanningProblem,
    fresh: Fresh,
    controller: AbstractController | None,
    standard_of_care: Any,
    *,
    objectives: Sequence[AbstractObjective] = (),
    aim: SecondAim | None = None,
    minimal_gains: Mapping[str, float] | None = None,
    key: Array,
) -> Recommendation:
    """The plan of one subject against the standard of care, on fresh draws; further `objectives` beside the problem's,
    and a front against `aim` where one is given.

    The prior whose weight `prior_sensitivity` changes is that of the population.
    """
    others = [o for o in objectives if o.name != planning.objective.name]
    return recommend(
        planning,
        controller,
        standard_of_care,
        fresh_draws=fresh.draws,
        fresh_log_prior=fresh.log_prior,
        objectives=others,
        aim=aim,
        minimal_gains=minimal_gains,
        level=float(planning.risk.describe().get("level", DEFAULT_LEVEL)),
        key=key,
    )


def common_plan(problems: Sequence[PlanningProblem], controller: AbstractController | None, *, key: Array) -> Plan:
    """The best schedule common to the subjects of several problems: the mean over subjects of each one's own risk.

    Limits on the outcome hold over the draws of all of them together.

    **Raises:** `ValueError` for a draw that fails in one of the problems.
    """
    first = problems[0]
    if not all(bool(jnp.all(p.draws.usable)) for p in problems):
        raise ValueError("required: draws that all solve, for a plan in common; received: one that does not")
    pooled = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *[p.draws for p in problems])
    together = dataclasses.replace(first, draws=pooled, risk=GroupedRisk(first.risk, len(problems)))
    return plan(together, controller=controller, name="best in common", key=key)
