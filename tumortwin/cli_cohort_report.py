"""From the files of a run on a table to what its report says."""

from typing import Any

import numpy as np
from omegaconf import DictConfig

from tumortwin import report as r
from tumortwin._errors import InputError
from tumortwin.cli_cite import references
from tumortwin.cli_files import stored_posterior
from tumortwin.cli_report_plan import planned_schedule
from tumortwin.cli_table import Cohort, exposure_of, last_known
from tumortwin.inference import BETWEEN, COVARIATE, RESIDUAL, TYPICAL, Posterior
from tumortwin.io import read_curves
from tumortwin.metrics import quantile
from tumortwin.runs import Run, read_json

METHODS = {
    "NutsCalibrator": "No-U-Turn sampling of the population and every subject together",
}
_ENDS = (0.025, 0.975)
LIMITS = (
    "Research software: no number here may guide the care of a person.",
    "A few numbers stand for a whole tumor: no space, no biology beyond the model's equation.",
    "A new measurement is assumed to scatter as the known ones do, independently of each other.",
    "A subject is assumed to be one of the population that was calibrated; another center may have another one.",
)


def cohort_report_data(config: DictConfig, run: Run, cohort: Cohort) -> r.CohortReport:
    """Everything the report says, read from the run's files (or those of the run it starts from)."""
    posterior = _found(run, "posterior.zarr", stored_posterior)
    curves = _found(run, "forecast.zarr", read_curves)
    files = [_found(run, name, read_json) or [] for name in ("scores.json", "subgroups.json")]
    rows = {row["name"]: row["value"] for file in files for row in file}
    known, held = (part.counts(cohort.quantity) for part in (cohort.known, cohort.held))
    return r.CohortReport(
        title=str(config.report.title or config.cancer.title),
        question=str(config.cancer.question),
        name=cohort.whole.source.name,
        quantity=cohort.quantity.replace("_", " "),
        unit=cohort.unit,
        subjects=len(cohort.subjects),
        readings=int(known.sum()),
        held_out=int(held.sum()),
        facts=_facts(config, cohort),
        notes=cohort.notes,
        parameters=() if posterior is None else _parameters(posterior),
        diagnostics=None if posterior is None else _diagnostics(posterior),
        outlook=None if curves is None else _outlook(config, cohort, curves),
        panels=() if curves is None else _panels(config, cohort, curves),
        scores=_scores(rows),
        steps=_steps(rows),
        subgroups=_subgroups(rows),
        **_schedules(run),
        limits=LIMITS,
        assumptions=_assumptions(config, cohort),
        results=tuple(
            r.Result(str(x["name"]), x["value"], str(x["unit"] or ""), str(x["target"] or ""), str(x["source"] or ""))
            for x in run.results()
        ),
        provenance=_found(run, "provenance.json", read_json) or {},
        citations=tuple(reference.text for reference in references(config)),
        card=_found(run, "card.json", read_json) or {},
        reproduce=_command(run),
    )


def _schedules(run: Run) -> dict[str, Any]:
    """The schedules of plan.json, and what is said before them."""
    content = _found(run, "plan.json", read_json)
    if content is None:
        return {}
    common = content["common"]
    lead = [
        f"Counted from each subject's last known reading, up to {content['horizon']:g} days after it, against "
        f"{content['standard_of_care']}, on posterior draws that no plan was chosen with."
    ]
    if common["defined"]:
        lead.append(f"Best for these subjects in common: {common['statement']}.")
    else:
        lead.append(f"No schedule in common: {common['why']}.")
    found = tuple(
        planned_schedule(run, one, label=str(one["subject"]), origin=one["table_day"]) for one in content["subjects"]
    )
    return {"schedules": found, "schedules_lead": tuple(lead)}


def _found(run: Run, name: str, read: Any) -> Any:
    try:
        path = run.source(name)
    except InputError:
        return None
    return read(path)


def _command(run: Run) -> str:
    argv = (_found(run, "provenance.json", read_json) or {}).get("argv") or []
    return " ".join(["tumortwin", *map(str, argv[1:])])


