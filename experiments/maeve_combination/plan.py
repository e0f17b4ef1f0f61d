"""The pair of doses: CVaR of the volume on a day under a limit on the probability of harm."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.stats import norm

from experiments.maeve_combination.model import Combination, WeightLoss
from experiments.maeve_combination.population import Population
from experiments.maeve_combination.record import Animals
from tumortwin.control import (
    AbstractController,
    AbstractParametrization,
    BurdenAtDay,
    ChanceLimit,
    Curve,
    CVaR,
    DoseLevels,
    Exhaustive,
    Plan,
    PlanningProblem,
    RelativeLoss,
    ScipyGradient,
    SlotDoses,
    Slots,
    optimize,
)
from tumortwin.inference._population import with_subjects

DAY = 28.0  # of the objective, and to which weight is watched
HARM, CHANCE = 0.15, 0.2  # relative loss of net weight; its largest probability
LEVEL = 0.8
BETWEEN_LEVELS = 4  # steps of the grid between two doses that were tried
WORST_DAY = 7.0  # on which the worst loss is drawn; its day is no part of the model


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """New animals: `volume` and `weight`, path -> [draw], and the `deviation` of each from the mean loss."""

    volume: dict[str, np.ndarray]
    weight: dict[str, np.ndarray]
    deviation: np.ndarray

    def part(self, rows: slice) -> dict[str, Any]:
        """As a planning problem wants them."""
        return {
            "volume": {p: jnp.asarray(v[rows]) for p, v in self.volume.items()},
            "weight": {p: jnp.asarray(v[rows]) for p, v in self.weight.items()},
            "deviation": jnp.asarray(self.deviation[rows]),
        }


def draws_of(volume: Population, weight: Population, key: Array, rng: np.random.Generator) -> Draws:
    """One new animal a posterior draw; volume and weight are independent of each other."""
    values = weight.values()
    bare = {p.removeprefix("typical."): v for p, v in values.items()}
    return Draws(volume.new_animals(key), bare, rng.standard_normal(weight.heads.shape[0]))


def burden_of(animals: Animals, model: Combination, weight: WeightLoss):  # noqa: ANN201
    """`(draw, schedule) -> Curve` of an animal with the median first volume."""
    start = jnp.asarray(float(np.median(animals.first)))
    days = jnp.asarray([0.0, WORST_DAY, 14.0, 21.0, DAY])

    def burden(draw: Any, schedule: Any) -> Curve:
        first, second = (jnp.sum(schedule.drugs[name].doses) for name in animals.drugs)
        volume = with_subjects(model, draw["volume"]).volume(days, start, first, second)
        loss = loss_of(weight, draw["weight"], draw["deviation"], first, second)
        body = jnp.where(days == WORST_DAY, 1.0 - loss, 1.0)
        return Curve(days, volume, {"body_weight": body}, units={"burden": "mm^3", "body_weight": "1"})

    return burden


def loss_of(weight: WeightLoss, draw: Any, deviation: Array, first: Array, second: Array) -> Array:
    """The worst loss that is measured in an animal `deviation` standard deviations from the mean."""
    mean, scale = loss_mean_and_scale(weight, draw, first, second)
    return mean + scale * deviation


def loss_mean_and_scale(weight: WeightLoss, draw: Any, first: Array, second: Array) -> tuple[Array, Array]:
    """Of the worst loss over animals."""
    own = {p: v for p, v in draw.items() if not p.startswith("residual.")}
    mean = with_subjects(weight, own).loss(first, second)
    return mean, jnp.sqrt(draw["residual.sd"] ** 2 + (draw["residual.cv"] * mean) ** 2)


def harm_probabilities(weight: WeightLoss, values: dict[str, np.ndarray], pair: tuple[float, float]) -> np.ndarray:
    """P(loss > 15 %) of a new animal [draw], one a draw of what is shared: its spread is what is not known."""
    draw = {p: jnp.asarray(v) for p, v in values.items()}
    mean, scale = loss_mean_and_scale(weight, draw, jnp.asarray(pair[0]), jnp.asarray(pair[1]))
    return norm.sf((HARM - np.asarray(mean)) / np.asarray(scale))


def slots_of(animals: Animals) -> tuple[Slots, Slots]:
    """The daily dose of each drug, as its only decision."""
    first, second = (Slots(name, (0.0,), "mg/kg") for name in animals.drugs)
    return first, second


def grid_of(levels: tuple[float, ...]) -> tuple[float, ...]:
    """0, the doses that were tried, and steps between them."""
    edges = [0.0, *levels]
    steps = [np.linspace(a, b, BETWEEN_LEVELS, endpoint=False) for a, b in zip(edges, edges[1:], strict=False)]
    return tuple(np.concatenate([*steps, [edges[-1]]]).tolist())


def planned(
    animals: Animals, model: Combination, weight: WeightLoss, draws: dict[str, Any]
) -> dict[str, tuple[PlanningProblem, Plan]]:
    """The best pair of the doses that were tried, of a grid, and of all doses between."""
    slots, levels = slots_of(animals), animals.levels
    tried = DoseLevels(slots, tuple((0.0, *each) for each in levels))
    grid = DoseLevels(slots, tuple(grid_of(each) for each in levels))
    free = SlotDoses(slots, tuple(each[-1] for each in levels))
    found = {}
    ways: list[tuple[str, AbstractParametrization, bool, AbstractController]] = [
        ("tried", tried, True, Exhaustive()),
        ("grid", grid, True, Exhaustive(chunk=64)),
        ("gradient", free, False, ScipyGradient(max_iterations=60)),
    ]
    for name, parametrization, exact, controller in ways:
        problem = PlanningProblem(
            burden=burden_of(animals, model, weight),
            draws=draws,
            parametrization=parametrization,
            objective=BurdenAtDay(DAY),
            risk=CVaR(LEVEL),
            constraints=(),
            sequential=False,
            outcome_limits=(ChanceLimit(RelativeLoss("body_weight", 0.0, DAY), HARM, 1.0 - CHANCE, exact=exact),),
        )
        found[name] = (problem, optimize(problem, controller, name=name))
    return found


def pair_of(animals: Animals, plan: Plan) -> tuple[float, float]:
    """The two doses [mg/kg] of a plan."""
    courses = plan.parametrization.courses(plan.variables)
    first, second = (float(courses[name].doses[0]) for name in animals.drugs)
    return first, second
