"""The report as a list of sections: pictures, sentences and tables, ready for the template. No HTML here."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TypeAlias

from tumortwin.report import _sentences as sentences
from tumortwin.report import _words as words
from tumortwin.report._data import Documented, Learned, Plan, PlannedSchedule, PlanRow, Regimen, ReportData
from tumortwin.report._figures_anatomy import contours_over_time, fitted_masks
from tumortwin.report._figures_forecast import fan_chart, volume_fit
from tumortwin.report._figures_maps import probability_map, probability_strip
from tumortwin.report._figures_parameters import narrowing_words, prior_posterior
from tumortwin.report._figures_plan import plan_figure
from tumortwin.report._figures_scores import coverage_plot, methods, score_dots
from tumortwin.report._scene import Scene, make_scene
from tumortwin.report._style import Picture
from tumortwin.report._words import ml, number

SCHEDULE = "Recommended schedule against standard of care"
QUESTION = "A computed schedule is a question to an oncologist, not an answer."
ABSENT = {
    "anatomy": "No pictures of the anatomy: the report was given no background image or no tumor outline.",
    "parameters": "No parameters are shown: this report was made without a calibration.",
    "fit": "No fit is shown: no predicted outlines were given for a visit that the twin was shown.",
    "forecast": "No forecast: no predicted volumes were given.",
    "maps": "No probability maps: the forecast was given without maps or there is no anatomy to lay them on.",
    "scores": "No scores: there is no later scan, hidden from the twin, to compare a forecast with.",
    "plan": "No schedule is recommended: none was asked for.",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Column heads and rows of printed words; `strong` is the index of an emphasized row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: int | None = None


Folded: TypeAlias = tuple[str, tuple[str, ...], Table | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """One heading of the report. `details` are folded away: (summary, sentences, table)."""

    id: str
    heading: str
    lead: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    lists: tuple[tuple[str, tuple[str, ...]], ...] = ()
    details: tuple[Folded, ...] = ()
    absent: str = ""


@dataclasses.dataclass(frozen=True)
class Headline:
    """One of the numbers at the top."""

    value: str
    unit: str
    label: str


def _missing(data: ReportData, key: str, heading: str) -> Section:
    return Section(key, heading, absent=data.absent.get(key, ABSENT[key]))


def _pictures(*found: Picture | None) -> tuple[Picture, ...]:
    return tuple(p for p in found if p is not None)


def headlines(data: ReportData) -> list[Headline]:
    """Three or four numbers: the forecast, its chance of growth or agreement, the plan's benefit, or what was seen."""
    found: list[Headline] = []
    channel, day = data.headline_channel, data.headline_day
    prediction = None if channel is None else data.prediction(channel)
    if prediction is not None and day is not None and channel is not None:
        median, low, high = (ml(v) for v in prediction.at(day))
        before = sentences.last_observed(data, channel)
        if before is not None:
            label = f"{data.label(channel)}, last scan used (day {before[0]:g})"
            found.append(Headline(number(ml(before[1]), like=high), "mL", label))
        label = f"expected on day {day:g}; 95 % prediction interval {words.interval(low, high)} mL"
        found.append(Headline(number(median, like=high), "mL", label))
        found += _hidden_headline(data, channel, day)
    else:
        found += _seen_headlines(data)
    if data.plan is not None:
        gain = sentences.compare(data.plan, data.plan.standard, data.plan.recommended)
        least = sentences.least(data.plan)
        what = f"gain more than {least}" if least else "have a benefit"
        label = f"of the draws {what} from the recommended schedule"
        if data.plan.equal_bed is not None:
            fair = sentences.compare(data.plan, data.plan.standard, data.plan.equal_bed)
            label += f"; {words.percent(fair.p_benefit)} at equal normal-tissue BED"
        found.append(Headline(words.percent(gain.p_benefit).replace(" %", ""), "%", label))
    return found[:4]


