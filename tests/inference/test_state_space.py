"""Lesion readings with hidden regimes: chain, law and filter beside NumPy and SciPy, gradients, samples, and errors."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from experiments.laleh2022.model import law, lesion_prior, problem_of
from tumortwin.inference import Horizon, Prior, StateSpaceProblem, sample_ahead, step_order
from tumortwin.io import Padded
from tumortwin.models import SwitchingGrowth, chance_weights
from tumortwin.observation import LesionReadings, Visits

CHANCE, LOGISTIC, PRIOR = 21.0, 1.702, lesion_prior()
ROWS = (
    ([-7.0, 40.0, 85.0, 130.0], [30.0, 24.0, 24.0, 6.4]),
    ([-3.0, 42.0], [12.0, 0.0]),
    ([0.0], [55.0]),
    ([-10.0, 39.0, 80.0, 190.0], [4.0, 0.0, 0.0, 6.0]),
)


def padded(rows=ROWS):
    width = max(len(days) for days, _ in rows)
    fill = {name: np.zeros((len(rows), width)) for name in ("times", "values")}
    valid = np.zeros((len(rows), width), bool)
    for s, (days, sizes) in enumerate(rows):
        valid[s, : len(days)] = True
        fill["times"][s] = [*days, *[days[-1]] * (width - len(days))]
        fill["values"][s, : len(sizes)] = sizes
    gone = valid & (fill["values"] == 0.0)
    lower = np.where(valid & ~gone, np.maximum(fill["values"] - 0.5, 0.0), 0.0)
    upper = np.where(gone, 5.0, np.where(valid, fill["values"] + 0.5, 0.0))
    return Padded("diameter", "mm", tuple(map(str, range(len(rows)))), lower=lower, upper=upper, valid=valid, **fill)


@pytest.fixture(scope="module")
def problem():
    rows = padded()
    return problem_of(rows, rows.counts)


@pytest.fixture(scope="module")
def point(problem):
    return jnp.asarray(np.random.default_rng(3).normal(size=problem.size) / 2)


@pytest.fixture(scope="module")
def density(problem):
    """`(log density, what the filter finds), gradient`, compiled once."""

    def both(z):
        return problem.log_density(z), problem.filtered(problem.constrain(z))

    return jax.jit(jax.value_and_grad(both, has_aux=True))


def numpy_likelihood(p, size, day, duration, entry, lower, upper):
    """The law of one reading [regime, class], written out again."""
    nodes = np.polynomial.hermite_e.hermegauss(3)[0]
    if size == 0.0:
        back = 1 / (1 + np.exp(-p["returning"]))
        around = stats.logistic(1.792, 0.3 / LOGISTIC)
        inside = around.cdf(np.log(upper)) - around.cdf(np.log(max(lower, 1e-300)))
        return np.full((3, 3), 1 - back if entry == 0.0 else back * inside)
    found = np.zeros((3, 3))
    for k in range(3):
        drift = p["growth.rate"][k] * duration * (size / 30) ** -p["growth.size_exponent"][k]
        lost = 1 - np.exp(-np.exp(p["vanishing"][k]) * (size / 15) ** -p["vanishing_exponent"] * duration / 42)
        for c, node in enumerate(nodes):
            nu = np.exp(p["between"] * node)
            spread = (
                nu * p["spread"][k] * (size / 30) ** -p["spread_exponent"] * (duration / 42) ** p["duration_exponent"]
            )
            spread *= (1 + max(day, 0) / 60) ** p["time_exponent"]
            walk = stats.logistic(np.log(size) + drift, np.hypot(spread, 1 / (size * np.sqrt(12))) / LOGISTIC)
            jump = stats.logistic(np.log(size) + drift + p["jump_shift"], p["jump_spread"] / LOGISTIC)
            share = 1 / (1 + np.exp(-p["jump_share"][k]))
            low, high = np.log(max(lower, 1e-300)), np.log(upper)
            mixed = lambda x, share=share, walk=walk, jump=jump: (1 - share) * walk.cdf(x) + share * jump.cdf(x)  # noqa: E731
            middle, psi = np.clip(np.log(5.0), low, high), 1 / (1 + np.exp(-p["below_as_gone"]))
            below, above = mixed(middle) - mixed(low), mixed(high) - mixed(middle)
            moved = psi * below if entry == 0.0 else (1 - psi) * below + above
            kept = 1 / (1 + np.exp(-p["kept"][k] + p["kept_by_class"] * p["between"] * node))
            found[k, c] = (1 - lost) * (kept * (entry == size) + (1 - kept) * moved) + lost * (entry == 0.0)
    return found


def numpy_filter(p, rows):
    """Log evidence and last state of every subject, by loops over subjects and readings."""
    _, weights = np.polynomial.hermite_e.hermegauss(3)
    start = np.exp([p["growth.start"][0], 0.0, p["growth.start"][1]])
    m, stay = p["growth.moves"], 3.0
    one = np.exp([[stay, m[0], m[1]], [m[2], stay, m[3]], [m[4], m[5], stay]])
    one /= one.sum(axis=1, keepdims=True)
    evidence, states = [], []
    for s in range(len(rows.subjects)):
        state, total = np.outer(start / start.sum(), weights / weights.sum()), 0.0
        for j in range(1, rows.counts[s]):
            duration = rows.times[s, j] - rows.times[s, j - 1]
            move = linalg.expm((one - np.eye(3)) * duration / CHANCE)
            seen = numpy_likelihood(
                p, rows.values[s, j - 1], rows.times[s, j - 1], duration, rows.values[s, j],
                rows.lower[s, j], rows.upper[s, j],
            )  # fmt: skip
            state = (move.T @ state) * seen
            total += np.log(state.sum())
            state /= state.sum()
        evidence.append(total)
        states.append(state)
    return np.asarray(evidence), np.asarray(states)


def test_the_filter_is_that_of_loops(problem, point, density):
    values = problem.constrain(point)
    total, found = density(point)[0]
    evidence, states = numpy_filter({k: np.asarray(v) for k, v in values.items()}, padded())
    np.testing.assert_allclose(found.log_evidence, evidence, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.moveaxis(np.asarray(found.state), -1, 0), states, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(total, PRIOR.log_density(point) + evidence.sum(), rtol=1e-10)


def test_the_gradient_is_that_of_differences(problem, point, density):
    exact = density(point)[1]
    step = 1e-5
    moves = step * jnp.eye(problem.size)
    differences = [(density(point + move)[0][0] - density(point - move)[0][0]) / (2 * step) for move in moves]
    np.testing.assert_allclose(exact, differences, rtol=2e-6, atol=2e-7)
    assert np.all(np.abs(exact) > 0)


def test_regimes_move_as_the_matrix_exponential(point):
    growth = law(PRIOR.constrain(point)).growth
    durations = np.asarray([1.0, 21.0, 42.0, 300.0])
    found = np.moveaxis(np.asarray(growth.transition(jnp.asarray(chance_weights(durations)))), -1, 0)
    rates = (np.asarray(growth.one_chance()) - np.eye(3)) / CHANCE
    np.testing.assert_allclose(found, [linalg.expm(rates * t) for t in durations], atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=2), 1.0, atol=1e-12)


def test_growth_slows_with_size_or_not():
    growth = SwitchingGrowth(
        jnp.asarray([-0.004, 0.0, 0.003]), jnp.asarray([0.0, 0.0, 0.5]), jnp.zeros(2), jnp.zeros(6)
    )
    change = np.asarray(growth.log_growth(jnp.asarray([30.0, 120.0]), jnp.asarray([10.0, 10.0])))
    np.testing.assert_allclose(change, [[-0.04, -0.04], [0.0, 0.0], [0.03, 0.015]], atol=1e-15)


def every_entry(size):
    """All entries that may follow, with intervals that divide the line (0 apart)."""
    entry = np.concatenate([[0.0, 0.25], np.arange(1.0, 1200.0)])
    lower, upper = entry - 0.5, entry + 0.5
    lower[:2], upper[:2] = 0.0, [5.0, 0.5]
    return Visits(*(jnp.full(entry.shape, v) for v in (size, 60.0, 42.0))), *map(jnp.asarray, (entry, lower, upper))


@pytest.mark.parametrize("size", [0.0, 7.0, 48.0])
def test_probabilities_of_all_entries_sum_to_one_and_samples_follow_them(point, size):
    readings = law(PRIOR.constrain(point))
    at, entry, lower, upper = every_entry(size)
    share = np.asarray(eqx.filter_jit(lambda r, *known: r.likelihood(*known))(readings, at, entry, lower, upper))
    np.testing.assert_allclose(share.sum(axis=2), 1.0, atol=2e-4)
    n, regime, kind = 40_000, 2, 1
    same = Visits(*(jnp.full(n, v[0]) for v in at))
    drawn = readings.sample(same, jnp.full(n, regime), jnp.full(n, kind), key=jax.random.key(0))
    expected = share[regime, kind]
    counts = np.asarray([np.sum(np.asarray(drawn) == e) for e in np.asarray(entry)]) / n
    sd = np.sqrt(expected * (1 - expected) / n)
    assert np.all(np.abs(counts - expected) < 5 * sd + 2e-3)
    assert np.max(expected) > 0.01


@pytest.mark.slow
def test_a_forecast_begins_with_the_filtered_state(problem, point):
    """The share of lesions that are gone at the next reading, drawn and computed."""
    rows, n = padded(), 4000
    values = problem.constrain(point)
    state = numpy_filter({k: np.asarray(v) for k, v in values.items()}, rows)[1].transpose(1, 2, 0)
    last = rows.counts - 1
    size, day = rows.values[np.arange(4), last], rows.times[np.arange(4), last]
    durations = jnp.asarray([[42.0, 30.0, 60.0, 42.0], [40.0, 40.0, 40.0, 40.0]])
    chances = jnp.stack([jnp.asarray(chance_weights(np.asarray(step))) for step in durations])
    at = Visits(jnp.asarray(size), jnp.asarray(day), durations[0])
    repeated = {path: jnp.broadcast_to(value, (n, *value.shape)) for path, value in values.items()}
    drawn = np.asarray(sample_ahead(problem, repeated, Horizon(at, durations, chances), key=jax.random.key(1)))
    assert drawn.shape == (n, 2, 4)
    readings = problem.bound(values)
    moved = np.einsum("kcs,kls->lcs", state, np.asarray(readings.transition(chances[0])))
    gone = np.asarray(readings.likelihood(at, jnp.zeros(4), jnp.zeros(4), jnp.full(4, 5.0)))
    expected = np.sum(moved * gone, axis=(0, 1))
    np.testing.assert_allclose((drawn[:, 0] == 0).mean(axis=0), expected, atol=0.03)
    kept = (drawn[:, 1] == drawn[:, 0]) & (drawn[:, 0] > 0)
    assert kept.mean() > 0.05


def test_order_of_the_steps():
    order = step_order(np.asarray([2, 1, 4, 2]))
    assert order.counts == (3, 1, 1)
    assert order.subject.tolist() == [2, 0, 3, 2, 2]
    assert order.reading.tolist() == [1, 1, 1, 2, 3]
    assert order.place.tolist() == [1, 3, 0, 2]
    assert step_order(np.asarray([1, 1])).counts == ()


def test_hidden_readings_are_not_in_the_data():
    rows = padded()
    known = np.maximum(rows.counts - 2, 1)
    hidden = np.arange(rows.valid.shape[1])[None, :] >= known[:, None]
    other = {name: np.where(hidden, 77.0, getattr(rows, name)) for name in ("times", "values", "lower", "upper")}
    one, two = (problem_of(r, known).data for r in (rows, dataclasses.replace(rows, **other)))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_prior_that_does_not_fit_is_refused(problem):
    wrong = dict(PRIOR.distributions)
    wrong["spread"] = PRIOR.distributions["between"]
    with pytest.raises(ValueError, match=r"shape \(3,\) for 'spread'"):
        StateSpaceProblem(problem.law, Prior(wrong), problem.data)
    with pytest.raises(KeyError, match="spread"):
        StateSpaceProblem(problem.law, Prior({"spreads": PRIOR.distributions["between"]}), problem.data)


def test_the_law_is_a_module_of_parameters(problem):
    assert isinstance(problem.law, LesionReadings)
    assert problem.scalars == problem.names == PRIOR.names
    assert len(problem.names) == problem.size


@pytest.mark.slow
def test_the_terms_are_the_subjects_and_their_names_tell_readings_apart(problem):
    z = problem.sample_prior(1, key=jax.random.key(3))[0]
    terms, prior, density = eqx.filter_jit(lambda p, at: (p.log_terms(at), p.log_prior(at), p.log_density(at)))(
        problem, z
    )
    np.testing.assert_allclose(prior + jnp.sum(terms), density, rtol=1e-12)
    names = problem.term_names()
    assert terms.shape == problem.term_days.shape == (len(names),) == (len(set(names)),)
    first = int(np.argmin(problem.data.place))  # the subject of the first row
    moved = dataclasses.replace(problem.data, upper=problem.data.upper.at[0].add(1.0))
    others = dataclasses.replace(problem, data=moved).term_names()
    assert [i for i, (a, b) in enumerate(zip(names, others, strict=True)) if a != b] == [first]
