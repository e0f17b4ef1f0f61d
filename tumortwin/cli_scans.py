"""The stages of one patient with scans: they join io, twin and report. The contract is in `cli_stages`."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from tumortwin.cli_files import (
    LEVELS,
    Checkpoints,
    failed_checks,
    keep_posterior,
    posterior_rows,
    row_of,
    stored_posterior,
)
from tumortwin.cli_front import front_rows
from tumortwin.cli_patient import (
    Case,
    data_files,
    glioma_settings,
    load_case,
    planned_treatment,
    prior_medians,
    start_of,
)
from tumortwin.cli_plan import Choice, choice_of, recommended
from tumortwin.cli_report import in_words, report_data
from tumortwin.cli_train import run_train
from tumortwin.config import ConfigError, flatten, instantiate
from tumortwin.inference import Posterior, Problem, calibrate
from tumortwin.io import (
    bids_name,
    write_dataset_description,
    write_forecast,
    write_volume,
)
from tumortwin.metrics import quantile
from tumortwin.models import (
    ContourProfile,
    Diffusion,
    DrugResponse,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.params import parameter_units
from tumortwin.report import answer, write_report
from tumortwin.runs import Run, release_memory
from tumortwin.solvers import StrangRKL2
from tumortwin.treatments import Schedule
from tumortwin.twin import (
    Forecast,
    Twin,
    dropped_paths,
    forecast,
    on_frame,
    replay_cases,
    replay_scores,
    time_error,
    truth_entries,
)

__all__ = [
    "CITED",
    "data_files",
    "run_calibrate",
    "run_forecast",
    "run_recommend",
    "run_report",
    "run_simulate",
    "run_train",
    "run_twin",
]

_DAYS_BETWEEN = 15.0

CITED = (
    Diffusion,
    LogisticProliferation,
    RadiotherapyResponse,
    DrugResponse,
    ReactionDiffusion,
    StrangRKL2,
    ContourProfile,
)
"""What every imaging twin is made of, beyond what its configuration names: for `tumortwin cite`."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every stage needs: the case, the twin of what is known, its problem, and what may be planned."""

    case: Case
    twin: Twin
    problem: Problem
    dropped: Mapping[str, str]
    choice: Choice | str


def prepare(config: DictConfig, run: Run) -> Setting:
    """Reads the patient and builds the twin's calibration problem."""
    with run.progress.task("patient"):
        case = load_case(config, run.key("patient"))
        choice = choice_of(config, case)
        map_days(config, case, forecast_days(config, case))  # refused here, before anything long begins
        prior = instantiate(flatten(config.prior), where="prior")
        settings = glioma_settings(config, start_of(config, case.known))
        twin = Twin.of(
            case.known,
            instantiate(config.solver, where="solver"),
            prior,
            settings,
            spacing=float(config.geometry.spacing),
            margin=float(config.geometry.margin),
            bucket=int(config.geometry.bucket),
        )
        return Setting(case, twin, twin.problem(), dropped_paths(case.known, settings, prior, twin.frame), choice)


# --- stages ---


def calibrated(config: DictConfig, run: Run, setting: Setting, *, here: bool) -> Posterior:
    """The posterior: calibrated in this run, or read from this run or the one it starts from."""
    if here:
        with run.stage("calibrate", outputs=["posterior.zarr"]) as stage:
            if stage.needed:
                calibrator = instantiate(config.calibrator, where="calibrator")
                with run.progress.task("posterior") as bar:
                    posterior = calibrate(
                        setting.problem,
                        calibrator,
                        key=run.key("calibrate"),
                        progress=lambda name, done, total: bar.update(done, total),
                        checkpoint=Checkpoints(run),
                    )
                _keep_posterior(run, setting, posterior)
    return stored_posterior(run.source("posterior.zarr"))


