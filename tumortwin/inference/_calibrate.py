"""The contract of every calibrator, and the loop that drives it."""

import abc
import zlib
from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem, Problem

_LAYOUT = 2  # of the states; a checkpoint of another one is refused
State: TypeAlias = dict[str, np.ndarray]
"""What a calibrator carries: arrays by name and nothing else, so that every state is a checkpoint."""

Progress = Callable[[str, int, int], None]
"""`progress(name, done, total)`, called after every step."""


@runtime_checkable
class Checkpoint(Protocol):
    """Where states are kept. The caller writes to a temporary name and renames; arrays only (`.npz`, no pickle)."""

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep `arrays` under `name`, replacing what was there in one motion."""
        ...

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """What was kept under `name`, or `None`."""
        ...


class AbstractCalibrator(eqx.Module):
    """Problem -> Posterior, in steps that may be interrupted.

    A state holds arrays only (keys of `jax.random` as their data). `step` must depend on nothing but the problem and
    the state, so that a run which was killed continues with the same numbers.
    """

    @abc.abstractmethod
    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        """The state before the first step."""

    @abc.abstractmethod
    def step(self, problem: AbstractProblem, state: State) -> State:
        """One piece of work, a fraction of a second to some seconds long."""

    @abc.abstractmethod
    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        """Whether the work is done."""

    @abc.abstractmethod
    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        """Steps done and the present estimate of the total."""

    @abc.abstractmethod
    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        """The posterior of a finished state."""


def calibrate(
    problem: AbstractProblem,
    calibrator: AbstractCalibrator,
    *,
    key: Array,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Posterior:
    """Run `calibrator` on `problem` to its end.

    **Arguments:** `key` decides every number: the same key, problem and machine give the same posterior, whether the
    run was interrupted or not. `checkpoint` keeps the state after every step and is asked for one before the first.

    **Raises:** `ValueError` when the checkpoint belongs to another key or to a problem of another size.
    """
    name = type(calibrator).__name__
    saved = None if checkpoint is None else checkpoint.load(name)
    fresh = {"layout": np.asarray(_LAYOUT)}
    state = {**calibrator.init(problem, key=key), **fresh} if saved is None else _verified(saved, problem, key)
    while not calibrator.terminate(problem, state):
        state = calibrator.step(problem, state)
        if checkpoint is not None:
            checkpoint.save(name, state)
        if progress is not None:
            progress(name, *calibrator.progress(problem, state))
    return calibrator.postprocess(problem, state)


def child_key(key: Array, name: str) -> Array:
    """`key` folded with a named constant."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def state_key(state: State) -> Array:
    """The key that a state carries."""
    return jax.random.wrap_key_data(jax.numpy.asarray(state["key"]))


def plain(leaf: Array) -> np.ndarray:
    """An array for a state; a key of `jax.random` as its data."""
    return np.asarray(jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def restored(values: np.ndarray, like: jax.ShapeDtypeStruct) -> Array:
    """The inverse of `plain`."""
    if jax.numpy.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(values))
    return jax.numpy.asarray(values, dtype=like.dtype)


def _verified(saved: State, problem: AbstractProblem, key: Array) -> State:
    if int(saved.get("layout", 1)) != _LAYOUT:
        raise ValueError(
            f"required: a checkpoint of layout {_LAYOUT}; received: one of {int(saved.get('layout', 1))}, of another "
            "version; try: a new run directory"
        )
    same_key = np.array_equal(saved.get("key", np.zeros(0)), np.asarray(jax.random.key_data(key)))
    same_size = saved.get("z", np.zeros(0)).shape[-1:] == (problem.size,)
    same_data = not isinstance(problem, Problem) or saved["weights"].shape == (len(problem.data),)
    if not (same_key and same_size and same_data):
        raise ValueError(
            "required: a checkpoint of this problem and key; received: one of another; try: a new run directory"
        )
    return saved
