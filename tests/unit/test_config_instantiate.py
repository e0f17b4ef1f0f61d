"""Only the allow-list is instantiated, and everything is checked before anything is built."""

import os

import numpyro.distributions as dist
import pytest
from omegaconf import OmegaConf

from tumortwin import control
from tumortwin._errors import InputError
from tumortwin.config import ConfigError, check_targets, flatten, instantiate
from tumortwin.control import FractionDose

LIMIT = {"_target_": "tumortwin.control.FractionDose", "high": 3.0}


def test_allowed_targets_are_built():
    built = instantiate(LIMIT, low=1.0)
    assert isinstance(built, FractionDose) and (built.low, built.high) == (1.0, 3.0)
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
        "tumortwin.runs._provenance._git",
        "tumortwin.runs.write_text",
        "tumortwin.runs.Verdict",
        "tumortwin.io.write_volume",
        "tumortwin.cli.main",
        "tumortwin.cli_patient.instantiate",
        "tumortwin.cli_patient.Path",
        "tumortwin.control._risk.CVaR",
        "tumortwin.control.jnp.load",
        "tumortwin.inference.NoSuchThing",
        "tumortwin.models.mechanisms",
        "numpyro.distributions.kl_divergence",
        "numpyro.distributions.jax.random.normal",
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


def touch(path):
    """Leaves a trace of having been built."""
    open(path, "x").close()


touch.__module__ = "tumortwin.control"


def test_the_whole_tree_is_checked_before_anything_is_built(tmp_path, monkeypatch):
    made = tmp_path / "made"
    monkeypatch.setattr(control, "touch", touch, raising=False)
    tree = {
        "first": {"_target_": "tumortwin.control.touch", "path": str(made)},
        "second": [{"deep": {"_target_": "os.system", "command": "true"}}],
    }
    with pytest.raises(ConfigError, match=r"second\[0\].deep"):
        instantiate(tree)
    assert not made.exists()
    instantiate(tree["first"])
    assert made.exists()


def test_targets_hidden_in_arguments_or_interpolations_are_refused(monkeypatch):
    monkeypatch.setenv("HIDDEN_TARGET", "os.system")
    with pytest.raises(ConfigError):
        instantiate(LIMIT, low={"_target_": "os.system", "command": "true"})
    from omegaconf import OmegaConf

    with pytest.raises(ConfigError):
        check_targets(OmegaConf.create({"_target_": "${oc.env:HIDDEN_TARGET}"}))
    assert os.environ["HIDDEN_TARGET"] == "os.system"


def test_arguments_that_do_not_fit_are_a_config_error():
    with pytest.raises(ConfigError, match="nonsense"):
        instantiate({**LIMIT, "nonsense": 1}, where="report")


def unreadable(path):
    """Finds its file bad."""
    raise InputError(file=path, required="a", received="b", advice="c")


unreadable.__module__ = "tumortwin.control"


def test_bad_input_found_while_building_stays_bad_input(monkeypatch):
    monkeypatch.setattr(control, "unreadable", unreadable, raising=False)
    with pytest.raises(InputError) as error:
        instantiate({"_target_": "tumortwin.control.unreadable", "path": "none.nii"})
    assert error.value.file == "none.nii"


def test_a_shell_cannot_be_reached(tmp_path):
    made = tmp_path / "made"
    node = {
        "_target_": "tumortwin.runs._provenance._git",
        "_args_": [str(tmp_path), "-c", f"alias.x=!touch {made}", "x"],
    }
    with pytest.raises(ConfigError, match="public name"):
        instantiate(node)
    assert not made.exists()


def test_a_prior_is_written_as_nested_paths():
    leaf = {"_target_": "numpyro.distributions.Normal", "loc": 0.0, "scale": 1.0}
    nested = {"mechanisms": {"proliferation": {"rate": leaf}}, "initial": {"length": leaf}}
    assert flatten(nested) == {"mechanisms.proliferation.rate": leaf, "initial.length": leaf}


def test_what_an_object_says_of_its_arguments_keeps_its_lines() -> None:
    node = OmegaConf.create({"_target_": "tumortwin.solvers.FixedSteps", "max_step": 0.0})
    with pytest.raises(ConfigError) as found:
        instantiate(node, where="solver")
    lines = str(found.value).splitlines()
    assert lines[0] == "required: positive max_step and max_diffusivity" and lines[1] == "received: 0.0, 1.0"
    assert lines[2:] == ["where:    solver", "try:      `--cfg job` to see the composed configuration"]


def test_what_another_library_says_stands_as_it_is() -> None:
    node = OmegaConf.create({"_target_": "tumortwin.solvers.FixedSteps", "no_such": 0.0})
    with pytest.raises(ConfigError, match="required: arguments that fit the object at solver\nreceived: Error in call"):
        instantiate(node, where="solver")
