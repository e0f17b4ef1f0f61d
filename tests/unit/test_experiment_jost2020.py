"""Calls of `experiments/jost2020`: closed forms, steady state, order of steps, limits, a loop that learns nothing."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from experiments.jost2020 import bank, loop, optimised, other
from experiments.jost2020.bank import INFUSION, MODEL, SLOTS, Cycle, simulate
from experiments.jost2020.patients import patients, with_volume


def test_cytarabine_and_lenograstim_against_an_integrator():
    """Plasma after a three-hour infusion and the second absorbing compartment, linear in the dose."""
    k10, k12, k21, ka = (float(getattr(MODEL, n)) for n in ("elimination", "to_tissue", "from_tissue", "absorption"))
    days = np.asarray([0.05, INFUSION, 0.2, 0.5])

    def plasma(t, x):
        return [(t < INFUSION) / INFUSION - (k10 + k12) * x[0] + k21 * x[1], k12 * x[0] - k21 * x[1]]

    found = solve_ivp(plasma, (0, 0.5), [0, 0], t_eval=days, rtol=1e-9, atol=1e-12, max_step=1e-3, method="LSODA").y[0]
    np.testing.assert_allclose(bank._infused(days, k10, k12, k21), found, rtol=2e-3)
    kb = 10.0 / 3.0 * ka

    def depot(t, x):
        return [-ka * x[0], ka * x[0] - kb * x[1], kb * (x[1] - x[2])]

    found = solve_ivp(depot, (0, 0.5), [1, 0, 0], t_eval=days, rtol=1e-10, atol=1e-13).y[2]
    np.testing.assert_allclose(bank._absorbed(days, ka), found, rtol=1e-6)


def test_untreated_without_blasts_nothing_moves():
    models = dataclasses.replace(patients(3, 0), start_marrow=jnp.zeros(3), start_blood=jnp.zeros(3))
    found = simulate(models, Cycle(0.0, 20.0, ()), jnp.zeros(len(SLOTS)), jnp.zeros(0))
    np.testing.assert_allclose(found.white, np.broadcast_to(models.baseline, found.white.shape), rtol=1e-10)


@pytest.mark.slow
def test_steps_are_of_second_order(monkeypatch):
    """Halved steps: a quarter of the error of white cells."""
    models, cycle = with_volume(patients(2, 1), 300.0), Cycle(0.0, 10.0, (4.0, 5.0))
    ends = []
    for per_day in (8, 16, 32, 64):
        monkeypatch.setattr(bank, "STEPS_PER_DAY", per_day)
        bank._responses.cache_clear()
        ends.append(np.log(np.asarray(simulate(models, cycle, 0.5 * jnp.ones(6), jnp.ones(2)).white[-1])))
    bank._responses.cache_clear()
    errors = np.abs(np.diff(ends, axis=0)).max(axis=1)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.3)
    assert errors[2] < 2e-3


@pytest.mark.slow
def test_optimised_schedules_keep_box_budget_and_limit():
    models = with_volume(patients(4, 2), 300.0)
    standard = optimised.judged(models, np.ones(len(SLOTS)), optimised.standard_factor(True))
    found = optimised.optimised(models, np.full(4, 5.0), steps=6)
    doses = np.concatenate([found.cytarabine, found.factor], axis=1)
    assert doses.min() >= 0.0 and doses.max() <= 1.0 + 1e-12
    assert found.factor.sum(axis=1).max() <= optimised.VIALS + 1e-6
    assert (found.blasts <= np.where(standard.blasts < 5.0, 5.0, standard.blasts) * (1.0 + 1e-6)).all()


@pytest.mark.slow
def test_three_stages_against_an_integrator_and_gompertz_without_drug():
    """White cells under a constant kill, G-CSF held at its baseline; untreated blasts in closed form."""
    growth = 0.02
    model = dataclasses.replace(patients(1, 3), start_marrow=jnp.asarray([20.0]), factor_elimination=jnp.asarray([1e9]))
    law = bank.Law(3, jnp.asarray([growth]))
    cycle = Cycle(0.0, 15.0, ())
    found = simulate(model, cycle, jnp.zeros(len(SLOTS)), jnp.zeros(0), law)
    transit = 0.005 * 3 * float(model.baseline[0] * model.white_death / model.transit_rate[0])
    exact = 500.0 * np.exp(np.log(20.0 / 500.0) * np.exp(-growth * 15.0))
    np.testing.assert_allclose(found.marrow[-1], 100.0 * (exact + transit) / 500.0, rtol=1e-6)
    np.testing.assert_allclose(found.white, float(model.baseline[0]), rtol=1e-6)
    found = simulate(with_volume(model, 200.0), cycle, jnp.ones(len(SLOTS)), jnp.zeros(0), law)
    rate, death, base = (float(np.squeeze(x)) for x in (model.transit_rate, model.white_death, model.baseline))
    days = np.asarray(found.days)
    nodes = days[:-1, None] + np.diff(days)[:, None] * (0.5 + bank.NODES)
    pk = tuple(float(getattr(MODEL, n)) for n in ("elimination", "to_tissue", "from_tissue"))
    plasma = sum(bank._infused(nodes - slot, *pk) for slot in SLOTS) * bank.MAXIMAL / 200.0
    kill = float(model.kill_slope[0]) * np.log1p(plasma) @ bank.WEIGHTS

    def cells(t, x):
        hit = kill[min(int(t * 24 + 1e-9), kill.size - 1)]
        return [
            -rate * hit * x[0],
            rate * (x[0] - x[1]),
            rate * (x[1] - x[2]),
            rate * (x[2] - x[3]),
            rate * x[3] - death * x[4],
        ]

    start = [base * death / rate] * 4 + [base]
    exact = solve_ivp(cells, (0, 15), start, t_eval=[5.0, 10.0, 15.0], rtol=1e-8, atol=1e-10, max_step=1.0 / 24).y[4]
    np.testing.assert_allclose(np.asarray(found.white)[[120, 240, 360], 0], exact, rtol=2e-4)


@pytest.mark.slow
def test_the_other_class_finds_its_own_patients_again():
    """A record of the other class, read almost without error: white cells and blasts are followed to the noise."""
    models, law = other.described(0.2 * jnp.asarray(np.random.default_rng(0).normal(size=(2, 8))), jnp.asarray(330.0))
    record = np.asarray(other._readings(models, law)).T
    found = other.fitted(jnp.asarray(record), models.volume)
    assert found[1].shape == record.shape and np.abs(np.asarray(found[1])).max() < 0.5


def _table(rng: np.random.Generator, size: int) -> loop.Table:
    """Counts that tell a hidden number, and losses that depend on it (the dose of the second cycle)."""
    hidden = rng.normal(size=size)
    courses = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    wanted = np.where(hidden > 0.0, 2, 0)
    loss = np.abs(courses[:, 1, None] - wanted[None, :]) + 0.1 * courses[:, :1]
    white = np.broadcast_to(np.exp(hidden)[None, :, None], (len(courses), size, loop.COUNTED.size))
    return loop.Table(courses, loss.astype(float), white)


@pytest.mark.slow
def test_a_loop_that_sees_nothing_is_open_and_one_that_sees_gains():
    rng = np.random.default_rng(0)
    cloud, truth = _table(rng, 60), _table(rng, 8)
    blind = loop.compared(cloud, truth, informative=False, seed=0)
    np.testing.assert_array_equal(blind.closed_loop, blind.open_loop)
    seen = loop.compared(cloud, truth, informative=True, seed=0)
    assert seen.closed_loop.mean() < seen.open_loop.mean()
    assert (seen.perfect <= seen.closed_loop + 1e-12).all()
