"""Pictures on the anatomy: contours over time, fit of the masks, P(tumor) and its uncertainty."""

import dataclasses

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tumortwin.report import _planes as planes
from tumortwin.report._data import Anatomy, ForecastMaps, Image, PredictedMask, ReportData, Visit
from tumortwin.report._planes import AXIAL, PLANES, Box
from tumortwin.report._style import (
    GRAY,
    INK,
    P_TUMOR_MAP,
    SD_MAP,
    TWIN_COLOR,
    VISIT_MAP,
    Picture,
    new_figure,
    render,
)

MARGIN, LEAST = 14.0, 50.0


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Where every anatomical figure looks: background, whole-brain box, box about the tumor, and the cut [mm]."""

    anatomy: Anatomy
    whole: Box
    zoom: Box
    at: np.ndarray
    step: float


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
    whole = planes.box_of(data.anatomy.image, brain).padded(2.0)
    boxes = [planes.box_of(image, image.values >= 0.5) for image in tumors]
    about = Box(np.min([b.low for b in boxes], axis=0), np.max([b.high for b in boxes], axis=0))
    first = next((v.masks[c.key] for c in data.channels for v in data.patient.visits if c.key in v.masks), tumors[0])
    first = first if (first.values >= 0.5).any() else tumors[0]
    step = float(np.clip(data.anatomy.image.spacing.min(), 0.5, 2.0))
    zoom = about.padded(MARGIN).cube(LEAST)
    return Scene(data.anatomy, whole, zoom, planes.center_of(first, first.values >= 0.5), step)


def _background(axes: Axes, scene: Scene, plane: planes.Plane, box: Box, step: float) -> None:
    planes.show_background(axes, scene.anatomy, plane, float(scene.at[plane.cut]), box, step=step)


def _visit_colors(days: list[float]) -> dict[float, object]:
    if len(days) == 1:
        return {days[0]: VISIT_MAP(0.35)}
    return {day: VISIT_MAP(i / (len(days) - 1)) for i, day in enumerate(days)}


def contours_over_time(data: ReportData, scene: Scene) -> Picture | None:
    """Three planes, one row a channel; the observed edge of each visit in the color of its day."""
    channels = [c for c in data.channels if any(c.key in v.masks for v in data.patient.visits)]
    days = sorted({float(v.day) for v in data.patient.visits if v.masks})
    if not channels or not days:
        return None
    colors = _visit_colors(days)
    spans = [scene.whole.high[p.across] - scene.whole.low[p.across] for p in PLANES]
    heights = [scene.whole.high[p.up] - scene.whole.low[p.up] for p in PLANES]

    def draw() -> Figure:
        row = 168.0 * max(heights) / sum(spans)
        figure = new_figure(row * len(channels) + 14.0 * len(channels) + 8.0)
        grid = figure.add_gridspec(len(channels), 3, width_ratios=spans)
        for i, channel in enumerate(channels):
            for j, plane in enumerate(PLANES):
                axes = figure.add_subplot(grid[i, j])
                _background(axes, scene, plane, scene.whole, scene.step)
                for visit in data.patient.visits:
                    if channel.key in visit.masks:
                        _edge(axes, scene, plane, visit, channel.key, colors[float(visit.day)])
                last = i == len(channels) - 1
                planes.finish(axes, plane, scene.whole, ruler=False, scale_bar=50.0 if last and j == 0 else None)
                _title(axes, scene, plane, prefix=f"{channel.label.capitalize()}\n" if j == 0 else "\n")
        _visit_legend(figure, data, days, colors)
        return figure

    words = ", ".join(f"{day:g}" for day in days)
    hidden = " Dashed: visits hidden from the twin." if any(v.hidden and v.masks for v in data.patient.visits) else ""
    caption = f"Observed tumor edge on day {words}, on the background anatomy.{hidden} {planes.CONVENTION}"
    alt = f"Axial, coronal and sagittal brain slices with the observed tumor outlines of day {words}."
    return Picture("anatomy", render(draw), caption, alt)


def _edge(axes: Axes, scene: Scene, plane: planes.Plane, visit: Visit, channel: str, color: object) -> None:
    style = "--" if visit.hidden else "-"
    at, box = float(scene.at[plane.cut]), scene.zoom
    planes.contour(axes, visit.masks[channel], plane, at, box, step=scene.step, color=color, width=1.0, style=style)


def _title(axes: Axes, scene: Scene, plane: planes.Plane, *, prefix: str = "") -> None:
    axes.set_title(f"{prefix}{planes.position_words(plane, float(scene.at[plane.cut]))}", color=INK, pad=9)


def _visit_legend(figure: Figure, data: ReportData, days: list[float], colors: dict[float, object]) -> None:
    hidden = {float(v.day) for v in data.patient.visits if v.hidden}
    lines = [Line2D([], [], color=colors[d], lw=1.6, ls="--" if d in hidden else "-") for d in days]  # pyright: ignore
    words = [f"day {d:g}{' (hidden)' if d in hidden else ''}" for d in days]
    figure.legend(lines, words, loc="outside lower center", ncols=min(len(days), 6), handlelength=2.2)


def fitted_masks(data: ReportData, scene: Scene) -> Picture | None:
    """Zoomed axial slices at each fitted visit: observed edge against predicted contour P = 0.5 (and 5 to 95 %)."""
    fitted = [f for f in data.fit if any(f.channel in v.masks and v.day == f.day for v in data.patient.visits)]
    channels = [c for c in data.channels if any(f.channel == c.key for f in fitted)]
    days = sorted({float(f.day) for f in fitted})
    if not fitted:
        return None
    columns = max(len(days), 3)

    def draw() -> Figure:
        size = min(175.0 / columns, 58.0)
        figure = new_figure((size + 9.0) * len(channels) + 10.0)
        grid = figure.add_gridspec(len(channels), columns)
        for i, channel in enumerate(channels):
            for j, day in enumerate(days):
                pair = [f for f in fitted if f.channel == channel.key and f.day == day]
                if pair:
                    axes = figure.add_subplot(grid[i, j])
                    _fit_panel(axes, data, scene, pair[0])
                    corner = i == len(channels) - 1 and j == 0
                    length = planes.nice_length(float(scene.zoom.high[0] - scene.zoom.low[0]))
                    planes.finish(axes, AXIAL, scene.zoom, scale_bar=length if corner else None)
                    axes.set_title(f"{channel.label.capitalize()}, day {day:g}", pad=9)
        _fit_legend(figure)
        return figure

    words = ", ".join(f"{d:g}" for d in days)
    where = planes.position_words(AXIAL, float(scene.at[AXIAL.cut]))
    caption = (
        f"Calibration visits (day {words}), {where}. Black on white: the edge drawn on the scan. Blue: where the fitted "
        "twin puts even odds (P = 0.5); thin blue: P = 0.05 and 0.95. The closer the two, the better the fit."
    )
    return Picture("fit_masks", render(draw), caption, f"Observed and predicted tumor outlines on day {words}.")


def _fit_panel(axes: Axes, data: ReportData, scene: Scene, fitted: PredictedMask) -> None:
    step = scene.step / 2
    at = float(scene.at[AXIAL.cut])
    _background(axes, scene, AXIAL, scene.zoom, step)
    visit = next(v for v in data.patient.visits if v.day == fitted.day and fitted.channel in v.masks)
    _observed(axes, visit.masks[fitted.channel], AXIAL, at, scene.zoom, step)
    for level, width in ((0.05, 0.6), (0.5, 1.4), (0.95, 0.6)):
        planes.contour(
            axes, fitted.probability, AXIAL, at, scene.zoom, step=step, level=level, color="#35A7FF", width=width
        )


def _observed(axes: Axes, mask: Image, plane: planes.Plane, at: float, box: Box, step: float, style: str = "-") -> None:
    """A black line in a white halo, legible on gray of any depth."""
    planes.contour(axes, mask, plane, at, box, step=step, color="white", width=2.4)
    planes.contour(axes, mask, plane, at, box, step=step, color="black", width=1.1, style=style)


def _fit_legend(figure: Figure) -> None:
    lines = [
        Line2D([], [], color="black", lw=1.1),
        Line2D([], [], color="#35A7FF", lw=1.4),
        Line2D([], [], color="#35A7FF", lw=0.6),
    ]
    words = ["observed edge", "twin, P = 0.5", "twin, P = 0.05 and 0.95"]
    figure.legend(lines, words, loc="outside lower center", ncols=3)


def _last_masks(data: ReportData, day: float) -> list[tuple[str, Image, str]]:
    """Edges worth laying over a forecast: last scan used, and the hidden scan of that very day."""
    if data.forecast is None or not data.channels:
        return []
    key = next((c.key for c in reversed(data.channels) if any(c.key in v.masks for v in data.patient.visits)), None)
    if key is None:
        return []
    used = [v for v in data.patient.visits if not v.hidden and key in v.masks and v.day <= data.forecast.origin_day]
    later = [v for v in data.patient.visits if v.hidden and key in v.masks and v.day == day]
    edges = [(f"{data.label(key)} on day {v.day:g} (last scan used)", v.masks[key], "-") for v in used[-1:]]
    return edges + [(f"{data.label(key)} on day {v.day:g} (hidden scan)", v.masks[key], "--") for v in later[:1]]


def probability_map(data: ReportData, scene: Scene, maps: ForecastMaps) -> Picture:
    """P(tumor) in three planes with its 5, 50 and 95 % contours and the observed edge; below, the sd where given."""
    edges = _last_masks(data, float(maps.day))
    rows = 1 if maps.sd is None else 2

    def draw() -> Figure:
        figure = new_figure(66.0 * rows + 12.0)
        grid = figure.add_gridspec(rows, 4, width_ratios=[1, 1, 1, 0.035])
        for j, plane in enumerate(PLANES):
            axes = figure.add_subplot(grid[0, j])
            image = _overlay(axes, scene, plane, maps.p_tumor, P_TUMOR_MAP, 0.02, 1.0)
            _probability_lines(axes, scene, plane, maps, edges)
            length = planes.nice_length(float(scene.zoom.high[0] - scene.zoom.low[0]))
            planes.finish(axes, plane, scene.zoom, scale_bar=length if j == 0 and rows == 1 else None)
            _title(axes, scene, plane)
            if j == 2:
                _bar(figure, figure.add_subplot(grid[0, 3]), image, "P(tumor)")
            if maps.sd is not None:
                lower = figure.add_subplot(grid[1, j])
                top = max(float(np.nanmax(maps.sd.values)), 1e-6)
                image = _overlay(lower, scene, plane, maps.sd, SD_MAP, 0.04 * top, top)
                planes.finish(lower, plane, scene.zoom, scale_bar=length if j == 0 else None)
                if j == 2:
                    _bar(figure, figure.add_subplot(grid[1, 3]), image, "sd of tumor density")
        _probability_legend(figure, edges)
        return figure

    words = "; ".join(f"{'dashed' if style == '--' else 'solid'} black: {name}" for name, _, style in edges)
    below = " Lower row: how unsure the twin is of the tumor density (standard deviation)." if rows == 2 else ""
    caption = (
        f"Probability of tumor on day {maps.day:g}. Blue lines: 5, 50 and 95 %. {words.capitalize()}.{below} "
        f"{planes.CONVENTION}"
    )
    alt = f"Colored map of the probability of tumor on day {maps.day:g} in axial, coronal and sagittal slices."
    return Picture(f"p_tumor_day{maps.day:03g}", render(draw), caption, alt)


def _overlay(axes: Axes, scene: Scene, plane: planes.Plane, image: Image, cmap: object, low: float, high: float):
    step = scene.step / 2
    _background(axes, scene, plane, scene.zoom, step)
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
        _observed(axes, mask, plane, at, scene.zoom, step, style)


def _bar(figure: Figure, axes: Axes, image: object, label: str) -> None:
    bar = figure.colorbar(image, cax=axes, label=label)  # pyright: ignore
    bar.outline.set_visible(False)  # pyright: ignore
    bar.ax.tick_params(length=0)


def _probability_legend(figure: Figure, edges: list[tuple[str, Image, str]]) -> None:
    lines = [
        Line2D([], [], color=TWIN_COLOR, lw=0.8, ls=":"),
        Line2D([], [], color=TWIN_COLOR, lw=1.4),
        Line2D([], [], color=TWIN_COLOR, lw=0.8),
        *(Line2D([], [], color="black", lw=1.1, ls=style) for _, _, style in edges),
    ]
    words = ["P = 0.05", "P = 0.5", "P = 0.95", *(name for name, _, _ in edges)]
    figure.legend(lines, words, loc="outside lower center", ncols=len(words), labelcolor=GRAY, handlelength=1.8)


def probability_strip(data: ReportData, scene: Scene) -> Picture | None:
    """P(tumor) over time, zoomed axial slices, when there is more than one forecast day."""
    maps = () if data.forecast is None else data.forecast.maps
    if len(maps) < 2:
        return None

    def draw() -> Figure:
        size = min(172.0 / len(maps), 58.0)
        figure = new_figure(size + 14.0)
        grid = figure.add_gridspec(1, max(len(maps), 3))
        for j, one in enumerate(maps):
            axes = figure.add_subplot(grid[0, j])
            _overlay(axes, scene, AXIAL, one.p_tumor, P_TUMOR_MAP, 0.02, 1.0)
            edges = [e for e in _last_masks(data, float(one.day)) if e[2] == "--"]
            _probability_lines(axes, scene, AXIAL, one, edges)
            length = planes.nice_length(float(scene.zoom.high[0] - scene.zoom.low[0]))
            planes.finish(axes, AXIAL, scene.zoom, scale_bar=length if j == 0 else None)
            axes.set_title(f"day {one.day:g}", pad=9)
        return figure

    days = ", ".join(f"{one.day:g}" for one in maps)
    caption = f"P(tumor) on day {days}, axial; blue: 5, 50 and 95 %; dashed black: the hidden scan of that day, if any."
    return Picture("p_tumor_days", render(draw), caption, f"Axial maps of the probability of tumor on day {days}.")
