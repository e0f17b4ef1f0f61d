"""The report on many subjects as a page: answer, cohort, population, subjects, scores, limits, record."""

from tumortwin.report import _words as words
from tumortwin.report._cohort import CohortReport, MethodScore
from tumortwin.report._data import TWIN
from tumortwin.report._figures_cohort import method_dots, subject_panels
from tumortwin.report._figures_parameters import prior_posterior
from tumortwin.report._page import Page
from tumortwin.report._sections import (
    Folded,
    Headline,
    Section,
    Table,
    diagnostic_table,
    limits_section,
    parameter_table,
    record_section,
    schedules_section,
)
from tumortwin.report._sentences import Answer, trust_sentence
from tumortwin.report._style import Picture
from tumortwin.report._words import number, percent

NOT_CHECKED = "Nothing was held out: how good these forecasts are is not known."


def cohort_page(data: CohortReport) -> Page:
    """Everything of the page, in reading order."""
    key = subject_panels(data)
    sections = [cohort_section(data), population_section(data)]
    sections += [subjects_section(key)] if key else []
    sections += [scores_section(data)]
    sections += [schedules_section(data.schedules, data.schedules_lead)] if data.schedules else []
    sections += [limits_section(data), record_section(data)]
    kicker = f"Tumor twin report, {data.subjects} subjects of {data.name}"
    return Page(kicker, data.title, data.question, cohort_answer(data), cohort_headlines(data), key, sections)


def _best(data: CohortReport, by: str) -> MethodScore | None:
    """The baseline with the smallest `crps` or `error`."""
    rivals = [s for s in data.scores if s.method != TWIN]
    return min(rivals, key=lambda s: getattr(s, by)) if rivals else None


def cohort_answer(data: CohortReport) -> Answer:
    """How good the forecasts were, in one line; then baselines and trust."""
    mine, rival, nearest = data.score(TWIN), _best(data, "crps"), _best(data, "error")
    if mine is None:
        line = f"{data.subjects} subjects were forecast from {data.readings} readings; nothing was held out."
        said = (("Outlook", outlook_sentence(data)), ("Check", NOT_CHECKED), ("Trust", trust_sentence(data)))
        return Answer(line, tuple((label, text) for label, text in said if text))
    unit = words.pretty_unit(data.unit)
    line = (
        f"{data.held_out} readings of {data.subjects} subjects were hidden and forecast: off by {number(mine.error)} "
        f"{unit} on average, and inside the 95 % prediction interval in {_coverage(mine)}."
    )
    said = [("Outlook", outlook_sentence(data))]
    if rival is not None and nearest is not None:
        said.append(("Baselines", _against(mine, rival, nearest, unit)))
    said += [("Intervals", honest(mine)), ("Trust", trust_sentence(data))]
    return Answer(line, tuple((label, text) for label, text in said if text))


def outlook_sentence(data: CohortReport) -> str:
    """What is expected of the subjects; empty where nothing was forecast."""
    found = data.outlook
    if found is None:
        return ""
    unit = words.pretty_unit(data.unit)
    sure = "in none of them" if found.certain == 0 else f"in {found.certain} of them"
    return (
        f"{found.horizon:g} days after its last known reading the {data.quantity} is expected to be larger than on "
        f"that day in {found.larger} of {found.subjects} subjects and smaller in the others; {sure} the 95 % interval "
        f"of the change leaves no doubt which. The middle subject is expected at {number(found.middle)} {unit}, the "
        f"middle half of them at {number(found.low)} to {number(found.high)}."
    )


def _coverage(score: MethodScore) -> str:
    if score.coverage is None or score.coverage_low is None or score.coverage_high is None:
        return "an unknown share"
    low, high = (f"{100 * v:.0f}" for v in (score.coverage_low, score.coverage_high))
    return f"{percent(score.coverage)} of the cases (95 % interval of that share {low}\N{EN DASH}{high} %)"


def _verdict(mine: float, theirs: float) -> str:
    return "better than" if mine < theirs else "worse than" if mine > theirs else "level with"


def _against(mine: MethodScore, rival: MethodScore, nearest: MethodScore, unit: str) -> str:
    """The twin beside the best baseline by CRPS, and beside the best by mean absolute error, which may be another."""
    name, other = (score.method.replace("_", " ") for score in (rival, nearest))
    verdict = _verdict(mine.crps, rival.crps)
    sure = ""
    if rival.worse_by is not None:
        low, high = rival.worse_by[1:]
        sure = "; the difference is within chance" if low <= 0.0 <= high else "; the difference is beyond chance"
    return (
        f"By CRPS the twin is {verdict} the best baseline, {name}: {number(mine.crps)} against {number(rival.crps)} "
        f"{unit}{sure} (bootstrap over subjects). In mean absolute error it is {_verdict(mine.error, nearest.error)} "
        f"the best, {other}: {number(mine.error)} against {number(nearest.error)} {unit}."
    )


