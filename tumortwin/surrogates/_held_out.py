"""A surrogate held against the model itself, case by case: what its bounds and its report rest on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.surrogates._error import ErrorModel


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The surrogate beside the model on cases that it was not trained on.

    All [case day], the first day being that of the start: `estimate` of the relative L2 error and the `error` itself
    (relative to the surrogate's density), `true_error` relative to the model's; `dice` level -> [case day], NaN where
    both are empty; `ours`, `theirs` name -> [case day] quantities [mm^3]; `vouched` [case]: whether the surrogate
    stood by its answer, by the bounds it had; `inside` [case]: whether the parameters are in its domain.
    """

    days: tuple[float, ...]
    estimate: Float[np.ndarray, "case day"]
    error: Float[np.ndarray, "case day"]
    true_error: Float[np.ndarray, "case day"]
    dice: Mapping[str, Float[np.ndarray, "case day"]]
    ours: Mapping[str, Float[np.ndarray, "case day"]]
    theirs: Mapping[str, Float[np.ndarray, "case day"]]
    vouched: np.ndarray
    inside: np.ndarray

    def arrays(self) -> dict[str, Any]:
        """Everything but the days."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "days"}

    def rows(self, chosen: np.ndarray) -> "HeldOut":
        """Some of the cases."""
        return HeldOut(self.days, **jax.tree.map(lambda x: x[chosen], self.arrays()))

    def flat(self) -> dict[str, np.ndarray]:
        """Every array by a name of its own, for a file."""
        found: dict[str, np.ndarray] = {}
        for name, value in self.arrays().items():
            found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
        return found

    @classmethod
    def of_flat(cls, days: tuple[float, ...], arrays: Mapping[str, np.ndarray]) -> "HeldOut":
        """The inverse of `flat`; other arrays are left alone."""
        found: dict[str, Any] = {}
        for field in (f.name for f in dataclasses.fields(cls) if f.name != "days"):
            inner = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{field}.")}
            found[field] = inner or arrays[field]
        return cls(days, **found)

    @classmethod
    def of_parts(cls, parts: Sequence["HeldOut"]) -> "HeldOut":
        """The cases of all parts, in their order."""
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part.arrays() for part in parts))
        return cls(parts[0].days, **joined)


def calibrated_error(error: ErrorModel, held_out: HeldOut) -> ErrorModel:
    """The bounds that held-out cases give: all that lie in the domain, as only of those an answer will be asked.

    A case whose answer is not finite has an infinite error.
    """
    cases = held_out.rows(np.flatnonzero(held_out.inside))
    answered = np.all(np.isfinite(cases.estimate) & np.isfinite(cases.error), axis=1, keepdims=True)
    errors = np.where(answered, cases.error, np.inf)
    estimates = np.where(answered, cases.estimate, 0.0)
    pairs = {
        name: (np.where(answered, cases.ours[name], 0.0), np.where(answered, cases.theirs[name], np.inf))
        for name in error.quantity_factors
    }
    return error.calibrated(estimates, errors, pairs)


def field_errors(
    ours: Float[Array, "time x y z"], theirs: Float[Array, "time x y z"], levels: Mapping[str, Float[Array, ""]]
) -> dict[str, Any]:
    """`error`, `true_error` and `dice` of a surrogate's densities beside the model's, as `HeldOut` has them."""
    axes = (1, 2, 3)

    def norm(x: Array) -> Array:
        return jnp.sqrt(jnp.sum(x**2, axis=axes))

    dice = {}
    for name, level in levels.items():
        a, b = ours > level.astype(ours.dtype), theirs > level.astype(theirs.dtype)
        both = jnp.sum(a & b, axis=axes, dtype=jnp.float32)
        total = jnp.sum(a, axis=axes, dtype=jnp.float32) + jnp.sum(b, axis=axes, dtype=jnp.float32)
        dice[name] = jnp.where(total > 0, 2.0 * both / jnp.where(total > 0, total, 1.0), jnp.nan)
    off = norm(ours - theirs)
    return {"error": off / norm(ours), "true_error": off / norm(theirs), "dice": dice}
