"""The stages of many subjects in a table: they join io, twin and report. The contract is in `cli_stages`."""

import csv
import dataclasses
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from tumortwin._errors import NotConverged
from tumortwin.cli_cohort_plan import plan_rows, recommended_for_subjects, subject_choice
from tumortwin.cli_cohort_report import cohort_report_data
from tumortwin.cli_cohort_scores import cohort_scores
from tumortwin.cli_files import LEVELS, Checkpoints, keep_posterior, posterior_rows, row_of, stored_posterior
from tumortwin.cli_table import DRUG, Cohort, last_known, load_cohort, problem_of, table_files, units_of
from tumortwin.config import ConfigError, config_dir, group_options, instantiate
from tumortwin.inference import (
    SUBJECT,
    LaplaceCalibrator,
    MapCalibrator,
    NutsCalibrator,
    PopulationProblem,
    Posterior,
    PsisCalibrator,
    calibrate,
    require_converged,
)
from tumortwin.io import write_curves
from tumortwin.metrics import quantile
from tumortwin.report import write_cohort_report
from tumortwin.runs import Run, read_json
from tumortwin.twin import forecast_cohort

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

CITED: tuple[type, ...] = (PopulationProblem,)
"""What every cohort is made of, beyond what its configuration names: for `tumortwin cite`."""

# What an interval of a forecast can bear; `reproduce` asks for 1.01, 400 and none.
LARGEST_R_HAT, LEAST_EFFECTIVE, MOST_DIVERGENT = 1.05, 100.0, 0.01
NEED_A_MODE = (MapCalibrator, LaplaceCalibrator, PsisCalibrator)
data_files = table_files


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What every stage needs: the subjects, and the problem that their known readings pose."""

    cohort: Cohort
    problem: PopulationProblem


def prepare(config: DictConfig, run: Run) -> Setting:
    """Reads the table, holds out what is to be forecast, builds the population's problem."""
    with run.progress.task("table"):
        seed = np.asarray(jax.random.key_data(run.key("cohort"))).tolist()
        cohort = load_cohort(config, np.random.default_rng(seed))
        for note in cohort.notes:
            run.log(note)
        return Setting(cohort, problem_of(config, cohort))


# --- stages ---


def calibrated(config: DictConfig, run: Run, setting: Setting, *, here: bool) -> Posterior:
    """The posterior of the population: calibrated in this run, or read from this run or the one it starts from.

    **Raises:** `NotConverged` for one that cannot be trusted.
    """
    if here:
        with run.stage("calibrate", outputs=["posterior.zarr"]) as stage:
            if stage.needed:
                with run.progress.task("calibrate") as bar:
                    posterior = _calibrate(config, run, setting, bar)
                _keep_posterior(run, setting, posterior)
    posterior = stored_posterior(run.source("posterior.zarr"))
    known = tuple(posterior.info["subjects"])
    if known != setting.cohort.subjects:
        raise ConfigError(
            f"required: the subjects that the posterior was calibrated to ({len(known)})\n"
            f"received: {len(setting.cohort.subjects)} others\ntry:      the table, split, cohort and seed of that run"
        )
    return require_converged(
        posterior,
        largest_r_hat=LARGEST_R_HAT,
        least_effective=LEAST_EFFECTIVE,
        most_divergences=MOST_DIVERGENT * posterior.weights.size,
    )


def _calibrate(config: DictConfig, run: Run, setting: Setting, bar: Any) -> Posterior:
    calibrator = instantiate(config.calibrator, where="calibrator")
    needs_mode = isinstance(calibrator, NutsCalibrator) and calibrator.laplace is not None
    if needs_mode or isinstance(calibrator, NEED_A_MODE):
        raise ConfigError(
            "required: a calibrator of populations, which have no useful mode\n"
            f"received: {type(calibrator).__name__}{' with a Laplace stage' if needs_mode else ''}\n"
            "try:      calibrator=nuts_population"
        )
    return calibrate(
        setting.problem,
        calibrator,
        key=run.key("calibrate"),
        progress=lambda name, done, total: bar.update(done, total),
        checkpoint=Checkpoints(run),
    )


