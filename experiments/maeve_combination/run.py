"""GDC-0084 x temozolomide in glioblastoma xenografts: an arm that was never seen, and the pair of doses.

`tumortwin reproduce maeve_combination [data.root=DIR]`. Every number that is judged stands in `expected.json`, fixed
before the first held-out arm was scored. `runtime=ci`: three held-out arms, few draws.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig
from scipy.stats import CensoredData, logrank

from experiments.maeve_combination.arms import (
    BASELINES,
    DAYS,
    ENDPOINT,
    HORIZON,
    additive,
    endpoint_times,
    observed,
    read_on,
    restricted_mean,
    root_mean_square,
    same_second_dose,
)
from experiments.maeve_combination.figures import draw_arms, draw_harm
from experiments.maeve_combination.model import volume_problem, weight_problem
from experiments.maeve_combination.plan import CHANCE, HARM, draws_of, harm_probabilities, pair_of, planned
from experiments.maeve_combination.population import Population, fitted
from experiments.maeve_combination.record import Animals, animals_of
from tumortwin.control import losses, make_plan, probability_within
from tumortwin.inference._population import with_subjects
from tumortwin.io import load_table
from tumortwin.metrics import clopper_pearson, wilson
from tumortwin.runs import Run, Verdict, at_most, between, measured

DRAWS, DRAWS_QUICK = 1000, 250
FEW = 3
PLAN_DRAWS, PLAN_DRAWS_QUICK = 400, 200
STEP = 0.5  # [day] of the curves on which a time to the endpoint is looked for


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """An arm that was left out: its predicted mean of log relative volume by day, and restricted mean time."""

    arm: int
    means: dict[float, float]
    time: float


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Baselines, held-out arms, time to the endpoint, and the plan."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    table = load_table("maeve_gdc0084_temozolomide", config.data.root)
    for note in table.notes:
        run.say(note)
    animals = animals_of(table)
    draws = DRAWS_QUICK if quick else DRAWS
    rng = np.random.default_rng(run.config.seed)
    found = [measured("animals", len(animals.names)), measured("arms", len(animals.arms))]
    found += of_baselines(animals, {} if quick else expected)
    with run.progress.task("volumes"):
        volume = fitted(volume_problem(animals), draws, rng=rng)
    with run.progress.task("weights"):
        weight, rising = (fitted(weight_problem(animals, monotone=m), draws, rng=rng) for m in (False, True))
    found += of_monotone(run, animals, volume, weight, rising, rng, quick)
    found.append(measured("weight_posterior_k_hat", weight.k_hat))
    folds = held_out(run, animals, volume, draws, rng, FEW if quick else None)
    found += of_folds(animals, folds, {} if quick else expected)
    found += of_times(animals, folds)
    draw_arms(run, animals, volume)
    return [*found, *of_plan(run, animals, volume, weight, rising, expected, rng, quick)]


def of_baselines(animals: Animals, expected: Mapping[str, dict]) -> list[Verdict]:
    """The baselines on the combination arms and on all arms, each arm left out."""
    found, given = [], expected.get("baselines", {})
    for day in DAYS:
        known = observed(animals, day)
        for name, rule in BASELINES.items():
            for set_name, arms in (("", animals.combinations), ("_every_arm", range(len(animals.arms)))):
                if name == "bliss" and set_name:
                    continue
                value = root_mean_square([rule(animals, known, k) - known[k] for k in arms if k in known])
                label, target = f"{name}{set_name}", given.get(f"{name}{set_name}", {}).get(f"{day:g}")
                if target is None:
                    found.append(measured(f"log_rmse_{label}_day_{day:g}", value))
                else:
                    within, source = given["within"], given["source"]
                    low, high = target - within, target + within
                    found.append(between(f"log_rmse_{label}_day_{day:g}", value, low, high, given["unit"], source))
    return found


def held_out(
    run: Run, animals: Animals, whole: Population, draws: int, rng: np.random.Generator, few: int | None
) -> list[Fold]:
    """Every combination arm from all other arms; of its own animals only the volume on day 0 is known."""
    folds, arms = [], animals.combinations[:few]
    with run.progress.task("arms left out", total=len(arms)) as bar:
        for arm in arms:
            left = fitted(volume_problem(animals, hidden=arm), draws, start=whole, rng=rng)
            folds.append(predicted(run, animals, left, arm, rng))
            bar.advance()
    return folds


def predicted(run: Run, animals: Animals, left: Population, arm: int, rng: np.random.Generator) -> Fold:
    """New animals, one a draw, from the first volumes of the arm."""
    drawn = left.new_animals(run.key(f"arm {arm}"))
    model = with_subjects(left.problem.model, {p: jnp.asarray(v) for p, v in drawn.items()})
    noise = left.values()["residual.log_sd"]
    dose, count = animals.arms[arm], noise.size
    own = animals.first[animals.arm == arm]
    start = own[rng.integers(0, own.size, count)]
    days = np.arange(0.0, HORIZON + STEP, STEP)
    curve = curves(model, days, start, dose)
    means = {}
    for day in DAYS:
        first, _ = read_on(animals, day, arm)
        if first.size:
            relative = curve[:, np.searchsorted(days, day)] / start * np.exp(noise * rng.standard_normal(count))
            floor = animals.floor(day, arm)
            each = [np.mean(np.log(np.maximum(relative * f, max(floor, 1e-9)) / f)) for f in first]
            means[day] = float(np.mean(each))
    return Fold(arm, means, float(np.mean(first_crossing(days, curve))))


def curves(model, days: np.ndarray, start: np.ndarray, dose: tuple[float, float]) -> np.ndarray:  # noqa: ANN001
    """Volumes [draw, day] of one animal a draw under the same doses."""
    full = [jnp.full(start.shape, d) for d in dose]
    return np.asarray(model.volume(jnp.asarray(days)[None, :], jnp.asarray(start), *full))


def first_crossing(days: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Day on which each curve first reaches the endpoint; the last day where it does not."""
    over = curve >= ENDPOINT
    return np.where(over.any(axis=1), days[over.argmax(axis=1)], days[-1])


