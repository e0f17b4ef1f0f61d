"""Where every anatomical figure looks: the background, a box about the brain, a box about the tumor, and the cuts."""

import dataclasses

import numpy as np
from matplotlib.axes import Axes

from tumortwin.report import _planes as planes
from tumortwin.report._data import Anatomy, Image, ReportData
from tumortwin.report._planes import Box

MARGIN, LEAST, PAD = 12.0, 50.0, 4.0
RIM = 2.0  # of the whole picture about the box of the close-ups, so that no side of it is cut off [mm]


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Where every anatomical figure looks: background, whole-brain box, box about the tumor, and the cut [mm]."""

    anatomy: Anatomy
    whole: Box
    zoom: Box
    at: np.ndarray
    step: float
    gray: tuple[float, float]

    @property
    def ruler(self) -> float:
        """Length of the scale bar of close-ups [mm]."""
        return planes.nice_length(float(self.zoom.high[0] - self.zoom.low[0]))


def _tumor_images(data: ReportData) -> list[Image]:
    seen = [mask for visit in data.patient.visits for mask in visit.masks.values() if (mask.values >= 0.5).any()]
    maps = () if data.forecast is None else data.forecast.maps
    return seen or [m.p_tumor for m in maps if (m.p_tumor.values >= 0.5).any()]


def make_scene(data: ReportData) -> Scene | None:
    """The scene, or None when there is no anatomy or nothing to look at."""
    tumors = _tumor_images(data)
    if data.anatomy is None or not tumors:
        return None
    brain = None if data.anatomy.brain is None else data.anatomy.brain.astype(bool)
    whole = planes.box_of(data.anatomy.image, brain).padded(9.0)
    boxes = [planes.box_of(image, image.values >= 0.5) for image in tumors]
    about = Box(np.min([b.low for b in boxes], axis=0), np.max([b.high for b in boxes], axis=0))
    first = next((v.masks[c.key] for c in data.channels for v in data.patient.visits if c.key in v.masks), tumors[0])
    first = first if (first.values >= 0.5).any() else tumors[0]
    step = float(np.clip(data.anatomy.image.spacing.min(), 0.5, 2.0))
    zoom = about.padded(MARGIN).cube(LEAST)
    whole = Box(np.minimum(whole.low, zoom.low - RIM), np.maximum(whole.high, zoom.high + RIM))
    return Scene(
        data.anatomy, whole, zoom, planes.center_of(first, first.values >= 0.5), step, planes.window(data.anatomy)
    )


def background(axes: Axes, scene: Scene, plane: planes.Plane, box: Box, step: float) -> None:
    planes.show_background(axes, scene.anatomy, plane, float(scene.at[plane.cut]), box, step=step, gray=scene.gray)


def observed_edge(
    axes: Axes, mask: Image, plane: planes.Plane, at: float, box: Box, step: float, style: str = "-"
) -> None:
    """A black line in a white halo, legible on gray of any depth."""
    planes.contour(axes, mask, plane, at, box, step=step, color="white", width=2.4)
    planes.contour(axes, mask, plane, at, box, step=step, color="black", width=1.1, style=style)


def widened(scene: Scene, images: list[Image], level: float) -> Scene:
    """The scene with close-ups wide enough for the voxels above `level`, but not beyond the brain's box."""
    boxes = [
        scene.zoom,
        *(planes.box_of(i, i.values >= level).padded(4.0) for i in images if (i.values >= level).any()),
    ]
    about = Box(np.min([b.low for b in boxes], axis=0), np.max([b.high for b in boxes], axis=0))
    return dataclasses.replace(scene, zoom=about.within(scene.whole).cube(LEAST))
