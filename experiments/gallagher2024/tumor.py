"""The tumor between two decisions: Runge-Kutta steps of the published equations, many tumors at once."""

from jaxtyping import Array

from tumortwin.models import SensitiveResistantState as State
from tumortwin.models import TurnoverCompetition

LIMIT = 1.2  # progression: a burden above this share of the first


def held(
    model: TurnoverCompetition, state: State, dose: Array, *, days: float, steps: int
) -> tuple[State, list[Array]]:
    """The state after `days` under one dose, by `steps` classical Runge-Kutta steps, and the burden after each."""
    h, burdens = days / steps, []
    for _ in range(steps):
        a = model.rate(state, dose)
        b = model.rate(_moved(state, a, 0.5 * h), dose)
        c = model.rate(_moved(state, b, 0.5 * h), dose)
        d = model.rate(_moved(state, c, h), dose)
        state = State(
            state.sensitive + h / 6.0 * (a.sensitive + 2.0 * b.sensitive + 2.0 * c.sensitive + d.sensitive),
            state.resistant + h / 6.0 * (a.resistant + 2.0 * b.resistant + 2.0 * c.resistant + d.resistant),
        )
        burdens.append(model.burden(state))
    return state, burdens


def _moved(state: State, rate: State, h: float) -> State:
    return State(state.sensitive + h * rate.sensitive, state.resistant + h * rate.resistant)
