"""The parts of a plan from the configuration, whatever is decided: objective, risk, limits and search, and their fit.

Every choice of `decision objective risk constraint controller front trial` may say what it is for (`_fits_`): the
pipeline, the kind of decision, the agents decided on, the quantities of the model. What does not fit is refused before
anything long begins, with those that do.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from tumortwin.cli_front import aim_of, shown_front
from tumortwin.config import FITS, ConfigError, check_fit, instantiate
from tumortwin.control import (
    AbstractConstraint,
    AbstractController,
    AbstractObjective,
    AbstractOutcomeLimit,
    AbstractParametrization,
    AbstractRisk,
    Curve,
    Delivered,
    Exhaustive,
    Plan,
    PlanVariables,
    PolicyThresholds,
    ProjectedGradient,
    Recommendation,
    Region,
    SecondAim,
    WeeklyFractions,
    check_feasible,
)
from tumortwin.report import Picture, ShownSchedule, schedule_picture
from tumortwin.runs import Run
from tumortwin.treatments import Schedule

WEEKLY, CONTINUOUS, WHOLE, MIXED, RULE = "weekly", "continuous", "whole", "mixed", "rule"
SUITABLE = "suitable"
SCHEDULES = "schedules"
LABELS = {
    "recommended": "recommended",
    "standard_of_care": "standard of care",
    "equal_effect": "at equal normal-tissue BED",
}
Built = TypeVar("Built")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What makes a schedule good: the `objective` of a draw, the `risk` over draws, the limits, and the second `aim`
    that a front trades the objective against, if any."""

    objective: AbstractObjective
    risk: AbstractRisk
    constraints: tuple[AbstractConstraint, ...]
    outcome_limits: tuple[AbstractOutcomeLimit, ...]
    aim: SecondAim | None = None


def kind_of(parametrization: AbstractParametrization) -> str:
    """The kind of a decision, by which a search is chosen."""
    if isinstance(parametrization, WeeklyFractions):
        return WEEKLY
    if isinstance(parametrization, PolicyThresholds):
        return RULE
    whole = parametrization.space.integer
    return WHOLE if whole.all() else MIXED if whole.any() else CONTINUOUS


def agents_of(parametrization: AbstractParametrization) -> str:
    """What is decided on, in words: agents, or a rule."""
    zero = parametrization.variables(jnp.zeros(parametrization.space.size))
    return " and ".join(parametrization.courses(zero)) or RULE


def checked(build: Callable[[], Built], where: str) -> Built:
    """What `build` makes; its `ValueError` as a `ConfigError` that says where."""
    try:
        return build()
    except ValueError as error:
        words = str(error).replace("; received", "\nreceived").replace("; try: ", "\ntry:      ")
        raise ConfigError(f"{words}\nwhere:    {where}") from error


def check_decision(config: DictConfig, **facets: str) -> None:
    """Whether `decision` is for this kind of data and model. **Raises:** `ConfigError`."""
    check_fit(config, "decision", {name: frozenset({value}) for name, value in facets.items()})


def parts_of(config: DictConfig, parametrization: AbstractParametrization, quantities: Sequence[str] = ()) -> Parts:
    """Objective, risk, limits and second aim of a decision, each checked to be for it.

    **Arguments:** `quantities`: names of the states that a burden curve of this model carries.

    **Raises:** `ConfigError` for a choice that is not for this decision, with those that are.
    """
    facets = {
        "pipeline": frozenset({str(config.pipeline.name)}),
        "kind": frozenset({kind_of(parametrization)}),
        "decides": frozenset({agents_of(parametrization)}),
        "quantity": frozenset(quantities),
    }
    for group in ("objective", "risk", "constraint"):
        check_fit(config, group, facets)
    limits = [instantiate(node, where="constraint") for name, node in config.constraint.items() if name != FITS]
    outcome = tuple(limit for limit in limits if isinstance(limit, AbstractOutcomeLimit))
    for group in ("controller", "trial"):
        check_fit(config, group, facets | {"limits": frozenset({"outcome" if outcome else "decision"})})
    objective = instantiate(config.objective, where="objective")
    return Parts(
        objective,
        instantiate(config.risk, where="risk"),
        tuple(limit for limit in limits if isinstance(limit, AbstractConstraint)),
        outcome,
        checked(lambda: aim_of(config, objective, facets), "front.shares"),
    )


def check_region(
    config: DictConfig, parametrization: AbstractParametrization, constraints: Sequence[AbstractConstraint]
) -> Region:
    """The decisions that the limits leave.

    **Raises:** `ConfigError` for limits that no decision keeps together, and for more decisions than an exhaustive
    search goes through.
    """
    region = checked(lambda: Region.of(parametrization, constraints).bounded(), "constraint and decision")
    checked(lambda: check_feasible(region), "constraint and decision")
    settings = config.controller
    if settings.search not in (None, SUITABLE):
        search = instantiate(settings.search, where="controller.search")
        if isinstance(search, Exhaustive):
            points = np.where(region.space.integer, region.upper - region.lower + 1.0, search.points or 1)
            if np.prod(points) > search.most:
                raise ConfigError(
                    f"required: at most {search.most} decisions to go through (controller.search.most)\n"
                    f"received: {np.prod(points):.4g}, {region.size} components\ntry:      controller=relax_and_round"
                )
    return region


