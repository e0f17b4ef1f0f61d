"""A reduced-order model held against the model itself, case by case."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin._chunks import in_chunks
from tumortwin.models import TumorState
from tumortwin.solvers import RESULTS
from tumortwin.surrogates._held_out import HeldOut, calibrated_error, field_errors
from tumortwin.surrogates._samples import Samples
from tumortwin.surrogates.pod._surrogate import PodSurrogate
from tumortwin.treatments import Schedule


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
    return surrogate.with_error(calibrated_error(surrogate.error, held_out))


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

    def one(case: tuple[Mapping[str, Array], Array]) -> dict:
        row, density = case
        if density.shape[0] < len(days):
            density = jnp.concatenate([first[None].astype(density.dtype), density])
        model = surrogate.at(row)
        reduced, estimate = surrogate.reduced(model, schedule, days, start)
        field = jnp.clip(surrogate.field(reduced.coefficients), 0.0, 1.0)
        ours = surrogate.read(reduced.coefficients)
        theirs = surrogate.read_field(TumorState(density))
        return {
            "estimate": estimate,
            **field_errors(field, density, surrogate.levels),
            "ours": ours,
            "theirs": theirs,
            "vouched": surrogate.judge(model, reduced, estimate) == RESULTS.successful,
            "inside": surrogate.inside(model),
        }

    return jax.lax.map(one, (dict(values), truth))
