"""Can a network, trained once, give every new patient a posterior? Ranks of truths, and NUTS beside it.

`tumortwin reproduce amortised`. A mouse (Gompertz, four parameters) and a glioma (a PDE on the atlas, three). The seed
and every target stand in `expected.json`. `runtime=ci`: short trainings, few patients, nothing judged.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig

from experiments.amortised import mouse, scans
from experiments.amortised.figures import draw_posteriors
from experiments.amortised.study import BANK, CORRECTED, NUTS, PLAIN, Case, Compared, compared, ranked, trained
from experiments.calibration.figures import draw_ranks
from tumortwin.inference import NutsCalibrator, SimulationBasedCalibration, child_key
from tumortwin.runs import Run, Verdict, at_least, at_most, measured
from tumortwin.surrogates import AmortisedCalibrator, AmortisedPosterior, Training

BINS, FEW_BINS = 10, 2
BATCH = 256


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How long each network is trained, how many truths are ranked in plain and in corrected posteriors (`draws` of
    the latter each), how many data sets are held against NUTS with so many draws of the network (`proposed`), of which
    the classifier gets `classified`; members of the bank and transitions of a NUTS chain for the glioma."""

    steps: int
    plain: int
    corrected: Mapping[str, int]
    draws: int
    held_out: int
    proposed: int
    classified: int
    members: int
    warmup: int
    nuts: int


FULL = Sizes(12_000, 1000, {"mouse": 200, "glioma": 100}, 500, 4, 4000, 1000, 16_384, 200, 600)
QUICK = Sizes(1000, 40, {"mouse": 10, "glioma": 10}, 200, 1, 1000, 400, 2048, 50, 100)

Targets = Mapping[str, Mapping[str, Any]]


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The mouse, then the glioma."""
    quick = bool(config.runtime.quick)
    expected: Targets = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    key = jax.random.key(int(expected["seed"]["value"]))
    sizes = QUICK if quick else FULL
    training = Training(steps=sizes.steps, chunk=500)
    found, shown = [], {}
    pictures: dict[str, tuple[Case, Compared]] = {}
    with run.progress.task("bank of simulations", total=sizes.members) as bar:
        sampler = NutsCalibrator(warmup=sizes.warmup, draws=sizes.nuts, chunk=25, threads=2)
        glioma, bank = scans.case(
            sizes.members,
            BATCH,
            sampler,
            chunk=1024,
            advance=lambda done: bar.update(done, sizes.members),
            key=child_key(key, "members"),
        )
    for case, others in ((mouse.case(BATCH), {}), (glioma, {BANK: bank})):
        own = child_key(key, case.name)
        network, losses, seconds = trained(run, case, training, key=child_key(own, "training"))
        found += [
            measured(f"{case.name}_training_seconds", seconds, "s"),
            measured(f"{case.name}_training_simulations", BATCH * sizes.steps),
            measured(f"{case.name}_validation_loss", losses.min(), "nat"),
        ]
        for kind, calibrator, n in (
            (PLAIN, AmortisedCalibrator(network, draws=500, chunk=500, corrected=False), sizes.plain),
            (CORRECTED, corrected(network, sizes.draws), sizes.corrected[case.name]),
        ):
            study = ranked(run, case, kind, calibrator, n, key=child_key(own, "ranks"))
            found += uniform(case, kind, study, expected, quick)
            shown[f"{case.name}_{kind}"] = (study, case.judged)
        sets = against_nuts(run, case, network, sizes, others, own)
        found += agreement(case, sets, expected, quick)
        pictures[case.name] = case, sets[0]
    draw_ranks(run, shown, BINS, {**mouse.SHORT, **glioma.short})
    draw_posteriors(run, pictures)
    return found


def corrected(network: AmortisedPosterior, draws: int) -> AmortisedCalibrator:
    """For ranks: further proposals where fewer than three tenths of the network's draws are effective."""
    return AmortisedCalibrator(network, draws=draws, chunk=100, least_effective=0.3 * draws)


