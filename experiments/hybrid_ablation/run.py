"""What is the neural half worth? Mechanism, network and both, from the same data.

`tumortwin reproduce hybrid_ablation [data.root=DIR]`. Every number that is judged stands in `expected.json`, fixed
before any tested reading was scored. `runtime=ci`: one seed, one round of each table, short trainings.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from scipy import stats

from experiments.hybrid_ablation.figures import draw_calibration, draw_ranking, draw_recovered
from experiments.hybrid_ablation.immune import immune
from experiments.hybrid_ablation.learned import QUICK
from experiments.hybrid_ablation.lesions import lesions
from experiments.hybrid_ablation.rows import HYBRID, LEARNED, MECHANISM, NETWORK, Task
from experiments.hybrid_ablation.scores import LEVELS, Ranking, calibration_error, ranking
from experiments.hybrid_ablation.synthetic import TRUTHS, Result, study
from experiments.hybrid_ablation.tables import Told, told
from experiments.hybrid_ablation.wells import wells
from tumortwin.cli_stages import Checkpoints
from tumortwin.inference import Training
from tumortwin.io import load_table
from tumortwin.metrics import paired_bootstrap
from tumortwin.runs import Run, Verdict, at_most, between, measured

WORLDS, WORLDS_QUICK = 4, 1  # synthetic: data, noise and weights of their own
SYNTHETIC = Training(rate=0.01, epochs=600, patience=200, average=0.99)
LONG = {
    "cart_dex_glioma": Training(rate=0.02, epochs=200, patience=60, average=0.98),
    "glioma_rt_invitro_9L": Training(rate=0.03, epochs=80, patience=25, average=0.98),
    "laleh2022_lesions": Training(rate=0.03, epochs=20, patience=8, average=0.95),
    "glioma_rt_invitro_9L_schedule_left_out": Training(rate=0.03, epochs=50, patience=20, average=0.98),
}
SEEDS = {name: 1 if name.endswith("left_out") else 2 for name in LONG}
JUDGED = ("laleh2022_lesions", "glioma_rt_invitro_9L")  # whose calibration subjects are exchangeable with the tested


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The synthetic truths, then the tables."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    found = withheld(run, expected, quick)
    return found + real(run, tasks_of(config.data.root), expected, quick)


def tasks_of(root: str) -> dict[str, Callable[[], Task]]:
    """The real tasks, by name; a table is read when its turn comes."""

    def of_wells(leave_out: bool) -> Task:
        return wells(load_table("glioma_rt_invitro_9L", root), leave_out=leave_out)

    return {
        "cart_dex_glioma": lambda: immune(load_table("cart_dex_glioma", root)),
        "glioma_rt_invitro_9L": lambda: of_wells(False),
        "laleh2022_lesions": lambda: lesions(load_table("laleh", root)),
        "glioma_rt_invitro_9L_schedule_left_out": lambda: of_wells(True),
    }


def noted(run: Run, verdicts: list[Verdict]) -> list[Verdict]:
    """Into the log as soon as they are known."""
    for verdict in verdicts:
        run.log(verdict.line())
    return verdicts


def withheld(run: Run, expected: dict[str, dict], quick: bool) -> list[Verdict]:
    """Recovered rates and errors after the window, over worlds."""
    settings, worlds = (QUICK, WORLDS_QUICK) if quick else (SYNTHETIC, WORLDS)
    found = []
    with run.progress.task("withheld terms", total=worlds * len(TRUTHS)) as bar:
        for truth in TRUTHS:
            results = []
            for seed in range(worlds):
                name = f"{truth}_{seed}"
                results.append(
                    study(truth, seed, settings, key=run.key(name), checkpoint=Checkpoints(run, "training"), name=name)
                )
                bar.advance()
            found += noted(run, of_truth(truth, results, expected, quick))
            draw_recovered(run, truth, results)
    return found


def of_truth(truth: str, results: list[Result], expected: dict[str, dict], quick: bool) -> list[Verdict]:
    """Verdicts of one truth."""
    found = []
    recovery, ahead = expected["recovered_rate_error"], expected["extrapolation_ratio_upper"]
    for kind in LEARNED:
        error = [r.recovered[kind] for r in results]
        name = f"{truth}_recovered_rate_error_{kind}"
        judge = kind == HYBRID and not quick
        value = float(np.median(error))
        found.append(
            at_most(name, value, recovery["at_most"], "1", recovery["source"]) if judge else measured(name, value)
        )
        found.append(measured(f"{name}_largest", max(error)))
        for what in ("within", "later"):
            mean = np.mean([getattr(r, what)[kind].mean() for r in results])
            found.append(measured(f"{truth}_log_error_{what}_{kind}", mean))
    # Subjects of one world share its training: worlds are drawn.
    for other in (MECHANISM, NETWORK):
        means = {kind: np.array([r.later[kind].mean() for r in results]) for kind in (HYBRID, other)}
        ratio = np.log(means[HYBRID] / means[other])
        name = f"{truth}_extrapolation_error_hybrid_over_{other}"
        found.append(measured(name, np.exp(ratio.mean())))
        found.append(measured(f"{name}_worst_world", np.exp(ratio.max())))
        if not quick:  # Student's interval of the mean: a bootstrap of four worlds is too narrow, one world has none
            half = stats.t.ppf(0.975, ratio.size - 1) * ratio.std(ddof=1) / np.sqrt(ratio.size)
            upper = float(np.exp(ratio.mean() + half))
            found.append(at_most(f"{name}_upper", upper, ahead["at_most"], "1", ahead["source"]))
    return found


def real(run: Run, tasks: dict[str, Callable[[], Task]], expected: dict[str, dict], quick: bool) -> list[Verdict]:
    """The tables one after another."""
    found, rankings, curves = [], {}, {}
    for name, make in tasks.items():
        task, seeds = make(), 1 if quick else SEEDS[name]
        rounds = 1 if quick else None
        total = seeds * (rounds or sum(1 for _ in task.parts(0)))
        with run.progress.task(name, total=total) as bar:
            said = [
                told(
                    task, seed, QUICK if quick else LONG[name], rounds,
                    key=run.key(f"{name}_{seed}"), checkpoint=Checkpoints(run, "training"), advance=bar.advance,
                )
                for seed in range(int(run.config.seed), int(run.config.seed) + seeds)
            ]  # fmt: skip
        rng = np.random.default_rng(int(run.config.seed))
        own, rank = of_table(name, said, expected, rng, quick)
        found += noted(run, own)
        rankings[name], curves[name] = rank, said[0]
    draw_ranking(run, rankings, {name: t.task.unit for name, t in curves.items()})
    draw_calibration(run, {name: {who: s.inside for who, s in t.scores.items()} for name, t in curves.items()}, LEVELS)
    return found


def of_table(
    name: str, said: list[Told], expected: dict[str, dict], rng: np.random.Generator, quick: bool
) -> tuple[list[Verdict], Ranking]:
    """Scores over seeds, ranks, differences to the hybrid, coverage, and whether seeds agree."""
    unit, who_all = said[0].task.unit, list(said[0].scores)
    subjects = said[0].cases.subject
    order = [np.lexsort((t.cases.time, t.cases.row)) for t in said]
    mean = {who: np.mean([t.scores[who].crps[o] for t, o in zip(said, order, strict=True)], axis=0) for who in who_all}
    rank = ranking(mean, subjects[order[0]], rng)
    found = [measured(f"{name}_readings", subjects.size), measured(f"{name}_subjects", np.unique(subjects).size)]
    for place, who in enumerate(rank.names, start=1):
        error = np.mean([t.scores[who].error.mean() for t in said])
        found += [
            measured(f"{name}_{who}_rank", place),
            measured(f"{name}_{who}_rank_low", rank.rank[who][0]),
            measured(f"{name}_{who}_rank_high", rank.rank[who][1]),
            measured(f"{name}_{who}_best_in_share_of_resamples", rank.best[who]),
            measured(f"{name}_{who}_crps", rank.mean[who], unit),
            measured(f"{name}_{who}_crps_low", rank.low[who], unit),
            measured(f"{name}_{who}_crps_high", rank.high[who], unit),
            measured(f"{name}_{who}_mean_absolute_error", error, unit),
            *of_intervals(name, who, said, expected, quick),
        ]
    for other in (w for w in who_all if w != HYBRID):
        value, low, high = rank.difference[HYBRID, other]
        start = f"{name}_crps_hybrid_minus_{other}"
        found += [
            measured(start, value, unit),
            measured(f"{start}_low", low, unit),
            measured(f"{start}_high", high, unit),
        ]
    for who in LEARNED:
        found.append(measured(f"{name}_{who}_unsolved_readings", sum(t.failed[who] for t in said)))
    found.append(measured(f"{name}_hybrid_fixed_steps_error", max(t.solver_difference for t in said), "h"))
    if len(said) > 1:
        found += agreement(name, said, order, expected, rng)
    return found, rank


def of_intervals(name: str, who: str, said: list[Told], expected: dict[str, dict], quick: bool) -> list[Verdict]:
    """Coverage of the 95 % interval, its width, and the calibration at all levels; means over seeds."""
    limits = expected["coverage"]
    inside = np.mean([t.scores[who].inside[-1].mean() for t in said])
    width = np.mean([np.mean(t.scores[who].high - t.scores[who].low) for t in said])
    label = f"{name}_{who}_coverage"
    judged = between(label, inside, limits["low"], limits["high"], "1", limits["source"])
    return [
        judged if name in JUDGED and not quick else measured(label, inside),
        measured(f"{name}_{who}_interval_width", width, said[0].task.unit),
        measured(f"{name}_{who}_calibration_error", np.mean([calibration_error(t.scores[who].inside) for t in said])),
    ]


def agreement(
    name: str, said: list[Told], order: list[np.ndarray], expected: dict[str, dict], rng: np.random.Generator
) -> list[Verdict]:
    """The first two seeds: the difference of their mean CRPS over half the width of the interval of one of them, and
    the share of forecasts of the one that lie in the other's 95 % interval."""
    first, second = said[:2]
    limit, found = expected["seeds_difference"], []
    for who in LEARNED:
        a, b = first.scores[who].crps[order[0]], second.scores[who].crps[order[1]]
        subject = np.unique(first.cases.subject[order[0]], return_inverse=True)[1]
        alone = paired_bootstrap(a, np.zeros_like(a), subject, rng=rng, resamples=2000)
        share = abs(a.mean() - b.mean()) / (0.5 * (alone.high - alone.low))
        low, high = first.scores[who].low[order[0]], first.scores[who].high[order[0]]
        middle = second.scores[who].middle[order[1]]
        label = f"{name}_{who}_seeds_difference_over_half_interval"
        found.append(at_most(label, share, limit["at_most"], "1", limit["source"]))
        found.append(measured(f"{name}_{who}_seeds_forecasts_inside", np.mean((low <= middle) & (middle <= high))))
    return found
