"""Objective, risk, limits, search and decision: every combination of the shipped choices either works or is refused.

What fits is decided facet by facet, so all combinations are gone through in words, and every pair whose parts meet in a
computation (search and decision, limits and decision, objective and curve, risk and losses) is tried on small problems.
"""

import dataclasses
import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from tumortwin.cli_cohort_plan import NEVER
from tumortwin.cli_decision import agents_of, check_region, kind_of, parts_of, picture_of, search_of
from tumortwin.cli_front import front_rows
from tumortwin.config import (
    FITS,
    ConfigError,
    compose,
    config_dir,
    declared,
    fitting,
    group_options,
    instantiate,
    unfit,
)
from tumortwin.control import (
    AbstractOutcomeLimit,
    AbstractSlots,
    Curve,
    DrugUsed,
    PlanningProblem,
    WeeklyFractions,
    curves,
    hypervolume,
    plan,
    recommend,
    sample_risk,
)
from tumortwin.control._evaluate import losses_of
from tumortwin.models import IndependentClones
from tumortwin.twin import Decision, SubjectDraw, TreatedSubject

CANCERS = {"glioma": "scans", "lung": "cohort", "prostate": "cohort"}
GROUPS = ("objective", "risk", "constraint", "controller", "front", "trial")
STATES = ("sensitive", "resistant")
DECISIONS = [
    (c, d) for c in CANCERS for d in group_options("decision") if CANCERS[c] in declared("decision", d)["pipeline"]
]
SMALL = {
    "glioma": ["patient.plan.standard_start=7.0", "patient.plan.earliest=1.0", "patient.plan.latest=28.0"],
    "lung": [], "prostate": [],
}  # fmt: skip


@cache
def composed(cancer: str, *overrides: str):
    return compose([f"cancer={cancer}", *SMALL[cancer], *overrides]).config


