"""Sensitivities that no datum speaks of: left out of the calibration, drawn from their prior where a schedule acts."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array

from tumortwin.inference import Problem
from tumortwin.treatments import Schedule

RADIOTHERAPY, CHEMOTHERAPY = "mechanisms.radiotherapy", "mechanisms.chemotherapy"
_PRIOR_STREAM = 101  # folded into the key: the draws that choose posterior rows stay what they were


def is_given(path: str, schedule: Schedule, until: float = math.inf) -> bool:
    """Whether the agent whose effect `path` describes is given before the day `until` (times concrete).

    True for every path that belongs to no agent.
    """
    if path.startswith(RADIOTHERAPY):
        return bool((np.asarray(schedule.radiotherapy.times) < until).any())
    if path.startswith(CHEMOTHERAPY):
        return any(bool((np.asarray(course.times) < until).any()) for course in schedule.drugs.values())
    return True


def prior_only(problem: Problem, schedule: Schedule) -> tuple[str, ...]:
    """Paths that `schedule` makes matter and that no datum spoke of: known from their prior alone."""
    if problem.unlearned is None:
        return ()
    return tuple(path for path in problem.unlearned.paths if is_given(path, schedule))


def completed(
    problem: Problem, draws: Mapping[str, np.ndarray], schedule: Schedule, *, key: Array
) -> dict[str, np.ndarray]:
    """`draws` (path -> values [draw, ...]) with independent prior draws of every path of `prior_only`.

    A patient who has had no radiotherapy has a posterior without radiosensitivity; a plan that gives some depends on
    it, and what is known of it then is the prior, draw by draw.
    """
    wanted = [path for path in prior_only(problem, schedule) if path not in draws]
    if not wanted or problem.unlearned is None:
        return dict(draws)
    n = next(iter(draws.values())).shape[0]
    drawn = problem.unlearned.sample((n,), key=jax.random.fold_in(key, _PRIOR_STREAM))
    return {**draws, **{path: np.asarray(drawn[path]) for path in wanted}}
