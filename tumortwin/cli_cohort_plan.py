"""From the configuration to schedules of a drug for subjects of a table: who, from which day, and the search itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
from tumortwin.cli_files import row_of
from tumortwin.cli_front import front_rows
from tumortwin.cli_table import DRUG, Cohort
from tumortwin.config import ConfigError, instantiate, unknown
from tumortwin.control import (
    AbstractObjective,
    AbstractParametrization,
    AbstractSlots,
    DrugUsed,
    Infeasible,
    Plan,
    PlanningProblem,
    PolicyThresholds,
    Recommendation,
    TimeToProgression,
    compare,
)
from tumortwin.inference import PopulationProblem, Posterior
from tumortwin.report import Picture
from tumortwin.runs import Run
from tumortwin.twin import (
    ClosedLoop,
    Decision,
    Fresh,
    closed_loop,
    common_plan,
    fresh_draws,
    recommend_for_subject,
    subject_problem,
)

ONE_SUBJECT = "one subject is planned: a schedule common to several needs two or more (decision.subjects)"
REVISED = 3  # folded into the key of a subject, whose first three are of the plan
FEW_PATIENTS = 2  # an interval over patients needs as many
NEVER = (0.0, 1e9)  # stop below nothing, restart above nothing: a rule that never stops
SHOWN = ("expected_gain", "probability_of_benefit", "fraction_without_benefit")


@dataclasses.dataclass(frozen=True, eq=False)
class SubjectChoice:
    """What may be planned for the `subjects` (places in the cohort), each on its `day` [subject of the cohort] of its
    own clock, and what it is compared with."""

    decision: Decision
    parts: Parts
    standard: Any
    subjects: tuple[int, ...]
    day: np.ndarray


def subject_choice(config: DictConfig, cohort: Cohort, problem: PopulationProblem) -> SubjectChoice | str:
    """What may be planned, or a sentence that says why nothing is: a model without a drug.

    **Raises:** `ConfigError` for parts that do not fit each other, limits that no plan keeps, and an unknown subject.
    """
    exposure = str(config.model.exposure)
    if exposure != DRUG:
        law = str(config.model.law["_target_"]).rpartition(".")[2]
        return f"the model {law} has no drug that a schedule could change (exposure: {exposure})"
    check_decision(config, pipeline=str(config.pipeline.name), exposure=exposure)
    settings = config.decision
    visits = tuple(float(settings.interval) * k for k in range(int(settings.intervals)))
    horizon = float(settings.horizon)
    decided = instantiate(settings.parametrization, where="decision.parametrization")
    standard = _standard(decided, [float(v) for v in settings.standard])
    _check_days(decided, visits, horizon)
    state = problem.model.initial()
    parts = parts_of(config, decided, [entry.name for entry in dataclasses.fields(state)])
    check_region(config, decided, parts.constraints)
    limits = (*parts.constraints, *parts.outcome_limits)
    decision = Decision(decided, parts.objective, parts.risk, limits, horizon, visits, cohort.unit)
    return SubjectChoice(decision, parts, jnp.asarray(standard), _subjects(config, cohort), last_known(cohort))


def _standard(decided: AbstractParametrization, doses: Sequence[float]) -> np.ndarray:
    """The decision that is continuous treatment."""
    if isinstance(decided, PolicyThresholds):
        return np.asarray(NEVER)
    if isinstance(decided, AbstractSlots) and len(decided.slots) == 1:
        return checked(lambda: decided.of_doses(doses), "decision.standard")
    raise ConfigError(
        "required: slots of one drug, or thresholds of a rule, for the subjects of a table\n"
        f"received: {type(decided).__name__} on {agents_of(decided)}\ntry:      decision=drug_on_off"
    )


def _check_days(decided: AbstractParametrization, visits: Sequence[float], horizon: float) -> None:
    days = decided.slots[0].event_days if isinstance(decided, AbstractSlots) else visits
    if not visits or days[0] != 0.0 or days[-1] >= horizon:
        raise ConfigError(
            "required: a first interval on day 0 of the plan and a horizon after the start of the last\n"
            f"received: {len(days)} intervals from day {days[0] if days else 0.0:g} to {days[-1] if days else 0.0:g}, "
            f"horizon {horizon:g}\ntry:      decision.horizon={len(days) * (days[1] if len(days) > 1 else 28.0):g}"
        )


def last_known(cohort: Cohort) -> np.ndarray:
    """The day [subject] of the last known reading on each subject's clock, where its plan begins; 0 without one."""
    rows = cohort.known.padded(cohort.quantity)
    last = np.max(np.where(rows.valid, rows.times, -np.inf), axis=1, initial=-np.inf)
    return np.where(rows.counts > 0, last - cohort.origin, 0.0)


