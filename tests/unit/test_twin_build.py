"""From a patient to a calibration problem: what is compared with what, what is dropped, and where it starts."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin_case as case
from numpyro.distributions import Normal

from tumortwin import cli_report
from tumortwin.models import GaussianSeed
from tumortwin.params import get_parameter
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Resection, Schedule
from tumortwin.twin import GliomaSettings, Scan, build_problem, dropped_paths, unused_adc
from tumortwin.twin._build import Solve, adc_datum, on_frame, start_at_day_zero, time_error


def names(problem):
    return {datum.name for datum in problem.data}


def test_outlines_of_the_first_visit_start_the_simulation_and_are_not_data_too():
    problem = case.problem()
    assert names(problem) == {"adc@0", "flair@30", "t1gd@30", "flair@60", "t1gd@60"}
    assert dict(problem.ties) == {
        "initial.flair_density": "observation.flair.threshold",
        "initial.t1gd_density": "observation.t1gd.threshold",
        "initial.diffusivity": "mechanisms.diffusion.white_matter",
        "initial.rate": "mechanisms.proliferation.rate",
    }


def test_a_seed_is_explained_by_the_first_visit_too():
    problem = case.problem(start="seed")
    assert {"flair@0", "t1gd@0"} < names(problem) and not problem.ties


def test_a_tie_makes_the_contour_the_threshold():
    problem = case.problem()
    values = dict(problem.prior.constrain(jnp.zeros(problem.prior.size)))
    model, observations = problem.bind({**values, "observation.flair.threshold": jnp.asarray(0.31)})
    assert float(model.initial.flair_density) == float(get_parameter(observations, "flair.threshold")) == 0.31


def test_every_visit_has_a_shift_of_its_own():
    problem = case.problem()
    assert problem.prior.shapes["observation.flair.shift"] == (2,)
    assert {"observation.flair.shift[0]", "observation.flair.shift[1]"} < set(problem.prior.names)
    values = dict(problem.prior.constrain(jnp.zeros(problem.prior.size)))

    @jax.jit
    def terms(shift):
        return problem.log_likelihoods({**values, "observation.flair.shift": shift})

    moved = np.asarray(terms(jnp.asarray([0.0, 0.4])) - terms(jnp.zeros(2)))
    assert [datum.name for datum, change in zip(problem.data, moved, strict=True) if change != 0] == ["flair@60"]
    single = case.problem(dataclasses.replace(case.patient(), scans=case.patient().scans[:1]))
    assert "observation.flair.shift" not in single.prior.paths


def test_parameters_that_only_change_how_states_are_seen_need_no_solve():
    problem = case.problem()
    moving, observing = problem.entries()
    assert sorted([*moving, *observing]) == list(range(problem.prior.size))
    names = {problem.prior.names[i] for i in observing}
    shifts = {"observation.flair.shift[0]", "observation.flair.shift[1]"}
    widths = {"observation.flair.width", "observation.t1gd.width", "observation.adc.noise_sd"}
    assert names == shifts | widths  # a threshold is tied to the contour that the simulation starts from
    z = 0.1 * jnp.arange(problem.prior.size) / problem.prior.size

    @jax.jit
    def seen(point):
        values = problem.prior.constrain(point)
        return problem.predict(values)[0], problem.observe(problem.visits(problem.prior.constrain(z)), values)[0]

    for i, moves in [*((int(i), False) for i in observing), (int(moving[0]), True)]:
        solved, only_seen = seen(z.at[i].add(0.3))
        gap = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(solved, only_seen, strict=True))
        assert (gap > 1e-4) == moves, problem.prior.names[i]


def test_shares_of_blocks_are_the_data():
    one, frame = case.patient(), case.frame(case.patient())
    datum = next(d for d in case.problem().data if d.name == "flair@60")
    np.testing.assert_array_equal(
        np.asarray(datum.values)[np.asarray(datum.valid) > 0],
        frame.coarse(one.scans[2].masks["flair"])[np.asarray(datum.valid) > 0],
    )
    np.testing.assert_array_equal(np.asarray(datum.valid) > 0, frame.coarse(one.domain) >= 0.5)


@pytest.mark.parametrize(
    "change, path, word",
    [
        ({"schedule": Schedule()}, "mechanisms.radiotherapy.alpha", "fraction"),
        ({"schedule": Schedule()}, "mechanisms.chemotherapy.sensitivity", "drug"),
        ({"scans": (Scan(0.0, {"t1gd": case.ball(8.0)}),)}, "observation.flair.width", "flair"),
        ({"scans": (Scan(0.0, {"t1gd": case.ball(8.0)}),)}, "observation.adc.noise_sd", "adc"),
        ({"scans": (Scan(0.0, {"t1gd": case.ball(8.0)}),)}, "mechanisms.radiotherapy.alpha", "fraction"),
        ({"scans": (Scan(0.0, {"t1gd": case.ball(8.0)}),)}, "initial.flair_shift", "no such outline"),
        (
            {"scans": (case.scan(0.0, 8.0, 13.0), Scan(30.0, {"t1gd": case.ball(9.0)}))},
            "observation.flair.shift",
            "starts the simulation",
        ),
    ],
)
def test_what_acts_on_nothing_is_dropped_with_a_reason(change, path, word):
    full = dropped_paths(case.patient(), GliomaSettings(), case.prior())
    assert set(full) == {"initial.age"} and "contours" in full["initial.age"]
    reasons = dropped_paths(dataclasses.replace(case.patient(), **change), GliomaSettings(), case.prior())
    assert word in reasons[path]
    seeded = dropped_paths(case.patient(), GliomaSettings(start="seed"), case.prior())
    assert set(seeded) == {"initial.core_ratio", "initial.tail_ratio", "initial.flair_shift"}
    pattern = "mechanisms.proliferation.pattern"
    prior = case.prior() | {pattern: Normal(0.0, 1.0)}
    assert pattern not in dropped_paths(case.patient(), GliomaSettings(), prior)
    alike = GliomaSettings(pattern_modes=0)
    assert "alike everywhere" in dropped_paths(case.patient(), alike, prior)[pattern]
    assert "pattern" not in str(
        build_problem(case.patient(), case.frame(case.patient()), case.SOLVER, prior, alike).prior.paths
    )


def test_an_adc_datum_is_the_mean_of_blocks_that_are_valid_throughout():
    one = case.patient()
    frame = dataclasses.replace(case.frame(one), factors=(2, 2, 2))
    frame = dataclasses.replace(frame, window=dataclasses.replace(frame.window, start=(0, 0, 0), shape=(10, 10, 10)))
    adc = np.random.default_rng(1).uniform(1.0, 3.0, case.GRID.shape).astype(np.float32)
    valid = case.ball(14.0)
    settings, domain = GliomaSettings(), np.ones((10, 10, 10), bool)
    datum = adc_datum(dataclasses.replace(one.scans[0], adc=adc, adc_valid=valid), frame, settings, domain)
    assert datum is not None
    whole = valid.reshape(10, 2, 10, 2, 10, 2).all(axis=(1, 3, 5))
    mean = adc.reshape(10, 2, 10, 2, 10, 2).mean(axis=(1, 3, 5))
    np.testing.assert_array_equal(np.asarray(datum.valid) > 0, whole)
    expected = (settings.adc_water - mean) / (settings.adc_water - settings.adc_tumor)
    np.testing.assert_allclose(np.asarray(datum.values)[whole], expected[whole], rtol=1e-5)
    nowhere = dataclasses.replace(one.scans[0], adc_valid=np.zeros(case.GRID.shape, bool))
    assert adc_datum(nowhere, frame, settings, domain) is None
    outlined = adc_datum(dataclasses.replace(one.scans[0], adc=adc, adc_valid=None), frame, settings, domain)
    assert outlined is not None
    flair = one.scans[0].masks["flair"].reshape(10, 2, 10, 2, 10, 2).all(axis=(1, 3, 5))
    np.testing.assert_array_equal(np.asarray(outlined.valid) > 0, flair)
    with pytest.raises(ValueError, match="adc_valid"):
        adc_datum(Scan(0.0, {}, adc), frame, settings, domain)


def test_an_adc_counts_only_where_the_tumor_was_outlined_from_the_start():
    """A later outline reaches further: its ADC out there would be compared only where the tumor came early."""
    one = case.patient()
    adc = np.full(case.GRID.shape, 1.5, np.float32)
    later = Scan(one.scans[-1].day, {"flair": case.ball(20.0)}, adc)
    grown = dataclasses.replace(one, scans=(*one.scans[:-1], later))
    frame = case.frame(grown)
    (datum,) = (
        d for d in build_problem(grown, frame, case.SOLVER, case.prior()).data if d.name == f"adc@{later.day:g}"
    )
    first = frame.coarse(one.scans[0].masks["flair"].astype(np.float32))
    np.testing.assert_array_equal(np.asarray(datum.valid) > 0, first > 1 - 1e-6)
    assert (frame.coarse(later.masks["flair"].astype(np.float32)) > 1 - 1e-6).sum() > (first > 1 - 1e-6).sum()


def test_an_adc_that_fills_no_block_is_dropped_with_its_noise_and_said():
    one = case.patient()
    frame = case.frame(one)
    rim = np.zeros(case.GRID.shape, bool)
    rim[10, 10, 10] = True
    thin = dataclasses.replace(one, scans=(dataclasses.replace(one.scans[0], adc_valid=rim), *one.scans[1:]))
    whole = dropped_paths(thin, GliomaSettings(), case.prior(), frame)
    assert set(whole) == {"initial.age"} and unused_adc(thin, frame) == () and not cli_report._unused(thin, frame)
    coarse = dataclasses.replace(frame, factors=(2, 2, 2))
    window = dataclasses.replace(frame.window, start=(0, 0, 0), shape=(10, 10, 10))
    coarse = dataclasses.replace(coarse, window=window)
    reasons = dropped_paths(thin, GliomaSettings(), case.prior(), coarse)
    assert "no model voxel" in reasons["observation.adc.noise_sd"]
    problem = build_problem(thin, coarse, case.SOLVER, case.prior())
    assert "observation.adc.noise_sd" not in problem.prior.names and "adc@0" not in names(problem)
    assert "The ADC map of day 0 is not used" in cli_report._unused(thin, coarse)[0]
    assert "observation.adc.noise_sd" in case.problem().prior.names


def test_a_first_visit_without_tumor_is_refused():
    empty = {"t1gd": np.zeros(case.GRID.shape, bool)}
    one = case.patient([Scan(0.0, empty), case.scan(30.0, 8.0, 12.0)])
    with pytest.raises(ValueError, match="first visit"):
        build_problem(one, case.frame(one), case.SOLVER, case.prior())


def test_a_resection_takes_the_same_volume_on_the_model_grid():
    one = case.patient()
    removed = 0.9 * case.ball(9.0)
    schedule = Schedule(resections=[Resection(3.0, jnp.asarray(removed))])
    frame = dataclasses.replace(case.frame(one), factors=(2, 2, 2))
    frame = dataclasses.replace(frame, window=dataclasses.replace(frame.window, start=(1, 1, 1), shape=(8, 8, 8)))
    (found,) = on_frame(schedule, frame).resections
    assert found.time == 3.0 and found.removed.shape == frame.grid.shape
    np.testing.assert_allclose(found.removed.sum() * frame.grid.cell_volume, removed.sum() * case.GRID.cell_volume)


def test_the_time_error_of_a_seed_counts_its_growth():
    problem = case.problem(start="seed")
    values = {path: jnp.asarray(value) for path, value in problem.prior.quantile(0.5).items()}
    first, later = np.asarray(time_error(problem, values, (0.0, 30.0)))
    assert 0.0 < first < later < 0.1


def test_a_seed_of_some_age_is_a_long_simulation():
    """D T / S and rho T / S over the span S are D and rho over the age T, step for step."""
    model = case.problem(start="seed").model
    age, span, longest, step = 420.0, model.initial.span, model.initial.longest, 20.0
    model = eqx.tree_at(lambda m: m.initial.age, model, jnp.asarray(age))
    bound = case.SOLVER.max_diffusivity
    scaled, fine = jax.jit(lambda m: start_at_day_zero(m, FixedSteps(step, bound)))(model)
    seed = GaussianSeed(model.initial.center, model.initial.amplitude, model.initial.width)
    direct = eqx.tree_at(lambda m: m.initial, model, seed)
    steps = FixedSteps(step * age / span, bound * longest / age)
    run = jax.jit(lambda m: simulate(m, Schedule(), (age,), steps, estimate_error=False))
    expected = np.asarray(run(direct).states.density[-1])
    assert bool(fine) and expected.max() > 0.5
    np.testing.assert_allclose(np.asarray(scaled.initial.density), expected, atol=2e-5)


def test_a_failed_growth_is_nan_not_a_number():
    problem = case.problem(start="seed")
    model = eqx.tree_at(lambda m: m.mechanisms["diffusion"].white_matter, problem.model, jnp.asarray(5.0))
    assert isinstance(problem.solve, Solve)
    assert np.isnan(np.asarray(eqx.filter_jit(problem.solve)(model, (30.0,)))).all()
