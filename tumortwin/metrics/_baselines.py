"""Forecasts that need no twin. A twin that does not beat them has not earned its keep.

None of them may look at the hidden scan: the dilation radius is a prior radial velocity times the interval, the growth
rate comes from earlier volumes.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from tumortwin.metrics._overlap import bounding_box
from tumortwin.metrics._types import NpMask


def signed_distance(mask: NpMask, spacing: Sequence[float], *, to_edge: bool = False) -> np.ndarray:
    """Distance [mm] of every voxel center to the mask: positive outside, negative inside.

    It is measured to the nearest voxel center on the other side: what a dilation counts. `to_edge`: to the edge of the
    mask, which lies half a voxel (the cube root of its volume) nearer: what a profile about the edge needs. Infinite
    everywhere for an empty mask, minus infinite for a full one.
    """
    steps = [float(s) for s in spacing]
    if not mask.any():
        return np.full(mask.shape, np.inf)
    if mask.all():
        return np.full(mask.shape, -np.inf)
    nearer = 0.5 * float(np.prod(steps)) ** (1.0 / 3.0) if to_edge else 0.0
    distance = np.asarray(ndimage.distance_transform_edt(~mask, sampling=steps)) - nearer
    box = bounding_box(mask, 1)  # the nearest voxel outside lies in the mask's box or just about it
    inside = np.asarray(ndimage.distance_transform_edt(mask[box], sampling=steps))
    distance[box] = np.where(mask[box], nearer - inside, distance[box])
    return distance


def persistence(mask: NpMask) -> NpMask:
    """The tumor stays as last seen."""
    return np.array(mask, dtype=bool)


def dilation(
    mask: NpMask,
    radius: float,
    spacing: Sequence[float],
    domain: NpMask | None = None,
    *,
    distance: np.ndarray | None = None,
) -> NpMask:
    """The tumor grown by `radius` [mm] in every direction (shrunk if negative), kept within `domain`.

    `distance`: the mask's signed distance, where it is known already.

    Voxels whose center is at most `radius` from the center of a tumor voxel. The radius is a prior radial velocity
    [mm/day] times the interval. **Good values:** 0.01-0.05 mm/day for low-grade, 0.05-0.2 mm/day for high-grade glioma
    (half the velocity of the diameter). With thick slices a radius below the slice spacing grows only within slices.
    """
    distance = signed_distance(mask, spacing) if distance is None else distance
    grown = distance <= radius if radius >= 0.0 else mask & (distance < radius)
    return grown if domain is None else grown & (domain | mask)


def volume_growth_rate(days: Sequence[float], volumes: Sequence[float], doubling_time: float) -> float:
    """Exponential rate [1/day]: ln(V2/V1)/(t2 - t1) of the last two positive volumes, or ln 2 / `doubling_time` [day].

    `doubling_time` is the prior for a patient with only one earlier scan (or an empty one); infinity means no growth.
    """
    seen = [(t, v) for t, v in zip(days, volumes, strict=True) if v > 0.0]
    if len(seen) < 2:
        return math.log(2.0) / doubling_time
    (first_day, first), (last_day, last) = seen[-2:]
    if last_day <= first_day:
        raise ValueError(f"required: days in order; received: {list(days)}")
    return math.log(last / first) / (last_day - first_day)


def to_volume(
    mask: NpMask,
    volume: float,
    spacing: Sequence[float],
    domain: NpMask | None = None,
    *,
    distance: np.ndarray | None = None,
) -> NpMask:
    """The tumor dilated (or eroded) to `volume` [mm^3]: the whole-distance shell whose volume is nearest.

    `distance`: the mask's signed distance, where it is known already.

    All voxels at one distance are taken or left together, so the answer does not depend on the order of the axes. An
    empty mask stays empty; the domain bounds what can be reached.
    """
    allowed = np.ones_like(mask) if domain is None else domain | mask
    voxels = volume / float(np.prod(list(spacing)))
    distance = np.round(signed_distance(mask, spacing) if distance is None else distance, 6)
    values = distance[allowed & np.isfinite(distance)]
    if values.size == 0 or not mask.any():
        return persistence(mask)
    shells, counts = np.unique(values, return_counts=True)
    reached = np.concatenate([[0], np.cumsum(counts)])
    best = int(np.argmin(np.abs(reached - voxels)))
    if best == 0:
        return np.zeros_like(mask)
    return allowed & (distance <= shells[best - 1])


def exponential_growth(
    masks: Sequence[NpMask],
    days: Sequence[float],
    day: float,
    spacing: Sequence[float],
    *,
    doubling_time: float,
    domain: NpMask | None = None,
    distance: np.ndarray | None = None,
) -> NpMask:
    """The last mask, dilated to the volume that exponential growth predicts for `day`."""
    voxel = float(np.prod(list(spacing)))
    volumes = [float(m.sum()) * voxel for m in masks]
    rate = volume_growth_rate(days, volumes, doubling_time)
    volume = volumes[-1] * math.exp(rate * (day - days[-1]))
    return to_volume(masks[-1], volume, spacing, domain, distance=distance)


def baseline_forecasts(
    masks: Sequence[NpMask],
    days: Sequence[float],
    day: float,
    spacing: Sequence[float],
    *,
    radial_velocity: float,
    doubling_time: float,
    domain: NpMask | None = None,
) -> Mapping[str, NpMask]:
    """All baselines for one channel: the masks seen so far and the day to forecast -> name -> mask.

    `radial_velocity` [mm/day] and `doubling_time` [day] are priors, stated in the configuration of the patient.
    """
    if not masks or len(masks) != len(days) or day < days[-1]:
        raise ValueError(
            f"required: at least one mask, one day each, and a day to forecast after them; received: {len(masks)} "
            f"masks, days {list(days)}, day {day}"
        )
    radius = radial_velocity * (day - days[-1])
    distance = signed_distance(masks[-1], spacing)
    return {
        "persistence": persistence(masks[-1]),
        "dilation": dilation(masks[-1], radius, spacing, domain, distance=distance),
        "exponential_growth": exponential_growth(
            masks, days, day, spacing, doubling_time=doubling_time, domain=domain, distance=distance
        ),
    }