def of_folds(animals: Animals, folds: list[Fold], expected: Mapping[str, dict]) -> list[Verdict]:
    """Log-RMSE over the held-out arms, against the target and the baselines on the same arms."""
    found = []
    for day in DAYS:
        known = observed(animals, day)
        scored = [f for f in folds if day in f.means]
        value = root_mean_square([f.means[day] - known[f.arm] for f in scored])
        name = f"log_rmse_day_{day:g}"
        found.append(gate(name, value, expected))
        mates = root_mean_square([same_second_dose(animals, known, f.arm) - known[f.arm] for f in scored])
        found.append(
            gate(f"log_rmse_over_same_second_dose_day_{day:g}", value / mates, expected, "over_same_second_dose")
        )
        errors = [f.means[day] - known[f.arm] for f in scored]
        found.append(measured(f"log_bias_day_{day:g}", np.mean(errors)))
        found += [
            measured(f"log_error_day_{day:g}_{animals.label(f.arm)}", e) for f, e in zip(scored, errors, strict=True)
        ]
    return found


def gate(name: str, value: float, expected: Mapping[str, dict], target: str | None = None) -> Verdict:
    """At most what is expected of it; printed where nothing is."""
    given = expected.get(target or name)
    return (
        measured(name, value)
        if given is None
        else at_most(name, value, given["at_most"], given["unit"], given["source"])
    )


def of_times(animals: Animals, folds: list[Fold]) -> list[Verdict]:
    """Restricted mean time to the endpoint: Kaplan-Meier of the arm, the model without the arm, baselines; log-rank of
    each combination arm against the same second dose alone."""
    each = {k: endpoint_times(animals, k) for k in range(len(animals.arms))}
    known = {k: restricted_mean(*pair) for k, pair in each.items()}
    found = []
    for fold in folds:
        label = animals.label(fold.arm)
        found.append(measured(f"restricted_mean_{label}", known[fold.arm], "day"))
        found.append(measured(f"restricted_mean_model_{label}", fold.time, "day"))
        alone = (0.0, animals.arms[fold.arm][1])
        if alone in animals.arms:
            own, other = (
                CensoredData.right_censored(t, ~r) for t, r in (each[fold.arm], each[animals.arms.index(alone)])
            )
            found.append(measured(f"log_rank_p_{label}", logrank(x=own, y=other).pvalue))
    found.append(measured("restricted_mean_rmse", root_mean_square([f.time - known[f.arm] for f in folds]), "day"))
    for name, rule in (("same_second_dose", same_second_dose), ("additive", additive)):
        value = root_mean_square([rule(animals, known, f.arm) - known[f.arm] for f in folds])
        found.append(measured(f"restricted_mean_rmse_{name}", value, "day"))
    return found


def of_monotone(
    run: Run, animals: Animals, volume: Population, weight: Population, rising: Population,
    rng: np.random.Generator, quick: bool,
) -> list[Verdict]:  # fmt: skip
    """Free against saturating responses: evidence, and the mean residual of weight at the lowest first dose."""
    found = [measured("log_evidence_weight_free_minus_monotone", weight.log_evidence - rising.log_evidence, "nat")]
    if not quick:
        with run.progress.task("monotone volumes"):
            other = fitted(volume_problem(animals, monotone=True), FEW, rng=rng)
        gain = volume.log_evidence - other.log_evidence
        found.append(measured("log_evidence_volume_free_minus_monotone", gain, "nat"))
    for name, fit in (("free", weight), ("monotone", rising)):
        for level in animals.levels[0]:
            miss = [mean_miss(animals, fit, k) for k in animals.combinations if animals.arms[k][0] == level]
            found.append(measured(f"weight_loss_residual_{name}_{animals.drugs[0]}_{level:g}", np.mean(miss)))
    return found


