"""Three orthogonal planes cut through images in millimetres, in radiological convention.

Planes live in RAS+ world space and every image is sampled there through its own affine, so a flipped, permuted or
oblique voxel order cannot swap left and right, and images on different grids overlay as the scanner saw them.
The patient's right is on the left of the picture (axial, coronal); anterior is on the left (sagittal).
"""

import dataclasses

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from scipy import ndimage

from tumortwin.report._data import Anatomy, Image
from tumortwin.report._style import INK, bare

CONVENTION = (
    "Radiological convention: the patient's right is on the left of axial and coronal pictures; "
    "sagittal pictures face left. R right, L left, A anterior, P posterior, S superior, I inferior."
)


@dataclasses.dataclass(frozen=True)
class Plane:
    """A way to look: world axes (0 R, 1 A, 2 S) across and up the picture, the axis cut, the letters at the edges."""

    name: str
    across: int
    up: int
    cut: int
    left: str
    right: str
    bottom: str
    top: str


AXIAL = Plane("axial", 0, 1, 2, "R", "L", "P", "A")
CORONAL = Plane("coronal", 0, 2, 1, "R", "L", "I", "S")
SAGITTAL = Plane("sagittal", 1, 2, 0, "A", "P", "I", "S")
PLANES = (AXIAL, CORONAL, SAGITTAL)
AXIS_WORDS = ("x", "y", "z")


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """A box in world millimetres: lower and upper corner [3]."""

    low: np.ndarray
    high: np.ndarray

    def padded(self, margin: float) -> "Box":
        """The box grown by `margin` [mm] on every side."""
        return Box(self.low - margin, self.high + margin)

    def within(self, other: "Box") -> "Box":
        """The part of the box that lies in `other`."""
        return Box(np.maximum(self.low, other.low), np.minimum(self.high, other.high))

    def cube(self, least: float) -> "Box":
        """The smallest cube about the box, at least `least` [mm] wide."""
        half = max(float((self.high - self.low).max()), least) / 2
        centre = (self.low + self.high) / 2
        return Box(centre - half, centre + half)


