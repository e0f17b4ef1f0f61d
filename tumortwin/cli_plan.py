"""From the configuration to a plan for a patient with scans: what may be chosen, what was given before, the search."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig

from tumortwin.cli_decision import (
    SCHEDULES,
    Parts,
    agents_of,
    check_decision,
    check_region,
    checked,
    keep_pictures,
    kind_of,
    outcome_words,
    parts_of,
    picture_of,
    plan_content,
    search_of,
)
from tumortwin.cli_patient import Case, planned_treatment
from tumortwin.config import ConfigError, instantiate
from tumortwin.control import (
    AbstractConstraint,
    AbstractParametrization,
    AbstractSlots,
    FeasibleSet,
    PlanningProblem,
    PlanVariables,
    Region,
    ShiftedCycles,
    WeeklyFractions,
    toxicity,
)
from tumortwin.inference import Posterior, Problem
from tumortwin.runs import Run
from tumortwin.treatments import Course, Schedule, weekday_fractions
from tumortwin.twin import (
    check_horizon,
    path_gap,
    planning_problem,
    prior_only,
    recommend_schedule,
    schedule_problem,
)

NOT_FRESH = "The posterior is a single draw: the schedule is judged on the draw that it was chosen with."
NO_COMMON = "one patient: `tumortwin reproduce chaudhuri2023` and glioma_schedule compare schedules common to many"
AFTER = 1.5  # [day] from the last fraction to the first day of the burden after it
DAYS_AFTER = 9  # days of the burden after the last fraction
WEEKDAYS, WEEK = 5, 7.0  # [day]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a plan may choose among, and what it is compared with; days count from the day `origin`.

    `start_window`: of weekly fractions, whose first day moves; None for decisions on fixed days.
    """

    parametrization: AbstractParametrization
    parts: Parts
    standard: Any
    start_window: tuple[float, float] | None
    origin: float

    @property
    def constraints(self) -> tuple[AbstractConstraint, ...]:
        """The limits on the decision."""
        return self.parts.constraints


def choice_of(config: DictConfig, case: Case) -> Choice | str:
    """What may be planned for this patient, or a sentence that says why nothing is.

    Everything is checked here, before anything long begins. Fractions given before the day of the plan count in its
    dose limits, and it is compared with as much of the standard of care as those leave; a drug given before is no part
    of it.

    **Raises:** `ConfigError` for parts that do not fit each other, for limits that no plan keeps, and for days that do
    not fit together.
    """
    plan = config.patient.plan
    if not plan.enabled:
        return str(plan.reason)
    check_decision(config, pipeline=str(config.pipeline.name))
    if not 0.0 < float(plan.standard_start):
        raise _not_after(float(plan.standard_start))
    return _on_fixed_days(config, case) if "parametrization" in config.decision else _weekly(config, case)


def _weekly(config: DictConfig, case: Case) -> Choice | str:
    """Weekly fractions whose first day moves."""
    settings, plan = config.decision, config.patient.plan
    origin = plan_origin(config, case)
    weeks, days = int(settings.weeks), int(settings.fractions_per_week)
    first = checked(lambda: WeeklyFractions(weeks, days), "decision.weeks and decision.fractions_per_week")
    parts = parts_of(config, first)
    constraints = parts.constraints
    feasible = checked(lambda: FeasibleSet(constraints, first), "the limits of `constraint` and `patient.plan`")
    window = (float(feasible.start[0]), float(feasible.start[1]))
    _check_days(window, float(plan.standard_start))
    checked(lambda: check_horizon(first, window, float(plan.horizon)), "patient.plan.horizon and patient.plan.latest")
    standard = first.uniform(float(settings.standard_dose), float(plan.standard_start))
    earlier = _earlier(case, origin)
    parametrization = WeeklyFractions(weeks, days, concurrent=_concurrent(config, case, origin), earlier=tuple(earlier))
    if earlier.size:
        left = _whole_weeks(constraints, parametrization, standard)
        if left is None:
            return _spent(earlier, float(settings.standard_dose))
        standard = left
    return Choice(parametrization, parts, standard, window, origin)


def _earlier(case: Case, origin: float) -> np.ndarray:
    """Doses [Gy] of the fractions given before the day of the plan."""
    course = case.known.schedule.radiotherapy
    return np.asarray(course.doses, float)[np.asarray(course.times) < origin]


