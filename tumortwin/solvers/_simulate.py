"""The fast path of the imaging models: `simulate`."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.geometry import Faces, add_ring, drop_ring, spectral_bound
from tumortwin.models import NeuralProliferation, ReactionDiffusion, TumorState
from tumortwin.solvers._reaction import react, tabulate
from tumortwin.solvers._rkl import log_carrier, stage_count, stage_weight
from tumortwin.solvers._steps import ONE, FixedSteps, Phase
from tumortwin.solvers._strang import Closure, StepCoefficients, StrangRKL2, TabulatedKill
from tumortwin.solvers._trajectory import Trajectory, judge
from tumortwin.treatments import LogKill, Schedule

RICHARDSON = {Fraction(1, 2): 1.0 / 3.0, Fraction(2): 4.0 / 3.0}
"""Error of a second-order solve over its difference from one with that many times its steps."""


def simulate(
    model: ReactionDiffusion,
    schedule: Schedule,
    ts: Sequence[float] | np.ndarray,
    solver: FixedSteps | None = None,
    *,
    t0: float = 0.0,
    estimate_error: bool = True,
    forward_mode: bool = False,
) -> Trajectory:
    """Solve the model under a schedule from `t0` and return the states at `ts`.

    **Arguments:** `ts` [day] concrete, strictly increasing, none before `t0`; `solver` the step policy;
    `estimate_error` adds a second solve with steps twice as long (about 0.7 of the cost), or half as long where a
    number of steps is odd (twice the cost); a compiled caller that does not use it does not pay for it; `forward_mode`
    switches to a kernel with `jvp` instead of the fast `vjp`.

    **Returns:** a `Trajectory`. A state saved on the day of a treatment event is the state *before* it. Gradients with
    respect to everything traced in `model` and `schedule`, times and doses included.

    **Raises:** `ValueError` for times out of order.
    """
    solver = FixedSteps() if solver is None else solver
    days = _checked(ts, t0)
    stops = [r.time for r in schedule.resections]
    y0 = add_ring(model.initial.state(model.tissue).density)
    faces = model.relative_faces()
    rate = ring_rate(model, y0)
    kill = model.log_kill(schedule, t0, days[-1])
    # With D_w the only scale, the bound on the stencil's conductances is the bound on D_w.
    wanted = model.diffusion.white_matter
    # Its derivative is carried beside the conductances, where it costs a fraction (forward mode: in them).
    scaled = faces.scaled((wanted if forward_mode else jax.lax.stop_gradient(wanted)).astype(y0.dtype))
    carrier = jnp.zeros(()) if forward_mode else log_carrier(wanted)

    def run(steps: Fraction = ONE) -> tuple[Array, dict[str, Any]]:
        phases = solver.phases(t0, days, stops, steps)
        saved: list[Array] = [y0[None]] if days[0] == t0 else []
        y, n_steps, stages = y0, 0, 0
        for phase in phases:
            for resection in schedule.resections:
                if resection.time == phase.start:
                    y = y * (1.0 - add_ring(resection.removed.astype(y.dtype)))
            out, y, n_stages = _solve_phase(y, phase, scaled, carrier, rate, kill, model, solver, forward_mode)
            saved.extend(out)
            n_steps, stages = n_steps + phase.n_steps, max(stages, n_stages)
        return drop_ring(jnp.concatenate(saved)), {"steps": n_steps, "stages": stages, "phases": len(phases)}

    density, stats = run()
    error = jnp.full(len(days), jnp.nan)
    if estimate_error:
        other = Fraction(1, 2) if solver.halvable(t0, days, stops) else Fraction(2)
        compared, _ = run(other)
        error = _relative_difference(compared, density) * RICHARDSON[other]
    bounded = jnp.max(wanted) <= solver.max_diffusivity
    return Trajectory(jnp.asarray(days), TumorState(density), judge(density, bounded, jnp.asarray(True)), error, stats)


def _checked(ts: Sequence[float] | np.ndarray, t0: float) -> list[float]:
    days = [float(t) for t in ts]
    ordered = all(b > a for a, b in zip(days[:-1], days[1:], strict=True))
    if not (days and np.isfinite([t0, *days]).all() and days[0] >= t0 and ordered):
        raise ValueError(f"required: finite save times strictly increasing from t0 = {t0}; received: {days}")
    return days


def ring_rate(model: ReactionDiffusion, y0: Array) -> Array:
    """The growth rate in the dtype of the state, ringed when it is a field."""
    rate = model.proliferation.local_rate().astype(y0.dtype)
    return add_ring(rate) if rate.ndim == 3 else rate


def ring_closure(model: ReactionDiffusion) -> Closure | None:
    """The closure of the growth term with its ringed tissue, where the model has one."""
    growth = model.proliferation
    if not isinstance(growth, NeuralProliferation):
        return None
    places = growth.places(model.tissue)
    return Closure(growth, jnp.pad(places, ((1, 1), (1, 1), (1, 1), (0, 0))))


def _relative_difference(a: Array, b: Array) -> Float[Array, " time"]:
    axes = (1, 2, 3)
    size = jnp.sqrt(jnp.sum(b**2, axis=axes))
    off = jnp.sqrt(jnp.sum((a - b) ** 2, axis=axes))
    return off / jnp.where(size > 0, size, 1.0)


def _solve_phase(
    y: Array,
    phase: Phase,
    faces: Faces,
    log_scale: Array,
    rate: Array,
    kill: LogKill,
    model: ReactionDiffusion,
    solver: FixedSteps,
    forward_mode: bool,
) -> tuple[list[Array], Array, int]:
    """The saved states of one phase and its last state."""
    stages = stage_count(phase.step * spectral_bound(solver.max_diffusivity, model.tissue.grid.spacing))
    scaled = faces.scaled(phase.step * stage_weight(stages))
    args = StepCoefficients(scaled, rate, log_scale, ring_closure(model), prescaled=True)
    edges = phase.edges
    saves = [int(np.argmin(abs(edges - s))) for s in phase.saves]
    asked = sorted({*saves, phase.n_steps})
    states = solve_on_edges(y, jnp.asarray(edges), asked, args, kill, stages, forward_mode)
    return [states[: len(saves)]], states[-1], stages


def solve_on_edges(
    y: Array,
    edges: Float[Array, " edge"],
    saves: Sequence[int],
    args: StepCoefficients,
    kill: LogKill,
    stages: int,
    forward_mode: bool = False,
) -> Float[Array, "save x y z"]:
    """One Diffrax solve whose steps are exactly the intervals between `edges`: the states at edges `saves` (not 0)."""
    n_steps = edges.shape[0] - 1
    middles = jnp.stack([edges[:-1], 0.5 * (edges[:-1] + edges[1:])], axis=1).reshape(-1)
    halves = tabulate(kill, jnp.concatenate([middles, edges[-1:]]))
    terms = diffrax.MultiTerm(diffrax.ODETerm(_smooth), diffrax.ControlTerm(_killed, TabulatedKill.of(edges, halves)))
    # Diffrax promotes the state to the dtype of time. The clock only counts steps here (widths and kills come from the
    # table, in full precision and with their derivatives), so it takes the dtype of the state.
    clock = jax.lax.stop_gradient(edges).astype(y.dtype)
    # Saving at given times interpolates in every step; a single state at the end needs none of it.
    saveat = diffrax.SaveAt(t1=True) if list(saves) == [n_steps] else diffrax.SaveAt(ts=clock[np.asarray(saves)])
    adjoint = diffrax.ForwardMode() if forward_mode else diffrax.RecursiveCheckpointAdjoint(checkpoints=n_steps)
    solution = diffrax.diffeqsolve(
        terms,
        StrangRKL2(stages, forward_mode),
        t0=clock[0],
        t1=clock[-1],
        dt0=None,
        y0=y,
        args=args,
        saveat=saveat,
        stepsize_controller=diffrax.StepTo(clock),
        adjoint=adjoint,
        max_steps=n_steps,
        throw=False,
    )
    assert solution.ys is not None
    states = []
    for i, edge in enumerate(saves):
        second = jax.tree.map(lambda leaf, k=2 * edge - 1: leaf[k], halves)
        states.append(react(solution.ys[i], args.rate_at(solution.ys[i]), second, forward_mode=forward_mode))
    return jnp.stack(states)


def _smooth(t: Any, y: Array, args: StepCoefficients) -> Array:
    # Only the structure is used: StrangRKL2 takes the operators from `args`.
    del t
    return args.rate_at(y) * y * (1.0 - y)


def _killed(t: Any, y: Array, args: StepCoefficients) -> Array:
    del t, args
    return -y
