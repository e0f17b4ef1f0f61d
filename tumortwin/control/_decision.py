"""What a controller may choose: a vector with bounds, and the treatment that it stands for."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from tumortwin.treatments import Course, Schedule

RADIOTHERAPY = "radiotherapy"
"""The agent whose doses are fractions [Gy]; every other agent is a drug."""


@dataclasses.dataclass(frozen=True)
class DecisionSpace:
    """The box of a decision vector u in R^n.

    `lower` and `upper` [n] (may be infinite: constraints can add bounds), `integer` [n] marks whole numbers, `names`
    and `units` one a component.

    **Raises:** `ValueError` for lengths that differ, and for a lower bound above its upper bound.
    """

    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    integer: Bool[np.ndarray, " n"]
    names: tuple[str, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = {self.lower.size, self.upper.size, self.integer.size, len(self.names), len(self.units)}
        if len(sizes) > 1 or (self.lower > self.upper).any():
            raise ValueError(
                "required: as many lower bounds, upper bounds, marks, names and units, and lower <= upper; received: "
                f"{self.lower.tolist()} to {self.upper.tolist()}, {len(self.names)} names, {len(self.units)} units"
            )

    @property
    def size(self) -> int:
        """Number of components n."""
        return len(self.names)


class AbstractParametrization(eqx.Module):
    """A decision vector u, the `variables` that name its parts, and the treatment they stand for.

    $$ u \\in [l, h] \\subset R^n \\;\\to\\; variables(u) \\;\\to\\; schedule(variables) $$

    Controllers know u only; constraints, plans and the burden know the variables. `variables` and `vector` are inverse
    to each other and linear (they pack and unpack, they do not scale), so a gradient in the variables packs into a
    gradient in u. Where nothing needs a name the variables are the vector itself.

    `schedule` may return whatever the burden function takes: a `Schedule`, or a feedback policy.
    """

    @property
    @abc.abstractmethod
    def space(self) -> DecisionSpace:
        """Bounds, integrality, names and units of u."""

    @abc.abstractmethod
    def variables(self, vector: Float[Array, " n"]) -> PyTree:
        """The variables of a decision vector."""

    @abc.abstractmethod
    def vector(self, variables: PyTree) -> Float[Array, " n"]:
        """The decision vector of the variables."""

    @abc.abstractmethod
    def courses(self, variables: PyTree) -> dict[str, Course]:
        """The doses that are decided, by agent; what is given anyway is not among them."""

    @property
    @abc.abstractmethod
    def affine_doses(self) -> bool:
        """Whether the doses of `courses` are affine in u (a limit on a sum of doses is then a row A u <= b)."""

    @property
    @abc.abstractmethod
    def fixed_times(self) -> bool:
        """Whether the times of `courses` do not depend on u (calendar facts are then known beforehand)."""

    @abc.abstractmethod
    def schedule(self, variables: PyTree) -> Any:
        """What the burden function takes."""

    @abc.abstractmethod
    def cost(self, variables: PyTree) -> Mapping[str, float]:
        """What the plan costs, in plain numbers; names that end in `_gy` are doses [Gy], the others have no unit."""

    @abc.abstractmethod
    def describe(self, variables: PyTree) -> dict[str, Any]:
        """Plain numbers for a report or a JSON file."""

    @abc.abstractmethod
    def sentence(self, variables: PyTree) -> str:
        """What is given, in words, without the final stop."""


def scheduled(courses: Mapping[str, Course], fixed: Schedule) -> Schedule:
    """`fixed` treatment and then the decided `courses`; an agent that is in both gets both, fixed doses first."""
    drugs = dict(fixed.drugs)
    radiotherapy = fixed.radiotherapy
    for agent, course in courses.items():
        if agent == RADIOTHERAPY:
            radiotherapy = joined(radiotherapy, course)
        else:
            drugs[agent] = joined(drugs[agent], course) if agent in drugs else course
    return Schedule(radiotherapy, drugs, fixed.resections)


def joined(first: Course, second: Course) -> Course:
    """One course after another."""
    return Course(jnp.concatenate([first.times, second.times]), jnp.concatenate([first.doses, second.doses]))


def given_amounts(parametrization: AbstractParametrization, variables: PyTree, agent: str | None) -> Course:
    """The decided doses of one agent, or of all agents one after another (None).

    **Raises:** `ValueError` for an agent that the plan does not decide on.
    """
    courses = parametrization.courses(variables)
    if agent is not None and agent not in courses:
        raise ValueError(
            f"required: an agent that the plan decides on; received: {agent!r}; try: one of {', '.join(courses)}"
        )
    chosen = list(courses.values()) if agent is None else [courses[agent]]
    times, doses = (jnp.concatenate(parts) for parts in zip(*((c.times, c.doses) for c in chosen), strict=True))
    return Course(times, doses)
