"""From a posterior to what is expected: volumes with intervals, maps of mean, spread and P(tumor)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from tumortwin._chunks import MOST_AT_ONCE, side_by_side
from tumortwin.geometry import Grid, smaller_difference
from tumortwin.inference import Posterior, Problem
from tumortwin.metrics import quantile
from tumortwin.observation import MaskObservation
from tumortwin.treatments import Schedule
from tumortwin.twin._build import Solve
from tumortwin.twin._unlearned import completed

Progress = Callable[[str, int, int], None]

# Correlation volume [mm^3] of a channel that no datum estimated (its only visit started the simulation).
_UNSEEN_CORRELATION = 500.0


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What the posterior says of the days asked for.

    `volume[channel]` [draw, day] latent: the volume in which the density exceeds the channel's threshold [mm^3];
    `outlined[channel]` [draw, day]: the volume that an outline has on average, sum of P(outlined) V_voxel, larger where
    the edge is flat;
    `predictive[channel]` the same with the shift and the noise of one outline; `mean`, `sd` [day x y z] of the
    density; `p_tumor` [day x y z]: probability that the voxel is outlined in `extent_channel`;
    `p_channels[channel]` likewise for each; `mass` [draw, day]: tumor mass in mm^3; `growth_rate` [draw, day]: mean
    of rho(x) over the tumor mass [1/day].
    """

    days: tuple[float, ...]
    grid: Grid
    volume: Mapping[str, np.ndarray]
    outlined: Mapping[str, np.ndarray]
    predictive: Mapping[str, np.ndarray]
    mass: np.ndarray
    growth_rate: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    p_channels: Mapping[str, np.ndarray]
    extent_channel: str
    draws: Mapping[str, np.ndarray]

    @property
    def p_tumor(self) -> np.ndarray:
        """P(outlined) in the channel that reaches furthest."""
        return self.p_channels[self.extent_channel]

    def interval(self, channel: str, level: float = 0.95) -> np.ndarray:
        """Median and central prediction interval of the volume [3, day] (low, median, high) [mm^3]."""
        tail = (1.0 - level) / 2.0
        levels = np.asarray([tail, 0.5, 1.0 - tail])
        return np.stack([quantile(volumes, levels) for volumes in self.predictive[channel].T], axis=1)


class _Sums(eqx.Module):
    """Sums over draws of what a draw differs by from the first, `reference`, and of its square: no cancellation."""

    count: Array
    reference: Array
    difference: Array
    square: Array
    outlined: dict[str, Array]

    def and_more(self, more: "_Sums") -> "_Sums":
        """With the draws of `more`, whose differences are from a reference of its own.

        $$ \\sum (x - a) = \\sum (x - b) + n (b - a), \\qquad
           \\sum (x - a)^2 = \\sum (x - b)^2 + 2 (b - a) \\sum (x - b) + n (b - a)^2 $$
        """
        step = more.reference - self.reference
        return _Sums(
            self.count + more.count,
            self.reference,
            self.difference + more.difference + more.count * step,
            self.square + more.square + 2 * step * more.difference + more.count * step**2,
            {channel: share + more.outlined[channel] for channel, share in self.outlined.items()},
        )


