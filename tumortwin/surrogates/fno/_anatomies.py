"""Anatomies that never were: boxes of a brain, somewhere else, bent, and with sharper tissue."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from tumortwin.geometry import block_mean

# Samples of the brain along an edge of a model voxel.
PARTS = 2
# Boxes without a place for a tumor before it gives up.
TRIES = 100
# A tumor begins where this share of a voxel is white matter.
WHITE = 0.5


@dataclasses.dataclass(frozen=True)
class Brain:
    """Shares of white and gray matter [1] in cubic voxels of `spacing` [mm]; what is left of 1 is neither."""

    white: Float[np.ndarray, "x y z"]
    gray: Float[np.ndarray, "x y z"]
    spacing: float


@dataclasses.dataclass(frozen=True)
class Variation:
    """How an anatomy differs from the brain that it is cut from.

    `bend` [mm] standard deviation of the displacement and `bend_length` [mm] over which it varies; `stretch` [ln]
    largest stretch of an axis; `sharpen` largest exponent p of f_w^p / (f_w^p + f_g^p): the average of many brains has
    soft tissue maps, one brain has not; `balance` [ln] largest shift of the log-odds of white against gray matter, one
    for a box: what one segmentation calls white is gray to another; `wander` [mm] largest distance, along an axis, of
    a tumor from the middle of its box; `flips` of the axes. All zero (`sharpen` 1, no flips): a box of the brain as it
    is.

    $$ \\mathrm{logit}\\,f_w' = p\\,(\\mathrm{logit}\\,f_w + b), \\qquad b \\sim U(-\\beta, \\beta), \\quad
       \\ln p \\sim U(0, \\ln p_{\\max}) $$

    with beta the `balance`.

    **Good values:** as they stand, for boxes of 128 mm: displacements of 4 mm over 32 mm do not fold.
    """

    bend: float = 4.0
    bend_length: float = 32.0
    stretch: float = 0.1
    sharpen: float = 4.0
    balance: float = 0.7
    wander: float = 16.0
    flips: bool = True

    @classmethod
    def none(cls, wander: float = 16.0) -> "Variation":
        """Boxes of the brain as it is."""
        return cls(bend=0.0, stretch=0.0, sharpen=1.0, balance=0.0, wander=wander, flips=False)


class DrawnAnatomy(NamedTuple):
    """Tissue fractions that add up to 1 in the domain `mask`, and the voxel in which a tumor begins."""

    white_matter: Float[np.ndarray, "x y z"]
    gray_matter: Float[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    center: Float[np.ndarray, "3"]


def draw_anatomy(
    brain: Brain, shape: tuple[int, int, int], spacing: float, variation: Variation, random: np.random.Generator
) -> DrawnAnatomy:
    """A box of `shape` voxels of `spacing` [mm] about a random place in white matter, varied.

    Voxels are means over `PARTS`^3 samples (linear between the brain's voxels); the domain is where half of a voxel is
    tissue.

    **Raises:** `ValueError` for a brain in which no box has white matter near its middle.
    """
    inside = np.argwhere(brain.white > WHITE)
    if not len(inside):
        raise ValueError("required: a brain with voxels that are mostly white matter; received: none")
    for _ in range(TRIES):
        middle = inside[random.integers(len(inside))] * brain.spacing
        middle = middle + random.uniform(-variation.wander, variation.wander, 3)
        white, gray = _sampled(brain, shape, spacing, middle, variation, random)
        axes = tuple(axis for axis in range(3) if variation.flips and random.random() < 0.5)
        found = _classified(np.flip(white, axes), np.flip(gray, axes), variation, random)
        places = np.argwhere(found[2] & (found[0] > WHITE))
        away = np.abs((places - 0.5 * (np.asarray(shape) - 1.0)) * spacing)
        near = places[(away <= variation.wander + spacing).all(axis=1)]
        if len(near):
            return DrawnAnatomy(*found, near[random.integers(len(near))].astype(float))
    raise ValueError(
        f"required: a box with white matter within {variation.wander:g} mm of its middle; received: none in {TRIES} "
        "tries; try: a larger `wander`"
    )


def _sampled(
    brain: Brain,
    shape: tuple[int, int, int],
    spacing: float,
    middle: np.ndarray,
    variation: Variation,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of white and gray matter in every voxel of the box."""
    stretch = np.exp(random.uniform(-variation.stretch, variation.stretch, 3))
    axes = []
    for n, factor in zip(shape, stretch, strict=True):
        offset = (np.arange(n * PARTS) + 0.5) * spacing / PARTS - 0.5 * n * spacing
        axes.append(factor * offset)
    points = np.stack(np.meshgrid(*axes, indexing="ij")) + middle.reshape(3, 1, 1, 1)
    points += _bent(points.shape[1:], spacing / PARTS, variation, random)
    index = points / brain.spacing
    maps = [ndimage.map_coordinates(m, index, order=1, mode="constant") for m in (brain.white, brain.gray)]
    white, gray = (block_mean(m.astype(np.float32), (PARTS,) * 3) for m in maps)
    return white, gray


def _bent(
    shape: tuple[int, ...], spacing: float, variation: Variation, random: np.random.Generator
) -> Float[np.ndarray, "3 x y z"]:
    """A smooth random displacement [mm]: cubic between independent normal numbers every `bend_length`."""
    if variation.bend == 0.0:
        return np.zeros((3, *shape))
    x, y, z = (_splines(n, spacing / variation.bend_length) for n in shape)
    noise = variation.bend * random.standard_normal((3, x.shape[1], y.shape[1], z.shape[1]))
    return np.einsum("cijk,xi,yj,zk->cxyz", noise, x, y, z, optimize=True)


@functools.cache
def _splines(n: int, step: float) -> Float[np.ndarray, "n knot"]:
    """Cubic splines through one knot each, at n points `step` apart in units of the distance between knots."""
    knots, at = int(np.ceil(n * step)) + 4, 1.0 + np.arange(n) * step
    return np.stack([ndimage.map_coordinates(row, at[None], order=3, mode="nearest") for row in np.eye(knots)], axis=1)


def _classified(
    white: np.ndarray, gray: np.ndarray, variation: Variation, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions and domain of the shares of tissue, shifted towards one of them and sharpened."""
    total = white + gray
    mask = total >= 0.5
    share = np.where(mask, white / np.where(mask, total, 1.0), 0.0)
    power = np.exp(random.uniform(0.0, np.log(variation.sharpen)))
    odds = np.exp(random.uniform(-variation.balance, variation.balance))
    sharp = (odds * share) ** power / ((odds * share) ** power + (1.0 - share) ** power)
    found = np.where(mask, sharp, 0.0).astype(np.float32)
    return found, np.where(mask, 1.0 - found, 0.0).astype(np.float32), mask
