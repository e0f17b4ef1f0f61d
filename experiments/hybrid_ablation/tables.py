"""A real table: rounds of training, calibration and test, for every seed."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array

from experiments.hybrid_ablation.learned import all_kinds, predicted
from experiments.hybrid_ablation.rows import HYBRID, LEARNED, PERSISTENCE, Task
from experiments.hybrid_ablation.scores import Cases, Scored, cases_of, scored, together
from tumortwin.inference import Checkpoint, Training


@dataclasses.dataclass(frozen=True, eq=False)
class Told:
    """What all forecasters said of the tested readings of a task, with one seed; `solver_difference`: the largest
    difference on the scale h of the hybrid's first forecasts to those with steps that keep the solver's tolerance;
    `failed`: readings, calibration included, for which a forecaster had no number, and persistence stands in."""

    task: Task
    cases: Cases
    scores: dict[str, Scored]
    solver_difference: float
    failed: dict[str, int]


def told(
    task: Task,
    seed: int,
    settings: Training,
    rounds: int | None,
    *,
    key: Array,
    checkpoint: Checkpoint | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Told:
    """Every round (the first `rounds` of them) with its own training; persistence has its errors calibrated alike."""
    parts, difference = [], 0.0
    failed: dict[str, int] = {kind: 0 for kind in LEARNED}
    still = np.broadcast_to(np.asarray(task.law.hold(task.rows.start))[:, None], task.rows.seen.shape)
    for k, (train, calibrating, test) in enumerate(task.parts(seed)):
        if rounds is not None and k >= rounds:
            break
        name = f"{task.name}_{seed}_{k}"
        rows, subject = task.rows.where(train), task.subject[train]
        found = all_kinds(
            task.law, rows, subject, settings, key=jax.random.fold_in(key, k), checkpoint=checkpoint, name=name
        )
        needed = calibrating | test
        cases, scores = cases_of(task, test), {PERSISTENCE: scored(task, still, calibrating, cases_of(task, test))}
        for kind, (made, parameters) in found.items():
            curves = np.zeros(task.rows.seen.shape)
            curves[needed] = predicted(made, parameters, task.rows.where(needed))
            # Where the equations could not be solved the forecast is that of persistence, and counted.
            lost = ~np.isfinite(curves)
            failed[kind] += int((lost & (np.asarray(task.rows.valid) > 0)).sum())
            curves = np.where(lost, still, curves)
            scores[kind] = scored(task, curves, calibrating, cases)
            if kind == HYBRID and k == 0:
                few = np.flatnonzero(test)[:64]
                gap = np.abs(predicted(made, parameters, task.rows.where(few), tight=True) - curves[few])
                difference = float((gap * np.asarray(task.rows.valid)[few]).max())
        parts.append((cases, scores))
        advance()
    cases, scores = together(parts)
    return Told(task, cases, scores, difference, failed)
