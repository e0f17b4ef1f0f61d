"""The same configuration and data find their unfinished directory; nothing that is done is done again."""

import fcntl
import functools
import json
import multiprocessing
import os
import shutil
import time

import pytest
from omegaconf import DictConfig

from tumortwin._errors import InputError
from tumortwin.config import compose
from tumortwin.runs import Run, RunLocked, _identity, at_most, config_of, list_runs, open_run


@pytest.fixture
def config(tmp_path):
    return compose(["task=calibrate", f"paths.runs={tmp_path}/runs", "runtime.lock_wait=0.0"]).config


def with_(config: DictConfig, **changes) -> DictConfig:
    changed = config.copy()
    for key, value in changes.items():
        node = changed
        *path, last = key.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    return changed


def opened(config, **kwargs):
    run = open_run(config, **kwargs)
    run.close()
    return run


def test_anatomy(config, tmp_path):
    with open_run(config, overrides=["seed=0"], argv=["tumortwin", "calibrate"]) as run:
        run.metrics(1, loss=2.0)
        run.write_results([at_most("error", 0.5, 1.0, "mm", "a paper")])
        assert not (run.directory / "DONE").exists()
        run.finish()
    assert run.directory.parent == tmp_path / "runs" / "calibrate" / "glioma_atlas"
    facts = json.loads((run.directory / "provenance.json").read_text())
    wanted = {"identity", "git", "lock", "versions", "backend", "seed", "data", "argv", "started"}
    assert wanted <= set(facts)
    assert facts["backend"]["dtype"] == "float64" and facts["versions"]["jax"]
    assert config_of(run.directory).patient.id == "atlas"
    assert json.loads((run.directory / "results.json").read_text()) == [
        {"name": "error", "value": 0.5, "unit": "mm", "target": "<= 1", "source": "a paper"}
    ]
    assert (run.directory / "DONE").is_file() and (run.directory / "log.txt").parent.is_dir()
    (row,) = list_runs(tmp_path / "runs")
    assert (row.task, row.name, row.done, row.results[0]["value"]) == ("calibrate", "glioma_atlas", True, 0.5)


def test_unfinished_is_found_again_by_content_not_by_time(config, tmp_path):
    data = tmp_path / "scan"
    data.write_text("a")
    first = opened(config, data_files=[data])
    assert opened(config, data_files=[data]).directory == first.directory
    moved = tmp_path / "elsewhere" / "scan"
    moved.parent.mkdir()
    moved.write_text("a")
    place = with_(config, data__root=str(moved.parent), runtime__progress="off", cluster__name="joblib")
    assert opened(place, data_files=[moved]).directory == first.directory
    assert opened(with_(config, seed=1), data_files=[data]).directory != first.directory
    assert opened(with_(config, solver__max_step=1.0), data_files=[data]).directory != first.directory
    data.write_text("b")
    assert opened(config, data_files=[data]).directory != first.directory


def test_files_that_changed_places_are_other_data(config, tmp_path):
    visits = [tmp_path / "scans" / session / "flair.nii" for session in ("ses-1", "ses-2")]
    for file, text in zip(visits, "ab", strict=True):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    first = opened(config, data_files=visits)
    shutil.copytree(tmp_path / "scans", tmp_path / "moved")
    moved = [tmp_path / "moved" / file.relative_to(tmp_path / "scans") for file in visits]
    assert opened(config, data_files=moved).directory == first.directory
    atlas = tmp_path / "atlas" / "labels.nii"  # beside files of another place, too
    atlas.parent.mkdir()
    atlas.write_text("c")
    both = opened(config, data_files=[*visits, atlas])
    assert opened(config, data_files=[*moved, atlas]).directory == both.directory
    for file, text in zip(visits, "ba", strict=True):
        file.write_text(text)
    assert opened(config, data_files=visits).directory != first.directory


def test_results_of_other_code_are_not_taken_for_these(config, tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "room").mkdir(parents=True)
    (package / "room" / "_rate.py").write_text("RATE = 1.0\n")
    monkeypatch.setattr(_identity, "code_digest", functools.partial(_identity.code_digest, package))
    first = opened(config)
    assert opened(config).directory == first.directory
    (package / "room" / "_rate.py").write_text("RATE = 2.0\n")
    assert opened(config).directory != first.directory
    assert _identity.PACKAGE.name == "tumortwin" and (_identity.PACKAGE / "cli.py").is_file()


def test_finished_is_left_alone_unless_asked_for(config):
    first = open_run(config)
    first.finish()
    first.close()
    assert opened(with_(config, runtime__resume="finished")).finished
    assert opened(config, keep_finished=True).directory == first.directory
    second = opened(config)
    assert second.directory != first.directory and not second.finished
    third = opened(with_(config, runtime__resume="never"))
    assert third.directory not in (first.directory, second.directory)


