"""The rules of the other parts, unchanged, on patients of another class of models."""

from collections.abc import Callable, Mapping

import numpy as np

from experiments.gallagher2024.clones import Retold, retold
from experiments.gallagher2024.course import Courses, ruled
from experiments.gallagher2024.population import NOISE, Truths
from tumortwin.control import HysteresisPolicy

Rules = Mapping[str, Callable[[Truths], Courses]]

# What the records were made under: off below half of the baseline, on again at 70 %. The trial's own restart at the
# baseline is too late with a visit in 28 days: without drug progression is 29 days away.
RECORD = HysteresisPolicy(0.5, 0.7)


def under_clones(truths: Truths, rules: Rules) -> tuple[Retold, dict[str, Courses]]:
    """The patients told by the other class, and what becomes of them under every rule."""
    told = retold(truths, ruled(truths, RECORD, NOISE))
    return told, {name: rule(told.truths) for name, rule in rules.items()}


def days_under_record_rule(truths: Truths, told: Retold) -> tuple[np.ndarray, np.ndarray]:
    """Days to progression under the rule of the record, in the class it came from and in the other [patient]."""
    return ruled(truths, RECORD, NOISE).days, ruled(told.truths, RECORD, NOISE).days
