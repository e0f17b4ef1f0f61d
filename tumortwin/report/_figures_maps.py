"""The forecast on the anatomy: P(tumor) with its contours, and how unsure the twin is."""

from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tumortwin.report import _planes as planes
from tumortwin.report._data import ForecastMaps, Image, ReportData
from tumortwin.report._planes import AXIAL, PLANES
from tumortwin.report._scene import PAD, Scene, background, observed_edge, widened
from tumortwin.report._style import GRAY, P_TUMOR_MAP, SD_MAP, TWIN_COLOR, Picture, new_figure, render
from tumortwin.report._words import upper_first


def _last_masks(data: ReportData, day: float) -> list[tuple[str, Image, str]]:
    """Edges worth laying over a forecast: last scan used, and the hidden scan of that very day."""
    if data.forecast is None or not data.channels:
        return []
    key = next((c.key for c in reversed(data.channels) if any(c.key in v.masks for v in data.patient.visits)), None)
    if key is None:
        return []
    used = [v for v in data.patient.visits if not v.hidden and key in v.masks and v.day <= data.forecast.origin_day]
    later = [v for v in data.patient.visits if v.hidden and key in v.masks and v.day == day]
    edges = [(f"{data.label(key)}, day {v.day:g} (last scan used)", v.masks[key], "-") for v in used[-1:]]
    return edges + [(f"day {v.day:g} (hidden scan)", v.masks[key], "--") for v in later[:1]]


def probability_map(data: ReportData, scene: Scene, maps: ForecastMaps) -> Picture:
    """P(tumor) in three planes with its 5, 50 and 95 % contours and the observed edge; below, the sd where given."""
    scene = widened(scene, [maps.p_tumor], 0.05)
    edges = _last_masks(data, float(maps.day))
    rows = 1 if maps.sd is None else 2

    def draw() -> Figure:
        figure = new_figure(60.0 * rows + 10.0)
        grid = figure.add_gridspec(rows, 3)
        figure.get_layout_engine().set(rect=(0.0, 0.0, 0.905, 1.0))  # pyright: ignore
        for j, plane in enumerate(PLANES):
            axes = figure.add_subplot(grid[0, j])
            image = _overlay(axes, scene, plane, maps.p_tumor, P_TUMOR_MAP, 0.02, 1.0)
            _probability_lines(axes, scene, plane, maps, edges)
            planes.finish(axes, plane, scene.zoom, scale_bar=scene.ruler if j == 0 and rows == 1 else None)
            axes.set_title(upper_first(planes.position_words(plane, float(scene.at[plane.cut]))), pad=PAD)
            if j == 2:
                _bar(figure, axes, image, "P(tumor)")
            if maps.sd is not None:
                lower = figure.add_subplot(grid[1, j])
                top = max(float(np.nanmax(maps.sd.values)), 1e-6)
                image = _overlay(lower, scene, plane, maps.sd, SD_MAP, 0.04 * top, top)
                planes.finish(lower, plane, scene.zoom, scale_bar=scene.ruler if j == 0 else None)
                if j == 2:
                    _bar(figure, lower, image, "sd")
        _probability_legend(figure, edges)
        return figure

    words = "; ".join(f"{'dashed' if style == '--' else 'solid'} black: {name}" for name, _, style in edges)
    below = " Lower row: how unsure the twin is of the tumor density (standard deviation)." if rows == 2 else ""
    caption = (
        f"Probability of tumor on day {maps.day:g}. Blue lines: 5, 50 and 95 %. {upper_first(words)}.{below} "
        f"{planes.CONVENTION}"
    )
    alt = f"Colored map of the probability of tumor on day {maps.day:g} in axial, coronal and sagittal slices."
    return Picture(f"p_tumor_day{maps.day:03g}", render(draw), caption, alt)


