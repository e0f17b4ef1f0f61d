"""The whole command on a small table: what it leaves, what it refuses, and that it resumes with the same numbers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tumortwin import cli_cohort, cli_jobs
from tumortwin.cli import BAD_CONFIG, BAD_INPUT, FAILED, INTERRUPTED, main
from tumortwin.cli_files import Checkpoints
from tumortwin.io import read_curves, read_posterior

DECLARATION = """
label: clinic
folder: .
file: visits.csv
subject: patient
time: {column: week, unit: week}
quantities:
  diameter: {column: mm, unit: mm, limit: 5.0}
covariates:
  arm: {column: arm}
"""
QUICK = [
    "cancer=lung", "table=own", "model=exponential", "population.varying.growth_rate.between=null",
    "calibrator.chains=2", "calibrator.warmup=100", "calibrator.draws=150", "calibrator.chunk=50",
    "calibrator.tree_depth=6", "calibrator.accept=0.8", "draws=25", "cohort.grid=5", "cohort.panels=2",
    "cluster=local", "runtime.progress=off",
]  # fmt: skip
SUBJECTS = 7
PATIENCE = 240.0  # [s] on a busy machine
# The command line in a process that kills itself after a checkpoint of the sampler, or in the middle of the forecast.
VICTIM = """
import os, signal, sys
from tumortwin import cli, cli_cohort
from tumortwin.cli_files import Checkpoints
owner, name, last = {"sampling": (Checkpoints, "save", 3), "forecast": (cli_cohort, "_forecast_csv", 1)}[sys.argv[1]]
whole, calls = getattr(owner, name), []
def doomed(*args):
    found = whole(*args)
    calls.append(name)
    if len(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
setattr(owner, name, doomed)
sys.exit(cli.main(sys.argv[2:]))
"""


def visits(seed: int = 0) -> str:
    """Seven patients whose lesions grow or shrink exponentially; one was seen once."""
    rng, lines = np.random.default_rng(seed), ["patient,week,mm,arm"]
    for i in range(SUBJECTS):
        rate, start = rng.normal(0.0, 0.002), 30.0 * np.exp(rng.normal(0.0, 0.5))
        for week in range(0, 42, 7) if i else [0]:
            size = start * np.exp(rate * 7 * week + rng.normal(0.0, 0.05))
            lines.append(f"p{i},{week},{size:.2f},{'ab'[i % 2]}")
    return "\n".join(lines) + "\n"


def line_of(folder: Path, verb: str, *more: str, runs: str = "runs") -> list[str]:
    """The arguments of a command on the clinic's table."""
    quick = [q for q in QUICK if not (more and more[0].startswith("calibrator=") and "calibrator." in q)]
    return [verb, *quick, f"table.declaration={folder / 'mine.yaml'}", f"paths.runs={folder / runs}", *more]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A clinic's folder, the finished run of its table, and how to give further commands."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "mine.yaml").write_text(DECLARATION)
    (folder / "visits.csv").write_text(visits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_jobs, "_prepare", lambda config: None)  # JAX stays as the tests have it
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))

        def command(verb: str, *more: str, code: int = 0, runs: str = "runs") -> Path | None:
            before = set((folder / runs).rglob("provenance.json"))
            assert main(line_of(folder, verb, *more, runs=runs)) == code
            found = set((folder / runs / verb).rglob("provenance.json"))
            return next(((p.parent) for p in found - before), next((p.parent for p in found), None))

        yield folder, command, command("twin")


def rows_of(run: Path) -> dict:
    return {row["name"]: row["value"] for row in json.loads((run / "results.json").read_text())}