def mean_miss(animals: Animals, fit: Population, arm: int) -> float:
    """Mean worst loss of an arm (as recorded) minus the model's mean."""
    values = {p.removeprefix("typical."): jnp.asarray(v) for p, v in fit.values().items() if p.startswith("typical.")}
    a, b = (jnp.asarray(d) for d in animals.arms[arm])
    model = with_subjects(fit.problem.model, values)
    return float(animals.loss[animals.arm == arm].mean() - np.mean(np.asarray(model.loss(a, b))))


def of_plan(
    run: Run, animals: Animals, volume: Population, weight: Population, rising: Population,
    expected: Mapping[str, dict], rng: np.random.Generator, quick: bool,
) -> list[Verdict]:  # fmt: skip
    """The plans, judged on draws that they were not chosen with, and what is not known of their harm."""
    size = PLAN_DRAWS_QUICK if quick else PLAN_DRAWS
    size = min(size, weight.heads.shape[0] // 2)
    everything = draws_of(volume, weight, run.key("plan"), rng)
    choose, judge = everything.part(slice(0, size)), everything.part(slice(size, None))
    with run.progress.task("plan"):
        plans = planned(animals, volume.problem.model, weight.problem.model, choose)
    values = named(weight)
    found, summary, limit = [], {}, expected["chance_of_harm"]
    for name, (problem, plan) in plans.items():
        pair = pair_of(animals, plan)
        fresh = problem.with_draws(judge)
        burden, loss = losses(fresh, plan.variables, (problem.objective, problem.outcome_limits[0].objective))
        chance = 1.0 - probability_within(loss, HARM)
        share = wilson(round(chance * loss.size), loss.size)
        low, high = np.quantile(harm_probabilities(weight.problem.model, values, pair), [0.025, 0.975])
        chosen_with = make_plan(problem, plan.variables, name=name).constraints[-1]
        found += [
            measured(f"plan_{name}_{drug}", dose, "mg/kg") for drug, dose in zip(animals.drugs, pair, strict=True)
        ]
        found += [
            measured(f"plan_{name}_cvar_fresh", problem.risk(burden), "mm^3"),
            measured(f"plan_{name}_cvar_chosen_with", plan.risk["value"], "mm^3"),
            at_most(
                f"plan_{name}_chance_of_harm_chosen_with",
                1.0 - chosen_with["value"],
                limit["at_most"],
                "1",
                limit["source"],
            ),
            measured(f"plan_{name}_chance_of_harm_fresh", chance),
            measured(f"plan_{name}_chance_of_harm_fresh_low", share.low),
            measured(f"plan_{name}_chance_of_harm_fresh_high", share.high),
            measured(f"plan_{name}_chance_of_harm_posterior_low", low),
            measured(f"plan_{name}_chance_of_harm_posterior_high", high),
        ]
        summary[name] = plan.to_json() | {"pair": pair}
    run.write_json("plan.json", summary)
    found += of_harm(animals, weight, rising)
    draw_harm(run, animals, weight, {n: pair_of(animals, p) for n, (_, p) in plans.items()})
    return found


def named(population: Population) -> dict[str, np.ndarray]:
    """Draws by the path in the model; the error's under `residual.`."""
    return {p.removeprefix("typical."): v for p, v in population.values().items()}


def of_harm(animals: Animals, weight: Population, rising: Population) -> list[Verdict]:
    """Animals beyond the limit at the highest second dose, beside both models: five animals bound little."""
    found, top = [], animals.levels[1][-1]
    for arm, (first, second) in enumerate(animals.arms):
        if second != top:
            continue
        beyond = animals.loss[animals.arm == arm] > HARM
        share, label = clopper_pearson(int(beyond.sum()), beyond.size), animals.label(arm)
        found += [
            measured(f"harm_observed_{label}", share.value),
            measured(f"harm_observed_{label}_low", share.low),
            measured(f"harm_observed_{label}_high", share.high),
        ]
        for name, fit in (("free", weight), ("monotone", rising)):
            chance = harm_probabilities(fit.problem.model, named(fit), (first, second))
            found.append(measured(f"harm_{name}_{label}", np.mean(chance)))
    return [*found, measured("harm_allowed", CHANCE)]
