"""A real low-grade glioma with one scan: what a single visit identifies, and how far the tumor may reach.

`tumortwin reproduce glioma_tcga [data.root=DIR] [patient.id=ID]`. There is no second scan, so nothing here is scored:
the numbers are printed as they are.
"""

import numpy as np
from omegaconf import DictConfig

from tumortwin.cli_files import stored_posterior
from tumortwin.cli_scans import prepare, run_twin
from tumortwin.io import read_forecast
from tumortwin.runs import Run, Verdict, at_least, at_most, measured

DIFFUSIVITY, RATE, AGE = "mechanisms.diffusion.white_matter", "mechanisms.proliferation.rate", "initial.age"


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The whole twin, and what it says beyond the visible edge."""
    run_twin(config, run)
    setting = prepare(config, run)
    posterior = stored_posterior(run.source("posterior.zarr"))
    facts = [measured(f"fact_{name}", value) for name, value in setting.case.patient.facts.items()]
    return [
        *facts,
        at_most("k_hat", posterior.diagnostics["k_hat"], 0.7),
        at_least("ess", posterior.diagnostics["ess"], 400.0),
        *identified(posterior.draws, posterior.prior_draws, posterior.weights),
        *reach(run, setting),
    ]


def identified(draws: dict, prior: dict, weights: np.ndarray) -> list[Verdict]:
    """Spread (sd of the logarithm) of D, rho, age and of D/rho: posterior over prior."""
    logs = {name: np.log(draws[path]) for name, path in (("D", DIFFUSIVITY), ("rho", RATE), ("age", AGE))}
    before = {name: np.log(prior[path]) for name, path in (("D", DIFFUSIVITY), ("rho", RATE), ("age", AGE))}
    for pair in (logs, before):
        pair["D_over_rho"] = pair["D"] - pair["rho"]
        pair["rho_age"] = pair["rho"] + pair["age"]
    found = []
    for name in logs:
        mean = (weights * logs[name]).sum()
        sd = float(np.sqrt((weights * (logs[name] - mean) ** 2).sum()))
        found.append(measured(f"log_sd_share_{name}", sd / before[name].std(), "1"))
    return found


def reach(run: Run, setting) -> list[Verdict]:
    """Volume where tumor is likely although nothing is visible, on the day of the scan."""
    days, _, maps, attrs = read_forecast(run.source("forecast.zarr"))
    row = int(np.flatnonzero(days == 0.0)[0])
    frame, patient = setting.twin.frame, setting.case.patient
    outline = next(m for c, m in sorted(patient.scans[0].masks.items()) if c == "flair")
    outside = frame.coarse(outline.astype(np.float32)) < 0.5
    cell = frame.grid.cell_volume
    density = maps["map_mean"][row]
    visible = float(outline.sum()) * patient.grid.cell_volume
    beyond = float(density[outside].sum()) * cell
    found = [measured("visible_volume", visible, "mm^3"), measured("tumor_mass_beyond_edge", beyond, "mm^3")]
    for level in (0.01, 0.05, 0.16):
        volume = float((outside & (density > level)).sum()) * cell
        found.append(measured(f"volume_beyond_edge_density_over_{level:g}", volume, "mm^3"))
    predicted = maps["map_p_tumor"][row] >= 0.5
    overlap = 2.0 * float((predicted & ~outside).sum()) / float(predicted.sum() + (~outside).sum())
    return [*found, measured("fit_dice_flair", overlap)]
