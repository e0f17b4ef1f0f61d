"""From courses to a neural operator, and to its bounds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin._chunks import in_chunks
from tumortwin.inference import Batch, Batches, Checkpoint, Fitted, Training, fit, split_subjects
from tumortwin.models import ReactionDiffusion, TumorState
from tumortwin.solvers import RESULTS, FixedSteps
from tumortwin.surrogates._base import MASS
from tumortwin.surrogates._domain import ParameterDomain
from tumortwin.surrogates._error import ErrorModel
from tumortwin.surrogates._held_out import HeldOut, calibrated_error, field_errors
from tumortwin.surrogates.fno._base_solution import SUMMARY, summary_of
from tumortwin.surrogates.fno._courses import Courses, course_model, course_schedule
from tumortwin.surrogates.fno._operator import FourierOperator, OperatorSettings
from tumortwin.surrogates.fno._surrogate import (
    FIELDS,
    FnoSurrogate,
    asked_of,
    doses_of,
    features_of,
    member_densities,
)

NAME = "operator"
# Beyond what the summary of the training courses reaches, in shares of its range, and beyond their largest dose.
MARGIN = 0.02


class OperatorLoss(eqx.Module):
    """Mean relative L2 error of every network on its own, over the courses of a batch, each at one of its days.

    $$ L = \\frac1{nM} \\sum_{i,m} \\frac{|u_m - u_i|}{|u_i|} $$
    """

    template: ReactionDiffusion
    center: Float[Array, " number"]
    scale: Float[Array, " number"]

    def __call__(self, networks: FourierOperator, data: Mapping[str, Any]) -> Float[Array, ""]:
        def one(row: Mapping[str, Any]) -> Array:
            model = course_model(self.template, row["values"], row["inputs"])
            schedule = course_schedule(self.template, row["inputs"])
            asked = asked_of(model, schedule, row["day"][None], self.center, self.scale, networks.dtype)
            target = row["target"].astype(networks.dtype)
            said = member_densities(networks, asked)[:, 0]
            off = jnp.sum((said - target[None]) ** 2, axis=(1, 2, 3))
            # 1e-12: the slope of a root at zero is no number.
            return jnp.mean(jnp.sqrt(off / jnp.sum(target**2) + 1e-12))

        return jnp.mean(jax.lax.map(one, dict(data)))


def operator_batches(courses: Courses, size: int, *, key: Array) -> Batches:
    """Batches of `size` courses in an order drawn anew for each epoch, every course at one of its days, drawn too."""
    count = courses.size
    size = min(size, count)

    def of_epoch(epoch: int) -> Iterable[Batch]:
        order_key, day_key = jax.random.split(jax.random.fold_in(key, epoch))
        order = np.asarray(jax.random.permutation(order_key, count))
        day = np.asarray(jax.random.randint(day_key, (count,), 0, len(courses.days)))
        for start in range(0, count - size + 1, size):
            yield _batch(courses, order[start : start + size], day, f"batch {start // size + 1}")

    return of_epoch


def held_out_batches(courses: Courses, size: int) -> list[Batch]:
    """All courses, each at one day, the days in turn; a last, smaller batch is filled up from the one before."""
    day = np.arange(courses.size) % len(courses.days)
    size = min(size, courses.size)
    starts = sorted({*range(0, courses.size - size + 1, size), courses.size - size})
    return [_batch(courses, np.arange(s, s + size), day, f"rows {s}-{s + size - 1}") for s in starts]


def _batch(courses: Courses, rows: np.ndarray, day: np.ndarray, name: str) -> Batch:
    who = ", ".join(str(number) for number in courses.anatomy[rows])
    data = {
        "values": {path: value[rows] for path, value in courses.values.items()},
        "inputs": {path: value[rows] for path, value in courses.inputs.items()},
        "day": np.asarray(courses.days)[day[rows]],
        "target": courses.density[rows, day[rows]],
    }
    return Batch(f"{name} (anatomies {who})", data)


def begin_networks(settings: OperatorSettings, *, key: Array, dtype: Any = jnp.float32) -> FourierOperator:
    """The networks before training, leaves [member ...]."""
    keys = jax.random.split(key, settings.members)
    return jax.vmap(lambda k: FourierOperator.drawn(FIELDS, SUMMARY, settings, key=k, dtype=dtype))(keys)


def fit_operator(
    template: ReactionDiffusion,
    courses: Courses,
    expected: Mapping[str, np.ndarray],
    *,
    levels: Mapping[str, float],
    solver: FixedSteps,
    horizon: float,
    settings: OperatorSettings,
    training: Training,
    batch: int = 8,
    held_out_share: float = 0.125,
    key: Array,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
    dtype: Any = jnp.float32,
) -> tuple[FnoSurrogate, Fitted]:
    """A neural operator that has not been held against held-out cases yet (`calibrate_operator`), and its training.

    **Arguments:** `courses` to train on, of which the anatomies of a share are only used to stop; `expected` name ->
    [case] of parameters and features drawn as those that will be asked for (`expected_values`); `levels` of the
    volumes; `horizon` [day]. Everything else as `fit` has it.

    **Raises:** `InputError` that names the batch with a value that is no number; `ValueError` for courses of which some
    could not be solved.
    """
    if not courses.succeeded.all():
        raise ValueError(
            f"required: courses that were solved; received: {int((~courses.succeeded).sum())} others of "
            f"{courses.size}; try: `courses.rows(courses.succeeded)`, and say how many were left out"
        )
    keys = jax.random.split(key, 3)
    summary = course_summaries(template, courses)
    center, scale = jnp.asarray(summary.mean(axis=(0, 1))), jnp.asarray(np.maximum(summary.std(axis=(0, 1)), 1e-6))
    train, held = split_subjects(courses.anatomy, held_out_share, key=keys[0])
    fitted = fit(
        OperatorLoss(template, center, scale),
        begin_networks(settings, key=keys[1], dtype=dtype),
        operator_batches(courses.rows(train), batch, key=keys[2]),
        held_out=held_out_batches(courses.rows(held), batch),
        settings=training,
        progress=progress,
        checkpoint=checkpoint,
        name=NAME,
    )
    standard = (summary - np.asarray(center)) / np.asarray(scale)
    lowest, highest = standard.min(axis=(0, 1)), standard.max(axis=(0, 1))
    wider = MARGIN * (highest - lowest)
    known = course_values(template, courses)
    voxel = template.tissue.grid.cell_volume
    error = ErrorModel.uncalibrated((MASS, *sorted(levels)), settings.level, settings.tolerance, voxel, settings.floor)
    surrogate = FnoSurrogate(
        template,
        fitted.parameters,
        center,
        scale,
        jnp.asarray(lowest - wider),
        jnp.asarray(highest + wider),
        {name: jnp.asarray((1.0 + MARGIN) * dose) for name, dose in _largest_doses(template, courses).items()},
        ParameterDomain.of(known, expected, settings.domain_level),
        error,
        {name: jnp.asarray(float(level)) for name, level in sorted(levels.items())},
        solver,
        float(horizon),
    )
    return surrogate, fitted


def course_summaries(template: ReactionDiffusion, courses: Courses) -> Float[np.ndarray, "course day number"]:
    """What a network is told of every course on day 0 and on its days."""
    days = courses.days if courses.days[0] == 0.0 else (0.0, *courses.days)
    rows = (dict(courses.values), dict(courses.inputs))
    return np.asarray(in_chunks(lambda part: _summaries(template, days, *part), rows))


def _largest_doses(template: ReactionDiffusion, courses: Courses) -> dict[str, float]:
    """The largest dose of all courses, by what is given."""
    names = ("fraction_times", "fraction_doses", "drug_times", "drug_doses")
    given = doses_of(course_schedule(template, {name: jnp.ravel(courses.inputs[name]) for name in names}))
    return {name: float(np.max(np.asarray(doses))) for name, doses in given.items()}


def course_values(template: ReactionDiffusion, courses: Courses) -> dict[str, np.ndarray]:
    """Parameters, and features of anatomy and start, of every course, as the domain knows them."""
    return {p: np.asarray(v) for p, v in courses.values.items()} | course_features(template, courses.inputs)


def course_features(template: ReactionDiffusion, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features of anatomies and starts alone."""
    places = {k: inputs[k] for k in ("white_matter", "gray_matter", "mask", "start")}
    return {k: np.asarray(v) for k, v in in_chunks(lambda part: _features(template, part), places).items()}