def _keep_posterior(run: Run, setting: Setting, posterior: Posterior) -> None:
    known = parameter_units(setting.problem.model) | {
        f"observation.{c}.{path}": unit
        for c, o in setting.problem.observations.items()
        for path, unit in parameter_units(o).items()
    }
    units = {path: known.get(path, "1") for path in posterior.draws}
    dropped = setting.dropped
    keep_posterior(run, posterior, model="ReactionDiffusion", units=units, info=posterior.info, dropped=dropped)


def forecast_days(config: DictConfig, case: Case) -> list[float]:
    """The days of a forecast: those of the configuration, the visits, and `horizon` after the last known one."""
    given = config.patient.forecast_days
    visits = {scan.day for scan in case.patient.scans}
    if given is not None:
        return sorted({float(d) for d in given} | visits)
    end = max(case.known.scans[-1].day + float(config.horizon), *visits, _DAYS_BETWEEN)
    return sorted(set(np.arange(0.0, end + 1e-9, _DAYS_BETWEEN).tolist()) | visits | {end})


def map_days(config: DictConfig, case: Case, days: Sequence[float]) -> list[float]:
    """The days whose maps are kept.

    **Raises:** `ConfigError` for a day that is not forecast.
    """
    if config.patient.map_days is not None:
        wanted = sorted({float(d) for d in config.patient.map_days})
        if not wanted or not set(wanted) <= set(days):
            raise ConfigError(
                "required: patient.map_days, days that are forecast\n"
                f"received: {[d for d in wanted if d not in days] or 'no day'}\n"
                f"try:      some of {', '.join(f'{d:g}' for d in days)}, or add it to patient.forecast_days"
            )
        return wanted
    return [scan.day for scan in case.hidden] or [days[-1]]


def forecasted(config: DictConfig, run: Run, setting: Setting, posterior: Posterior) -> None:
    """forecast.zarr, maps as NIfTI, and the scores of the hidden scans."""
    outputs = ["forecast.zarr", "derivatives", "scores.json"]
    with run.stage("forecast", outputs=outputs) as stage:
        if not stage.needed:
            return
        days = forecast_days(config, setting.case)
        with run.progress.task("forecast") as bar:
            found = forecast(
                setting.problem,
                posterior,
                days,
                n_draws=int(config.draws),
                progress=lambda name, done, total: bar.update(done, total),
                key=run.key("forecast"),
            )
        kept = map_days(config, setting.case, days)
        _keep_forecast(run, setting, found, kept)
        with run.progress.task("scores"):
            entries = _scores(config, setting, posterior, found) + _time_errors(setting, found, kept)
        _keep_derivatives(run, setting, found, kept)
        run.write_json("scores.json", entries)


def _time_errors(setting: Setting, found: Forecast, kept: Sequence[float]) -> list[dict[str, Any]]:
    """How far the time step leaves the density off on the days whose maps are kept, at the first draw."""
    values = {path: jnp.asarray(value[0]) for path, value in found.draws.items()}
    errors = np.asarray(time_error(setting.problem, values, tuple(kept)))
    return [row_of(f"forecast.time_error.day{day:g}", error, "1") for day, error in zip(kept, errors, strict=True)]


def _keep_forecast(run: Run, setting: Setting, found: Forecast, kept: Sequence[float]) -> None:
    rows = [found.days.index(day) for day in found.days]
    volumes = {f"volume_{c}": v for c, v in found.volume.items()}
    volumes |= {f"volume_{c}_outlined": v for c, v in found.outlined.items()}
    volumes |= {f"volume_{c}_predictive": v for c, v in found.predictive.items()}
    volumes["volume_tumor_mass"] = found.mass
    maps = {"map_mean": found.mean[rows], "map_sd": found.sd[rows], "map_p_tumor": found.p_tumor[rows]}
    maps |= {f"map_p_{c}": v[rows] for c, v in found.p_channels.items()}
    attrs = {
        "affine": setting.twin.frame.grid.affine_array.tolist(),
        "origin_day": setting.case.known.scans[-1].day,
        "map_days": list(kept),
        "extent_channel": found.extent_channel,
        "draws": {path: np.asarray(value).tolist() for path, value in found.draws.items() if value.ndim == 1},
    }
    write_forecast(run.path("forecast.zarr"), found.days, volumes, maps, attrs)


