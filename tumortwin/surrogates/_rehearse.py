"""Many tumors under one schedule: by the surrogate, and by the model where the surrogate does not vouch for itself."""

import dataclasses
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin._chunks import in_chunks
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.surrogates._base import AbstractSurrogate
from tumortwin.treatments import Schedule

# Draws that one call of a surrogate answers; calls are made side by side.
TOGETHER = 256


@dataclasses.dataclass(frozen=True)
class Rehearsals:
    """Quantities of many draws under one schedule.

    `values`, `bounds` name -> [draw day]; `error` [draw day] bound of the relative L2 error; `fell_back` [draw]: the
    model itself was solved (its bounds are zero: its own error is that of its time step and grid).
    """

    days: tuple[float, ...]
    values: Mapping[str, Float[np.ndarray, "draw day"]]
    bounds: Mapping[str, Float[np.ndarray, "draw day"]]
    error: Float[np.ndarray, "draw day"]
    fell_back: Bool[np.ndarray, " draw"]

    @property
    def solves(self) -> int:
        """How often the model itself was solved."""
        return int(self.fell_back.sum())

    def interval(self, name: str, level: float = 0.95) -> Float[np.ndarray, "3 day"]:
        """Low end, median and high end of a quantity: the draws' central interval, widened by the surrogate's error.

        $$ [\\,q_{\\alpha/2}(Q - b),\\ q_{1-\\alpha/2}(Q + b)\\,] $$

        with every draw's own bound b: if the bounds hold, the interval holds what that of the model itself would.
        """
        tail = 0.5 * (1.0 - level)
        values, bounds = self.values[name], self.bounds[name]
        low = np.quantile(np.maximum(values - bounds, 0.0), tail, axis=0)
        high = np.quantile(values + bounds, 1.0 - tail, axis=0)
        return np.stack([low, np.median(values, axis=0), high])


def rehearse(
    surrogate: AbstractSurrogate,
    draws: Mapping[str, Array | np.ndarray],
    schedule: Schedule,
    days: Sequence[float],
    solver: FixedSteps | None,
) -> Rehearsals:
    """Mass and volumes of every draw at `days`, from the surrogate's start.

    **Arguments:** `draws` path -> [draw] of the parameters that differ; `solver` of the model itself, for the draws
    that the surrogate does not vouch for; None when those are to be an error.

    **Raises:** `ValueError` for no draws, or draws that are left over without a solver; `FloatingPointError` when the
    model itself fails.
    """
    values = {path: np.asarray(value) for path, value in draws.items()}
    asked = tuple(float(d) for d in days)
    if not values or not len(next(iter(values.values()))):
        raise ValueError(f"required: draws of at least one parameter; received: none of {sorted(values)}")
    together = min(TOGETHER, len(next(iter(values.values()))))
    found = in_chunks(lambda part: surrogate.many(part, schedule, asked), values, together)
    found = jax.tree.map(lambda x: np.array(x), found)
    left = np.flatnonzero(~found.inside)
    if left.size and solver is None:
        raise ValueError(
            f"required: draws that the surrogate vouches for; received: {left.size} of {len(found.inside)} that it "
            "does not; try: a solver to fall back to"
        )
    if left.size and solver is not None:
        rows = {path: value[left] for path, value in values.items()}
        solved, fine = in_chunks(lambda part: _solved(surrogate, schedule, solver, part, asked), rows)
        if not np.asarray(fine).all():
            raise FloatingPointError(
                f"required: every draw to solve; received: {int((~np.asarray(fine)).sum())} of {left.size} failed; "
                "try: a smaller max_step"
            )
        for name, value in solved.items():
            found.values[name][left], found.bounds[name][left] = np.asarray(value), 0.0
        found.error[left] = 0.0
    return Rehearsals(asked, found.values, found.bounds, found.error, ~found.inside)


@eqx.filter_jit
def _solved(
    surrogate: AbstractSurrogate,
    schedule: Schedule,
    solver: FixedSteps,
    values: Mapping[str, Array],
    days: tuple[float, ...],
) -> tuple[dict[str, Array], Array]:
    def one(row: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        found = simulate(surrogate.at(row), schedule, days, solver, estimate_error=False)
        return surrogate.read_field(found.states), found.succeeded

    return jax.lax.map(one, dict(values))
