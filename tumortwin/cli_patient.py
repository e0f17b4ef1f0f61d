"""From the configuration to a patient: the three public ones and a user's own folder."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from tumortwin._errors import InputError
from tumortwin.config import ConfigError, instantiate, unknown
from tumortwin.inference import Problem
from tumortwin.io import (
    atlas_files,
    atlas_tissue,
    check_doses,
    find_data_root,
    load_folder_patient,
    load_gbm_progression,
    load_tcga_lgg,
    sri24_labels,
)
from tumortwin.treatments import Course, Schedule, weekday_fractions
from tumortwin.twin import GliomaSettings, Patient, Scan, VirtualTumor, virtual_patient


@dataclasses.dataclass(frozen=True)
class Case:
    """A patient, and which scans the twin may not see. `known` is the patient without them."""

    patient: Patient
    known: Patient
    hidden: tuple[Scan, ...]


def load_case(config: DictConfig, key: Any) -> Case:
    """The patient of a configuration. `key` draws a virtual tumor; real patients ignore it."""
    planned_treatment(config)  # a mistake there is said before anything is read
    patient = instantiate(config.patient.loader, where="patient.loader", _partial_=True)(config=config, key=key)
    until = config.patient.known_until
    known = patient if until is None else patient.until(float(until))
    if not known.scans:
        raise InputError(
            file=None,
            required="at least one scan up to patient.known_until",
            received=f"known_until {until} and visits on days {[s.day for s in patient.scans]}",
            advice="patient.known_until=null uses every scan",
        )
    hidden = tuple(scan for scan in patient.scans if scan.day > known.scans[-1].day)
    return Case(patient, known, hidden)


def planned_treatment(config: DictConfig) -> Schedule:
    """The schedule of `treatment=...`: fractions on weekdays and a daily drug from the same day.

    **Raises:** `ConfigError` for a negative number of fractions or days, `InputError` for a dose that is negative or
    before the first scan, as in a patient's own folder.
    """
    t = config.treatment
    fractions, drug_days = int(t.fractions), int(t.drug_days)
    if fractions < 0 or drug_days < 0:
        raise ConfigError(
            "required: treatment.fractions and treatment.drug_days of 0 or more\n"
            f"received: {fractions} and {drug_days}\ntry:      treatment=none"
        )
    days = [float(t.start) + i for i in range(drug_days)]
    check_doses("treatment (drug)", days, [float(t.drug_dose)] * drug_days, file=None)
    if fractions:
        check_doses("treatment (radiotherapy)", [float(t.start)], [float(t.dose)], file=None)
    drugs = {"temozolomide": Course(jnp.asarray(days), jnp.full(drug_days, float(t.drug_dose)))} if drug_days else {}
    return Schedule(weekday_fractions(float(t.start), fractions, float(t.dose)) if fractions else None, drugs)


def virtual_tumor(values: Mapping[str, Any]) -> VirtualTumor:
    """What a virtual tumor is drawn from, as the configuration says; `ConfigError` for a name that is not there."""
    names = [field.name for field in dataclasses.fields(VirtualTumor)]
    for name in values:
        if name not in names:
            raise unknown("quantity of the virtual tumor", name, names)
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, Sequence) else float(v) for k, v in values.items()}
    return VirtualTumor(**given)


def atlas_glioma(
    *, days: Sequence[float], tumor: Mapping[str, Any], config: DictConfig, key: Any, schedule: Schedule | None = None
) -> Patient:
    """A virtual tumor on the ICBM152 anatomy, under a `schedule` (none: that of `treatment=...`)."""
    atlas = atlas_tissue(1.0)
    o = config.observation
    return virtual_patient(
        str(config.patient.id),
        atlas.grid,
        atlas.brain,
        atlas.domain,
        atlas.tissue,
        atlas.t1,
        days=days,
        schedule=planned_treatment(config) if schedule is None else schedule,
        tumor=virtual_tumor(tumor),
        adc_water=float(o.adc_water),
        adc_tumor=float(o.adc_tumor),
        source="ICBM152 2009a template (nilearn package), tumor simulated",
        key=key,
    )


def tcga_lgg(*, folder: str, config: DictConfig, key: Any) -> Patient:
    """The public low-grade glioma with one visit."""
    del key
    patient_id = config.patient.id
    root = find_data_root(config.data.root)
    return load_tcga_lgg(root, None if patient_id is None else str(patient_id), folder=folder)


def gbm_progression(
    *,
    folder: str,
    id: str,
    intervals: Mapping[str, float],
    voxel_size: Sequence[float],
    config: DictConfig,
    key: Any,
) -> Patient:
    """A public glioblastoma with two visits."""
    del key
    if id not in intervals:
        raise InputError(
            file=None,
            required=f"the interval between the two visits of patient {id} [day]",
            received=f"intervals of {', '.join(sorted(intervals))}",
            advice=f"+patient.interval.{id}=DAYS",
        )
    x, y, z = (float(v) for v in voxel_size)
    return load_gbm_progression(
        find_data_root(config.data.root), id, float(intervals[id]), voxel_size=(x, y, z), folder=folder
    )


def folder(*, path: str, config: DictConfig, key: Any) -> Patient:
    """A user's own patient."""
    del config, key
    return load_folder_patient(Path(path))


def start_of(config: DictConfig, patient: Patient) -> str:
    """`contours` or `seed`: what the simulation of this patient starts from."""
    chosen = str(config.patient.start)
    return ("contours" if len(patient.scans) > 1 else "seed") if chosen == "auto" else chosen


def data_files(config: DictConfig) -> list[Path]:
    """The files a run reads, for its identity: the patient's own and the atlas that gives the tissue.

    A user's folder is taken as it is written (its loader says so when it is not there); the folders of public data lie
    inside the data root, which may also be the folder itself.
    """
    loader = str(config.patient.loader["_target_"]).rpartition(".")[2]
    if loader == "atlas_glioma":
        return atlas_files()
    if loader == "folder":
        return [*_scans(Path(config.patient.path).rglob("*")), *atlas_files()]
    root = find_data_root(config.data.root)
    place = root / config.patient.path
    found = _scans(place.rglob("*") if place.is_dir() else root.glob("*"))
    return [*found, sri24_labels(root)] if loader == "tcga_lgg" else found


def _scans(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.is_file() and p.name.endswith((".nii", ".nii.gz", ".yaml", ".yml")))


def glioma_settings(config: DictConfig, start: str) -> GliomaSettings:
    """The fixed numbers of the imaging twin; `start` of the simulation as in `start_of`."""
    return GliomaSettings(
        gray_ratio=float(config.cancer.gray_ratio),
        alpha_beta=float(config.cancer.alpha_beta),
        elimination_rate=float(config.cancer.elimination_rate),
        adc_water=float(config.observation.adc_water),
        adc_tumor=float(config.observation.adc_tumor),
        voxel_weight=float(config.observation.voxel_weight),
        start=start,
        front_correction=bool(config.geometry.front_correction),
        pattern_modes=int(config.cancer.pattern_modes),
        pattern_length=float(config.cancer.pattern_length),
        pattern_spread=float(config.cancer.pattern_spread),
    )


def prior_medians(problem: Problem) -> dict[str, np.ndarray]:
    """The median of every parameter's prior, those included that no datum speaks of."""
    priors = [problem.prior, *([] if problem.unlearned is None else [problem.unlearned])]
    return {path: np.asarray(value) for prior in priors for path, value in prior.quantile(0.5).items()}
