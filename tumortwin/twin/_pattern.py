"""Smooth modes of a random field: where a rate may be higher or lower than elsewhere."""

from collections.abc import Sequence

import numpy as np

_MOST_NODES = 800  # of which the principal components are found: an eigenproblem of that size
_PART = 4000  # places a piece: bounds the memory


def smooth_modes(
    region: np.ndarray, spacing: Sequence[float], *, count: int, length: float, spread: float
) -> np.ndarray:
    """Modes `phi` [mode x y z] of a Gaussian random field with covariance `spread^2 exp(-|x - y|^2 / (2 length^2))`.

    $$ \\sum_k \\varphi_k(x)\\,\\varphi_k(y) \\approx C(x, y) $$

    the largest principal components (Karhunen-Loeve) of the field on `region`, continued to the rest of the grid by
    the covariance with the region (Nystrom). Weights of independent standard normals make the field with the most of
    its variance that `count` modes can carry; it is never overstated, $\\sum_k \\varphi_k^2 \\le$ `spread`^2. Far from
    the region the modes vanish. The region is thinned to `_MOST_NODES` places.

    **Arguments:** `region` boolean [x y z], not empty; `spacing` and `length` in mm; `spread` [1].

    **Reference:** Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), sections 4.3 and 8.1.
    """
    shape = region.shape
    places = np.stack([axis * h for axis, h in zip(np.indices(shape), spacing, strict=True)], axis=-1).reshape(-1, 3)
    inside = np.flatnonzero(region.ravel())
    nodes = places[inside[:: -(-inside.size // _MOST_NODES)]]

    def covariance(at: np.ndarray) -> np.ndarray:
        squares = np.sum((at[:, None, :] - nodes[None]) ** 2, axis=-1)
        return spread**2 * np.exp(-0.5 * squares / length**2)

    values, vectors = np.linalg.eigh(covariance(nodes))
    chosen = np.argsort(values)[::-1][: min(count, len(nodes))]
    largest = np.argmax(np.abs(vectors[:, chosen]), axis=0)  # an eigenvector's sign is the library's: make it ours
    signs = np.sign(vectors[largest, chosen])
    weights = vectors[:, chosen] * signs / np.sqrt(values[chosen])
    rows = [covariance(part) @ weights for part in np.array_split(places, -(-len(places) // _PART))]
    return np.concatenate(rows).T.reshape(-1, *shape).astype(np.float32)
