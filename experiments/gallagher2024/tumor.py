"""The tumor between two decisions: Runge-Kutta steps of the published equations (or another model's closed form)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tumortwin.models import AbstractCompartmentModel, AbstractFlow, AbstractRates
from tumortwin.models import SensitiveResistantState as State

LIMIT = 1.2  # progression: a burden above this share of the first


def held(
    model: AbstractCompartmentModel, state: Any, dose: Array, *, days: float, steps: int
) -> tuple[Any, list[Array]]:
    """The state after `days` under one dose, by `steps` classical Runge-Kutta steps (or steps of the closed form where
    the model has one), and the burden after each."""
    h, burdens = days / steps, []
    for _ in range(steps):
        if isinstance(model, AbstractFlow):
            state = model.advance(state, jnp.asarray(h, dose.dtype), dose)
        elif isinstance(model, AbstractRates):
            state = _stepped(model, state, dose, h)
        else:
            raise ValueError(f"required: a model with a flow or with rates; received: {type(model).__name__}")
        burdens.append(model.burden(state))
    return state, burdens


def _stepped(model: AbstractRates, state: Any, dose: Array, h: float) -> Any:
    def moved(rate: Any, share: float) -> Any:
        return jax.tree.map(lambda x, r: x + share * h * r, state, rate)

    a = model.rate(state, dose)
    b = model.rate(moved(a, 0.5), dose)
    c = model.rate(moved(b, 0.5), dose)
    d = model.rate(moved(c, 1.0), dose)
    return jax.tree.map(lambda x, *r: x + h / 6.0 * (r[0] + 2.0 * r[1] + 2.0 * r[2] + r[3]), state, a, b, c, d)


__all__ = ["LIMIT", "State", "held"]