def _subjects(config: DictConfig, cohort: Cohort) -> tuple[int, ...]:
    one, count = config.decision.subject, config.decision.subjects
    if one is not None:
        if str(one) not in cohort.subjects:
            raise unknown("decision.subject", str(one), cohort.subjects)
        return (cohort.subjects.index(str(one)),)
    if count is not None and int(count) < 1:
        raise ConfigError(f"required: decision.subjects of 1 or more\nreceived: {count}\ntry:      decision.subjects=3")
    return tuple(range(len(cohort.subjects) if count is None else min(int(count), len(cohort.subjects))))


# --- the stage ---


def recommended_for_subjects(
    config: DictConfig,
    run: Run,
    cohort: Cohort,
    problem: PopulationProblem,
    posterior: Posterior,
    choice: SubjectChoice | str,
) -> None:
    """plan.json and a picture a subject: the recommended schedule, the best in common, and continuous treatment on
    fresh draws."""
    if isinstance(choice, str):
        run.say(f"recommend: left out: {choice}")
        return
    with run.stage("recommend", outputs=["plan.json", SCHEDULES]) as stage:
        if not stage.needed:
            return
        settings = config.controller
        planned = _planned(config, run, cohort, problem, posterior, choice)
        common = _common(config, run, choice, planned)
        content: dict[str, Any] = {
            "decision": {
                "kind": kind_of(choice.decision.parametrization),
                "decides": cohort.drug or DRUG,
                "visits": list(choice.decision.visits),
            },
            "horizon": choice.decision.horizon,
            "objective": choice.decision.objective.name,
            "outcome": outcome_words(
                choice.decision.objective.name,
                float(settings.minimal_gain),
                cohort.unit,
                cohort.quantity.replace("_", " "),
            )[0],
            "standard_of_care": "continuous treatment",
            "common": common.words(),
        }
        entries = [_entry(cohort, choice, one, number, common) for number, one in enumerate(planned, start=1)]
        content["subjects"] = [entry for entry, _ in entries]
        keep_pictures(run, [picture for _, picture in entries if picture is not None])
        content["statement"] = _statement(content)
        run.write_json("plan.json", content)


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """One subject (place in the cohort): its problem, fresh draws, what was found, or why nothing was, and what it is
    worth to revise it."""

    subject: int
    problem: PlanningProblem
    fresh: Fresh
    found: Recommendation | None
    refused: str = ""
    revised: ClosedLoop | None = None


def _planned(
    config: DictConfig,
    run: Run,
    cohort: Cohort,
    problem: PopulationProblem,
    posterior: Posterior,
    choice: SubjectChoice,
) -> list[Planned]:
    """The plan of every subject in turn, one compiled program for all."""
    settings, decision, plans, sizes = config.controller, choice.decision, [], _sizes(config)
    controller = search_of(settings, decision.parametrization, choice.standard)
    further = _further(config, decision.horizon)
    with run.progress.task("schedules", total=len(choice.subjects)) as bar:
        for done, subject in enumerate(choice.subjects, start=1):
            day = float(choice.day[subject])
            key = run.key(f"plan {cohort.subjects[subject]}")
            keys = jax.random.split(key, 3)
            planning = subject_problem(
                problem, posterior, decision, subject, day, n_draws=int(settings.draws), key=keys[0]
            )
            fresh = fresh_draws(problem, posterior, subject, day, n_draws=int(settings.fresh_draws), key=keys[1])
            found, refused = None, ""
            try:
                found = recommend_for_subject(
                    planning,
                    fresh,
                    controller,
                    choice.standard,
                    objectives=further,
                    aim=choice.parts.aim,
                    minimal_gains={decision.objective.name: float(settings.minimal_gain)},
                    key=keys[2],
                )
            except Infeasible as error:
                refused = str(error)
            revised = None
            if found is not None and sizes["patients"]:
                parts = (planning, found.plan, choice.standard, controller)
                own_key = jax.random.fold_in(key, REVISED)
                revised = closed_loop(
                    problem, posterior, *parts, subject=subject, day=day, objectives=further, **sizes, key=own_key
                )
            plans.append(Planned(subject, planning, fresh, found, refused, revised))
            bar.update(done, len(choice.subjects))
    return plans


