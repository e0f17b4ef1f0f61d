"""Every configuration composes; every mistake is a `ConfigError` that names it and offers what is near."""

import pytest
from omegaconf import OmegaConf

from tumortwin.config import ConfigError, compose, config_dir, group_options, groups, one_of_each

FILL = {("patient", "folder"): ["patient.path=somewhere"]}
CHOICES = [(g, o) for g in groups() for o in group_options(g) if g != "experiment"]
EXPERIMENTS = group_options("experiment")
MAX_EXPERIMENT_LINES = 20


@pytest.mark.parametrize("group, option", CHOICES)
def test_every_choice_composes(group, option):
    composed = compose([f"{group}={option}", *FILL.get((group, option), [])])
    assert OmegaConf.to_container(composed.config, resolve=True, throw_on_missing=True)
    if group == "task":
        assert composed.config.task.name == option
    if group == "cluster":
        assert composed.config.cluster.name == option


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_is_a_delta(experiment):
    compose([f"experiment={experiment}"])
    text = (config_dir() / "experiment" / f"{experiment}.yaml").read_text()
    assert len(text.splitlines()) <= MAX_EXPERIMENT_LINES


@pytest.mark.parametrize("patient", group_options("patient"))
def test_every_patient_has_an_id_a_path_and_a_data_root(patient):
    config = compose([f"patient={patient}", "patient.id=x7", "patient.path=there", "data.root=here"]).config
    assert (config.patient.id, config.patient.path, config.data.root) == ("x7", "there", "here")


def test_every_number_has_a_comment():
    structural = ("task", "cluster", "runtime", "paths", "report")
    for group, option in CHOICES:
        if group in structural:
            continue
        lines = (config_dir() / group / f"{option}.yaml").read_text().splitlines()
        bare = [
            x for x in lines if "." in x.split("#")[0].split(":")[-1] and any(c.isdigit() for c in x.split(":")[-1])
        ]
        missing = [x for x in bare if "#" not in x and "_target_" not in x]
        assert not missing, f"{group}/{option}: a number needs a unit and a source: {missing}"


@pytest.mark.parametrize(
    "override, words",
    [
        ("seeed=1", ["seeed", "seed"]),
        ("runtime.resum=auto", ["runtime.resum", "runtime.resume"]),
        ("solver.max_stp=1.0", ["solver.max_stp"]),
        ("patient.idd=p01", ["patient.idd", "patient.id"]),
        ("cancr=glioma", ["cancr", "cancer"]),
        ("cancer=gliom", ["gliom", "glioma"]),
        ("clusters/local=x", ["clusters/local"]),
        ("seed=abc", ["abc", "seed"]),
        ("horizon=soon", ["horizon"]),
        ("runtime.quick=maybe", ["runtime.quick"]),
        ("patient.id={a: 1}", ["patient.id", "a word"]),
        ("+foo=1", ["foo"]),
        ("name=../../elsewhere", ["name"]),
        ("seed=1,2", ["-m"]),
        ("patient.path=a (copy)/b", ["patient.path='a (copy)/b'"]),
        ("prior={}", ["prior"]),
    ],
)
def test_a_mistake_is_named(override, words):
    with pytest.raises(ConfigError) as error:
        compose([override])
    for word in [*words, "required", "received", "try"]:
        assert word in str(error.value)


def test_missing_mandatory_value_is_named():
    with pytest.raises(ConfigError, match="patient.path=VALUE"):
        compose(["patient=folder"])


@pytest.mark.parametrize(
    "override",
    [
        "+patient._target_=os.system",
        "+solver._target_=tumortwin.config._compose.os.system",
        "+report._target_=subprocess.run",
        "+hydra.callbacks.x._target_=os.system",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "+patient={_target_: os.system}",
        "++prior.x={a: [{_target_: os.system}]}",
    ],
)
def test_a_foreign_target_does_not_compose(override):
    with pytest.raises(ConfigError):
        compose([override])


def test_numbers_may_be_written_as_whole_numbers_and_in_powers_of_ten():
    config = compose(["horizon=120", "seed=3", "data.root=1", "paths.runs='a, (b)=c'"]).config
    assert config.horizon == 120.0 and isinstance(config.horizon, float)
    assert (config.seed, config.data.root, config.paths.runs) == (3, "1", "a, (b)=c")


def test_later_choices_win():
    assert compose(["runtime=ci", "runtime=default"]).config.runtime.name == "default"


def test_a_sweep_is_tried_once_a_value():
    tried = list(one_of_each(["seed=1,2,3", "risk=cvar,mean", "name=a"]))
    assert tried[0] == ["seed=1", "risk=cvar", "name=a"]
    assert len(tried) == 4
    assert {t[0] for t in tried} == {"seed=1", "seed=2", "seed=3"}
    assert {t[1] for t in tried} == {"risk=cvar", "risk=mean"}


def test_a_folder_of_ones_own(tmp_path):
    folder = tmp_path / "my (own), configs"
    (folder / "runtime").mkdir(parents=True)
    mine = (config_dir() / "runtime" / "default.yaml").read_text().replace("name: default", "name: mine")
    (folder / "runtime" / "mine.yaml").write_text(mine)
    assert compose(["runtime=mine"], config_dirs=[folder]).config.runtime.name == "mine"
    with pytest.raises(ConfigError, match="mine"):
        compose(["runtime=mine"])
    with pytest.raises(ConfigError, match="existing folder"):
        compose([], config_dirs=[tmp_path / "none"])
