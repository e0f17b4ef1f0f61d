"""What is given, when, and how much. Times and doses are arrays with gradients; the number of events is static."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.params import as_parameter


class Course(eqx.Module):
    """A list of doses of one agent.

    `times` [day], in order, relative to the patient's day 0; `doses` in the agent's unit (Gy for radiotherapy; for a
    drug the multiple of its reference dose).
    """

    times: Float[Array, " event"] = eqx.field(converter=as_parameter, metadata={"unit": units.TIME})
    doses: Float[Array, " event"] = eqx.field(converter=as_parameter, metadata={"unit": units.DOSE})

    def __check_init__(self) -> None:
        if self.times.shape != self.doses.shape or self.times.ndim != 1:
            raise ValueError(
                f"required: one dose a time; received: {self.times.shape} times and {self.doses.shape} doses"
            )

    @classmethod
    def empty(cls) -> "Course":
        """No dose at all."""
        return cls(jnp.zeros(0), jnp.zeros(0))

    @property
    def size(self) -> int:
        """Number of doses (static)."""
        return self.times.shape[0]


class Resection(eqx.Module):
    """Removal of the fraction `removed` [0, 1] of the tumor in every voxel at `time` [day]: u -> (1 - removed) u."""

    time: float = eqx.field(static=True)
    removed: Float[Array, "x y z"] = eqx.field(converter=as_parameter)


class Schedule(eqx.Module):
    """All treatment of a patient: radiotherapy fractions [Gy], drug courses by name, resections in time order."""

    radiotherapy: Course
    drugs: dict[str, Course]
    resections: tuple[Resection, ...]

    def __init__(
        self,
        radiotherapy: Course | None = None,
        drugs: dict[str, Course] | None = None,
        resections: Sequence[Resection] = (),
    ) -> None:
        self.radiotherapy = Course.empty() if radiotherapy is None else radiotherapy
        self.drugs = {} if drugs is None else dict(drugs)
        self.resections = tuple(sorted(resections, key=lambda r: r.time))

    def describe(self) -> dict[str, Any]:
        """Plain numbers for a report or a JSON file."""
        return {
            "radiotherapy": {"times": self.radiotherapy.times.tolist(), "doses": self.radiotherapy.doses.tolist()},
            "drugs": {k: {"times": c.times.tolist(), "doses": c.doses.tolist()} for k, c in self.drugs.items()},
            "resections": [r.time for r in self.resections],
        }


def weekday_fractions(start: float, n_fractions: int, dose: float, start_weekday: int = 0) -> Course:
    """`n_fractions` of `dose` [Gy] on weekdays from day `start`; `start_weekday` 0 is Monday.

    **Good values:** 30 fractions of 2 Gy (glioblastoma standard of care).
    """
    times, day, weekday = [], float(start), start_weekday % units.DAYS_PER_WEEK
    saturday = 5
    while len(times) < n_fractions:
        if weekday < saturday:
            times.append(day)
        day, weekday = day + 1.0, (weekday + 1) % units.DAYS_PER_WEEK
    return Course(jnp.asarray(times), jnp.full(len(times), float(dose)))
