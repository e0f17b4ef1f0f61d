"""What the report says in sentences: answer, check against hidden scans, schedule, baselines, trust."""

import dataclasses
import math

import numpy as np

from tumortwin.metrics import quantile
from tumortwin.report._data import TWIN, Learned, Plan, Regimen, ReportData, Score, VolumePrediction
from tumortwin.report._words import (
    DIAGNOSTIC_LABELS,
    METRICS,
    days,
    diagnostic_words,
    estimate,
    interval,
    judge,
    listing,
    metric_value,
    ml,
    number,
    percent,
    pretty_unit,
    score_words,
    shown,
)

TIE = 1e-9
NOT_CHECKED = "No hidden scan was compared with this forecast: how good it is for this patient is not known."
NOT_SCORED = "The forecast was not scored against any baseline: whether a simpler method does better is not known."


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A plan against another on paired draws; gains are positive when the plan is better."""

    median: float
    low: float
    high: float
    p_benefit: float
    unit: str


def compare(plan: Plan, against: Regimen, regimen: Regimen) -> Comparison:
    """Gain of `regimen` over `against`: median, 95 % interval, share of draws that it helps (`helped`)."""
    factor, unit = shown(plan.outcome_unit)
    low, median, high = quantile(paired_gain(plan, against, regimen), np.asarray([0.025, 0.5, 0.975])) * factor
    benefit = float(np.mean(helped(plan, against, regimen)))
    return Comparison(float(median), float(low), float(high), benefit, pretty_unit(unit))


def paired_gain(plan: Plan, against: Regimen, regimen: Regimen) -> np.ndarray:
    """Gain of every draw, in the outcome's unit; positive where `regimen` is better."""
    return (against.outcome - regimen.outcome) * (1.0 if plan.lower_is_better else -1.0)


def helped(plan: Plan, against: Regimen, regimen: Regimen) -> np.ndarray:
    """Draws (bool) whose gain is more than the smallest that counts."""
    smallest = plan.benefit_from + plan.benefit_share * np.abs(against.outcome)
    return paired_gain(plan, against, regimen) > smallest


def least(plan: Plan) -> str:
    """The smallest gain that counts, in words; nothing when every gain does."""
    factor, unit = shown(plan.outcome_unit)
    amount = f"{number(float(plan.benefit_from) * factor)} {pretty_unit(unit)}".strip() if plan.benefit_from else ""
    share = percent(float(plan.benefit_share)) if plan.benefit_share else ""
    return " and ".join(part for part in (amount, share) if part)


def last_observed(data: ReportData, channel: str) -> tuple[float, float] | None:
    """Day and volume [mm^3] of the last scan that the twin was shown."""
    if data.forecast is None:
        return None
    for visit in reversed(data.patient.visits):
        volume = data.volume_of(visit, channel)
        if not visit.hidden and volume is not None and visit.day <= data.forecast.origin_day:
            return float(visit.day), volume
    return None


def _change(median: float, low: float, high: float, before: float) -> str:
    if low > before:
        return "The whole interval lies above the last scan: growth is expected."
    if high < before:
        return "The whole interval lies below the last scan: shrinkage is expected."
    lean = "growth is more likely than not" if median > before else "shrinkage is more likely than not"
    return f"The interval includes the last scan's volume: {lean}, but not certain."


def _check_against_hidden(data: ReportData, channel: str, prediction: VolumePrediction) -> list[str]:
    hidden = [(v.day, data.volume_of(v, channel)) for v in data.patient.visits if v.hidden]
    inside = [(d, v, prediction.at(d)) for d, v in hidden if v is not None]
    if not inside:
        return []
    n_in = sum(low <= v <= high for _, v, (_, low, high) in inside)
    day, volume, (_, low, high) = inside[-1]
    text = f"The scan of day {day:g}, which the twin had not seen, measured {number(ml(volume), like=ml(high))} mL"
    text += ", inside the interval" if low <= volume <= high else ", outside the interval"
    count = f" ({n_in} of {len(inside)} hidden scans were inside)" if len(inside) > 1 else ""
    return [f"{text}{count}."]


def forecast_sentences(data: ReportData) -> list[str]:
    """The answer in words: what is expected, against what, and whether a hidden scan agreed."""
    channel, day = data.headline_channel, data.headline_day
    prediction = data.prediction(channel) if channel else None
    if data.forecast is None or prediction is None or day is None or channel is None:
        return []
    median, low, high = (ml(v) for v in prediction.at(day))
    ahead = day - float(data.forecast.origin_day)
    when = f"In {days(ahead)} (day {day:g})" if ahead > 0 else f"On day {day:g}"
    first = f"{when} the {data.label(channel)} is expected at {estimate(median, low, high, 'mL')}"
    before = last_observed(data, channel)
    if before is None:
        return [f"{first}."]
    first += f"; it measured {number(ml(before[1]), like=high)} mL on day {before[0]:g}."
    return [first, _change(median, low, high, ml(before[1])), *_check_against_hidden(data, channel, prediction)]