def _keep_derivatives(run: Run, setting: Setting, found: Forecast, kept: Sequence[float]) -> None:
    """Mean, sd and P(tumor) on the patient's own grid, in BIDS-derivative names."""
    patient, frame = setting.case.patient, setting.twin.frame
    subject = "".join(ch for ch in patient.id if ch.isascii() and ch.isalnum()) or "patient"
    with run.writing("derivatives") as folder:
        folder.mkdir()
        write_dataset_description(folder, name=f"tumortwin forecast of {patient.id}", sources=[patient.source])
        for day in kept:
            i = found.days.index(day)
            fields = {"mean": found.mean[i], "std": found.sd[i], "ptumor": found.p_tumor[i]}
            for stat, field in fields.items():
                entities = {"sub": subject, "desc": f"forecastD{_day_label(day)}", "stat": stat}
                target = folder / bids_name(entities, "map")
                target.parent.mkdir(parents=True, exist_ok=True)
                write_volume(target, frame.fine(field), patient.grid, description=f"{stat} on day {day:g}")


def _day_label(day: float) -> str:
    """`030` of day 30, `030p5` of day 30.5: letters and digits, another for every day."""
    whole, _, rest = f"{day:.6f}".rstrip("0").rstrip(".").partition(".")
    return f"{int(whole):03d}" + (f"p{rest}" if rest else "")


def _scores(config: DictConfig, setting: Setting, posterior: Posterior, found: Forecast) -> list[dict[str, Any]]:
    case, entries = setting.case, []
    if case.hidden:
        cases = replay_cases(
            case.known,
            case.hidden,
            setting.twin.frame,
            found,
            radial_velocity=float(config.patient.baseline.radial_velocity),
            doubling_time=float(config.patient.baseline.doubling_time),
        )
        entries += replay_scores(cases, case.patient)
    return entries + truth_entries(case.patient, truth_intervals(posterior, found))


TRUTH_PATHS = {
    "diffusivity": "mechanisms.diffusion.white_matter",
    "rate": "mechanisms.proliferation.rate",
    "alpha": "mechanisms.radiotherapy.alpha",
    "sensitivity": "mechanisms.chemotherapy.sensitivity",
    "flair_threshold": "observation.flair.threshold",
    "t1gd_threshold": "observation.t1gd.threshold",
}


def truth_intervals(posterior: Posterior, found: Forecast) -> dict[str, tuple[float, float, float]]:
    """95 % intervals (low, median, high) by the names of a virtual patient's truths; volumes are latent ones."""
    levels = tuple(LEVELS.values())
    intervals: dict[str, tuple[float, float, float]] = {}
    for name, path in TRUTH_PATHS.items():
        if path in posterior.draws:
            low, mid, high = (float(posterior.quantile(path, q)) for q in levels)
            intervals[name] = (low, mid, high)
    # The truth of a rate that varies within the tumor is its mean over the tumor mass of the first day.
    low, mid, high = (float(v) for v in quantile(found.growth_rate[:, 0], np.asarray(levels)))
    intervals["rate"] = (low, mid, high)
    for channel, volume in found.volume.items():
        for i, day in enumerate(found.days):
            low, mid, high = (float(v) for v in quantile(volume[:, i], np.asarray(levels)))
            intervals[f"volume_{channel}_{day:g}"] = (low, mid, high)
    return intervals


# --- verbs ---


def _results(run: Run, posterior: Posterior) -> None:
    rows = posterior_rows(posterior, posterior.draws)
    if (run.directory / "scores.json").is_file():
        rows += json.loads((run.directory / "scores.json").read_text())
    if (run.directory / "plan.json").is_file():
        plan = json.loads((run.directory / "plan.json").read_text())
        for name, entry in plan["comparison"].items():
            rows.append(row_of(f"plan.{name}", entry["value"], entry["unit"]))
        for name, entry in plan.get("equal_effect", {}).get("comparison", {}).items():
            rows.append(row_of(f"plan_equal_bed.{name}", entry["value"], entry["unit"]))
        rows.append(row_of("plan.path_gap", plan["path_gap"], "1"))
        rows += front_rows(plan, "plan")
    run.write_results(rows)