def test_a_run_leaves_every_file_behind(world):
    run = world[2]
    for name in ("posterior.zarr", "forecast.zarr", "forecast.csv", "scores.json", "subgroups.json", "card.json",
                 "results.json", "report.html", "DONE"):  # fmt: skip
        assert (run / name).exists(), name
    rows = rows_of(run)
    low, middle, high = (rows[f"posterior.typical.growth_rate.{end}"] for end in ("low", "median", "high"))
    assert low < middle < high and not any("subject" in name for name in rows)
    for name in ("twin", "persistence", "exponential", "population_mean", "regressor"):
        assert rows[f"forecast.{name}.crps"] > 0.0 and rows[f"forecast.{name}.mean_absolute_error"] > 0.0
    assert rows["forecast.twin_minus_persistence.crps.low"] <= rows["forecast.twin_minus_persistence.crps.high"]
    card = json.loads((run / "card.json").read_text())
    assert (card["subjects"], card["cases"]) == (SUBJECTS - 1, 2 * (SUBJECTS - 1)) and "regressor" in card[
        "comparators"
    ]


def test_the_forecast_is_of_the_readings_that_were_held_out(world):
    folder, _, run = world
    lines = [line.split(",") for line in (run / "forecast.csv").read_text().splitlines()]
    held = {(name, float(day)): float(seen) for name, day, *_, seen, _, _, _ in lines[1:]}
    table = [line.split(",") for line in (folder / "visits.csv").read_text().splitlines()[1:]]
    expected = {(p, 7.0 * float(w)): float(mm) for p, w, mm, _ in table if p != "p0" and float(w) >= 28}
    assert held == pytest.approx(expected) and all(float(r[3]) < float(r[4]) < float(r[5]) for r in lines[1:])
    days, curves, attrs = read_curves(run / "forecast.zarr")
    assert curves["predictive"].shape == (25, SUBJECTS, days.shape[1]) and attrs["hidden"] == 2
    assert days[1, :2].tolist() == [196.0, 245.0] and days[1, -1] == pytest.approx(147.0 + 98.0)
    assert np.isfinite(curves["predictive"]).all() and attrs["unit"] == "mm"


def test_the_page_says_what_it_is_and_what_has_to_be_known(world):
    page = (world[2] / "report.html").read_text()
    for words in (
        "Research software, not a medical device", "7 subjects", "12 held out", "p0 has a single known reading",
        "pooled with the others, not dropped", "days after its last known reading", "persistence", "regressor",
        "Prior", "Posterior", "95 %", "git", "table.declaration", "doi:10.1371/journal.pcbi.1003800",
        "arm=a", "no mechanism",
    ):  # fmt: skip
        assert words in page, words
    assert 'src="http' not in page and page.count("data:image/png;base64") == 3


def test_hiding_other_values_changes_no_forecast(world):
    """The poisoned future: held-out readings are three times larger, every draw of the forecast is the same."""
    folder, command, run = world
    lines = (folder / "visits.csv").read_text().splitlines()
    other = [lines[0]]
    for line in lines[1:]:
        patient, week, mm, arm = line.split(",")
        hidden = patient != "p0" and int(week) >= 28
        other.append(f"{patient},{week},{3.0 * float(mm) if hidden else mm},{arm}")
    (folder / "poisoned.csv").write_text("\n".join(other) + "\n")
    new = command("twin", f"table.file={folder / 'poisoned.csv'}", runs="poisoned")
    for name in ("curve", "predictive"):
        first, second = (read_curves(r / "forecast.zarr")[1][name] for r in (run, new))
        np.testing.assert_array_equal(first, second)
    assert rows_of(new)["forecast.twin.crps"] != rows_of(run)["forecast.twin.crps"]