def _hidden_headline(data: ReportData, channel: str, day: float) -> list[Headline]:
    measured = [data.volume_of(v, channel) for v in data.patient.visits if v.hidden and v.day == day]
    if not measured or measured[0] is None:
        return []
    prediction = data.prediction(channel)
    inside = prediction is not None and prediction.at(day)[1] <= measured[0] <= prediction.at(day)[2]
    label = f"measured on day {day:g}, hidden from the twin: {'inside' if inside else 'outside'} the interval"
    return [Headline(number(ml(measured[0])), "mL", label)]


def _seen_headlines(data: ReportData) -> list[Headline]:
    visit = data.patient.visits[-1] if data.patient.visits else None
    volumes = [] if visit is None else [(c, data.volume_of(visit, c.key)) for c in data.channels]
    return [
        Headline(number(ml(v)), "mL", f"{c.label}, day {visit.day:g}")
        for c, v in volumes
        if v is not None and visit is not None
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], strong: int | None = None) -> Table:
    return Table(tuple(heads), tuple(tuple(row) for row in rows), strong)


def data_section(data: ReportData) -> Section:
    """Who, what was measured when, what was given."""
    patient = data.patient
    kind = "This patient is simulated: the truth is known. " if patient.virtual else ""
    source = f"Patient {patient.id}. {kind}{words.sentence(patient.source) if patient.source else ''}"
    lead = [source.strip()] + ([words.sentence(f"Age of the data: {patient.data_age}")] if patient.data_age else [])
    rows = []
    for visit in patient.visits:
        volumes = [data.volume_of(visit, c.key) for c in data.channels]
        cells = ["not measured" if v is None else number(ml(v)) for v in volumes]
        rows.append([f"{visit.day:g}", *cells, "hidden from the twin" if visit.hidden else "shown to the twin"])
    heads = ["Day", *(f"{words.upper_first(c.label)}, mL" for c in data.channels), "Use"]
    lead += _treatment_sentences(data)
    if len(patient.visits) == 1:
        lead.append(
            "There is one visit only: it shows where the tumor is, not how fast it grows. "
            "Speed of growth comes from the prior."
        )
    return Section("data", "Data", tuple(lead), tables=(_table(heads, rows),) if rows else ())


def _treatment_sentences(data: ReportData) -> list[str]:
    given = data.patient.treatments
    said = []
    if given.fraction_days.size:
        first, last = float(given.fraction_days.min()), float(given.fraction_days.max())
        total, count = float(given.fraction_doses.sum()), given.fraction_days.size
        said.append(f"radiotherapy, {count} fractions, {total:.1f} Gy in total, day {first:g} to {last:g}")
    for name, days in given.drug_days.items():
        if days.size:
            said.append(f"{name} on {days.size} days between day {days.min():g} and {days.max():g}")
    if given.surgery_days:
        said.append(f"surgery on day {words.listing([f'{d:g}' for d in given.surgery_days])}")
    return [f"Treatment: {'; '.join(said)}."] if said else ["No treatment is on record."]


def parameters_section(data: ReportData) -> Section:
    """Prior against posterior, the identifiability statement, diagnostics folded away."""
    heading = "What the scans taught"
    if not data.parameters:
        return _missing(data, "parameters", heading)
    diagnostics = data.diagnostics
    lead = [sentences.trust_sentence(data)]
    if diagnostics is not None and diagnostics.statement:
        lead += words.statements(diagnostics.statement, diagnostics.labels)
    picture = prior_posterior(data.parameters, virtual=data.patient.virtual)
    details: list[Folded] = [("Every parameter in numbers", (), parameter_table(data))]
    if diagnostics is not None:
        method = (words.sentence(f"Method: {diagnostics.method}"),) if diagnostics.method else ()
        details.append(("Diagnostics of the inference", method, diagnostic_table(data)))
    return Section("parameters", heading, tuple(lead), _pictures(picture), details=tuple(details))


