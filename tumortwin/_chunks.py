"""A compiled function of many rows, called with equally many at a time, several calls side by side."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

CHUNK = 4
# Solves in memory at once, at most: each keeps its own states.
MOST_AT_ONCE = 4

Part = TypeVar("Part")
Found = TypeVar("Found")


def in_chunks(function: Callable[[PyTree], PyTree], rows: PyTree, chunk: int = CHUNK) -> PyTree:
    """`function` of `chunk` rows [row ...] at a time, joined; the last call is filled up with its last row.

    One program for any number of rows.

    **Arguments:** `function`: leaves [chunk ...] to leaves [chunk ...]; `rows`: leaves with the leading axis [row].
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    rows = jax.tree.map(np.asarray, rows)  # NumPy: nothing to compile

    def part(start: int) -> PyTree:
        chosen = np.minimum(np.arange(start, start + chunk), n - 1)
        return function(jax.tree.map(lambda leaf: jnp.asarray(leaf[chosen]), rows))

    found = side_by_side(part, range(0, n, chunk))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[:n]), *found)


def side_by_side(function: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """`function` of every part, in their order and as NumPy arrays, as many calls at a time as there are cores.

    A 3-D solve in small windows leaves a second core idle a quarter of the time: two solves fill both. The answers do
    not depend on it. The first call is made alone as far as it has to compile; on an accelerator one follows another.

    **Arguments:** `function`: calls one compiled program.
    """

    def call(part: Part) -> Found:
        return _in_memory(function(part))

    at_once = min(_cores(), MOST_AT_ONCE, len(parts)) if jax.default_backend() == "cpu" else 1
    if at_once <= 1:
        return [call(part) for part in parts]
    first = function(parts[0])  # returns when it is compiled and under way
    with ThreadPoolExecutor(at_once) as pool:
        waiting = pool.submit(_in_memory, first)
        others = list(pool.map(call, parts[1:]))
        return [waiting.result(), *others]


def _in_memory(found: Found) -> Found:
    return jax.tree.map(np.asarray, found)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
