"""Two real glioblastomas after chemoradiation: would the first scan have told where the tumor is at the second?

`tumortwin reproduce glioma_progression [data.root=DIR]`. One earlier scan cannot identify growth, so the forecast rests on
the prior; the bar is dilation by a prior radius. The numbers are printed as they are, better or worse.
"""

from omegaconf import DictConfig, OmegaConf

from experiments.glioma_atlas.study import one_patient, values
from tumortwin.runs import Run, Verdict, measured

BASELINES = ("persistence", "dilation", "exponential_growth")


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Each patient with images and an interval: the twin beside every baseline."""
    patients = [str(name) for name in config.patient.interval]
    verdicts: list[Verdict] = []
    for name in patients[:1] if config.runtime.quick else patients:
        chosen = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
        chosen.patient.id = name
        with run.progress.task(name):
            rows = values(one_patient(chosen, run, int(config.seed), run.path("patients", f"{name}.json")))  # type: ignore[arg-type]
        verdicts += patient_verdicts(name, rows)
    return verdicts


def patient_verdicts(name: str, rows: dict[str, float]) -> list[Verdict]:
    """Facts of the registration, reliability, and every score of one patient."""
    found = [measured(f"{name}_{k.removeprefix('fact.')}", v) for k, v in rows.items() if k.startswith("fact.")]
    found.append(measured(f"{name}_k_hat", rows["diagnostics.k_hat"]))
    found.append(measured(f"{name}_ess", rows["diagnostics.ess"]))
    scored = [k for k in rows if k.startswith("forecast.t1gd.day")]
    for key in scored:
        who, metric = key.split(".")[-2:]
        if metric in ("dice", "hd95", "crps", "volume", "covered", "volume_median", "volume_low", "volume_high"):
            unit = {"hd95": "mm", "crps": "mm^3", "volume": "mm^3"}.get(metric, "1")
            found.append(measured(f"{name}_{who}_{metric}", rows[key], unit))
    return found
