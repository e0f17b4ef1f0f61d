"""What `simulate` promises: closed forms, events at any time, failure as a value, nothing recompiled or mutated."""

from typing import Any

import equinox as eqx
import jax
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
from tumortwin.params import set_parameters
from tumortwin.solvers import RESULTS, FixedSteps, MovingEdges, Trajectory, simulate, simulate_moving
from tumortwin.treatments import Course, Resection, Schedule


def _value(x: Any) -> Any:
    """A plain number where the type says array: the field converts it."""
    return x


SHAPE = (4, 3, 2)
GRID = Grid.from_spacing(SHAPE, (2.0, 2.0, 2.0))
START, RATE, ALPHA, SENSITIVITY, ELIMINATION = 0.2, 0.06, 0.05, 0.8, 9.242
DAYS = (10.0, 30.0)


def _model(start: float | np.ndarray = START, *, white: np.ndarray | None = None, **parameters) -> ReactionDiffusion:
    tissue = Tissue(Domain(GRID, np.ones(SHAPE, bool)), {"white_matter": np.ones(SHAPE) if white is None else white})
    density = np.full(SHAPE, start) if np.isscalar(start) else start
    mechanisms = {
        "diffusion": Diffusion(parameters.get("diffusivity", 0.2)),
        "proliferation": LogisticProliferation(parameters.get("rate", RATE)),
        "radiotherapy": RadiotherapyResponse(_value(ALPHA)),
        "chemotherapy": DrugResponse(_value(SENSITIVITY), _value(ELIMINATION)),
    }
    return ReactionDiffusion(mechanisms, tissue, GivenDensity(_value(density)))


def _course(times, doses) -> Course:
    return Course(jnp.asarray(times, float), jnp.asarray(doses, float))


def _schedule(fractions=(), drugs=(), dose=2.0, **more) -> Schedule:
    fractions, drugs = list(fractions), list(drugs)
    return Schedule(
        _course(fractions, [dose] * len(fractions)), {"temozolomide": _course(drugs, [1.0] * len(drugs))}, **more
    )


@eqx.filter_jit
def _solve(model, schedule, step=8.0, days=DAYS, t0=0.0) -> Trajectory:
    return simulate(model, schedule, days, FixedSteps(step, 0.5), t0=t0, estimate_error=False)


def _values(model, schedule, **more) -> np.ndarray:
    trajectory = _solve(model, schedule, **more)
    assert bool(trajectory.succeeded)
    return np.asarray(trajectory.states.density)[:, 1, 1, 1]


def _logistic(u, rho, t):
    return u * np.exp(rho * t) / (1 + u * (np.exp(rho * t) - 1))


def test_without_treatment_growth_is_logistic():
    np.testing.assert_allclose(_values(_model(), _schedule()), [_logistic(START, RATE, t) for t in DAYS], rtol=1e-6)


def test_growth_between_fractions_is_logistic_piece_by_piece():
    """Fractions off the step edges, two of them on one day, one on a save day (which shows the state before it)."""
    fractions, kill = [3.3, 3.7, 10.0, 21.9], 2 * ALPHA * (1 + 2 / 10)
    u, t, expected = START, 0.0, []
    for time in sorted([*fractions, 30.0]):
        u, t = _logistic(u, RATE, time - t), time
        if time in DAYS:
            expected.append(u)
        if time in fractions:
            u *= np.exp(-kill)
    found = _values(_model(), _schedule(fractions))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_two_fractions_at_one_moment_both_count():
    one, two = (_values(_model(rate=0.0), _schedule(times))[1] for times in ([5.0], [5.0, 5.0]))
    assert two / one == pytest.approx(np.exp(-2 * ALPHA * 1.2), rel=1e-12)


@pytest.mark.parametrize("step", [8.0, 3.7])
def test_drug_kill_is_exact_whatever_the_step(step):
    times = [1.0, 2.0, 2.5, 9.99]
    kill = [sum(SENSITIVITY / ELIMINATION * (1 - np.exp(-ELIMINATION * max(t - a, 0))) for a in times) for t in DAYS]
    found = _values(_model(rate=0.0), _schedule(drugs=times), step=step)
    np.testing.assert_allclose(found, START * np.exp(-np.asarray(kill)), rtol=1e-12)