def forecast(
    problem: Problem,
    posterior: Posterior,
    days: Sequence[float],
    *,
    n_draws: int = 200,
    schedule: Schedule | None = None,
    chunk: int = 25,
    progress: Progress | None = None,
    key: Array,
) -> Forecast:
    """Forward solves of posterior draws, one after another, summed into maps as they come.

    **Arguments:** `days` concrete, increasing, from 0; `n_draws` equal-weight draws (systematic resampling); `schedule`
    in place of the patient's own (a plan); `chunk` draws a compiled call (for progress). The effect of a treatment that
    the schedule gives and that no datum spoke of is drawn from its prior.

    A solve that fails is an error here: a forecast may not leave draws out in silence.

    **Raises:** `FloatingPointError` naming how many draws failed.
    """
    draw_key, noise_key = jax.random.split(key)
    draws = posterior.resample(n_draws, key=draw_key)
    channels = [c for c, o in sorted(problem.observations.items()) if isinstance(o, MaskObservation)]
    shift_key, noise_key = jax.random.split(noise_key)
    if schedule is not None:
        assert isinstance(problem.solve, Solve)
        problem = eqx.tree_at(lambda p: p.solve, problem, Solve(schedule, problem.solve.solver))
    if isinstance(problem.solve, Solve):
        draws = completed(problem, draws, problem.solve.schedule, key=draw_key)
    asked, names = tuple(float(d) for d in days), tuple(channels)
    shifts = _shifts(problem, names, (n_draws, len(asked)), key=shift_key)

    def solved(rows: slice) -> tuple[_Sums, Any]:
        part = {path: jnp.asarray(value[rows]) for path, value in draws.items()}
        moved = {channel: jnp.asarray(value[rows]) for channel, value in shifts.items()}
        return _solve_chunk(problem, (part, moved), asked, names)

    chunks = [slice(start, min(start + chunk, n_draws)) for start in range(0, n_draws, chunk)]
    every, collected = [], []
    for group in (chunks[i : i + MOST_AT_ONCE] for i in range(0, len(chunks), MOST_AT_ONCE)):
        found = side_by_side(solved, group)
        parts = [jax.tree.map(jnp.asarray, sums) for sums, _ in found]
        every = [functools.reduce(_Sums.and_more, [*every, *parts])]
        collected += [numbers for _, numbers in found]
        if progress is not None:
            progress("forecast", group[-1].stop, n_draws)
    sums = every[0]
    volumes, outlined, shifted, spreads, mass, growth = jax.tree.map(lambda *leaves: np.concatenate(leaves), *collected)
    failed = int((~np.isfinite([mass, *volumes.values(), *shifted.values()])).any(axis=(0, 2)).sum())
    if failed:
        raise FloatingPointError(
            f"required: every posterior draw to solve; received: {failed} of {n_draws} failed; try: a smaller "
            "max_step, or a prior truncated below the solver's max_diffusivity"
        )
    difference = np.asarray(sums.difference) / n_draws
    mean = np.asarray(sums.reference) + difference
    variance = np.asarray(sums.square) / n_draws - difference**2
    return Forecast(
        days=asked,
        grid=problem.model.tissue.grid,
        volume=volumes,
        outlined=outlined,
        predictive=_with_noise(shifted, spreads, correlation_volumes(posterior), key=noise_key),
        mass=mass,
        growth_rate=growth,
        mean=mean,
        sd=np.sqrt(np.maximum(variance, 0.0)),  # rounding of a difference of squares
        p_channels={c: np.asarray(v) / n_draws for c, v in sums.outlined.items()},
        extent_channel="flair" if "flair" in channels else channels[0],
        draws=draws,
    )


def correlation_volumes(posterior: Posterior) -> dict[str, float]:
    """Residual correlation volume [mm^3] by channel: the median over the channel's data that have one.

    The median, as the residual of an empty outline has one sign everywhere and no correlation length of its own.
    """
    found: dict[str, list[float]] = {}
    for name, value in posterior.info.get("correlation_volume_mm3", {}).items():
        if np.isfinite(value):
            found.setdefault(name.split("@")[0], []).append(float(value))
    return {channel: float(np.median(values)) for channel, values in found.items()}


def _no_sums(problem: Problem, n_days: int, channels: tuple[str, ...]) -> _Sums:
    shape = (n_days, *problem.model.tissue.grid.shape)
    zero = jnp.zeros(shape, problem.model.tissue.fields["white_matter"].dtype)
    return _Sums(jnp.zeros((), jnp.int32), zero, zero, zero, {c: zero for c in channels})


def _shifts(problem: Problem, channels: Sequence[str], shape: tuple[int, int], *, key: Array) -> dict[str, np.ndarray]:
    """How a rater will be off as a whole on each forecast day [draw, day], from the prior; zero where it has none."""
    found = {}
    for i, channel in enumerate(channels):
        entry = problem.prior.distributions.get(f"observation.{channel}.shift")
        if entry is None:
            found[channel] = np.zeros(shape)
            continue
        found[channel] = np.asarray(entry.sample(jax.random.fold_in(key, i), shape))[..., 0]  # the visits are alike
    return found


