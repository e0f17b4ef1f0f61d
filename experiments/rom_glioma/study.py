"""The parts of the study: error against basis size, time beside the PDE, a moved start, half of the range."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tumortwin.cli_train_reduced import TrainingCase
from tumortwin.metrics import concordance
from tumortwin.models import GivenDensity, ReactionDiffusion
from tumortwin.runs import Run
from tumortwin.solvers import simulate
from tumortwin.surrogates import (
    Design,
    HeldOut,
    ParameterDomain,
    PodSurrogate,
    Samples,
    enlarged,
    random_design,
    simulate_samples,
)

REPEATS = 7


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of a surrogate on held-out cases; days after the start only. `broken`: share of the cases that grew
    without limit; their error is infinite."""

    broken: float
    median: float
    q95: float
    dice: float
    change: dict[str, float]
    worst_change: float


def scores(held_out: HeldOut) -> Scores:
    """Relative L2 error, 5th percentile of Dice where there is tumor, CCC of the change from the start."""
    finite = np.isfinite(held_out.true_error)
    error = np.where(finite, held_out.true_error, np.inf)[:, 1:]
    dice = np.concatenate([values[:, 1:].ravel() for values in held_out.dice.values()])
    change = {name: _change(held_out.ours[name], held_out.theirs[name]) for name in held_out.ours}
    return Scores(
        float(np.mean(~finite.all(axis=1))),
        float(np.quantile(error, 0.5, method="higher")),
        float(np.quantile(error, 0.95, method="higher")),
        float(np.nanquantile(dice, 0.05)),
        change,
        float(np.min(list(change.values()))),  # no number where one has none
    )


def _change(ours: np.ndarray, theirs: np.ndarray) -> float:
    return concordance((ours - ours[:, :1])[:, 1:], (theirs - theirs[:, :1])[:, 1:])


# --- time ---


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of every call, one after another in turn; each is called once before (compiled)."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def times(case: TrainingCase, surrogate: PodSurrogate, design: Design) -> dict[str, float]:
    """Seconds of one course: the PDE, the surrogate with its fields, and its states and error bound alone."""
    row = {path: jnp.asarray(value[0]) for path, value in design.values.items()}
    days, schedule = case.days, case.schedule

    @eqx.filter_jit
    def pde(model: ReactionDiffusion) -> jax.Array:
        return simulate(model, schedule, days, case.solver, estimate_error=False).states.density

    @eqx.filter_jit
    def fields(s: PodSurrogate, model: ReactionDiffusion, start: Any) -> Any:
        reduced, estimate = s.reduced(model, schedule, days, start)
        return s.field(reduced.coefficients), s.judge(model, reduced, estimate)

    @eqx.filter_jit
    def states(s: PodSurrogate, model: ReactionDiffusion, start: Any) -> Any:
        reduced, estimate = s.reduced(model, schedule, days, start)
        return reduced, s.judge(model, reduced, estimate)

    model, start = surrogate.at(row), eqx.filter_jit(lambda s: s.begin(s.model))(surrogate)
    return interleaved(
        {
            "pde": lambda: pde(model),
            "fields": lambda: fields(surrogate, model, start),
            "states": lambda: states(surrogate, model, start),
        }
    )


# --- a start elsewhere ---


def moved_starts(case: TrainingCase, distance: float, count: int, key: jax.Array) -> list[ReactionDiffusion]:
    """The model with its start moved by `distance` [mm] in random directions, cut to the domain.

    Moved by whole voxels; a direction that would lose more than a tenth of the tumor is drawn again.
    """
    density = np.asarray(case.model.initial.state(case.model.tissue).density)
    mask, spacing = np.asarray(case.model.tissue.domain.mask), np.asarray(case.model.tissue.grid.spacing)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    found: list[ReactionDiffusion] = []
    while len(found) < count:
        direction = random.normal(size=3)
        shift = np.round(distance * direction / np.linalg.norm(direction) / spacing).astype(int)
        if abs(np.linalg.norm(shift * spacing) - distance) > 0.6 * spacing.max():
            continue
        start = np.where(mask, np.roll(density, tuple(shift), axis=(0, 1, 2)), 0.0).astype(density.dtype)
        if start.sum() > 0.9 * density.sum():
            moved = GivenDensity(jnp.asarray(start))
            found.append(eqx.tree_at(lambda m: m.initial, case.model, moved))
    return found


