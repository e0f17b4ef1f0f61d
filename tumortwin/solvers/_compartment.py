"""Models without space: a table of subjects, each with its own measurement days, exposures and doses.

Written for one subject and mapped over the table. What happens to a subject is gone through in order: switches and
doses where the model is a flow, its measurement days too where it is not. Their number is static, so that a different
table of the same shape compiles nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tumortwin.models import (
    AbstractCompartmentModel,
    AbstractFlow,
    AbstractPacedFlow,
    AbstractRates,
    AbstractShared,
)
from tumortwin.solvers._trajectory import RESULTS
from tumortwin.treatments import StepHistory

# Relative tolerance of a step. The absolute one, a part of the subject's largest variable, is next to nothing: a few
# resistant cells among 1e9 others decide how it ends.
RTOL, RTOL_SINGLE, ATOL = 1e-8, 1e-5, 1e-20
MAX_STEPS = 4096
# Up to so many steps between two events the gradient recomputes nothing.
CHECKPOINTS = 32


class CompartmentTrajectory(eqx.Module):
    """States of every subject at its own days, what was measured, and how it went.

    `ts` [*batch time] [day]; `states`, whose variables are [*batch time]; `burden` [*batch time], in the model's unit;
    `result` [*batch], one a subject.
    """

    ts: Float[Array, "*batch time"]
    states: Any
    burden: Float[Array, "*batch time"]
    result: RESULTS

    @property
    def succeeded(self) -> Bool[Array, "*batch"]:
        """Which subjects can be used."""
        return self.result == RESULTS.successful


def simulate_compartment(
    model: AbstractCompartmentModel,
    ts: Float[Array, "*batch time"],
    exposure: StepHistory | Array | None = None,
    times_and_doses: tuple[Array, Array] | None = None,
    *,
    t0: float | Array = 0.0,
    state: Any = None,
    fixed_steps: int | None = None,
) -> CompartmentTrajectory:
    """The states and the burden of a table of subjects on their days `ts`.

    **Arguments:** `model`, each parameter a scalar or beginning with [*batch]; `ts` [day], each subject its own, in any
    order; `exposure`, a `StepHistory` or a constant level [*batch] (none: 0); `times_and_doses`, two arrays
    [*batch event] of days and of doses in the unit of the model's `jump`; `t0` [*batch] the day of the initial state;
    `state`, variables [*batch], to go on from in place of the model's own initial state; `fixed_steps`: so many equal
    Runge-Kutta steps of order four between two merged days instead of steps that keep a tolerance, for training, where
    readings are dense (a table then waits for nobody). What lacks [*batch] (a state must not) is the same for all
    subjects, as is an `AbstractShared` part of the model.

    A measurement on the day of a dose comes *before* it. What happens before `t0` is no part of the simulation: a dose
    then counts nothing (one at `t0` counts), of a history the level since its last edge counts, and a state is NaN.

    **Padding:** repeat the last day of a subject in `ts` (and give it no weight); edges at +inf, with any level; doses
    of 0, on any day.

    A flow goes exactly from one switch or dose to the next, and from the last of them before a day to that day, all
    days at once. Rates are solved from each of the merged days to the next by Diffrax (Tsit5, or Kvaerno5 where the
    model is stiff), on a time that runs from 0 to 1 in each segment, with steps of each subject's own.

    **Returns:** a `CompartmentTrajectory`, with gradients with respect to parameters, levels, doses, and all days.
    `result` says `nonfinite` or `max_steps_reached` for a subject that failed; the others are not affected.

    **Raises:** `ValueError` for shapes that do not belong to one table.

    **Good values:** up to some 100 switches and doses a subject (with rates: and days); pass through
    `eqx.filter_jit`.

    **Limits:** steps are refined to a relative 1e-8 (1e-5 in single precision); a table waits for its slowest subject.

    **Reference:** Tsitouras, Comput. Math. Appl. 62 (2011) 770-775, doi:10.1016/j.camwa.2011.06.002; Kvaerno, BIT 44
    (2004) 489-502, doi:10.1023/B:BITN.0000046811.70614.38.
    """
    batch = ts.shape[:-1]
    if isinstance(exposure, StepHistory) and exposure.size == 0:
        exposure = exposure.levels[..., 0]
    if exposure is None:
        exposure = jnp.zeros((), ts.dtype)
    doses = None if times_and_doses is None else (_rows(times_and_doses[0], batch), _rows(times_and_doses[1], batch))
    if isinstance(exposure, StepHistory):
        given: Any = StepHistory(_rows(exposure.edges, batch), _rows(exposure.levels, batch))
    else:
        given = jnp.broadcast_to(exposure, batch)
    _check(model, batch)
    if fixed_steps is not None and (fixed_steps < 1 or (isinstance(model, AbstractRates) and model.stiff)):
        raise ValueError(
            f"required: at least one fixed step, and a model that is not stiff; received: {fixed_steps} steps of "
            f"{type(model).__name__}; try: fixed_steps=None"
        )
    start = jnp.broadcast_to(jnp.asarray(t0, ts.dtype), batch)
    run: Callable[..., CompartmentTrajectory] = functools.partial(_one_subject, fixed_steps)
    axes = jax.tree.map(lambda x: None if _is_shared(x) or not x.ndim else 0, model, is_leaf=_is_shared)
    for _ in batch:
        run = jax.vmap(run, in_axes=(axes, 0, 0, 0, 0, 0))
    return run(model, ts, given, doses, start, state)


def _rows(x: Array, batch: tuple[int, ...]) -> Array:
    """A table with one row a subject."""
    x = jnp.asarray(x)
    if x.shape[:-1] not in ((), batch):
        raise ValueError(f"required: rows of subjects {batch} or one row for all; received: an array {x.shape}")
    return jnp.broadcast_to(x, (*batch, x.shape[-1]))


def _is_shared(node: Any) -> bool:
    return isinstance(node, AbstractShared)


def _check(model: AbstractCompartmentModel, batch: tuple[int, ...]) -> None:
    own = [leaf for leaf in jax.tree.leaves(model, is_leaf=_is_shared) if not _is_shared(leaf)]
    wrong = {leaf.shape for leaf in own if leaf.ndim and leaf.shape[: len(batch)] != batch}
    if wrong:
        raise ValueError(
            f"required: parameters that are scalars or begin with {batch}, the subjects; received: {sorted(wrong)}"
        )


class _Events(NamedTuple):
    """What happens to a subject, in order: `days` [event], the `doses` on them, and the `levels` [event + 1] of the
    exposure, before the first event and after each."""

    days: Array
    doses: Array
    levels: Array


def _one_subject(
    fixed_steps: int | None,
    model: Any,
    ts: Array,
    exposure: StepHistory | Array,
    doses: tuple[Array, Array] | None,
    t0: Array,
    state: Any,
) -> CompartmentTrajectory:
    begun = model.initial() if state is None else state
    state = jax.tree.map(lambda x: x.astype(jnp.result_type(x, ts)), begun)
    jump = model.jump if doses is not None else lambda state, _: state
    if isinstance(model, AbstractFlow):
        states, steps_ok = _flown(model, jump, state, ts, _events(ts, exposure, doses, t0)[0], t0), jnp.asarray(True)
    else:
        events, place = _events(ts, exposure, doses, t0, merge=True)
        states, steps_ok = _integrated(model, jump, state, events, place, t0, fixed_steps)
    states = jax.tree.map(lambda x: jnp.where(_like(ts >= t0, x), x, jnp.nan), states)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(states)]))
    result = RESULTS.where(finite, RESULTS.successful, RESULTS.nonfinite)
    result = RESULTS.where(steps_ok, result, RESULTS.max_steps_reached)
    return CompartmentTrajectory(ts, states, jax.vmap(model.burden)(states), result)


def _like(mask: Array, x: Array) -> Array:
    return mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))


def _events(
    ts: Array, exposure: StepHistory | Array, doses: tuple[Array, Array] | None, t0: Array, *, merge: bool = False
) -> tuple[_Events, Array]:
    """Switches and doses between t0 and the last of the days `ts`; with `merge` these days too, and their places."""
    own = ts if merge else ts[:0]
    edges = exposure.edges if isinstance(exposure, StepHistory) else jnp.zeros(0, ts.dtype)
    dose_times, amounts = (jnp.zeros(0, ts.dtype), jnp.zeros(0, ts.dtype)) if doses is None else doses
    # What comes after the last measurement matters to nothing, what comes before t0 has happened.
    last = jnp.max(ts)
    merged = jnp.concatenate([own, edges, dose_times])
    merged = jnp.where(merged < t0, t0, jnp.where(merged > last, last, merged))
    # The sort is stable: of things on the same day measurements come first.
    order = jnp.argsort(merged, stable=True)
    is_edge = (order >= own.size) & (order < own.size + edges.size)
    passed = jnp.concatenate([jnp.zeros(1, is_edge.dtype), is_edge]).cumsum()
    levels = exposure.levels[passed] if isinstance(exposure, StepHistory) else jnp.broadcast_to(exposure, passed.shape)
    counted = jnp.where(dose_times >= t0, amounts, 0.0)
    given = jnp.concatenate([jnp.zeros(own.size + edges.size, counted.dtype), counted])[order]
    return _Events(merged[order], given, levels), jnp.argsort(order)[: own.size]


def _flown(model: AbstractFlow, jump: Callable, state: Any, ts: Array, events: _Events, t0: Array) -> Any:
    """States of a flow on the days `ts`, each reached from the last event *before* it (a dose on that day comes after).

    A semigroup does not mind how a stretch is divided: the events alone are gone through one by one.
    """

    def segment(carried: Any, now: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        duration, level, dose = now
        after = jump(model.advance(carried, duration, level), dose)
        return after, after

    durations = jnp.diff(events.days, prepend=t0[None])
    _, after = jax.lax.scan(segment, state, (durations, events.levels[:-1], events.doses))
    begun = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, after)
    starts = jnp.concatenate([t0[None], events.days])
    which = jnp.sum(events.days[None] < ts[:, None], axis=1)
    since = jnp.where(ts < t0, 0.0, ts - starts[which])
    return jax.vmap(model.advance)(jax.tree.map(lambda x: x[which], begun), since, events.levels[which])


def _integrated(
    model: Any, jump: Callable, state: Any, events: _Events, place: Array, t0: Array, fixed_steps: int | None
) -> tuple[Any, Array]:
    """States at the events in `place` (before a dose on that day), and whether every segment was solved."""

    def segment(carried: Any, now: tuple[Array, Array, Array]) -> tuple[Any, tuple[Any, Array]]:
        duration, level, dose = now
        before, ok = _advance(model, carried, duration, level, fixed_steps)
        return jump(before, dose), (before, ok)

    durations = jnp.diff(events.days, prepend=t0[None])
    _, (states, ok) = jax.lax.scan(segment, state, (durations, events.levels[:-1], events.doses))
    return jax.tree.map(lambda x: x[place], states), jnp.all(ok)


def _advance(model: Any, state: Any, duration: Array, exposure: Array, fixed_steps: int | None) -> tuple[Any, Array]:
    """The state after a segment, and whether it was reached."""
    if isinstance(model, AbstractPacedFlow):
        return _run_clock(model, state, duration, exposure, fixed_steps)
    return _integrate(model, state, duration, exposure, fixed_steps)


def _vector_field(t: Any, state: Any, args: tuple[AbstractRates, Array, Array, Any]) -> Any:
    del t
    model, duration, exposure, weights = args
    slopes = model.rate(jax.tree.map(jnp.divide, state, weights), exposure)
    return jax.tree.map(lambda slope, weight: duration * weight * slope, slopes, weights)


def _clock_field(t: Any, clock: Array, args: tuple[AbstractPacedFlow, Array, Array, Any]) -> Array:
    del t
    model, duration, exposure, state = args
    return model.pace(model.advance(state, clock * duration, exposure), exposure)


def _integrate(
    model: AbstractRates, state: Any, duration: Array, exposure: Array, fixed_steps: int | None
) -> tuple[Any, Array]:
    """One segment, on a time from 0 to 1."""
    leaves = jax.tree.leaves(state)
    size = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    absolute = ATOL * jax.lax.stop_gradient(size)
    weights = _weights(state, absolute)
    found, reached = _solve(
        _vector_field,
        diffrax.Kvaerno5() if model.stiff else diffrax.Tsit5(),
        jax.tree.map(jnp.multiply, state, weights),
        (model, duration, exposure, weights),
        absolute,
        fixed_steps,
    )
    return jax.tree.map(jnp.divide, found, weights), reached


def _run_clock(
    model: AbstractPacedFlow, state: Any, duration: Array, exposure: Array, fixed_steps: int | None
) -> tuple[Any, Array]:
    """One segment of a flow on a clock of its own; the clock counts in units of the segment."""
    args, start = (model, duration, exposure, state), jnp.zeros_like(duration)
    clock, reached = _solve(_clock_field, diffrax.Tsit5(), start, args, _tolerance(start), fixed_steps)
    return model.advance(state, clock * duration, exposure), reached


def _tolerance(leaf: Array) -> float:
    return RTOL_SINGLE if jnp.finfo(leaf.dtype).bits < 64 else RTOL


def _solve(
    field: Callable[..., Any], solver: Any, y0: Any, args: Any, absolute: Any, fixed_steps: int | None
) -> tuple[Any, Array]:
    """On a time from 0 to 1: the end, and whether it was reached."""
    if fixed_steps is not None:
        return _runge_kutta(field, y0, args, fixed_steps), jnp.asarray(True)
    first = jax.tree.leaves(y0)[0]
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=y0,
        args=args,
        stepsize_controller=diffrax.PIDController(rtol=_tolerance(first), atol=absolute, norm=_largest),
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=CHECKPOINTS),
        max_steps=MAX_STEPS,
        throw=False,
    )
    assert solution.ys is not None
    return jax.tree.map(lambda x: x[0], solution.ys), solution.result == diffrax.RESULTS.successful


def _runge_kutta(field: Callable[..., Any], y0: Any, args: Any, steps: int) -> Any:
    """Classical steps of order four: nothing to control, a tenth of the program, and of its compile time."""
    width = 1.0 / steps

    def moved(y: Any, by: float, slope: Any) -> Any:
        return jax.tree.map(lambda x, v: x + by * v, y, slope)

    def step(y: Any, _: None) -> tuple[Any, None]:
        one = field(0.0, y, args)
        two = field(0.0, moved(y, 0.5 * width, one), args)
        three = field(0.0, moved(y, 0.5 * width, two), args)
        four = field(0.0, moved(y, width, three), args)
        mean = jax.tree.map(lambda a, b, c, d: (a + 2.0 * b + 2.0 * c + d) / 6.0, one, two, three, four)
        return moved(y, width, mean), None

    return jax.lax.scan(step, y0, None, length=steps)[0] if steps > 1 else step(y0, None)[0]


def _weights(state: Any, absolute: Array) -> Any:
    """What each variable is solved in units of, as a factor: where an amount is negligible, it is the absolute
    tolerance in these units (it is one number for all variables)."""
    leaves, tree = jax.tree.flatten(state)
    amounts = [entry.metadata.get("negligible", 0.0) for entry in dataclasses.fields(state)]
    assert len(amounts) == len(leaves)
    return tree.unflatten([absolute / amount if amount > 0 else jnp.ones_like(absolute) for amount in amounts])


def _largest(tree: Any) -> Array:
    """The largest element: no variable hides behind the accuracy of the others."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))
