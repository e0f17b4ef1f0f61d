"""Volumes over time: fan chart with treatment strip, and the scores and calibration of the forecast."""

import dataclasses

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tumortwin.report._data import Channel, Forecast, ReportData, Treatments, VolumePrediction
from tumortwin.report._style import (
    FAINT,
    GRAY,
    INK,
    TRUTH_COLOR,
    TWIN_BAND,
    TWIN_COLOR,
    TWIN_HALF,
    Picture,
    baseline_style,
    new_figure,
    render,
    spread,
)
from tumortwin.report._words import ml, number, unique, upper_first

LOG_FROM_RATIO = 20.0
STRIP_ROW_MM = 4.5
HOLLOW = {"mfc": "white", "mec": INK, "mew": 1.3}


def _observed(data: ReportData, channel: str, *, hidden: bool) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (float(v.day), ml(volume))
        for v in data.patient.visits
        for volume in [data.volume_of(v, channel)]
        if v.hidden is hidden and volume is not None
    ]
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _scans_within(data: ReportData, prediction: VolumePrediction) -> np.ndarray:
    """Measured volumes [mL] between the first and the last predicted day."""
    table = np.concatenate([np.stack(_observed(data, prediction.channel, hidden=h)) for h in (False, True)], axis=1)
    return table[1, (table[0] >= prediction.days[0]) & (table[0] <= prediction.days[-1])]


def uses_log_volume(prediction: VolumePrediction, scans: np.ndarray) -> bool:
    """Log scale when interval and scans [mL] span a factor of 20 or more and nothing is zero."""
    values = np.concatenate([ml(1.0) * prediction.lower, ml(1.0) * prediction.upper, scans])
    return bool(values.min() > 0 and values.max() / values.min() > LOG_FROM_RATIO)


def _fan(axes: Axes, data: ReportData, prediction: VolumePrediction, last: float = np.inf) -> None:
    """Bands, median, truth, and the scans up to `last` [day]."""
    days = prediction.days
    axes.fill_between(days, ml(1.0) * prediction.lower, ml(1.0) * prediction.upper, color=TWIN_BAND, lw=0)
    if prediction.lower_half is not None and prediction.upper_half is not None:
        axes.fill_between(days, ml(1.0) * prediction.lower_half, ml(1.0) * prediction.upper_half, color=TWIN_HALF, lw=0)
    axes.plot(days, ml(1.0) * prediction.median, color=TWIN_COLOR, lw=1.6)
    if prediction.truth is not None:
        axes.plot(days, ml(1.0) * prediction.truth, color=TRUTH_COLOR, lw=1.0, ls=(0, (3, 2)))
    for hidden, look in ((False, {"color": INK, "mec": "white", "mew": 0.8}), (True, HOLLOW)):
        when, volumes = _observed(data, prediction.channel, hidden=hidden)
        shown = when <= last
        if shown.any():
            (points,) = axes.plot(when[shown], volumes[shown], "o", ms=5.2, zorder=6, clip_on=False, **look)
            points.set_in_layout(False)


def _baselines(axes: Axes, forecast: Forecast, channel: str, names: list[str]) -> list[tuple[float, str, str]]:
    """Thin dashed lines; the labels still to be placed at their right ends."""
    labels = []
    for baseline in forecast.baselines:
        if baseline.channel == channel:
            style = baseline_style(names.index(baseline.name))
            axes.plot(baseline.days, ml(1.0) * baseline.volumes, lw=0.9, **style)  # pyright: ignore
            labels.append((ml(float(baseline.volumes[-1])), baseline.name, str(style["color"])))
    return labels


