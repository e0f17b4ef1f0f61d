"""From plan.json and the pictures beside it to what a report says of a schedule."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tumortwin import report as r
from tumortwin._errors import InputError
from tumortwin.runs import Run

INTERVALS = {
    "draws": "the draws",
    "bootstrap": "a mean over the draws (bootstrap)",
    "Wilson": "a share of the draws (Wilson)",
}


def is_weekly(content: Mapping[str, Any]) -> bool:
    """Whether a plan is one of weekly fractions, for which the report has a figure of its own."""
    return "weekly_fraction_dose_gy" in content["plan"]


def comparison_rows(content: Mapping[str, Any]) -> tuple[r.PlanRow, ...]:
    """The comparison with the standard of care, and with the schedule in common where there is one, row by row."""
    rows = [*_rows(content["comparison"]), *(_prior_row(entry) for entry in content.get("prior_sensitivity", ()))]
    if "against_common" in content:
        rows += _rows(content["against_common"], "over the schedule in common: ")
    return tuple(rows)


def _rows(comparison: Mapping[str, Any], start: str = "") -> list[r.PlanRow]:
    main = next(iter(comparison)).split(".")[0]
    found = []
    for name, entry in comparison.items():
        objective, quantity = name.split(".", 1)
        if entry["value"] is None or (start and objective != main):
            continue
        words = quantity if objective in (main, "toxicity") else f"{quantity} by {objective}"
        interval = INTERVALS.get(str(entry.get("interval")), "")
        found.append(
            r.PlanRow(
                start + words.replace("_", " "),
                entry["value"],
                entry["low"],
                entry["high"],
                str(entry["unit"]),
                interval,
            )
        )
    return found


def stored_picture(run: Run, content: Mapping[str, Any]) -> r.Picture | None:
    """The picture of schedules that was drawn with the plan."""
    entry = content.get("picture")
    if entry is None:
        return None
    try:
        file: Path = run.source(str(entry["file"]))
    except InputError:
        return None
    return r.Picture(file.stem, file.read_bytes(), str(entry["caption"]), str(entry["alt"]))


def planned_schedule(
    run: Run, content: Mapping[str, Any], *, label: str = "", origin: float = 0.0
) -> r.PlannedSchedule:
    """A plan of any decision, as the report shows it."""
    if "refused" in content:
        return r.PlannedSchedule(label, (f"No schedule keeps the limits. {content['refused']}.",))
    chosen = [
        f"Minimized: {_risk_words(content['risk'])}",
        *(f"Limit: {_limit_words(limit)}" for limit in content["constraints"]),
        f"Measure of toxicity: {content['toxicity_measure']}",
        f"How the search ended: {content['plan']['convergence'].get('outcome', 'not said')}",
        f"Days count from day {origin:g}",
    ]
    return r.PlannedSchedule(
        label, (str(content["statement"]),), comparison_rows(content), stored_picture(run, content), tuple(chosen)
    )


def weekly_plan(run: Run, content: Mapping[str, Any]) -> r.Plan:
    """A plan of weekly fractions, as the report shows it."""
    outcomes = {name: np.asarray(values, float) for name, values in content["outcomes"].items()}
    limits = [_limit_words(c) for c in content["constraints"]]
    if earlier := float(content["plan"].get("earlier_dose_gy", 0.0)):
        limits.append(
            f"the {earlier:g} Gy given before the day of the plan count in the dose limits; the standard of care is "
            "what they leave of it, in whole weeks"
        )
    if content.get("replaced"):
        limits.append(content["replaced"])
    if not content.get("fresh", True):
        limits.append("the posterior is a single draw: the schedule is judged on the draw that it was chosen with")
    origin = float(content["origin_day"])
    last_day = origin + float(content["horizon"])
    retrospective = " (looking back: every known scan was used)" if content["retrospective"] else ""
    return r.Plan(
        recommended=_regimen("recommended", content["plan"], outcomes["recommended"], origin),
        standard=_regimen("standard of care", content["standard_of_care"], outcomes["standard_of_care"], origin),
        equal_bed=_regimen(
            "at equal normal-tissue BED", content["equal_effect"]["plan"], outcomes["equal_effect"], origin
        ),
        outcome_name=f"{content['outcome']['name']} up to day {last_day:g}{retrospective}",
        outcome_unit=str(content["outcome"]["unit"]),
        benefit_from=float(content["outcome"].get("benefit_from", 0.0)),
        benefit_share=float(content["outcome"].get("benefit_share", 0.0)),
        risk=_risk_words(content["risk"]),
        constraints=tuple(limits),
        rows=comparison_rows(content),
        picture=stored_picture(run, content),
        front=str(content.get("front", {}).get("statement", "")),
    )


def _prior_row(entry: Mapping[str, Any]) -> r.PlanRow:
    """The expected gain where the prior is trusted less (power below 1) or more."""
    gain = entry["expected_gain"]
    trust = "less" if entry["power"] < 1.0 else "more"
    doubt = "" if entry["reliable"] else "; too few draws speak of it"
    name = f"expected gain, prior trusted {trust} (to the power {entry['power']:g}{doubt})"
    return r.PlanRow(
        name, gain["value"], gain["low"], gain["high"], str(gain["unit"]), INTERVALS[str(gain["interval"])]
    )


def _limit_words(limit: Mapping[str, Any]) -> str:
    tissue = f" (alpha/beta {limit['alpha_beta']:g} Gy)" if "alpha_beta" in limit else ""
    return f"{limit['name']}: {limit.get('limit', limit.get('high', ''))} {limit['unit']}{tissue}"


def _risk_words(risk: Mapping[str, Any]) -> str:
    measure = str(risk.get("measure", risk.get("risk", "risk")))
    level = f" at level {risk['level']:g}" if "level" in risk else ""
    return f"{measure}{level} of the {str(risk['objective']).replace('_', ' ')} over {risk['n_draws']} draws"


def _regimen(label: str, plan: Mapping[str, Any], outcome: np.ndarray, origin: float) -> r.Regimen:
    return r.Regimen(
        label,
        np.asarray(plan["weekly_fraction_dose_gy"], float),
        float(plan["start_day"]) + origin,
        outcome,
        float(plan["toxicity"]["bed_3_gy"]),
        int(plan["fractions_per_week"]),
    )