def test_done_stages_are_skipped(config):
    calls = []

    def attempt(inputs=None, fail=False):
        with open_run(config) as run:
            with run.stage("one", outputs=["one.json"], inputs=inputs) as stage:
                if stage.needed:
                    calls.append("one")
                    run.write_json("one.json", 1)
            with run.stage("two", outputs=["two.json"]) as stage:
                if stage.needed:
                    calls.append("two")
                    if fail:
                        raise ZeroDivisionError
                    run.write_json("two.json", 2)
        return run

    with pytest.raises(ZeroDivisionError):
        attempt(fail=True)
    run = attempt()
    assert calls == ["one", "two", "two"] and set(run.seconds) == {"one", "two"}
    assert "ZeroDivisionError" in (run.directory / "log.txt").read_text()
    attempt()
    assert calls == ["one", "two", "two"]
    attempt(inputs={"draws": 3})
    (run.directory / "two.json").unlink()
    attempt(inputs={"draws": 3})
    assert calls == ["one", "two", "two", "one", "two"]


def test_a_stage_that_does_not_write_what_it_promised_is_an_error(config):
    with open_run(config) as run, pytest.raises(RuntimeError, match="nothing there"):
        with run.stage("one", outputs=["one.json"]):
            pass


def test_leftovers_of_a_killed_process_are_cleared(config):
    run = opened(config)
    (run.directory / ".tmp-123-posterior.zarr").mkdir()
    (run.directory / ".tmp-123-posterior.zarr" / "x").write_text("half")
    opened(config)
    assert not list(run.directory.glob(".tmp-*"))


def test_a_directory_killed_while_it_was_made_is_ignored(config, tmp_path):
    torn = tmp_path / "runs" / "calibrate" / "glioma_atlas" / ".tmp-1-20200101_000000_abc"
    torn.mkdir(parents=True)
    assert opened(config).directory != torn
    assert [r.directory for r in list_runs(tmp_path / "runs")] == [opened(config).directory]


def _hold(path, ready):
    with open(path, "a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ready.send(os.getpid())
        time.sleep(600)


def test_two_processes_do_not_write_one_directory_and_no_lock_is_stale(config):
    run = opened(config)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(run.directory / ".lock", theirs))
    other.start()
    try:
        ours.recv()
        with pytest.raises(RunLocked, match="another|no other process"):
            open_run(config)
    finally:
        other.kill()
        other.join()
    assert (run.directory / ".lock").exists()
    assert opened(config).directory == run.directory


def test_the_same_process_cannot_open_a_run_twice(config):
    with open_run(config), pytest.raises(RunLocked):
        open_run(config)


def test_a_barren_directory_is_discarded_and_a_fruitful_one_kept(config, tmp_path):
    with open_run(config) as run:
        run.log("something")
        assert run.discard_if_barren()
    assert list((tmp_path / "runs").rglob("*.json")) == []
    with open_run(config) as run:
        run.write_json("posterior.json", 1)
        assert not run.discard_if_barren()
    with open_run(config) as run:
        assert run.resumed and not run.discard_if_barren()


def test_files_are_found_along_the_chain_of_runs(config):
    def made(task, name, earlier=None):
        changed = with_(config, task__name=task, run=None if earlier is None else str(earlier.directory))
        with open_run(changed) as run:
            run.write_json(name, task)
            run.finish()
        return run

    calibrated = made("calibrate", "posterior.json")
    forecast = made("forecast", "forecast.json", calibrated)
    plan = made("recommend", "plan.json", forecast)
    assert plan.source("posterior.json") == calibrated.directory / "posterior.json"
    assert plan.source("plan.json").parent == plan.directory
    with pytest.raises(InputError, match=r"none\.json"):
        plan.source("none.json")
    with pytest.raises(InputError, match="run directory"):
        open_run(with_(config, run="nowhere"))


def test_paths_stay_inside(config):
    with open_run(config) as run:
        for bad in ("../x", "/etc/x", "a/../../x"):
            with pytest.raises(InputError, match="inside"):
                run.path(bad)
        assert run.path("derivatives", "sub-01", "x.nii.gz").parent.is_dir()


def test_missing_data_names_the_file(config, tmp_path):
    with pytest.raises(InputError, match="none"):
        open_run(config, data_files=[tmp_path / "none"])
    assert list((tmp_path).rglob("provenance.json")) == []


def test_keys_are_reproducible_and_differ_by_purpose(config):
    import jax

    with open_run(config) as run:
        assert isinstance(run, Run)
        a, again, b = run.key("calibrate"), run.key("calibrate"), run.key("forecast")
        other = run.seeded(int(run.config.seed) + 1)
    assert (jax.random.key_data(other.key("calibrate")) != jax.random.key_data(a)).any()
    assert run.config.seed != other.config.seed and other.directory == run.directory
    assert (jax.random.key_data(a) == jax.random.key_data(again)).all()
    assert (jax.random.key_data(a) != jax.random.key_data(b)).any()