def search_of(
    settings: DictConfig, parametrization: AbstractParametrization, standard: Any, start_step: float = 7.0
) -> AbstractController | None:
    """The search of `controller`; None for one that suits the decision.

    Weekly fractions are sought by projected gradients where no other search is given, and rounded to what can be
    delivered where one is.
    """
    weekly = isinstance(parametrization, WeeklyFractions) and isinstance(standard, PlanVariables)
    if settings.search is None:
        if not weekly:
            raise ConfigError(
                "required: controller.search, for a decision that is not one of weekly fractions\nreceived: none\n"
                "try:      controller=suitable"
            )
        return ProjectedGradient(
            standard,
            tolerance=float(settings.tolerance),
            max_gradients=int(settings.max_gradients),
            probe_steps=int(settings.probe_steps),
            start_step=start_step,
        )
    if settings.search == SUITABLE:
        return None
    search = instantiate(settings.search, where="controller.search")
    return Delivered(search, standard, start_step=start_step) if weekly else search


def shown_schedules(found: Recommendation, origin: float = 0.0) -> list[ShownSchedule]:
    """The plans of a recommendation beside the burden of the fresh draws, on days counted from `origin` before."""
    plans = {
        "recommended": found.plan,
        "standard_of_care": found.standard_of_care,
        "equal_effect": found.equal_effect_plan,
    }
    return [
        ShownSchedule(
            LABELS[name],
            _doses(plan, found.curves[name], origin),
            np.asarray(found.curves[name].days)[0] + origin,
            np.asarray(found.curves[name].burden),
        )
        for name, plan in plans.items()
        if plan is not None
    ]


def _doses(plan: Plan, curve: Curve, origin: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What a plan gives, by agent; of a rule the mean level over the draws."""
    schedule = plan.parametrization.schedule(plan.variables)
    if not isinstance(schedule, Schedule):
        level = np.asarray(curve.quantities["exposure"]).mean(axis=0)
        return {"drug": (np.asarray(curve.days)[0] + origin, level)}
    courses = {"radiotherapy": schedule.radiotherapy, **schedule.drugs}
    return {
        agent: (np.asarray(course.times) + origin, np.asarray(course.doses))
        for agent, course in courses.items()
        if course.size
    }


def picture_of(found: Recommendation, *, origin: float, burden: str, unit: str, name: str) -> Picture:
    """The schedules of a recommendation, the burden that follows, and the front where there is one, as a picture."""
    return schedule_picture(
        shown_schedules(found, origin),
        burden_words=burden,
        unit=unit,
        dose_units={"radiotherapy": "Gy"},
        front=shown_front(found.trade_off),
        name=name,
    )


def keep_pictures(run: Run, pictures: Sequence[Picture]) -> None:
    """The folder of pictures beside plan.json."""
    with run.writing(SCHEDULES) as folder:
        folder.mkdir()
        for picture in pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.png)


def plan_content(found: Recommendation, picture: Picture) -> dict[str, Any]:
    """What plan.json says of a recommendation; of its picture where it lies, its caption, and its words for who cannot
    see it."""
    entry = {"file": f"{SCHEDULES}/{picture.name}.png", "caption": picture.caption, "alt": picture.alt}
    return {**found.to_json(), "picture": entry}


def outcome_words(
    objective: str, minimal_gain: float, unit: str = "mm^3", burden: str = "tumor mass"
) -> tuple[Mapping[str, Any], Callable[[Any], Any]]:
    """How a report shows an objective: name, unit and smallest gain that counts, and the function that leads there.

    A gain of m in a natural logarithm is a share 1 - exp(-m) of the outcome of the other plan. `unit` and `burden`: of
    what is measured, and its words.
    """
    share: Mapping[str, Any] = {"unit": unit, "benefit_from": 0.0, "benefit_share": -np.expm1(-minimal_gain)}
    plain: Mapping[str, Any] = {"unit": "1", "benefit_from": minimal_gain, "benefit_share": 0.0}
    words = {
        "log_burden": ({"name": burden, **share}, np.exp),
        "mean_log_burden": ({"name": f"{burden} averaged over time (geometric mean)", **share}, np.exp),
        "area_under_burden": ({**plain, "name": f"area under the {burden}", "unit": f"{unit} day"}, np.asarray),
        "burden": ({**plain, "name": burden, "unit": unit}, np.asarray),
        "time_to_progression": ({**plain, "name": "minus the time to progression", "unit": "day"}, np.asarray),
        "drug_used": ({**plain, "name": "days at the full dose of the drug", "unit": "day"}, np.asarray),
    }
    return words.get(objective, ({"name": objective.replace("_", " "), **plain}, np.asarray))