def expected_values(features: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cases as they will be asked for: features and sets of parameters are drawn apart, as many of each; none serves
    twice, since limits rest on the number of cases that are independent of each other."""
    counts = {len(v) for v in (*features.values(), *values.values())}
    if len(counts) != 1:
        raise ValueError(f"required: as many anatomies as sets of parameters; received: {sorted(counts)}")
    return {p: np.asarray(v) for p, v in values.items()} | dict(features)


def hold_operator_against(surrogate: FnoSurrogate, courses: Courses) -> HeldOut:
    """The surrogate beside the model's own courses, day 0 put in front where it is not among their days.

    **Raises:** `ValueError` naming how many courses could not be solved: nothing is left out in silence.
    """
    usable = courses.succeeded & np.isfinite(courses.density).all(axis=(1, 2, 3, 4))
    if not usable.all():
        raise ValueError(
            f"required: courses that were solved, without NaN; received: {int((~usable).sum())} others of "
            f"{courses.size}; try: a smaller `solver.max_step`"
        )
    days = courses.days if courses.days[0] == 0.0 else (0.0, *courses.days)
    rows = (dict(courses.values), dict(courses.inputs), courses.density)
    return HeldOut(days, **jax.tree.map(np.asarray, in_chunks(lambda part: _compared(surrogate, days, *part), rows)))


def calibrate_operator(surrogate: FnoSurrogate, held_out: HeldOut) -> FnoSurrogate:
    """The surrogate with the bounds that held-out cases give, of anatomies that it was not trained on."""
    return surrogate.with_error(calibrated_error(surrogate.error, held_out))


@eqx.filter_jit
def _summaries(template: ReactionDiffusion, days: Sequence[float], values: Any, inputs: Any) -> Array:
    def one(row: tuple[Any, Any]) -> Array:
        return summary_of(course_model(template, *row), course_schedule(template, row[1]), jnp.asarray(days))[0]

    return jax.lax.map(one, (values, inputs))


@eqx.filter_jit
def _features(template: ReactionDiffusion, inputs: Any) -> dict[str, Array]:
    return jax.lax.map(lambda row: features_of(course_model(template, {}, row)), inputs)


@eqx.filter_jit
def _compared(surrogate: FnoSurrogate, days: tuple[float, ...], values: Any, inputs: Any, truth: Array) -> dict:
    def one(case: tuple[Any, Any, Array]) -> dict:
        row, given, density = case
        model, schedule = course_model(surrogate.model, row, given), course_schedule(surrogate.model, given)
        field, estimate, summary = surrogate.answer(model, schedule, days)
        if density.shape[0] < len(days):
            density = jnp.concatenate([given["start"][None].astype(density.dtype), density])
        result = surrogate.judge(model, schedule, field, estimate, summary)
        return {
            "estimate": estimate,
            **field_errors(field, density, surrogate.levels),
            "ours": surrogate.read_field(TumorState(field)),
            "theirs": surrogate.read_field(TumorState(density)),
            "vouched": result == RESULTS.successful,
            "inside": surrogate.familiar(model, schedule, summary),
        }

    return jax.lax.map(one, (values, inputs, truth))
