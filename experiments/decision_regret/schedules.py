"""Forty-eight courses of radiotherapy and temozolomide, all of the same toxicity: what a planner may choose from."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from tumortwin.treatments import Course, Schedule

STARTS = (21.0, 28.0, 35.0, 42.0)  # [day] of the first fraction, Mondays; 35 is the standard of care
WEEKS, PER_WEEK = 6, 5
# Dose of a week relative to the others, and days without treatment after the third week.
PATTERNS: dict[str, tuple[tuple[float, ...], float]] = {
    "even": ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 0.0),
    "falling": ((1.5, 1.3, 1.1, 0.9, 0.7, 0.5), 0.0),
    "rising": ((0.5, 0.7, 0.9, 1.1, 1.3, 1.5), 0.0),
    "ends": ((1.5, 1.0, 0.5, 0.5, 1.0, 1.5), 0.0),
    "alternate": ((1.5, 0.5, 1.5, 0.5, 1.5, 0.5), 0.0),
    "split": ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 14.0),
}
DRUG, DRUG_DAYS = "temozolomide", 42  # doses of 1 (75 mg/m^2), as in the standard of care; Stupp et al. 2005
DRUG_FROM = {"with": 0.0, "after": 56.0}  # [day] after the first fraction
BED_3 = 100.0  # [Gy] of normal tissue: 30 fractions of 2 Gy at alpha/beta 3 Gy
ALPHA_BETA = 3.0  # [Gy]
STANDARD = "day35_even_with"  # the standard of care: 30 fractions of 2 Gy, the drug every day beside them


@dataclasses.dataclass(frozen=True)
class Option:
    """A course that may be chosen, by name."""

    name: str
    schedule: Schedule


def options() -> list[Option]:
    """Every start with every pattern and every place of the drug; the shapes are the same, so one program runs all."""
    return [
        Option(f"day{start:.0f}_{pattern}_{place}", course(start, pattern, place))
        for start, pattern, place in itertools.product(STARTS, PATTERNS, DRUG_FROM)
    ]


def course(start: float, pattern: str, place: str) -> Schedule:
    """Thirty fractions on weekdays, scaled to the normal-tissue dose of the standard of care, and the drug."""
    weights, gap = PATTERNS[pattern]
    week, day = np.divmod(np.arange(WEEKS * PER_WEEK), PER_WEEK)
    times = start + 7.0 * week + day + np.where(week >= WEEKS // 2, gap, 0.0)
    doses = equally_toxic(np.asarray(weights)[week])
    drug = start + DRUG_FROM[place] + np.arange(float(DRUG_DAYS))
    return Schedule(Course(times, doses), {DRUG: Course(drug, jnp.ones(DRUG_DAYS))})


def equally_toxic(weights: np.ndarray) -> np.ndarray:
    """Doses c w [Gy] whose sum d (1 + d / (alpha/beta)) is `BED_3`: the positive root of a quadratic in c."""
    a, b = float((weights**2).sum()) / ALPHA_BETA, float(weights.sum())
    return weights * (np.sqrt(b * b + 4.0 * a * BED_3) - b) / (2.0 * a)
