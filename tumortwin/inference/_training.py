"""Training by gradient steps: a loss of parameters and batches, stopped early, and resumed where it was killed."""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PyTree

from tumortwin._errors import InputError
from tumortwin.inference._calibrate import Checkpoint, State

# Of the rate of learning, left at the last epoch.
LAST_RATE = 0.02
# So many epochs without one finite loss, or the first one, and it gives up.
LOST_EPOCHS = 20


class Batch(NamedTuple):
    """Rows of data under the `name` by which a complaint calls them."""

    name: str
    data: PyTree


Batches = Callable[[int], Iterable[Batch]]
"""The batches of an epoch, by its number and nothing else: a run that is resumed sees them again."""


class Training(eqx.Module):
    """How `fit` moves: AdamW on clipped slopes, a rate that falls by a cosine, an average of the weights, early stop.

    **Arguments:** `rate` at the start; `epochs` at most; `patience`: epochs without a better held-out score after which
    it ends; `weight_decay` of AdamW; `average`: decay of the exponential moving average of the parameters, which is
    what is scored and returned (less in the first steps: (1 + n) / (10 + n)); `largest_slope`: norm at which gradients
    are clipped; `save_every`: batches between checkpoints (0: at the ends of epochs).

    **Good values:** rate .003-.01 for closures of some hundred weights; average .98-.999; patience a tenth to a fifth
    of the epochs; weight_decay 0 where the loss has a penalty of its own.

    **Reference:** Loshchilov & Hutter, ICLR 2019, arXiv:1711.05101; Polyak & Juditsky, SIAM J. Control Optim. 30 (1992)
    838, doi:10.1137/0330046 (averaging); Prechelt, Neural Networks 11 (1998) 761, doi:10.1016/S0893-6080(98)00010-0
    (early stop).
    """

    rate: float = 5e-3
    epochs: int = 300
    patience: int = 40
    weight_decay: float = 0.0
    average: float = 0.99
    largest_slope: float = 1.0
    save_every: int = 0

    def __check_init__(self) -> None:
        if min(self.epochs, self.patience) < 1 or min(self.rate, self.largest_slope) <= 0 or not 0 <= self.average < 1:
            raise ValueError(
                "required: an epoch and a patience of at least 1, a rate and a largest slope above 0, an average in "
                f"[0, 1); received: {self.epochs}, {self.patience}, {self.rate}, {self.largest_slope}, {self.average}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What training found: the averaged `parameters` of the `epoch` (from 1) with the best held-out `score`.

    `losses`, `scores` [epoch]: mean training loss (NaN: none was finite) and held-out score; `refused`: steps at which
    the loss or its slope was not finite, and which went back instead; `stopped_early`.
    """

    parameters: Any
    score: float
    epoch: int
    losses: Float[np.ndarray, " epoch"]
    scores: Float[np.ndarray, " epoch"]
    refused: int
    stopped_early: bool


def fit(
    loss: Callable[[Any, Any], Array],
    parameters: PyTree,
    batches: Batches,
    *,
    held_out: Sequence[Batch],
    settings: Training | None = None,
    score: Callable[[Any, Any], Array] | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
    name: str = "training",
) -> Fitted:
    """The parameters with the least held-out loss, found by gradient steps on batches.

    **Arguments:** `loss(parameters, data) -> scalar`, a function or a module (its arrays are then traced: no
    recompilation for others); `parameters` any pytree, whose floating arrays are moved and everything else kept;
    `batches` of an epoch by its number (`shuffled` makes them from rows), all of one shape; `held_out` batches, of
    subjects that are in no training batch (`split_subjects`); `score`, where the held-out judge is another than the
    loss (a loss without its penalty, say); `progress(epoch, epochs)`; `checkpoint` keeps arrays only, under `name`: a
    run that was killed goes on from the last one, with the same numbers to the bit.

    **Raises:** `InputError` that names the batch with a value that is not finite; `ValueError` for a checkpoint of
    something else, without held-out batches, or when no step of an epoch could be taken.

    **Limits:** a step is one call of a compiled program: below a millisecond of work a batch, make it larger.
    """
    settings = Training() if settings is None else settings
    if not held_out:
        raise ValueError("required: held-out batches, which decide when to stop; received: none; try: split_subjects")
    for batch in held_out:
        _refuse(batch, "held out")
    moving, fixed = eqx.partition(parameters, eqx.is_inexact_array)
    judged = loss if score is None else score
    state = _first(moving, settings) if checkpoint is None else checkpoint.load(name)
    state = _first(moving, settings) if state is None else _verified(state, moving, settings)
    fitting = _Fitting(loss, judged, fixed, moving, batches, held_out, settings)
    while not _done(state, settings):
        state = _epoch(fitting, state, checkpoint, name)
        if progress is not None:
            progress(len(state["scores"]), settings.epochs)
    best = _unpacked(state, "best", moving)
    return Fitted(
        eqx.combine(best, fixed),
        float(state["best_score"]),
        int(state["best_epoch"]),
        state["losses"],
        state["scores"],
        int(state["refused"]),
        len(state["scores"]) < settings.epochs,
    )


def shuffled(rows: PyTree, size: int, *, key: Array, names: Sequence[str] | None = None) -> Batches:
    """Batches of `size` rows [row ...] in an order drawn anew for each epoch; what is left over waits for another one.

    **Arguments:** `rows`: leaves with the leading axis [row]; `names` of the rows, for complaints.
    """
    arrays = jax.tree.map(np.asarray, rows)
    count = jax.tree.leaves(arrays)[0].shape[0]
    size = min(size, count)

    def of_epoch(epoch: int) -> Iterable[Batch]:
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), count))
        for start in range(0, count - size + 1, size):
            yield _named(arrays, order[start : start + size], f"batch {start // size + 1}", names)

    return of_epoch


def whole(rows: PyTree, size: int | None = None, *, names: Sequence[str] | None = None) -> list[Batch]:
    """All rows in their order, `size` at a time (all at once); a last batch that would be smaller ends with rows of the
    one before."""
    arrays = jax.tree.map(np.asarray, rows)
    count = jax.tree.leaves(arrays)[0].shape[0]
    taken = count if size is None else min(size, count)
    starts = sorted({*range(0, count - taken + 1, taken), count - taken})
    return [_named(arrays, np.arange(s, s + taken), f"rows {s}-{s + taken - 1}", names) for s in starts]


def split_subjects(
    subject: np.ndarray, share: float, *, key: Array
) -> tuple[Bool[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
    """`(training, held out)`: which rows belong to each part, all rows of a subject to the same one.

    **Arguments:** `subject` [row], a number or a word; `share` of the subjects held out, at least one.

    **Raises:** `ValueError` for fewer than two subjects.
    """
    known = np.unique(subject)
    if known.size < 2:
        raise ValueError(f"required: at least two subjects; received: {known.size}")
    count = int(np.clip(round(share * known.size), 1, known.size - 1))
    chosen = known[np.asarray(jax.random.permutation(key, known.size))[:count]]
    held = np.isin(subject, chosen)
    return ~held, held


def _named(arrays: PyTree, rows: np.ndarray, name: str, names: Sequence[str] | None) -> Batch:
    who = "" if names is None else f" ({', '.join(str(names[i]) for i in rows)})"
    return Batch(f"{name}{who}", jax.tree.map(lambda a: a[rows], arrays))


def _refuse(batch: Batch, where: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch.data):
        values = np.asarray(leaf)
        if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
            raise InputError(
                file=None,
                required="finite numbers in every batch",
                received=f"{int((~np.isfinite(values)).sum())} that are not in {where}, {batch.name}"
                f"{', array ' + jax.tree_util.keystr(path) if path else ''}",
                advice="leave the readings out, or give them a mask and any finite value",
            )


def _arrays(batch: Batch) -> PyTree:
    return jax.tree.map(jnp.asarray, batch.data)


def _optimizer(settings: Training) -> optax.GradientTransformation:
    """AdamW at a rate of 1; the rate of the epoch multiplies what it says."""
    clip = optax.clip_by_global_norm(settings.largest_slope)
    return optax.chain(clip, optax.adamw(1.0, weight_decay=settings.weight_decay))


def _rate(settings: Training, epoch: int) -> float:
    """Falls by a cosine from epoch to epoch."""
    left = 0.5 * (1.0 + np.cos(np.pi * epoch / settings.epochs))
    return settings.rate * (LAST_RATE + (1.0 - LAST_RATE) * left)


class _Moving(eqx.Module):
    """What a step changes: the parameters, those at the `last` finite loss, their average, the optimizer's memory, and
    the number of steps."""

    parameters: Any
    last: Any
    average: Any
    memory: Any
    count: Any


@eqx.filter_jit
def _update(loss: Any, settings: Training, rate: Array, now: _Moving, fixed: Any, data: Any) -> tuple[_Moving, Array]:
    """One step; where the loss or its slope is not finite, half the way back to where it last was."""
    value, slope = eqx.filter_value_and_grad(lambda m: loss(eqx.combine(m, fixed), data))(now.parameters)
    change, memory = _optimizer(settings).update(slope, now.memory, now.parameters)
    finite = jnp.isfinite(value) & jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(slope)]))
    change = jax.tree.map(lambda c: (rate * c).astype(c.dtype), change)
    stepped = optax.apply_updates(now.parameters, change)
    decay = jnp.minimum(settings.average, (1.0 + now.count) / (10.0 + now.count))
    # Of parameters at which the loss is known to be finite: the average is then where it is, too, if that is convex.
    averaged = jax.tree.map(lambda a, p: (decay * a + (1.0 - decay) * p).astype(a.dtype), now.average, now.parameters)
    after = _Moving(stepped, now.parameters, averaged, memory, now.count + 1)
    half = jax.tree.map(lambda p, q: (0.5 * (p + q)).astype(p.dtype), now.parameters, now.last)
    back = _Moving(half, now.last, now.average, now.memory, now.count)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), after, back), jnp.where(finite, value, jnp.nan)


@eqx.filter_jit
def _value(judged: Any, moving: Any, fixed: Any, data: Any) -> Array:
    return judged(eqx.combine(moving, fixed), data)


def _epoch(fitting: "_Fitting", state: State, checkpoint: Checkpoint | None, name: str) -> State:
    """The rest of an epoch, its score, and the checkpoints on the way."""
    state, settings, epoch = dict(state), fitting.settings, len(state["scores"])
    now = _unpacked(state, "moving", _start(settings, fitting.like))
    rate = jnp.asarray(_rate(settings, epoch))
    for place, batch in enumerate(fitting.batches(epoch)):
        if place < len(state["running"]):
            continue
        _refuse(batch, f"epoch {epoch + 1}")
        now, value = _update(fitting.loss, settings, rate, now, fitting.fixed, _arrays(batch))
        state["running"] = np.append(state["running"], np.asarray(value, float))
        if settings.save_every and checkpoint is not None and len(state["running"]) % settings.save_every == 0:
            checkpoint.save(name, {**state, **_packed(moving=now)})
    taken = state["running"][np.isfinite(state["running"])]
    state["losses"] = np.append(state["losses"], taken.mean() if taken.size else np.nan)
    if np.isnan(state["losses"][-LOST_EPOCHS:]).all() and (epoch == 0 or epoch + 1 >= LOST_EPOCHS):
        raise ValueError(
            f"required: a finite loss and slope; received: none in the {len(state['running'])} batches of epoch "
            f"{epoch + 1}; try: a lower rate, or parameters from which the model can be solved"
        )
    said = [_value(fitting.judged, now.average, fitting.fixed, _arrays(batch)) for batch in fitting.held_out]
    found = float(np.mean(np.asarray(said)))
    state.update(_packed(moving=now))
    state["refused"] = np.asarray(int(state["refused"]) + len(state["running"]) - taken.size)
    state["scores"] = np.append(state["scores"], found)
    state["running"] = np.zeros(0)
    if found < float(state["best_score"]):
        state.update(_packed(best=now.average))
        state["best_score"], state["best_epoch"] = np.asarray(found), np.asarray(epoch + 1)
    if checkpoint is not None:
        checkpoint.save(name, state)
    return state


@dataclasses.dataclass(frozen=True, eq=False)
class _Fitting:
    """What stays the same through a training."""

    loss: Any
    judged: Any
    fixed: Any
    like: Any
    batches: Batches
    held_out: Sequence[Batch]
    settings: Training


def _done(state: State, settings: Training) -> bool:
    epochs = len(state["scores"])
    return epochs >= settings.epochs or epochs - int(state["best_epoch"]) >= settings.patience


def _start(settings: Training, moving: Any) -> _Moving:
    return _Moving(moving, moving, moving, _optimizer(settings).init(moving), jnp.zeros((), int))


def _first(moving: Any, settings: Training) -> State:
    return {
        **_packed(moving=_start(settings, moving), best=moving),
        "origin": np.asarray(_fingerprint(moving)),
        "refused": np.asarray(0),
        "running": np.zeros(0),
        "losses": np.zeros(0),
        "scores": np.zeros(0),
        "best_score": np.asarray(np.inf),
        "best_epoch": np.asarray(0),
    }


def _verified(state: State, moving: Any, settings: Training) -> State:
    fresh = _first(moving, settings)
    arrays = {k: v.shape for k, v in fresh.items() if "." in k}
    same = all(k in state and state[k].shape == shape for k, shape in arrays.items())
    if not same or int(state["origin"]) != int(fresh["origin"]):
        raise ValueError(
            "required: a checkpoint that began from these parameters; received: one of another training; try: another "
            "name or run directory"
        )
    return dict(state)


def _fingerprint(moving: Any) -> int:
    return zlib.crc32(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(moving)))


def _packed(**groups: Any) -> State:
    return {
        f"{group}.{k:03d}": np.asarray(leaf)
        for group, tree in groups.items()
        for k, leaf in enumerate(jax.tree.leaves(tree))
    }


def _unpacked(state: State, group: str, like: Any) -> Any:
    leaves, tree = jax.tree.flatten(like)
    arrays = [jnp.asarray(state[f"{group}.{k:03d}"], dtype=leaf.dtype) for k, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, arrays)