def _overlay(axes: Axes, scene: Scene, plane: planes.Plane, image: Image, cmap: Colormap, low: float, high: float):
    step = scene.step / 2
    background(axes, scene, plane, scene.zoom, step)
    shown = planes.cut(image, plane, float(scene.at[plane.cut]), scene.zoom, step=step)
    values = np.ma.masked_where(~(np.nan_to_num(shown.values) > low), shown.values)
    opacity = np.clip(0.35 + 0.5 * np.nan_to_num(shown.values) / high, 0.0, 0.85)
    return axes.imshow(
        values,
        cmap=cmap,
        vmin=0.0,
        vmax=high,
        alpha=opacity,
        extent=shown.extent,
        origin="lower",  # pyright: ignore
    )


def _probability_lines(
    axes: Axes, scene: Scene, plane: planes.Plane, maps: ForecastMaps, edges: list[tuple[str, Image, str]]
) -> None:
    at, step = float(scene.at[plane.cut]), scene.step / 2
    for level, width, style in ((0.05, 0.8, ":"), (0.5, 1.4, "-"), (0.95, 0.8, "-")):
        planes.contour(
            axes,
            maps.p_tumor,
            plane,
            at,
            scene.zoom,
            step=step,
            level=level,
            color=TWIN_COLOR,
            width=width,
            style=style,
        )
    for _, mask, style in edges:
        observed_edge(axes, mask, plane, at, scene.zoom, step, style)


def _bar(figure: Figure, axes: Axes, image: Any, label: str) -> None:
    """A color bar as tall as the picture, to its right, outside the layout."""
    beside = axes.inset_axes((1.06, 0.0, 0.045, 1.0))
    bar = figure.colorbar(image, cax=beside)
    beside.set_title(label, fontsize=6.5, loc="center", pad=4)
    beside.set_in_layout(False)
    cast(Any, bar.outline).set_visible(False)
    beside.tick_params(length=0, labelsize=6.5)
    beside.yaxis.set_major_locator(MaxNLocator(4))


def _probability_legend(figure: Figure, edges: list[tuple[str, Image, str]]) -> None:
    lines = [
        Line2D([], [], color=TWIN_COLOR, lw=0.8, ls=":"),
        Line2D([], [], color=TWIN_COLOR, lw=1.4),
        Line2D([], [], color=TWIN_COLOR, lw=0.8),
        *(Line2D([], [], color="black", lw=1.1, ls=style) for _, _, style in edges),
    ]
    words = ["P = 0.05", "P = 0.5", "P = 0.95", *(name for name, _, _ in edges)]
    figure.legend(lines, words, loc="outside lower center", ncols=5, labelcolor=GRAY, handlelength=1.8)


def probability_strip(data: ReportData, scene: Scene) -> Picture | None:
    """P(tumor) over time, zoomed axial slices, when there is more than one forecast day."""
    maps = () if data.forecast is None else data.forecast.maps
    if len(maps) < 2:
        return None
    scene = widened(scene, [one.p_tumor for one in maps], 0.05)

    def draw() -> Figure:
        size = min(172.0 / len(maps), 58.0)
        figure = new_figure(size + 14.0)
        grid = figure.add_gridspec(1, max(len(maps), 3))
        for j, one in enumerate(maps):
            axes = figure.add_subplot(grid[0, j])
            _overlay(axes, scene, AXIAL, one.p_tumor, P_TUMOR_MAP, 0.02, 1.0)
            edges = [e for e in _last_masks(data, float(one.day)) if e[2] == "--"]
            _probability_lines(axes, scene, AXIAL, one, edges)
            planes.finish(axes, AXIAL, scene.zoom, scale_bar=scene.ruler if j == 0 else None)
            axes.set_title(f"Day {one.day:g}", pad=PAD)
        return figure

    days = ", ".join(f"{one.day:g}" for one in maps)
    caption = f"P(tumor) on day {days}, axial; blue: 5, 50 and 95 %; dashed black: the hidden scan of that day, if any."
    return Picture("p_tumor_days", render(draw), caption, f"Axial maps of the probability of tumor on day {days}.")
