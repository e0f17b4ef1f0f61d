"""Numbers into plain words: rounding, intervals, and sentences that hedge as the numbers do."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from tumortwin.report._data import TWIN, Plan, Regimen, ReportData, Score, VolumePrediction, weighted_quantiles
from tumortwin.units import MM3_PER_ML

DISCLAIMER = "Research software, not a medical device."
K_HAT_LIMIT, ESS_LIMIT, R_HAT_LIMIT = 0.7, 400.0, 1.01
TIE = 1e-9


def number(value: float | int | None, *, like: float | None = None) -> str:
    """Three significant digits without exponent; `like` sets the number of decimals by another value."""
    if value is None or not math.isfinite(value):
        return "not defined"
    scale = abs(value if like is None else like)
    decimals = 0 if scale >= 100 else 2 if scale == 0 else 2 - math.floor(math.log10(scale))
    if decimals > 6:
        return f"{value:.2e}"
    text = f"{value:.{max(0, decimals)}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) != 0 else text.lstrip("-")


def interval(low: float, high: float, *, like: float | None = None) -> str:
    """`8.1–17.9`, or `−0.2 to 1.4` when a sign is in the way."""
    scale = max(abs(low), abs(high)) if like is None else like
    ends = [number(v, like=scale) for v in (low, high)]
    return "\N{EN DASH}".join(ends) if low >= 0 else " to ".join(ends)


def ml(volume_mm3: float) -> float:
    """mm^3 to mL."""
    return volume_mm3 / MM3_PER_ML


def estimate(median: float, low: float, high: float, unit: str) -> str:
    """`12.3 mL (95 % prediction interval 8.1–17.9)`."""
    return f"{number(median, like=high)} {unit} (95 % prediction interval {interval(low, high)})".replace("  ", " ")


def shown(unit: str) -> tuple[float, str]:
    """Factor and unit in which a canonical unit is printed: volumes in mL, everything else as it is."""
    return (1.0 / MM3_PER_ML, "mL") if unit == "mm^3" else (1.0, unit)


def pretty_unit(unit: str) -> str:
    """`mm^2/day` with a real superscript."""
    return "" if unit == "1" else unit.replace("^2", "²").replace("^3", "³")


def percent(share: float) -> str:
    """Whole percent, never a false 0 or 100."""
    if 0 < share < 0.005:
        return "less than 1 %"
    return "more than 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def sentence(text: str) -> str:
    """First letter up, full stop at the end."""
    text = text.strip()
    return text if not text else text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def listing(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def days(value: float) -> str:
    """`30 days`, `1 day`."""
    text = f"{value:g}"
    return f"{text} day" if text == "1" else f"{text} days"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A plan against another on paired draws; gains are positive when the plan is better."""

    median: float
    low: float
    high: float
    p_benefit: float
    unit: str


def compare(plan: Plan, against: Regimen, regimen: Regimen) -> Comparison:
    """Gain of `regimen` over `against`: median, 95 % interval, P(gain > `benefit_from`)."""
    factor, unit = shown(plan.outcome_unit)
    gain = (against.outcome - regimen.outcome) * (1.0 if plan.lower_is_better else -1.0)
    low, median, high = np.quantile(gain, [0.025, 0.5, 0.975]) * factor
    benefit = float(np.mean(gain > plan.benefit_from))
    return Comparison(float(median), float(low), float(high), benefit, pretty_unit(unit))


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
    return f"The interval includes the last scan's volume: {lean}, but neither is certain."


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


def plan_sentences(plan: Plan) -> list[str]:
    """Gain of the recommendation, its chance, who has none, and what is left at equal normal-tissue BED."""
    gain = compare(plan, plan.standard, plan.recommended)
    better = "lower" if plan.lower_is_better else "higher"
    worse = "higher" if plan.lower_is_better else "lower"
    subject = f"The recommended schedule makes the {plan.outcome_name}"
    size = f"{number(abs(gain.median))} {gain.unit}".strip()
    bounds = interval(gain.low, gain.high)
    dose = f"{plan.recommended.total_dose:.1f} Gy against {plan.standard.total_dose:.1f} Gy"
    text = [
        f"{subject} {size} {better if gain.median >= 0 else worse} than standard of care "
        f"(median; 95 % of draws {bounds}), with {dose} in total.",
        f"It helps in {percent(gain.p_benefit)} of the draws; in {percent(1 - gain.p_benefit)} there is no benefit.",
    ]
    if plan.equal_bed is not None:
        fair = compare(plan, plan.standard, plan.equal_bed)
        kept = f"{number(fair.median, like=max(abs(gain.median), abs(fair.median)))} {fair.unit}".strip()
        text.append(
            f"At equal normal-tissue BED the median gain is {kept} (95 % of draws {interval(fair.low, fair.high)})."
        )
    return text


