"""The wells of `liu2022_radiotherapy`: the solver, the forecast of a well, baselines, and what belongs together."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.liu2022_radiotherapy import baselines as b
from experiments.liu2022_radiotherapy import forecast as f
from experiments.liu2022_radiotherapy import population as p
from experiments.liu2022_radiotherapy import run as r
from experiments.liu2022_radiotherapy.culture import Dishes, Wells, _grouped, confluence
from tumortwin.metrics import concordance
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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def population() -> p.Population:
    return p.learn(wells(), ascent=0, hours=6.0, most=3)


def test_a_forecast_with_readings_is_the_conditional_of_the_forecast_without(population):
    table = wells()
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


LIMITS = {"coverage": {"low": 0.9, "high": 0.98, "source": "a test"}}


def fake_task(schedule: str, bias: float) -> r.Task:
    """Three wells of one schedule: ours is off by 2 %, `near` by a share that grows with time."""
    table = wells()
    table = table.where(table.schedule == schedule)
    mean, spread = np.log(table.seen + 0.01) + 0.02, np.full(table.seen.shape, 0.03)
    median, low, high = (np.exp(mean + k * spread) - 0.01 for k in (0.0, -1.96, 1.96))
    near = table.seen * (1.0 + bias * np.linspace(0.5, 1.5, len(DAYS)))
    made = f.Forecast(median, low, high, mean, spread, np.full(len(table), "plate"))
    return r.Task(table, made, {"near": near})


def said(tasks: list[r.Task]) -> dict[str, float]:
    """Every number that the experiment reports of left-out schedules and of paired differences."""
    found, _, _ = r.scores_left_out("x", tasks, LIMITS, False)
    found += r.ahead("x", tasks, ["near"], r.UNITS, np.random.default_rng(0))
    return {verdict.name: verdict.value for verdict in found}


def changed(task: r.Task, column: int) -> r.Task:
    """The task with another forecast, by every forecaster, of one column of the readings."""

    def other(values: Any) -> Any:
        return np.where(np.arange(values.shape[1]) == column, 7.0 + values, values)

    made = {name: other(getattr(task.forecast, name)) for name in ("median", "low", "high", "mean", "spread")}
    others = {name: other(values) for name, values in task.others.items()}
    return r.Task(task.wells, dataclasses.replace(task.forecast, **made), others)


def test_the_forecast_at_the_start_is_the_reading_and_no_score_looks_at_it(population):
    table = wells()
    for every in (None, 1.0):
        found = f.forecast(population, table, every)
        for values in (found.median, found.low, found.high):
            np.testing.assert_allclose(values[:, 0], table.start, rtol=1e-12)
    tasks = [fake_task("4 x 4 Gy", 0.1), fake_task("2 x 8 Gy", 0.3)]
    plain = said(tasks)
    assert said([changed(t, 0) for t in tasks]) == plain
    first = said([changed(t, 1) for t in tasks])
    scored = [name for name in plain if not name.startswith("x_interval") and first[name] != plain[name]]
    assert {"x_near_mean_ccc", "x_mechanism_and_discrepancy_rmse", "x_coverage", "x_mean_ccc_minus_near"} <= set(scored)
    mine = tasks[0]
    expected = [concordance(mine.forecast.median[i, 1:], mine.wells.seen[i, 1:]) for i in range(3)]
    np.testing.assert_array_equal(r.concordances(mine.forecast.median, mine.wells), expected)


def test_the_paired_difference_is_that_of_the_means_and_wider_over_schedules_that_differ():
    tasks = [fake_task("4 x 4 Gy", 0.1), fake_task("2 x 8 Gy", 0.6)]
    found = said(tasks)
    gap = found["x_mean_ccc_minus_near"]
    assert gap == pytest.approx(found["x_mechanism_and_discrepancy_mean_ccc"] - found["x_near_mean_ccc"], abs=1e-12)
    low, high = found["x_mean_ccc_minus_near_low"], found["x_mean_ccc_minus_near_high"]
    assert low < gap < high
    each = [said([t])["x_mean_ccc_minus_near"] for t in tasks]
    assert found["x_mean_ccc_minus_near_over_schedules_low"] == pytest.approx(min(each), abs=1e-12)
    assert found["x_mean_ccc_minus_near_over_schedules_high"] == pytest.approx(max(each), abs=1e-12)
    assert found["x_mean_ccc_minus_near_over_schedules_high"] - min(each) > high - low
