"""The published patient, decided upon every day with everything known: rules, dynamic programming, optimisers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.gallagher2024.tumor import LIMIT, State, held
from tumortwin.control import (
    AbstractFeedbackPolicy,
    AbstractRule,
    ConstantPolicy,
    CountedDays,
    CovarianceAdaptation,
    Curve,
    DecisionSpace,
    Exhaustive,
    HysteresisPolicy,
    Mean,
    PlanningProblem,
    PolicyThresholds,
    grid_process,
    optimize,
    value_iteration,
)
from tumortwin.models import TurnoverCompetition

LONGEST = 6000  # [day] no course lasts longer
STEPS = 4  # Runge-Kutta steps a day
NODES = 161  # of the grid in either direction; the policy that is rolled out is the same length of life at 321
LEAST_BURDEN = 0.30  # of the grid; an optimal course stays far above
KNOTS = 4  # of the margin as a function of the resistant share

Rule = Callable[[Any, State], tuple[Any, Array]]
"""`(memory, state) -> (memory, dose)`: what is given for the next day."""

RULES: dict[str, AbstractFeedbackPolicy] = {
    "no_drug": ConstantPolicy(0.0),
    "continuous": ConstantPolicy(1.0),
    "stop_at_half": HysteresisPolicy(0.5, 1.0),
    "stop_at_80_percent": HysteresisPolicy(0.8, 1.0),
    "threshold_80_percent": HysteresisPolicy(0.8, 0.8),
}


class Daily(eqx.Module):
    """A course by days: `days` to progression, and burden, resistant cells and dose of every morning until `LONGEST`
    (after progression they stand still)."""

    days: Array
    burden: Float[Array, " day"]
    resistant: Float[Array, " day"]
    dose: Float[Array, " day"]


def next_day(model: TurnoverCompetition, state: State, dose: Array) -> State:
    """The next morning."""
    return held(model, state, dose, days=1.0, steps=STEPS)[0]


def lived(model: TurnoverCompetition, rule: Rule, memory: Any) -> Daily:
    """The course under a rule; progression is the first morning with a burden above `LIMIT` times the first."""
    first = model.initial()
    limit = LIMIT * model.burden(first)

    def step(carry: tuple[State, Any], _: None) -> tuple[tuple[State, Any], tuple[Array, ...]]:
        state, memory = carry
        going = model.burden(state) <= limit
        later, dose = rule(memory, state)
        reached = next_day(model, state, dose)
        shown = (going, model.burden(state), state.resistant, dose)
        state, memory = jax.tree.map(lambda a, b: jnp.where(going, a, b), (reached, later), (state, memory))
        return (state, memory), shown

    _, (going, burden, resistant, dose) = jax.lax.scan(step, (first, memory), None, length=LONGEST)
    return Daily(jnp.sum(going), burden, resistant, dose)


@eqx.filter_jit
def under(model: TurnoverCompetition, policy: AbstractFeedbackPolicy) -> Daily:
    """The course under a feedback policy of the package, which sees the burden."""

    def rule(memory: Any, state: State) -> tuple[Any, Array]:
        return policy.decide(memory, model.burden(state))

    return lived(model, rule, policy.start(model.burden(model.initial())))


@eqx.filter_jit
def under_margin(model: TurnoverCompetition, knots: Float[Array, " knot"]) -> Daily:
    """Drug only where a day without it would end above c times the limit, c piecewise linear in ln R at `knots`.

    All ones: the greedy rule, which waits until the next day would be progression.
    """
    first = model.initial()
    limit = LIMIT * model.burden(first)
    places = jnp.linspace(jnp.log(first.resistant), jnp.log(limit), knots.size)

    def rule(memory: tuple[()], state: State) -> tuple[tuple[()], Array]:
        without = next_day(model, state, jnp.zeros(()))
        bar = jnp.interp(jnp.log(state.resistant), places, knots) * limit
        return memory, (model.burden(without) > bar).astype(float)

    return lived(model, rule, ())


@dataclasses.dataclass(frozen=True)
class Optimum:
    """Dynamic programming: `value` [day] read off the grid at the start, the course of its policy rolled out exactly,
    and the policy: whether the drug is given, on the grid."""

    value: float
    course: Daily
    burdens: Float[np.ndarray, " burden"]
    log_resistant: Float[np.ndarray, " resistant"]
    given: Bool[np.ndarray, "burden resistant"]


def dynamic_programming(model: TurnoverCompetition, nodes: int = NODES) -> Optimum:
    """Value iteration on a grid of (N, ln R), then its policy (one day of look-ahead with its value) rolled out."""
    first = model.initial()
    start, limit = float(model.burden(first)), LIMIT * float(model.burden(first))

    def morning(state: Array, dose: Array) -> Array:
        resistant = jnp.exp(state[1])
        here = dataclasses.replace(first, sensitive=jnp.maximum(state[0] - resistant, 0.0), resistant=resistant)
        reached = next_day(model, here, dose)
        return jnp.stack([model.burden(reached), jnp.log(reached.resistant)])

    axes = (
        np.linspace(LEAST_BURDEN, limit, nodes),
        np.linspace(np.log(float(first.resistant)) - 0.05, np.log(limit), nodes),
    )
    process, _ = grid_process(
        morning,
        lambda state, dose: -jnp.ones(()),
        axes,
        np.asarray([0.0, 1.0]),
        ended=lambda state: state[0] > limit * (1.0 + 1e-12),
    )
    found = value_iteration(process, tolerance=1e-4)
    table = jnp.asarray(-found.value.reshape(nodes, nodes))
    grids = jnp.asarray(axes[0]), jnp.asarray(axes[1])
    course = _rolled_out(model, table, grids)
    value = float(_interpolated(table, grids, jnp.asarray(start), jnp.log(first.resistant)))
    return Optimum(value, course, *axes, found.action.reshape(nodes, nodes) > 0)


@eqx.filter_jit
def _rolled_out(model: TurnoverCompetition, table: Array, grids: tuple[Array, Array]) -> Daily:
    limit = LIMIT * model.burden(model.initial())

    def value(state: State) -> Array:
        ahead = _interpolated(table, grids, model.burden(state), jnp.log(state.resistant))
        return jnp.where(model.burden(state) <= limit, ahead, 0.0)

    def rule(memory: tuple[()], state: State) -> tuple[tuple[()], Array]:
        without, with_drug = (value(next_day(model, state, jnp.asarray(dose))) for dose in (0.0, 1.0))
        return memory, (with_drug > without).astype(float)

    return lived(model, rule, ())


def _interpolated(table: Array, grids: tuple[Array, Array], burden: Array, log_resistant: Array) -> Array:
    """Bilinear, clipped to the grid."""
    places, shares = [], []
    for grid, at in zip(grids, (burden, log_resistant), strict=True):
        at = jnp.clip((at - grid[0]) / (grid[1] - grid[0]), 0.0, grid.size - 1.0)
        place = jnp.clip(at.astype(int), 0, grid.size - 2)
        places.append(place)
        shares.append(at - place)
    (i, j), (a, b) = places, shares
    low = (1.0 - b) * table[i, j] + b * table[i, j + 1]
    return (1.0 - a) * low + a * ((1.0 - b) * table[i + 1, j] + b * table[i + 1, j + 1])


class Margins(AbstractRule):
    """The rule of `under_margin`: how far below the limit the next day may end, at `KNOTS` resistant shares."""

    lowest: float = eqx.field(static=True, default=0.98)

    @property
    def space(self) -> DecisionSpace:
        names = tuple(f"margin_{k}" for k in range(KNOTS))
        return DecisionSpace(np.full(KNOTS, self.lowest), np.ones(KNOTS), np.zeros(KNOTS, bool), names, ("1",) * KNOTS)

    def schedule(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return {"margins": [float(v) for v in variables]}

    def sentence(self, variables: Float[Array, " n"]) -> str:
        return f"drug only where a day without it would end above {np.round(np.asarray(variables), 3)} of the limit"


def _problem(model: TurnoverCompetition, rule: AbstractRule, run: Any) -> PlanningProblem:
    def closed_loop(draw: Array, schedule: Any) -> Curve:
        days = run(model, schedule).days.astype(float) + 0.0 * draw
        return Curve(jnp.arange(2.0), jnp.ones(2), parameters={"days": days})

    return PlanningProblem(closed_loop, jnp.zeros(1), rule, CountedDays(), Mean(), (), sequential=False)


def best_threshold(model: TurnoverCompetition, points: int = 140) -> tuple[float, float]:
    """The single threshold (share of the first burden) that lives longest, by exhaustion, and its days."""
    single = PolicyThresholds(stop=(0.5, 1.195), width=(0.0, 0.0))
    found = optimize(_problem(model, single, under), Exhaustive(points=points))
    return float(found.variables[0]), -float(found.risk["value"])


def best_margins(model: TurnoverCompetition, evaluations: int, key: Array) -> tuple[np.ndarray, float]:
    """What CMA-ES finds among the rules of `under_margin`, and its days."""
    controller = CovarianceAdaptation(evaluations=evaluations, population=8)
    found = optimize(_problem(model, Margins(), under_margin), controller, key=key)
    return np.asarray(found.variables), -float(found.risk["value"])
