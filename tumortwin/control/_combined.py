"""Several decisions at once: radiotherapy and drugs, each with a parametrisation of its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin import units
from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._decision import AbstractParametrization, DecisionSpace, joined
from tumortwin.treatments import Course, Schedule


class Combined(AbstractParametrization):
    """The decisions of several `parts` one after another: u = (u_1, u_2, ...), variables by the name of the part.

    Weekly fractions of radiotherapy with a drug in cycles that may be moved, say, or dose levels of one drug with
    on/off of another. Limits on doses, by agent, hold as they are; a limit that is of one part's own variables (a start
    window) is put as `OfPart(name, limit)`.

    **Arguments:** `parts`: name -> parametrisation, no agent in two of them. Every part returns a `Schedule`; treatment
    that is given anyway belongs to one of them.

    **Raises:** `ValueError` for no part, and for an agent that two parts decide on.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    decisions: tuple[AbstractParametrization, ...]

    def __init__(self, parts: Mapping[str, AbstractParametrization]) -> None:
        # Not kept as a dictionary: JAX sorts its keys when it compiles, and the order is that of the vector.
        self.names, self.decisions = tuple(parts), tuple(parts.values())

    @property
    def parts(self) -> dict[str, AbstractParametrization]:
        """The parametrisation of every part, in the order of the vector."""
        return dict(zip(self.names, self.decisions, strict=True))

    def __check_init__(self) -> None:
        agents = [agent for part in self.parts.values() for agent in _agents(part)]
        if not self.parts or len(set(agents)) < len(agents):
            raise ValueError(f"required: one part or more, each agent in one of them; received: agents {agents}")

    @property
    def space(self) -> DecisionSpace:
        spaces = {name: part.space for name, part in self.parts.items()}
        return DecisionSpace(
            np.concatenate([s.lower for s in spaces.values()]),
            np.concatenate([s.upper for s in spaces.values()]),
            np.concatenate([s.integer for s in spaces.values()]),
            tuple(f"{name}.{component}" for name, s in spaces.items() for component in s.names),
            tuple(unit for s in spaces.values() for unit in s.units),
        )

    def variables(self, vector: Float[Array, " n"]) -> dict[str, PyTree]:
        found, first = {}, 0
        for name, part in self.parts.items():
            size = part.space.size
            found[name] = part.variables(vector[first : first + size])
            first += size
        return found

    def vector(self, variables: dict[str, PyTree]) -> Float[Array, " n"]:
        return jnp.concatenate([part.vector(variables[name]) for name, part in self.parts.items()])

    def courses(self, variables: dict[str, PyTree]) -> dict[str, Course]:
        return {
            agent: course
            for name, part in self.parts.items()
            for agent, course in part.courses(variables[name]).items()
        }

    @property
    def affine_doses(self) -> bool:
        return all(part.affine_doses for part in self.parts.values())

    @property
    def fixed_times(self) -> bool:
        return all(part.fixed_times for part in self.parts.values())

    def schedule(self, variables: dict[str, PyTree]) -> Schedule:
        radiotherapy, drugs, resections = Course.empty(), {}, []
        for name, part in self.parts.items():
            schedule = part.schedule(variables[name])
            radiotherapy = joined(radiotherapy, schedule.radiotherapy)
            for agent, course in schedule.drugs.items():
                drugs[agent] = joined(drugs[agent], course) if agent in drugs else course
            resections.extend(schedule.resections)
        return Schedule(radiotherapy, drugs, resections)

    def cost(self, variables: dict[str, PyTree]) -> Mapping[str, float]:
        return {
            quantity: value
            for name, part in self.parts.items()
            for quantity, value in part.cost(variables[name]).items()
        }

    def describe(self, variables: dict[str, PyTree]) -> dict[str, Any]:
        parts = {name: part.describe(variables[name]) for name, part in self.parts.items()}
        for part in parts.values():
            part.pop("schedule", None)
        return parts | {"schedule": self.schedule(variables).describe()}

    def sentence(self, variables: dict[str, PyTree]) -> str:
        return "; ".join(part.sentence(variables[name]) for name, part in self.parts.items())


def _agents(part: AbstractParametrization) -> list[str]:
    return list(part.courses(part.variables(jnp.zeros(part.space.size))))


class OfPart(AbstractConstraint):
    """`constraint` on one `part` of a combined decision, affine where it is affine there.

    **Raises:** `ValueError` for a decision that has no such part.
    """

    part: str = eqx.field(static=True)
    constraint: AbstractConstraint

    name: ClassVar[str] = "of_part"
    unit: ClassVar[str] = units.FRACTION

    def residuals(
        self, variables: dict[str, PyTree], parametrization: AbstractParametrization
    ) -> Float[Array, " residual"]:
        return self.constraint.residuals(variables[self.part], self._part(parametrization))

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return self.constraint.affine(self._part(parametrization))

    def describe(self) -> dict[str, Any]:
        return {"part": self.part, "constraint": self.constraint.name, **self.constraint.describe()}

    def _part(self, parametrization: AbstractParametrization) -> AbstractParametrization:
        if not isinstance(parametrization, Combined) or self.part not in parametrization.parts:
            known = list(parametrization.parts) if isinstance(parametrization, Combined) else "one that has no parts"
            raise ValueError(f"required: a decision with the part {self.part!r}; received: {known}")
        return parametrization.parts[self.part]
