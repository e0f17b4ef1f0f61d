"""A user's own patient: a folder of NIfTI files and a patient.yaml (docs/use/own-patient.md)."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from tumortwin._errors import InputError
from tumortwin.geometry import Grid
from tumortwin.io import _patient_yaml as words
from tumortwin.io._checks import check_first_visit, check_visit_days, clip_to_brain, on_grid
from tumortwin.io._resample import Interpolation
from tumortwin.io._tissue import atlas_fractions, homogeneous_tissue, inside, tissue_from_fractions
from tumortwin.io._treatments import read_treatments
from tumortwin.io._volume import VolumeKind, read_volume
from tumortwin.twin import Patient, Scan

CHANNELS = ("t1gd", "flair")


def load_folder_patient(path: str | os.PathLike[str]) -> Patient:
    """The patient of `path`/patient.yaml, on the grid of its brain mask.

    Every file must lie inside the folder and share the brain mask's shape and affine, unless `resample: true`. Masks
    are clipped to the brain (the share lost is in `facts`). The domain knows the first visit's tumor only.

    **Raises:** `InputError` for anything wrong with the YAML, a file, or the files together.
    """
    folder = Path(path)
    file = folder / words.FILE
    entry = words.read_yaml(file)
    words.mapping(entry, words.FILE, words.PATIENT_KEYS, file, required=("id", "brain", "tissue", "visits"))
    room = _Folder(folder, file, words.flag(entry.get("resample", False), "resample", file))
    brain_volume = read_volume(inside(folder, entry["brain"], file=file, key="brain"), kind="mask")
    brain, grid = brain_volume.array, brain_volume.grid
    scans, facts = _visits(entry["visits"], room, grid, brain)
    check_first_visit(scans[0], file=file)
    tumor = np.any(list(scans[0].masks.values()), axis=0)
    tissue, domain, assumptions, tissue_facts = _tissue(entry["tissue"], room, grid, brain, tumor)
    facts |= tissue_facts
    anatomy = tissue["white_matter"] + 0.5 * brain
    if "anatomy" in entry:
        anatomy = room.read(entry["anatomy"], "anatomy", grid, "structural")
    schedule = read_treatments(
        entry.get("treatments"), file, lambda name, key: room.read(name, key, grid, "mask", clip=brain)
    )
    told = [words.text(a, "assumptions", file) for a in words.items(entry.get("assumptions", []), "assumptions", file)]
    return Patient(
        id=words.text(entry["id"], "id", file),
        grid=grid,
        brain=brain,
        domain=domain,
        tissue=tissue,
        anatomy=anatomy,
        scans=scans,
        schedule=schedule,
        assumptions=(*told, *assumptions, *_outside(facts)),
        facts=facts,
        source=words.text(entry.get("source", "own data"), "source", file),
    )


@dataclasses.dataclass(frozen=True)
class _Folder:
    """Reads files of one patient's folder onto one grid."""

    folder: Path
    file: Path
    resample: bool

    def read(
        self,
        name: Any,
        key: str,
        grid: Grid,
        kind: VolumeKind,
        *,
        adc_unit: str | None = None,
        clip: np.ndarray | None = None,
    ) -> np.ndarray:
        path = inside(self.folder, name, file=self.file, key=key)
        volume = read_volume(path, kind=kind, adc_unit=adc_unit)
        how: Interpolation = "nearest" if kind in ("mask", "labels") else "linear"
        array = on_grid(volume, grid, interpolation=how, resample=self.resample)
        return array if clip is None else clip_to_brain(array, clip, file=path, what="the mask")[0]


def _visits(value: Any, room: _Folder, grid: Grid, brain: np.ndarray) -> tuple[tuple[Scan, ...], dict[str, float]]:
    file, facts = room.file, {}
    entries = [
        words.mapping(v, f"visits[{i}]", words.VISIT_KEYS, file, required=("day",))
        for i, v in enumerate(words.items(value, "visits", file))
    ]
    days = [words.number(v["day"], f"visits[{i}].day", file) for i, v in enumerate(entries)]
    check_visit_days(days, file=file)
    scans = []
    for i, (day, entry) in enumerate(zip(days, entries, strict=True)):
        here = f"visits[{i}]"
        masks = {}
        for channel, name in _channels(entry.get("masks"), f"{here}.masks", file).items():
            key = f"{here}.masks.{channel}"
            mask = room.read(name, key, grid, "mask")
            masks[channel], share = clip_to_brain(
                mask, brain, file=inside(room.folder, name, file=file, key=key), what=f"the mask {channel!r}"
            )
            if share > 0:
                facts[f"outside_brain_{channel}_day_{day:g}"] = share
        scans.append(_with_adc(Scan(day, masks), entry, here, room, grid, brain))
    return tuple(scans), facts


