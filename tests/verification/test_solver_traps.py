"""Six silent wrong answers of generic ODE solving, each shown to exist and each absent from our path.

The patient of most of them is one voxel: growth, 14 fractions (log-kill 0.14 each, 1.96 in all) or a drug with a
half-life of 1.8 hours. If a trap is mended upstream, the first half of its test fails and says so.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.models import (
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Course, LogKill, Schedule

RATE, START, DAY = 0.03, 0.1, 40.0
KILL, FRACTIONS = 0.14, np.arange(2.0, 16.0)
ELIMINATION, SENSITIVITY, DOSES = np.log(2.0) / 1.8 * 24.0, 3.0, np.arange(3.01, 13.0)
NONE = jnp.zeros(0)


def _logistic(u: Any, t: Any) -> Any:
    return u * np.exp(RATE * t) / (1.0 + u * (np.exp(RATE * t) - 1.0))


def _truth() -> float:
    u, t = START, 0.0
    for time in FRACTIONS:
        u, t = _logistic(u, time - t) * np.exp(-KILL), time
    return _logistic(u, DAY - t)


def _ours(fractions: Any = (), doses: Any = (), days=(DAY,), rate: Any = RATE, step: float = 4.0, start: Any = None):
    shape = (2, 2, 2) if start is None else start.shape
    tissue = Tissue(
        Domain(Grid.from_spacing(shape, (2.0, 2.0, 2.0)), np.ones(shape, bool)), {"white_matter": np.ones(shape)}
    )
    values: Any = {"rate": rate, "alpha": KILL / 2.4, "sensitivity": SENSITIVITY, "elimination": ELIMINATION, "d": 0.2}
    model = ReactionDiffusion(
        {
            "diffusion": Diffusion(values["d"]),
            "proliferation": LogisticProliferation(values["rate"]),
            "radiotherapy": RadiotherapyResponse(values["alpha"]),
            "chemotherapy": DrugResponse(values["sensitivity"], values["elimination"]),
        },
        tissue,
        GivenDensity(jnp.full(shape, START) if start is None else jnp.asarray(start)),
    )
    fractions, doses = jnp.asarray(fractions, float), jnp.asarray(doses, float)
    schedule = Schedule(
        Course(fractions, jnp.full(fractions.shape, 2.0)), {"temozolomide": Course(doses, jnp.ones(doses.shape))}
    )
    run = eqx.filter_jit(lambda m, s: simulate(m, s, days, FixedSteps(step, 0.3), estimate_error=False))
    return np.asarray(run(model, schedule).states.density)


def _grow(t, u, args):
    del t, args
    return RATE * u * (1 - u)


def _kill_path() -> LogKill:
    return LogKill(0.0, DAY, jnp.asarray(FRACTIONS), jnp.full(FRACTIONS.size, KILL), NONE, NONE, NONE)


def test_trap_1_jump_times_skip_the_jump_of_a_cumulative_path():
    terms = diffrax.MultiTerm(diffrax.ODETerm(_grow), diffrax.ControlTerm(lambda t, u, args: -u, _kill_path()))
    controller = diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=1e-5, atol=1e-7), jump_ts=jnp.asarray(FRACTIONS)
    )
    trapped = diffrax.diffeqsolve(
        terms, diffrax.Heun(), 0.0, DAY, 0.05, jnp.asarray(START), stepsize_controller=controller
    )
    assert trapped.ys is not None
    untreated = _logistic(START, DAY)
    assert float(trapped.ys[0]) == pytest.approx(untreated, rel=1e-3)  # not one fraction was felt
    assert untreated / _truth() > 4.0
    np.testing.assert_allclose(_ours(FRACTIONS), _truth(), rtol=1e-5)


def test_trap_2_an_adaptive_solver_steps_over_narrow_pulses():
    width = 1e-3

    def pulses(t, u, args):
        dose = jnp.sum(jnp.where((t >= args) & (t < args + width), KILL / width, 0.0))
        return RATE * u * (1 - u) - dose * u

    trapped = diffrax.diffeqsolve(
        diffrax.ODETerm(pulses),
        diffrax.Tsit5(),
        0.0,
        DAY,
        0.3,
        jnp.asarray(START),
        args=jnp.asarray(FRACTIONS + 0.37),
        stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6),
    )
    assert trapped.ys is not None
    assert float(trapped.ys[0]) > 2.0 * _truth()
    u, t = START, 0.0
    for time in FRACTIONS + 0.37:
        u, t = _logistic(u, time - t) * np.exp(-KILL), time
    np.testing.assert_allclose(_ours(FRACTIONS + 0.37), _logistic(u, DAY - t), rtol=1e-5)


def test_trap_3_sampling_a_short_lived_drug_at_a_quarter_of_a_day():
    def sampled(t, u, args):
        age = t - args
        return -SENSITIVITY * jnp.sum(jnp.where(age >= 0, jnp.exp(-ELIMINATION * jnp.maximum(age, 0.0)), 0.0)) * u

    exact = np.sum(SENSITIVITY / ELIMINATION * (1 - np.exp(-ELIMINATION * (DAY - DOSES))))
    logs = []
    for shift in (-0.01, 0.0):
        out = diffrax.diffeqsolve(
            diffrax.ODETerm(sampled), diffrax.Euler(), 0.0, DAY, 0.25, jnp.asarray(1.0), args=jnp.asarray(DOSES + shift)
        )
        assert out.ys is not None
        logs.append(-float(jnp.log(out.ys[0])))
    # The same drug, given 15 minutes earlier or later: the sampled kill jumps, and is far off both times.
    assert min(abs(np.array(logs) / exact - 1)) > 0.2 and abs(logs[0] - logs[1]) / exact > 0.5
    np.testing.assert_allclose(_ours(doses=DOSES, rate=0.0), START * np.exp(-exact), rtol=1e-10)


def test_trap_4_half_of_a_kill_before_and_half_after_the_edge():
    """Splitting a fraction on a step edge into halves on both sides costs first-order accuracy."""
    step, u, v = 4.0, START, START
    fractions = np.arange(4.0, 40.0, 4.0)
    for k in range(int(DAY / step)):
        here = KILL if k * step in fractions else 0.0
        u = _logistic(u * np.exp(-here), step)
        middle = _logistic(v * np.exp(-here / 2), step)
        v = middle * np.exp(-here / 2)
    assert abs(v / u - 1) > 1e-3
    np.testing.assert_allclose(_ours(fractions, step=step), u, rtol=1e-5)


def test_trap_5_saving_between_step_edges_interpolates_across_a_jump():
    save, step = 5.5, 4.0
    terms = diffrax.MultiTerm(diffrax.ODETerm(_grow), diffrax.ControlTerm(lambda t, u, args: -u, _kill_path()))
    trapped = diffrax.diffeqsolve(
        terms, diffrax.Heun(), 0.0, 8.0, step, jnp.asarray(START), saveat=diffrax.SaveAt(ts=jnp.asarray([save]))
    )
    assert trapped.ys is not None
    u, t = START, 0.0
    for time in (2.0, 3.0, 4.0, 5.0):
        u, t = _logistic(u, time - t) * np.exp(-KILL), time
    exact = _logistic(u, save - t)
    assert abs(float(trapped.ys[0]) / exact - 1) > 2e-3
    found = _ours(FRACTIONS, days=(save, 8.0))
    np.testing.assert_allclose(found[0], exact, rtol=1e-6)
    # and an early save time does not disturb a later one
    np.testing.assert_allclose(found[1], _ours(FRACTIONS, days=(8.0,))[0], rtol=1e-6)


def test_trap_6_a_boolean_event_overshoots_by_up_to_a_step():
    level, step = 0.2, 8.0
    exact = np.log(level * (1 - START) / (START * (1 - level))) / RATE
    event = diffrax.Event(lambda t, y, args, **kwargs: y > level)
    trapped = diffrax.diffeqsolve(
        diffrax.ODETerm(_grow), diffrax.Heun(), 0.0, 200.0, step, jnp.asarray(START), event=event
    )
    assert trapped.ts is not None
    assert float(trapped.ts[0]) - exact > 0.5  # days late
    # Ours: a level is crossed between saved states, interpolated in the log, well inside a step.
    days = tuple(np.arange(0.0, 81.0, 8.0))
    curve = _ours(days=days)[:, 0, 0, 0]
    crossing = float(np.interp(np.log(level), np.log(curve), np.asarray(days)))
    assert abs(crossing - exact) < 0.1


def test_kill_commutes_with_diffusion_inside_a_step():
    """A fraction inside a long step, on a density with gradients: the same mass ratio as at the edge."""
    bump = np.zeros((6, 6, 6))
    bump[2:4, 2:4, 1:4] = 0.8
    plain = _ours(rate=0.0, start=bump, step=8.0)
    inside = _ours([3.3], rate=0.0, start=bump, step=8.0)
    np.testing.assert_allclose(inside, plain * np.exp(-KILL), rtol=1e-12, atol=1e-18)
