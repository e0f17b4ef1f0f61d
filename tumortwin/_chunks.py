"""A compiled function of many rows, called with equally many at a time: one program for any number of rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

CHUNK = 8


def in_chunks(function: Callable[[PyTree], PyTree], rows: PyTree, chunk: int = CHUNK) -> PyTree:
    """`function` of `chunk` rows [row ...] at a time, joined; the last call is filled up with its last row.

    **Arguments:** `function`: leaves [chunk ...] to leaves [chunk ...]; `rows`: leaves with the leading axis [row].
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    rows, found = jax.tree.map(np.asarray, rows), []  # NumPy: nothing to compile
    for start in range(0, n, chunk):
        chosen = np.minimum(np.arange(start, start + chunk), n - 1)
        part = function(jax.tree.map(lambda leaf, chosen=chosen: jnp.asarray(leaf[chosen]), rows))
        found.append(jax.tree.map(np.asarray, part))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[:n]), *found)