def _channels(value: Any, where: str, file: Path) -> dict[str, Any]:
    if value is None:
        return {}
    named = words.mapping(value, where, tuple(value) if isinstance(value, dict) else (), file)
    for channel in named:
        if not isinstance(channel, str) or not channel.isidentifier():
            raise words.wrong_type(where, "channel names of letters, digits and _ (t1gd, flair)", channel, file)
        if channel not in CHANNELS:
            raise InputError(
                file=file,
                required=f"{where}: the channels {' and '.join(CHANNELS)}, for which there are observation models",
                received=repr(channel),
                advice="call contrast-enhancing tumor t1gd and the FLAIR abnormality flair; leave other masks out",
            )
    return named


def _with_adc(scan: Scan, entry: dict[str, Any], here: str, room: _Folder, grid: Grid, brain: np.ndarray) -> Scan:
    """The scan with its ADC [1e-3 mm^2/s], valid where it is above 0 in the brain and inside the `adc_valid` mask.

    Without that mask the visit's own outline takes its place: normal brain (0.7-0.9) reads like the densest tumor.
    """
    if "adc" not in entry:
        return scan
    words.mapping(entry, here, words.VISIT_KEYS, room.file, required=("adc_unit",))
    unit = words.text(entry["adc_unit"], f"{here}.adc_unit", room.file)
    adc = room.read(entry["adc"], f"{here}.adc", grid, "adc", adc_unit=unit)
    if "adc_valid" in entry:
        counts = room.read(entry["adc_valid"], f"{here}.adc_valid", grid, "mask").astype(bool)
    elif scan.outline is not None:
        counts = scan.outline
    else:
        raise InputError(
            file=room.file,
            required=f"where the ADC of {here} tells of the tumor: a flair or t1gd mask of that visit, or `adc_valid`",
            received=f"`adc` with {', '.join(scan.masks) or 'no mask'}",
            advice="add the visit's outline to `masks`, or `adc_valid: FILE` (normal brain has the ADC of dense tumor)",
        )
    return dataclasses.replace(scan, adc=adc, adc_valid=counts & brain & (adc > 0))


def _tissue(
    value: Any, room: _Folder, grid: Grid, brain: np.ndarray, tumor: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[str, ...], dict[str, float]]:
    if value == "homogeneous":
        return *homogeneous_tissue(brain), {}
    facts: dict[str, float] = {}
    assumptions: tuple[str, ...] = ()
    if value == "atlas":
        fields, facts = atlas_fractions(grid, brain, file=room.file)
        assumptions = ("Tissue is the ICBM152 atlas through the affines, not this patient's own.",)
    elif isinstance(value, dict):
        named = words.mapping(value, "tissue", words.TISSUE_KEYS, room.file, required=("white_matter",))
        fields = {k: room.read(v, f"tissue.{k}", grid, "probability") for k, v in named.items()}
    else:
        raise words.wrong_type(
            "tissue", "`homogeneous`, `atlas`, or files white_matter and gray_matter", value, room.file
        )
    tissue, domain, found = tissue_from_fractions(fields, brain, tumor, file=room.file)
    share = found["tumor_share_outside_tissue"]
    if share > 0:
        assumptions += (f"{share:.1%} of the first tumor lies outside the tissue maps and counts as white matter.",)
    return tissue, domain, assumptions, facts | found


def _outside(facts: dict[str, float]) -> tuple[str, ...]:
    worst = max((v for k, v in facts.items() if k.startswith("outside_brain_")), default=0.0)
    return () if worst == 0 else (f"Mask voxels outside the brain mask were dropped (at most {worst:.1%} of a mask).",)