def honest(score: MethodScore) -> str:
    """Whether 95 % is in the interval of the coverage."""
    if score.coverage_low is None or score.coverage_high is None:
        return ""
    if score.coverage_low <= 0.95 <= score.coverage_high:
        return "The share of readings inside agrees with the 95 % that the intervals promise."
    return (
        "The intervals are too narrow: fewer readings lie inside than the 95 % that they promise."
        if score.coverage_high < 0.95
        else "The intervals are wider than they need to be: more readings lie inside than the 95 % that they promise."
    )


def cohort_headlines(data: CohortReport) -> list[Headline]:
    """Subjects, error, coverage, the best baseline."""
    unit, mine, rival = words.pretty_unit(data.unit), data.score(TWIN), _best(data, "error")
    found = [Headline(str(data.subjects), "", f"subjects, {data.readings} readings shown, {data.held_out} held out")]
    if mine is not None:
        found.append(Headline(number(mine.error), unit, "mean absolute error of the forecasts"))
        if mine.coverage is not None:
            found.append(Headline(f"{100 * mine.coverage:.0f}", "%", "of held-out readings inside the 95 % interval"))
    if rival is not None:
        found.append(
            Headline(number(rival.error), unit, f"by {rival.method.replace('_', ' ')}, the best baseline in this")
        )
    return found


def cohort_section(data: CohortReport) -> Section:
    """Who was measured, how often, and what has to be known of the table."""
    rows = tuple((name, text) for name, text in data.facts.items())
    notes = tuple(words.sentence(note) for note in data.notes)
    lists = (("What to know of the table", notes),) if notes else ()
    return Section("cohort", "Cohort", tables=(Table(("", ""), rows),), lists=lists)


def population_section(data: CohortReport) -> Section:
    """Prior against posterior of what is common and of how subjects differ."""
    heading = "What the table taught of the population"
    if not data.parameters:
        return Section("parameters", heading, ("No parameters are shown: this report was made without a calibration.",))
    diagnostics = data.diagnostics
    lead = [trust_sentence(data)]
    details: list[Folded] = []
    if diagnostics is not None:
        lead += [words.sentence(diagnostics.statement)] if diagnostics.statement else []
        method = (words.sentence(f"Method: {diagnostics.method}"),) if diagnostics.method else ()
        details.append(("Diagnostics of the inference", method, diagnostic_table(data)))
    picture = prior_posterior(data.parameters, virtual=False)
    pictures = () if picture is None else (picture,)
    return Section("parameters", heading, tuple(lead), pictures, (parameter_table(data),), details=tuple(details))


def subjects_section(picture: Picture) -> Section:
    """Where the figure of the first screen is explained."""
    text = "The figure at the top: a few subjects, first of the cohort, not chosen by how well they were forecast."
    return Section("subjects", "Subjects", (text,), (picture,))


def scores_section(data: CohortReport) -> Section:
    """Every forecaster on the same held-out readings; steps and subgroups."""
    heading = "Against the held-out readings and the baselines"
    if not data.scores:
        return Section("scores", heading, (NOT_CHECKED,))
    unit = words.pretty_unit(data.unit)
    heads = (
        "Forecaster", f"Mean absolute error, {unit}", f"CRPS, {unit}", "CRPS of log(1 + y)", "Inside 95 %",
        f"Width, {unit}", "CRPS of the twin minus this one (95 %)",
    )  # fmt: skip
    rows = tuple(_row(score) for score in data.scores)
    tables = [Table(heads, rows, strong=[s.method for s in data.scores].index(TWIN))]
    if data.steps:
        steps = tuple((name, percent(share), words.interval(low, high)) for name, share, low, high in data.steps)
        tables.append(Table(("Held-out reading", "Inside 95 %", "95 % interval of that share"), steps))
    details: list[Folded] = []
    if data.subgroups:
        groups = tuple(
            (label, f"{count:.0f}", number(error), percent(share), words.interval(low, high))
            for label, count, error, share, low, high in data.subgroups
        )
        heads = ("Subgroup", "Subjects", f"Mean absolute error, {unit}", "Inside 95 %", "95 % interval of that share")
        details.append(("By subgroup: does it serve all alike?", (), Table(heads, groups)))
    if data.card:
        rows = tuple((key.replace("_", " "), _plain(value)) for key, value in data.card.items())
        details.append(("Card of this replay", (), Table(("Item", ""), rows)))
    picture = method_dots(data)
    lead = ("A point forecast has no interval; its CRPS is its absolute error.",)
    return Section("scores", heading, lead, (picture,) if picture else (), tuple(tables), details=tuple(details))


def _row(score: MethodScore) -> tuple[str, ...]:
    versus = "" if score.worse_by is None else words.median_interval(*score.worse_by)
    return (
        score.method.replace("_", " "),
        number(score.error),
        number(score.crps),
        "" if score.log_crps is None else number(score.log_crps),
        "" if score.coverage is None else percent(score.coverage),
        "" if score.width is None else number(score.width),
        versus,
    )


def _plain(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
