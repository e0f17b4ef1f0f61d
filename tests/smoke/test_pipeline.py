"""The whole command on a tiny folder of scans: what it leaves behind, and that every verb can start from its files."""

import json
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from tumortwin import cli_jobs
from tumortwin.cli import BAD_CONFIG, BAD_INPUT, main
from tumortwin.io import read_posterior, write_example_patient

SMALL = ["controller.draws=2", "controller.fresh_draws=2", "runtime.progress=off"]
QUICK = [
    "patient=folder", "geometry.spacing=4.0", "geometry.bucket=4", "geometry.margin=4.0", "solver.max_step=30.0",
    "calibrator=laplace", "calibrator.draws=32", "draws=4", "controller.draws=2", "controller.fresh_draws=2",
    "controller.max_gradients=1", "decision.weeks=1", "decision.fractions_per_week=2", "runtime.progress=off",
    "constraint.total_dose.limit=70.0", "constraint.normal_tissue.limit=120.0",  # the example patient has had 60 Gy
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The finished run of a patient, and how to give further commands."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_example_patient(folder / "scans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_jobs, "_prepare", lambda config: None)  # JAX stays as the tests have it
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))

        def command(verb: str, *more: str) -> Path:
            line = [verb, *QUICK, f"patient.path={folder / 'scans'}", f"paths.runs={folder / 'runs'}", *more]
            before = set((folder / "runs").rglob("provenance.json"))
            assert main(line) == 0
            found = set((folder / "runs" / verb).rglob("provenance.json"))
            return (found - before or found).pop().parent

        yield command, command("twin")


