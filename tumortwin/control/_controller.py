"""The one loop that turns a planning problem into a plan."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array

from tumortwin.control._plan import Plan
from tumortwin.control._problem import PlanningProblem

OnStep = Callable[[Mapping[str, Any]], None]


class AbstractController(eqx.Module):
    """Chooses plan variables by `init / step / terminate / postprocess`; the state is explicit and on the host.

    `key` is for controllers that draw random numbers; the others leave it alone.
    """

    @abc.abstractmethod
    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Any:
        """The state before the first step.

        **Raises:** `Infeasible` for limits that no plan keeps together.
        """

    @abc.abstractmethod
    def step(self, problem: PlanningProblem, state: Any) -> Any:
        """The next state; every plan in it keeps the constraints."""

    @abc.abstractmethod
    def terminate(self, problem: PlanningProblem, state: Any) -> bool:
        """Whether to stop."""

    @abc.abstractmethod
    def info(self, state: Any) -> Mapping[str, Any]:
        """What to report of the state: best value, evaluations, outcome."""

    @abc.abstractmethod
    def postprocess(self, problem: PlanningProblem, state: Any, name: str) -> Plan:
        """The deliverable plan."""


def optimize(
    problem: PlanningProblem,
    controller: AbstractController,
    *,
    name: str = "recommended",
    on_step: OnStep | None = None,
    key: Array | None = None,
) -> Plan:
    """The plan that `controller` finds for `problem`; `on_step` is called with `controller.info` after every step."""
    state = controller.init(problem, key=key)
    while not controller.terminate(problem, state):
        state = controller.step(problem, state)
        if on_step is not None:
            on_step(controller.info(state))
    return controller.postprocess(problem, state, name)