def _on_fixed_days(config: DictConfig, case: Case) -> Choice | str:
    """Slots of one or several agents, or cycles of a drug; what is not decided is given as usual."""
    settings, plan = config.decision, config.patient.plan
    origin, start = plan_origin(config, case), float(plan.standard_start)
    decided = instantiate(settings.parametrization, where="decision.parametrization")
    earlier = _earlier(case, origin)
    concurrent = {name: Course(c.times + start, c.doses) for name, c in _concurrent(config, case, origin).items()}
    if isinstance(decided, AbstractSlots):
        agents = [slots.agent for slots in decided.slots]
        decided = dataclasses.replace(
            decided, fixed=Schedule(None, {name: c for name, c in concurrent.items() if name not in agents})
        )
        of_doses = decided.of_doses
        standard = checked(lambda: of_doses([float(v) for v in settings.standard]), "decision.standard")
    elif isinstance(decided, ShiftedCycles):
        usual = _usual_fractions(case, origin, start)
        decided = dataclasses.replace(decided, fixed=Schedule(usual, {} if usual is None else concurrent))
        standard = np.asarray(settings.standard, float) + np.asarray([start, 0.0])
    else:
        raise ConfigError(
            f"required: slots, levels, on/off or cycles, for a patient with scans\n"
            f"received: {type(decided).__name__}\ntry:      decision=weekly_doses, whose parts need no class"
        )
    parts = parts_of(config, decided)
    region = check_region(config, decided, parts.constraints)
    _check_last(decided, region, standard, float(plan.horizon))
    if isinstance(decided, AbstractSlots) and earlier.size:
        decided = dataclasses.replace(decided, earlier=tuple(earlier.tolist()))
        left = _what_is_left(decided, Region.of(decided, parts.constraints), standard)
        if left is None:
            return _spent(earlier, float(settings.standard[0]))
        standard = left
    return Choice(decided, parts, jnp.asarray(standard), None, origin)


def _usual_fractions(case: Case, origin: float, start: float) -> Course | None:
    """The radiotherapy beside a decision on a drug alone: the patient's own from the day of the plan on, else 30 x 2 Gy
    where none was given before."""
    course = case.known.schedule.radiotherapy
    ahead = np.asarray(course.times) >= origin
    if ahead.any():
        return Course(course.times[ahead] - origin, course.doses[ahead])
    return None if course.size else weekday_fractions(start, FRACTIONS, DOSE)


FRACTIONS, DOSE = 30, 2.0  # the standard of care; Stupp et al. 2005


def _check_last(decided: AbstractParametrization, region: Region, standard: np.ndarray, horizon: float) -> None:
    """Whether every dose that may be decided lies after the day of the plan and before the horizon."""
    ends = [decided.courses(decided.variables(jnp.asarray(v))) for v in (region.lower, region.upper, standard)]
    days = np.concatenate([np.asarray(course.times) for courses in ends for course in courses.values()])
    if days.min() <= 0.0:
        raise _not_after(float(days.min()))
    if days.max() >= horizon:
        raise ConfigError(
            f"required: a horizon after the last dose that may be decided (day {days.max():g})\n"
            f"received: day {horizon:g}\ntry:      patient.plan.horizon={np.ceil(days.max()) + 30.0:.1f}"
        )


def _what_is_left(decided: AbstractSlots, region: Region, standard: np.ndarray) -> np.ndarray | None:
    """The standard of care without its last fractions, as many as the limits leave; None where they leave none."""
    fractions = [k for k, name in enumerate(decided.space.names) if name.startswith("radiotherapy[")]
    left = np.asarray(standard, float).copy()
    for k in reversed(fractions):
        if region.contains(left):
            return left
        left[k] = 0.0
    return None


def plan_origin(config: DictConfig, case: Case) -> float:
    """The day from which a plan counts: day 0 when looking back, else the last scan known."""
    return 0.0 if config.patient.plan.retrospective else float(case.known.scans[-1].day)


def _check_days(window: tuple[float, float], standard_start: float) -> None:
    if window[0] <= 0.0:
        raise _not_after(window[0])
    if not window[0] <= standard_start <= window[1]:
        raise ConfigError(
            "required: a standard of care that starts within the window of the plan: allowed starts are whole weeks "
            f"from its start\nreceived: day {standard_start:g} and the window from day {window[0]:g} to {window[1]:g}\n"
            f"try:      patient.plan.standard_start={window[0]:.1f}"
        )


