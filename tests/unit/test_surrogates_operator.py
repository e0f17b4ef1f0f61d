"""The neural operator: right by construction where it can be, flagged where it was not trained, refused if damaged."""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import operator_case as case
import pytest
import scipy.fft
from scipy.integrate import solve_ivp

from tumortwin._errors import InputError
from tumortwin.cli_train_operator import OperatorCase, stored_courses
from tumortwin.config import compose
from tumortwin.inference import Training, fit
from tumortwin.io import read_surrogate, write_surrogate
from tumortwin.models import GivenDensity
from tumortwin.params import set_parameters
from tumortwin.runs import open_run
from tumortwin.solvers import RESULTS, simulate
from tumortwin.surrogates import (
    Brain,
    CourseSettings,
    OperatorLoss,
    OperatorSettings,
    StandIn,
    Variation,
    begin_networks,
    calibrate_operator,
    cosines,
    course_model,
    course_schedule,
    draw_anatomy,
    draw_inputs,
    features_of,
    grow_starts,
    held_out_batches,
    hold_operator_against,
    reacted,
    summary_of,
    weight_count,
)
from tumortwin.treatments import Course, LogKill, Schedule

QUICK = Training(rate=0.02, epochs=8, patience=8, average=0.9, save_every=1)


@functools.cache
def begun():
    """A surrogate after a few steps, and its training."""
    return case.fitted(QUICK)


@functools.cache
def trained():
    """The same with bounds from courses on other anatomies."""
    surrogate, _ = begun()
    return calibrate_operator(surrogate, hold_operator_against(surrogate, case.courses(24, 200)))


@functools.cache
def stirred():
    """The same with weights drawn at random everywhere: nothing is right by having been trained."""
    leaves, tree = jax.tree.flatten(trained().networks)
    random = np.random.default_rng(0)
    networks = jax.tree.unflatten(tree, [x + 0.3 * random.standard_normal(x.shape) for x in leaves])
    return dataclasses.replace(trained(), networks=networks)


def row(n=0, courses=None):
    """The model and schedule of one course."""
    known = case.courses() if courses is None else courses
    inputs = {k: jnp.asarray(v[n]) for k, v in known.inputs.items()}
    model = course_model(case.template(), {p: jnp.asarray(v[n]) for p, v in known.values.items()}, inputs)
    return model, course_schedule(case.template(), inputs)


SOON = 1e-9
ALPHA, SENSITIVITY = "mechanisms.radiotherapy.alpha", "mechanisms.chemotherapy.sensitivity"
ASKED = (0.0, SOON, *case.DAYS)


@eqx.filter_jit
def answered(surrogate, model, schedule):
    return surrogate(model, schedule, ASKED)


# --- right by construction ---


