"""From the configuration to a plan: what may be chosen, what was given before, and the search itself."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from tumortwin.cli_patient import Case, planned_treatment
from tumortwin.config import ConfigError, instantiate
from tumortwin.control import (
    AbstractConstraint,
    AbstractController,
    Delivered,
    FeasibleSet,
    PlanningProblem,
    PlanVariables,
    ProjectedGradient,
    WeeklyFractions,
    toxicity,
)
from tumortwin.inference import Posterior, Problem
from tumortwin.runs import Run
from tumortwin.treatments import Course
from tumortwin.twin import check_horizon, path_gap, planning_problem, prior_only, recommend_schedule

NOT_FRESH = "The posterior is a single draw: the schedule is judged on the draw that it was chosen with."


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a plan may choose among, and what it is compared with; days count from the day `origin`."""

    parametrization: WeeklyFractions
    constraints: tuple[AbstractConstraint, ...]
    standard: PlanVariables
    start_window: tuple[float, float]
    origin: float


def choice_of(config: DictConfig, case: Case) -> Choice | str:
    """What may be planned for this patient, or a sentence that says why nothing is.

    Everything is checked here, before anything long begins. Fractions given before the day of the plan count in its
    dose limits, and it is compared with as many whole weeks of the standard of care as those leave; a drug given before
    is no part of it.

    **Raises:** `ConfigError` for limits that no plan keeps, and for days that do not fit together.
    """
    settings, plan = config.controller, config.patient.plan
    if not plan.enabled:
        return str(plan.reason)
    origin = plan_origin(config, case)
    weeks, days = int(settings.weeks), int(settings.fractions_per_week)
    first = _checked(lambda: WeeklyFractions(weeks, days), "controller.weeks and controller.fractions_per_week")
    constraints = tuple(instantiate(node, where="constraint") for node in config.constraint.values())
    feasible = _checked(lambda: FeasibleSet(constraints, first), "the limits of `constraint` and `patient.plan`")
    window = (float(feasible.start[0]), float(feasible.start[1]))
    _check_days(window, float(plan.standard_start))
    _checked(lambda: check_horizon(first, window, float(plan.horizon)), "patient.plan.horizon and patient.plan.latest")
    standard = first.uniform(float(settings.standard_dose), float(plan.standard_start))
    course = case.known.schedule.radiotherapy
    earlier = np.asarray(course.doses, float)[np.asarray(course.times) < origin]
    parametrization = WeeklyFractions(weeks, days, concurrent=_concurrent(config, case, origin), earlier=tuple(earlier))
    if earlier.size:
        left = _whole_weeks(constraints, parametrization, standard)
        if left is None:
            return _spent(earlier, standard)
        standard = left
    return Choice(parametrization, constraints, standard, window, origin)


def plan_origin(config: DictConfig, case: Case) -> float:
    """The day from which a plan counts: day 0 when looking back, else the last scan known."""
    return 0.0 if config.patient.plan.retrospective else float(case.known.scans[-1].day)


def _checked(build: Callable[[], Any], where: str) -> Any:
    try:
        return build()
    except ValueError as error:
        words = str(error).replace("; received", "\nreceived").replace("; try: ", "\ntry:      ")
        raise ConfigError(f"{words}\nwhere:    {where}") from error


def _check_days(window: tuple[float, float], standard_start: float) -> None:
    if window[0] <= 0.0:
        raise ConfigError(
            f"required: a first fraction after the day from which the plan counts\nreceived: day {window[0]:g}\n"
            "try:      patient.plan.earliest=1.0"
        )
    if not window[0] <= standard_start <= window[1]:
        raise ConfigError(
            "required: a standard of care that starts within the window of the plan: allowed starts are whole weeks "
            f"from its start\nreceived: day {standard_start:g} and the window from day {window[0]:g} to {window[1]:g}\n"
            f"try:      patient.plan.standard_start={window[0]:.1f}"
        )


def _concurrent(config: DictConfig, case: Case, origin: float) -> dict[str, Course]:
    """Drug courses that move with the first fraction, counted from their own first day.

    Those that the patient is to have from the day of the plan on, else those of `treatment`. Never one that was given
    before: it is over.
    """
    ahead: dict[str, Course] = {}
    for name, course in case.known.schedule.drugs.items():
        later = np.asarray(course.times) >= origin
        if later.any():
            ahead[name] = Course(course.times[later], course.doses[later])
    drugs = ahead or planned_treatment(config).drugs
    return {name: Course(c.times - c.times[0], c.doses) for name, c in drugs.items() if c.size}


def _whole_weeks(
    constraints: tuple[AbstractConstraint, ...], parametrization: WeeklyFractions, standard: PlanVariables
) -> PlanVariables | None:
    """The first weeks of `standard`, as many as the limits leave room for; None where they leave not even one."""
    try:
        feasible = FeasibleSet(constraints, parametrization)
    except ValueError:  # what was given leaves no room for any plan
        return None
    doses = np.asarray(standard.weekly_fraction_dose)
    for weeks in range(doses.size, 0, -1):
        rest = PlanVariables(np.where(np.arange(doses.size) < weeks, doses, 0.0), standard.start_day)
        if feasible.contains(rest):
            return rest
    return None