@cache
def leaf(group: str, name: str) -> dict:
    """A choice of a group as its file has it, not yet resolved."""
    node = OmegaConf.load(config_dir() / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    bases = [leaf(group, base) for base in node.pop("defaults", ()) if base != "_self_"]
    return OmegaConf.to_container(OmegaConf.merge(*bases, node))  # type: ignore[return-value]


def with_choices(cancer: str, decision: str, **chosen: str) -> DictConfig:
    config = OmegaConf.create(OmegaConf.to_container(composed(cancer, f"decision={decision}"), resolve=False))
    assert isinstance(config, DictConfig)
    for group, name in chosen.items():
        config[group] = leaf(group, name) | (
            {k: config.controller[k] for k in ("draws", "fresh_draws")} if group == "controller" else {}
        )
    return config


@cache
def parametrization_of(cancer: str, decision: str):
    config = composed(cancer, f"decision={decision}")
    if decision == "weekly_doses":
        return WeeklyFractions(int(config.decision.weeks), int(config.decision.fractions_per_week))
    return instantiate(config.decision.parametrization, where="decision.parametrization")


@cache
def facets_of(cancer: str, decision: str, constraint: str, front: str = "none") -> dict[str, frozenset[str]]:
    decided = parametrization_of(cancer, decision)
    return {
        "pipeline": frozenset({CANCERS[cancer]}),
        "kind": frozenset({kind_of(decided)}),
        "decides": frozenset({agents_of(decided)}),
        "quantity": frozenset(STATES if CANCERS[cancer] == "cohort" else ()),
        "limits": frozenset({"outcome" if "progression_free" == constraint or "drug_used" == front else "decision"}),
    }


declared_once = cache(declared)


def fits(cancer: str, decision: str, **chosen: str) -> bool:
    facets = facets_of(cancer, decision, chosen["constraint"], chosen.get("front", "none"))
    return not any(unfit(declared_once(group, name), facets) for group, name in chosen.items())


def test_every_choice_says_what_it_is_for():
    for group in GROUPS:
        for name in group_options(group):
            assert declared(group, name) == leaf(group, name)[FITS] != {}, (group, name)


@pytest.mark.parametrize("cancer, decision", DECISIONS)
def test_every_combination_fits_or_is_refused_and_the_defaults_fit(cancer, decision):
    """All products of choices; every choice of every group is of use in some combination of some decision."""
    products = itertools.product(*(group_options(group) for group in GROUPS))
    working = [p for p in products if fits(cancer, decision, **dict(zip(GROUPS, p, strict=True)))]
    assert working
    shipped = composed(cancer, f"decision={decision}")
    for group in GROUPS:
        assert not unfit(shipped[group][FITS], facets_of(cancer, decision, "none")), group
    for controller in {p[3] for p in working}:
        config = with_choices(cancer, decision, controller=controller, constraint=shipped_constraint(cancer, decision))
        decided = parametrization_of(cancer, decision)
        assert parts_of(config, decided, STATES).risk.describe()
        search_of(config.controller, decided, decided.variables(jnp.zeros(decided.space.size)))


@cache
def shipped_constraint(cancer: str, decision: str) -> str:
    shipped = composed(cancer, f"decision={decision}").constraint
    return next(n for n in group_options("constraint") if leaf("constraint", n) == OmegaConf.to_container(shipped))


def test_every_choice_works_somewhere():
    used: set[tuple[str, str]] = set()
    every = {(group, name) for group in GROUPS for name in group_options(group)}
    for cancer, decision in DECISIONS:
        for constraint in group_options("constraint"):
            facets = facets_of(cancer, decision, constraint)
            if not unfit(declared_once("constraint", constraint), facets):
                used |= {(group, name) for group, name in every if not unfit(declared_once(group, name), facets)}
    assert used == every


@pytest.mark.parametrize(
    "cancer, decision, chosen, words",
    [
        ("lung", "drug_on_off", {"controller": "slsqp"}, ["kind whole", "weekly or continuous", "exhaustive"]),
        ("lung", "drug_doses", {"constraint": "standard"}, ["constraint", "the subjects of a table", "drug_budget"]),
        ("glioma", "weekly_doses", {"objective": "drug_used"}, ["objective", "a patient with scans", "log_burden"]),
        ("glioma", "daily_doses", {"constraint": "standard"}, ["kind continuous", "kind weekly", "chemoradiation"]),
        ("prostate", "drug_doses", {"constraint": "progression_free", "controller": "momentum"}, ["outcome", "slsqp"]),
        ("prostate", "drug_doses", {"front": "drug_used", "controller": "momentum"}, ["outcome", "slsqp", "front"]),
        ("lung", "drug_on_off", {"front": "drug_used", "objective": "drug_used"}, ["front", "mean_log_burden"]),
        ("lung", "drug_rule", {"trial": "closed_loop"}, ["trial", "kind rule", "none"]),
        ("lung", "drug_on_off", {"front": "toxicity"}, ["front", "the subjects of a table", "drug_used"]),
        ("glioma", "adjuvant_cycles", {"front": "toxicity"}, ["front", "decisions on temozolomide", "none"]),
    ],
)  # fmt: skip
def test_a_combination_that_does_not_fit_says_what_does(cancer, decision, chosen, words):
    config = with_choices(cancer, decision, **chosen)
    with pytest.raises(ConfigError) as error:
        parts_of(config, parametrization_of(cancer, decision), STATES)
    for word in (*words, "required:", "received:", "try:"):
        assert word in str(error.value), str(error.value)


def test_too_many_decisions_for_an_exhaustive_search_are_refused():
    config = with_choices("lung", "drug_on_off", controller="exhaustive")
    config.controller.search.most = 100
    with pytest.raises(ConfigError, match="at most 100 decisions(.|\n)*4096(.|\n)*relax_and_round"):
        check_region(config, parametrization_of("lung", "drug_on_off"), ())


def test_a_budget_that_no_schedule_keeps_is_refused():
    config = with_choices("lung", "drug_on_off", constraint="drug_budget")
    config.decision.budget = -1.0
    parts = parts_of(config, parametrization_of("lung", "drug_on_off"))
    with pytest.raises(ConfigError, match="cumulative_dose"):
        check_region(config, parametrization_of("lung", "drug_on_off"), parts.constraints)


# --- pairs that meet in a computation, on small problems ---

VISITS, HORIZON = tuple(28.0 * k for k in range(4)), 112.0


def subject_draws(size: int, seed: int = 0) -> SubjectDraw:
    """A tumor on the drug: sensitive cells are few, resistant ones grow."""
    rng = np.random.default_rng(seed)

    def around(middle, spread):
        return jnp.asarray(middle * np.exp(spread * rng.standard_normal(size)))

    values = {
        "growth_rate": around(0.01, 0.3), "drug_kill": around(0.04, 0.2), "resistant_rate": around(0.004, 0.3),
        "resistant_share": jnp.full(size, 0.01), "start": around(20.0, 0.1),
    }  # fmt: skip
    model = IndependentClones(**{**values, "start": around(5.0, 0.2), "resistant_share": jnp.full(size, 0.1)})
    return SubjectDraw(values, model.initial(), values["start"], jnp.ones(size, bool))


def small_decision(cancer: str, decision: str, **chosen: str):
    config = with_choices(cancer, decision, **chosen)
    if CANCERS[cancer] == "cohort":
        config.decision.interval, config.decision.intervals, config.decision.horizon = 28.0, 4, HORIZON
        config.decision.budget = 2.0
    return config


def subject_problem(config) -> PlanningProblem:
    decided = instantiate(config.decision.parametrization, where="decision.parametrization")
    parts = parts_of(config, decided, STATES)
    limits = (*parts.constraints, *parts.outcome_limits)
    decision = Decision(decided, parts.objective, parts.risk, limits, HORIZON, VISITS, "ng/mL")
    law = IndependentClones(*map(jnp.asarray, (0.01, 0.04, 0.001, 0.01, 1.0)))
    return PlanningProblem(
        TreatedSubject(law, decision.days, VISITS, "ng/mL"),
        subject_draws(6), decided, parts.objective, parts.risk, parts.constraints,
        sequential=False, outcome_limits=parts.outcome_limits,
    )  # fmt: skip


def continuous(problem: PlanningProblem):
    decided = problem.parametrization
    return jnp.asarray(decided.of_doses(1.0) if isinstance(decided, AbstractSlots) else NEVER)


TABLES = [
    (d, c)
    for d in ("drug_on_off", "drug_levels", "drug_doses", "drug_rule")
    for c in group_options("controller")
    if fits("prostate", d, controller=c, constraint=shipped_constraint("prostate", d))
]


def short(config) -> None:
    """A few steps of any search."""
    search = config.controller.search
    few = {"evaluations": 40, "max_iterations": 5, "steps": 15, "max_steps": 2, "max_nodes": 20}
    if isinstance(search, str):  # `suitable`
        return
    for name in few.keys() & set(search):
        search[name] = few[name]


@pytest.mark.parametrize("decision, controller", TABLES)
def test_every_search_plans_every_decision_on_a_drug(decision, controller):
    config = small_decision("prostate", decision, controller=controller)
    short(config)
    problem = subject_problem(config)
    search = search_of(config.controller, problem.parametrization, continuous(problem))
    found = plan(problem, controller=search, key=jax.random.key(0))
    assert all(entry["violation"] <= 1e-6 for entry in found.constraints)
    if decision != "drug_rule":
        # The budget is used up: all that is killed early stays away, and the average over time rewards it.
        given = np.asarray(problem.parametrization.courses(found.variables)["drug"].doses)
        assert given.sum() == pytest.approx(2.0, abs=0.1 if decision == "drug_doses" else 1e-9)
        assert given[:2].sum() >= given[2:].sum()


@pytest.mark.parametrize("decision, controller", [("drug_on_off", "suitable"), ("drug_rule", "exhaustive")])
def test_a_plan_of_a_drug_is_compared_by_gain_and_drug_used(decision, controller):
    config = small_decision("prostate", decision, controller=controller)
    if decision == "drug_rule":
        config.controller.search.points = 3
    problem = subject_problem(config)
    standard = continuous(problem)
    found = recommend(
        problem, search_of(config.controller, problem.parametrization, standard), standard,
        fresh_draws=subject_draws(6, seed=1), fresh_log_prior=np.zeros(6),
        objectives=[DrugUsed(0.0, HORIZON)], key=jax.random.key(0),
    )  # fmt: skip
    used = found.comparison.entries["drug_used.expected_gain"].value
    if decision == "drug_rule":
        assert found.toxicity_measure == "none of the decided doses" and -1e-9 <= used <= HORIZON
    else:
        assert used == pytest.approx(HORIZON - 28.0 * 2.0) and found.toxicity_measure == "cumulative dose of drug"
    stored = found.to_json()
    assert found.equal_effect_plan is None and "equal_effect" not in stored and len(stored["prior_sensitivity"]) == 2
    assert found.comparison.entries["mean_log_burden.expected_gain"].value <= 1e-9  # nothing beats continuous treatment
    assert "It changes the dose of drug by -2 of 4." in stored["statement"] or decision == "drug_rule"
    picture = picture_of(found, origin=0.0, burden="psa", unit="ng/mL", name="subject_1")
    assert picture.png.startswith(b"\x89PNG") and "recommended" in picture.caption and "standard of care" in picture.alt


@pytest.mark.parametrize("decision", ["drug_on_off", "drug_rule"])
def test_every_objective_and_risk_is_a_number_of_a_subject(decision):
    problem, facets = subject_problem(small_decision("prostate", decision)), facets_of("prostate", decision, "none")
    config = small_decision("prostate", decision)
    objectives = []
    for name in fitting("objective", facets):
        config.objective = leaf("objective", name)
        objectives.append(instantiate(config.objective, where="objective"))
    values = losses_of(objectives, curves(problem, continuous(problem)))
    assert values.shape == (7, 6) and np.isfinite(values).all()
    risks = [instantiate(leaf("risk", name), where="risk") for name in fitting("risk", facets)]
    found = np.asarray(jax.jit(jax.vmap(lambda v: jnp.stack([risk(v) for risk in risks])))(values))
    low, high = np.asarray(values).min(axis=1), np.asarray(values).max(axis=1)
    assert len(risks) == 6 and (found >= low[:, None] - 1e-9).all() and (found <= high[:, None] + 0.1).all()


def test_the_least_drug_that_keeps_most_draws_free_of_progression():
    """Exhaustive: fewer on-intervals would break the limit, and the limit is kept."""
    config = small_decision(
        "prostate", "drug_on_off", objective="drug_used", constraint="progression_free", controller="exhaustive"
    )
    config.constraint.progression_free.limit = -84.0
    problem = subject_problem(config)
    (limit,) = problem.outcome_limits
    found = recommend(
        problem, search_of(config.controller, problem.parametrization, None), continuous(problem),
        fresh_draws=subject_draws(6, seed=1), key=jax.random.key(0),
    )  # fmt: skip
    on = np.asarray(found.plan.variables)
    every = np.asarray(list(itertools.product((0.0, 1.0), repeat=4)))
    values = [losses_of([limit.objective], curves(problem, jnp.asarray(v)))[0] for v in every]
    least = min(v.sum() for v, found_ in zip(every, values, strict=True) if float(limit.residual(found_)) <= 1e-9)
    assert 0 < on.sum() < 4 and on.sum() == least
    assert found.plan.constraints[-1]["kept"] and isinstance(limit, AbstractOutcomeLimit)


FIXED_DAYS = ("daily_doses", "weekly_levels", "adjuvant_cycles")
SCANS = [
    (d, c)
    for d in FIXED_DAYS
    for c in group_options("controller")
    if fits("glioma", d, controller=c, constraint=shipped_constraint("glioma", d))
]


def chemoradiation(draw, schedule) -> Curve:
    """Exponential growth under linear-quadratic fractions and a drug that kills in proportion to its dose."""
    days = jnp.linspace(0.0, 180.0, 5)
    killed = jnp.zeros(5)
    radiation = schedule.radiotherapy
    for times, kill in (
        (radiation.times, draw["alpha"] * radiation.doses * (1.0 + radiation.doses / 10.0)),
        *((c.times, draw["drug"] * c.doses) for c in schedule.drugs.values()),
    ):
        killed = killed + jnp.sum(jax.nn.sigmoid(days[:, None] - times[None, :]) * kill[None, :], axis=1)
    return Curve(days, jnp.exp(0.03 * days - killed))


def scans_problem(decision: str, controller: str):
    """The problem of a decision of a patient with scans, its standard of care, and its search."""
    config = with_choices("glioma", decision, controller=controller, constraint=shipped_constraint("glioma", decision))
    decided = parametrization_of("glioma", decision)
    if controller == "exhaustive" and decision == "weekly_levels":
        config.controller.search.most = 5000
    short(config)
    parts = parts_of(config, decided)
    check_region(config, decided, parts.constraints)
    standard = (
        jnp.asarray(decided.of_doses([float(v) for v in config.decision.standard]))
        if isinstance(decided, AbstractSlots)
        else jnp.asarray([77.0, 28.0])
    )
    draws = {"alpha": jnp.asarray([0.03, 0.05]), "drug": jnp.asarray([0.01, 0.03])}
    arguments = (chemoradiation, draws, decided, parts.objective, parts.risk, parts.constraints)
    problem = PlanningProblem(*arguments, sequential=False)
    return problem, standard, search_of(config.controller, decided, standard)


@pytest.mark.parametrize("decision, controller", SCANS)
def test_every_search_plans_every_decision_on_fixed_days(decision, controller):
    problem, standard, search = scans_problem(decision, controller)
    found = plan(problem, controller=search, key=jax.random.key(0))
    assert all(entry["violation"] <= 1e-6 for entry in found.constraints)
    if controller not in ("cma_es", "momentum"):  # cut short here
        assert found.risk["value"] <= float(problem.risk(problem.losses(standard))) + 1e-6


@pytest.mark.parametrize("decision, controller", [("weekly_levels", "relax_and_round"), ("adjuvant_cycles", "cma_es")])
def test_radiotherapy_has_an_equal_effect_twin_and_a_drug_alone_has_none(decision, controller):
    problem, standard, search = scans_problem(decision, controller)
    found = recommend(problem, search, standard, fresh_draws=problem.draws, key=jax.random.key(0))
    radiotherapy = decision == "weekly_levels"
    assert (found.equal_effect_plan is not None) == ("BED" in found.toxicity_measure) == radiotherapy
    assert ("temozolomide" in found.toxicity_measure) != radiotherapy
    if found.equal_effect_plan is not None:
        assert found.equal_effect_plan.toxicity["bed_3_gy"] <= found.standard_of_care.toxicity["bed_3_gy"] + 1e-6


# --- fronts ---


@pytest.mark.parametrize("shares", [[], [0.5, 1.0], [-0.1]])
def test_shares_of_a_front_that_are_none_are_refused(shares):
    config = with_choices("glioma", "weekly_levels", front="toxicity")
    config.front.shares = shares
    with pytest.raises(ConfigError, match="required: shares(.|\n)*try:(.|\n)*front.shares"):
        parts_of(config, parametrization_of("glioma", "weekly_levels"))


def test_a_front_of_a_drug_is_the_best_schedule_for_each_number_of_intervals_on():
    """Of two days at the full dose less, what is best among all schedules by brute force, and it is drawn and told."""
    config = small_decision("prostate", "drug_on_off", controller="exhaustive", front="drug_used")
    config.front.shares = [0.0, 0.5]
    problem, parts = subject_problem(config), parts_of(config, parametrization_of("prostate", "drug_on_off"), STATES)
    found = recommend(
        problem, search_of(config.controller, problem.parametrization, None), continuous(problem),
        fresh_draws=subject_draws(6, seed=1), aim=parts.aim, key=jax.random.key(0),
    )  # fmt: skip
    every = np.asarray(list(itertools.product((0.0, 1.0), repeat=4)))
    risks = np.asarray([sample_risk(problem, jnp.asarray(v)) for v in every])
    best = [risks[every.sum(axis=1) <= n].min() for n in (0, 1, 2)]
    content = found.to_json()["front"]
    np.testing.assert_allclose([p["price"] for p in content["points"]], [0.0, 28.0, 56.0])
    np.testing.assert_allclose([p["risk"] for p in content["points"]], best)
    assert [p["recommended"] for p in content["points"]] == [False, False, True]
    standard = content["standard_of_care"]
    assert standard["price"] == pytest.approx(HORIZON) and standard["risk"] < best[-1] and content["enough"] is None
    fresh = problem.with_draws(subject_draws(6, seed=1))
    assert content["points"][1]["fresh_risk"] == pytest.approx(
        sample_risk(fresh, jnp.asarray(content["points"][1]["plan"]["on"]))
    )
    by_hand = hypervolume(
        np.asarray([(p["risk"], p["price"]) for p in content["points"]]), [*content["reference"].values()]
    )
    assert content["hypervolume"] == pytest.approx(by_hand) and content["hypervolume_unit"] == "ln day"
    assert "Front against drug used at the full dose: from 0 day" in found.describe()
    picture = picture_of(found, origin=0.0, burden="psa", unit="ng/mL", name="subject_1")
    assert "burden, times that under the standard of care against drug used at the full dose, day" in picture.caption
    rows = {row["name"]: row["value"] for row in front_rows({"front": content}, "plan.P0")}
    assert not rows and not front_rows({}, "plan.P0")  # none is as good as the standard of care
    good = {"front": {**content, "enough": 28.0}}
    assert [(r["name"], r["value"]) for r in front_rows(good, "plan.P0")] == [("plan.P0.front.enough", 28.0)]


def test_a_front_of_a_rule_limits_the_drug_on_average():
    config = small_decision("prostate", "drug_rule", controller="exhaustive", front="drug_used")
    config.controller.search.points = 4
    config.front.shares = [0.9]
    problem, parts = subject_problem(config), parts_of(config, parametrization_of("prostate", "drug_rule"), STATES)
    found = recommend(
        problem, search_of(config.controller, problem.parametrization, None), continuous(problem),
        fresh_draws=subject_draws(6, seed=1), aim=parts.aim, key=jax.random.key(0),
    )  # fmt: skip
    assert found.trade_off is not None
    prices = found.trade_off.front.values[:, 1]
    assert len(prices) == 2 and prices[0] <= 0.9 * prices[1] + 1e-6 and prices[1] <= HORIZON


def test_a_front_of_radiotherapy_ends_at_the_recommended_plan_and_says_what_is_enough():
    """Levels of weeks: the equal-effect plan is on the front without a search, prices are those of the plans."""
    problem, standard, search = scans_problem("weekly_levels", "exhaustive")
    config = with_choices("glioma", "weekly_levels", front="toxicity")
    config.front.shares = [0.5, 0.8]
    aim = parts_of(config, parametrization_of("glioma", "weekly_levels")).aim
    found = recommend(problem, search, standard, fresh_draws=problem.draws, aim=aim, key=jax.random.key(0))
    assert found.trade_off is not None
    points = found.trade_off.front.points
    assert [p.values[1] for p in points] == pytest.approx([p.plan.toxicity["bed_3_gy"] for p in points])
    assert points[-1].plan is found.plan and all(p.values[1] <= p.epsilon + 1e-6 for p in points)
    assert (np.diff(found.trade_off.front.values[:, 0]) < 0.0).all()
    enough = found.trade_off.enough
    assert enough is not None and enough.values[0] <= found.trade_off.standard[0] + 1e-9
    assert f"is {enough.values[1]:.3g} Gy" in found.describe() and "standard of care (" in found.describe()


def test_earlier_fractions_count_in_the_price_and_leave_some_limits_to_no_plan():
    problem, standard, search = scans_problem("weekly_levels", "exhaustive")
    config = with_choices("glioma", "weekly_levels", front="total_dose")
    config.front.shares = [0.2, 0.9]
    aim = parts_of(config, parametrization_of("glioma", "weekly_levels")).aim
    earlier = dataclasses.replace(problem.parametrization, earlier=(2.0,) * 10)
    problem = dataclasses.replace(problem, parametrization=earlier)
    held = np.asarray(standard) * (np.arange(6) < 4)
    found = recommend(problem, search, jnp.asarray(held), fresh_draws=problem.draws, aim=aim, key=jax.random.key(0))
    assert found.trade_off is not None
    assert found.trade_off.standard[1] == pytest.approx(60.0) and len(found.trade_off.front.infeasible) == 1
    assert "No plan keeps" in found.describe()
