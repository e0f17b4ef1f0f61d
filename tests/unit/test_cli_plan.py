"""From a configuration to what may be planned: earlier treatment, start days, mistakes; and how treatment is put."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import twin_case as tiny

from tumortwin._errors import InputError
from tumortwin.cli_decision import outcome_words, search_of
from tumortwin.cli_files import failed_checks
from tumortwin.cli_patient import Case, planned_treatment, virtual_tumor
from tumortwin.cli_plan import Choice, choice_of, replaced_radiotherapy
from tumortwin.cli_report import assumed_treatment, dropped_words, in_words
from tumortwin.cli_scans import Setting, _day_label, map_days, prior_medians, simulated_treatment
from tumortwin.config import ConfigError, compose
from tumortwin.control import (
    CovarianceAdaptation,
    Delivered,
    FeasibleSet,
    OptaxProjected,
    ProjectedGradient,
    ScipyGradient,
    TotalDose,
    WeeklyFractions,
)
from tumortwin.control._rounding import deliverable
from tumortwin.inference import Posterior
from tumortwin.treatments import Course, Resection, Schedule, weekday_fractions
from tumortwin.twin import GliomaSettings, Twin, VirtualTumor, dropped_paths

OWN = ("patient=folder", "patient.path=nowhere")


def case_of(schedule: Schedule = tiny.TREATMENT) -> Case:
    patient = tiny.patient(schedule=schedule)
    return Case(patient, patient, ())


def composed(*overrides: str):
    return compose(["task=twin", "patient=atlas_glioma", *overrides]).config


def choice(*overrides: str, schedule: Schedule) -> Choice | str:
    return choice_of(compose(["task=twin", *overrides]).config, case_of(schedule))


def chosen(*overrides: str, schedule: Schedule) -> Choice:
    found = choice(*overrides, schedule=schedule)
    assert isinstance(found, Choice)
    return found


def weeks_of(found: Choice) -> WeeklyFractions:
    assert isinstance(found.parametrization, WeeklyFractions)
    return found.parametrization


STUPP = Schedule(weekday_fractions(5.0, 30, 2.0), {"temozolomide": Course(jnp.arange(5.0, 47.0), jnp.full(42, 0.5))})


# --- what was given before ---


def test_a_spent_budget_means_no_plan_and_the_reason():
    found = choice(*OWN, schedule=STUPP)
    assert isinstance(found, str) and "30 fractions were given" in found and "(60 Gy" in found


def test_a_second_course_within_its_own_limits_counts_the_first():
    limits = ("constraint.total_dose.limit=120.0", "constraint.normal_tissue.limit=210.0")
    found = chosen(*OWN, *limits, schedule=STUPP)
    assert found.origin == 60.0 and sum(weeks_of(found).earlier) == 60.0
    standard = found.standard
    (total,) = (c for c in found.constraints if isinstance(c, TotalDose))
    assert float(total.violation(standard, found.parametrization)) == pytest.approx(0.0)


def test_a_course_under_way_is_compared_with_what_is_left_of_the_standard():
    found = chosen(*OWN, schedule=tiny.TREATMENT)  # 4 x 2 Gy before the last scan: 52 Gy are left
    np.testing.assert_array_equal(found.standard.weekly_fraction_dose, [2.0] * 5 + [0.0])
    limits = (c for c in found.constraints if isinstance(c, TotalDose))
    assert [float(c.violation(found.standard, found.parametrization)) for c in limits] == [pytest.approx(-2.0)]


def test_a_drug_that_was_given_is_no_part_of_the_next_course():
    limits = ("constraint.total_dose.limit=120.0", "constraint.normal_tissue.limit=210.0")
    planned = weeks_of(chosen(*OWN, *limits, schedule=STUPP)).concurrent["temozolomide"]
    np.testing.assert_array_equal(planned.doses, np.ones(42))  # of `treatment`, not the half doses given before
    assert not weeks_of(chosen(*OWN, *limits, "treatment=none", schedule=STUPP)).concurrent


def test_what_lies_ahead_of_the_last_scan_is_replaced_by_the_plan():
    ahead = Schedule(weekday_fractions(70.0, 30, 2.0), {"temozolomide": Course(jnp.arange(70.0, 75.0), jnp.ones(5))})
    found = chosen(*OWN, schedule=ahead)
    assert weeks_of(found).earlier == ()
    np.testing.assert_array_equal(weeks_of(found).concurrent["temozolomide"].times, np.arange(5.0))


def test_planned_radiotherapy_that_the_plan_replaces_is_named():
    """30 weekdays from day 5: the fractions of days 40 to 44 and the last one lie ahead of day 40."""
    said = replaced_radiotherapy(case_of(STUPP), 40.0)
    ahead = int((np.asarray(STUPP.radiotherapy.times) >= 40.0).sum())
    assert said is not None and 0 < ahead < 30
    assert f"from day 40 on ({ahead} fractions)" in said and "both take its place" in said
    assert replaced_radiotherapy(case_of(STUPP), 60.0) is None


def test_a_failed_check_of_the_inference_is_said_with_what_to_try():
    draws = {"rate": np.ones((1, 4))}
    passed = {"k_hat": 0.4, "ess": 700.0, "sample_reliable": 1.0, "map_solves": 3.0}
    assert failed_checks(Posterior(draws, None, passed, "")) == ()
    (text,) = failed_checks(Posterior(draws, None, {**passed, "ess": 165.0, "sample_reliable": 0.0}, ""))
    assert "ess is 165" in text and "sample_reliable is 0, wanted yes" in text and "choose-a-calibrator" in text


def test_looking_back_replans_what_was_given():
    found = chosen(schedule=STUPP)  # the embedded patient's settings
    assert found.origin == 0.0 and weeks_of(found).earlier == ()
    np.testing.assert_array_equal(weeks_of(found).concurrent["temozolomide"].doses, np.full(42, 0.5))


# --- days ---


@pytest.mark.parametrize("patient", [(), OWN, ("patient=tcga_lgg",)])
def test_shipped_plans_start_whole_weeks_from_the_standard_of_care(patient):
    found = chosen(*patient, schedule=Schedule())
    settings = compose(["task=twin", *patient]).config
    feasible = FeasibleSet(found.constraints, found.parametrization)
    start = float(found.standard.start_day)
    assert start == settings.patient.plan.standard_start and settings.decision.start_step == 7.0
    seen = set()
    assert found.start_window is not None
    for day in np.linspace(*found.start_window, 40):
        plans = deliverable(feasible, weeks_of(found).uniform(2.0, day), 0.01, 7.0, start)
        seen |= {float(plan.start_day) for plan in plans}
    assert start in seen and len(seen) >= 3 and all((day - start) % 7.0 == 0.0 for day in seen)


@pytest.mark.parametrize(
    "mistake, word",
    [
        ("~constraint.start", "StartWindow"),
        ("~constraint.fraction_dose", "a highest fraction dose"),
        ("patient.plan.horizon=40.0", "a horizon after the last fraction"),
        ("patient.plan.standard_start=29.0", "standard of care that starts within the window"),
        ("patient.plan.earliest=0.0", "after the day from which the plan counts"),
        ("decision.fractions_per_week=6", "1-5 fractions"),
        ("+constraint.fraction_dose.low=2.9", "lowest weekly doses within the budgets"),
    ],
)
def test_mistakes_are_configuration_errors_in_three_lines(mistake, word):
    with pytest.raises(ConfigError, match=word) as caught:
        choice(*OWN, mistake, schedule=Schedule())
    assert {"required", "received"} <= {line.split(":")[0] for line in str(caught.value).splitlines()}


def test_a_patient_without_a_plan_is_not_checked():
    off = ("patient.plan.enabled=false", "patient.plan.reason=none", "~constraint.start")
    assert choice(*OWN, *off, schedule=Schedule()) == "none"


# --- treatment of the configuration ---


@pytest.mark.parametrize(
    "mistake, error, word",
    [
        ("treatment.dose=-2.0", InputError, "doses of 0 or more"),
        ("treatment.start=-20.0", InputError, "no dose before the first scan"),
        ("treatment.drug_dose=-1.0", InputError, "doses of 0 or more"),
        ("treatment.fractions=-1", ConfigError, "0 or more"),
    ],
)
def test_impossible_treatment_is_refused(mistake, error, word):
    with pytest.raises(error, match=word):
        planned_treatment(compose(["task=simulate", mistake]).config)
    assert planned_treatment(compose(["task=simulate"]).config).radiotherapy.size == 30
    assert planned_treatment(compose(["task=simulate", "treatment=none"]).config).radiotherapy.size == 0


@pytest.fixture(scope="module")
def setting() -> Setting:
    """The tiny patient, operated on and irradiated."""
    resected = Resection(3.0, jnp.asarray(tiny.ball(5.0).astype(np.float32)))
    found = case_of(Schedule(STUPP.radiotherapy, STUPP.drugs, [resected]))
    twin = Twin.of(found.known, tiny.SOLVER, tiny.prior(), spacing=4.0, margin=8.0, bucket=4)
    return Setting(found, twin, twin.problem(), {}, "")


def test_a_simulation_is_under_the_treatment_that_was_asked_for(setting):
    given = simulated_treatment(compose(["task=simulate", "treatment.start=40.0"]).config, setting)
    assert float(given.radiotherapy.times[0]) == 40.0
    assert [r.removed.shape for r in given.resections] == [setting.problem.model.tissue.grid.shape]
    assert simulated_treatment(compose(["task=simulate", "treatment=none"]).config, setting).radiotherapy.size == 0


def test_days_of_maps_are_days_of_the_forecast():
    case = case_of(tiny.TREATMENT)
    config = composed("patient.map_days=[30.0,0.0]")
    days = [0.0, 30.0, 60.0]
    assert map_days(config, case, days) == [0.0, 30.0]  # in order
    for wanted, named in (("[30.0,31.0]", "31.0"), ("[]", "no day")):
        with pytest.raises(ConfigError, match=f"patient.map_days(.|\n)*{named}(.|\n)*0, 30, 60"):
            map_days(composed(f"patient.map_days={wanted}"), case, days)


@pytest.mark.parametrize(
    ("day", "label"), [(0.0, "000"), (30.0, "030"), (90.6, "090p6"), (91.4, "091p4"), (365.25, "365p25")]
)
def test_every_day_has_a_file_of_its_own(day, label):
    assert _day_label(day) == label


def test_a_simulation_is_at_the_medians_of_the_prior(setting):
    untreated = dataclasses.replace(setting, problem=tiny.problem(tiny.patient(schedule=Schedule())))
    for one in (setting, untreated):
        found = prior_medians(one.problem)
        draws = tiny.prior()
        assert {"mechanisms.radiotherapy.alpha", "mechanisms.chemotherapy.sensitivity"} <= set(found)
        for path, value in found.items():
            np.testing.assert_allclose(draws[path].cdf(jnp.asarray(value)), 0.5, atol=1e-6)


# --- words ---


def test_what_is_known_from_the_prior_alone_is_said():
    untreated = tiny.patient(schedule=Schedule())
    said = dropped_words(dropped_paths(untreated, GliomaSettings(), tiny.prior()))
    (sentence,) = (s for s in said if s.startswith("Prior only, as nothing was given yet"))
    assert "radiosensitivity alpha, drug sensitivity" in sentence and "age" not in sentence
    assert not any(s.startswith("Prior only") for s in dropped_words({"initial.age": "the simulation starts early"}))


def test_a_forecast_says_what_it_assumes():
    assert assumed_treatment(STUPP, 60.0) == "the treatment already given, and none after"
    assert assumed_treatment(STUPP, 30.0) == (
        "the treatment already given, and then 11 fractions of 22 Gy in all (days 30 to 44), 17 doses of temozolomide "
        "(days 30 to 46)"
    )
    assert assumed_treatment(Schedule(), 60.0) == "no treatment"
    assert assumed_treatment(Schedule(STUPP.radiotherapy), 0.0) == "30 fractions of 60 Gy in all (days 5 to 44)"
    assert in_words(Schedule(), 0.0) == ""
    assert in_words(Schedule(Course(jnp.ones(1), jnp.ones(1))), 0.0) == "1 fractions of 1 Gy in all (day 1)"


def test_the_smallest_gain_is_the_same_in_the_objective_and_in_the_outcome():
    """Draws without benefit by the log burden are those without benefit by the mass that the report shows."""
    rng = np.random.default_rng(0)
    theirs, ours = rng.normal(10.0, 1.0, 200), rng.normal(9.95, 1.0, 200)
    words, readable = outcome_words("mean_log_burden", 0.05)
    standard, plan = readable(theirs), readable(ours)
    helped = standard - plan > words["benefit_from"] + words["benefit_share"] * standard
    np.testing.assert_array_equal(helped, theirs - ours > 0.05)
    assert outcome_words("time_to_progression", 3.0)[0]["benefit_from"] == 3.0


def test_a_virtual_tumor_is_drawn_from_what_the_configuration_says():
    found = virtual_tumor({"diffusivity": [0.2, 0.1], "rate_spread": 0.0})
    assert found.diffusivity == (0.2, 0.1) and found.rate_spread == 0.0 and found.rate == VirtualTumor().rate
    with pytest.raises(ConfigError, match="rate_spread"):
        virtual_tumor({"rate_spred": 0.1})


# --- the search ---


@pytest.mark.parametrize(
    ("controller", "kind"),
    [
        ("open_loop", ProjectedGradient),
        ("slsqp", ScipyGradient),
        ("momentum", OptaxProjected),
        ("cma_es", CovarianceAdaptation),
    ],  # fmt: skip
)
def test_every_search_of_weekly_fractions_is_built(controller, kind):
    settings = compose(["task=twin", f"controller={controller}"]).config.controller
    found = search_of(settings, WeeklyFractions(), WeeklyFractions().uniform(2.0, 35.0))
    if isinstance(found, Delivered):
        assert isinstance(found.controller, kind) and found.start_step == 7.0
        assert float(found.reference.start_day) == 35.0
    else:
        assert isinstance(found, kind)
