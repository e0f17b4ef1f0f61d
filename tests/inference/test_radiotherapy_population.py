"""The wells of `liu2022_radiotherapy`: the solver, the forecast of a well, baselines, and what belongs together."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.liu2022_radiotherapy import baselines as b
from experiments.liu2022_radiotherapy import forecast as f
from experiments.liu2022_radiotherapy import population as p
from experiments.liu2022_radiotherapy.culture import Dishes, Wells, _grouped, confluence
from tumortwin.models import DelayedDeath
from tumortwin.solvers import simulate_compartment

DAYS = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])


def wells(plates: int = 2, each: int = 3) -> Wells:
    n, rng = plates * each, np.random.default_rng(0)
    start = rng.uniform(0.05, 0.3, n)
    plate = np.repeat([f"plate {k}" for k in range(plates)], each)
    dose, fractions = np.repeat([4.0, 8.0], each)[:n], np.repeat([4.0, 2.0], each)[:n]
    valid = np.ones((n, len(DAYS)), bool)
    valid[:, 0] = False
    days = np.tile(DAYS, (n, 1))
    blank = Wells(
        np.arange(n).astype(object), days, np.tile(start[:, None], (1, len(DAYS))), valid, dose, fractions, plate,
        np.full(n, "batch"), np.repeat(["4 x 4 Gy", "2 x 8 Gy"], each)[:n], np.zeros(n, bool),
    )  # fmt: skip
    seen = p.unscale(p.curve(jnp.repeat(p.MEDIANS[:, None], n, 1), Dishes.of(blank, 5.0)))
    seen = np.maximum(seen * np.exp(0.02 * rng.normal(size=seen.shape)), 1e-3)
    seen[:, 0] = start
    return Wells(**{**blank.__dict__, "seen": seen})


def test_shared_steps_agree_with_steps_of_each_wells_own():
    dishes = Dishes.of(wells(each=1), 5.0)
    model = DelayedDeath(dishes.start)
    times = jnp.broadcast_to(jnp.arange(4.0), (2, 4))
    doses = jnp.where(times < dishes.fractions[:, None], dishes.dose[:, None], 0.0)
    expected = simulate_compartment(model, dishes.days, None, (times, doses)).burden
    np.testing.assert_allclose(confluence(model, dishes), expected, rtol=1e-4)


def test_derivatives_of_a_curve_against_differences():
    dishes, logs = Dishes.of(wells(), 5.0), jnp.repeat(p.MEDIANS[:, None], 6, 1)
    value, jacobian = p.linearized(logs, dishes)
    for k in range(p.COUNT):
        h = jnp.zeros(p.COUNT).at[k].set(1e-5)[:, None]
        slope = (p.linearized(logs + h, dishes)[0] - p.linearized(logs - h, dishes)[0]) / 2e-5
        np.testing.assert_allclose(jacobian[..., k], slope, rtol=1e-5, atol=1e-8)
    assert value.shape == (6, len(DAYS))


def test_a_forecast_with_readings_is_the_conditional_of_the_forecast_without():
    table = wells()
    population = p.learn(table, ascent=0, hours=6.0, most=3)
    blind, daily = f.forecast(population, table), f.forecast(population, table, every=1.0)
    first = table.valid & (table.days <= 1.0)
    np.testing.assert_allclose(daily.mean[first], blind.mean[first], rtol=1e-12)
    assert np.all(daily.spread[table.valid & ~first] < blind.spread[table.valid & ~first])
    assert set(blind.known) == {"plate"} and np.all(blind.low <= blind.median) and np.all(blind.median <= blind.high)
    other = Wells(**{**table.__dict__, "plate": np.full(6, "another")})
    unknown = f.forecast(population, other)
    assert set(unknown.known) == {"batch"}
    assert np.all(unknown.spread[table.valid] > blind.spread[table.valid])
    nothing = f.forecast(population, Wells(**{**other.__dict__, "batch": np.full(6, "another")}))
    assert set(nothing.known) == {"nothing"}
    assert np.all(nothing.spread[table.valid] > unknown.spread[table.valid])


def test_doses_that_differ_by_rounding_are_one():
    np.testing.assert_array_equal(_grouped(np.array([16.0, 15.9, 20.0, 20.1, 24.0])), [15.9, 15.9, 20.0, 20.0, 24.0])


def test_baselines_know_nothing_after_the_last_update():
    table = wells()
    train, asked = table.where(np.arange(6) != 1), table.where(np.arange(6) == 1)
    late = asked.seen.copy()
    late[:, DAYS > 3.0] = 9.0
    changed = Wells(**{**asked.__dict__, "seen": late})
    for how in {**b.SAME_PLATE, **b.OTHER_SCHEDULES, **b.UPDATED}.values():
        before, after = how(train, asked), how(train, changed)
        np.testing.assert_array_equal(before[:, DAYS <= 4.0], after[:, DAYS <= 4.0])
    np.testing.assert_allclose(b.persistence(train, asked)[0, 1:6], asked.seen[0, [0, 0, 0, 3, 3]])
    twin = b.plate_neighbors(table, asked)
    assert twin[0] == pytest.approx(table.seen[:3].mean(axis=0))
