"""The stages behind the verbs, for whatever a cancer's data are: `pipeline` names the module that does the work.

The contract of a pipeline: `data_files(config)`, the files that a run reads; `CITED`, what is cited beyond what the
configuration names; and one function `run_<verb>(config, run)` a verb. Every stage writes its files into the run and
can start from the files of the stage before it, in this run or in the one that `run=DIR` names.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tumortwin.cli_files import Checkpoints as Checkpoints
from tumortwin.cli_files import stored_posterior as stored_posterior
from tumortwin.config import ConfigError, unknown
from tumortwin.runs import Run

PIPELINES = {"scans": "tumortwin.cli_scans", "cohort": "tumortwin.cli_cohort"}
"""One patient with scans (`patient=...`), and many subjects in a table of readings (`table=...`)."""


def pipeline(config: DictConfig) -> Any:
    """The module that runs a cancer of this kind.

    **Raises:** `ConfigError` for a pipeline that is not known, or data of the other kind.
    """
    name = str(config.pipeline.get("name"))
    if name not in PIPELINES:
        raise unknown("pipeline", name, PIPELINES)
    ours, theirs = ("patient", "table") if name == "scans" else ("table", "patient")
    if not config[ours] or (config[theirs] and config.task.name != "reproduce"):
        raise ConfigError(
            f"required: {ours}=... for cancer={config.cancer.get('name')}, and no {theirs}=...\n"
            f"received: {'both' if config[ours] else f'no {ours}'}\n"
            f"try:      {_OTHER[name]}"
        )
    return importlib.import_module(PIPELINES[name])


_OTHER = {
    "scans": "cancer=lung or cancer=prostate, which read tables",
    "cohort": "cancer=glioma, which reads scans",
}


def data_files(config: DictConfig) -> Sequence[Path]:
    """The files a run reads, for its identity."""
    return pipeline(config).data_files(config)


def cited(config: DictConfig) -> Sequence[type]:
    """What is cited beyond what the configuration names."""
    return pipeline(config).CITED


def run_twin(config: DictConfig, run: Run) -> None:
    """The whole chain of a cancer's pipeline, to the report."""
    pipeline(config).run_twin(config, run)


def run_simulate(config: DictConfig, run: Run) -> None:
    """The model forward at prior medians."""
    pipeline(config).run_simulate(config, run)


def run_calibrate(config: DictConfig, run: Run) -> None:
    """Data -> posterior."""
    pipeline(config).run_calibrate(config, run)


def run_forecast(config: DictConfig, run: Run) -> None:
    """Posterior -> forecast."""
    pipeline(config).run_forecast(config, run)


def run_recommend(config: DictConfig, run: Run) -> None:
    """Posterior -> schedule."""
    pipeline(config).run_recommend(config, run)


def run_train(config: DictConfig, run: Run) -> None:
    """Prior -> simulated tumors -> surrogate."""
    pipeline(config).run_train(config, run)


def run_report(config: DictConfig, run: Run) -> None:
    """Files -> report."""
    pipeline(config).run_report(config, run)
