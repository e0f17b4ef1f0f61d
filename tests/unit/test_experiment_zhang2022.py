"""Adaptive abiraterone: the fast solver, the filter of the level, leaving a patient out, what a forecast may know."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal

from experiments.zhang2022 import population as population_module
from experiments.zhang2022.bank import advance, records
from experiments.zhang2022.forecast import Patient
from experiments.zhang2022.population import (
    MONTH,
    Node,
    Noise,
    Population,
    design,
    filtered,
    level_step,
    log_prior,
    population,
    reading_variance,
)
from experiments.zhang2022.visits import Cycle, Visits, cycles_of, previous_cycle, running_mean
from tumortwin.models import SensitiveResistant
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import StepHistory


def published(start: float = 9000.0, resistant: float = 10.0, competition: float = 1.0) -> SensitiveResistant:
    """Growth scale 1, in the published unit."""
    return SensitiveResistant(
        jnp.asarray([start]),
        jnp.asarray([resistant]),
        jnp.asarray(0.0156),
        jnp.asarray(0.0091),
        jnp.asarray(competition),
    )


def test_the_fast_solver_gives_the_known_numbers() -> None:
    """(S, R) under the drug on days 30, 100 and 400, computed apart from this project."""
    model = published()
    known = {30.0: (1217.32, 12.226), 100.0: (610.86, 21.945), 400.0: (334.06, 288.45)}
    for day, cells in known.items():
        start = (model.start_sensitive, model.start_resistant)
        found = advance(model, start, jnp.asarray(day), jnp.asarray(1.0), substeps=800)
        np.testing.assert_allclose([float(x[0]) for x in found], cells, rtol=2e-4)


def test_the_fast_solver_is_of_second_order_and_positive() -> None:
    model = published(6000.0, 200.0, 6.0)

    def rate(_: float, y: np.ndarray) -> list[float]:
        s, r = y
        return [0.0156 * s * (1 - (s + r) / 500.0), 0.0091 * r * (1 - (6 * s + r) / 10000.0)]

    exact = solve_ivp(rate, (0, 60), [6000.0, 200.0], rtol=1e-12, atol=1e-9).y[:, -1]
    start = (model.start_sensitive, model.start_resistant)
    errors = []
    for substeps in (64, 128):
        found = advance(model, start, jnp.asarray(60.0), jnp.asarray(1.0), substeps=substeps)
        errors.append(np.abs(np.array([float(x[0]) for x in found]) - exact).max())
    assert 3.5 < errors[0] / errors[1] < 4.5
    coarse = advance(model, start, jnp.asarray(1000.0), jnp.asarray(1.0), substeps=2)
    assert all(float(x[0]) > 0 for x in coarse)


@pytest.mark.slow
def test_records_follow_the_adaptive_solver() -> None:
    model = published(6000.0, 200.0, 6.0)
    days, on = jnp.asarray([0.0, 25.0, 60.0, 90.0, 130.0]), jnp.asarray([0.0, 1.0, 1.0, 0.0, 0.0])
    sensitive, resistant = records(model, days, on)
    history = StepHistory(days[None], jnp.concatenate([jnp.zeros(1), on])[None])
    exact = simulate_compartment(model, days[None], history)
    np.testing.assert_allclose((sensitive + resistant)[:, 0], exact.burden[0], rtol=2e-3)


def test_the_filter_is_the_normal_density_of_all_readings() -> None:
    """Against the covariance matrix of an Ornstein-Uhlenbeck level with noise, the first reading given."""
    rng = np.random.default_rng(3)
    days = np.array([0.0, 28.0, 60.0, 75.0])
    burden, psa = rng.uniform(0.2, 1.0, (4, 2)), rng.uniform(1.0, 9.0, 4)
    error = Noise(*(jnp.asarray(x) for x in (0.2, 0.4, 100.0, 0.05)))
    found = filtered(jnp.asarray(burden), jnp.asarray(psa), jnp.asarray(days), jnp.ones(4), error)
    for k in range(2):
        f = burden[:, k]
        scatter = 0.2**2 + (0.05 * f[0] / f) ** 2
        stationary = 0.4**2 * 100.0 / (2 * MONTH)
        decay = np.exp(-days / 100.0)
        # level(t) from level(0) ~ N(0, scatter of the first reading)
        level = np.outer(decay, decay) * scatter[0]
        earlier = np.minimum.outer(days, days)
        later = np.maximum.outer(days, days)
        level += stationary * (np.exp(-(later - earlier) / 100.0) - np.exp(-(later + earlier) / 100.0))
        covariance = (level + np.diag(scatter))[1:, 1:]
        value = np.log(psa / psa[0])[1:] - np.log(f / f[0])[1:]
        exact = multivariate_normal(np.zeros(3), covariance).logpdf(value)
        np.testing.assert_allclose(found.log_likelihood[-1, k], exact, rtol=1e-10)
        gain = level[1:, 1:][-1] @ np.linalg.solve(covariance, value)
        np.testing.assert_allclose(found.mean[-1, k], gain, rtol=1e-10)


def test_padding_changes_no_likelihood() -> None:
    error = Noise(*(jnp.asarray(x) for x in (0.2, 0.4, 100.0, 0.05)))
    burden, psa, days = (
        jnp.asarray([[0.3], [0.5], [0.5]]),
        jnp.asarray([1.0, 2.0, 0.01]),
        jnp.asarray([0.0, 30.0, 30.0]),
    )
    padded = filtered(burden, psa, days, jnp.asarray([1.0, 1.0, 0.0]), error)
    whole = filtered(burden[:2], psa[:2], days[:2], jnp.ones(2), error)
    np.testing.assert_allclose(padded.log_likelihood[-1], whole.log_likelihood[-1], rtol=1e-14)


def test_a_level_step_in_two_halves() -> None:
    error = Noise(*(jnp.asarray(x) for x in (0.2, 0.4, 100.0, 0.05)))
    kept, added = level_step(jnp.asarray(50.0), error)
    half, half_added = level_step(jnp.asarray(25.0), error)
    np.testing.assert_allclose([kept, added], [half**2, half**2 * half_added + half_added], rtol=1e-12)


def test_the_population_is_found_again() -> None:
    """Patients known exactly: their mean and spread; at the better node all the weight."""
    points = design(1024)
    rng = np.random.default_rng(0)
    mean, sd = np.array([-0.5, -5.0]), np.array([0.4, 0.8])
    patients = mean + sd * rng.standard_normal((40, 2))
    good = -0.5 * (((points[None] - patients[:, None]) / 0.25) ** 2).sum(axis=2)
    found = population(np.stack([good, good - 1.0]), points)
    assert found.weight[0] > 0.999
    np.testing.assert_allclose(found.mean[0], patients.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance[0])), patients.std(axis=0), rtol=0.25)
    np.testing.assert_allclose(np.exp(log_prior(points, found.mean, found.covariance)).sum(axis=1), 1.0, rtol=1e-12)


def two_cycles() -> Visits:
    """One adaptive patient, on from the first visit: restarts at visits 3 and 6; and a standard one without any."""
    days = np.array([np.arange(8) * 30.0, np.minimum(np.arange(8), 4) * 30.0])
    psa = np.array([[10.0, 2.0, 6.0, 11.0, 3.0, 7.0, 12.0, 4.0], [5.0, 3.0, 2.0, 4.0, 6.0, 1.0, 1.0, 1.0]])
    on = np.array([[1, 0, 0, 1, 0, 0, 1, 0], [0, 1, 1, 1, 1, 1, 1, 1]], float)
    valid = np.arange(8) < np.array([[8], [5]])
    return Visits(("a", "s"), np.array([True, False]), days, psa, psa / 12.0, on, valid)


def test_cycles_and_baselines_by_hand() -> None:
    visits = two_cycles()
    cycles = cycles_of(visits)
    assert cycles == [Cycle(0, 0, 0, 3, 6), Cycle(0, 1, 3, 6, 7)]
    np.testing.assert_allclose(previous_cycle(visits, cycles[0]), [2.0, 6.0, 11.0])
    np.testing.assert_allclose(previous_cycle(visits, cycles[1]), [3.0])
    np.testing.assert_allclose(running_mean(visits, cycles[0]), np.full(3, 29.0 / 4))
    never = dataclasses.replace(visits, on=np.zeros_like(visits.on))
    assert cycles_of(never) == []


@pytest.fixture(scope="module")
def learned() -> tuple[list[Node], Population, np.ndarray]:
    points = design(32)
    return [Node(0.45, 4.0, 0.1, 0.4, 720.0)], population(np.zeros((1, 3, 32)), points), points


def forecast(visits: Visits, learned: tuple[list[Node], Population, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    cycle = Cycle(0, 0, 0, 3, 6)
    found = Patient(visits, 0, *learned).forecast(cycle, 50, np.random.default_rng(1))
    return found.given, found.ruled


@pytest.mark.slow
def test_a_forecast_knows_nothing_later(learned: tuple[list[Node], Population, np.ndarray]) -> None:
    """Later PSA changes neither forecast; a later drug changes the one under the given drug alone."""
    visits = two_cycles()
    given, ruled = forecast(visits, learned)
    psa = visits.psa.copy()
    psa[0, 4:] *= 7.0
    poisoned = forecast(dataclasses.replace(visits, psa=psa), learned)
    np.testing.assert_array_equal(given, poisoned[0])
    np.testing.assert_array_equal(ruled, poisoned[1])
    on = visits.on.copy()
    on[0, 4:6] = 1.0
    treated = forecast(dataclasses.replace(visits, on=on), learned)
    np.testing.assert_array_equal(ruled, treated[1])
    assert np.median(treated[0][:, -1]) < np.median(given[:, -1])


def test_the_poison_test_finds_what_is_known(learned: tuple[list[Node], Population, np.ndarray]) -> None:
    visits = two_cycles()
    psa = visits.psa.copy()
    psa[0, 2] *= 7.0
    assert not np.array_equal(forecast(visits, learned)[0], forecast(dataclasses.replace(visits, psa=psa), learned)[0])


def test_the_rule_keeps_the_drug_until_half(learned: tuple[list[Node], Population, np.ndarray]) -> None:
    """With a baseline so low that the PSA never falls below half of it, the rule never stops the drug."""
    visits = two_cycles()
    psa, on = visits.psa.copy(), visits.on.copy()
    psa[0, 0] = 1e-9 * psa[0, 0]
    on[0, 3:6] = 1.0
    never = dataclasses.replace(visits, psa=psa, on=on)
    given, ruled = forecast(never, learned)
    np.testing.assert_allclose(given, ruled, rtol=1e-12)


def test_the_floor_matters_for_a_small_burden() -> None:
    error = Noise(*(jnp.asarray(x) for x in (0.1, 0.4, 100.0, 0.03)))
    burden, first = jnp.asarray([1.0, 0.03]), jnp.asarray(1.0)
    np.testing.assert_allclose(reading_variance(burden, first, error), [0.01 + 0.0009, 0.01 + 1.0], rtol=1e-12)


@pytest.mark.slow
def test_every_choice_has_its_likelihood() -> None:
    visits, points = two_cycles(), design(4)
    found = population_module.likelihoods(visits, points)
    choices = population_module.nodes()
    assert found.shape == (len(choices), 2, 4)
    place = 37
    node = choices[place]
    model = population_module.virtual(points, node.start, node.competition)
    sensitive, resistant = records(model, jnp.asarray(visits.days[0]), jnp.asarray(visits.on[0]))
    arrays = (jnp.asarray(visits.psa[0]), jnp.asarray(visits.days[0]), jnp.ones(8))
    direct = filtered(sensitive + resistant, *arrays, node.error).log_likelihood[-1]
    np.testing.assert_allclose(found[place, 0], direct, rtol=1e-9)
