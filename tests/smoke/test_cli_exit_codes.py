"""What the command line says and which code it leaves with; the stages are fakes."""

import errno
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from tumortwin import cli, cli_jobs
from tumortwin.cli import main, parse_arguments
from tumortwin.io import write_example_patient

HERE = Path(__file__).parent


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty working folder, fake stages, and JAX left as the tests have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(cli_jobs, "_STAGES", "fake_stages")
    monkeypatch.setattr(cli_jobs, "_prepare", lambda config: None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    return tmp_path / "runs"


def directories(runs):
    return [p.parent for p in sorted(runs.rglob("provenance.json"))]


@pytest.mark.parametrize(
    "line",
    [
        "-m calibrate cancer=glioma seed=0,1",
        "calibrate -m cancer=glioma seed=0,1",
        "calibrate cancer=glioma --multirun seed=0,1",
        "calibrate cancer=glioma seed=0,1 -m",
    ],
)
def test_flags_are_hoisted(line):
    found = parse_arguments(line.split())
    assert (found.verb, found.overrides, found.multirun) == ("calibrate", ["cancer=glioma", "seed=0,1"], True)


def test_flags_with_values_may_stand_anywhere():
    found = parse_arguments("twin seed=1 --cfg job --config-dir=a --config-dir b --resolve".split())
    assert (found.cfg, found.config_dirs, found.resolve, found.overrides) == ("job", ["a", "b"], True, ["seed=1"])


@pytest.mark.parametrize(
    "line, words",
    [
        ("twinn", ["twinn", "twin"]),
        ("twin --multirn", ["--multirn", "--multirun"]),
        ("twin cancer glioma", ["key=value"]),
        ("twin --cfg", ["--cfg"]),
        ("twin --cfg jobb", ["jobb", "job"]),
        ("twin seeed=1", ["seeed", "seed"]),
        ("twin seed=abc", ["abc"]),
        ("twin seed=1,2", ["-m"]),
        ("-m twin seed=1,abc", ["abc"]),
        ("-m twin seed=1,2 cancer=glioma,gliom", ["gliom", "glioma"]),
        ("twin patient=folder", ["patient.path=VALUE"]),
        ("twin +patient._target_=os.system", ["os.system"]),
        ("-m twin seed=1,2 +hydra.callbacks.x._target_=os.system", ["os.system"]),
        ("twin cluster=slurm_gpu", ["slurm_local"]),
        ("-m twin seed=1,2 cluster=slurm_cpu,local", ["slurm_local"]),
        ("reproduce no_such_claim", ["no_such_claim"]),
        ("configs patients", ["patients", "patient"]),
        ("twin --config-dir nowhere", ["nowhere"]),
        ("", []),
    ],
)
def test_mistakes_of_configuration_exit_with_2(runs, capsys, monkeypatch, line, words):
    monkeypatch.setenv("PATH", str(runs))  # no Slurm here
    assert main(line.split()) == cli.BAD_CONFIG
    captured = capsys.readouterr()
    for word in words:
        assert word in captured.err
    assert directories(runs) == []


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert main(["twin", "--help"]) == 0
    assert main(["--version"]) == 0
    assert "not a medical device" in capsys.readouterr().out


def test_a_run_and_what_it_prints(runs, capsys):
    assert main(["calibrate", "seed=2"]) == 0
    (directory,) = directories(runs)
    assert (directory / "DONE").is_file()
    assert json.loads((directory / "provenance.json").read_text())["argv"] == ["tumortwin", "calibrate", "seed=2"]
    assert main(["calibrate", "patient.title='two words'", "seed=3"]) == 0
    (quoted,) = [d for d in directories(runs) if d != directory]
    argv = json.loads((quoted / "provenance.json").read_text())["argv"]
    assert argv == ["tumortwin", "calibrate", "patient.title='two words'", "seed=3"]
    out = capsys.readouterr().out
    assert "sum" in out and "21" in out and str(directory.relative_to(runs.parent)) in out
    assert main(["runs"]) == 0
    assert "sum 21" in capsys.readouterr().out


def test_bad_input_exits_with_3_and_leaves_nothing(runs, capsys):
    assert main(["twin"]) == cli.BAD_INPUT
    err = capsys.readouterr().err
    for word in ("scan.nii.gz", "a 3-D image", "4-D", "one volume"):
        assert word in err
    assert directories(runs) == []
    assert main(["calibrate", "patient.path=nowhere.nii"]) == cli.BAD_INPUT
    assert "nowhere.nii" in capsys.readouterr().err
    assert directories(runs) == []
    assert main(["forecast", "run=nowhere"]) == cli.BAD_INPUT


@pytest.mark.parametrize("mistake, words", [("cut", ["day0_flair.nii.gz", "NIfTI"]), ("mistyped", ["mien"])])
def test_real_scans_that_are_bad_exit_with_3_and_leave_nothing(tmp_path, capsys, monkeypatch, mistake, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_jobs, "_prepare", lambda config: None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    scan = write_example_patient(tmp_path / "mine") / "day0_flair.nii.gz"
    if mistake == "cut":
        scan.write_bytes(scan.read_bytes()[: scan.stat().st_size // 2])
    folder = "mien" if mistake == "mistyped" else "mine"
    before = sorted((tmp_path / "mine").iterdir())
    assert main(["twin", "patient=folder", f"patient.path={folder}", "runtime.progress=off"]) == cli.BAD_INPUT
    err = capsys.readouterr().err
    for word in (*words, "required:", "received:", "try:"):
        assert word in err, err
    assert "registry" not in err and "Traceback" not in err
    assert sorted((tmp_path / "mine").iterdir()) == before
    left = [p for p in (tmp_path / "runs").rglob("*") if p.is_file() and p.name != ".lock"]
    assert left == [] and directories(tmp_path / "runs") == []


def test_a_full_disk_exits_with_3_and_the_same_command_resumes(runs, capsys, monkeypatch):
    real = os.fsync
    count = iter(range(1000))

    def full(number):
        if next(count) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(["calibrate"]) == cli.BAD_INPUT
    assert "room on the disk" in capsys.readouterr().err
    assert not list(runs.rglob(".tmp-*")) and not list(runs.rglob("DONE"))
    assert main(["calibrate"]) == 0
    assert len(directories(runs)) == 1


def test_an_interrupt_exits_with_130_and_names_the_command(runs, capsys, monkeypatch):
    import fake_stages

    def interrupted(config, run):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_stages, "run_calibrate", interrupted)
    assert main(["calibrate", "seed=3"]) == cli.INTERRUPTED
    assert "same command resumes: tumortwin calibrate seed=3" in capsys.readouterr().err


def test_a_failure_exits_with_1_and_is_in_the_log(runs, capsys):
    assert main(["simulate"]) == cli.FAILED
    assert "AttributeError" in capsys.readouterr().err


def test_a_later_stage_takes_over_the_choices_of_the_earlier_run(runs, capsys):
    assert main(["calibrate", "patient.id=p05", "seed=4"]) == 0
    (earlier,) = directories(runs)
    assert main(["forecast", f"run={earlier}", "horizon=30"]) == 0
    (later,) = [d for d in directories(runs) if d != earlier]
    assert json.loads((later / "forecast.json").read_text()).strip() == "40"
    assert json.loads((later / "results.json").read_text())[0]["value"] == "p05"
    assert main(["forecast", f"run={earlier}", "patient.id=p01"]) == 0
    assert "p01" in capsys.readouterr().out


def test_show_the_configuration(runs, capsys):
    assert main(["twin", "--cfg", "job", "--resolve", "patient.label=p09"]) == 0
    assert "name: glioma_p09" in capsys.readouterr().out
    assert directories(runs) == []


def test_reproduce_judges(runs, capsys, monkeypatch):
    folder = runs.parent / "experiments" / "claim"
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(
        "from tumortwin.runs import at_most\n"
        "def main(cfg, run):\n"
        "    limit = 1.0 if cfg.runtime.quick else 0.1\n"
        "    return [at_most('mass error', 0.5, limit, '%', 'a paper')]\n"
    )
    monkeypatch.setattr(cli_jobs, "repository", lambda: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [m for m in sys.modules if m.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        assert main(["reproduce"]) == 0
        assert capsys.readouterr().out == "claim\n"
        assert main(["reproduce", "claim"]) == cli.FAILED
        assert "verdict mass_error 0.5 % target <= 0.1 missed" in capsys.readouterr().out
        assert main(["reproduce", "claim", "runtime=ci"]) == 0
        assert "verdict mass_error 0.5 % target <= 1 ok" in capsys.readouterr().out
    finally:
        for name in [m for m in sys.modules if m.partition(".")[0] == "experiments"]:
            del sys.modules[name]
    assert all((d / "results.json").is_file() and d.parent.name == "claim" for d in directories(runs))


@pytest.mark.slow
def test_a_sweep_runs_every_job_and_skips_the_finished(runs, capsys):
    line = "-m calibrate seed=0,1".split()
    assert main(line) == 0
    assert len(directories(runs)) == 2 and len(list(runs.rglob("DONE"))) == 2
    calls = Path(os.environ["FAKE_CALLS"]).read_text()
    assert main(line) == 0
    assert Path(os.environ["FAKE_CALLS"]).read_text() == calls
    assert capsys.readouterr().out.count("already done") == 2
    assert main("-m calibrate seed=1,2".split()) == 0
    assert len(directories(runs)) == 3
    for folder in (runs / "calibrate" / "sweeps").iterdir():
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_bad_input_in_a_sweep_exits_with_3(runs, capsys):
    assert main("-m twin seed=0,1".split()) == cli.BAD_INPUT
    assert "scan.nii.gz" in capsys.readouterr().err


def test_configs_lists_groups_and_choices(capsys):
    assert main(["configs"]) == 0
    out = capsys.readouterr().out
    for word in ("patient", "atlas_glioma", "tcga_lgg", "gbm_progression", "folder", "slurm_local", "strang_rkl2"):
        assert word in out
    assert main(["configs", "risk"]) == 0
    assert "risk=cvar" in capsys.readouterr().out


def test_cite_gives_text_and_bibtex(capsys):
    assert main(["cite"]) == 0
    said = capsys.readouterr().out
    for words in ("for diffrax", "JAX: composable", "for ContourProfile", "Rockafellar", "for CVaR", "Vehtari"):
        assert words in said, words
    assert main(["cite", "--bibtex"]) == 0
    assert "@misc{" in capsys.readouterr().out