def world(affine: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Voxel indices [..., 3] to millimetres."""
    return np.asarray(indices) @ affine[:3, :3].T + affine[:3, 3]


def box_of(image: Image, inside: np.ndarray | None = None) -> Box:
    """The world box about the true voxels of `inside` (None: the whole image)."""
    if inside is None or not inside.any():
        ends = [(0, n - 1) for n in image.values.shape]
    else:
        others = [tuple(j for j in range(3) if j != i) for i in range(3)]
        lines = [np.flatnonzero(inside.any(axis=other)) for other in others]
        ends = [(int(line[0]), int(line[-1])) for line in lines]
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T
    points = world(image.affine, corners)
    return Box(points.min(axis=0), points.max(axis=0))


def center_of(image: Image, inside: np.ndarray) -> np.ndarray:
    """Centre of mass [mm] of the true voxels of `inside`."""
    return world(image.affine, np.argwhere(inside).mean(axis=0))


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """Values [up across] on a plane with their pixel centres [mm]."""

    values: np.ndarray
    across: np.ndarray
    up: np.ndarray

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top for `imshow` with `origin="lower"`."""
        half = (self.across[1] - self.across[0]) / 2
        return (
            float(self.across[0] - half),
            float(self.across[-1] + half),
            float(self.up[0] - half),
            float(self.up[-1] + half),
        )


def cut(image: Image, plane: Plane, position: float, box: Box, *, step: float, order: int = 1) -> Slice:
    """`image` on `plane` at `position` [mm] of the cut axis, inside `box`, every `step` [mm]; NaN outside the image."""
    sizes = np.maximum(np.ceil((box.high - box.low) / step).astype(int), 1) + 1
    across = box.low[plane.across] + step * np.arange(sizes[plane.across])
    up = box.low[plane.up] + step * np.arange(sizes[plane.up])
    points = np.empty((up.size, across.size, 3))
    points[..., plane.across] = across[None, :]
    points[..., plane.up] = up[:, None]
    points[..., plane.cut] = position
    indices = (points - image.affine[:3, 3]) @ np.linalg.inv(image.affine[:3, :3]).T
    # Half a voxel beyond the last centre still belongs to the image: repeat the edge there, NaN past it.
    last = np.array(image.values.shape) - 1
    outside = ((indices < -0.5) | (indices > last + 0.5)).any(axis=-1)
    near = np.moveaxis(np.clip(indices, 0, last), -1, 0)
    # Only the voxels about the plane are converted: an image may be large, a picture is not.
    start = np.floor(near.min(axis=(1, 2))).astype(int)
    stop = np.ceil(near.max(axis=(1, 2))).astype(int) + 1
    part = image.values[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].astype(float)
    values = ndimage.map_coordinates(part, near - start[:, None, None], order=order, mode="nearest")
    return Slice(np.where(outside, np.nan, values), across, up)


def window(anatomy: Anatomy) -> tuple[float, float]:
    """Gray range of the background: 1st to 99.5th percentile of the brain (or of all finite, nonzero voxels)."""
    values = anatomy.image.values
    inside = np.isfinite(values) & (values != 0 if anatomy.brain is None else anatomy.brain.astype(bool))
    if not inside.any():
        return 0.0, 1.0
    low, high = np.percentile(values[inside], [1.0, 99.5])
    high = high if high > low else low + 1.0
    # Headroom, so that white matter is light gray and lines stay legible on it.
    return float(low), float(high + 0.18 * (high - low))


def show_background(
    axes: Axes, anatomy: Anatomy, plane: Plane, position: float, box: Box, *, step: float, gray: tuple[float, float]
) -> None:
    """The anatomy in the gray range `gray`; white outside the brain when a brain mask is there."""
    shown = cut(anatomy.image, plane, position, box, step=step)
    values = shown.values
    if anatomy.brain is not None:
        brain = cut(Image(anatomy.brain.astype(float), anatomy.image.affine), plane, position, box, step=step)
        values = np.where(np.nan_to_num(brain.values) >= 0.5, values, np.nan)
    axes.imshow(
        np.ma.masked_invalid(values),
        cmap="gray",
        vmin=gray[0],
        vmax=gray[1],
        extent=shown.extent,
        origin="lower",
        interpolation="bilinear" if anatomy.brain is None else "nearest",
    )


def contour(
    axes: Axes,
    image: Image,
    plane: Plane,
    position: float,
    box: Box,
    *,
    step: float,
    level: float = 0.5,
    color: object = INK,
    width: float = 1.2,
    style: str = "-",
) -> bool:
    """The line where `image` crosses `level`; False when it does not on this plane."""
    shown = cut(image, plane, position, box, step=step)
    values = np.nan_to_num(shown.values)
    if not values.min() < level < values.max():
        return False
    axes.contour(shown.across, shown.up, values, levels=[level], colors=[color], linewidths=[width], linestyles=[style])
    return True


def finish(axes: Axes, plane: Plane, box: Box, *, ruler: bool = False, scale_bar: float | None = None) -> None:
    """Radiological direction, letters at the edges, optional mm ticks and a scale bar [mm]."""
    low, high = box.low, box.high
    # Decreasing to the right in every plane: right before left, anterior before posterior.
    axes.set_xlim(high[plane.across], low[plane.across])
    axes.set_ylim(low[plane.up], high[plane.up])
    axes.set_aspect("equal")
    bare(axes)
    if ruler:
        axes.tick_params(length=2)
        for which, axis in ((axes.xaxis, plane.across), (axes.yaxis, plane.up)):
            span = high[axis] - low[axis]
            tick = 50.0 if span > 90 else 20.0 if span > 45 else 10.0
            which.set_ticks(np.arange(np.ceil(low[axis] / tick), np.floor(high[axis] / tick) + 1) * tick)
    halo = [withStroke(linewidth=1.8, foreground="white")]
    for x, y, letter in (
        (0.02, 0.5, plane.left),
        (0.98, 0.5, plane.right),
        (0.5, 0.02, plane.bottom),
        (0.5, 0.98, plane.top),
    ):
        across = "left" if x < 0.1 else "right" if x > 0.9 else "center"
        up = "bottom" if y < 0.1 else "top" if y > 0.9 else "center"
        axes.text(x, y, letter, transform=axes.transAxes, fontsize=6.8, ha=across, va=up, path_effects=halo, zorder=9)
    if scale_bar is not None:
        draw_scale_bar(axes, plane, box, scale_bar)


def draw_scale_bar(axes: Axes, plane: Plane, box: Box, length: float) -> None:
    """A bar of `length` [mm] below the lower right corner of the picture."""
    span = box.high[plane.across] - box.low[plane.across]
    share = length / span
    y = -0.05
    axes.plot([1 - share, 1], [y, y], color=INK, lw=1.4, transform=axes.transAxes, clip_on=False, solid_capstyle="butt")
    axes.text(1 - share / 2, y - 0.02, f"{length:g} mm", transform=axes.transAxes, ha="center", va="top", fontsize=6.5)


def nice_length(span: float) -> float:
    """A round scale bar about a quarter of `span` [mm]."""
    return max((v for v in (2.0, 5.0, 10.0, 20.0, 50.0) if v <= 0.36 * span), default=1.0)


def position_words(plane: Plane, position: float) -> str:
    """`axial, z = 24 mm`."""
    return f"{plane.name}, {AXIS_WORDS[plane.cut]} = {position:.0f} mm".replace("-", "\N{MINUS SIGN}")
