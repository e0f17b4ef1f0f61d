"""Plans on virtual patients that were not planned with: times to progression, drug used, gains."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.zhang2022_control.policies import followed, under_thresholds
from experiments.zhang2022_control.schedules import LEVEL
from experiments.zhang2022_control.virtual import Bank
from tumortwin.control import CVaR, SchedulePolicy
from tumortwin.metrics import paired_bootstrap, quantile
from tumortwin.runs import Verdict, at_least, measured

LEVELS = np.asarray([0.025, 0.5, 0.975])
GAINS = (
    ("personal", "common"),
    ("personal", "continuous"),
    ("schedule", "common_schedule"),
    ("schedule", "continuous"),
    ("common", "continuous"),
    ("hedged", "continuous"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Plans:
    """Every plan of every patient: by name the index of a pair of thresholds [patient], or a schedule [patient visit];
    `own_risk` [patient policy] of the pairs on the half that was planned with, and how each search ended (the common
    schedule last)."""

    pairs: Mapping[str, np.ndarray]
    schedules: Mapping[str, Float[np.ndarray, "patient visit"]]
    own_risk: Float[np.ndarray, "patient policy"]
    searches: list[Mapping[str, Any]]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.pairs, *self.schedules)


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """By plan: `mean` days to progression, mean of the `worst` fifth and days `on` drug until then [patient]; and the
    2.5, 50 and 97.5 % points of the days [patient 3]."""

    mean: Mapping[str, np.ndarray]
    worst: Mapping[str, np.ndarray]
    on: Mapping[str, np.ndarray]
    quantiles: Mapping[str, Float[np.ndarray, "patient 3"]]


def judged(plans: Plans, bank: Bank, confirmed: bool) -> Judged:
    """All plans under the posteriors of one class."""
    by_pair = under_thresholds(bank.model, confirmed=confirmed)
    parts: dict[str, dict] = {name: {} for name in ("mean", "worst", "on", "quantiles")}
    for name in plans.names:
        if name in plans.pairs:
            days, on = (found[plans.pairs[name]] for found in by_pair)
        else:
            each, row = np.unique(plans.schedules[name], axis=0, return_inverse=True)
            runs = [followed(SchedulePolicy(d), bank.model, confirmed=confirmed) for d in each]
            stacked = (np.stack([np.asarray(getattr(one, part)) for one in runs]) for part in ("days", "on"))
            days, on = (part[row.ravel()] for part in stacked)
        parts["mean"][name], parts["on"][name] = (np.sum(bank.weights * x, axis=1) for x in (days, on))
        parts["worst"][name] = -np.asarray(jax.vmap(CVaR(LEVEL))(-jnp.asarray(days), jnp.asarray(bank.weights)))
        parts["quantiles"][name] = np.stack([quantile(d, LEVELS, w) for d, w in zip(days, bank.weights, strict=True)])
    return Judged(**parts)


def label(judge: str, confirmed: bool) -> str:
    """How a judge stands in the names of verdicts."""
    return f"{judge}_confirmed" if confirmed else judge


def of_plans(outcomes: Mapping[tuple[str, bool], Judged]) -> list[Verdict]:
    """Means over patients: time to progression, its worst fifth, and drug used."""
    found = []
    for (judge, confirmed), outcome in outcomes.items():
        under = label(judge, confirmed)
        for name in outcome.mean:
            found += [
                measured(f"ttp_mean_{name}_under_{under}", outcome.mean[name].mean(), "day"),
                measured(f"ttp_worst_fifth_{name}_under_{under}", outcome.worst[name].mean(), "day"),
                measured(f"drug_{name}_under_{under}", outcome.on[name].mean(), "day"),
                measured(f"drug_share_{name}_under_{under}", np.mean(outcome.on[name] / outcome.mean[name])),
            ]
    return found


def of_gains(
    outcomes: Mapping[tuple[str, bool], Judged], expected: Mapping[str, dict], rng: np.random.Generator
) -> list[Verdict]:
    """Differences of the worst fifth and of the mean between plans, with 95 % intervals over patients."""
    found = []
    for (judge, confirmed), outcome in outcomes.items():
        for plan, other in GAINS:
            for what, values in (("worst_fifth", outcome.worst), ("mean", outcome.mean)):
                name = f"{plan}_minus_{other}_{what}_under_{label(judge, confirmed)}"
                gap = paired_bootstrap(values[plan], values[other], np.arange(values[plan].size), rng=rng)
                found += [measured(name, gap.mean, "day"), measured(f"{name}_high", gap.high, "day")]
                target = expected.get(f"{name}_low")
                found.append(
                    measured(f"{name}_low", gap.low, "day")
                    if target is None
                    else at_least(f"{name}_low", gap.low, target["at_least"], target["unit"], target["source"])
                )
    return found
