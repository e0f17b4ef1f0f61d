"""Irradiated glioma cells in a dish: forecasts from the first reading, of an unseen schedule, and with daily readings.

`tumortwin reproduce liu2022_radiotherapy [data.root=DIR]`. Every number that is judged stands in `expected.json`.
`runtime=ci`: fewer wells, two schedules left out. The numbers of `expected.json` are those of 9L cells; for another
cell line the baselines of the same data are the targets.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.liu2022_radiotherapy.baselines import OTHER_SCHEDULES, SAME_PLATE, UPDATED, Baseline
from experiments.liu2022_radiotherapy.culture import Wells, wells_of
from experiments.liu2022_radiotherapy.figures import draw_bars, draw_schedules
from experiments.liu2022_radiotherapy.forecast import Forecast, forecast
from experiments.liu2022_radiotherapy.population import Population, curve_of, learn, spread_over, unscale
from tumortwin.io import load_table
from tumortwin.metrics import ReplayCard, concordance, paired_bootstrap, wilson
from tumortwin.runs import Run, Verdict, at_least, between, measured

PUBLISHED_LINE = "9L"
UNITS = ("names", "plate", "schedule")  # that are drawn: wells, plates, schedules
GRID = 12.0  # [h] of the forecasts with daily updates
FEW, FEW_SCHEDULES = 6, 2
OURS = "mechanism_and_discrepancy"
BEFOREHAND = "neighbors_known_beforehand"  # a figure of `expected.json`


@dataclasses.dataclass(frozen=True)
class Task:
    """Wells that were forecast, and every forecast of them by name; the framework's is `forecast`."""

    wells: Wells
    forecast: Forecast
    others: Mapping[str, np.ndarray]

    def curves(self) -> dict[str, np.ndarray]:
        return {OURS: self.forecast.median, **self.others}

    def inside(self) -> np.ndarray:
        """Whether each reading at t > 0 lies in its 95 % interval."""
        seen, valid = self.wells.seen, self.wells.valid
        return ((seen >= self.forecast.low) & (seen <= self.forecast.high))[valid]


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Authors' split, leave one schedule out, and daily updates, for every cell line of the table."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    table = load_table("glioma_rt_invitro_9L", config.data.root)
    lines, found = sorted(set(table.covariates["cell_line"])), []
    for line in lines:
        wells = wells_of(table.where(cell_line=line))
        prefix = "" if len(lines) == 1 else f"{line}_"
        judged = expected if line == PUBLISHED_LINE else {"coverage": expected["coverage"]}
        found += study(run, prefix, wells.where(spread_over(wells, FEW)) if quick else wells, judged, quick)
    return found


def study(run: Run, prefix: str, wells: Wells, expected: Mapping[str, dict], quick: bool) -> list[Verdict]:
    """The three questions about one cell line."""
    room = (len(set(wells.plate)), int(np.unique(wells.plate, return_counts=True)[1].max()))
    ascent = 2 if quick else 8
    with run.progress.task(f"{prefix}authors' split"):
        split = authors_split(wells, ascent, room)
    schedules = sorted(set(wells.schedule))[: FEW_SCHEDULES if quick else None]
    blind, daily = [], []
    with run.progress.task(f"{prefix}leave one schedule out", total=len(schedules)) as bar:
        for first, second in left_out(wells, schedules, ascent, room):
            blind.append(first)
            daily.append(second)
            bar.advance()
    found = judged_split(f"{prefix}authors_split", split, expected, quick)
    found += judged_blind(f"{prefix}leave_one_schedule_out", blind, expected, quick)
    found += judged_daily(f"{prefix}daily_updates", daily, expected, quick)
    rng = np.random.default_rng(int(run.config.seed))
    found += ahead(f"{prefix}authors_split", [split], SAME_PLATE, ("names",), rng)
    found += ahead(f"{prefix}leave_one_schedule_out", blind, OTHER_SCHEDULES, UNITS, rng)
    found += ahead(f"{prefix}daily_updates", daily, UPDATED, UNITS, rng)
    draw_schedules(run, f"{prefix}authors_split", [split])
    draw_schedules(run, f"{prefix}leave_one_schedule_out", blind)
    draw_bars(run, prefix, {"from the first reading": blind, "with daily readings": daily})
    run.write_json(f"{prefix}card.json", card(prefix, wells, split).as_plain())
    return found


def authors_split(wells: Wells, ascent: int, room: tuple[int, int]) -> Task:
    """Learned from the authors' training wells, asked of their validation wells; with updates as baselines alone."""
    train, asked = wells.where(~wells.held_out), wells.where(wells.held_out)
    population = learn(train, ascent=ascent, room=room)
    every = {**SAME_PLATE, **{f"with_daily_updates_{name}": how for name, how in UPDATED.items()}}
    return task(population, train, asked, every)


