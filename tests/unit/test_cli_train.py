"""`tumortwin train` trains the kind whose settings it is given, whatever the leaf is called."""

import pytest

from tumortwin import cli_train
from tumortwin.config import ConfigError, compose
from tumortwin.runs import open_run
from tumortwin.surrogates import OperatorSettings, PodSettings


@pytest.mark.parametrize(("choice", "kind"), [("pod", PodSettings), ("fno", OperatorSettings)])
def test_the_settings_choose_the_kind(choice, kind, monkeypatch, tmp_path):
    begun = []
    for trainer in list(cli_train.TRAINERS):
        monkeypatch.setitem(cli_train.TRAINERS, trainer, lambda config, run, trainer=trainer: begun.append(trainer))
    config = compose([f"paths.runs={tmp_path}", "task=train", f"surrogate={choice}", "surrogate.name=mine"]).config
    with open_run(config) as run:
        cli_train.run_train(config, run)
    assert begun == [kind]


def test_settings_of_something_else_are_refused(tmp_path):
    config = compose([f"paths.runs={tmp_path}", "task=train", "surrogate=pod"]).config
    config.surrogate.settings = {"_target_": "tumortwin.surrogates.Training"}
    with open_run(config) as run, pytest.raises(ConfigError, match="received: Training"):
        cli_train.run_train(config, run)
