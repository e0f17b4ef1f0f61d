"""The reduced-order model: exact where it can be, right where it vouches for itself, and silent nowhere."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import surrogate_case as case

from tumortwin.geometry import Domain, Grid, Tissue, add_ring, divergence
from tumortwin.inference import Problem
from tumortwin.models import GivenDensity, TumorState
from tumortwin.observation import AbstractObservation, Datum, MaskObservation
from tumortwin.params import set_parameters
from tumortwin.solvers import RESULTS, FixedSteps, simulate
from tumortwin.surrogates import (
    ParameterDomain,
    Samples,
    StandIn,
    basis_of,
    calibrate_pod,
    enlarged,
    fit_pod,
    hold_against,
    pod_basis,
    project,
    random_design,
    reduced_many,
    rehearse,
    simulate_samples,
    stand_in,
)
from tumortwin.treatments import Schedule
from tumortwin.twin import SurrogateBurden

RATE, DIFFUSIVITY = "mechanisms.proliferation.rate", "mechanisms.diffusion.white_matter"


@eqx.filter_jit
def both(surrogate, model):
    """The trajectory, and the estimate of its relative L2 error."""
    return surrogate(model, case.SCHEDULE, case.DAYS), surrogate.reduced(model, case.SCHEDULE, case.DAYS)[1]


def asked(surrogate, model):
    return both(surrogate, model)[0]


@eqx.filter_jit
def solved(model, schedule=case.SCHEDULE, days=case.DAYS):
    return simulate(model, schedule, days, case.SOLVER, estimate_error=False)


def relative(ours, theirs):
    return float(jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs))


# --- the projection ---


def test_the_basis_is_that_of_a_singular_value_decomposition_whatever_the_blocks():
    random = np.random.default_rng(0)
    start, rows = random.random(60), random.random((20, 8)) @ random.random((8, 60))
    basis = pod_basis(start, [rows[:7], np.zeros((2, 60)), rows[7:]], 5)
    first = start / np.linalg.norm(start)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rest = unit - np.outer(unit @ first, first)
    _, sizes, directions = np.linalg.svd(rest, full_matrices=False)
    assert np.allclose(basis.modes @ basis.modes.T, np.eye(5), atol=1e-12)
    assert np.allclose(basis.modes[0], first) and np.allclose(basis.singular_values[:7], sizes[:7], rtol=1e-8)
    assert np.allclose(abs(np.sum(basis.modes[1:] * directions[:4], axis=1)), 1.0, atol=1e-8)
    lost = [np.sum((unit - unit @ basis.modes[:k].T @ basis.modes[:k]) ** 2) / 20 for k in range(1, 6)]
    assert np.allclose(basis.lost, lost, atol=1e-10)


@pytest.mark.parametrize(
    "start, rows, count, words",
    [
        (np.ones(9), np.full((3, 9), np.nan), 2, "3 of 3 that are not"),
        (np.zeros(9), np.ones((3, 9)), 2, "not empty"),
        (np.ones(9), np.eye(9)[:2], 5, "fewer modes"),
    ],
)
def test_snapshots_that_carry_nothing_are_refused(start, rows, count, words):
    with pytest.raises(ValueError, match=words):
        pod_basis(start, [rows], count)


@pytest.mark.slow
def test_with_a_mode_for_every_voxel_it_is_the_solver():
    """Nothing is left out, so the same steps give the same tumor: front correction, fractions and drug included."""
    shape = (4, 3, 2)
    grid = Grid.from_spacing(shape, case.SPACING)
    whole = case.model()
    tissue = Tissue(Domain(grid, np.ones(shape, bool)), {k: v[4:8, 4:7, 3:5] for k, v in whole.tissue.fields.items()})
    start = np.random.default_rng(0).random(shape)
    small = eqx.tree_at(lambda m: (m.tissue, m.initial), whole, (tissue, GivenDensity(jnp.asarray(start))))
    values = {p: case.training().design.values[p] for p in case.prior().paths}
    surrogate = fit_pod(
        small,
        basis_of(small, [np.eye(24)], 24),
        case.domain(),
        values,
        levels=case.LEVELS,
        solver=case.SOLVER,
        horizon=40.0,
        settings=dataclasses.replace(case.SETTINGS, modes=24, substeps=5, degree=14),
    )
    other = surrogate.at({RATE: jnp.asarray(0.06), DIFFUSIVITY: jnp.asarray(0.15)})
    (found, estimate), truth = both(surrogate, other), solved(other)
    assert relative(found.states.density, truth.states.density) < 1e-7
    assert float(jnp.max(estimate)) < 1e-6  # what is left out is nothing


@pytest.mark.slow
def test_the_operators_are_the_projected_equations_and_the_sketch_measures_the_rest():
    model = case.model()
    modes = np.asarray(case.fitted(8).modes).reshape(8, -1)
    reduced = project(model, modes, (-3.0, 0.5), degree=10, sketch=512, seed=3)
    ratio, a = -1.234, np.random.default_rng(1).normal(size=8)
    unit = set_parameters(model, {DIFFUSIVITY: 1.0, RATE: np.exp(ratio)})
    field = a @ modes
    diffused = np.asarray(divergence(add_ring(jnp.asarray(field.reshape(case.SHAPE))), unit.relative_faces())).ravel()
    matrix, remainder = reduced.at_ratio(jnp.asarray(ratio))
    pairs = reduced.pairs(jnp.asarray(a))
    assert np.allclose(matrix @ a, modes @ diffused, rtol=1e-6, atol=1e-9)
    assert np.allclose(reduced.crowding @ pairs, modes @ field**2, rtol=1e-10)
    assert float(np.linalg.eigvalsh(np.asarray(matrix)).max()) <= 1e-10  # diffusion never grows
    for sketched, whole in ((remainder @ a, diffused), (reduced.sketched_crowding @ pairs, field**2)):
        outside = np.linalg.norm(whole - modes.T @ (modes @ whole))
        assert abs(float(jnp.linalg.norm(sketched)) / outside - 1.0) < 0.15  # some 3 sd of 512 rows


# --- its errors ---


@pytest.mark.slow
def test_more_modes_err_less_and_the_estimate_follows():
    errors, estimates = [], []
    for modes in (4, 8, 14):
        held = hold_against(case.fitted(modes), case.held_out(), [case.SCHEDULE])
        errors.append(np.median(held.true_error[:, 1:]))
        estimates.append(np.median(held.estimate[:, 1:]))
        if modes == 14:
            assert np.corrcoef(np.log(held.error[:, -1]), np.log(held.estimate[:, -1]))[0, 1] > 0.3
            assert np.mean(held.error[:, 1:] <= held.estimate[:, 1:] + 1e-4) > 0.95  # rather too large
            assert np.nanmedian(held.dice["flair"]) > 0.95
    assert errors[2] < 0.3 * errors[1] < 0.3 * errors[0] and errors[2] < 0.01
    assert estimates[2] < estimates[1] < estimates[0]


def test_it_is_a_trajectory_of_the_model_with_its_bound():
    surrogate = case.calibrated()
    found, truth = asked(surrogate, surrogate.model), solved(surrogate.model)
    assert bool(found.succeeded) and found.states.density.shape == truth.states.density.shape
    off = [relative(a, b) for a, b in zip(found.states.density, truth.states.density, strict=True)]
    assert (np.asarray(off) <= np.asarray(found.error_estimate)).all() and max(off) < 0.02
    assert float(found.states.density.min()) >= 0.0 and float(found.states.density.max()) <= 1.0


def test_a_surrogate_that_was_never_held_against_a_case_vouches_for_nothing():
    surrogate = case.fitted(8)
    assert asked(surrogate, surrogate.model).result == RESULTS.outside_domain


def test_a_case_of_nan_is_refused_and_a_failed_solve_is_no_case():
    good = case.held_out()
    failed = dataclasses.replace(good, succeeded=np.arange(case.HELD_OUT) > 2)
    with pytest.raises(ValueError, match="3 others of 80"):
        hold_against(case.fitted(8), failed, [case.SCHEDULE])
    density = good.density.copy()
    density[5, 0, 5, 4, 4] = np.nan
    with pytest.raises(ValueError, match="1 others of 80"):
        hold_against(case.fitted(8), dataclasses.replace(good, density=density), [case.SCHEDULE])


def test_other_parameters_and_another_start_are_outside():
    surrogate = case.calibrated()
    fast = surrogate.at({RATE: jnp.asarray(0.24)})
    assert bool(surrogate.inside(surrogate.model)) and not bool(surrogate.inside(fast))
    assert asked(surrogate, fast).result == RESULTS.outside_domain
    elsewhere = case.moved(surrogate, (7.5, 4.5, 4.0))  # 7.5 mm away, same parameters
    assert bool(surrogate.inside(elsewhere))
    assert asked(surrogate, elsewhere).result == RESULTS.outside_domain
    # A satellite hardly changes the start, and grows where nothing crowds it.
    start = surrogate.model.initial.state(surrogate.model.tissue).density
    for peak in (1e-2, 1e-3):
        with_satellite = eqx.tree_at(
            lambda m: m.initial, surrogate.model, GivenDensity(start.at[5, 8, 3].add(peak).astype(start.dtype))
        )
        assert asked(surrogate, with_satellite).result == RESULTS.outside_domain
    assert bool(asked(surrogate, surrogate.model).succeeded)
    nonsense = surrogate.at({RATE: jnp.asarray(np.nan)})
    assert asked(surrogate, nonsense).result != RESULTS.successful


def test_a_surrogate_of_half_of_the_range_refuses_the_other_half():
    known = case.training()
    rate = np.asarray(known.design.values[RATE])
    below = rate < np.median(rate)
    slow = Samples(
        known.design.rows(below), known.days, known.density[below], known.error_estimate[below], known.succeeded[below]
    )
    expected = random_design(case.prior(), 2000, key=jax.random.key(3)).values
    there = expected[RATE] < np.median(rate)
    domain = ParameterDomain.of(slow.design.values, {p: np.asarray(v)[there] for p, v in expected.items()})
    model = case.model()
    surrogate = fit_pod(
        model, basis_of(model, [slow.snapshots()], 10), domain, slow.design.values,
        levels=case.LEVELS, solver=case.SOLVER, horizon=case.DAYS[-1], settings=case.SETTINGS_OF_TEN,
    )  # fmt: skip
    held = case.held_out()
    surrogate = calibrate_pod(surrogate, hold_against(surrogate, held, [case.SCHEDULE]))
    asked = {p: jnp.asarray(v) for p, v in held.design.values.items()}
    found = surrogate.many(asked, case.SCHEDULE, case.DAYS)
    fast = np.asarray(asked[RATE]) > 1.1 * np.median(rate)
    assert fast.sum() > 20 and not np.asarray(found.inside)[fast].any()
    assert np.asarray(found.inside)[~fast].mean() > 0.5
    assert (np.asarray(surrogate(surrogate.at({p: v[np.argmax(fast)] for p, v in asked.items()}), case.SCHEDULE,
                                 case.DAYS).result == RESULTS.outside_domain)).all()  # fmt: skip


def test_enlarged_by_what_it_rejected_it_holds_the_moved_start():
    surrogate = case.calibrated()
    elsewhere = case.moved(surrogate, (7.5, 4.5, 4.0))
    states = []
    for factor in (0.6, 1.0, 1.7):
        other = set_parameters(elsewhere, {DIFFUSIVITY: 0.2 * factor, RATE: 0.04 * factor})
        states += [
            other.initial.state(other.tissue).density[None],
            solved(other, days=case.SNAPSHOT_DAYS).states.density,
        ]
    snapshots = np.concatenate(states).reshape(-1, np.prod(case.SHAPE))
    more = enlarged(surrogate, snapshots, 10, case.SETTINGS, start=elsewhere.initial)
    truth = solved(elsewhere).states.density
    before, after = (relative(asked(s, elsewhere).states.density, truth) for s in (surrogate, more))
    assert before > 0.2 and after < 0.02
    ratio = [float(both(s, elsewhere)[1].max()) for s in (surrogate, more)]
    assert ratio[1] < 0.1 * ratio[0]
    design = random_design(case.prior(), 24, key=jax.random.key(8))
    samples = simulate_samples([elsewhere], [case.SCHEDULE], design, case.DAYS, case.SOLVER, estimate_error=False)
    known = calibrate_pod(more, hold_against(more, samples, [case.SCHEDULE]))
    assert bool(asked(known, elsewhere).succeeded)  # bounds of courses that begin there
    assert asked(known, surrogate.model).result == RESULTS.successful  # the old start is still a mode


def test_another_anatomy_or_spacing_or_mechanism_is_refused():
    surrogate = case.calibrated()
    surrogate.check(surrogate.at({RATE: jnp.asarray(0.05)}))
    tissue = surrogate.model.tissue
    other = eqx.tree_at(lambda m: m.tissue.fields["white_matter"], surrogate.model, tissue.fields["white_matter"] * 0.9)
    bare = {k: v for k, v in surrogate.model.mechanisms.items() if k != "chemotherapy"}
    for model, words in (
        (case.model(spacing=(2.0, 3.0, 3.0)), "spacing"),
        (other, "anatomy"),
        (dataclasses.replace(surrogate.model, mechanisms=bare), "mechanisms"),
        (case.model(front_correction=False), "front correction"),
    ):
        with pytest.raises(ValueError, match=words):
            surrogate.check(model)
    with pytest.raises(ValueError, match="horizon"):
        surrogate.reduced(surrogate.model, case.SCHEDULE, (20.0, 41.0))


# --- in the place of the solver ---


class Solve(eqx.Module):
    """A solver as the twin's problem has one."""

    schedule: Schedule
    solver: FixedSteps

    def __call__(self, model, days):
        found = simulate(model, self.schedule, days, self.solver, estimate_error=False)
        return jnp.where(found.succeeded, found.states.density, jnp.nan)