def _keep_posterior(run: Run, setting: Setting, posterior: Posterior) -> None:
    info = {k: v for k, v in posterior.info.items() if k != "parameter_names"}
    keep_posterior(
        run,
        posterior,
        model=type(setting.problem.model).__name__,
        units=units_of(setting.problem, setting.cohort.unit),
        info={**info, "subjects": list(setting.cohort.subjects)},
        dropped={},
    )


def forecast_days(config: DictConfig, cohort: Cohort) -> tuple[np.ndarray, int]:
    """Days [subject, time] on each subject's own clock, and how many of the first are held-out readings (padded).

    The others draw its curve: even steps to the end, but for the day of the last known reading and that of the horizon,
    each in the place of the nearest.
    """
    rows, last = cohort.held.padded(cohort.quantity), last_known(cohort) - cohort.origin
    hidden = np.where(rows.valid, rows.times - cohort.origin[:, None], 0.0)
    ahead = last + float(config.horizon)
    end = np.maximum(ahead, np.max(hidden, axis=1, initial=0.0))
    grid = end[:, None] * np.linspace(0.0, 1.0, int(config.cohort.grid))[None]
    for wanted in (last, ahead) if grid.shape[1] > 2 else ():
        place = 1 + np.argmin(np.abs(grid[:, 1:-1] - wanted[:, None]), axis=1)
        grid[np.arange(len(grid)), place] = wanted
    return np.concatenate([hidden, grid], axis=1), hidden.shape[1]


def forecasted(config: DictConfig, run: Run, setting: Setting, posterior: Posterior) -> None:
    """forecast.zarr, forecast.csv, the scores and the card of the replay."""
    outputs = ["forecast.zarr", "forecast.csv", "scores.json", "subgroups.json", "card.json"]
    with run.stage("forecast", outputs=outputs) as stage:
        if not stage.needed:
            return
        cohort = setting.cohort
        days, hidden = forecast_days(config, cohort)
        with run.progress.task("forecast"):
            n_draws = int(config.draws)
            found = forecast_cohort(setting.problem, posterior, days, n_draws=n_draws, key=run.key("forecast"))
        if found.failed:
            run.say(f"{found.failed} of {n_draws} draws could not be solved and were left out of the forecast")
        _keep_forecast(run, cohort, found, hidden)
        with run.progress.task("scores"):
            scored = cohort_scores(config, cohort, found.predictive[:, :, :hidden], seed=int(config.seed))
        for note in scored.notes:
            run.say(note)
        run.write_text("forecast.csv", _forecast_csv(cohort, found.predictive[:, :, :hidden]))
        run.write_json("card.json", scored.card)
        run.write_json("subgroups.json", scored.subgroups)
        run.write_json("scores.json", scored.rows)


def _keep_forecast(run: Run, cohort: Cohort, found: Any, hidden: int) -> None:
    write_curves(
        run.path("forecast.zarr"),
        cohort.subjects,
        found.days + cohort.origin[:, None],
        {"curve": found.curve, "predictive": found.predictive},
        cohort.unit,
        {"hidden": hidden, "quantity": cohort.quantity, "failed": found.failed},
    )


def _forecast_csv(cohort: Cohort, predictive: np.ndarray) -> str:
    """One line a held-out reading: what was expected, and what was seen."""
    rows, text = cohort.held.padded(cohort.quantity), io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    heads = ["subject", "day", "step", "low", "median", "high", "observed", "observed_lower", "observed_upper", "unit"]
    table.writerow(heads)
    for s, name in enumerate(cohort.subjects):
        for k in np.flatnonzero(rows.valid[s]):
            ends = [f"{v:.6g}" for v in quantile(predictive[:, s, k], np.asarray([*LEVELS.values()]))]
            seen = [f"{v[s, k]:.6g}" for v in (rows.values, rows.lower, rows.upper)]
            table.writerow([name, f"{rows.times[s, k]:g}", k + 1, *ends, *seen, rows.unit])
    return text.getvalue()


# --- verbs ---