def test_growth_and_kill_of_a_voxel_are_those_of_its_equation():
    rate, days = 0.05, np.asarray([10.0, 40.0, 90.0])
    drug = Course(jnp.arange(20.0, 50.0), jnp.full(30, 0.03))
    kill = LogKill(0.0, 90.0, jnp.zeros(0), jnp.zeros(0), drug.times, drug.doses, jnp.full(30, 0.5))
    start = jnp.asarray([0.0, 1e-6, 0.2, 0.9, 1.0]).reshape(1, 1, 5)
    found = np.asarray(reacted(jnp.asarray(rate), kill, jnp.asarray(days))(start))[:, 0, 0]

    def rates(t, u):
        age = t - np.asarray(drug.times)
        killing = np.sum(np.where(age >= 0, 0.03 * 0.5 * np.exp(-0.5 * np.maximum(age, 0.0)), 0.0))
        return rate * u * (1.0 - u) - killing * u

    exact = solve_ivp(rates, (0.0, 90.0), np.asarray(start).ravel(), t_eval=days, max_step=0.25, rtol=1e-9).y.T
    np.testing.assert_allclose(found, exact, atol=1e-3)
    assert found.min() >= 0.0 and found.max() <= 1.0
    jump = LogKill(0.0, 90.0, jnp.asarray([30.0]), jnp.asarray([2.0]), jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
    free = reacted(jnp.asarray(0.0), jump, jnp.asarray([29.0, 31.0]))(start)
    np.testing.assert_allclose(free[1], np.exp(-2.0) * start, atol=1e-15)  # no growth: the kill and nothing else
    assert np.array_equal(free[0], start)


def test_the_modes_are_scipys_cosines_and_mixing_is_one_matrix_a_mode():
    assert np.allclose(cosines(7, 4), np.asarray(scipy.fft.dct(np.eye(7), norm="ortho", axis=0)).T[:, :4])
    networks = begin_networks(case.SETTINGS, key=jax.random.key(1), dtype=jnp.float64)
    block = jax.tree.map(lambda leaf: leaf[0], networks.blocks[0])
    h = np.random.default_rng(0).normal(size=(*case.SHAPE, 6))
    low = np.asarray(scipy.fft.dctn(h, axes=(0, 1, 2), norm="ortho"))
    mixed = np.zeros_like(low)
    mixed[:3, :3, :3] = np.einsum("ijkc,ijkcd->ijkd", low[:3, :3, :3], np.asarray(block.spectral))
    back = np.asarray(scipy.fft.idctn(mixed, axes=(0, 1, 2), norm="ortho"))
    np.testing.assert_allclose(block.mix(jnp.asarray(h)), back, atol=1e-12)


def test_whatever_its_weights_are_it_is_bounded_exact_at_the_start_and_zero_outside():
    model, schedule = row()
    found = answered(stirred(), model, schedule)
    density, mask = np.asarray(found.states.density), np.asarray(model.tissue.domain.mask)
    assert density.shape == (4, *case.SHAPE) and found.error_estimate.shape == (4,)
    assert density.min() >= 0.0 and density.max() <= 1.0 and not density[:, ~mask].any()
    assert np.array_equal(density[0], model.initial.state(model.tissue).density)
    np.testing.assert_allclose(density[1], density[0], atol=1e-8)  # and not by a special case alone
    plain = np.asarray(answered(trained(), model, schedule).states.density)
    assert np.abs(density - plain).max() > 0.05  # the weights do matter


@pytest.mark.parametrize("axes", [(0,), (1, 2)])
def test_a_flipped_tumor_has_the_flipped_answer(axes):
    model, schedule = row()
    fields = {k: jnp.flip(v, axes) for k, v in model.tissue.fields.items()}
    start = model.initial.state(model.tissue).density
    mask = jnp.flip(model.tissue.domain.mask, axes)
    flipped = eqx.tree_at(
        lambda m: (m.tissue.fields, m.tissue.domain.mask, m.initial),
        model,
        (fields, mask, GivenDensity(jnp.flip(start, axes))),
    )
    there, here = (answered(stirred(), m, schedule).states.density for m in (flipped, model))
    moved = tuple(a + 1 for a in axes)
    np.testing.assert_allclose(jnp.flip(there, moved), here, atol=1e-12)
    assert float(jnp.abs(there - here).max()) > 0.05


def test_gradients_are_those_of_finite_differences():
    model, schedule = row()
    times = schedule.radiotherapy.times

    def mass(x):
        other = set_parameters(model, {case.PATHS["D"]: x[0], case.PATHS["rho"]: x[1]})
        other = set_parameters(other, {"mechanisms.radiotherapy.alpha": x[2]})
        given = Schedule(Course(times, schedule.radiotherapy.doses + x[3]), schedule.drugs)
        return jnp.sum(stirred().answer(other, given, (0.0, 60.0))[0] ** 2)

    x = jnp.asarray([0.2, 0.04, 0.05, 0.3])
    slope = eqx.filter_jit(jax.grad(mass))(x)
    value = eqx.filter_jit(mass)
    for i, width in enumerate((1e-4, 1e-5, 1e-5, 1e-4)):
        step = jnp.zeros(4).at[i].set(width)
        expected = (value(x + step) - value(x - step)) / (2.0 * width)
        np.testing.assert_allclose(slope[i], expected, rtol=1e-4)


def test_the_default_size_is_within_a_million_weights():
    networks = eqx.filter_eval_shape(lambda: begin_networks(OperatorSettings(), key=jax.random.key(0)))
    assert 500_000 < weight_count(networks) <= 1_000_000


# --- anatomies and courses ---


def test_anatomies_are_tissue_and_the_unvaried_ones_are_the_brain_itself():
    brain = case.brain()
    for seed in range(3):
        drawn = draw_anatomy(brain, case.SHAPE, 4.0, case.VARIATION, np.random.default_rng(seed))
        total = drawn.white_matter + drawn.gray_matter
        assert np.allclose(total, drawn.mask, atol=1e-6) and drawn.mask.any()
        x, y, z = drawn.center.astype(int)
        assert drawn.white_matter[x, y, z] > 0.5
        again = draw_anatomy(brain, case.SHAPE, 4.0, case.VARIATION, np.random.default_rng(seed))
        assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    uniform = Brain(np.full((20, 20, 20), 0.6), np.full((20, 20, 20), 0.4), 4.0)
    plain = draw_anatomy(uniform, (4, 4, 4), 4.0, Variation.none(4.0), np.random.default_rng(0))
    assert np.allclose(plain.white_matter[plain.mask], 0.6, atol=1e-6)
    with pytest.raises(ValueError, match="white matter"):
        draw_anatomy(
            Brain(0.4 * uniform.white, uniform.gray, 4.0), (4, 4, 4), 4.0, Variation(), np.random.default_rng(0)
        )


def test_boxes_differ_by_what_is_called_white_and_are_spread_about_the_brain_itself():
    uniform = Brain(np.full((20, 20, 20), 0.6), np.full((20, 20, 20), 0.4), 4.0)
    shifted = dataclasses.replace(Variation.none(4.0), balance=0.3)
    boxes = [draw_anatomy(uniform, (4, 4, 4), 4.0, shifted, np.random.default_rng(seed)) for seed in range(60)]
    white = np.asarray([box.white_matter.max() for box in boxes], float)
    moved = np.log(white / (1.0 - white)) - np.log(0.6 / 0.4)
    assert np.abs(moved).max() <= 0.3 + 1e-6
    assert moved.min() < -0.2 and moved.max() > 0.2


def test_starts_are_as_large_and_as_steep_as_they_are_drawn():
    n = 16
    everywhere, count = np.ones((n, n, n), np.float32), 6
    inputs = {
        "white_matter": np.stack([everywhere] * count),
        "gray_matter": np.zeros((count, n, n, n), np.float32),
        "mask": np.ones((count, n, n, n), bool),
        "center": np.full((count, 3), 0.5 * (n - 1)),
        "radius": np.asarray([8.0, 14.0, 20.0, 14.0, 14.0, 14.0]),
        "front_length": np.asarray([1.6, 1.6, 1.6, 1.2, 2.0, 3.0]),
    }
    template = case.template(shape=(n, n, n))
    grown = grow_starts(template, inputs, case.SOLVER)
    mass = grown["start"].sum(axis=(1, 2, 3)) * case.SPACING**3
    radius = np.cbrt(3.0 * mass / (4.0 * np.pi))
    assert (np.diff(radius[:3]) > 3.0).all()  # further
    largest = grown["start"].max(axis=(1, 2, 3))
    assert (np.diff(largest[3:]) < 0.0).all()  # and flatter


def test_a_course_depends_on_its_number_alone():
    inputs = draw_inputs(
        case.template(), case.brain(), case.VARIATION, CourseSettings(radius=(5.0, 10.0)), (2, 1), (3,)
    )
    for name, value in inputs.items():
        assert np.array_equal(value, case.courses().inputs[name][[2, 1]]), name
    assert case.courses().succeeded.all()
    assert not np.array_equal(inputs["white_matter"][0], inputs["white_matter"][1])
    with pytest.raises(ValueError, match="at most 33"):
        CourseSettings(regimens=((40, 1.5),))


@pytest.mark.slow
def test_courses_on_disk_go_on_where_they_were_killed(tmp_path):
    sizes = {"training": 10, "calibration": 4, "expected": 48, "chunk": 4, "batch": 4}
    given = (case.template(), case.brain(), case.VARIATION, case.COURSES, case.prior(), case.SOLVER)
    operator = OperatorCase(*given, case.DAYS, case.DAYS, case.LEVELS, case.SETTINGS, QUICK, sizes, 1)
    with open_run(compose([f"paths.runs={tmp_path}", "surrogate=fno", "seed=1"]).config) as run:
        whole = list(stored_courses(run, operator, "training", 10))
        assert [part.size for part in whole] == [4, 4, 2] and whole[0].error_estimate.max() < 0.05
        for path in sorted(run.path("training").glob("*.zarr"))[1:]:  # what a kill in the second chunk leaves
            path.rename(path.with_name(f".tmp-1-{path.name}"))
        again = list(stored_courses(run, operator, "training", 10))
        for before, after in zip(whole, again, strict=True):
            assert all(np.array_equal(v, after.flat()[k]) for k, v in before.flat().items())
        other = next(iter(stored_courses(run, operator, "calibration", 4)))
        assert not np.array_equal(other.inputs["white_matter"], whole[0].inputs["white_matter"])


# --- training ---


def test_four_courses_can_be_learned_by_heart():
    few = case.courses().rows(np.asarray([0, 2, 5, 8]))
    loss = OperatorLoss(case.template(), begun()[0].center, begun()[0].scale)
    batches = held_out_batches(few, 4)
    networks = begin_networks(case.SETTINGS, key=jax.random.key(1), dtype=jnp.float64)
    found = fit(loss, networks, lambda epoch: batches * 30, held_out=batches, settings=QUICK)
    untrained = float(loss(networks, batches[0].data))
    assert untrained > 0.08 and found.score < 0.25 * untrained


class Dies:
    """Checkpoints in memory; the training dies at one of them."""

    def __init__(self, at):
        self.kept, self.left = {}, at

    def save(self, name, arrays):
        self.kept[name] = {k: np.array(v) for k, v in arrays.items()}
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def load(self, name):
        return self.kept.get(name)


def test_killed_and_resumed_it_is_the_same_to_the_bit():
    kept = Dies(at=24)  # within the third epoch
    with pytest.raises(KeyboardInterrupt):
        case.fitted(QUICK, checkpoint=kept)
    resumed, _ = case.fitted(QUICK, checkpoint=kept)
    whole, found = begun()
    assert eqx.tree_equal(resumed, whole) and found.score < 0.7 * found.losses[0]
    held = case.courses().anatomy
    assert len(set(held)) == len(held)  # one course an anatomy: the split is by anatomy


def test_a_batch_with_no_number_is_refused_by_name_and_so_is_a_failed_course():
    bad = case.courses().density.copy()
    bad[3, :, 4, 4, 4] = np.nan
    with pytest.raises(InputError, match=r"(batch \d|rows) .*anatomies .*\b3\b.*target"):
        case.fitted(QUICK, dataclasses.replace(case.courses(), density=bad))
    failed = dataclasses.replace(case.courses(), succeeded=np.arange(32) != 7)
    with pytest.raises(ValueError, match="1 others of 32"):
        case.fitted(QUICK, failed)
    with pytest.raises(ValueError, match="1 others of 32"):
        hold_operator_against(trained(), failed)


# --- conscience ---


def test_before_it_was_held_against_anything_it_vouches_for_nothing():
    surrogate, _ = begun()
    assert answered(surrogate, *row()).result == RESULTS.outside_domain


def test_where_it_was_not_trained_it_says_so():
    surrogate = trained()
    vouched = [bool(answered(surrogate, *row(n)).succeeded) for n in range(8)]
    assert np.mean(vouched) >= 0.5
    model, schedule = row(vouched.index(True))
    start = model.initial.state(model.tissue).density
    white, gray = model.tissue.fields["white_matter"], model.tissue.fields["gray_matter"]
    all_white = {"white_matter": white + gray, "gray_matter": 0.0 * gray}
    bad = {
        "parameters": set_parameters(model, {case.PATHS["rho"]: 0.2}),
        "not a number": set_parameters(model, {case.PATHS["rho"]: jnp.nan}),
        "no start": eqx.tree_at(lambda m: m.initial, model, GivenDensity(0.0 * start)),
        "a start everywhere": eqx.tree_at(lambda m: m.initial, model, GivenDensity(0.0 * start + 0.9)),
        "no gray matter": eqx.tree_at(lambda m: m.tissue.fields, model, all_white),
        "another ratio": set_parameters(model, {"mechanisms.diffusion.gray_ratio": 0.5}),
    }
    for name, other in bad.items():
        assert not bool(answered(surrogate, other, schedule).succeeded), name
    harder = Schedule(Course(schedule.radiotherapy.times, 0 * schedule.radiotherapy.doses + 4.0), schedule.drugs)
    assert not bool(answered(surrogate, model, harder).succeeded)


@pytest.mark.parametrize("fraction, drug, known", [(1.0, 1.0, True), (1.15, 1.0, False), (1.0, 1.15, False)])
def test_a_larger_dose_is_another_course_also_where_the_kill_is_known(fraction, drug, known):
    """Doses so many times as large as the largest of the training, at sensitivities so much smaller."""
    surrogate, (model, schedule) = trained(), row()
    most = surrogate.largest_doses
    center = {path: math.exp(c) for path, c in zip(surrogate.domain.paths, surrogate.domain.center, strict=True)}
    model = set_parameters(model, {path: center[path] for path in (ALPHA, SENSITIVITY, *case.PATHS.values())})
    given = Schedule(
        Course(schedule.radiotherapy.times[:6], jnp.full(6, fraction * most["radiotherapy"])),
        {"temozolomide": Course(schedule.drugs["temozolomide"].times, jnp.full(42, drug * most["temozolomide"]))},
    )
    other = set_parameters(model, {ALPHA: center[ALPHA] / fraction, SENSITIVITY: center[SENSITIVITY] / drug})
    summary, _ = summary_of(other, given, jnp.asarray(case.DAYS))
    summary = (summary - surrogate.center[None]) / surrogate.scale[None]
    assert bool(surrogate.inside(other))
    assert bool(jnp.all((summary >= surrogate.lowest[None]) & (summary <= surrogate.highest[None])))
    assert bool(surrogate.familiar(other, given, summary)) == known


def test_a_start_in_the_middle_of_its_box_is_no_stranger():
    model, _ = row()
    away = np.moveaxis(np.indices(case.SHAPE), 0, -1) - 0.5 * (np.asarray(case.SHAPE) - 1.0)
    ball = np.exp(-8.0 * (away**2).sum(axis=-1))
    found = [
        float(features_of(at_start(model, start))["start.clearance"]) for start in (ball, np.roll(ball, 3, axis=0))
    ]
    assert found == pytest.approx([(0.5 * 8 - 2.0) * case.SPACING, 1.0 * case.SPACING], abs=0.3 * case.SPACING)
    assert found[0] == (0.5 * 8 - 2.0) * case.SPACING


def at_start(model, start):
    return eqx.tree_at(lambda m: m.initial, model, GivenDensity(jnp.asarray(start)))


def test_another_grid_or_mechanism_is_refused():
    surrogate, (model, schedule) = trained(), row()
    surrogate.check(model)  # another anatomy than the template's is what it is for
    bare = {k: v for k, v in model.mechanisms.items() if k != "chemotherapy"}
    for other, words in (
        (case.template(spacing=3.0), "spacing"),
        (case.template(shape=(8, 8, 8)), "shape"),
        (case.template(front_correction=False), "front correction"),
        (dataclasses.replace(model, mechanisms=bare), "mechanisms"),
    ):
        with pytest.raises(ValueError, match=words):
            surrogate.check(other)
        with pytest.raises(ValueError, match=words):
            surrogate(other, schedule, case.DAYS)
    ratio = set_parameters(model, {"mechanisms.diffusion.gray_ratio": 0.5})
    assert not bool(surrogate.inside(ratio))
    with pytest.raises(ValueError, match="ratio of diffusivities"):
        surrogate.on(ratio)  # else it would be compared with itself
    with pytest.raises(ValueError, match="horizon"):
        surrogate(model, schedule, (20.0, 61.0))


@pytest.mark.slow
def test_it_stands_in_for_the_solver_and_hands_back_where_it_does_not_vouch():
    surrogate = trained()
    n = next(n for n in range(8) if bool(answered(surrogate, *row(n)).succeeded))
    model, schedule = row(n)
    solve = eqx.filter_jit(StandIn(surrogate, schedule, case.SOLVER).trajectory)
    density, fell_back = solve(model, case.DAYS)
    assert not bool(fell_back)
    np.testing.assert_allclose(density, answered(surrogate, model, schedule).states.density[2:], atol=1e-12)
    fast = set_parameters(model, {case.PATHS["rho"]: jnp.asarray(0.2)})
    density, fell_back = solve(fast, case.DAYS)
    truth = simulate(fast, schedule, case.DAYS, case.SOLVER, estimate_error=False).states.density
    assert bool(fell_back) and np.allclose(density, truth, atol=1e-12)


def test_quantities_are_those_of_the_field_and_bounds_hold_as_often_as_they_say():
    surrogate, new = trained(), case.courses(24, 400)  # anatomies that it was neither trained nor calibrated on
    held = hold_operator_against(surrogate, new)
    inside = held.rows(np.flatnonzero(held.inside))
    bound = np.asarray(surrogate.error.density_bound(jnp.asarray(inside.estimate)))
    covered = (inside.error <= bound + 1e-12).all(axis=1)
    # Level .8 and some twenty cases on either side: 1 in 1,000 pairs of sets would lie beyond.
    assert 0.35 <= covered.mean() and np.isfinite(bound).all()
    assert float(surrogate.error.density_factor) < 10.0
    values = {p: jnp.asarray(v[:3]) for p, v in new.values.items()}
    model, schedule = row(0, new)
    many = surrogate.on(model).many(values, schedule, case.DAYS)
    field = answered(surrogate, model, schedule).states
    for name, value in surrogate.read_field(field).items():
        np.testing.assert_allclose(many.values[name][0], value[2:], rtol=1e-9)
        np.testing.assert_allclose(held.ours[name][0], value[np.asarray([0, 2, 3])], rtol=1e-9)
    assert set(many.values) == set(surrogate.quantity_names)


# --- on disk ---


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return write_surrogate(tmp_path_factory.mktemp("operator") / "surrogate", trained(), {"seed": 1})


def test_what_is_read_is_what_was_written_to_the_bit(stored):
    read, facts = read_surrogate(stored)
    assert facts == {"seed": 1} and eqx.tree_equal(read, trained())


def test_damaged_weights_are_refused(stored, tmp_path):
    for name in ("surrogate.eqx", "spec.json"):
        (tmp_path / name).write_bytes((stored / name).read_bytes())
    raw = bytearray((tmp_path / "surrogate.eqx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "surrogate.eqx").write_bytes(raw)
    with pytest.raises(InputError, match="SHA-256"):
        read_surrogate(tmp_path)