def _total_dose(plan: Plan) -> str:
    mine, theirs = (f"{r.total_dose:.1f}" for r in (plan.recommended, plan.standard))
    return f"the same total dose of {mine} Gy" if mine == theirs else f"{mine} Gy against {theirs} Gy in total"


def _start(plan: Plan) -> str:
    earlier = float(plan.standard.start_day) - float(plan.recommended.start_day)
    if abs(earlier) < 0.5:
        return ""
    return f" and a start {days(round(abs(earlier), 1))} {'earlier' if earlier > 0 else 'later'}"


def plan_sentences(plan: Plan) -> list[str]:
    """Gain of the recommendation, its chance, who has none, its toxicity, and what is left at equal BED."""
    gain = compare(plan, plan.standard, plan.recommended)
    scale = max(abs(gain.low), abs(gain.high))
    better = "lower" if (gain.median >= 0) == plan.lower_is_better else "higher"
    size = f"{number(abs(gain.median), like=scale)} {gain.unit}".strip()
    bounds = interval(gain.low, gain.high)
    counted = least(plan)
    by, such = (f" by more than {counted}", "such ") if counted else ("", "")
    text = [
        f"With {_total_dose(plan)}{_start(plan)}, the recommended schedule makes the {plan.outcome_name} {better} than "
        f"standard of care by {size} (median gain; 95 % of draws {bounds}).",
        f"It helps{by} in {percent(gain.p_benefit)} of the draws{_otherwise(gain.p_benefit, such)}.",
    ]
    if plan.recommended.bed is not None and plan.standard.bed is not None:
        beds = [float(r.bed) for r in (plan.recommended, plan.standard) if r.bed is not None]
        text.append(f"Its normal-tissue BED is {beds[0]:.1f} Gy against {beds[1]:.1f} Gy.")
    if plan.equal_bed is not None:
        fair = compare(plan, plan.standard, plan.equal_bed)
        kept = f"{number(fair.median, like=scale)} {fair.unit}".strip()
        ends = interval(fair.low, fair.high, like=scale)
        bought = ": what is gained is bought with normal-tissue dose" if fair.p_benefit < gain.p_benefit / 2 else ""
        text.append(
            f"At equal normal-tissue BED the median gain is {kept} (95 % of draws {ends}), and it helps{by} in "
            f"{percent(fair.p_benefit)} of the draws{bought}."
        )
    return text


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """Sentences on where the twin beats every baseline, loses to one, or draws."""

    better: tuple[str, ...]
    worse: tuple[str, ...]
    equal: tuple[str, ...]


def _otherwise(p_benefit: float, such: str) -> str:
    return f"; in {percent(1 - p_benefit)} there is no {such}benefit" if p_benefit < 1 else ""


def _where(data: ReportData, score: Score) -> str:
    parts = [data.label(score.channel)] if score.channel else ["all channels and hidden days"]
    parts += [f"day {score.day:g}"] if score.day is not None else []
    return ", ".join(parts)


