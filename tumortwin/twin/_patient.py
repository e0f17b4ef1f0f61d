"""A patient as the twin sees one: anatomy, dated scans, treatment. Host arrays; knows no file format."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tumortwin.geometry import Grid
from tumortwin.treatments import Schedule


@dataclasses.dataclass(frozen=True)
class Scan:
    """One imaging visit on the patient's grid.

    `day` [day] since the first visit. `masks`: channel name (`t1gd`, `flair`) -> bool [x y z]; an absent channel was
    not acquired, an all-false mask is an observation of no tumor. `adc` [1e-3 mm^2/s] or None, NaN nowhere; `adc_valid`
    bool [x y z] says where the ADC tells of the tumor (None: inside `outline`). Normal brain has the ADC of dense
    tumor, so a map that counts beyond the outline would fill the brain with tumor.
    """

    day: float
    masks: Mapping[str, np.ndarray]
    adc: np.ndarray | None = None
    adc_valid: np.ndarray | None = None

    @property
    def outline(self) -> np.ndarray | None:
        """The visit's outermost outline: FLAIR, or the enhancing part where there is no FLAIR; None without either."""
        found = [self.masks[channel] for channel in ("flair", "t1gd") if channel in self.masks]
        return next((mask for mask in found if mask.any()), found[0] if found else None)

    def volume(self, channel: str, grid: Grid) -> float:
        """Volume of a mask [mm^3]."""
        return float(self.masks[channel].sum() * grid.cell_volume)


@dataclasses.dataclass(frozen=True)
class Patient:
    """Everything known about one patient, on one grid, in canonical units.

    `brain` bool: the patient's own brain mask. `tissue`: name -> fraction in [0, 1], zero outside the domain
    (`white_matter`, `gray_matter`); homogeneous tissue has `white_matter` = 1 in the domain. `domain` bool: where tumor
    may live. `anatomy`: gray-scale background for figures. `scans` in time order; `schedule` what was given.
    `assumptions`: sentences for the report, one for each thing assumed rather than measured. `truth`: for a virtual
    patient only, quantity -> value. `facts`: name -> number for results.json (such as share of tumor outside tissue).
    `channel_words`: what a channel outlines in this patient, where it is not what its name says.
    """

    id: str
    grid: Grid
    brain: np.ndarray
    domain: np.ndarray
    tissue: Mapping[str, np.ndarray]
    anatomy: np.ndarray
    scans: tuple[Scan, ...]
    schedule: Schedule
    assumptions: tuple[str, ...] = ()
    truth: Mapping[str, float] | None = None
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""
    channel_words: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def outlined(self) -> np.ndarray:
        """Every voxel that any channel outlines at any visit."""
        found = np.zeros(self.grid.shape, bool)
        for scan in self.scans:
            for mask in scan.masks.values():
                found |= mask
        return found

    def until(self, day: float) -> "Patient":
        """The same patient with every scan after `day` removed: what was known on that day."""
        return dataclasses.replace(self, scans=tuple(s for s in self.scans if s.day <= day))
