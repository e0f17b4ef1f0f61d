"""Every compartment model against SciPy, flows as semigroups, and the numbers that are known from elsewhere."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compartment_cases import FLOWS, RATES, integrate, m, piecewise, variables
from scipy.integrate import solve_ivp
from scipy.optimize import fsolve

from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import StepHistory

ADVANCE = eqx.filter_jit(lambda model, state, duration, exposure: model.advance(state, duration, exposure))
RUN = eqx.filter_jit(simulate_compartment)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_solves_its_equation(name):
    case = FLOWS[name]
    exposures, durations = np.meshgrid(case.exposures, np.array([0.0, 1e-3, 0.3, 1.0]) * case.days)
    start = case.model.initial()
    found = ADVANCE(case.model, start, jnp.asarray(durations.ravel()), jnp.asarray(exposures.ravel()))
    y0 = variables(start)
    expected = [integrate(case, y0, t, u) for t, u in zip(durations.ravel(), exposures.ravel(), strict=True)]
    # SciPy's own absolute error is a part of the largest variable.
    np.testing.assert_allclose(variables(found), expected, rtol=1e-8, atol=1e-11 * np.max(np.abs(y0)))


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_a_semigroup(name):
    case = FLOWS[name]
    rng = np.random.default_rng(1)
    a, b = jnp.asarray(rng.exponential(0.4 * case.days, (2, 200)))
    u = jnp.asarray(rng.choice(case.exposures, 200) * rng.uniform(0, 1, 200))
    start = jax.tree.map(lambda x: jnp.full(200, x), case.model.initial())
    twice = ADVANCE(case.model, ADVANCE(case.model, start, a, u), b, u)
    once = ADVANCE(case.model, start, a + b, u)
    np.testing.assert_allclose(variables(twice), variables(once), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    "name",
    [
        *(n for n in RATES if n != "leukemia"),
        pytest.param("leukemia", marks=pytest.mark.slow),
        "persister",
        "treated",
        "claret",
        "stein",
        "exponential-linear",
    ],
)
def test_switches_and_doses_against_a_piecewise_solution(name):
    case = {**FLOWS, **RATES}[name]
    days = case.days
    ts = np.array([0.0, 0.11, 0.25, 0.5, 0.5, 0.77, 1.0]) * days
    edges = np.array([0.1, 0.25, 0.6, 0.9]) * days
    levels = np.array([0.0, case.exposures[-1], 0.0, 0.5 * case.exposures[-1], 0.0])
    times, doses = np.array([0.0, 0.3, 0.5, 0.95]) * days, case.dose * np.array([1.0, 0.5, 1.0, 2.0])
    given = [jnp.asarray(x) for x in (edges, levels, times, doses)]
    found = RUN(case.model, jnp.asarray(ts), StepHistory(*given[:2]), (given[2], given[3]))
    expected = piecewise(case, variables(case.model.initial()), ts, edges, levels, times, doses)
    assert bool(found.succeeded)
    np.testing.assert_allclose(variables(found.states), expected, rtol=1e-6, atol=case.negligible)
    np.testing.assert_allclose(found.burden, jax.vmap(case.model.burden)(found.states), rtol=1e-14)


def test_stein_turns_where_science_says():
    model = m.Stein(0.02, 0.004)
    assert float(model.nadir()) == pytest.approx(67.060, abs=5e-4)
    found = simulate_compartment(model, jnp.asarray([0.0, float(model.nadir())])).burden
    np.testing.assert_allclose(found, [1.0, 0.56919], atol=5e-6)


def test_two_populations_under_abiraterone_have_the_published_course():
    model = m.SensitiveResistant(9000.0, 10.0, 0.0156, 0.0091, 1.0)
    found = RUN(model, jnp.asarray([30.0, 100.0, 400.0]), jnp.ones(()))
    expected = [[1217.32, 12.226], [610.86, 21.945], [334.06, 288.45]]
    np.testing.assert_allclose(variables(found.states), expected, rtol=1e-4)
    np.testing.assert_allclose(found.burden, np.sum(expected, axis=1), rtol=5e-5)


def test_white_cells_without_blasts_and_drug_rest():
    """And their numbers are those that are known: 47.0265 G/L, 15,770.68 ng/L of G-CSF a day."""
    model = m.LeukemiaMyelosuppression(start_marrow=0.0, start_blood=0.0)
    start = model.initial()
    assert float(start.transit) == pytest.approx(47.0265, abs=5e-5)
    produced = (model.factor_elimination + model.factor_uptake * model.baseline) * model.factor_baseline
    assert float(produced) == pytest.approx(15770.68, abs=5e-3)
    found = RUN(model, jnp.asarray([1.0, 30.0, 300.0]))
    np.testing.assert_allclose(variables(found.states), np.tile(variables(start), (3, 1)), rtol=1e-10, atol=1e-30)


def test_turnover_has_the_published_times_to_progression():
    """The day on which 1.2 times the start is passed, without drug and under continuous drug: day 29 and 1,076."""
    model = m.TurnoverCompetition()
    for level, day in ((0.0, 29.0), (1.0, 1076.0)):
        found = RUN(model, jnp.asarray([day - 1, day]), jnp.asarray(level)).burden
        assert found[0] <= 1.2 * (0.42567 + 4.25675e-6) < found[1]


def test_two_populations_are_a_case_of_many():
    """And populations are an axis of their own, behind the subjects'."""
    specific = m.SensitiveResistant(jnp.asarray([900.0, 30.0]), jnp.asarray([10.0, 4.0]))
    both = [specific.sensitive_rate, specific.resistant_rate]
    many = m.LotkaVolterra(
        [[900.0, 10.0], [30.0, 4.0]],
        jnp.broadcast_to(jnp.stack(both), (2, 2)),
        jnp.full((2, 2), 1e4),
        jnp.broadcast_to(jnp.asarray([[1.0, 1.0], [6.0, 1.0]]), (2, 2, 2)),
        jnp.broadcast_to(jnp.asarray([0.95, 0.0]), (2, 2)),
        jnp.ones((2, 2)),
    )
    ts = jnp.asarray([[50.0, 200.0, 500.0], [10.0, 20.0, 900.0]])
    history = StepHistory.courses(jnp.asarray([[30.0], [5.0]]), jnp.asarray([[120.0], [600.0]]))
    one, other = RUN(specific, ts, history), RUN(many, ts, history)
    assert other.states.cells.shape == (2, 3, 2)
    np.testing.assert_allclose(variables(one.states), other.states.cells, rtol=1e-7)
    np.testing.assert_allclose(one.burden, other.burden, rtol=1e-7)