@dataclasses.dataclass(frozen=True)
class Moved:
    """What became of starts elsewhere: [course] rejected, greatest relative error over the days (infinite where it grew
    without limit), least Dice."""

    rejected: np.ndarray
    error: np.ndarray
    dice: np.ndarray


@eqx.filter_jit
def _both(surrogate: PodSurrogate, model: ReactionDiffusion, case: Any, days: tuple[float, ...]) -> Any:
    schedule, solver = case
    found = surrogate(model, schedule, days)
    truth = simulate(model, schedule, days, solver, estimate_error=False).states.density
    return found.states.density, truth, found.succeeded


def moved_outcome(
    case: TrainingCase, surrogate: PodSurrogate, models: Sequence[ReactionDiffusion], design: Design
) -> Moved:
    """The surrogate on starts elsewhere, each with a draw of the parameters."""
    rejected, errors, overlaps = [], [], []
    for i, model in enumerate(models):
        asked = eqx.tree_at(
            lambda m: m.initial, surrogate.at({p: v[i] for p, v in design.values.items()}), model.initial
        )
        ours, truth, vouched = (np.asarray(x) for x in _both(surrogate, asked, (case.schedule, case.solver), case.days))
        axes = (1, 2, 3)
        error = np.max(np.sqrt(((ours - truth) ** 2).sum(axes) / (truth**2).sum(axes)))
        errors.append(error if np.isfinite(error) else np.inf)
        dices = [
            2.0 * ((ours > c) & (truth > c)).sum(axes) / np.maximum(((ours > c).astype(int) + (truth > c)).sum(axes), 1)
            for c in case.levels.values()
        ]
        there = [(truth > c).any(axis=axes) for c in case.levels.values()]
        overlaps.append(min((d[t].min() for d, t in zip(dices, there, strict=True) if t.any()), default=np.nan))
        rejected.append(not bool(vouched))
    return Moved(np.asarray(rejected), np.asarray(errors), np.asarray(overlaps))


def enlarged_for(
    case: TrainingCase, surrogate: PodSurrogate, model: ReactionDiffusion, values: Design, more: int
) -> PodSurrogate:
    """The surrogate with more modes, from courses of the PDE that begin at one start elsewhere."""
    days = (0.0, *case.snapshot_days)
    found: Samples = simulate_samples([model], [case.schedule], values, days, case.solver)
    return enlarged(surrogate, found.snapshots(), more, case.settings, start=model.initial)


# --- half of the range ---


def half_range(case: TrainingCase, training: Design, path: str, run: Run, count: int) -> tuple[float, float]:
    """Share of flags among draws from the half of the prior that was not trained on, and from the other."""
    middle = float(np.asarray(case.prior.quantile(0.5)[path]))
    half = {p: v[training.values[path] < middle] for p, v in training.values.items()}
    expected = random_design(case.prior, count, key=run.key("half/expected")).values
    known = {p: v[expected[path] < middle] for p, v in expected.items()}
    domain = ParameterDomain.of(half, known, case.settings.domain_level)
    drawn = random_design(case.prior, count, key=run.key("half/drawn")).values
    inside = np.asarray(_contained(domain, {p: jnp.asarray(v) for p, v in drawn.items()}))
    upper = drawn[path] >= middle
    return float(1.0 - inside[upper].mean()), float(1.0 - inside[~upper].mean())


@eqx.filter_jit
def _contained(domain: ParameterDomain, values: dict[str, jax.Array]) -> jax.Array:
    return jax.vmap(domain.contains)(values)