def _results(run: Run, posterior: Posterior) -> None:
    """Diagnostics and the population (subjects are in posterior.zarr and forecast.csv), then the scores."""
    rows = posterior_rows(posterior, [path for path in posterior.draws if not path.startswith(SUBJECT)])
    if (run.directory / "scores.json").is_file():
        rows += read_json(run.directory / "scores.json")
    if (run.directory / "plan.json").is_file():
        rows += plan_rows(read_json(run.directory / "plan.json"))
    run.write_results(rows)


def _report(config: DictConfig, run: Run, setting: Setting) -> None:
    with run.stage("report", outputs=["report.html"]) as stage:
        if stage.needed:
            with run.progress.task("report"):
                write_cohort_report(cohort_report_data(config, run, setting.cohort), run.directory)


def run_twin(config: DictConfig, run: Run) -> None:
    """Table -> population -> forecasts of what is held out, beside the baselines -> schedules -> report."""
    setting = prepare(config, run)
    choice = subject_choice(config, setting.cohort, setting.problem)  # refused before anything long begins
    posterior = calibrated(config, run, setting, here=True)
    run.say(posterior.statement)
    forecasted(config, run, setting, posterior)
    recommended_for_subjects(config, run, setting.cohort, setting.problem, posterior, choice)
    _results(run, posterior)
    _report(config, run, setting)


def run_calibrate(config: DictConfig, run: Run) -> None:
    """Table -> population."""
    setting = prepare(config, run)
    try:
        posterior = calibrated(config, run, setting, here=True)
    except NotConverged:
        _results(run, stored_posterior(run.source("posterior.zarr")))
        raise
    run.say(posterior.statement)
    _results(run, posterior)


def run_forecast(config: DictConfig, run: Run) -> None:
    """Population -> forecasts."""
    setting = prepare(config, run)
    posterior = calibrated(config, run, setting, here=False)
    forecasted(config, run, setting, posterior)
    _results(run, posterior)


def run_simulate(config: DictConfig, run: Run) -> None:
    """The typical subject of the prior, under what each subject was given: forecast.zarr of one draw."""
    setting = prepare(config, run)
    with run.stage("simulate", outputs=["forecast.zarr"]) as stage:
        if stage.needed:
            middle = setting.problem.constrain(jnp.zeros(setting.problem.size))
            draws = {path: np.asarray(value)[None, None] for path, value in middle.items()}
            single = Posterior(draws, None, {}, "The typical subject of the prior: nothing was learned from data.")
            days, hidden = forecast_days(config, setting.cohort)
            found = forecast_cohort(setting.problem, single, days, n_draws=1, key=run.key("simulate"))
            _keep_forecast(run, setting.cohort, found, hidden)
            ends = zip(setting.cohort.subjects, found.curve[0, :, -1], strict=True)
            run.write_results([row_of(f"simulate.{name}.last_day", value, setting.cohort.unit) for name, value in ends])


def run_recommend(config: DictConfig, run: Run) -> None:
    """Population -> schedules of the drug for some of its subjects."""
    run.source("posterior.zarr")  # missed here, before anything long begins
    setting = prepare(config, run)
    choice = subject_choice(config, setting.cohort, setting.problem)
    if isinstance(choice, str):
        raise ConfigError(
            f"required: a model with a drug, for a schedule\nreceived: {choice}\n"
            f"try:      a calibration with model={', '.join(_with_a_drug())}"
        )
    posterior = calibrated(config, run, setting, here=False)
    recommended_for_subjects(config, run, setting.cohort, setting.problem, posterior, choice)
    run.say(str(read_json(run.directory / "plan.json")["statement"]))
    _results(run, posterior)


def _with_a_drug() -> list[str]:
    """The shipped models whose exposure is a drug."""
    exposed = {name: OmegaConf.load(config_dir() / "model" / f"{name}.yaml") for name in group_options("model")}
    return [name for name, content in exposed.items() if content.model.exposure == DRUG]


def run_train(config: DictConfig, run: Run) -> None:
    """Refused: a closed form or a few equations need no surrogate."""
    del run
    raise ConfigError(
        f"required: a model of a field, for a surrogate\nreceived: cancer={config.cancer.name}, which reads a table\n"
        "try:      tumortwin train cancer=glioma"
    )


def run_report(config: DictConfig, run: Run) -> None:
    """Files -> report."""
    _report(config, run, prepare(config, run))
