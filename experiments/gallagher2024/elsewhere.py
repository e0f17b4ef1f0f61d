"""The rules of the other parts, unchanged, on patients of another class of models."""

from collections.abc import Callable, Mapping

import numpy as np

from experiments.gallagher2024.clones import Retold, retold
from experiments.gallagher2024.course import Courses, ruled
from experiments.gallagher2024.population import NOISE, Truths
from tumortwin.control import HysteresisPolicy

Rules = Mapping[str, Callable[[Truths], Courses]]

TRIAL = HysteresisPolicy(0.5, 1.0)  # what the records were made under


def under_clones(truths: Truths, rules: Rules) -> tuple[Retold, dict[str, Courses]]:
    """The patients told by the other class, and what becomes of them under every rule."""
    told = retold(truths, ruled(truths, TRIAL, NOISE))
    return told, {name: rule(told.truths) for name, rule in rules.items()}


def days_under_trial_rule(truths: Truths, told: Retold) -> tuple[np.ndarray, np.ndarray]:
    """Days to progression under the rule of the record, in the class it came from and in the other [patient]."""
    return ruled(truths, TRIAL, NOISE).days, ruled(told.truths, TRIAL, NOISE).days