def parameter_table(data: Learned) -> Table:
    """Every parameter in numbers, prior and posterior."""
    rows = []
    for p in data.parameters:
        prior = words.summarize(p.prior)
        cells = [p.label, p.path, words.pretty_unit(p.unit), words.median_interval(*prior)]
        cells.append("" if p.posterior is None else words.median_interval(*words.summarize(p.posterior, p.weights)))
        rows.append([*cells, narrowing_words(p), p.truth_words if p.truth is None else number(p.truth)])
    return _table(["Parameter", "Path", "Unit", "Prior", "Posterior", "Learned", "Truth"], rows)


def diagnostic_table(data: Learned) -> Table:
    """Every check of the inference, and its verdict."""
    rows = []
    for name, value in ({} if data.diagnostics is None else data.diagnostics.values).items():
        wanted, good = words.judge(name, value)
        verdict = {True: "passed", False: "FAILED", None: ""}[good]
        rows.append([words.DIAGNOSTIC_LABELS.get(name, name), words.diagnostic_words(name, value), wanted, verdict])
    return _table(["Check", "Value", "Wanted", "Verdict"], rows)


def forecast_section(data: ReportData) -> tuple[Section, Picture | None]:
    """The fan chart (shown on the first screen) and its numbers by day."""
    heading = "Forecast in numbers"
    picture = fan_chart(data)
    if picture is None or data.forecast is None:
        return _missing(data, "forecast", "Forecast"), None
    days = sorted({float(v.day) for v in data.patient.visits} | {float(v.days[-1]) for v in data.forecast.volumes})
    rows = []
    for volume in data.forecast.volumes:
        for day in (d for d in days if volume.days[0] <= d <= volume.days[-1]):
            median, low, high = (ml(v) for v in volume.at(day))
            seen = _measured(data, volume.channel, day)
            verdict = "" if seen is None else "inside" if low <= ml(seen[0]) <= high else "OUTSIDE"
            measured = "" if seen is None else f"{number(ml(seen[0]), like=high)}{' (hidden)' if seen[1] else ''}"
            label = data.label(volume.channel)
            cells = [label, f"{day:g}", number(median, like=high), words.interval(low, high), measured, verdict]
            rows.append(cells)
    heads = ["Channel", "Day", "Median, mL", "95 % prediction interval, mL", "Measured, mL", "Measured is"]
    assumed = data.forecast.assumed_treatment
    lead = (words.sentence(f"The forecast assumes {assumed}"),) if assumed else ()
    return Section("forecast", heading, lead, tables=(_table(heads, rows),)), picture


def _measured(data: ReportData, channel: str, day: float) -> tuple[float, bool] | None:
    for visit in data.patient.visits:
        volume = data.volume_of(visit, channel)
        if visit.day == day and volume is not None:
            return volume, visit.hidden
    return None


def scores_section(data: ReportData) -> Section:
    """Twin against baselines; what is worse stands beside what is better."""
    heading = "Against the hidden scans and the baselines"
    said = sentences.verdicts(data)
    if not data.scores:
        hidden = any(visit.hidden for visit in data.patient.visits)
        empty = _missing(data, "scores", heading)
        if hidden and "scores" not in data.absent:
            empty = dataclasses.replace(empty, absent="No scores: the forecast was not compared with any baseline.")
        picture = coverage_plot(data.coverage)
        return dataclasses.replace(empty, pictures=(picture,), lead=(empty.absent,), absent="") if picture else empty
    lists = (("The twin is worse", said.worse), ("The twin is better", said.better), ("No difference", said.equal))
    sentence = (
        sentences.score_sentence(data) or "The scores were given without baselines, so they say little by themselves."
    )
    return Section(
        "scores",
        heading,
        (sentence,),
        _pictures(score_dots(data), coverage_plot(data.coverage)),
        lists=tuple((title, items or ("In none of the comparisons.",)) for title, items in lists[:2])
        + tuple((title, items) for title, items in lists[2:] if items),
        details=(("Every score", (), _score_table(data)),),
    )