def test_another_start_time_does_not_shift_the_therapy():
    """Growth from day -20 with everything moved by -20 days is the same; history before t0 is not given again."""
    first = _values(_model(), _schedule([5.0, 12.0], [6.0]))
    moved = _values(_model(), _schedule([-15.0, -8.0], [-14.0]), days=(-10.0, 10.0), t0=-20.0)
    np.testing.assert_allclose(moved, first, rtol=1e-10)
    late = _values(_model(rate=0.0), _schedule([5.0, 12.0]), days=(20.0,), t0=8.0)
    np.testing.assert_allclose(late, START * np.exp(-2 * ALPHA * 1.2), rtol=1e-12)


def test_resection_is_a_jump_at_its_time():
    removed = np.zeros(SHAPE)
    removed[2:] = 0.9
    schedule = _schedule(resections=[Resection(10.0, removed)])
    model = _model(rate=0.0, diffusivity=0.0)
    density = np.asarray(_solve(model, schedule).states.density)
    np.testing.assert_allclose(density[0], START)  # a state of the day is the state before
    np.testing.assert_allclose(density[1, :2], START)
    np.testing.assert_allclose(density[1, 2:], 0.1 * START)


def test_saving_at_the_start_returns_the_start():
    trajectory = _solve(_model(), _schedule(), days=(0.0, 10.0))
    np.testing.assert_allclose(np.asarray(trajectory.states.density)[0], START)
    assert trajectory.ts.shape == (2,)


def test_the_start_alone_is_returned_without_a_step():
    out = simulate(_model(), _schedule(), [0.0], FixedSteps(8.0, 0.5))
    np.testing.assert_allclose(out.states.density[0], START)
    assert float(out.error_estimate[0]) == 0.0 and int(out.stats["steps"]) == 0


def test_rate_of_space_grows_each_voxel_by_its_own_rate():
    field = np.linspace(-0.02, 0.08, 24).reshape(SHAPE)
    found = np.asarray(_solve(_model(rate=field, diffusivity=0.0), _schedule()).states.density)[1]
    np.testing.assert_allclose(found, _logistic(START, field, 30.0), rtol=3e-6)


def test_single_precision_states_stay_single():
    model = _model(np.full(SHAPE, START, np.float32), white=np.ones(SHAPE, np.float32))
    trajectory = _solve(model, _schedule([3.0], [4.0]))
    assert trajectory.states.density.dtype == jnp.float32
    double = _values(_model(), _schedule([3.0], [4.0]))
    np.testing.assert_allclose(np.asarray(trajectory.states.density)[:, 1, 1, 1], double, rtol=2e-6)


def test_failures_are_results():
    spike = np.zeros(SHAPE)
    spike[:2] = 1.0
    assert bool(_solve(_model(spike), _schedule()).succeeded)
    above = _solve(_model(spike, diffusivity=0.6), _schedule())
    assert above.result == RESULTS.diffusivity_above_bound and not bool(above.succeeded)
    nan = _solve(_model(spike * np.nan), _schedule())
    assert nan.result == RESULTS.nonfinite
    negative = _solve(_model(-0.5 * spike), _schedule())
    assert negative.result == RESULTS.negative_density


@pytest.mark.parametrize("days", [(), (-1.0, 3.0), (3.0, 3.0), (5.0, 4.0), (float("nan"),)])
def test_times_out_of_order_are_refused(days):
    with pytest.raises(ValueError, match="strictly increasing"):
        simulate(_model(), _schedule(), days)


def test_one_program_serves_all_values():
    traces = []

    @eqx.filter_jit
    def run(model, schedule):
        traces.append(1)
        return simulate(model, schedule, DAYS, FixedSteps(8.0, 0.5)).states.density

    model = _model()
    run(model, _schedule([5.0, 6.0], [4.0]))
    other = set_parameters(model, {"mechanisms.diffusion.white_matter": 0.3, "mechanisms.proliferation.rate": 0.01})
    run(other, _schedule([5.5, 7.0], [2.0], dose=3.0))
    run(_model(rate=jnp.asarray(0.02)), _schedule([1.0, 2.0], [3.0]))
    assert len(traces) == 1


def test_inputs_are_not_mutated():
    start, times = np.full(SHAPE, START), np.array([3.0, 4.0])
    model, schedule = _model(start), _schedule(times)
    before = [np.array(leaf) for leaf in jax.tree.leaves(eqx.filter((model, schedule), eqx.is_array))]
    _solve(model, schedule)
    after = jax.tree.leaves(eqx.filter((model, schedule), eqx.is_array))
    assert np.all(start == START) and np.all(times == [3.0, 4.0])
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_forward_mode_agrees_with_reverse_mode():
    model, schedule = _model(np.linspace(0.1, 0.5, 24).reshape(SHAPE)), _schedule([3.0], [4.0])

    def loss(p, forward):
        moved = set_parameters(
            model, {"mechanisms.diffusion.white_matter": p[0], "mechanisms.proliferation.rate": p[1]}
        )
        out = simulate(moved, schedule, [20.0], FixedSteps(8.0, 0.5), estimate_error=False, forward_mode=forward)
        return jnp.sum(out.states.density**2)

    p = jnp.asarray([0.2, 0.05])
    forward = jax.jit(jax.jacfwd(lambda p: loss(p, True)))(p)
    reverse = jax.jit(jax.grad(lambda p: loss(p, False)))(p)
    np.testing.assert_allclose(np.asarray(forward), np.asarray(reverse), rtol=1e-10)


