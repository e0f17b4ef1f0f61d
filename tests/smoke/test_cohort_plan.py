"""`recommend` on a small table: schedules of the drug for its subjects, what is refused, and that it resumes."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tumortwin import cli_cohort, cli_jobs
from tumortwin.cli import BAD_CONFIG, BAD_INPUT, main
from tumortwin.inference import Posterior

pytestmark = pytest.mark.slow

DECLARATION = """
label: clinic
folder: .
file: visits.csv
subject: patient
time: {column: day, unit: day}
quantities:
  psa: {column: psa, unit: ng/mL}
doses:
  abiraterone: {column: "on", unit: "1"}
"""
QUICK = [
    "cancer=prostate", "table=own", "draws=10", "cohort.grid=4", "cohort.panels=2", "controller.draws=6",
    "controller.fresh_draws=6", "decision.intervals=3", "decision.horizon=84.0", "decision.budget=2.0",
    "decision.subjects=2", "cluster=local", "runtime.progress=off",
]  # fmt: skip
CHAINS, DRAWS = 2, 150


def visits() -> str:
    """Three patients whose PSA falls on the drug and rises without it."""
    rng, lines = np.random.default_rng(0), ["patient,day,psa,on"]
    for i in range(3):
        psa = 15.0
        for k in range(6):
            on = int(k < 3)
            lines.append(f"P{i},{28 * k},{psa:.3f},{on}")
            psa *= np.exp(28 * (0.01 - 0.04 * on) + rng.normal(0.0, 0.1))
    return "\n".join(lines) + "\n"


def believed(problem, calibrator, *, key, progress, checkpoint) -> Posterior:
    """Draws of the prior in the place of a posterior: what a sampler finds is tested elsewhere."""
    z = problem.sample_prior(CHAINS * DRAWS, key=key)
    draws = jax.vmap(problem.constrain)(z)
    shaped = {path: np.asarray(v).reshape(CHAINS, DRAWS, *v.shape[1:]) for path, v in draws.items()}
    return Posterior(shaped, None, {"divergences": 0.0}, "The prior itself.", prior_draws=shaped)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A clinic's table, its finished run, and how to give further commands."""
    folder = tmp_path_factory.mktemp("clinic")
    (folder / "mine.yaml").write_text(DECLARATION)
    (folder / "visits.csv").write_text(visits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_jobs, "_prepare", lambda config: None)  # JAX stays as the tests have it
        patch.setattr(cli_cohort, "calibrate", believed)
        patch.setattr(cli_cohort, "forecasted", lambda *_: None)  # tested in test_cohort_pipeline

        def command(verb: str, *more: str, code: int = 0) -> Path | None:
            line = [verb, *QUICK, f"table.declaration={folder / 'mine.yaml'}", f"paths.runs={folder / 'runs'}", *more]
            before = set((folder / "runs").rglob("provenance.json"))
            assert main(line) == code
            found = set((folder / "runs" / verb).rglob("provenance.json"))
            return next((p.parent for p in found - before), next((p.parent for p in found), None))

        yield command, command("twin")


def plan_of(run: Path) -> dict:
    return json.loads((run / "plan.json").read_text())


def test_a_twin_of_a_table_ends_with_schedules(world):
    run = world[1]
    content = plan_of(run)
    assert [one["subject"] for one in content["subjects"]] == ["P0", "P1"] and content["common"]["defined"]
    assert content["standard_of_care"] == "continuous treatment" and content["decision"]["decides"] == "abiraterone"
    for number, one in enumerate(content["subjects"], start=1):
        assert one["table_day"] == 84.0  # the last reading that is not held out
        assert sum(one["plan"]["on"]) <= 2.0 and one["standard_of_care"]["on"] == [1.0, 1.0, 1.0]
        assert one["toxicity_measure"] == "cumulative dose of drug"
        entry = one["comparison"]["mean_log_burden.expected_gain"]
        assert entry["low"] <= entry["value"] <= entry["high"] <= 1e-9
        assert one["comparison"]["drug_used.expected_gain"]["value"] >= 28.0 - 1e-6
        assert {"probability_of_benefit", "fraction_without_benefit"} <= {k.split(".")[1] for k in one["comparison"]}
        assert "time_to_progression.expected_gain" in one["comparison"] and len(one["prior_sensitivity"]) == 2
        assert "mean_log_burden.expected_gain" in one["against_common"] and "expected gain" in one["statement"]
        assert (run / "schedules" / f"subject_{number}.png").read_bytes().startswith(b"\x89PNG")
    rows = {row["name"]: row["value"] for row in json.loads((run / "results.json").read_text())}
    assert rows["plan.P1.mean_log_burden.expected_gain"] <= 1e-9 and "plan.P0.toxicity.drug_total_change" in rows
    assert "plan.P0.over_common.mean_log_burden.low" in rows
    page = (run / "report.html").read_text()
    for words in (
        "Recommended schedule against standard of care",
        "in common",
        "cumulative dose of drug",
        "abiraterone",
    ):
        assert words in page, words


def test_another_decision_starts_from_the_files_of_the_run(world):
    command, run = world
    before = (run / "posterior.zarr").stat().st_mtime_ns
    line = (
        f"run={run}",
        "decision=drug_rule",
        "controller=exhaustive",
        "controller.search.points=2",
        "risk=worst_case",
    )
    new = command("recommend", *line)
    content = plan_of(new)
    assert new != run and content["decision"]["kind"] == "rule" and not (new / "posterior.zarr").exists()
    one = content["subjects"][0]
    assert 0.1 <= one["plan"]["stop"] <= 1.0 and one["risk"]["measure"] == "worst_case"
    assert one["toxicity_measure"] == "none of the decided doses" and "drug_used.expected_gain" in one["comparison"]
    assert (run / "posterior.zarr").stat().st_mtime_ns == before
    # The same command takes the unfinished run up again and does only what is missing.
    kept = (new / "plan.json").stat().st_mtime_ns
    (new / "DONE").unlink()
    assert command("recommend", *line) == new and (new / "plan.json").stat().st_mtime_ns == kept
    told = command("report", f"run={new}")
    assert "start again" in (told / "report.html").read_text() or "restart" in (told / "report.html").read_text()