def verdicts(data: ReportData) -> Verdicts:
    """The twin against the best baseline, metric by metric, channel by channel, day by day."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "equal": []}
    for mine in (s for s in data.scores if s.method == TWIN):
        label, unit, direction = METRICS.get(mine.metric, (mine.metric, "", 0))
        value = metric_value(mine)
        rivals = [
            (v, s.method)
            for s in data.scores
            if s.method != TWIN and (s.metric, s.channel, s.day) == (mine.metric, mine.channel, mine.day)
            for v in [metric_value(s)]
            if v is not None
        ]
        if direction == 0 or value is None or not rivals:
            continue
        best, name = max(rivals, key=lambda rival: direction * rival[0])
        margin = 0.0 if value == best else direction * (value - best)
        verdict = "equal" if abs(margin) < TIE else "better" if margin > 0 else "worse"
        numbers = _against(value, best, unit, data.tumor_seen(mine))
        found[verdict].append(f"{label}, {_where(data, mine)}: {numbers} ({name})")
    return Verdicts(*(tuple(found[key]) for key in ("better", "worse", "equal")))


def _against(value: float, best: float, unit: str, tumor_seen: bool) -> str:
    finite = [abs(v) for v in (value, best) if math.isfinite(v)]
    shown = [
        score_words(v, like=max(finite, default=None), unit=u, tumor_seen=tumor_seen)
        for v, u in ((value, "" if len(finite) == 2 else unit), (best, unit))
    ]
    return " against ".join(shown)


def score_sentence(data: ReportData) -> str:
    """One sentence: in how many comparisons the twin wins and loses against the best baseline."""
    said = verdicts(data)
    counts = [len(said.better), len(said.worse), len(said.equal)]
    if not sum(counts):
        return ""
    tied = f" and level in {counts[2]}" if counts[2] else ""
    return (
        f"Against the best baseline of each comparison ({sum(counts)} in all) the twin is better in {counts[0]}, "
        f"worse in {counts[1]}{tied}."
    )


def trust_sentence(data: Learned) -> str:
    """Whether the checks of the inference passed; a failed one is named."""
    if data.diagnostics is None:
        return "No diagnostics of the inference were given: treat every interval with caution."
    failed = [
        f"{DIAGNOSTIC_LABELS.get(name, name)} is {diagnostic_words(name, value)}, wanted {judge(name, value)[0]}"
        for name, value in data.diagnostics.values.items()
        if judge(name, value)[1] is False
    ]
    if failed:
        return f"Caution: a check of the inference failed ({'; '.join(failed)}). The intervals may be too narrow."
    judged = any(judge(name, value)[1] for name, value in data.diagnostics.values.items())
    return "The checks of the inference passed." if judged else "The inference was not judged by any standard check."


def missed_sentence(data: ReportData) -> str:
    """How many hidden volumes lie outside their prediction interval: what sound sampling does not mend. Empty when none
    does."""
    inside = [
        low <= seen <= high
        for volume in (() if data.forecast is None else data.forecast.volumes)
        for visit in data.patient.visits
        if visit.hidden and volume.days[0] <= visit.day <= volume.days[-1]
        for seen, (_, low, high) in [(data.volume_of(visit, volume.channel), volume.at(visit.day))]
        if seen is not None
    ]
    missed = len(inside) - sum(inside)
    if not missed:
        return ""
    which = "the hidden volume lies" if len(inside) == 1 else f"{missed} of the {len(inside)} hidden volumes lie"
    return f"But {which} outside the 95 % interval: the model or its prior is wrong for this patient."


def no_forecast_answer(data: ReportData) -> str:
    """The answer when nothing was forecast: what was seen."""
    seen = [
        f"{data.label(c.key)} {number(ml(volume))} mL"
        for visit in data.patient.visits[-1:]
        for c in data.channels
        for volume in [data.volume_of(visit, c.key)]
        if volume is not None
    ]
    if not seen:
        return "No forecast was made and no tumor volume was measured."
    return f"No forecast was made. On day {data.patient.visits[-1].day:g} the scan shows {listing(seen)}."


@dataclasses.dataclass(frozen=True)
class Answer:
    """The first screen in words: one line, then labelled short paragraphs."""

    line: str
    paragraphs: tuple[tuple[str, str], ...]


def _unscored(data: ReportData, told: list[str]) -> str:
    if not told:
        return ""
    return NOT_SCORED if any(visit.hidden for visit in data.patient.visits) else NOT_CHECKED


def answer(data: ReportData) -> Answer:
    """The one-line answer, and beneath it what to make of it: direction, check, baselines, schedule, trust."""
    told = forecast_sentences(data)
    said = [("Forecast", " ".join(told[1:])), ("Beyond the edge", data.beyond)]
    said.append(("Baselines", score_sentence(data) or _unscored(data, told)))
    if data.plan is not None:
        said.append(("Schedule", " ".join(plan_sentences(data.plan))))
    elif data.schedules:
        said.append(("Schedule", " ".join(data.schedules[0].sentences)))
    elif "plan" in data.absent:
        said.append(("Schedule", data.absent["plan"]))
    if told:
        said.append(("Trust", f"{trust_sentence(data)} {missed_sentence(data)}".strip()))
    line = told[0] if told else no_forecast_answer(data)
    return Answer(line, tuple((label, text) for label, text in said if text))


def fit_sentences(data: ReportData) -> tuple[str, ...]:
    """How many of the volumes that the twin was shown lie inside its 95 % interval."""
    inside, total = 0, 0
    for volume in () if data.forecast is None else data.forecast.volumes:
        for visit in data.patient.visits:
            seen = data.volume_of(visit, volume.channel)
            if not visit.hidden and seen is not None and volume.days[0] <= visit.day <= volume.days[-1]:
                _, low, high = volume.at(visit.day)
                inside, total = inside + (low <= seen <= high), total + 1
    if not total:
        return ()
    if total == 1:
        return (f"The one volume that the twin was shown lies {'inside' if inside else 'outside'} its 95 % interval.",)
    return (f"{inside} of the {total} volumes that the twin was shown lie inside its 95 % interval.",)