def posed() -> Problem:
    """Outlines of two days, to be explained by rate and diffusivity."""
    model = case.calibrated().model
    truth = np.asarray(solved(model).states.density)
    mask = np.asarray(model.tissue.domain.mask)
    data = tuple(Datum(day, "flair", (u > 0.25) & mask, mask, 0.1) for day, u in zip(case.DAYS, truth, strict=True))
    prior = case.prior().distributions
    of_two = type(case.prior())({path: prior[path] for path in (RATE, DIFFUSIVITY)})
    observation: dict[str, AbstractObservation] = {"flair": MaskObservation(jnp.asarray(0.25), jnp.asarray(0.8))}
    return Problem(model, observation, of_two, data, Solve(case.SCHEDULE, case.SOLVER))


@pytest.mark.slow
def test_a_calibrator_does_not_know_which_it_got_and_gradients_are_right():
    problem = posed()
    reduced = stand_in(problem, case.calibrated(), fall_back=False)
    gradient = eqx.filter_jit(lambda p, z: jax.value_and_grad(p.log_density)(z))
    for z in (jnp.zeros(2), jnp.asarray([0.5, -0.8])):
        value, slope = gradient(reduced, z)
        assert abs(float(value) - float(gradient(problem, z)[0])) < 0.1
        for i in range(2):
            step = 1e-5 * jnp.eye(2)[i]
            central = (gradient(reduced, z + step)[0] - gradient(reduced, z - step)[0]) / 2e-5
            assert abs(float(central - slope[i])) < 1e-4 * float(jnp.linalg.norm(slope))
    assert float(gradient(reduced, jnp.asarray([0.0, 9.0]))[0]) == -np.inf  # outside: as improbable as a failed solve