def _facts(config: DictConfig, cohort: Cohort) -> dict[str, str]:
    known, whole = cohort.known.padded(cohort.quantity), cohort.whole.padded(cohort.quantity)
    counts, span = (
        known.counts,
        np.asarray([whole.times[s, v].max() for s, v in enumerate(whole.valid)]) - cohort.origin,
    )
    model = str(config.model.law["_target_"]).rpartition(".")[2]
    error = str(config.residual.error["_target_"]).rpartition(".")[2]
    return {
        "Table": f"{cohort.whole.source.name} ({cohort.whole.source})",
        "Measured": f"{cohort.quantity.replace('_', ' ')}, {cohort.unit}",
        "Subjects": str(len(cohort.subjects)),
        "Readings shown": f"{counts.sum()} ({counts.min()} to {counts.max()} each; {(counts == 1).sum()} have one)",
        "Readings held out": f"{cohort.held.counts(cohort.quantity).sum()}: {cohort.split.words}",
        "Known to an interval only": f"{int(known.censored.sum())} of the readings shown",
        "Followed for": f"{np.median(span):g} days in the middle, {span.max():g} at most",
        "Treatment": _treatment(config, cohort),
        "Model": f"{model}, error {error}",
    }


def _treatment(config: DictConfig, cohort: Cohort) -> str:
    if cohort.from_start:
        return "taken to be given from day 0 of the table on, without a break: the table declares no dose"
    if cohort.drug is None:
        return "none in the model"
    told = "also after the split" if cohort.split.future_doses else "up to the split, then as it was last"
    return f"{cohort.drug} as the table has it, {told}"


def _assumptions(config: DictConfig, cohort: Cohort) -> tuple[str, ...]:
    found = ["The clock of a subject starts with its first reading, where the model starts"]
    if cohort.from_start:
        found.append("Treatment is taken to begin on day 0 of the table and never to stop: the table declares no dose")
    if cohort.drug is not None and cohort.split.future_doses:
        found.append(
            "The forecast is told the treatment that was given later. Where treatment follows the readings (adaptive "
            "therapy) that tells about them: split.future_doses=false forgets it"
        )
    if cohort.drug is not None:
        found.append("A dose holds from its visit to the next one")
    return tuple(found)


def _label(path: str) -> str:
    for kind, words in ((TYPICAL, "typical"), (BETWEEN, "spread between subjects"), (RESIDUAL, "error of a reading")):
        if path.startswith(kind):
            name = path.removeprefix(kind).replace("_", " ").replace(".", ", ")
            return f"{name}, {words}" if kind != RESIDUAL else f"{words}: {name}"
    return path.removeprefix(COVARIATE).replace("_", " ")


def _parameters(posterior: Posterior) -> tuple[r.ParameterDraws, ...]:
    kinds = (TYPICAL, BETWEEN, COVARIATE, RESIDUAL)
    paths = sorted(
        (p for p in posterior.draws if p.startswith(kinds)),
        key=lambda p: [p.startswith(k) for k in kinds],
        reverse=True,
    )
    return tuple(
        r.ParameterDraws(
            path,
            _label(path),
            str(posterior.info["units"].get(path, "1")),
            np.asarray(posterior.prior_draws[path], float),
            np.asarray(posterior.draws[path], float),
            posterior.weights,
        )
        for path in paths
        if path in posterior.prior_draws
    )


def _diagnostics(posterior: Posterior) -> r.Diagnostics:
    method = posterior.info["calibrator"]
    return r.Diagnostics(posterior.diagnostics, posterior.statement, METHODS.get(method, str(method)))


def _outlook(config: DictConfig, cohort: Cohort, curves: Any) -> r.Outlook | None:
    """Every subject's curve on the day of its last known reading and `horizon` later, draw by draw."""
    days, arrays, attrs = curves
    if tuple(attrs["subjects"]) != cohort.subjects:
        return None
    skip, last = int(attrs["hidden"]), last_known(cohort)
    now, then = (
        np.stack(
            [
                [np.interp(day, days[s, skip:], draw) for draw in arrays["curve"][:, s, skip:]]
                for s, day in enumerate(wanted)
            ]
        )
        for wanted in (last, last + float(config.horizon))
    )
    change, expected = np.quantile(then - now, [0.025, 0.5, 0.975], axis=1), np.median(then, axis=1)
    low, middle, high = np.quantile(expected, [0.25, 0.5, 0.75])
    return r.Outlook(
        horizon=float(config.horizon),
        subjects=len(last),
        larger=int(np.sum(change[1] > 0)),
        certain=int(np.sum((change[0] > 0) | (change[2] < 0))),
        middle=float(middle),
        low=float(low),
        high=float(high),
    )


