"""Verdicts of days to progression: by target, paired over patients, and by rule."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gallagher2024.course import Courses
from experiments.gallagher2024.population import VISIT, VISITS
from tumortwin.control import CVaR
from tumortwin.metrics import paired_bootstrap
from tumortwin.runs import Verdict, at_least, at_most, between, measured

RISK = CVaR(0.8)
RESAMPLES = 2000

Targets = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Judge:
    """Verdicts by the targets; what a small run cannot promise is only measured."""

    expected: Targets
    quick: bool
    rng: np.random.Generator

    def __call__(self, name: str, value: Any, unit: str = "day", *, small: bool = False) -> Verdict:
        one = self.expected.get(name)
        if one is None or (self.quick and not small):
            return measured(name, value, unit)
        source = str(one["source"])
        if "low" in one:
            return between(name, value, one["low"], one["high"], unit, source)
        if "at_least" in one:
            return at_least(name, value, one["at_least"], unit, source)
        return at_most(name, value, one["at_most"], unit, source)

    def paired(self, name: str, days: np.ndarray, other: np.ndarray) -> list[Verdict]:
        """The mean gain in days of the same patients, with its 95 % interval over patients."""
        gap = paired_bootstrap(days, other, np.arange(days.size), rng=self.rng)
        return [self(name, gap.mean), self(f"{name}_low", gap.low), self(f"{name}_high", gap.high)]

    def paired_tail(self, name: str, days: np.ndarray, other: np.ndarray) -> list[Verdict]:
        """The gain of the mean of the worst fifth, with its 95 % interval over patients."""
        rows = self.rng.integers(0, days.size, (RESAMPLES, days.size))
        tail = jax.vmap(RISK)
        gains = np.asarray(tail(-jnp.asarray(other)[rows]) - tail(-jnp.asarray(days)[rows]))
        low, high = np.quantile(gains, [0.025, 0.975])
        name = f"{name}_worst_fifth"
        return [
            self(name, worst_fifth(days) - worst_fifth(other)),
            self(f"{name}_low", low),
            self(f"{name}_high", high),
        ]


def worst_fifth(days: np.ndarray) -> float:
    """The mean of the shortest fifth: minus the CVaR of minus the days."""
    return -float(RISK(-jnp.asarray(days)))


def described(prefix: str, courses: Mapping[str, Courses]) -> list[Verdict]:
    """Mean, worst fifth, share without progression at the horizon, and drug of every rule."""
    found = []
    for name, course in courses.items():
        found += [
            measured(f"{prefix}{name}_mean", course.days.mean(), "day"),
            measured(f"{prefix}{name}_worst_fifth", worst_fifth(course.days), "day"),
            measured(f"{prefix}{name}_share_at_horizon", np.mean(course.days >= VISIT * VISITS)),
            measured(f"{prefix}{name}_drug_share", course.drug_share),
        ]
        if np.isfinite(course.least_effective):
            found.append(measured(f"{prefix}{name}_least_effective_particles", course.least_effective))
    return found
