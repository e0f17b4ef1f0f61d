"""Calendar facts and sums as limits: weekends, lock-outs, shortest intervals, cumulative doses."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin import units
from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._decision import AbstractParametrization, given_amounts
from tumortwin.control._slots import OnOff
from tumortwin.treatments import Course

SATURDAY = 5
HALF_A_DAY = 0.5


class CumulativeDose(AbstractConstraint):
    """Sum of the decided doses of one `agent` <= `limit`, in the unit of its doses.

    With `window` [day] only doses from its first day up to and with its last are counted (a limit a cycle); the times
    of the plan must then be fixed.

    **Good values:** doxorubicin 450-550 mg/m^2 over a lifetime.

    **Raises:** `ValueError` for a window in a plan whose times move.
    """

    agent: str = eqx.field(static=True)
    limit: float = eqx.field(converter=float)
    window: tuple[float, float] | None = eqx.field(static=True, default=None)

    name: ClassVar[str] = "cumulative_dose"
    unit: ClassVar[str] = units.FRACTION

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        course = given_amounts(parametrization, variables, self.agent)
        if self.window is None:
            return (jnp.sum(course.doses) - self.limit)[None]
        if not parametrization.fixed_times:
            raise ValueError(
                "required: fixed times, for a cumulative dose within a window; received: times that the plan decides; "
                "try: CumulativeDose without a window"
            )
        inside = (course.times >= self.window[0]) & (course.times <= self.window[1])
        return (jnp.sum(jnp.where(inside, course.doses, 0.0)) - self.limit)[None]

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return parametrization.affine_doses

    def describe(self) -> dict[str, Any]:
        return {"agent": self.agent, "limit": self.limit, "window": self.window}


def _excluded(
    parametrization: AbstractParametrization, course: Course, depth: Float[Array, " event"]
) -> Float[Array, " residual"]:
    """Residuals of "nothing is given where depth > 0": the dose itself where times are fixed, else the smaller of dose
    and depth, so that an event may be moved away or be zero."""
    if parametrization.fixed_times:
        return jnp.where(depth > 0.0, course.doses, 0.0)
    return jnp.minimum(course.doses, depth)


class LockOut(AbstractConstraint):
    """Nothing of `agent` (of any agent: None) from day `first` to day `last`, both included.

    Holidays, an operation, recovery. **Limits:** where the plan moves its times, exact for whole days (an event counts
    as inside up to half a day before `first`), and not convex.
    """

    first: float = eqx.field(converter=float)
    last: float = eqx.field(converter=float)
    agent: str | None = eqx.field(static=True, default=None)

    name: ClassVar[str] = "lock_out"
    unit: ClassVar[str] = units.FRACTION

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        course = given_amounts(parametrization, variables, self.agent)
        before, after = course.times - self.first + HALF_A_DAY, self.last + HALF_A_DAY - course.times
        return _excluded(parametrization, course, jnp.minimum(before, after))

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return parametrization.fixed_times and parametrization.affine_doses

    def describe(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last, "agent": self.agent}


class Weekdays(AbstractConstraint):
    """Nothing of `agent` (of any agent: None) on Saturdays and Sundays; `weekday_of_day_0`: 0 is Monday.

    **Limits:** where the plan moves its times, exact for whole days, and not convex.
    """

    weekday_of_day_0: int = eqx.field(static=True, default=0)
    agent: str | None = eqx.field(static=True, default=None)

    name: ClassVar[str] = "weekdays"
    unit: ClassVar[str] = units.FRACTION

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        course = given_amounts(parametrization, variables, self.agent)
        weekday = jnp.mod(course.times + self.weekday_of_day_0, units.DAYS_PER_WEEK)
        depth = jnp.minimum(weekday - SATURDAY + HALF_A_DAY, units.DAYS_PER_WEEK - HALF_A_DAY - weekday)
        return _excluded(parametrization, course, depth)

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return parametrization.fixed_times and parametrization.affine_doses

    def describe(self) -> dict[str, Any]:
        return {"weekday_of_day_0": self.weekday_of_day_0, "agent": self.agent}


class MinimumInterval(AbstractConstraint):
    """Two doses of `agent` (of any agents: None) at least `days` [day] apart.

    For every pair of events i < j with |t_i - t_j| < days: u_i + u_j <= 1 where slots are on or off (rows), and
    min(d_i, d_j) <= 0 where they have doses (not convex: for controllers of whole numbers).

    **Good values:** 21 days between cycles that need the white cells to recover.

    **Raises:** `ValueError` where the plan moves its times: the interval is a bound of its own there.
    """

    days: float = eqx.field(static=True, converter=float)
    agent: str | None = eqx.field(static=True, default=None)

    name: ClassVar[str] = "minimum_interval"
    unit: ClassVar[str] = units.FRACTION

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        if not parametrization.fixed_times:
            raise ValueError(
                "required: fixed slots, for a shortest interval; received: times that the plan decides; "
                "try: the lower bound of its interval"
            )
        course = given_amounts(parametrization, variables, self.agent)
        with jax.ensure_compile_time_eval():
            zero = parametrization.variables(jnp.zeros(parametrization.space.size))
            times = np.asarray(given_amounts(parametrization, zero, self.agent).times)
        first, second = np.nonzero(np.triu(np.abs(times[:, None] - times[None, :]) < self.days, k=1))
        if isinstance(parametrization, OnOff):
            whole = given_amounts(parametrization, jnp.ones_like(variables), self.agent).doses
            on = course.doses / whole
            return on[first] + on[second] - 1.0
        return jnp.minimum(course.doses[first], course.doses[second])

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return isinstance(parametrization, OnOff)

    def describe(self) -> dict[str, Any]:
        return {"limit": self.days, "agent": self.agent}


class Relaxed(AbstractConstraint):
    """`constraint` with its limit moved out by `by`, in its unit: the closest that can be kept (see `Infeasible`)."""

    constraint: AbstractConstraint
    by: float = eqx.field(converter=float)

    name: ClassVar[str] = "relaxed"
    unit: ClassVar[str] = units.FRACTION

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        return self.constraint.residuals(variables, parametrization) - self.by

    def affine(self, parametrization: AbstractParametrization) -> bool:
        return self.constraint.affine(parametrization)

    def describe(self) -> dict[str, Any]:
        return {"constraint": self.constraint.name, "by": self.by, **self.constraint.describe()}
