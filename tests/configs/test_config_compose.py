"""Every configuration composes; every mistake is a `ConfigError` that names it and offers what is near."""

import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from tumortwin.cli_decision import outcome_words
from tumortwin.config import (
    FITS,
    ConfigError,
    compose,
    config_dir,
    declared,
    flatten,
    group_options,
    groups,
    instantiate,
    one_of_each,
)
from tumortwin.control import (
    AbstractConstraint,
    AbstractObjective,
    AbstractOutcomeLimit,
    AbstractRisk,
    FeasibleSet,
    Region,
    WeeklyFractions,
    check_feasible,
)
from tumortwin.params import get_parameter, parameter_units

OF_TABLES = ("model", "population", "residual", "split", "cohort", "pipeline")
PLAN = ("decision", "objective", "risk", "constraint", "controller", "front", "trial")
WEEKLY = ("standard", "no_gaps")  # limits that have to do with the start day of weekly fractions
FILL = {("patient", "folder"): ["patient.path=somewhere"], ("table", "own"): ["table.declaration=mine.yaml"]}
CHOICES = [(g, o) for g in groups() for o in group_options(g) if g != "experiment"]
EXPERIMENTS = group_options("experiment")
MAX_EXPERIMENT_LINES = 20


def rounds():
    """Lists of (group, option) that go together, so that every choice is in one of them: of scans and of tables."""
    for of_tables in (False, True):
        kind = {g: [] for g, _ in CHOICES}
        for group, option in CHOICES:
            drug = group in PLAN and "scans" not in declared(group, option)["pipeline"]
            if (drug or (group in OF_TABLES and option != "scans")) == of_tables:
                kind[group].append(option)
        # a cancer and a pipeline decide what else is there: alone
        alone = [[(g, o)] for g in ("cancer", "pipeline") for o in kind.pop(g)]
        longest = max(map(len, kind.values()))
        together = [[(g, options[i % len(options)]) for g, options in kind.items() if options] for i in range(longest)]
        yield from ((of_tables, chosen) for chosen in [*alone, *together])


def test_every_choice_is_in_a_round():
    assert {pair for _, chosen in rounds() for pair in chosen} == set(CHOICES)


@pytest.mark.parametrize("of_tables, chosen", list(rounds()))
def test_every_choice_composes(of_tables, chosen):
    fill = [override for pair in chosen for override in FILL.get(pair, [])]
    first = ["cancer=lung"] if of_tables else []
    composed = compose([*first, *(f"{group}={option}" for group, option in chosen), *fill])
    assert OmegaConf.to_container(composed.config, resolve=True, throw_on_missing=True)
    for group in {"task", "cluster"} & dict(chosen).keys():
        assert composed.config[group].name == dict(chosen)[group]


@pytest.mark.parametrize("cancer", ["lung", "prostate"])
@pytest.mark.parametrize("model", group_options("model"))
def test_every_model_of_a_table_is_built_with_its_population(cancer, model):
    config = compose([f"cancer={cancer}", f"model={model}"]).config
    law = instantiate(config.model.law, where="model.law")
    varying = instantiate(flatten(config.population.varying), where="population.varying")
    for path, how in varying.items():
        typical = float(how.typical.mean)
        assert np.isfinite(typical) and np.ndim(get_parameter(law, path)) == 0, path
    assert any(how.between is not None for how in varying.values())
    assert config.model.exposure in ("none", "drug")


@pytest.mark.parametrize("residual", group_options("residual"))
def test_every_error_of_a_table_is_built_with_its_priors(residual):
    config = compose(["cancer=prostate", f"residual={residual}"]).config
    error = instantiate(config.residual.error, where="residual.error")
    assert set(instantiate(config.residual.priors, where="residual.priors")) == set(parameter_units(error))


@pytest.mark.parametrize("split", group_options("split"))
def test_every_split_is_a_function_of_a_table(split):
    config = compose(["cancer=lung", f"split={split}"]).config
    assert callable(instantiate(config.split, where="split", _partial_=True))


def test_a_model_brings_its_population_and_a_typed_choice_wins():
    assert "deceleration" in compose(["cancer=lung", "model=gompertz"]).config.population.varying
    config = compose(["cancer=lung", "model=gompertz", "population=stein", "calibrator=map", "table=bruchovsky"]).config
    assert "decay_rate" in config.population.varying
    assert (config.table.label, config.calibrator._target_.rpartition(".")[2]) == ("bruchovsky", "MapCalibrator")
    assert config.name == "lung_bruchovsky" and not config.patient and not config.geometry


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


@pytest.mark.parametrize(
    "group, option", [(g, o) for g in ("objective", "risk", "constraint") for o in group_options(g)]
)
def test_every_part_of_a_plan_is_built(group, option):
    of_tables = [] if "scans" in declared(group, option)["pipeline"] else ["cancer=lung"]
    config = compose([*of_tables, f"{group}={option}"]).config
    if group == "objective":
        objective = instantiate(config.objective, where="objective")
        assert isinstance(objective, AbstractObjective)
        words, readable = outcome_words(objective.name, 0.05)
        assert words["name"] and np.isfinite(readable(1.0))
        assert config.controller.minimal_gain == config.objective._minimal_gain_ >= 0.0
    elif group == "risk":
        risk = instantiate(config.risk, where="risk")
        assert isinstance(risk, AbstractRisk) and 1.0 <= float(risk(jnp.asarray([1.0, 2.0, 3.0]))) <= 3.1
    else:
        limits = [instantiate(node, where="constraint") for name, node in config.constraint.items() if name != FITS]
        assert all(isinstance(limit, AbstractConstraint | AbstractOutcomeLimit) for limit in limits)
        if option in WEEKLY:
            weeks = WeeklyFractions()
            region = Region.of(weeks, limits)
            assert region.contains(check_feasible(region)) and FeasibleSet(limits, weeks).total_dose == 60.0