def test_one_subject_by_name_and_a_limit_that_cannot_be_kept(world):
    command, run = world
    line = (f"run={run}", "decision.subject=P2", "objective=drug_used", "constraint=progression_free")
    impossible = command("recommend", *line, "constraint.progression_free.limit=-84.0",
                         "constraint.progression_free.probability=0.99")  # fmt: skip
    content = plan_of(impossible)
    (one,) = content["subjects"]
    assert one["subject"] == "P2" and "chance_limit" in one["refused"] and "plan" not in one
    assert "No schedule keeps the limits for P2" in content["statement"] and not content["common"]["defined"]


def test_a_front_is_written_drawn_told_and_taken_up_again(world):
    command, run = world
    line = (f"run={run}", "front=drug_used", "front.shares=[0.0,0.5]", "decision.subject=P1")
    new = command("recommend", *line)
    (one,) = plan_of(new)["subjects"]
    front = one["front"]
    prices = [point["price"] for point in front["points"]]
    assert prices == sorted(prices) and prices[-1] <= 56.0 + 1e-6  # a budget of two intervals of 28 days
    assert front["unit"] == "day" and front["standard_of_care"]["price"] == pytest.approx(84.0)
    assert front["hypervolume"] > 0.0 and front["reference"]["price"] > 84.0 and len(front["points"]) >= 2
    assert front["statement"] in one["statement"] and "A front of" in one["picture"]["alt"]
    rows = {row["name"]: row["value"] for row in json.loads((new / "results.json").read_text())}
    assert ("plan.P1.front.enough" in rows) == (front["enough"] is not None)
    kept = (new / "plan.json").stat().st_mtime_ns
    (new / "DONE").unlink()
    command("recommend", *line)
    assert (new / "DONE").is_file() and (new / "plan.json").stat().st_mtime_ns == kept
    told = command("report", f"run={new}")
    assert "Front against drug used at the full dose" in (told / "report.html").read_text()
    other = command("recommend", f"run={new}", "decision=drug_rule", "controller=exhaustive",
                    "controller.search.points=2")  # fmt: skip
    assert "front" not in plan_of(other)["subjects"][0]  # asked of another decision, so not taken over


def test_a_trial_revises_the_plan_at_every_visit_and_is_told(world):
    command, run = world
    line = (f"run={run}", "trial=closed_loop", "trial.patients=3", "trial.pool=30", "decision.subject=P1")
    new = command("recommend", *line)
    (one,) = plan_of(new)["subjects"]
    trial = one["trial"]
    assert trial["patients"] == 3 and all(sum(course) <= 2.0 + 1e-6 for course in trial["courses"])
    assert [course[0] for course in trial["courses"]] == [one["plan"]["on"][0]] * 3  # the first block is that of today
    assert set(trial["objectives"]) == {"mean_log_burden", "time_to_progression", "drug_used"}
    assert trial["statement"] in one["statement"] and "3 virtual patients" in trial["statement"]
    rows = {row["name"]: row["value"] for row in json.loads((new / "results.json").read_text())}
    gain = trial["objectives"]["drug_used"]["gain_of_revising"]
    assert rows["plan.P1.gain_of_revising.drug_used.value"] == gain["value"]
    kept = (new / "plan.json").stat().st_mtime_ns
    (new / "DONE").unlink()
    command("recommend", *line)
    assert (new / "DONE").is_file() and (new / "plan.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    "override, words",
    [
        (["decision=drug_rule", "trial=closed_loop"], ["trial", "kind rule"]),
        (["front=toxicity"], ["front=... for the subjects of a table", "drug_used"]),
        (["front=drug_used", "objective=drug_used"], ["another measure than the objective"]),
        (["front=drug_used", "front.shares=[1.5]"], ["shares of 0 or more and below 1"]),
        (["controller=momentum"], ["kind whole", "relax_and_round"]),
        (["constraint=standard"], ["constraint", "drug_budget"]),
        (["decision.subject=P9"], ["P9", "P0"]),
        (["decision.subjects=0"], ["decision.subjects of 1 or more"]),
        (["decision.horizon=50.0"], ["a horizon after the start of the last"]),
        (["decision.budget=-1.0"], ["cumulative_dose"]),
    ],
)
def test_what_does_not_fit_exits_with_2_and_says_what_does(world, capsys, override, words):
    command, run = world
    command("recommend", f"run={run}", *override, code=BAD_CONFIG)
    error = capsys.readouterr().err
    for word in (*words, "required:", "received:"):
        assert word in error, error
    assert "Traceback" not in error


def test_a_decision_for_scans_is_refused_with_those_for_tables(world, capsys):
    """What the earlier run said of its own decision is not taken over, so that the refusal is of the decision."""
    assert main(["recommend", f"run={world[1]}", "decision=weekly_doses"]) == BAD_CONFIG
    error = capsys.readouterr().err
    for word in (
        "decision=... for the subjects of a table",
        "one for a patient with scans",
        "drug_on_off",
        "drug_rule",
    ):
        assert word in error, error


def test_a_schedule_without_a_posterior_is_refused(world, capsys):
    world[0]("recommend", code=BAD_INPUT)
    assert "posterior.zarr of this run or of the run it starts from" in capsys.readouterr().err