def uniform(case: Case, kind: str, study: SimulationBasedCalibration, expected: Targets, quick: bool) -> list[Verdict]:
    """Uniformity of the ranks of every parameter (Bonferroni), and the coverage of its 95 % interval."""
    target, start = expected["uniformity_level"], f"{case.name}_{kind}"
    level, found = float(target["value"]) / len(case.judged), [measured(f"{start}_simulations", study.simulations)]
    for name in study.ranks:
        label = f"{start}_{case.short.get(name, name)}"
        p_value = study.histogram(name, FEW_BINS if quick else BINS)[1]
        judged = at_least(f"{label}_rank_p_value", p_value, level, "1", str(target["source"]))
        found.append(judged if name in case.judged and not quick else measured(judged.name, p_value))
        found.append(measured(f"{label}_coverage", study.coverage(name).share))
    said = study.diagnostics
    found.append(measured(f"{start}_share_outside_of_training", 1.0 - said["inside"].mean()))
    if "ess" in said:
        share = said["ess"] / said["draws"]
        found += [
            measured(f"{start}_effective_share_median", np.median(share)),
            measured(f"{start}_effective_share_least", share.min()),
            measured(f"{start}_share_with_k_hat_above_0.7", np.mean(said["k_hat"] > 0.7)),
            measured(f"{start}_share_with_further_proposals", np.mean(said["proposals"] > 1)),
            measured(f"{start}_share_called_unreliable", np.mean(said["sample_reliable"] == 0)),
        ]
    return found


def against_nuts(
    run: Run, case: Case, network: AmortisedPosterior, sizes: Sizes, others: Mapping[str, Any], key: Array
) -> list[Compared]:
    """A few data sets that nothing was trained or ranked on."""
    found = []
    with run.progress.task(f"{case.name} beside NUTS", total=sizes.held_out) as bar:
        for i in range(sizes.held_out):
            own = jax.random.fold_in(child_key(key, "held out"), i)
            found.append(compared(case, network, sizes.classified, sizes.proposed, 250, others, key=own))
            bar.advance()
    return found


def agreement(case: Case, sets: list[Compared], expected: Targets, quick: bool) -> list[Verdict]:
    """C2ST and shifts of means, the worst data set judged; seconds, medians over data sets."""
    found = []
    for kind in sets[0].c2st:
        worst = max(one.c2st[kind] for one in sets)
        judged = at_most(f"{case.name}_{kind}_c2st_worst", worst, expected["c2st"]["at_most"], "1",
                         str(expected["c2st"]["source"]))  # fmt: skip
        found.append(judged if kind in (PLAIN, CORRECTED) and not quick else measured(judged.name, worst))
        found.append(measured(f"{case.name}_{kind}_c2st_median", np.median([one.c2st[kind] for one in sets])))
    for kind in sets[0].shift:
        worst = max(one.shift[kind] for one in sets)
        judged = at_most(f"{case.name}_{kind}_mean_shift_worst", worst, expected["mean_shift"]["at_most"], "sd",
                         str(expected["mean_shift"]["source"]))  # fmt: skip
        found.append(judged if kind in (PLAIN, CORRECTED) and not quick else measured(judged.name, worst, "sd"))
    later = sets[1:] or sets  # the first one also compiles
    for kind in sets[0].seconds:
        found.append(measured(f"{case.name}_{kind}_seconds", np.median([one.seconds[kind] for one in later]), "s"))
    for name, least in (("ess", True), ("r_hat", False), ("divergences", False), ("correction_ess", True),
                        ("correction_k_hat", False), ("correction_proposals", False),
                        ("correction_sample_reliable", True), ("distinct_corrected_draws", True)):  # fmt: skip
        values = [one.said[name] for one in sets]
        label = name if name.startswith(("correction", "distinct")) else f"{NUTS}_{name}"
        found.append(measured(f"{case.name}_{label}_worst", min(values) if least else max(values)))
    return found
