"""A reduced-order model held against the model itself, case by case: what its bounds and its report rest on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin._chunks import in_chunks
from tumortwin.models import TumorState
from tumortwin.solvers import RESULTS
from tumortwin.surrogates._samples import Samples
from tumortwin.surrogates.pod._surrogate import PodSurrogate
from tumortwin.treatments import Schedule


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


def hold_against(surrogate: PodSurrogate, samples: Samples, schedules: Sequence[Schedule]) -> HeldOut:
    """The surrogate beside samples of the model, day 0 put in front where it is not among their days.

    A sample whose solve failed is an error here: nothing is left out in silence.

    **Raises:** `ValueError` naming how many samples failed.
    """
    usable = samples.succeeded & np.isfinite(samples.density).all(axis=(1, 2, 3, 4))
    if not usable.all():
        raise ValueError(
            f"required: samples that were solved, without NaN; received: {int((~usable).sum())} others of "
            f"{len(usable)}; try: a smaller `solver.max_step`"
        )
    days = samples.days if samples.days[0] == 0.0 else (0.0, *samples.days)
    parts, order = [], []
    for s in sorted(set(samples.design.schedule.tolist())):
        rows = np.flatnonzero(samples.design.schedule == s)
        values = {path: np.asarray(value)[rows] for path, value in samples.design.values.items()}
        compared = in_chunks(
            lambda part, s=s: _compared(surrogate, schedules[s], days, *part), (values, samples.density[rows])
        )
        parts.append(HeldOut(days, **jax.tree.map(np.asarray, compared)))
        order.append(rows)
    return HeldOut.of_parts(parts).rows(np.argsort(np.concatenate(order)))


def calibrate_pod(surrogate: PodSurrogate, held_out: HeldOut) -> PodSurrogate:
    """The surrogate with the bounds that held-out cases give: all that lie in its domain.

    Only cases inside of the domain count, as only of those it will be asked for an answer.
    """
    cases = held_out.rows(np.flatnonzero(held_out.inside))
    pairs = {name: (cases.ours[name], cases.theirs[name]) for name in surrogate.quantity_names}
    # A surrogate that broke down has no error to speak of: an infinite one.
    answered = np.all(np.isfinite(cases.estimate) & np.isfinite(cases.error), axis=1, keepdims=True)
    errors = np.where(answered, cases.error, np.inf)
    estimates = np.where(answered, cases.estimate, 0.0)
    pairs = {
        name: (np.where(answered, ours, 0.0), np.where(answered, theirs, np.inf))
        for name, (ours, theirs) in pairs.items()
    }
    return surrogate.with_error(surrogate.error.calibrated(estimates, errors, pairs))


@eqx.filter_jit
def _compared(
    surrogate: PodSurrogate,
    schedule: Schedule,
    days: tuple[float, ...],
    values: Mapping[str, Array],
    truth: Float[Array, "case day x y z"],
) -> dict:
    start = surrogate.begin(surrogate.model)
    first = surrogate.model.initial.state(surrogate.model.tissue).density
    axes = (1, 2, 3)

    def norm(x: Array) -> Array:
        return jnp.sqrt(jnp.sum(x**2, axis=axes))

    def one(case: tuple[Mapping[str, Array], Array]) -> dict:
        row, density = case
        if density.shape[0] < len(days):
            density = jnp.concatenate([first[None].astype(density.dtype), density])
        model = surrogate.at(row)
        reduced, estimate = surrogate.reduced(model, schedule, days, start)
        field = jnp.clip(surrogate.field(reduced.coefficients), 0.0, 1.0)
        off = norm(field - density)
        ours = surrogate.read(reduced.coefficients)
        theirs = surrogate.read_field(TumorState(density))
        dice = {}
        for name, level in surrogate.levels.items():
            a, b = field > level.astype(field.dtype), density > level.astype(field.dtype)
            both = jnp.sum(a & b, axis=axes, dtype=jnp.float32)
            total = jnp.sum(a, axis=axes, dtype=jnp.float32) + jnp.sum(b, axis=axes, dtype=jnp.float32)
            dice[name] = jnp.where(total > 0, 2.0 * both / jnp.where(total > 0, total, 1.0), jnp.nan)
        return {
            "estimate": estimate,
            "error": off / norm(field),
            "true_error": off / norm(density),
            "dice": dice,
            "ours": ours,
            "theirs": theirs,
            "vouched": surrogate.judge(model, reduced, estimate) == RESULTS.successful,
            "inside": surrogate.inside(model),
        }

    return jax.lax.map(one, (dict(values), truth))
