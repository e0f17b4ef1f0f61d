"""Only the allow-list is instantiated, and everything is checked before anything is built."""

import os

import numpyro.distributions as dist
import pytest

from tumortwin._errors import InputError
from tumortwin.config import ConfigError, check_targets, flatten, instantiate
from tumortwin.runs import Verdict

VERDICT = {"_target_": "tumortwin.runs.Verdict", "name": "a", "value": 1.0}


def test_allowed_targets_are_built():
    assert instantiate(VERDICT, unit="mm") == Verdict("a", 1.0, "mm")
    assert isinstance(instantiate({"_target_": "numpyro.distributions.Normal", "loc": 0.0, "scale": 1.0}), dist.Normal)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "numpy.load",
        "hydra.utils.instantiate",
        "builtins.eval",
        "tumortwinx.y",
        "tumortwin.runs._run.shutil.rmtree",
        "tumortwin.runs._backend.os.system",
        "numpyro.distributions.distribution.np.load",
        "tumortwin.runs.NoSuchThing",
        "tumortwin.no_room.Thing",
        "tumortwin.__version__",
        3,
        None,
        ["os.system"],
    ],
)
def test_other_targets_are_refused(target):
    with pytest.raises(ConfigError, match="required"):
        instantiate({"_target_": target, "command": "true"})


def test_the_whole_tree_is_checked_before_anything_is_built(tmp_path):
    made = tmp_path / "made"
    tree = {
        "first": {"_target_": "tumortwin.runs.write_text", "path": str(made), "text": "x"},
        "second": [{"deep": {"_target_": "os.system", "command": "true"}}],
    }
    with pytest.raises(ConfigError, match=r"second\[0\].deep"):
        instantiate(tree)
    assert not made.exists()


def test_targets_hidden_in_arguments_or_interpolations_are_refused(monkeypatch):
    monkeypatch.setenv("HIDDEN_TARGET", "os.system")
    with pytest.raises(ConfigError):
        instantiate(VERDICT, source={"_target_": "os.system", "command": "true"})
    from omegaconf import OmegaConf

    with pytest.raises(ConfigError):
        check_targets(OmegaConf.create({"_target_": "${oc.env:HIDDEN_TARGET}"}))
    assert os.environ["HIDDEN_TARGET"] == "os.system"


def test_arguments_that_do_not_fit_are_a_config_error():
    with pytest.raises(ConfigError, match="nonsense"):
        instantiate({**VERDICT, "nonsense": 1}, where="report")


def test_bad_input_found_while_building_stays_bad_input(tmp_path):
    with pytest.raises(InputError) as error:
        instantiate({"_target_": "tumortwin.runs.read_json", "path": str(tmp_path / "none.json")})
    assert error.value.file == str(tmp_path / "none.json")


def test_a_prior_is_written_as_nested_paths():
    leaf = {"_target_": "numpyro.distributions.Normal", "loc": 0.0, "scale": 1.0}
    nested = {"mechanisms": {"proliferation": {"rate": leaf}}, "initial": {"length": leaf}}
    assert flatten(nested) == {"mechanisms.proliferation.rate": leaf, "initial.length": leaf}