@pytest.mark.parametrize(
    "x, y, stable", [(0.3155, 0.0, False), (1.6092, 8.190, True), (0.7598, 267.80, False), (0.1730, 447.13, True)]
)
def test_the_immune_model_rests_where_it_is_known_to(x, y, stable):
    """In the rounded numbers without dimension of the paper."""
    model = m.Kuznetsov(0.0, 0.0, 0.1181, 1.131, 20.19, 0.00311, 0.3743, 1.636, 500.0, 1.0)

    def slope(z):
        rate = model.rate(m.ImmuneState(z[0], z[1]), jnp.zeros(()))
        return np.array([float(rate.effector), float(rate.tumor)])

    found = np.asarray(fsolve(slope, [x, y], xtol=1e-13), float)
    np.testing.assert_allclose(found, [x, y], rtol=5e-4, atol=1e-9)
    step = np.diag(1e-5 * (1.0 + found))
    jacobian = np.stack([(slope(found + h) - slope(found - h)) / (2 * h.sum()) for h in step], axis=1)
    assert (np.linalg.eigvals(jacobian).real.max() < 0) == stable


def test_a_dose_that_acts_at_once_stands_for_the_published_course_of_a_day():
    """Delobel et al.'s system with its drug, waiting compartment and all: six cycles of 5 days of 28."""
    rho1, rho2, tau, psi, a1, a2, b, wait, k = 0.00122, 0.00554, 0.00582, 0.979, 0.513, 0.089, 0.1, 15.0, 8.318

    def slope(t, y):
        s, x, new, p, r, d = y
        ready = wait * new * 0.5 * (1 - np.tanh((d - 0.01) / 0.01))
        return [
            rho1 * s - (psi + a1) * s * d + b * p,
            psi * s * d - tau * x,
            a1 * s * d - ready,
            ready - a2 * p * d - b * p,
            rho2 * r + a2 * p * d,
            -k * d,
        ]

    doses = np.concatenate([28.0 * cycle + np.arange(5.0) for cycle in range(6)])
    days = np.array([27.0, 100.0, 168.0, 400.0])
    stops = sorted({*doses, *days})
    y, now, expected = np.array([40.0, 0, 0, 0, 0, 0]), 0.0, []
    for stop in stops:
        if stop > now:
            y = solve_ivp(slope, (now, stop), y, "LSODA", rtol=1e-8, atol=1e-10).y[:, -1]
        now = stop
        if stop in days:
            expected.append(y[:5].sum())
        y[5] += float(stop in doses)
    model = m.Persister(rho1, rho2, tau, psi, a1, a2, 40.0, b, k)
    found = RUN(model, jnp.asarray(days), None, (jnp.asarray(doses), jnp.ones(doses.size)))
    assert expected[-1] < 0.8 * 40.0
    np.testing.assert_allclose(found.burden, expected, rtol=2e-2)
    np.testing.assert_allclose(found.burden[:3], expected[:3], rtol=5e-3)