def _not_after(day: float) -> ConfigError:
    return ConfigError(
        f"required: a first dose after the day from which the plan counts\nreceived: day {day:g}\n"
        "try:      patient.plan.earliest=1.0 and patient.plan.standard_start=1.0 or later"
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


def _spent(earlier: np.ndarray, dose: float) -> str:
    found = toxicity(jnp.asarray(earlier)).describe()
    return (
        f"{earlier.size} fractions were given before the day of the plan ({found['total_dose_gy']:g} Gy, normal-tissue "
        f"BED {found['bed_3_gy']:.1f} Gy). They count in every dose limit, and what the limits leave is less than one "
        f"week of {dose:g} Gy fractions: no schedule is proposed. A second course needs limits of its own "
        "(constraint.total_dose.limit, constraint.normal_tissue.limit)."
    )


def recommended(
    config: DictConfig, run: Run, case: Case, problem: Problem, posterior: Posterior, choice: Choice | str
) -> None:
    """plan.json and the picture of its schedules: the recommended plan, its equal-BED twin and the standard of care on
    fresh draws."""
    if isinstance(choice, str):
        run.say(f"recommend: left out: {choice}")
        return
    with run.stage("recommend", outputs=["plan.json", SCHEDULES]) as stage:
        if not stage.needed:
            return
        planning = _planning(config, problem, posterior, choice, run.key("plan"))
        content = _recommendation(run, posterior, planning, choice)
        content["decision"] = {"kind": kind_of(choice.parametrization), "decides": agents_of(choice.parametrization)}
        content["common"] = {"defined": False, "why": NO_COMMON}
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


def _planning(
    config: DictConfig, problem: Problem, posterior: Posterior, choice: Choice, key: Array
) -> PlanningProblem:
    """The planning problem of a choice, on draws of the first half of the posterior."""
    parts, horizon = choice.parts, float(config.patient.plan.horizon)
    common: dict[str, Any] = {"origin": choice.origin, "n_draws": int(config.controller.draws), "key": key}
    arguments = (choice.parametrization, parts.objective, parts.risk, parts.constraints)
    weekly = choice.parametrization
    if isinstance(weekly, WeeklyFractions) and choice.start_window is not None:
        return planning_problem(
            problem, posterior, weekly, *arguments[1:], start_window=choice.start_window, horizon=horizon, **common
        )
    reference = choice.parametrization.schedule(choice.standard)
    fractions = np.asarray(reference.radiotherapy.times)
    last = float(fractions[-1]) if fractions.size else 0.0
    found = schedule_problem(
        problem,
        posterior.halves()[0],
        *arguments,
        reference=reference,
        days=np.linspace(last + AFTER, horizon, DAYS_AFTER).tolist(),
        save_fractions=(*range(0, fractions.size, WEEKDAYS), -1) if fractions.size else (),
        **common,
    )
    return found.with_outcome_limits(parts.outcome_limits)


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


def _recommendation(run: Run, posterior: Posterior, problem: PlanningProblem, choice: Choice) -> dict[str, Any]:
    settings, decision = run.config.controller, run.config.decision
    controller = search_of(settings, choice.parametrization, choice.standard, float(decision.get("start_step", WEEK)))
    minimal = float(settings.minimal_gain)
    with run.progress.task("schedule", total=2 * int(settings.max_gradients)) as bar:
        found = checked(
            lambda: recommend_schedule(
                problem,
                posterior,
                controller,
                choice.standard,
                n_fresh=int(settings.fresh_draws),
                aim=choice.parts.aim,
                minimal_gains={problem.objective.name: minimal},
                on_step=lambda info: bar.update(info.get("gradient_evaluations", 0)),
                key=run.key("compare"),
            ),
            "the limits of `constraint`",
        )
    picture = picture_of(found, origin=choice.origin, burden="tumor mass", unit="mm^3", name=SCHEDULES)
    keep_pictures(run, [picture])
    content = plan_content(found, picture)
    content["outcome"], readable = outcome_words(problem.objective.name, minimal)
    content["outcomes"] = {plan: [float(v) for v in readable(values)] for plan, values in found.outcomes.items()}
    content["path_gap"] = path_gap(problem, choice.standard)
    return content