def _spent(earlier: np.ndarray, standard: PlanVariables) -> str:
    found = toxicity(jnp.asarray(earlier)).describe()
    dose = float(standard.weekly_fraction_dose[0])
    return (
        f"{earlier.size} fractions were given before the day of the plan ({found['total_dose_gy']:g} Gy, normal-tissue "
        f"BED {found['bed_3_gy']:.1f} Gy). They count in every dose limit, and what the limits leave is less than one "
        f"week of {dose:g} Gy fractions: no schedule is proposed. A second course needs limits of its own "
        "(constraint.total_dose.limit, constraint.normal_tissue.limit)."
    )


def recommended(
    config: DictConfig, run: Run, case: Case, problem: Problem, posterior: Posterior, choice: Choice | str
) -> None:
    """plan.json: the recommended plan, its equal-BED twin and the standard of care on fresh draws."""
    if isinstance(choice, str):
        run.say(f"recommend: left out: {choice}")
        return
    with run.stage("recommend", outputs=["plan.json"]) as stage:
        if not stage.needed:
            return
        planning = planning_problem(
            problem,
            posterior,
            choice.parametrization,
            instantiate(config.objective, where="objective"),
            instantiate(config.risk, where="risk"),
            choice.constraints,
            start_window=choice.start_window,
            horizon=float(config.patient.plan.horizon),
            origin=choice.origin,
            n_draws=int(config.controller.draws),
            key=run.key("plan"),
        )
        content = _recommendation(run, posterior, planning, choice.standard)
        content["retrospective"] = bool(config.patient.plan.retrospective)
        content["horizon"] = float(config.patient.plan.horizon)
        content["origin_day"] = choice.origin
        unknown = prior_only(problem, choice.parametrization.schedule(choice.standard))
        content["prior_only"] = list(unknown)
        if unknown:
            content["statement"] += f" Known from the prior only, as nothing was given yet: {', '.join(unknown)}."
        if (replaced := replaced_radiotherapy(case, choice.origin)) is not None:
            content["replaced"] = replaced
        content["fresh"] = posterior.weights.size > 1
        if not content["fresh"]:
            content["statement"] += f" {NOT_FRESH}"
        run.write_json("plan.json", content)


def replaced_radiotherapy(case: Case, origin: float) -> str | None:
    """What is said when the patient already has fractions planned from the day of the plan on."""
    times = np.asarray(case.known.schedule.radiotherapy.times)
    later = times[times >= origin]
    if not later.size:
        return None
    return (
        f"the patient's own radiotherapy from day {later[0]:g} on ({later.size} fractions) is not among the schedules "
        "compared: both take its place"
    )


def outcome_words(objective: str, minimal_gain: float) -> tuple[Mapping[str, Any], Callable[[Any], Any]]:
    """How a report shows an objective: name, unit and smallest gain that counts, and the function that leads there.

    A gain of m in a natural logarithm is a share 1 - exp(-m) of the outcome of the other plan.
    """
    share = {"unit": "mm^3", "benefit_from": 0.0, "benefit_share": -math.expm1(-minimal_gain)}
    plain = {"unit": "1", "benefit_from": minimal_gain, "benefit_share": 0.0}
    words = {
        "log_burden": ({"name": "tumor mass", **share}, np.exp),
        "mean_log_burden": ({"name": "tumor mass averaged over time (geometric mean)", **share}, np.exp),
        "area_under_burden": ({**plain, "name": "area under the tumor mass", "unit": "mm^3 day"}, np.asarray),
        "burden": ({**plain, "name": "tumor mass", "unit": "mm^3"}, np.asarray),
        "time_to_progression": ({**plain, "name": "minus the time to progression", "unit": "day"}, np.asarray),
    }
    return words.get(objective, ({"name": objective.replace("_", " "), **plain}, np.asarray))


def search_of(settings: DictConfig, standard: PlanVariables) -> AbstractController:
    """The controller: `controller.search` where it is given, rounded to what can be delivered; else projected
    gradients."""
    if settings.get("search") is not None:
        search = instantiate(settings.search, where="controller.search")
        return Delivered(search, standard, start_step=float(settings.start_step))
    return ProjectedGradient(
        standard,
        tolerance=float(settings.tolerance),
        max_gradients=int(settings.max_gradients),
        probe_steps=int(settings.probe_steps),
        start_step=float(settings.start_step),
    )


def _recommendation(
    run: Run, posterior: Posterior, problem: PlanningProblem, standard: PlanVariables
) -> dict[str, Any]:
    settings = run.config.controller
    controller = search_of(settings, standard)
    minimal = float(settings.minimal_gain)
    with run.progress.task("schedule", total=2 * int(settings.max_gradients)) as bar:
        found = recommend_schedule(
            problem,
            posterior,
            controller,
            standard,
            n_fresh=int(settings.fresh_draws),
            minimal_gains={problem.objective.name: minimal},
            on_step=lambda info: bar.update(info.get("gradient_evaluations", 0)),
            key=run.key("compare"),
        )
    content = found.to_json()
    content["outcome"], readable = outcome_words(problem.objective.name, minimal)
    content["outcomes"] = {plan: [float(v) for v in readable(values)] for plan, values in found.outcomes.items()}
    content["path_gap"] = path_gap(problem, standard)
    return content
