"""Smooth modes of a random field: where a rate may be higher or lower than elsewhere."""

from collections.abc import Sequence

import numpy as np

_MOST_NODES = 800  # of which the principal components are found: an eigenproblem of that size


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
    axes = [np.arange(n) * h for n, h in zip(region.shape, spacing, strict=True)]
    inside = np.argwhere(region)
    nodes = inside[:: -(-len(inside) // _MOST_NODES)] * np.asarray(spacing)

    # The covariance is a product over the axes.
    along = [np.exp(-0.5 * ((axis[:, None] - node) / length) ** 2) for axis, node in zip(axes, nodes.T, strict=True)]
    squares = np.sum((nodes[:, None, :] - nodes[None]) ** 2, axis=-1)
    values, vectors = np.linalg.eigh(spread**2 * np.exp(-0.5 * squares / length**2))
    chosen = np.argsort(values)[::-1][: min(count, len(nodes))]
    largest = np.argmax(np.abs(vectors[:, chosen]), axis=0)  # an eigenvector's sign is the library's: make it ours
    signs = np.sign(vectors[largest, chosen])
    weights = spread**2 * vectors[:, chosen] * signs / np.sqrt(values[chosen])
    modes = np.empty((len(chosen), *region.shape))
    across = (along[1][:, None, :] * along[2][None]).reshape(-1, len(nodes))
    for index, near in enumerate(along[0]):
        modes[:, index] = (across @ (near[:, None] * weights)).T.reshape(-1, *region.shape[1:])
    return modes.astype(np.float32)
