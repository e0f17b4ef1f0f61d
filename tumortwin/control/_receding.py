"""Receding horizon: at every visit the draws are estimated again and what is left of the course is planned again."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin import units
from tumortwin.control._candidate import judged_one, plan_of
from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._controller import AbstractController, optimize
from tumortwin.control._decision import AbstractParametrization
from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem


class Held(AbstractConstraint):
    """Components that are given already: u_i = value_i for the `components` (indices)."""

    components: tuple[int, ...] = eqx.field(static=True)
    values: Float[Array, " held"] = eqx.field(converter=jnp.asarray)

    name: ClassVar[str] = "held"
    unit: ClassVar[str] = units.FRACTION

    def residuals(self, variables: PyTree, parametrization: AbstractParametrization) -> Float[Array, " residual"]:
        off = parametrization.vector(variables)[jnp.asarray(self.components, dtype=int)] - self.values
        return jnp.concatenate([off, -off])

    def affine(self, parametrization: AbstractParametrization) -> bool:
        del parametrization
        return True

    def describe(self) -> dict[str, Any]:
        return {"components": list(self.components), "values": self.values.tolist()}


@dataclasses.dataclass(frozen=True)
class Visit:
    """What is known at a visit: its `index` and `day`, and the decision [n] (of many patients: [patient n]), of which
    the components marked in `held` [n] have been `delivered` (the others are what the visit before planned)."""

    index: int
    day: float
    delivered: np.ndarray
    held: np.ndarray


def check_visits(visits: tuple[float, ...], component_days: tuple[float, ...]) -> None:
    """Raises `ValueError` for visits that do not rise, or a component before the first of them."""
    rising = all(b > a for a, b in zip(visits, visits[1:], strict=False))
    if not visits or not rising or min(component_days) < visits[0]:
        raise ValueError(
            "required: rising visit days, the first at or before the first component; received: visits "
            f"{visits}, components from day {min(component_days):g}"
        )


Reestimate = Callable[[Visit, Array], tuple[PyTree, Any]]
"""`(visit, key) -> (draws, weights or None)`: the posterior at a visit, from all that was seen until then."""


@dataclasses.dataclass(frozen=True)
class Delivery:
    """The visits so far, the plan made at each, and the decision as it stands."""

    visits: tuple[Visit, ...]
    plans: tuple[Plan, ...]
    vector: np.ndarray
    key: Array


class RecedingHorizon(AbstractController):
    """Model predictive control: plan the whole rest, give the first block, look again; a visit a step.

    At visit k on day t_k the draws are those of `reestimate`, components that are due before t_k are held at what was
    given, and `controller` plans the others within all limits of the problem. What is due before t_{k+1} is given. The
    answer is the course as it was delivered; `info` has the plan of every visit.

    With draws that never change it delivers the open-loop plan (where the risk is an expectation and the inner
    controller finds the optimum): feedback is worth what the observations teach.

    **Arguments:** `controller`, the inner one; `visits` [day], rising, the first at or before the first component;
    `component_days` [day], when each component of the decision is due; `reestimate`, the posterior at a visit: in a
    clinic from the data of the day, in silico from a simulated patient under `visit.delivered`.

    **Good values:** visits weekly for radiotherapy, every 28 days for endocrine therapy.

    **Raises:** `ValueError` for visits that do not rise, a first component before the first visit, or no key.

    **Limits:** components must be due one after another on fixed days: slots, levels, on/off (mathematical). One
    patient at a time: a virtual trial of many is for `receding_each`.
    """

    controller: AbstractController
    visits: tuple[float, ...] = eqx.field(static=True)
    component_days: tuple[float, ...] = eqx.field(static=True)
    reestimate: Reestimate = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_visits(self.visits, self.component_days)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Delivery:
        region = problem.region.bounded()
        if key is None or region.size != len(self.component_days):
            raise ValueError(
                f"required: a key, and a day for each of the {region.size} components; received: "
                f"{'no key' if key is None else 'a key'} and {len(self.component_days)} days"
            )
        return Delivery((), (), np.zeros(region.size), key)

    def step(self, problem: PlanningProblem, state: Delivery) -> Delivery:
        index = len(state.visits)
        day = self.visits[index]
        held = np.asarray(self.component_days) < day
        visit = Visit(index, day, state.vector, held)
        estimate_key, search_key = jax.random.split(jax.random.fold_in(state.key, index))
        draws, weights = self.reestimate(visit, estimate_key)
        now = problem.with_draws(draws, weights)
        if held.any():
            given = Held(tuple(int(k) for k in np.flatnonzero(held)), jnp.asarray(state.vector[held]))
            now = now.with_constraints((*problem.constraints, given))
        plan = optimize(now, self.controller, name=f"visit on day {day:g}", key=search_key)
        planned = np.asarray(problem.parametrization.vector(plan.variables), dtype=float)
        vector = np.where(held, state.vector, planned)
        return Delivery((*state.visits, visit), (*state.plans, plan), vector, state.key)

    def terminate(self, problem: PlanningProblem, state: Delivery) -> bool:
        del problem
        return len(state.visits) == len(self.visits)

    def info(self, state: Delivery) -> Mapping[str, Any]:
        return {
            "risk": float(state.plans[-1].risk["value"]) if state.plans else float("inf"),
            "outcome": f"{len(state.visits)} of {len(self.visits)} visits",
            "converged": len(state.visits) == len(self.visits),
            "visits": [
                {"day": visit.day, "risk": plan.risk["value"], "held": int(visit.held.sum())}
                for visit, plan in zip(state.visits, state.plans, strict=True)
            ],
        }

    def postprocess(self, problem: PlanningProblem, state: Delivery, name: str) -> Plan:
        """The delivered course, with its risk on the draws of the problem (those from before the first visit)."""
        region = problem.region
        return plan_of(problem, region, judged_one(problem, state.vector), name=name, convergence=self.info(state))
