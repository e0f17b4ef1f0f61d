"""Two real glioblastomas after chemoradiation: would the first scan have told where the tumor is at the second?

`tumortwin reproduce glioma_progression [data.root=DIR]`. One earlier scan cannot identify growth, so the forecast rests
on the prior; the bar is dilation by a prior radius. The numbers are printed as they are, better or worse.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.glioma_atlas.study import one_patient, values
from tumortwin._errors import InputError
from tumortwin.io import find_data_root
from tumortwin.runs import Run, Verdict, measured

UNITS = {"dice": "1", "covered": "1", "hd95": "mm"}  # the others are volumes


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Each patient with images in the folder: the twin beside every baseline."""
    patients = with_images(find_data_root(config.data.root) / config.patient.path)
    verdicts: list[Verdict] = []
    for name in patients[:1] if config.runtime.quick else patients:
        chosen = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
        chosen.patient.id = name
        with run.progress.task(name):
            rows = values(one_patient(chosen, run, int(config.seed), run.path("patients", f"{name}.json")))  # type: ignore[arg-type]
        verdicts += patient_verdicts(name, rows)
    return verdicts


def with_images(folder: Path) -> list[str]:
    """The patients of a folder who have both scans and both masks."""
    parts = ("Pre_Scan_T1", "Post_Scan_T1", "Pre_Mask", "Post_Mask")
    names = sorted({p.name.split("_")[0] for p in folder.glob("p*_Pre_Mask.nii.gz")})
    found = [n for n in names if all((folder / f"{n}_{part}.nii.gz").is_file() for part in parts)]
    if not found:
        raise InputError(
            file=folder,
            required="a patient with p??_{Pre,Post}_{Scan_T1,Mask}.nii.gz",
            received=f"masks of {', '.join(names) or 'nobody'}, no complete patient",
            advice="data.root=DIR, the folder that holds gbm_brain_tumor_progression",
        )
    return found


def patient_verdicts(name: str, rows: dict[str, float]) -> list[Verdict]:
    """Facts of the registration, reliability, and every score of one patient."""
    found = [measured(f"{name}_{k.removeprefix('fact.')}", v) for k, v in rows.items() if k.startswith("fact.")]
    found.append(measured(f"{name}_k_hat", rows["diagnostics.k_hat"]))
    found.append(measured(f"{name}_ess", rows["diagnostics.ess"]))
    scored = [k for k in rows if k.startswith("forecast.t1gd.day")]
    for key in scored:
        who, metric = key.split(".")[-2:]
        if metric in (*UNITS, "crps", "volume", "volume_median", "volume_low", "volume_high"):
            unit = UNITS.get(metric, "mm^3")
            found.append(measured(f"{name}_{who}_{metric}", rows[key], unit))
    return found