def _sizes(config: DictConfig) -> dict[str, int]:
    """Patients and pool of the trial; `ConfigError` for numbers that make none."""
    sizes = {name: int(config.trial[name]) for name in ("patients", "pool")} if "pool" in config.trial else {}
    least = int(config.controller.draws)
    if sizes and (sizes["patients"] < FEW_PATIENTS or sizes["pool"] < least):
        raise ConfigError(
            f"required: trial.patients of {FEW_PATIENTS} or more and trial.pool of controller.draws ({least}) or more\n"
            f"received: {sizes['patients']} and {sizes['pool']}\ntry:      trial=none for no trial"
        )
    return sizes or {"patients": 0, "pool": 0}


def _further(config: DictConfig, horizon: float) -> tuple[AbstractObjective, ...]:
    """What is compared beside the objective: the drug used, and the time to progression."""
    progression = TimeToProgression(0.0, horizon, softness=SOFTNESS, factor=float(config.decision.progression))
    return progression, DrugUsed(0.0, horizon)


SOFTNESS = 0.02  # [ln] of the burden: nearly the step at the reference


@dataclasses.dataclass(frozen=True, eq=False)
class Common:
    """The best schedule in common, or why there is none."""

    plan: Plan | None
    why: str = ""

    def words(self) -> dict[str, Any]:
        """The entry of plan.json."""
        if self.plan is None:
            return {"defined": False, "why": self.why}
        sentence = self.plan.parametrization.sentence(self.plan.variables)
        return {"defined": True, "plan": self.plan.to_json(), "statement": sentence}


def _common(config: DictConfig, run: Run, choice: SubjectChoice, planned: Sequence[Planned]) -> Common:
    """The best schedule common to the subjects that are planned, on the draws that each was planned with."""
    able = [one for one in planned if one.found is not None]
    if len(able) < 2:
        return Common(None, ONE_SUBJECT)
    controller = search_of(config.controller, choice.decision.parametrization, choice.standard)
    try:
        with run.progress.task("schedule in common"):
            return Common(common_plan([one.problem for one in able], controller, key=run.key("common")))
    except ValueError as error:  # Infeasible among them
        return Common(None, str(error))


def _entry(
    cohort: Cohort, choice: SubjectChoice, one: Planned, number: int, common: Common
) -> tuple[dict[str, Any], Picture | None]:
    """What plan.json says of one subject, and its picture."""
    day = float(choice.day[one.subject])
    head = {
        "subject": cohort.subjects[one.subject],
        "day": day,
        "table_day": day + float(cohort.origin[one.subject]),
    }
    if one.found is None:
        return {**head, "refused": one.refused}, None
    words = cohort.quantity.replace("_", " ")
    picture = picture_of(one.found, origin=0.0, burden=words, unit=cohort.unit, name=f"subject_{number}")
    content = plan_content(one.found, picture)
    if one.revised is not None:
        content["trial"] = one.revised.to_json()
        content["statement"] += f" {one.revised.describe()}"
    if common.plan is not None:
        against = compare(
            one.problem,
            one.found.plan,
            common.plan,
            draws=one.fresh.draws,
            level=float(one.problem.risk.describe().get("level", LEVEL)),
            key=jax.random.key(0),
        )
        content["against_common"] = against.to_json()
    return {**head, **content}, picture


LEVEL = 0.8  # of the CVaR that is reported where the risk has none


def _statement(content: Mapping[str, Any]) -> str:
    told = [one for one in content["subjects"] if "statement" in one]
    refused = [one["subject"] for one in content["subjects"] if "refused" in one]
    parts = [f"{one['subject']}: {one['statement']}" for one in told[:1]]
    if len(told) > 1:
        parts.append(f"{len(told) - 1} further subjects are in plan.json.")
    if refused:
        parts.append(f"No schedule keeps the limits for {', '.join(refused)}.")
    return " ".join(parts)


def plan_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of results.json: gains of every subject, and over the schedule in common."""
    rows = []
    for one in content["subjects"]:
        if "comparison" not in one:
            continue
        found, name = one["comparison"], f"plan.{one['subject']}"
        for key, entry in found.items():
            objective, _, quantity = key.partition(".")
            main = objective == content["objective"] and quantity in SHOWN
            if main or quantity == SHOWN[0] or key.startswith("toxicity."):
                rows.append(row_of(f"{name}.{key}", entry["value"], entry["unit"]))
        rows += front_rows(one, name)
        if (trial := one.get("trial")) is not None:
            for objective, worth in trial["objectives"].items():
                gains = worth["gain_of_revising"].items()
                rows += [row_of(f"{name}.gain_of_revising.{objective}.{end}", v, worth["unit"]) for end, v in gains]
        gain = one.get("against_common", {}).get(f"{content['objective']}.expected_gain")
        if gain is not None:
            rows += [
                row_of(f"{name}.over_common.{content['objective']}.{end}", gain[end], gain["unit"])
                for end in ("value", "low", "high")
            ]
    return rows