@pytest.mark.parametrize("days", [(5.0, 10.0, 15.0), (20.0, 40.0), (12.0, 28.0)], ids=["one step", "odd", "even"])
def test_the_error_estimate_holds_for_any_number_of_steps(days):
    """One step between saves cannot be halved, nor can three: then the steps are halved instead."""
    start = np.linspace(0.02, 0.6, 24).reshape(SHAPE)
    reference = np.asarray(_solve(_model(start), _schedule([3.0]), 0.05, days).states.density)
    found = eqx.filter_jit(lambda model: simulate(model, _schedule([3.0]), days, FixedSteps(7.5, 0.5)))(_model(start))
    off = np.asarray(found.states.density) - reference
    error = np.sqrt((off**2).sum(axis=(1, 2, 3)) / (reference**2).sum(axis=(1, 2, 3)))
    ratio = np.asarray(found.error_estimate) / error
    assert (error > 1e-6).all() and (ratio > 0.6).all() and (ratio < 1.6).all()


class TestFixedSteps:
    def test_every_save_and_every_resection_is_a_step_edge(self):
        phases = FixedSteps(8.0, 1.0).phases(0.0, [10.0, 26.0, 42.0, 43.5], [12.0, 99.0])
        edges = np.concatenate([p.edges for p in phases])
        assert {10.0, 12.0, 26.0, 42.0, 43.5} <= set(edges.tolist())
        assert max(p.step for p in phases) <= 8.0 and phases[-1].end == 43.5
        assert all(a.end == b.start for a, b in zip(phases[:-1], phases[1:], strict=True))
        assert sum(len(p.saves) for p in phases) == 4

    def test_equal_steps_are_one_phase(self):
        (phase,) = FixedSteps(8.0, 1.0).phases(0.0, [16.0, 32.0, 40.0], [])
        assert phase.n_steps == 5 and phase.saves == (16.0, 32.0, 40.0)

    @pytest.mark.parametrize("step, bound", [(0.0, 1.0), (8.0, -1.0), (float("nan"), 1.0)])
    def test_impossible_steps_are_refused(self, step, bound):
        with pytest.raises(ValueError, match="positive"):
            FixedSteps(step, bound)


class TestMovingEdges:
    def test_colliding_events_of_the_reference_are_refused(self):
        for fractions in ([5.0, 5.0], [10.0], [0.0], [31.0]):
            with pytest.raises(ValueError, match="apart"):
                MovingEdges.from_schedule(_schedule(fractions), DAYS)
        with pytest.raises(ValueError, match="resection"):
            MovingEdges.from_schedule(_schedule(resections=[Resection(3.0, np.ones(SHAPE))]), DAYS)

    def test_events_that_move_too_far_are_a_failed_result(self):
        edges = MovingEdges.from_schedule(_schedule([5.0, 8.0]), DAYS, max_diffusivity=0.5)
        run = eqx.filter_jit(lambda s: simulate_moving(_model(), s, edges))
        assert bool(run(_schedule([4.0, 9.0])).succeeded)
        for fractions in ([8.0, 5.0], [8.0, 8.0005], [5.0, 10.0], [5.0, 10.5], [-0.1, 5.0]):
            assert run(_schedule(fractions)).result == RESULTS.colliding_events
        with pytest.raises(ValueError, match="2 fractions"):
            edges.times(_schedule([5.0]))

    def test_both_paths_give_the_closed_form(self):
        fractions = [3.3, 4.7, 21.9]
        edges = MovingEdges.from_schedule(_schedule([3.0, 5.0, 22.0]), DAYS, max_diffusivity=0.5)
        moving = eqx.filter_jit(lambda m, s: simulate_moving(m, s, edges))(_model(), _schedule(fractions, [6.0]))
        found = np.asarray(moving.states.density)[:, 1, 1, 1]
        np.testing.assert_allclose(found, _values(_model(), _schedule(fractions, [6.0])), rtol=1e-5)
