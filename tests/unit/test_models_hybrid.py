"""A hybrid is its mechanism until it has learned something, and a model like any other afterwards."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import Normal
from scipy.integrate import solve_ivp

from tests.verification.compartment_cases import FLOWS, RATES, m, network, said, variables
from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.inference import Prior
from tumortwin.params import parameter_units, set_parameters
from tumortwin.solvers import FixedSteps, MovingEdges, path_difference, simulate, simulate_compartment, simulate_moving
from tumortwin.treatments import Course, Schedule, StepHistory

IDENTITY, GRADIENT = 1e-12, 1e-4
DAYS = jnp.asarray([0.0, 2.0, 5.0, 9.0])
RUN = eqx.filter_jit(simulate_compartment)
TRUE: dict = {name: case.model for name, case in {**FLOWS, **RATES}.items() if not name.startswith("hybrid")}


def untrained(mechanism, *, relative=True, outputs=1):
    size = variables(mechanism.initial()).size
    inputs = m.InputRange.of([0.1] * size, [50.0] * size)
    kind = m.RelativeClosure if relative else m.PerCapitaClosure
    return kind(m.Network.create(size, outputs, 6, 2, key=jax.random.key(0)), inputs)


@pytest.mark.parametrize("name", ["treated", "claret", "sensitive and resistant"])
def test_an_untrained_hybrid_equals_its_mechanism(name):
    mechanism = TRUE[name]
    course = StepHistory(jnp.asarray([3.0]), jnp.asarray([0.0, 0.2]))
    doses = (jnp.asarray([2.0, 6.0]), jnp.asarray([0.3, 0.3]))
    expected = RUN(mechanism, DAYS, course, doses).burden
    found = RUN(m.with_closure(mechanism, untrained(mechanism)), DAYS, course, doses)
    assert bool(found.succeeded)
    np.testing.assert_allclose(found.burden, expected, rtol=IDENTITY)


def test_a_closure_on_the_rates_of_a_flow_equals_it_to_the_tolerance_of_the_solver():
    """And exactly as a rate, which is the derivative of the closed form."""
    for name in ("stein", "general bertalanffy"):
        case, state = FLOWS[name], FLOWS[name].model.initial()
        model = m.with_closure(case.model, untrained(case.model, relative=False))
        assert isinstance(model, m.HybridRates)
        slope = variables(model.rate(state, jnp.asarray(0.05)))
        np.testing.assert_allclose(slope, case.slope(variables(state), 0.05), rtol=IDENTITY, atol=1e-15)
    np.testing.assert_allclose(RUN(model, DAYS).burden, RUN(case.model, DAYS).burden, rtol=1e-7)


def test_a_trained_hybrid_does_differ_and_stays_within_its_bound():
    mechanism = m.Exponential(0.1, 5.0)
    closure = m.RelativeClosure(network(1, 1, 3), m.InputRange.of([1.0], [100.0]), 0.5)
    found = np.log(np.asarray(RUN(m.with_closure(mechanism, closure), DAYS).burden)[1:] / 5.0) / np.asarray(DAYS)[1:]
    assert np.all((found > 0.05) & (found < 0.15)) and np.max(np.abs(found - 0.1)) > 1e-3


def test_a_table_of_subjects_shares_one_network():
    """Also where there happen to be as many subjects as weights."""
    closure = m.RelativeClosure(network(1, 1, 3), m.InputRange.of([1.0], [100.0]))
    count = closure.network.weights.size
    starts = jnp.linspace(1.0, 20.0, count)
    table = RUN(m.with_closure(m.Exponential(0.1, starts), closure), jnp.broadcast_to(DAYS, (count, 4))).burden
    one = RUN(m.with_closure(m.Exponential(0.1, starts[7]), closure), DAYS).burden
    np.testing.assert_allclose(table[7], one, rtol=1e-10)


@pytest.mark.slow
def test_fixed_steps_agree_with_steps_that_keep_a_tolerance():
    for name in ("hybrid flow", "hybrid rates"):
        model = RATES[name].model
        tight = RUN(model, DAYS, jnp.asarray(0.1)).burden
        coarse, fine = (RUN(model, DAYS, jnp.asarray(0.1), fixed_steps=n).burden for n in (4, 8))
        off, less = (float(jnp.max(jnp.abs(x / tight - 1.0))) for x in (coarse, fine))
        assert less < 0.1 * off and less < 1e-5


@pytest.mark.parametrize("name", [pytest.param("hybrid flow", marks=pytest.mark.slow), "hybrid rates"])
def test_gradients_through_solver_and_network_against_finite_differences(name):
    model = RATES[name].model
    doses = (jnp.asarray([2.0]), jnp.asarray([0.3]))
    paths = [p for p in parameter_units(model) if not p.endswith("weights")]

    def loss(scales, weights):
        given = {p: s * _at(model, p) for p, s in scales.items()}
        moved = set_parameters(model, {**given, "closure.network.weights": weights})
        return jnp.sum(jnp.log(simulate_compartment(moved, DAYS, jnp.asarray(0.2), doses).burden[1:]))

    ones, weights = {p: jnp.asarray(1.0) for p in paths}, model.closure.network.weights
    by_scale, by_weight = jax.jit(jax.grad(loss, (0, 1)))(ones, weights)
    compiled = jax.jit(loss)
    direction = jnp.sin(jnp.arange(weights.size, dtype=float))
    slope = _central(lambda h: compiled(ones, weights + h * direction))
    assert float(by_weight @ direction) == pytest.approx(slope, rel=GRADIENT)
    for path in paths:
        slope = _central(lambda h, path=path: compiled({**ones, path: 1.0 + h}, weights))
        assert abs(float(by_scale[path]) - slope) < GRADIENT * max(abs(slope), 1e-2), path


@pytest.mark.slow
def test_the_weights_have_a_prior_whose_mode_is_the_mechanism():
    model = m.with_closure(m.Exponential(0.1, 5.0), untrained(m.Exponential(0.1, 5.0)))
    count = model.closure.network.weights.size
    prior = Prior({"closure.network.weights": Normal(0.0, 0.3).expand([count])})
    bound = set_parameters(model, prior.constrain(jnp.zeros(count)))
    np.testing.assert_allclose(RUN(bound, DAYS).burden, RUN(m.Exponential(0.1, 5.0), DAYS).burden, rtol=IDENTITY)
    # The penalty is the prior's own, and at the mode the data can still move the network.
    z = 0.1 * jnp.arange(count)
    penalty = m.weight_penalty(set_parameters(model, prior.constrain(z)).closure.network, 0.3)
    assert float(prior.log_density(jnp.zeros(count)) - prior.log_density(z)) == pytest.approx(float(penalty), rel=1e-9)
    slope = jax.grad(lambda w: RUN(set_parameters(model, {"closure.network.weights": w}), DAYS).burden[-1])
    assert float(jnp.max(jnp.abs(slope(jnp.zeros(count))))) > 0.1


def test_sizes_and_ranges_that_do_not_belong_together_are_refused():
    made = m.Network.create(2, 1, 4, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="17 weights"):
        m.Network(made.origin, 2, 1, 4, 1, made.weights[:5])
    with pytest.raises(ValueError, match="lower < upper"):
        m.InputRange.of([1.0], [0.5])
    model = m.with_closure(m.Exponential(0.1, 5.0), m.RelativeClosure(made, m.InputRange.of([1.0, 1.0], [2.0, 2.0])))
    with pytest.raises(ValueError, match="each of the 1 variables"):
        simulate_compartment(model, DAYS)
    with pytest.raises(ValueError, match="one clock"):
        m.HybridFlow(m.Exponential(0.1, 5.0), m.RelativeClosure(network(2, 2, 0), m.InputRange.of([1.0], [2.0], 1.0)))
    with pytest.raises(ValueError, match="density, white_matter"):
        m.NeuralProliferation(m.LogisticProliferation(jnp.asarray(0.1)), network(1, 1, 0), ("white_matter",))


# --- on a grid ---

SHAPE = (9, 1, 1)
WHITE = np.linspace(0.2, 1.0, 9).reshape(SHAPE)
TISSUE = Tissue(Domain(Grid.from_spacing(SHAPE, (2.0, 1.0, 1.0)), np.ones(SHAPE, bool)), {"white_matter": WHITE})
START = 0.6 * np.exp(-((np.arange(9) - 3.0) ** 2) / 4.0).reshape(SHAPE)
FRACTIONS = Schedule(radiotherapy=Course(jnp.asarray([11.0, 14.0]), jnp.asarray([2.0, 2.0])))
ASKED = (10.0, 40.0)


def grown(proliferation):
    mechanisms = {
        "diffusion": m.Diffusion(jnp.asarray(0.1)),
        "proliferation": proliferation,
        "radiotherapy": m.RadiotherapyResponse(jnp.asarray(0.1), jnp.asarray(10.0)),
    }
    return m.ReactionDiffusion(mechanisms, TISSUE, m.GivenDensity(jnp.asarray(START)))


LOGISTIC = m.LogisticProliferation(jnp.asarray(0.06))
SPOKEN = m.NeuralProliferation(LOGISTIC, network(2, 1, 4), ("white_matter",), jnp.asarray(0.8))
SOLVE = eqx.filter_jit(lambda model, given, step, **how: simulate(model, given, ASKED, FixedSteps(step), **how))


def test_an_untrained_hybrid_on_a_grid_equals_its_mechanism():
    silent = m.NeuralProliferation(LOGISTIC, m.Network.create(1, 1, 6, key=jax.random.key(1)))
    expected, found = (SOLVE(grown(p), FRACTIONS, 4.0, estimate_error=False).states.density for p in (LOGISTIC, silent))
    np.testing.assert_allclose(found, expected, rtol=IDENTITY)


@pytest.mark.slow
def test_a_hybrid_on_a_grid_against_scipy_and_to_second_order_in_time():
    """The order without fractions: one that falls within a step adds an error of first order, which is small."""
    off = []
    for step, estimated in ((10.0, True), (5.0, False)):
        found = SOLVE(grown(SPOKEN), Schedule(), step, estimate_error=estimated)
        off.append(_difference(found.states.density[-1], _on_a_line(())))
        if estimated:  # what is reported is the error of the time step
            assert 0.3 < float(found.error_estimate[-1]) / off[0] < 3.0
    assert off[0] / off[1] > 3.0 and off[1] < 1e-3
    expected = _on_a_line((11.0, 14.0))
    treated = SOLVE(grown(SPOKEN), FRACTIONS, 4.0, estimate_error=False)
    plain = SOLVE(grown(LOGISTIC), FRACTIONS, 4.0, estimate_error=False)
    assert _difference(treated.states.density[-1], expected) < 3e-4
    assert _difference(plain.states.density[-1], expected) > 0.02
    edges = MovingEdges.from_schedule(FRACTIONS, ASKED, max_step=4.0)
    moving = eqx.filter_jit(simulate_moving)(grown(SPOKEN), FRACTIONS, edges)
    assert float(jnp.max(path_difference(treated, moving))) < 2e-3


def test_gradients_on_a_grid_against_finite_differences():
    def mass(weights, rate, bound):
        closure = eqx.tree_at(lambda p: (p.network.weights, p.mechanism.rate, p.bound), SPOKEN, (weights, rate, bound))
        found = simulate(grown(closure), Schedule(), (10.0,), FixedSteps(5.0), estimate_error=False)
        return jnp.log(jnp.sum(found.states.density[-1]))

    at = (SPOKEN.network.weights, jnp.asarray(0.06), jnp.asarray(0.8))
    compiled, slopes = jax.jit(mass), jax.jit(jax.grad(mass, (0, 1, 2)))(*at)
    direction = jnp.sin(jnp.arange(at[0].size, dtype=float))
    assert float(slopes[0] @ direction) == pytest.approx(
        _central(lambda h: compiled(at[0] + h * direction, *at[1:])), rel=GRADIENT
    )
    for k, found in ((1, slopes[1]), (2, slopes[2])):
        moved = lambda h, k=k: compiled(*[x + h * at[k] if i == k else x for i, x in enumerate(at)])  # noqa: E731
        assert float(found * at[k]) == pytest.approx(_central(moved), rel=GRADIENT)


def _on_a_line(fractions: tuple[float, ...]) -> np.ndarray:
    """The last day by SciPy: method of lines with the same faces, the network in NumPy, fractions of 2 Gy as jumps."""
    d = 0.1 * WHITE.ravel()
    face = 2.0 * d[:-1] * d[1:] / (d[:-1] + d[1:]) / 2.0**2

    def slope(_: float, u: np.ndarray) -> np.ndarray:
        flow = face * np.diff(u)
        inputs = 2.0 * np.stack([u, WHITE.ravel()], axis=1) - 1.0
        factor = 1.0 + 0.8 * said(SPOKEN.network, inputs)[:, 0]
        return np.append(flow, 0.0) - np.insert(flow, 0, 0.0) + 0.06 * factor * u * (1 - u)

    u, day = START.ravel(), 0.0
    for until in (*fractions, ASKED[-1]):
        u = solve_ivp(slope, (day, until), u, "LSODA", rtol=1e-9, atol=1e-11).y[:, -1]
        u, day = (u * np.exp(-0.1 * 2.0 * (1 + 2.0 / 10.0)) if until != ASKED[-1] else u), until
    return u


def _difference(found, expected) -> float:
    return float(np.linalg.norm(np.asarray(found).ravel() - expected) / np.linalg.norm(expected))


def _central(function, h: float = 1e-5) -> float:
    return (float(function(h)) - float(function(-h))) / (2 * h)


def _at(model, path):
    node = model
    for name in path.split("."):
        node = getattr(node, name)
    return node
