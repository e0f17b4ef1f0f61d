"""Promises between files: one space, tumor inside the brain, visits and doses in order. Every patient passes here."""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io._resample import Interpolation, resample_volume
from tumortwin.io._volume import Volume
from tumortwin.twin import Scan

PathLike = str | os.PathLike[str]

# A tumor mask may leave the brain mask by its rim; more than this share is a wrong file or a wrong space.
MAX_OUTSIDE_BRAIN = 0.05


def on_grid(volume: Volume, grid: Grid, *, interpolation: Interpolation, resample: bool = False) -> np.ndarray:
    """The volume's array on `grid`: as it is when the spaces agree, through the affines when `resample` is asked for.

    **Raises:** `InputError` when shape or affine disagree and resampling was not configured.
    """
    if volume.grid.same_space(grid):
        return volume.array
    if not resample:
        raise InputError(
            file=volume.path,
            required=f"the space of the brain mask: {describe_grid(grid)}",
            received=describe_grid(volume.grid),
            advice="register and resample the file, or set `resample: true` to resample through the affines",
        )
    return resample_volume(volume.array, volume.grid, grid, interpolation=interpolation)


def describe_grid(grid: Grid) -> str:
    """Shape, spacing and affine in one line."""
    rows = [[round(v, 4) for v in row] for row in grid.affine[:3]]
    return f"shape {grid.shape}, spacing {tuple(round(s, 4) for s in grid.spacing)} mm, affine {rows}"


def clip_to_brain(mask: np.ndarray, brain: np.ndarray, *, file: PathLike | None, what: str) -> tuple[np.ndarray, float]:
    """The part of `mask` inside `brain`, and the share of it that was outside.

    **Raises:** `InputError` when more than `MAX_OUTSIDE_BRAIN` of the mask lies outside.
    """
    total = int(mask.sum())
    share = 0.0 if total == 0 else float(np.count_nonzero(mask & ~brain) / total)
    if share > MAX_OUTSIDE_BRAIN:
        raise InputError(
            file=file,
            required=f"at most {MAX_OUTSIDE_BRAIN:.0%} of {what} outside the patient's own brain mask",
            received=f"{share:.1%} of {total} voxels outside",
            advice="check that mask and brain mask are of one patient, one visit and one space",
        )
    return mask & brain, share


def check_visit_days(days: Sequence[float], *, file: PathLike | None) -> None:
    """Days must be finite, start at 0 (day 0 is the first visit) and increase, at most one visit a day."""
    for day in days:
        if not math.isfinite(day):
            raise InputError(file=file, required="a finite day for every visit", received=f"{day}", advice="mend `day`")
    if not days:
        raise InputError(file=file, required="at least one visit", received="none", advice="add an entry to `visits`")
    if days[0] != 0:
        raise InputError(
            file=file,
            required="day 0 at the first visit: days are counted from it",
            received=f"first visit on day {days[0]:g}",
            advice=f"subtract {days[0]:g} from every day of visits and treatments",
        )
    for earlier, later in zip(days, days[1:], strict=False):
        if math.floor(later) == math.floor(earlier):
            raise InputError(
                file=file,
                required="at most one visit a day",
                received=f"two visits on day {math.floor(later)}",
                advice="put the files of one day into one visit",
            )
        if later < earlier:
            raise InputError(
                file=file,
                required="visits in time order",
                received=f"day {later:g} after day {earlier:g}",
                advice="sort the visits, and check the days",
            )


def check_first_visit(scan: Scan, *, file: PathLike | None) -> None:
    """The first visit must show the tumor in at least one channel (later, an empty mask is an observation)."""
    if scan.masks and any(mask.any() for mask in scan.masks.values()):
        return
    channels = ", ".join(scan.masks) or "no channel at all"
    raise InputError(
        file=file,
        required="tumor in at least one mask at the first visit",
        received=f"every mask empty ({channels})",
        advice="the twin starts from the first visible tumor: make that scan the first visit",
    )


def check_doses(what: str, times: Sequence[float], doses: Sequence[float], *, file: PathLike | None) -> None:
    """One dose a time; finite; times from day 0 on and strictly increasing; doses not negative."""
    if len(times) != len(doses):
        raise InputError(
            file=file,
            required=f"{what}: one dose a day listed",
            received=f"{len(times)} days and {len(doses)} doses",
            advice="give `doses` as one number, or as a list as long as `days`",
        )
    for time, dose in zip(times, doses, strict=True):
        if not (math.isfinite(time) and math.isfinite(dose)):
            raise InputError(
                file=file,
                required=f"{what}: finite days and doses",
                received=f"dose {dose} on day {time}",
                advice="mend the entry",
            )
        if time < 0:
            raise InputError(
                file=file,
                required=f"{what}: no dose before the first scan (day 0)",
                received=f"a dose on day {time:g}",
                advice="the first mask already shows the effect of earlier treatment: leave those doses out",
            )
        if dose < 0:
            raise InputError(
                file=file,
                required=f"{what}: doses of 0 or more",
                received=f"dose {dose:g} on day {time:g}",
                advice="check the sign; leave an omitted dose out or write 0",
            )
    for earlier, later in zip(times, times[1:], strict=False):
        if later <= earlier:
            raise InputError(
                file=file,
                required=f"{what}: days in increasing order",
                received=f"day {later:g} after day {earlier:g}",
                advice="sort the days; two fractions on one day differ in the decimals (10.0 and 10.25)",
            )


def check_fractions(fields: Mapping[str, np.ndarray], domain: np.ndarray, *, file: PathLike | None) -> None:
    """Tissue fractions must add up to something in (0, 1] wherever tumor may live."""
    total = sum(fields.values())
    if not isinstance(total, np.ndarray) or not domain.any():
        raise InputError(
            file=file,
            required="tissue in which tumor can live",
            received="an empty domain: no voxel is both tissue and brain",
            advice="check that tissue and brain mask are in one space",
        )
    if float(total.max()) > 1.0 + 1e-3:
        raise InputError(
            file=file,
            required="tissue fractions that add up to at most 1 in every voxel",
            received=f"a sum of {float(total.max()):.4g}",
            advice="give probabilities of one segmentation, or label masks that do not overlap",
        )