METRICS = {
    # name: (label, unit, direction: +1 higher is better, -1 lower is better, 0 not ranked)
    "dice": ("Overlap (Dice)", "", 1),
    "hd95": ("Edge distance (HD95)", "mm", -1),
    "ccc": ("Volume agreement (CCC)", "", 1),
    "crps": ("Volume error (CRPS)", "mL", -1),
    "coverage": ("Coverage of the 95 % interval", "", 0),
}


def metric_value(score: Score) -> float | None:
    """The score in the unit in which it is printed (CRPS in mL)."""
    if score.value is None or not math.isfinite(score.value):
        return None
    return ml(float(score.value)) if score.metric == "crps" else float(score.value)


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """Sentences on where the twin beats every baseline, loses to one, or draws."""

    better: tuple[str, ...]
    worse: tuple[str, ...]
    equal: tuple[str, ...]


def _where(data: ReportData, score: Score) -> str:
    parts = [data.label(score.channel)] if score.channel else []
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
        margin = direction * (value - best)
        verdict = "equal" if abs(margin) < TIE else "better" if margin > 0 else "worse"
        scale = max(abs(value), abs(best))
        numbers = f"{number(value, like=scale)} against {number(best, like=scale)} {unit}".strip()
        found[verdict].append(f"{label}, {_where(data, mine)}: {numbers} ({name})")
    return Verdicts(*(tuple(found[key]) for key in ("better", "worse", "equal")))


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


def judge(name: str, value: float | int) -> tuple[str, bool | None]:
    """What a diagnostic should be, and whether it is (None: not judged)."""
    key = name.lower().replace("-", "_").replace("khat", "k_hat").replace("rhat", "r_hat")
    if key in ("k_hat", "pareto_k"):
        return f"below {K_HAT_LIMIT}", bool(value < K_HAT_LIMIT)
    if key == "r_hat":
        return f"below {R_HAT_LIMIT}", bool(value < R_HAT_LIMIT)
    if key == "ess":
        return f"above {ESS_LIMIT:.0f}", bool(value > ESS_LIMIT)
    return ("0", bool(value == 0)) if key == "divergences" else ("", None)


DIAGNOSTIC_LABELS = {
    "k_hat": "Pareto k-hat",
    "r_hat": "R-hat",
    "ess": "Effective sample size",
    "divergences": "Divergent transitions",
}


def trust_sentence(data: ReportData) -> str:
    """Whether the checks of the inference passed; a failed one is named."""
    if data.diagnostics is None:
        return "No diagnostics of the inference were given: treat every interval with caution."
    failed = [
        f"{DIAGNOSTIC_LABELS.get(name, name)} is {number(value)}, wanted {judge(name, value)[0]}"
        for name, value in data.diagnostics.values.items()
        if judge(name, value)[1] is False
    ]
    if failed:
        return f"Caution: a check of the inference failed ({'; '.join(failed)}). The intervals may be too narrow."
    judged = any(judge(name, value)[1] for name, value in data.diagnostics.values.items())
    return "The checks of the inference passed." if judged else "The inference was not judged by any standard check."


def summarize(draws: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float, float]:
    """Median and central 95 % interval of (weighted) draws."""
    low, median, high = weighted_quantiles(draws, np.array([0.025, 0.5, 0.975]), weights)
    return float(median), float(low), float(high)


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


def answer(data: ReportData) -> list[str]:
    """The first lines of the report."""
    told = forecast_sentences(data) or [no_forecast_answer(data)]
    return [*told, *(plan_sentences(data.plan) if data.plan else [])]


def unique(items: Iterable[str]) -> list[str]:
    """In order, each once."""
    return list(dict.fromkeys(items))
