"""The stages behind the verbs: they join io, twin and report. Each takes the configuration and the run."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from tumortwin.runs import Run


def data_files(config: DictConfig) -> Sequence[Path]:
    """The files that a run will read; their contents are part of what makes it the same run."""
    del config
    return ()


def run_twin(config: DictConfig, run: Run) -> None:
    """Scans -> posterior -> forecast -> schedule -> report."""
    raise NotImplementedError


def run_simulate(config: DictConfig, run: Run) -> None:
    """The model forward in time."""
    raise NotImplementedError


def run_calibrate(config: DictConfig, run: Run) -> None:
    """Scans -> posterior."""
    raise NotImplementedError


def run_forecast(config: DictConfig, run: Run) -> None:
    """Posterior -> forecast."""
    raise NotImplementedError


def run_recommend(config: DictConfig, run: Run) -> None:
    """Posterior -> schedule."""
    raise NotImplementedError


def run_report(config: DictConfig, run: Run) -> None:
    """Files -> report."""
    raise NotImplementedError
