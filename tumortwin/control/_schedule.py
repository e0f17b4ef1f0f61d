"""The decision: dose a fraction of every week and the day treatment starts, and the schedule they stand for."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from tumortwin import units
from tumortwin.control._decision import RADIOTHERAPY, AbstractParametrization, DecisionSpace, scheduled
from tumortwin.control._toxicity import toxicity
from tumortwin.treatments import Course, Schedule

WEEKDAYS = 5


def _strong(value: ArrayLike) -> Array:
    """A float array with a fixed type: a weakly typed scalar would compile every solve a second time."""
    return jnp.asarray(value, dtype=jnp.result_type(float))


class PlanVariables(eqx.Module):
    """What a controller may choose.

    `weekly_fraction_dose` [Gy a fraction], one number a week; `start_day` [day], the day of the first fraction.
    """

    weekly_fraction_dose: Float[Array, " week"] = eqx.field(converter=_strong, metadata={"unit": units.DOSE})
    start_day: Float[Array, ""] = eqx.field(converter=_strong, metadata={"unit": units.TIME})


class WeeklyFractions(AbstractParametrization):
    """Radiotherapy in weeks of equal fractions.

    $$ t_{w,i} = t_{start} + 7 w + o_i, \\qquad d_{w,i} = d_w $$

    with o_i the treatment days of a week counted from its first fraction: {0,1,2,3,4} when the first fraction falls on
    a Monday, {0,1,2,5,6} when on a Wednesday. The number of weeks and of fractions is static; times and doses are
    arrays with gradients. A week of dose zero is a gap.

    **Arguments:** `n_weeks`; `fractions_per_week` (1-5); `first_weekday` of the first fraction, 0 is Monday;
    `concurrent`: drug courses whose times [day] count from the first fraction and move with it; `fixed`: treatment that
    does not move (what was given before, resections); `earlier`: doses [Gy] of fractions given before the day from
    which the plan counts. They are no part of its schedule (the tumor of that day has had them), but every dose limit
    counts them.

    **Raises:** `ValueError` for counts out of range.

    **Good values:** 6 weeks x 5 fractions x 2 Gy (glioblastoma standard of care).

    **Limits:** weekends follow the first fraction, so a moved start is a moved weekend; start days that keep the
    weekday are had with a start step of 7 days in the controller (convenience). Fixed doses must lie before the first
    fraction.
    """

    n_weeks: int = eqx.field(static=True, default=6)
    fractions_per_week: int = eqx.field(static=True, default=WEEKDAYS)
    first_weekday: int = eqx.field(static=True, default=0)
    concurrent: dict[str, Course] = eqx.field(default_factory=dict)
    fixed: Schedule = eqx.field(default_factory=Schedule)
    earlier: tuple[float, ...] = eqx.field(
        static=True, default=(), converter=lambda doses: tuple(float(dose) for dose in doses)
    )

    def __check_init__(self) -> None:
        if self.n_weeks < 1 or not 1 <= self.fractions_per_week <= WEEKDAYS or not 0 <= self.first_weekday < WEEKDAYS:
            raise ValueError(
                "required: at least one week, 1-5 fractions a week and a first weekday 0 (Monday) to 4; received: "
                f"{self.n_weeks} weeks, {self.fractions_per_week} fractions, weekday {self.first_weekday}"
            )

    @property
    def n_fractions(self) -> int:
        """Number of fractions (static)."""
        return self.n_weeks * self.fractions_per_week

    @property
    def fraction_days(self) -> np.ndarray:
        """Days [fraction] from the first fraction to every fraction."""
        weekdays = (self.first_weekday + np.arange(units.DAYS_PER_WEEK)) % units.DAYS_PER_WEEK
        offsets = np.flatnonzero(weekdays < WEEKDAYS)[: self.fractions_per_week]
        return (units.DAYS_PER_WEEK * np.arange(self.n_weeks)[:, None] + offsets[None, :]).ravel().astype(float)

    def fraction_doses(self, variables: PlanVariables) -> Float[Array, " fraction"]:
        """Dose [Gy] of every fraction."""
        shape = (self.n_weeks, self.fractions_per_week)
        return jnp.broadcast_to(variables.weekly_fraction_dose[:, None], shape).reshape(-1)

    @property
    def space(self) -> DecisionSpace:
        n = self.n_weeks
        return DecisionSpace(
            np.append(np.zeros(n), -np.inf),
            np.full(n + 1, np.inf),
            np.zeros(n + 1, bool),
            (*(f"week[{week + 1}]" for week in range(n)), "start_day"),
            (*((units.DOSE,) * n), units.TIME),
        )

    def variables(self, vector: Float[Array, " n"]) -> PlanVariables:
        return PlanVariables(vector[:-1], vector[-1])

    def vector(self, variables: PlanVariables) -> Float[Array, " n"]:
        return jnp.append(variables.weekly_fraction_dose, variables.start_day)

    def courses(self, variables: PlanVariables) -> dict[str, Course]:
        times = variables.start_day + jnp.asarray(self.fraction_days)
        return {RADIOTHERAPY: Course(times, self.fraction_doses(variables))}

    @property
    def affine_doses(self) -> bool:
        return True

    @property
    def fixed_times(self) -> bool:
        return False

    def schedule(self, variables: PlanVariables) -> Schedule:
        """All treatment under `variables`: fixed treatment, then the fractions and the drugs that move with them."""
        if variables.weekly_fraction_dose.shape != (self.n_weeks,):
            raise ValueError(
                f"required: {self.n_weeks} weekly fraction doses; received: {variables.weekly_fraction_dose.shape}"
            )
        start = variables.start_day
        moved = {name: Course(start + course.times, course.doses) for name, course in self.concurrent.items()}
        return scheduled(self.courses(variables) | moved, self.fixed)

    def cost(self, variables: PlanVariables) -> Mapping[str, float]:
        return toxicity(self.fraction_doses(variables)).describe()

    def sentence(self, variables: PlanVariables) -> str:
        doses = ", ".join(f"{d:.2f}" for d in variables.weekly_fraction_dose.tolist())
        dose = self.cost(variables)
        return (
            f"first fraction on day {float(variables.start_day):g}, {self.fractions_per_week} fractions a week of "
            f"{doses} Gy (week 1 to {self.n_weeks}); total {dose['total_dose_gy']:.1f} Gy, "
            f"normal-tissue BED {dose['bed_3_gy']:.1f} Gy (alpha/beta 3), largest fraction "
            f"{dose['max_fraction_dose_gy']:.2f} Gy"
        )

    def uniform(self, fraction_dose: float, start_day: float) -> PlanVariables:
        """The same dose in every fraction; 2 Gy is the standard of care of 30 x 2 Gy."""
        return PlanVariables(jnp.full(self.n_weeks, float(fraction_dose)), jnp.asarray(float(start_day)))

    def describe(self, variables: PlanVariables) -> dict[str, Any]:
        """Plain numbers for a report or a JSON file."""
        return {
            "weekly_fraction_dose_gy": [float(d) for d in variables.weekly_fraction_dose],
            "fractions_per_week": self.fractions_per_week,
            "start_day": float(variables.start_day),
            "first_weekday": self.first_weekday,
            "earlier_dose_gy": sum(self.earlier),
            "schedule": self.schedule(variables).describe(),
        }
