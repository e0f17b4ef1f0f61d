"""What was seen and how well it is fitted, on the anatomy: contours over time, and observed against predicted edges."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tumortwin.report import _planes as planes
from tumortwin.report._data import PredictedMask, ReportData, Visit
from tumortwin.report._planes import AXIAL, PLANES
from tumortwin.report._scene import PAD, Scene, background, observed_edge
from tumortwin.report._style import INK, VISIT_MAP, Picture, new_figure, render
from tumortwin.report._words import upper_first

FIT_COLOR = "#35A7FF"


def _visit_colors(days: list[float]) -> dict[float, object]:
    if len(days) == 1:
        return {days[0]: VISIT_MAP(0.35)}
    return {day: VISIT_MAP(i / (len(days) - 1)) for i, day in enumerate(days)}


def contours_over_time(data: ReportData, scene: Scene) -> Picture | None:
    """Three planes: the whole brain with the close-up marked, then a row a channel with the edge of each visit."""
    channels = [c for c in data.channels if any(c.key in v.masks for v in data.patient.visits)]
    days = sorted({float(v.day) for v in data.patient.visits if v.masks})
    if not channels or not days:
        return None
    colors = _visit_colors(days)
    spans = [float(scene.whole.high[p.across] - scene.whole.low[p.across]) for p in PLANES]
    tall = max(float(scene.whole.high[p.up] - scene.whole.low[p.up]) for p in PLANES)

    def draw() -> Figure:
        top, low = 172.0 * tall / sum(spans) + 16.0, 63.0 * len(channels) + 12.0
        figure = new_figure(top + low)
        outer = figure.add_gridspec(2, 1, height_ratios=[top, low])
        above, below = outer[0].subgridspec(1, 3, width_ratios=spans), outer[1].subgridspec(len(channels), 3)
        for j, plane in enumerate(PLANES):
            _whole(figure.add_subplot(above[0, j]), data, scene, plane, channels[-1].key, colors)
            for i, channel in enumerate(channels):
                axes = figure.add_subplot(below[i, j])
                _close_up(axes, data, scene, plane, channel.key, colors)
                planes.finish(axes, plane, scene.zoom, ruler=True)
                axes.set_title(upper_first(channel.label) if j == 0 else "", pad=PAD)
        _visit_legend(figure, data, days, colors)
        return figure

    words = ", ".join(f"{day:g}" for day in days)
    hidden = " Dashed: visits hidden from the twin." if any(v.hidden and v.masks for v in data.patient.visits) else ""
    caption = (
        f"Top: the whole brain, the largest {channels[-1].label} shown to the twin, the box of the close-ups. Below: "
        f"the tumor edge seen on day {words}.{hidden} Axes in mm of scanner space. {planes.CONVENTION}"
    )
    alt = f"Axial, coronal and sagittal brain slices with the observed tumor outlines of day {words}."
    return Picture("anatomy", render(draw), caption, alt)


def _whole(
    axes: Axes,
    data: ReportData,
    scene: Scene,
    plane: planes.Plane,
    channel: str,
    colors: dict[float, object],
) -> None:
    background(axes, scene, plane, scene.whole, scene.step)
    seen = [v for v in data.patient.visits if channel in v.masks]
    for visit in _largest([v for v in seen if not v.hidden] or seen, channel):
        _edge(axes, scene, plane, visit, channel, colors[float(visit.day)])
    low, high = scene.zoom.low, scene.zoom.high
    corner = (float(low[plane.across]), float(low[plane.up]))
    size = (float(high[plane.across]) - corner[0], float(high[plane.up]) - corner[1])
    axes.add_patch(Rectangle(corner, *size, fill=False, ec=INK, lw=0.7))
    planes.finish(axes, plane, scene.whole, scale_bar=50.0)
    axes.set_title(upper_first(planes.position_words(plane, float(scene.at[plane.cut]))), pad=PAD)


def _largest(visits: list[Visit], channel: str) -> list[Visit]:
    return sorted(visits, key=lambda visit: float((visit.masks[channel].values >= 0.5).sum()))[-1:]


def _close_up(
    axes: Axes, data: ReportData, scene: Scene, plane: planes.Plane, channel: str, colors: dict[float, object]
) -> None:
    background(axes, scene, plane, scene.zoom, scene.step / 2)
    for visit in data.patient.visits:
        if channel in visit.masks:
            _edge(axes, scene, plane, visit, channel, colors[float(visit.day)])


def _edge(axes: Axes, scene: Scene, plane: planes.Plane, visit: Visit, channel: str, color: object) -> None:
    style = "--" if visit.hidden else "-"
    at, box = float(scene.at[plane.cut]), scene.zoom
    planes.contour(axes, visit.masks[channel], plane, at, box, step=scene.step / 2, color=color, width=1.1, style=style)


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
                    planes.finish(axes, AXIAL, scene.zoom, scale_bar=scene.ruler if corner else None)
                    axes.set_title(f"{upper_first(channel.label)}, day {day:g}", pad=PAD)
        _fit_legend(figure)
        return figure

    words = ", ".join(f"{d:g}" for d in days)
    where = planes.position_words(AXIAL, float(scene.at[AXIAL.cut]))
    caption = (
        f"Calibration visits (day {words}), {where}. Black on white: the edge drawn on the scan. Blue: where the "
        "fitted twin puts even odds (P = 0.5); thin blue: P = 0.05 and 0.95. The closer the two, the better the fit."
    )
    return Picture("fit_masks", render(draw), caption, f"Observed and predicted tumor outlines on day {words}.")


def _fit_panel(axes: Axes, data: ReportData, scene: Scene, fitted: PredictedMask) -> None:
    step = scene.step / 2
    at = float(scene.at[AXIAL.cut])
    background(axes, scene, AXIAL, scene.zoom, step)
    visit = next(v for v in data.patient.visits if v.day == fitted.day and fitted.channel in v.masks)
    observed_edge(axes, visit.masks[fitted.channel], AXIAL, at, scene.zoom, step)
    for level, width in ((0.05, 0.6), (0.5, 1.4), (0.95, 0.6)):
        planes.contour(
            axes, fitted.probability, AXIAL, at, scene.zoom, step=step, level=level, color=FIT_COLOR, width=width
        )


def _fit_legend(figure: Figure) -> None:
    lines = [
        Line2D([], [], color="black", lw=1.1),
        Line2D([], [], color=FIT_COLOR, lw=1.4),
        Line2D([], [], color=FIT_COLOR, lw=0.6),
    ]
    words = ["observed edge", "twin, P = 0.5", "twin, P = 0.05 and 0.95"]
    figure.legend(lines, words, loc="outside lower center", ncols=3)