def _score_table(data: ReportData) -> Table:
    names = words.unique(s.metric for s in data.scores)
    cases = words.unique(f"{s.channel}|{'' if s.day is None else format(s.day, 'g')}" for s in data.scores)
    rows = []
    for case in cases:
        channel, day = case.split("|")
        for method in methods(data):
            found = {
                s.metric: words.score_words(words.metric_value(s), tumor_seen=data.tumor_seen(s))
                for s in data.scores
                if s.method == method and f"{s.channel}|{'' if s.day is None else format(s.day, 'g')}" == case
            }
            if found:
                cells = [found[n] if n in found else "" for n in names]
                rows.append([data.label(None if channel == "None" else channel), day or "all", method, *cells])
    heads = [words.with_unit(*words.METRICS[n][:2]) if n in words.METRICS else n for n in names]
    return _table(["Channel", "Day", "Method", *heads], rows)


def _regimen_row(plan: Plan, regimen: Regimen) -> list[str]:
    factor, _ = words.shown(plan.outcome_unit)
    median, low, high = (v * factor for v in words.summarize(regimen.outcome))
    cells = [regimen.label, f"{regimen.start_day:g}", f"{regimen.total_dose:.1f}"]
    cells += ["not given" if regimen.bed is None else f"{regimen.bed:.1f}", words.median_interval(median, low, high)]
    if regimen is plan.standard:
        return [*cells, "", "", ""]
    gain = sentences.compare(plan, plan.standard, regimen)
    ends = words.median_interval(gain.median, gain.low, gain.high)
    return [*cells, ends, words.percent(gain.p_benefit), words.percent(1 - gain.p_benefit)]


def plan_section(data: ReportData) -> Section:
    """The recommendation, what it gains, for whom not, and at what cost."""
    heading = SCHEDULE
    plan = data.plan
    if plan is None:
        return _missing(data, "plan", heading)
    _, unit = words.shown(plan.outcome_unit)
    unit = words.pretty_unit(unit)
    outcome = words.with_unit(words.upper_first(plan.outcome_name), unit)
    heads = ["Schedule", "Start day", "Total dose, Gy", "Normal-tissue BED, Gy", outcome]
    least = sentences.least(plan)
    counted = f"Benefit (> {least})" if least else "Benefit"
    heads += [words.with_unit("Gain", unit), f"{counted} in", "No benefit in"]
    regimens = [plan.standard, plan.recommended, *([] if plan.equal_bed is None else [plan.equal_bed])]
    tables = [_table(heads, [_regimen_row(plan, r) for r in regimens], strong=1)]
    if plan.rows:
        tables.append(_further(plan.rows))
    lead = [
        " ".join(sentences.plan_sentences(plan)),
        *([plan.front] if plan.front else []),
        QUESTION,
    ]
    how = [words.sentence(f"Minimized: {plan.risk}")] if plan.risk else []
    how += [words.sentence(f"Constraint: {c}") for c in plan.constraints]
    details = (("How the schedule was chosen", tuple(how), None),) if how else ()
    pictures = _pictures(plan_figure(plan), plan.picture)
    return Section("plan", heading, tuple(lead), pictures, tuple(tables), details=details)


def schedules_section(schedules: Sequence[PlannedSchedule], lead: Sequence[str] = ()) -> Section:
    """Plans of any kind of decision, one after another: words and pictures; their tables are folded away but for the
    first."""
    said = [f"{s.label}: {' '.join(s.sentences)}" if s.label else " ".join(s.sentences) for s in schedules]
    tables, details = [], []
    for index, one in enumerate(schedules):
        if one.rows:
            table = _further(one.rows)
            if index == 0:
                tables.append(table)
            else:
                details.append((f"Comparison for {one.label}", (), table))
        if one.chosen:
            of = f" for {one.label}" if one.label else ""
            details.append((f"How the schedule{of} was chosen", tuple(map(words.sentence, one.chosen)), None))
    pictures = _pictures(*(s.picture for s in schedules))
    return Section("plan", SCHEDULE, (*lead, *said, QUESTION), pictures, tuple(tables), details=tuple(details))