def left_out(wells: Wells, schedules: list[str], ascent: int, room: tuple[int, int]) -> Iterator[tuple[Task, Task]]:
    """Every schedule by the population of the others (both imaging intervals leave together): from the first reading,
    and on the 12 h grid with daily updates."""
    for schedule in schedules:
        train, asked = wells.where(wells.schedule != schedule), wells.where(wells.schedule == schedule)
        population = learn(train, ascent=ascent, room=room)
        grid = asked.every(GRID)
        yield task(population, train, asked, OTHER_SCHEDULES), task(population, train, grid, UPDATED, every=1.0)


def task(
    population: Population, train: Wells, asked: Wells, baselines: Mapping[str, Baseline], every: float | None = None
) -> Task:
    """Our forecast, the mechanism's curve without discrepancies, and the baselines."""
    others = {name: how(train, asked) for name, how in baselines.items()}
    if every is None:
        others["mechanism_alone"] = unscale(curve_of(population.mechanism, asked))
    return Task(asked, forecast(population, asked, every), others)


def concordances(predicted: np.ndarray, wells: Wells) -> np.ndarray:
    """CCC of every well over t > 0 (not a number for a well that stays constant as forecast)."""
    return np.array([
        concordance(predicted[i][wells.valid[i]], wells.seen[i][wells.valid[i]]) for i in range(len(wells))
    ])  # fmt: skip


def scores(name: str, tasks: list[Task]) -> tuple[list[Verdict], dict[str, float], dict[str, float]]:
    """Mean CCC, pooled CCC and RMSE of every forecaster over all wells of the tasks; the first two by name."""
    found, mean, pooled = [], {}, {}
    for who in tasks[0].curves():
        each = np.concatenate([concordances(t.curves()[who], t.wells) for t in tasks])
        predicted = np.concatenate([t.curves()[who][t.wells.valid] for t in tasks])
        seen = np.concatenate([t.wells.seen[t.wells.valid] for t in tasks])
        mean[who], pooled[who] = float(each.mean()), concordance(predicted, seen)
        found += [
            measured(f"{name}_{who}_mean_ccc", mean[who]),
            measured(f"{name}_{who}_pooled_ccc", pooled[who]),
            measured(f"{name}_{who}_rmse", np.sqrt(np.mean((predicted - seen) ** 2))),
        ]
    return found, mean, pooled


def covered(name: str, tasks: list[Task], limits: Mapping[str, float], quick: bool) -> list[Verdict]:
    """Coverage of the 95 % intervals, over all readings, with the number of wells and Wilson's interval of wells."""
    inside = np.concatenate([t.inside() for t in tasks])
    value, wells = float(inside.mean()), sum(len(t.wells) for t in tasks)
    around = wilson(value * wells, wells)
    width = np.concatenate([(t.forecast.high - t.forecast.low)[t.wells.valid] for t in tasks]).mean()
    found = [
        measured(f"{name}_coverage_low", around.low),
        measured(f"{name}_coverage_high", around.high),
        measured(f"{name}_interval_width", width),
    ]
    if quick:
        return [measured(f"{name}_coverage", value), *found]
    return [between(f"{name}_coverage", value, limits["low"], limits["high"], "1", str(limits["source"])), *found]


def judged_split(name: str, split: Task, expected: Mapping[str, dict], quick: bool) -> list[Verdict]:
    """(a): above the published figure. The distance to the neighbors' figure is printed and judged by nothing: `ahead`
    says, well by well, whether one is better than the other."""
    found, mean, _ = scores(name, [split])
    found += covered(name, [split], expected["coverage"], quick)
    if "authors_split" in expected and not quick:
        target = expected["authors_split"]
        found.append(at_least(f"{name}_mean_ccc", mean[OURS], target["ccc_at_least"], "1", target["source"]))
        found.append(measured(f"{name}_mean_ccc_minus_{BEFOREHAND}", mean[OURS] - target[BEFOREHAND]))
    return found