def _report(config: DictConfig, run: Run, setting: Setting) -> None:
    with run.stage("report", outputs=["report.html"]) as stage:
        if stage.needed:
            with run.progress.task("report"):
                refused = setting.choice if isinstance(setting.choice, str) else ""
                data = report_data(
                    config, run, setting.case, setting.twin.frame, dropped=setting.dropped, refused=refused
                )
                write_report(data, run.directory)
            run.say(answer(data).line)


def run_twin(config: DictConfig, run: Run) -> None:
    """Scans -> posterior -> forecast -> schedule -> report."""
    setting = prepare(config, run)
    release_memory(programs=True)
    posterior = calibrated(config, run, setting, here=True)
    for text in (posterior.statement, *failed_checks(posterior)):
        run.say(text)
    release_memory(programs=True)
    forecasted(config, run, setting, posterior)
    release_memory(programs=True)
    recommended(config, run, setting.case, setting.problem, posterior, setting.choice)
    release_memory(programs=True)
    _results(run, posterior)
    _report(config, run, setting)


def simulated_treatment(config: DictConfig, setting: Setting) -> Schedule:
    """The schedule of `treatment`, in place of what the patient was given; resections stay, on the model's grid."""
    given = on_frame(setting.case.known.schedule, setting.twin.frame)
    planned = planned_treatment(config)
    return Schedule(planned.radiotherapy, planned.drugs, given.resections)


def run_simulate(config: DictConfig, run: Run) -> None:
    """The model at the medians of the prior, forward in time under `treatment`: forecast.zarr of one draw."""
    setting = prepare(config, run)
    draws = {path: value[None, None] for path, value in prior_medians(setting.problem).items()}
    single = Posterior(draws, None, {}, "One simulation at the medians of the prior: nothing was learned from data.")
    schedule = simulated_treatment(config, setting)
    under = in_words(schedule, 0.0) or "no treatment"
    run.say(f"Simulated from the first scan at the medians of the prior, under {under}.")
    with run.stage("simulate", outputs=["forecast.zarr"]) as stage:
        if stage.needed:
            days = forecast_days(config, setting.case)
            key = run.key("simulate")
            found = forecast(setting.problem, single, days, n_draws=1, schedule=schedule, chunk=1, key=key)
            _keep_forecast(run, setting, found, map_days(config, setting.case, days))
            rows = [
                row_of(f"simulate.{c}.volume.day{d:g}", found.volume[c][0, i], "mm^3")
                for c in sorted(found.volume)
                for i, d in enumerate(found.days)
            ]
            run.write_results(rows)


def run_calibrate(config: DictConfig, run: Run) -> None:
    """Scans -> posterior."""
    posterior = calibrated(config, run, prepare(config, run), here=True)
    for text in (posterior.statement, *failed_checks(posterior)):
        run.say(text)
    _results(run, posterior)


def run_forecast(config: DictConfig, run: Run) -> None:
    """Posterior -> forecast."""
    run.source("posterior.zarr")  # missed here, before anything long begins
    setting = prepare(config, run)
    posterior = calibrated(config, run, setting, here=False)
    forecasted(config, run, setting, posterior)
    _results(run, posterior)


def run_recommend(config: DictConfig, run: Run) -> None:
    """Posterior -> schedule."""
    run.source("posterior.zarr")  # missed here, before anything long begins
    setting = prepare(config, run)
    posterior = calibrated(config, run, setting, here=False)
    recommended(config, run, setting.case, setting.problem, posterior, setting.choice)
    _results(run, posterior)


def run_report(config: DictConfig, run: Run) -> None:
    """Files -> report."""
    _report(config, run, prepare(config, run))