@eqx.filter_jit
def _solve_chunk(
    problem: Problem,
    draws: tuple[dict[str, Array], dict[str, Array]],
    days: tuple[float, ...],
    channels: tuple[str, ...],
):
    """The sums over a chunk of draws, and the numbers of every draw."""
    cell = problem.model.tissue.grid.cell_volume
    inside = problem.model.tissue.domain.mask
    axes = (1, 2, 3)

    def one(carry: _Sums, draw: tuple[dict[str, Array], dict[str, Array]]):
        values, shifts = draw
        model, observations = problem.bind(values)
        density = problem.solve(model, days)
        volumes, means, shifted, spreads, outlined = {}, {}, {}, {}, {}
        for channel in channels:
            observation = observations[channel].at_visit(None)
            assert isinstance(observation, MaskObservation)
            here = inside[None].astype(density.dtype)
            level = jax.vmap(observation.level)(density)
            averaging = jax.vmap(observation.averaging)(level)
            shift = (shifts[channel] / observation.width).astype(density.dtype)[:, None, None, None]
            p = norm.cdf((level + shift) * averaging) * here
            volumes[channel] = jnp.sum(_share_above(level) * here, axis=axes) * cell
            means[channel] = jnp.sum(norm.cdf(level * averaging) * here, axis=axes) * cell
            shifted[channel] = jnp.sum(p, axis=axes) * cell
            spreads[channel] = jnp.sum(p * (1.0 - p), axis=axes) * cell
            outlined[channel] = carry.outlined[channel] + p
        reference = jnp.where(carry.count == 0, density, carry.reference)
        off = density - reference
        carry = _Sums(carry.count + 1, reference, carry.difference + off, carry.square + off**2, outlined)
        total = jnp.sum(density, axis=axes)
        rate = jnp.broadcast_to(model.proliferation.local_rate().astype(density.dtype), density.shape[1:])
        growth = jnp.sum(density * rate[None], axis=axes) / total
        return carry, (volumes, means, shifted, spreads, total * cell, growth)

    return jax.lax.scan(one, _no_sums(problem, len(days), channels), draws)


def _share_above(level: Float[Array, "day x y z"]) -> Float[Array, "day x y z"]:
    """Share of each voxel in which a smooth field is positive, from its value and slope at the center.

    $$ s = \\mathrm{clip}\\Big(\\tfrac12
        + \\frac{\\eta}{|\\partial_x \\eta| + |\\partial_y \\eta| + |\\partial_z \\eta|}\\Big) $$

    with the smaller of the two one-sided differences along each axis: exact for a plane across the voxel along an axis,
    and not fooled by the jump at the edge of the domain.
    """
    span = sum(smaller_difference(level, axis) for axis in (1, 2, 3))
    tiny = jnp.asarray(1e-6, level.dtype)
    return jnp.clip(0.5 + level / jnp.maximum(span, tiny), 0.0, 1.0)


def _with_noise(
    volumes: Mapping[str, np.ndarray],
    spreads: Mapping[str, np.ndarray],
    correlation: Mapping[str, float],
    *,
    key: Array,
) -> dict[str, np.ndarray]:
    """Volumes as one outline would show them.

    $$ \\mathrm{Var}(V) = V_{corr} \\int p (1 - p)\\,dx $$

    for outlines whose errors are correlated over V_corr. An outline has no negative volume: a draw below zero is zero.
    """
    noisy = {}
    for i, channel in enumerate(sorted(volumes)):
        v_corr = correlation.get(channel, _UNSEEN_CORRELATION)
        normal = np.asarray(jax.random.normal(jax.random.fold_in(key, i), volumes[channel].shape))
        noisy[channel] = np.maximum(volumes[channel] + np.sqrt(spreads[channel] * v_corr) * normal, 0.0)
    return noisy