def _further(rows: Sequence[PlanRow]) -> Table:
    """The comparison of a plan, number by number."""
    cells = [
        [r.name, number(r.value), _row_interval(r.low, r.high), r.interval, words.pretty_unit(r.unit)] for r in rows
    ]
    return _table(["Further comparison", "Value", "95 % interval", "Interval of", "Unit"], cells)


def _row_interval(low: float | int | None, high: float | int | None) -> str:
    return "" if low is None or high is None else words.interval(float(low), float(high))


def record_section(data: Documented) -> Section:
    """Provenance, results and the command that repeats the report."""
    details: list[Folded] = []
    if data.results:
        rows = [[r.name, _plain(r.value), words.pretty_unit(r.unit), r.target, r.source] for r in data.results]
        details.append(("Results", (), _table(["Name", "Value", "Unit", "Target", "Source"], rows)))
    if data.provenance:
        rows = [[key, _plain(value)] for key, value in data.provenance.items()]
        details.append(("Provenance", (), _table(["Item", "Value"], rows)))
    if data.citations:
        details.append(("Citations", data.citations, None))
    lead = (f"To repeat this report: {data.reproduce}",) if data.reproduce else ()
    if not details and not lead:
        lead = ("No provenance was given: a result without provenance is not a result.",)
    return Section("record", "Record", lead, details=tuple(details))


def _plain(value: object) -> str:
    if value is None:
        return "not defined"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if isinstance(value, int) else json.dumps(value, default=str, ensure_ascii=False)


def build(data: ReportData) -> tuple[list[Section], Picture | None]:
    """All sections in reading order, and the key figure of the first screen."""
    scene = make_scene(data)
    anatomy = None if scene is None else contours_over_time(data, scene)
    fit = _pictures(None if scene is None else fitted_masks(data, scene), volume_fit(data))
    forecast, fan = forecast_section(data)
    maps = _map_pictures(data, scene)
    sections = [
        data_section(data),
        Section("anatomy", "Where the tumor is", pictures=_pictures(anatomy))
        if anatomy
        else _missing(data, "anatomy", "Where the tumor is"),
        parameters_section(data),
        Section("fit", "Does the twin fit the scans it was shown?", sentences.fit_sentences(data), fit)
        if fit
        else _missing(data, "fit", "Does the twin fit the scans it was shown?"),
        forecast,
        scores_section(data),
        Section("maps", "Where tumor is likely", pictures=maps)
        if maps
        else _missing(data, "maps", "Where tumor is likely"),
        schedules_section(data.schedules) if data.schedules else plan_section(data),
        limits_section(data),
        record_section(data),
    ]
    here = [s for s in sections if not s.absent]
    left_out = [s for s in sections if s.absent]
    if left_out:
        here.insert(len(here) - 1, _left_out(left_out))
    return here, fan or anatomy


def _left_out(sections: list[Section]) -> Section:
    """One section in place of the empty ones: what is not in the report, and why."""
    return Section("missing", "Not in this report", lists=(("", tuple(s.absent for s in sections)),))


def _map_pictures(data: ReportData, scene: Scene | None) -> tuple[Picture, ...]:
    if scene is None or data.forecast is None or not data.forecast.maps:
        return ()
    maps = data.forecast.maps
    chosen = next((m for m in maps if m.day == data.headline_day), maps[-1])
    return _pictures(probability_map(data, scene, chosen), probability_strip(data, scene))


def limits_section(data: Documented) -> Section:
    """What this report cannot say, and what was assumed rather than measured."""
    limits = tuple(words.sentence(s) for s in data.limits) or ("No limits were stated. That is itself a limit.",)
    lists = [("Limits", limits)]
    if data.assumptions:
        lists.append(("Assumed, not measured", tuple(words.sentence(s) for s in data.assumptions)))
    return Section("limits", "Limits and assumptions", lists=tuple(lists))