def judged_blind(name: str, tasks: list[Task], expected: Mapping[str, dict], quick: bool) -> list[Verdict]:
    """(b): above neighbors and regression, those of the issue and those of the same data."""
    found, mean, pooled = scores_left_out(name, tasks, expected, quick)
    if quick:
        return found
    neighbors, regression = mean["five_nearest_neighbors_of_nearest_bed"], pooled["quadratic_regression"]
    if "leave_one_schedule_out" in expected:
        target = expected["leave_one_schedule_out"]
        found.append(at_least(f"{name}_mean_ccc", mean[OURS], target["ccc_at_least"], "1", target["source"]))
        found.append(at_least(f"{name}_pooled_ccc", pooled[OURS], target["pooled_ccc_at_least"], "1", target["source"]))
    found.append(at_least(f"{name}_mean_ccc_against_neighbors_here", mean[OURS], neighbors))
    found.append(at_least(f"{name}_pooled_ccc_against_regression_here", pooled[OURS], regression))
    return found


def judged_daily(name: str, tasks: list[Task], expected: Mapping[str, dict], quick: bool) -> list[Verdict]:
    """(c): above persistence and the regression on the other schedules."""
    found, mean, _ = scores_left_out(name, tasks, expected, quick)
    if quick:
        return found
    if "daily_updates" in expected:
        target = expected["daily_updates"]
        for what, limit in (("persistence", "ccc_at_least"), ("regression", "ccc_above_regression")):
            found.append(at_least(f"{name}_mean_ccc_over_{what}", mean[OURS], target[limit], "1", target["source"]))
    for who in UPDATED:
        found.append(at_least(f"{name}_mean_ccc_against_{who}_here", mean[OURS], mean[who]))
    return found


def scores_left_out(
    name: str, tasks: list[Task], expected: Mapping[str, dict], quick: bool
) -> tuple[list[Verdict], dict[str, float], dict[str, float]]:
    """`scores`, and what else is said of schedules that were left out, whatever was known of their wells."""
    found, mean, pooled = scores(name, tasks)
    found += by_schedule(name, tasks) + unseen(name, tasks) + covered(name, tasks, expected["coverage"], quick)
    return found, mean, pooled


def ahead(
    name: str, tasks: list[Task], baselines: Iterable[str], units: Iterable[str], rng: np.random.Generator
) -> list[Verdict]:
    """CCC of a well by ours minus that by each baseline: mean over wells, 95 % bootstrap interval over wells (`names`),
    and over groups of wells whose errors may be shared."""
    found, ours = [], np.concatenate([concordances(t.forecast.median, t.wells) for t in tasks])
    for who in baselines:
        theirs = np.concatenate([concordances(t.others[who], t.wells) for t in tasks])
        for unit in units:
            words = np.concatenate([getattr(t.wells, unit) for t in tasks])
            gap = paired_bootstrap(ours, theirs, np.unique(words, return_inverse=True)[1], rng=rng)
            label, over = f"{name}_mean_ccc_minus_{who}", "" if unit == "names" else f"_over_{unit}s"
            found += [measured(label, gap.mean)] if not over else []
            found += [measured(f"{label}{over}_low", gap.low), measured(f"{label}{over}_high", gap.high)]
    return found


def by_schedule(name: str, tasks: list[Task]) -> list[Verdict]:
    """Mean CCC and coverage of every schedule."""
    found = []
    for t in tasks:
        tag = t.wells.schedule[0].replace(" ", "_")
        found.append(measured(f"{name}_{tag}_mean_ccc", concordances(t.forecast.median, t.wells).mean()))
        found.append(measured(f"{name}_{tag}_coverage", t.inside().mean()))
    return found


def unseen(name: str, tasks: list[Task]) -> list[Verdict]:
    """Mean CCC of the authors' validation wells alone: no curve of theirs was looked at when the model was made."""
    each = np.concatenate([concordances(t.forecast.median, t.wells)[t.wells.held_out] for t in tasks])
    return [measured(f"{name}_mean_ccc_of_validation_wells", each.mean())] if each.size else []


def card(prefix: str, wells: Wells, split: Task) -> ReplayCard:
    """What a reader must know."""
    return ReplayCard(
        name=f"{prefix}liu2022_radiotherapy",
        cohort=f"wells of irradiated cells, {len(set(wells.schedule))} schedules, {len(set(wells.batch))} batches",
        subjects=len(wells),
        cases=int(wells.valid.sum()),
        split=f"the authors' ({len(split.wells)} validation wells); each schedule left out, both intervals at once",
        site_split="batches are shared by schedules: a schedule that is left out has neighbors of its batch",
        comparators=(*SAME_PLATE, *OTHER_SCHEDULES, *UPDATED, "published mean CCC: .88, daily updates .954"),
        looks="developed on training wells; see the README",
        limits=(
            "cells in a dish; one laboratory",
            "total dose and batch go together, so a dose response over batches is not identified",
            "readings of one well are not independent: the interval of the coverage counts wells",
        ),
        source="Liu et al., Front. Oncol. 12 (2022) 811415",
    )
