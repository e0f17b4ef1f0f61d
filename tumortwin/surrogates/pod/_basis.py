"""Modes of a set of simulated tumors: proper orthogonal decomposition, block by block."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Basis(NamedTuple):
    """Orthonormal `modes` [mode voxel], the first of them the start; `singular_values` of the snapshots beyond it.

    `lost` [mode]: share of the snapshots' squared norm that the first 1, 2, ... modes leave out; `largest` [voxel]: the
    largest density that any snapshot, or the start, has there.
    """

    modes: Float[np.ndarray, "mode voxel"]
    singular_values: Float[np.ndarray, " kept"]
    lost: Float[np.ndarray, " mode"]
    largest: Float[np.ndarray, " voxel"]


def pod_basis(
    start: Float[np.ndarray, " voxel"],
    blocks: Iterable[Float[np.ndarray, "_ voxel"]],
    count: int,
    *,
    spare: int = 32,
) -> Basis:
    """The start and the modes that hold most of what the snapshots have beyond it.

    $$ \\varphi_1 = u_0 / |u_0|, \\qquad (1 - \\varphi_1 \\varphi_1^T)\\, [u_s / |u_s|]_s \\approx \\Phi \\Sigma V^T $$

    Snapshots count with their directions, not their sizes: a tumor that treatment has made a thousand times smaller is
    to be as right, relative to itself, as one that fills the box. With the start as a mode nothing is lost on day 0.

    One block is in memory at a time: a block and the modes so far (scaled by their singular values) are decomposed
    together through their Gram matrix, and `count + spare` modes are kept.

    **Arguments:** `blocks`: snapshots as rows; rows of zeros are left out; `count`: number of modes, the start
    included.

    **Errors:** the Gram matrix is in float64: singular values below some 1e-7 of the largest are noise.

    **Raises:** `ValueError` for snapshots that are not finite, an empty start, or fewer independent snapshots than
    modes.

    **Reference:** Sirovich, Q. Appl. Math. 45 (1987) 561-571 (snapshots); Himpe, Leibner & Rave, SIAM J. Sci. Comput.
    40 (2018) A3267-A3292, doi:10.1137/16M1085413 (block by block).
    """
    norm = float(np.linalg.norm(start))
    if not (np.isfinite(norm) and norm > 0.0):
        raise ValueError(f"required: a start that is finite and not empty; received: one of norm {norm}")
    first = np.asarray(start, np.float64) / norm
    kept, largest = np.zeros((0, first.size)), np.asarray(start, np.float64)
    total = beyond = 0.0
    for block in blocks:
        rows = _directions(block)
        largest = np.maximum(largest, np.max(block, axis=0))
        total += len(rows)
        rows -= np.outer(rows @ first, first)
        beyond += float(np.sum(rows**2))
        stacked = np.concatenate([kept, rows])
        values, vectors = np.linalg.eigh(stacked @ stacked.T)
        wanted = np.argsort(values)[::-1][: count + spare]
        kept = vectors[:, wanted].T @ stacked
    sizes = np.linalg.norm(kept, axis=1)
    independent = int(np.sum(sizes > 1e-7 * sizes.max(initial=0.0))) if total else 0
    if independent < count - 1:
        raise ValueError(
            f"required: at least {count - 1} independent snapshots beyond the start for {count} modes; received: "
            f"{independent} of {int(total)}; try: fewer modes, more samples, or more days"
        )
    modes = orthonormal(np.concatenate([first[None], kept[: count - 1] / sizes[: count - 1, None]]))
    caught = np.concatenate([[0.0], np.cumsum(sizes[: count - 1] ** 2)])
    return Basis(modes, sizes, np.maximum(beyond - caught, 0.0) / total, largest)


def enlarged_basis(
    modes: Float[np.ndarray, "mode voxel"], snapshots: Float[np.ndarray, "snapshot voxel"], count: int
) -> Float[np.ndarray, "more voxel"]:
    """The modes and `count` more: those that hold most of what the snapshots have beyond them."""
    rows = _directions(snapshots)
    for _ in range(2):  # twice is enough (Kahan)
        rows -= (rows @ modes.T) @ modes
    values, vectors = np.linalg.eigh(rows @ rows.T)
    wanted = np.argsort(values)[::-1][:count]
    more = vectors[:, wanted].T @ rows
    return orthonormal(np.concatenate([modes, more / np.linalg.norm(more, axis=1, keepdims=True)]))


def orthonormal(rows: Float[np.ndarray, "mode voxel"]) -> Float[np.ndarray, "mode voxel"]:
    """The rows made orthonormal in their order; the span of the first k stays what it was."""
    q, r = np.linalg.qr(rows.T)
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T)


def _directions(block: np.ndarray) -> np.ndarray:
    """The rows of a block that are not empty, in float64 and of unit length."""
    rows = np.asarray(block, np.float64)
    if not np.isfinite(rows).all():
        bad = int(np.sum(~np.isfinite(rows).all(axis=1)))
        raise ValueError(
            f"required: finite snapshots; received: {bad} of {len(rows)} that are not; try: leave failed solves out"
        )
    sizes = np.linalg.norm(rows, axis=1)
    return rows[sizes > 0] / sizes[sizes > 0, None]
