"""From the configuration to a cohort: which table, which subjects, what the twin may know, and the problem it poses."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from tumortwin._errors import InputError
from tumortwin.config import ConfigError, flatten, instantiate, unknown
from tumortwin.inference import (
    BETWEEN,
    COVARIATE,
    RESIDUAL,
    SUBJECT,
    TYPICAL,
    Measurements,
    PopulationProblem,
    unsupported,
)
from tumortwin.io import DoseHistory, Table, TableLayout, find_data_root, layout_from, load_table, table_layout
from tumortwin.params import parameter_units
from tumortwin.treatments import StepHistory
from tumortwin.twin import BurdenCurves
from tumortwin.units import VOLUME

AUTO, DRUG = "auto", "drug"
_NAMED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The day from which on a subject's rows are held out [subject] (+inf: none), in words, and whether the forecast
    is told the doses after it."""

    cuts: np.ndarray
    words: str
    future_doses: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """The subjects of a run: `known` and `held` are parts of `whole`, with all subjects in their places.

    `origin` [subject, day]: the first reading, where each subject's clock starts. `drug`: name of the dose that drives
    the model, or None (no drug in it; or, if `from_start`, treatment from the table's day 0 on).
    """

    whole: Table
    known: Table
    held: Table
    quantity: str
    unit: str
    origin: np.ndarray
    drug: str | None
    from_start: bool
    split: Split
    notes: tuple[str, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects."""
        return self.whole.subjects


# --- splits: the choices of split=... ---


def last_readings(*, readings: int, future_doses: bool, table: Table, quantity: str, rng: Any) -> Split:
    """The last `readings` of every subject that has more."""
    del rng
    if readings < 1:
        raise ConfigError(
            f"required: split.readings of 1 or more\nreceived: {readings}\ntry:      split=none holds nothing out"
        )
    return Split(_cuts(table, quantity, -readings), f"the last {readings} readings of each subject", future_doses)


def from_day(*, day: float, future_doses: bool, table: Table, quantity: str, rng: Any) -> Split:
    """What comes on `day` or later."""
    del quantity, rng
    return Split(np.full(len(table.subjects), float(day)), f"everything from day {day:g} on", future_doses)


def some_subjects(
    *, share: float, known: int, future_doses: bool, table: Table, quantity: str, rng: np.random.Generator
) -> Split:
    """A share of the subjects, but for their first `known` readings."""
    count = len(table.subjects)
    if not 0.0 < share < 1.0 or known < 0:
        raise ConfigError(
            "required: split.share between 0 and 1, split.known of 0 or more\n"
            f"received: {share:g} and {known}\ntry:      split.share=0.25 split.known=1"
        )
    chosen = rng.permutation(count)[: max(1, round(share * count))]
    cuts = np.full(count, np.inf)
    cuts[chosen] = _cuts(table, quantity, known)[chosen]
    return Split(cuts, f"{len(chosen)} of {count} subjects but for their first {known} readings", future_doses)


def nothing(*, table: Table, quantity: str, rng: Any) -> Split:
    """Nothing is held out."""
    del quantity, rng
    return Split(np.full(len(table.subjects), np.inf), "nothing")


def _cuts(table: Table, quantity: str, place: int) -> np.ndarray:
    """The day of each subject's reading number `place` (from 0, or from the end: then one before it must be left)."""
    measured, cuts = table.quantities[quantity].measured, np.full(len(table.subjects), np.inf)
    for s in range(len(cuts)):
        days = table.row_day[(table.row_subject == s) & measured]
        if len(days) > (place if place >= 0 else -place):
            cuts[s] = days[place]
    return cuts


# --- the table ---


def _layout(config: DictConfig) -> tuple[TableLayout, Path | None, str | None]:
    """The layout of `table=...`, the folder to look in (None: the data root), and another file than the layout's."""
    content: dict[str, Any] = OmegaConf.to_container(config.table, resolve=True)  # type: ignore[assignment]
    if "declaration" in content:
        path, file = Path(str(content["declaration"])).expanduser(), content.get("file")
        layout = table_layout(path)
        if file is None:
            return layout, path.resolve().parent, None
        own = Path(str(file)).expanduser().resolve()
        return layout, own.parent, own.name
    layout = layout_from(content, name=str(content.get("label", "table")))
    own = Path(layout.file).expanduser()
    return (layout, own.parent, own.name) if own.is_absolute() else (layout, None, None)


def read_cohort_table(config: DictConfig) -> Table:
    """The table of `table=...`, checked and in canonical units."""
    layout, folder, file = _layout(config)
    return load_table(layout, config.data.root if folder is None else folder, file=file)


def table_files(config: DictConfig) -> list[Path]:
    """The files of `table=...` that are there; what is not is said when it is read."""
    layout, folder, file = _layout(config)
    root = find_data_root(config.data.root) if folder is None else folder
    names = [file or layout.file, *([layout.courses] if layout.courses else [])]
    found = [next((p for p in (root / layout.folder / n, root / n) if p.is_file()), None) for n in names]
    declared = [Path(str(config.table.declaration)).expanduser()] if "declaration" in config.table else []
    return [p for p in [*declared, *found] if p is not None]


def load_cohort(config: DictConfig, rng: np.random.Generator) -> Cohort:
    """The cohort of a configuration; `rng` draws the subjects and a split by subjects.

    **Raises:** `InputError` for a table that is wrong or says nothing; `ConfigError` for a choice it does not have.
    """
    table, notes = read_cohort_table(config), []
    quantity = _choice("cohort.quantity", config.cohort.quantity, list(table.quantities))
    counts = table.counts(quantity)
    able = np.flatnonzero(counts > 0)
    if len(able) < len(counts):
        notes.append(f"{len(counts) - len(able)} of {len(counts)} subjects have no {quantity} and were left out")
    wanted = config.cohort.subjects
    if wanted is not None and int(wanted) < len(able):
        if int(wanted) < 2:
            raise ConfigError(f"required: cohort.subjects of 2 or more\nreceived: {wanted}\ntry:      cohort=all")
        notes.append(f"{int(wanted)} of the {len(able)} subjects with readings were drawn by the seed")
        able = np.sort(rng.permutation(able)[: int(wanted)])
    whole = table.select([table.subjects[i] for i in able])
    split: Split = instantiate(config.split, where="split", _partial_=True)(table=whole, quantity=quantity, rng=rng)
    known = whole.before(split.cuts, future_doses=split.future_doses)
    drug, from_start = _drug(config, whole)
    rows = whole.padded(quantity)
    cohort = Cohort(
        whole, known, whole.since(split.cuts), quantity, rows.unit, rows.times[:, 0], drug, from_start, split, ()
    )
    return dataclasses.replace(cohort, notes=(*whole.notes, *notes, *_remarks(cohort)))


def _choice(key: str, wanted: Any, known: Sequence[str]) -> str:
    if wanted is None:
        return known[0]
    if str(wanted) not in known:
        raise unknown(key, str(wanted), known)
    return str(wanted)


def _drug(config: DictConfig, table: Table) -> tuple[str | None, bool]:
    if str(config.model.exposure) != DRUG:
        return None, False
    wanted = config.cohort.drug
    if str(wanted) == AUTO:
        return (next(iter(table.doses)), False) if table.doses else (None, True)
    return _choice("cohort.drug", wanted, list(table.doses) or [AUTO]), False


def _remarks(cohort: Cohort) -> list[str]:
    """What a reader of the numbers should know of the split. **Raises:** `InputError` when nothing can be learned."""
    rows = cohort.known.padded(cohort.quantity)
    count, bounded = rows.counts, rows.valid & ((rows.lower == rows.upper) | ((rows.lower > 0) & (rows.upper < np.inf)))
    if not count.any():
        raise InputError(
            file=cohort.whole.source,
            required=f"a reading of {cohort.quantity} that is not held out",
            received=f"{len(count)} subjects, of which {cohort.split.words} is held out",
            advice="split=none, a later split.day or fewer split.readings",
        )
    if not bounded.any():
        raise InputError(
            file=cohort.whole.source,
            required=f"one reading of {cohort.quantity} or more that is not merely a limit",
            received=f"{int(count.sum())} readings of {len(count)} subjects, every one below or above a limit",
            advice="check the unit of the limit and the entries that `recorded` and `limit` declare",
        )
    found = []
    if (one := np.flatnonzero(count == 1)).size:
        found.append(f"{_some(cohort, one)} a single known reading: they are pooled with the others, not dropped")
    if (none := np.flatnonzero(count == 0)).size:
        found.append(f"{_some(cohort, none)} no known reading: their forecast is that of the population")
    if (limits := np.flatnonzero((count > 0) & ~bounded.any(axis=1))).size:
        found.append(f"{_some(cohort, limits)} known readings at a limit only: they say how small, not how large")
    return found


def _some(cohort: Cohort, places: np.ndarray) -> str:
    names = ", ".join(cohort.subjects[i] for i in places[:_NAMED])
    more = ", ..." if len(places) > _NAMED else ""
    return f"{len(places)} subjects ({names}{more}) have" if len(places) > 1 else f"subject {names} has"


# --- the problem ---


def exposure_of(config: DictConfig, cohort: Cohort) -> StepHistory | None:
    """What drives the model, on each subject's own clock; None without a drug."""
    if cohort.from_start:
        edges, levels = -cohort.origin[:, None], np.ones((len(cohort.origin), 1))
    elif cohort.drug is not None:
        doses: DoseHistory = cohort.known.doses[cohort.drug]
        edges, levels = doses.padded()
        edges, levels = edges - cohort.origin[:, None], levels / float(config.cohort.drug_level)
    else:
        return None
    before = np.zeros((len(edges), 1))
    return StepHistory(jnp.asarray(edges), jnp.asarray(np.concatenate([before, levels], axis=1)))


def covariates_of(config: DictConfig, table: Table) -> dict[str, np.ndarray]:
    """The numbers [subject] of `cohort.covariates`, their mean taken off."""
    found = {}
    for name, how in config.cohort.covariates.items():
        source = table.covariates[_choice(f"cohort.covariates.{name}.of", how.get("of", name), list(table.covariates))]
        word = how.get("is")
        if word is None and source.dtype.kind not in "fiu":
            options = ", ".join(map(str, np.unique(source)[:8]))
            raise ConfigError(
                f"required: cohort.covariates.{name}.is, a word of {how.get('of', name)}\nreceived: nothing\n"
                f"try:      one of {options}"
            )
        if word is not None and str(word) not in set(map(str, source)):
            raise unknown(f"value of {how.get('of', name)}", str(word), sorted(set(map(str, source))))
        values = source.astype(float) if word is None else (source.astype(str) == str(word)).astype(float)
        found[str(name)] = values - values.mean()
    return found


def measurements(config: DictConfig, cohort: Cohort) -> Measurements:
    """The known readings on each subject's own clock, with treatment and covariates."""
    rows = cohort.known.padded(cohort.quantity)
    times = np.where(rows.counts[:, None] > 0, rows.times - cohort.origin[:, None], 0.0)
    return Measurements(
        *(jnp.asarray(a, float) for a in (times, rows.lower, rows.upper, rows.valid)),
        covariates={k: jnp.asarray(v) for k, v in covariates_of(config, cohort.whole).items()},
        given=exposure_of(config, cohort),
    )


def problem_of(config: DictConfig, cohort: Cohort) -> PopulationProblem:
    """The population problem of `model`, `population` and `residual` on the known readings.

    **Raises:** `ConfigError` for a path or a covariate that does not exist; `InputError` for a reading to which the
    error model gives no density.
    """
    law = instantiate(config.model.law, where="model.law")
    varying = instantiate(flatten(config.population.varying), where="population.varying")
    residual = instantiate(config.residual.error, where="residual.error")
    priors = instantiate(config.residual.priors, where="residual.priors")
    data = measurements(config, cohort)
    _check_readings(cohort, residual, data)
    try:
        return PopulationProblem(
            law, varying, residual, priors, data, BurdenCurves(),
            tuple(config.population.correlated), float(config.population.concentration),
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        text = str(error.args[0]).replace("; received", "\nreceived").replace("; try", "\ntry")
        where = "population.varying, population.correlated or residual.priors"
        advice = "" if "\ntry" in text else "\ntry:      `tumortwin configs population`, which shows every choice"
        raise ConfigError(f"{text}{advice}\n          (at {where})") from error


def _check_readings(cohort: Cohort, residual: Any, data: Measurements) -> None:
    outside = unsupported(residual, data)
    if not outside.any():
        return
    subject, time = np.argwhere(outside)[0]
    rows = cohort.known.padded(cohort.quantity)
    low, high = rows.lower[subject, time], rows.upper[subject, time]
    value = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    raise InputError(
        file=cohort.whole.source,
        required=f"readings of {cohort.quantity} to which a {type(residual).__name__} gives a density",
        received=f"{value} {cohort.unit} of subject {cohort.subjects[subject]!r} on day {rows.times[subject, time]:g} "
        f"(and {int(outside.sum()) - 1} more)",
        advice="declare what the entry stands for (`recorded`, `limit`), or another residual=...",
    )


def last_known(cohort: Cohort) -> np.ndarray:
    """Day [subject] of the last known reading on the table's clock; of the first one where all are held out."""
    seen = cohort.known.padded(cohort.quantity)
    return np.where(seen.counts > 0, np.max(seen.times, axis=1, initial=-np.inf, where=seen.valid), cohort.origin)


def units_of(problem: PopulationProblem, measured: str) -> dict[str, str]:
    """The unit of every path of a posterior; what is on the scale of the measurement has the table's unit."""
    known = parameter_units(problem.model)
    natural = {path: _in_table(known.get(path, "1"), measured) for path in problem.varying}
    found = {f"{kind}{path}": unit for path, unit in natural.items() for kind in (TYPICAL, SUBJECT)}
    for path, how in problem.varying.items():
        found[BETWEEN + path] = {"log": "ln", "logit": "logit"}.get(how.scale, natural[path])
        found |= {f"{COVARIATE}{path}.{name}": found[BETWEEN + path] for name in how.covariates}
    residual = parameter_units(problem.residual)
    return found | {f"{RESIDUAL}{path}": _in_table(unit, measured) for path, unit in residual.items()}


def _in_table(unit: str, measured: str) -> str:
    found = {"measured": measured, VOLUME: measured, "measured/day": f"{measured}/day"}
    return found.get(unit, unit)