def test_an_interrupted_sampler_resumes_with_the_same_numbers(world, monkeypatch):
    folder, command, run = world
    saves, real = [], Checkpoints.save

    def save(self, name, arrays):
        real(self, name, arrays)
        saves.append(name)
        if len(saves) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        command("calibrate", code=INTERRUPTED, runs="stopped")
    assert len(saves) == 3 and not list((folder / "stopped").rglob("posterior.zarr"))
    monkeypatch.setattr(Checkpoints, "save", lambda self, name, arrays: (saves.append(name), real(self, name, arrays)))
    again = command("calibrate", runs="stopped")
    assert len(saves) == 6 and len(list((folder / "stopped").rglob("DONE"))) == 1
    for path, draws in read_posterior(run / "posterior.zarr")[0].items():
        np.testing.assert_array_equal(draws, read_posterior(again / "posterior.zarr")[0][path])


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_with_the_same_numbers_and_nothing_done_is_done_again(world, monkeypatch):
    """Kill -9 between two chunks of the sampler, then in the forecast of the same command; then the same command."""
    folder, command, run = world
    # Programs that this process has compiled are there for its victims, which it waits for.
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(cli_cohort.__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"]),
    }
    line, left = line_of(folder, "twin", runs="killed"), folder
    for stage, done in (("sampling", False), ("forecast", True)):
        command_line = [sys.executable, "-c", VICTIM, stage, *line]
        victim = subprocess.run(command_line, env=environment, timeout=PATIENCE, capture_output=True, text=True)
        assert victim.returncode == -signal.SIGKILL, victim.stderr
        (left,) = (p.parent for p in (folder / "killed").rglob("provenance.json"))
        assert (left / "posterior.zarr").exists() == done
        assert not (left / "forecast.csv").exists() and not (left / "DONE").exists()

    def again(*args, **kwargs):
        raise AssertionError("a finished stage was begun again")

    monkeypatch.setattr(cli_cohort, "calibrate", again)
    assert command("twin", runs="killed") == left and (left / "report.html").exists()
    for path, draws in read_posterior(run / "posterior.zarr")[0].items():
        np.testing.assert_array_equal(draws, read_posterior(left / "posterior.zarr")[0][path])
    assert rows_of(left) == rows_of(run)


def test_an_interrupted_run_redoes_only_what_is_missing(world):
    _, command, run = world
    (run / "DONE").unlink()
    (run / "report.html").unlink()
    kept = [run / name for name in ("posterior.zarr", "forecast.csv", "scores.json")]
    before = [path.stat().st_mtime_ns for path in kept]
    assert command("twin") == run and (run / "report.html").exists() and (run / "DONE").exists()
    assert [path.stat().st_mtime_ns for path in kept] == before


@pytest.mark.parametrize("verb, left", [("forecast", "forecast.csv"), ("report", "report.html")])
def test_a_verb_starts_from_the_files_of_an_earlier_run(world, verb, left):
    _, command, run = world
    new = command(verb, f"run={run}", "horizon=30.0")
    assert new != run and (new / left).exists() and not (new / "posterior.zarr").exists()


@pytest.mark.slow
def test_a_sweep_does_every_job_once(world, capsys):
    folder, command, _ = world
    for _ in range(2):
        command("simulate", "-m", "seed=3,4", runs="sweep")
    assert len(list((folder / "sweep" / "simulate").rglob("DONE"))) == 2
    assert capsys.readouterr().out.count("already done") == 2


def test_another_choice_of_subjects_than_the_posterior_has_is_refused(world, capsys):
    _, command, run = world
    command("forecast", f"run={run}", "cohort.subjects=3", code=BAD_CONFIG)
    assert "subjects that the posterior was calibrated to (7)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override, words",
    [
        ("cohort.subjcts=3", ["cohort.subjcts", "cohort.subjects"]),
        ("cohort.quantity=diamter", ["diamter", "diameter"]),
        ("model=gomperz", ["gomperz", "gompertz"]),
        ("+cohort.covariates.treated={of: amr, is: a}", ["amr", "arm"]),
        ("+cohort.covariates.treated={of: arm, is: c}", ["'c'", "a, b"]),
        ("population=gompertz", ["deceleration", "parameter path of the model"]),
        ("population.correlated=[start]", ["at least two"]),
        ("split.readings=0", ["split.readings of 1 or more"]),
        ("cohort.subjects=1", ["cohort.subjects of 2 or more"]),
        ("calibrator=nuts", ["calibrator=nuts_population"]),
        ("calibrator=psis", ["calibrator=nuts_population"]),
        ("patient=folder", ["patient.path"]),
        ("patient=tcga_lgg", ["table=... for cancer=lung, and no patient=...", "cancer=glioma"]),
    ],
)
def test_a_mistake_in_the_configuration_exits_with_2_and_is_named(world, capsys, override, words):
    folder, command, _ = world
    command("calibrate", override, code=BAD_CONFIG, runs="wrong")
    error = capsys.readouterr().err
    for word in (*words, "required:", "received:", "try"):
        assert word in error, error
    assert not list((folder / "wrong").rglob("posterior.zarr"))