def _panels(config: DictConfig, cohort: Cohort, curves: Any) -> tuple[r.SubjectPanel, ...]:
    """The first subjects of the cohort that have something held out; the others after them."""
    days, arrays, attrs = curves
    if tuple(attrs["subjects"]) != cohort.subjects:
        return ()
    skip, whole, held = int(attrs["hidden"]), cohort.whole.padded(cohort.quantity), cohort.held.counts(cohort.quantity)
    order = sorted(range(len(cohort.subjects)), key=lambda s: held[s] == 0)[: int(config.cohort.panels)]
    exposure = exposure_of(config, cohort)
    found = []
    for s in order:
        valid = whole.valid[s]
        low, high = (_quantiles(arrays["predictive"][:, s, skip:], level) for level in _ENDS)
        median = _quantiles(arrays["curve"][:, s, skip:], 0.5)
        edges, levels = (None, None)
        if exposure is not None:
            edges, levels = np.asarray(exposure.edges)[s] + cohort.origin[s], np.asarray(exposure.levels)[s]
        found.append(
            r.SubjectPanel(
                cohort.subjects[s],
                whole.times[s, valid],
                whole.values[s, valid],
                whole.lower[s, valid],
                whole.upper[s, valid],
                whole.times[s, valid] >= cohort.split.cuts[s],
                days[s, skip:],
                median,
                low,
                high,
                edges,
                levels,
            )  # fmt: skip
        )
    return tuple(found)


def _quantiles(draws: np.ndarray, level: float) -> np.ndarray:
    """Of [draw, time], on each day."""
    return np.asarray([float(quantile(column, level)) for column in draws.T])


def _scores(rows: dict[str, Any]) -> tuple[r.MethodScore, ...]:
    methods = [n.split(".")[1] for n in rows if n.startswith("forecast.") and n.endswith(".crps") and n.count(".") == 2]
    found = []
    for name in methods:
        start = f"forecast.{name}"
        ends = [rows.get(f"forecast.{r.TWIN}_minus_{name}.crps.{end}") for end in ("mean", "low", "high")]
        found.append(
            r.MethodScore(
                method=name,
                error=rows[f"{start}.mean_absolute_error"],
                crps=rows[f"{start}.crps"],
                log_crps=rows.get(f"forecast_log.{name}.crps"),
                coverage=rows.get(f"{start}.coverage"),
                coverage_low=rows.get(f"{start}.coverage_low"),
                coverage_high=rows.get(f"{start}.coverage_high"),
                width=rows.get(f"{start}.interval_width"),
                worse_by=None if None in ends else (float(ends[0]), float(ends[1]), float(ends[2])),  # type: ignore[arg-type]
            )
        )
    return tuple(found)


def _steps(rows: dict[str, Any]) -> tuple[tuple[str, float, float, float], ...]:
    start = f"forecast.{r.TWIN}.coverage_step"
    numbers = sorted(
        {int(n.removeprefix(start)) for n in rows if n.startswith(start) and n.removeprefix(start).isdigit()}
    )
    return tuple((f"number {k}", *(float(rows[f"{start}{k}{end}"]) for end in ("", "_low", "_high"))) for k in numbers)  # type: ignore[return-value]


def _subgroups(rows: dict[str, Any]) -> tuple[tuple[str, float, float, float, float, float], ...]:
    keys = ("subjects", "mean_absolute_error", "coverage", "coverage_low", "coverage_high")
    labels = dict.fromkeys(n.removeprefix("subgroup.").rpartition(".")[0] for n in rows if n.startswith("subgroup."))
    return tuple((label, *(float(rows[f"subgroup.{label}.{key}"]) for key in keys)) for label in labels)  # type: ignore[return-value]
