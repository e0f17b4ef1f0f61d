"""`tumortwin train`: draws from the prior, solves the model, and makes a surrogate with bounds of what it found."""

from collections.abc import Callable

from omegaconf import DictConfig

from tumortwin.cli_train_operator import run_train_operator
from tumortwin.cli_train_reduced import run_train_reduced
from tumortwin.config import ConfigError, instantiate
from tumortwin.runs import Run
from tumortwin.surrogates import OperatorSettings, PodSettings

TRAINERS: dict[type, Callable[[DictConfig, Run], None]] = {
    PodSettings: run_train_reduced,
    OperatorSettings: run_train_operator,
}


def run_train(config: DictConfig, run: Run) -> None:
    """Prior -> `training/` -> `calibration/` -> `surrogate/`, of the kind whose settings `surrogate.settings` are.

    **Raises:** `ConfigError` for settings of something else.
    """
    settings = instantiate(config.surrogate.settings, where="surrogate.settings")
    if type(settings) not in TRAINERS:
        raise ConfigError(
            f"required: surrogate.settings of one of: {', '.join(sorted(kind.__name__ for kind in TRAINERS))}\n"
            f"received: {type(settings).__name__}\ntry:      surrogate=pod, or surrogate=fno"
        )
    TRAINERS[type(settings)](config, run)