def test_data_of_the_other_kind_and_schedules_without_a_drug_are_refused(world, capsys):
    assert main(["twin", "table=laleh"]) == BAD_CONFIG
    assert "cancer=lung or cancer=prostate" in capsys.readouterr().err
    _, command, run = world
    command("recommend", f"run={run}", code=BAD_CONFIG, runs="wrong")
    said = capsys.readouterr().err
    assert "a model with a drug" in said and "the model Exponential has no drug" in said and "claret" in said
    assert not (run / "plan.json").exists() and "left out: the model Exponential" in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    "broken, words",
    [
        (lambda t: t + "p1,0,20,b\n", ["visits.csv", "one row a subject and time", "'p1' a second time at 0 day"]),
        (lambda t: t.replace("p1,7,", "p1,7,wide"), ["line 4", "column 'mm'", "a number"]),
        (lambda t: t.replace("p1,7,", "p1,7,-"), ["line 4", "column 'mm'", "a value of 0 or more"]),
        (lambda t: t.replace("p1,7,", "p1,seven,"), ["line 4", "column 'week'", "'seven'"]),
        (lambda t: t.replace(",mm,", ",cm,"), ["mm", "column"]),
        (lambda t: "patient,week,mm,arm\np1,0,2,a\np1,7,1,a\np1,14,3,a\np2,0,2,a\n", ["not merely a limit", "limit"]),
    ],
)  # fmt: skip
def test_a_bad_table_exits_with_3_and_leaves_nothing(world, capsys, broken, words):
    folder, command, _ = world
    place = folder / "bad"
    place.mkdir(exist_ok=True)
    (place / "visits.csv").write_text(broken(visits()))
    command("twin", f"table.file={place / 'visits.csv'}", code=BAD_INPUT, runs="wrong")
    error = capsys.readouterr().err
    for word in (*words, "file:", "required:", "received:", "try:"):
        assert word in error, error
    assert "Traceback" not in error and not list((folder / "wrong" / "twin").rglob("provenance.json"))


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("unit: mm,", "unit: furlong,", ["furlong", "unit"]),
        (", limit: 5.0", "", ["LogNormalError", "0 mm of subject 'p1' on day 0", "recorded"]),
        ("column: mm", "colum: mm", ["colum", "column"]),
    ],
)
def test_a_bad_declaration_exits_with_3(world, capsys, old, new, words):
    folder, command, _ = world
    place = folder / "declared"
    place.mkdir(exist_ok=True)
    (place / "visits.csv").write_text(visits().replace("p1,0,", "p1,0,0.0") if "limit" in old else visits())
    text = visits().splitlines()
    first = next(i for i, line in enumerate(text) if line.startswith("p1,0,"))
    text[first] = "p1,0,0.0,b"
    (place / "visits.csv").write_text("\n".join(text) + "\n")
    (place / "mine.yaml").write_text(DECLARATION.replace(old, new))
    command("twin", f"table.declaration={place / 'mine.yaml'}", code=BAD_INPUT, runs="wrong")
    error = capsys.readouterr().err
    for word in words:
        assert word in error, error


def test_a_posterior_that_did_not_converge_is_refused_with_what_to_try(world, capsys, monkeypatch):
    folder, command, run = world
    monkeypatch.setattr(cli_cohort, "LEAST_EFFECTIVE", 1e6)
    command("forecast", f"run={run}", code=FAILED, runs="short")
    error = capsys.readouterr().err
    for word in ("not converged", "1e+06 effective draws", "received:", "try:", "more draws"):
        assert word in error, error
    assert "Traceback" not in error and not list((folder / "short").rglob("forecast.csv"))
    assert not list((folder / "short").rglob("DONE"))