@pytest.mark.slow
def test_where_it_does_not_vouch_the_model_itself_is_solved_and_counted():
    surrogate = case.calibrated()
    behind = StandIn(surrogate, case.SCHEDULE, case.SOLVER)
    run = eqx.filter_jit(lambda s, m: s.trajectory(m, case.DAYS))
    fast = surrogate.at({RATE: jnp.asarray(0.24)})
    density, fell_back = run(behind, fast)
    assert bool(fell_back)
    np.testing.assert_allclose(density, solved(fast).states.density, rtol=1e-12, atol=1e-15)  # two programs: rounding
    assert not bool(run(behind, surrogate.model)[1])
    assert np.isnan(np.asarray(run(StandIn(surrogate, case.SCHEDULE), fast)[0])).all()


def test_rehearsals_count_what_the_model_had_to_do_and_carry_the_error_into_the_interval():
    surrogate = case.calibrated()
    drawn = {p: v[:20].copy() for p, v in case.held_out().design.values.items()}
    drawn[RATE][[3, 11]] = 0.24
    found = rehearse(surrogate, drawn, case.SCHEDULE, case.DAYS, case.SOLVER)
    truth = np.stack(
        [
            [
                float(v)
                for v in surrogate.read_field(solved(surrogate.at({p: v[i] for p, v in drawn.items()})).states)["mass"]
            ]
            for i in range(20)
        ]
    )
    assert found.fell_back[[3, 11]].all() and found.solves < 20
    assert np.allclose(found.values["mass"][found.fell_back], truth[found.fell_back], rtol=1e-9)
    assert np.allclose(found.values["mass"], truth, rtol=0.02)
    assert (found.bounds["mass"][~found.fell_back] > 0).all() and (found.bounds["mass"][found.fell_back] == 0).all()
    low, middle, high = found.interval("mass", 0.9)
    bare = np.quantile(found.values["mass"], [0.05, 0.5, 0.95], axis=0)
    assert (low < bare[0]).all() and np.allclose(middle, bare[1]) and (high >= bare[2]).all()
    assert np.allclose(high, np.quantile(found.values["mass"] + found.bounds["mass"], 0.95, axis=0))
    with pytest.raises(ValueError, match="does not"):
        rehearse(surrogate, drawn, case.SCHEDULE, case.DAYS, None)


def test_many_at_once_are_the_same_as_one_by_one():
    surrogate = case.calibrated()
    drawn = {p: jnp.asarray(v[:20]) for p, v in case.held_out().design.values.items()}
    many = surrogate.many(drawn, case.SCHEDULE, case.DAYS)
    states, _ = reduced_many(surrogate, drawn, case.SCHEDULE, case.DAYS)
    one = surrogate.read_field(TumorState(surrogate.field(states.coefficients[2])))
    for name, value in one.items():
        assert np.allclose(many.values[name][2], value, rtol=1e-9), name


def test_a_controller_does_not_know_either():
    surrogate = case.calibrated()
    burden = SurrogateBurden(surrogate, case.DAYS)
    draw = {RATE: jnp.asarray(0.045)}
    curve = eqx.filter_jit(burden)(draw, case.SCHEDULE)
    truth = solved(surrogate.at(draw)).states.density.sum(axis=(1, 2, 3)) * 27.0
    assert np.allclose(curve.burden, truth, rtol=0.02)
    assert np.isnan(np.asarray(eqx.filter_jit(burden)({RATE: jnp.asarray(0.24)}, case.SCHEDULE).burden)).all()
