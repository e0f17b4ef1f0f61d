"""One scenario from truth to plans: patients, scans, posteriors, plans within every set of limits, and their judges."""

import dataclasses
import zlib

import numpy as np

from experiments.chaudhuri2023 import plans
from experiments.chaudhuri2023.cohort import (
    Bank,
    Drawn,
    Patients,
    from_prior,
    inside,
    patients,
    posteriors,
    resampled,
    within,
)
from experiments.chaudhuri2023.model import GOMPERTZ, LOGISTIC, Law
from experiments.chaudhuri2023.plans import SETS, STANDARD_PLAN, Limits
from tumortwin.control import EachPlan
from tumortwin.runs import Run

AT_ONCE = 100
"""Patients times members are held in memory."""

PLANNING, FRESH = 64, 256
"""Posterior draws a patient that a plan is chosen on, and those that it is judged on, from another bank."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Its name in results, the law of the truth (the planner's is logistic), and whether alpha/beta is known."""

    name: str
    law: Law
    ratio_known: bool


SCENARIOS = (
    Scenario("logistic", LOGISTIC, True),
    Scenario("gompertz_truth", GOMPERTZ, True),
    Scenario("unknown_alpha_beta", LOGISTIC, False),
)


@dataclasses.dataclass(frozen=True)
class Known:
    """What the planner has, and what judges it: draws [patient draw] to plan on and fresh ones, and the truth."""

    who: Patients
    planning: Drawn
    fresh: Drawn
    truth: Drawn
    law: Law
    prior: Drawn
    inside: dict[str, np.ndarray]
    forecast_inside: np.ndarray
    effective: np.ndarray
    k_hat: np.ndarray

    @property
    def standard(self) -> np.ndarray:
        """CVaR [patient] of the standard of care on the planning draws."""
        return plans.risk(self.planning, STANDARD_PLAN, LOGISTIC)

    def gain(self, doses: np.ndarray) -> np.ndarray:
        """CVaR of the standard of care minus that of the plans [patient] on fresh draws [day]."""
        return plans.risk(self.fresh, STANDARD_PLAN, LOGISTIC) - plans.risk(self.fresh, doses, LOGISTIC)

    def true_gain(self, doses: np.ndarray) -> np.ndarray:
        """Gain in time to progression [patient] under the true parameters and the true law [day]."""
        return (plans.times(self.truth, doses, self.law) - plans.times(self.truth, STANDARD_PLAN, self.law))[:, 0]


def known(scenario: Scenario, size: int, members: int, seed: int) -> Known:
    """Patients and posteriors; the same truths in all scenarios as far as the truths have the same parameters."""

    def rng(purpose: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(purpose.encode())])

    who = patients(size, scenario.ratio_known, scenario.law, rng("patients"))
    first, second = (
        posteriors(Bank.of(members, scenario.ratio_known, rng(name)), who.readings) for name in ("bank", "fresh bank")
    )
    fresh = resampled(second, FRESH, rng("fresh"))
    truth = {name: value[:, None] for name, value in who.truth.items()}
    times = plans.times(fresh, STANDARD_PLAN, LOGISTIC)
    return Known(
        who=who,
        planning=resampled(first, PLANNING, rng("planning")),
        fresh=fresh,
        truth=truth,
        law=scenario.law,
        prior=from_prior(size * PLANNING, scenario.ratio_known, rng("prior")),
        inside=inside(first, who),
        forecast_inside=within(times, plans.times(truth, STANDARD_PLAN, scenario.law)[:, 0]),
        effective=np.minimum(first.effective, second.effective),
        k_hat=np.maximum(first.k_hat, second.k_hat),
    )


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Plans within one set of limits: for the largest gain, `personal`, `common` to all, from the `prior` alone and for
    the `truth` (only where the planner's law is true); with the smallest total dose, and (where BED_3 is the toxicity)
    the smallest BED_3, at the CVaR of the standard of care."""

    limits: Limits
    personal: EachPlan
    common: EachPlan
    prior: EachPlan
    oracle: EachPlan | None
    smallest: EachPlan
    smallest_common: EachPlan
    least_effect: EachPlan | None
    least_effect_common: EachPlan | None

    @property
    def every(self) -> list[EachPlan]:
        """All plans."""
        found = [getattr(self, f.name) for f in dataclasses.fields(self)]
        return [plan for plan in found if isinstance(plan, EachPlan)]


def chosen(limits: Limits, has: Known) -> Chosen:
    """All plans within one set."""
    draws, standard = has.planning, has.standard
    prior = {name: value[None] for name, value in has.prior.items()}
    own, shared = plans.personal(limits, draws), plans.common(limits, draws)
    least = [plans.smallest(limits, draws, standard, each) for each in (own, shared)]
    effect: list[EachPlan | None] = [None, None]
    if limits.measure == "bed_3":
        effect = [plans.smallest(limits, draws, standard, each, "effective_dose") for each in (own, shared)]
    oracle = plans.personal(limits, has.truth) if has.law is LOGISTIC else None
    return Chosen(limits, own, shared, plans.personal(limits, prior), oracle, *least, *effect)


def study(run: Run, scenario: Scenario, size: int, members: int, seed: int) -> tuple[Known, list[Chosen]]:
    """The scenario: patients and posteriors, then the plans of every set."""
    with run.progress.task(f"{scenario.name}: posteriors"):
        has = known(scenario, size, members, seed)
    found = []
    with run.progress.task(f"{scenario.name}: plans", total=len(SETS)) as bar:
        for limits in SETS:
            found.append(chosen(limits, has))
            bar.advance()
    return has, found


def others_inside(size: int, members: int, seed: int) -> dict[str, np.ndarray]:
    """Whether the truth lies in the 95 % interval, of other patients than those that are planned for."""
    rng = np.random.default_rng([seed, zlib.crc32(b"others")])
    bank = Bank.of(members, True, rng)
    parts = []
    for begun in range(0, size, AT_ONCE):
        who = patients(min(AT_ONCE, size - begun), True, LOGISTIC, rng)
        parts.append(inside(posteriors(bank, who.readings), who))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> tuple[float, float, float]:
    """Median over patients, with its 95 % bootstrap interval."""
    drawn = np.median(values[rng.integers(0, values.size, (resamples, values.size))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)