def times(run: Path) -> dict[str, int]:
    """When every file of a run was last written."""
    return {str(p.relative_to(run)): p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def test_a_run_leaves_every_file_behind(world):
    run = world[1]
    for name in ("posterior.zarr", "forecast.zarr", "plan.json", "results.json", "report.html", "scores.json", "DONE"):
        assert (run / name).exists(), name
    rows = {row["name"]: row["value"] for row in json.loads((run / "results.json").read_text())}
    assert rows["posterior.mechanisms.proliferation.rate.low"] < rows["posterior.mechanisms.proliferation.rate.high"]
    assert rows["posterior.observation.t1gd.shift[0].low"] < rows["posterior.observation.t1gd.shift[0].high"]
    (error,) = (value for name, value in rows.items() if name.startswith("forecast.time_error."))
    assert 0.0 < error < 0.05
    plan = json.loads((run / "plan.json").read_text())
    assert plan["path_gap"] < 1e-2 and set(plan["outcomes"]) == {"recommended", "equal_effect", "standard_of_care"}
    draws, prior, _, attrs = read_posterior(run / "posterior.zarr")
    assert set(draws) == set(prior) and "initial.age" in attrs["dropped"] and attrs["statement"]
    page = (run / "report.html").read_text()
    for words in ("Research software, not a medical device", "a share of the draws (Wilson)", "no such benefit"):
        assert words in page
    without = 1.0 - np.mean(helped_by(plan, "recommended"))
    assert plan["comparison"]["mean_log_burden.fraction_without_benefit"]["value"] == pytest.approx(without)


def helped_by(plan, name):
    """Draws in which a plan helps, by the outcomes and the smallest gain that the report is given."""
    ours, theirs = (np.asarray(plan["outcomes"][key]) for key in (name, "standard_of_care"))
    return theirs - ours > plan["outcome"]["benefit_from"] + plan["outcome"]["benefit_share"] * theirs


def test_maps_lie_on_the_patients_own_grid(world):
    run, scans = world[1], world[1].parents[3] / "scans"
    brain = Nifti1Image.from_filename(scans / "brain.nii.gz")
    maps = sorted((run / "derivatives").rglob("*.nii.gz"))
    (day,) = {m.name.split("forecastD")[1][:3] for m in maps}
    names = [f"sub-example_desc-forecastD{day}_stat-{stat}_map.nii.gz" for stat in ("mean", "ptumor", "std")]
    assert maps == [run / "derivatives" / "sub-example" / "anat" / name for name in names]
    for path in maps:
        image = Nifti1Image.from_filename(path)
        np.testing.assert_allclose(np.asarray(image.affine), np.asarray(brain.affine), atol=1e-5)
        assert image.shape == brain.shape and np.isfinite(np.asarray(image.dataobj)).all()
    p = np.asarray(Nifti1Image.from_filename(next(m for m in maps if "ptumor" in m.name)).dataobj)
    assert 0.0 <= p.min() and 0.1 < p.max() <= 1.0


def test_an_interrupted_run_redoes_only_what_is_missing(world):
    command, run = world
    before = times(run)
    (run / "DONE").unlink()
    (run / "report.html").unlink()
    assert command("twin") == run
    after = times(run)
    kept = [n for n in before if n.split("/")[0] in ("posterior.zarr", "forecast.zarr", "plan.json", "derivatives")]
    assert kept and all(before[n] == after[n] for n in kept)
    assert after["report.html"] > before["report.html"] and "DONE" in after


@pytest.mark.parametrize(
    "mistake, code, word",
    [
        ("~constraint.start", BAD_CONFIG, "window for the start day"),
        ("patient.plan.horizon=20.0", BAD_CONFIG, "horizon after the last fraction"),
        ("patient.plan.standard_start=40.0", BAD_CONFIG, "standard of care that starts within the window"),
        ("treatment.dose=-2.0", BAD_INPUT, "doses of 0 or more"),
    ],
)
def test_a_mistake_in_the_plan_is_said_before_anything_long_begins(world, capsys, mistake, code, word):
    scans, runs = world[1].parents[3] / "scans", world[1].parents[3] / "wrong"
    line = ["twin", *QUICK, f"patient.path={scans}", f"paths.runs={runs}", mistake]
    assert main(line) == code
    assert word in capsys.readouterr().err and not list(runs.rglob("posterior.zarr"))


def test_a_second_course_within_the_limits_of_the_first_is_refused_with_the_reason(world):
    new = world[0]("recommend", f"run={world[1]}", "constraint.total_dose.limit=60.0")
    assert not (new / "plan.json").exists()
    assert "30 fractions were given before the day of the plan (60 Gy" in (new / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, given",
    [
        (
            ["decision=daily_doses", "decision.fractions=2", "decision.drug_days=2", "controller.search.starts=1",
             "controller.search.max_iterations=1", "constraint.total_dose.limit=66.0",
             "constraint.normal_tissue.limit=115.0"],
            ("radiotherapy", "temozolomide"),
        ),
        (["decision=adjuvant_cycles", "controller=cma_es", "controller.search.evaluations=2", "risk=mean",
          "objective=time_to_progression"], ("temozolomide",)),
    ],
)  # fmt: skip
def test_a_decision_on_fixed_days_starts_from_the_files_of_an_earlier_run(world, line, given):
    """The limits and the search of the earlier run were of another decision: they are not taken over."""
    _, run = world
    runs = run.parents[3] / "decisions"
    assert main(["recommend", f"run={run}", f"paths.runs={runs}", *SMALL, *line]) == 0
    plans = {p.parent: json.loads(p.read_text()) for p in runs.rglob("plan.json")}
    (new,) = (folder for folder, plan in plans.items() if plan["decision"]["decides"] == " and ".join(given))
    plan = json.loads((new / "plan.json").read_text())
    assert plan["path_gap"] < 1e-2 and not plan["common"]["defined"] and (new / "schedules" / "schedules.png").exists()
    assert ("equal_effect" in plan) == ("radiotherapy" in given)
    assert all(entry["violation"] <= 1e-6 for entry in plan["constraints"])
    assert all((agent in plan["toxicity_measure"]) == (agent == "temozolomide") for agent in given)
    assert main(["report", f"run={new}", f"paths.runs={runs}", "runtime.progress=off"]) == 0
    (page,) = (p for p in runs.rglob("report.html") if str(new) in (p.parent / "provenance.json").read_text())
    assert "Recommended schedule against standard of care" in page.read_text()


@pytest.mark.parametrize("verb, left", [("report", "report.html"), ("forecast", "forecast.zarr")])
def test_a_verb_starts_from_the_files_of_an_earlier_run(world, verb, left):
    command, run = world
    before = times(run)
    new = command(verb, f"run={run}")
    assert new != run and (new / left).exists() and not (new / "posterior.zarr").exists()
    assert times(run) == before
