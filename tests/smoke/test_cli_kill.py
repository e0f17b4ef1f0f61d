"""Kill -9 in the middle of a run or a sweep, then the same command: it resumes, and nothing done is done again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE = 240.0  # [s] on a busy machine
POLL = 0.05  # [s]

# Every process of the test, the workers of a launcher too, finds the fakes where the stages are looked for.
SITE = """
import importlib.util, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "tumortwin.cli_stages":
            return importlib.util.spec_from_file_location(name, {fake!r})
sys.meta_path.insert(0, Finder())
"""


@pytest.fixture(autouse=True)
def interruptible():
    """A shell starts what runs in its background with interrupts ignored, and so everything that this starts: a
    handler here is the default in every process begun from here. (Not `preexec_fn`: it forks a process with threads.)
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def world(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE.format(fake=str(HERE / "fake_stages.py")))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}",
        "FAKE_CALLS": str(tmp_path / "calls"),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
    }
    environment.pop("FAKE_HANG", None)
    return tmp_path, environment


def started(world, line, **extra):
    folder, environment = world
    command = [sys.executable, "-m", "tumortwin.cli", *line.split()]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(world, line):
    process = started(world, line)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


def calls(world):
    file = world[0] / "calls"
    return file.read_text().splitlines() if file.is_file() else []


def wait_until_it_hangs(world, process):
    end = time.monotonic() + PATIENCE
    while not any("hanging" in c for c in calls(world)):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(POLL)


def kill_when_it_hangs(world, process):
    wait_until_it_hangs(world, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def results(world):
    found = {}
    for done in (world[0] / "runs").rglob("DONE"):
        seed = json.loads((done.parent / "provenance.json").read_text())["seed"]
        assert (done.parent / "second" / "part").read_text() == "whole"
        found[seed] = json.loads((done.parent / "results.json").read_text())[0]["value"]
    return found


def test_a_killed_run_resumes_where_it_was(world):
    kill_when_it_hangs(world, started(world, "calibrate seed=1", FAKE_HANG="1"))
    assert results(world) == {}
    assert list((world[0] / "runs").rglob(".tmp-*"))
    finished(world, "calibrate seed=1")
    assert results(world) == {1: 11}
    assert calls(world) == ["1 first", "1 second", "1 hanging", "1 second"]
    assert len(list((world[0] / "runs").rglob("provenance.json"))) == 1
    assert not list((world[0] / "runs").rglob(".tmp-*"))


@pytest.mark.slow
def test_an_interrupt_exits_with_130_while_xla_compiles_and_the_same_command_resumes(world):
    process = started(world, "calibrate seed=1", FAKE_HANG="1", FAKE_COMPILES="1")
    wait_until_it_hangs(world, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "interrupted\nthe same command resumes: tumortwin calibrate seed=1" in err
    assert not list((world[0] / "runs").rglob(".tmp-*"))
    finished(world, "calibrate seed=1")
    assert results(world) == {1: 11}
    assert calls(world) == ["1 first", "1 second", "1 hanging", "1 second"]


@pytest.mark.slow
def test_a_killed_sweep_resumes_and_redoes_nothing(world):
    line = "-m calibrate seed=0,1,2"
    kill_when_it_hangs(world, started(world, line, FAKE_HANG="1"))
    assert results(world) == {0: 1}
    finished(world, line)
    assert results(world) == {0: 1, 1: 11, 2: 21}
    seconds = ["0 first", "0 second", "1 first", "1 second", "1 hanging"]
    assert calls(world) == [*seconds, "1 second", "2 first", "2 second"]
    assert len(list((world[0] / "runs").rglob("provenance.json"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["joblib", "slurm_local"])
def test_a_sweep_in_other_processes(world, cluster):
    pytest.importorskip(f"hydra_plugins.hydra_{'joblib' if cluster == 'joblib' else 'submitit'}_launcher")
    line = f"-m calibrate seed=0,1 cluster={cluster}"
    finished(world, line)
    assert results(world) == {0: 1, 1: 11}
    before = calls(world)
    finished(world, line)
    assert calls(world) == before