def _end_labels(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Names at the right ends of the lines, moved apart where they would touch."""
    if not labels:
        return
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    ends = np.array([np.clip(v, low, high) for v, _, _ in labels])
    share = np.log(ends / low) / np.log(high / low) if log else (ends - low) / (high - low)
    gap = 9.0 / (axes.get_window_extent().height * 72.0 / axes.get_figure().dpi)  # pyright: ignore
    for y, (value, name, color) in zip(spread(share, gap, 0.0, 1.0), labels, strict=True):
        arrow = " ↑" if value > high else ""
        axes.text(1.012, y, f"{name}{arrow}", transform=axes.transAxes, color=color, va="center", fontsize=6.8)


def _volume_scale(axes: Axes, data: ReportData, prediction: VolumePrediction) -> None:
    points = _scans_within(data, prediction)
    log = uses_log_volume(prediction, points)
    top = max(float(ml(1.0) * prediction.upper.max()), float(points.max(initial=0.0)))
    if log:
        positive = np.concatenate([ml(1.0) * prediction.lower, points])
        axes.set_yscale("log")
        axes.set_ylim(float(positive.min()) / 1.25, top * 1.25)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0.0, top * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _day_range(data: ReportData, forecast: Forecast) -> tuple[float, float]:
    days = [float(d) for v in forecast.volumes for d in (v.days[0], v.days[-1])]
    days += [float(v.day) for v in data.patient.visits]
    span = max(days) - min(days)
    return min(days) - 0.015 * span - 0.5, max(days) + 0.005 * span


def _strip_rows(treatments: Treatments) -> list[str]:
    rows = ["radiotherapy"] if treatments.fraction_days.size else []
    rows += [name for name, days in treatments.drug_days.items() if np.size(days)]
    return rows + (["surgery"] if treatments.surgery_days else [])


def _runs(days: np.ndarray, gap: float = 3.5) -> list[tuple[float, float]]:
    """Consecutive drug days joined into bands (a weekend does not break one)."""
    ordered = np.sort(np.asarray(days, dtype=float))
    breaks = np.flatnonzero(np.diff(ordered) > gap) + 1
    return [(float(run[0]) - 0.5, float(run[-1]) + 0.5) for run in np.split(ordered, breaks)]


def _strip(axes: Axes, treatments: Treatments, rows: list[str]) -> None:
    """One line a treatment: fractions as ticks, drug days as bands, surgery as a triangle."""
    for i, name in enumerate(rows):
        y = len(rows) - 1 - i
        if name == "radiotherapy":
            axes.vlines(treatments.fraction_days, y - 0.32, y + 0.32, color=INK, lw=0.8)
        elif name == "surgery":
            axes.plot(treatments.surgery_days, [y] * len(treatments.surgery_days), "v", color=INK, ms=5)
        else:
            for start, end in _runs(treatments.drug_days[name]):
                axes.barh(y, end - start, left=start, height=0.5, color="#b7bec8", lw=0)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [upper_first(r) for r in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _origin(axes: Axes, forecast: Forecast, *, words: bool) -> None:
    axes.axvline(float(forecast.origin_day), color=GRAY, lw=0.7, ls=(0, (1, 2)))
    if words:
        axes.annotate(
            "forecast, from the last scan used →",
            (float(forecast.origin_day), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=6.6,
            color=GRAY,
        )


def fan_chart(data: ReportData) -> Picture | None:
    """Predicted volume with its intervals, the scans, the baselines, and the treatment beneath."""
    forecast = data.forecast
    if forecast is None or not forecast.volumes:
        return None
    channels = [c for c in data.channels if data.prediction(c.key) is not None]
    rows = _strip_rows(data.patient.treatments)
    names = unique(b.name for b in forecast.baselines)

    def draw() -> Figure:
        height = 62.0 if len(channels) == 1 else 52.0
        strip = STRIP_ROW_MM * len(rows) + 3.0
        figure = new_figure(height * len(channels) + strip + 16.0)
        figure.get_layout_engine().set(rect=(0.0, 0.0, 0.86 if names else 1.0, 1.0))  # pyright: ignore
        parts = len(channels) + (1 if rows else 0)
        ratios = [height] * len(channels) + ([strip] if rows else [])
        all_axes = figure.subplots(parts, 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        ends = [_channel_panel(axes, data, forecast, c, names) for axes, c in zip(all_axes, channels, strict=False)]
        if rows:
            _strip(all_axes[-1], data.patient.treatments, rows)
            _origin(all_axes[-1], forecast, words=False)
        all_axes[0].set_xlim(*_day_range(data, forecast))
        all_axes[-1].set_xlabel("days since the first scan")
        _fan_legend(figure, data, forecast)
        figure.draw_without_rendering()
        for axes, labels in zip(all_axes, ends, strict=False):
            _end_labels(axes, labels)
        return figure

    return Picture("forecast", render(draw), _fan_caption(data, forecast, names), _fan_alt(data))


def _channel_panel(
    axes: Axes, data: ReportData, forecast: Forecast, channel: Channel, names: list[str]
) -> list[tuple[float, str, str]]:
    prediction = data.prediction(channel.key)
    if prediction is None:
        return []
    labels = _baselines(axes, forecast, channel.key, names)
    _fan(axes, data, prediction)
    _volume_scale(axes, data, prediction)
    _origin(axes, forecast, words=channel == data.channels[0])
    scale = ", log scale" if axes.get_yscale() == "log" else ""
    axes.set_title(f"{upper_first(channel.label)}, mL{scale}", pad=10)
    return [*labels, (ml(float(prediction.median[-1])), "twin", TWIN_COLOR)]


def volume_fit(data: ReportData) -> Picture | None:
    """Fitted volume over the calibration period only, one panel a channel."""
    forecast = data.forecast
    scans = [float(v.day) for v in data.patient.visits if not v.hidden]
    if forecast is None or len(scans) < 2:
        return None
    first, last = min(scans), float(forecast.origin_day)
    channels = [c for c in data.channels if (p := data.prediction(c.key)) is not None and p.days[0] < last]
    if not channels or last <= first:
        return None

    def draw() -> Figure:
        figure = new_figure(48.0)
        for axes, channel in zip(figure.subplots(1, max(len(channels), 2), squeeze=False)[0], channels, strict=False):
            prediction = data.prediction(channel.key)
            if prediction is not None:
                shown = _until(prediction, last)
                _fan(axes, data, shown, last)
                _volume_scale(axes, data, shown)
                axes.set_xlim(first - 0.02 * (last - first), last + 0.02 * (last - first))
                axes.set_title(f"{upper_first(channel.label)}, mL", pad=8)
                axes.set_xlabel("days since the first scan")
        for axes in figure.axes[len(channels) :]:
            axes.set_visible(False)
        return figure

    caption = "Volumes that the twin was shown (points) against what it now says about them (median, 50 % and 95 %)."
    return Picture(
        "fit_volumes", render(draw), caption, "Fitted and measured tumor volumes over the calibration period."
    )


def _until(prediction: VolumePrediction, last: float) -> VolumePrediction:
    """The prediction up to `last` [day], which it contains as its last point."""
    before = prediction.days < last
    days = np.append(prediction.days[before], last)

    def curve(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.interp(days, prediction.days, values)

    whole = {
        n: curve(getattr(prediction, n)) for n in ("median", "lower", "upper", "lower_half", "upper_half", "truth")
    }
    return dataclasses.replace(prediction, days=days, draws=None, **whole)


def _fan_legend(figure: Figure, data: ReportData, forecast: Forecast) -> None:
    handles: list[Artist] = [Line2D([], [], color=TWIN_COLOR, lw=1.6)]
    words = ["twin, median"]
    if any(v.lower_half is not None for v in forecast.volumes):
        handles.append(Patch(color=TWIN_HALF))
        words.append("50 %")
    handles += [Patch(color=TWIN_BAND), Line2D([], [], marker="o", ls="", color=INK, ms=5)]
    words += ["95 % prediction interval", "scan used"]
    if any(v.hidden for v in data.patient.visits):
        handles.append(Line2D([], [], marker="o", ls="", ms=5, **HOLLOW))
        words.append("scan hidden from the twin")
    if any(v.truth is not None for v in forecast.volumes):
        handles.append(Line2D([], [], color=TRUTH_COLOR, lw=1.0, ls=(0, (3, 2))))
        words.append("truth")
    figure.legend(handles, words, loc="outside lower center", ncols=len(words), labelcolor=GRAY, handlelength=1.6)


def _fan_caption(data: ReportData, forecast: Forecast, names: list[str]) -> str:
    text = "Tumor volume over time. If the model is right, a new scan falls inside the pale band 19 times in 20."
    if any(v.hidden for v in data.patient.visits):
        text += " Hollow points were hidden from the twin."
    if names:
        text += f" Thin dashed lines: baselines that know no biology ({', '.join(names)})."
    if forecast.assumed_treatment:
        text += f" The forecast assumes {forecast.assumed_treatment}."
    return text


def _fan_alt(data: ReportData) -> str:
    channel, day = data.headline_channel, data.headline_day
    prediction = None if channel is None else data.prediction(channel)
    if prediction is None or day is None:
        return "Predicted tumor volume over time."
    median, low, high = (number(ml(v)) for v in prediction.at(day))
    return (
        f"Predicted {data.label(channel)} volume over time; on day {day:g} median {median} mL, 95 % {low} to {high} mL."
    )
