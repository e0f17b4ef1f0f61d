"""What happens to a table of subjects: order of events, padding, failures, gradients, compilation."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compartment_cases import FLOWS, m, variables
from jaxtyping import Array
from scipy.integrate import solve_ivp

from tumortwin.models import AbstractRates, ImmuneState
from tumortwin.params import parameter
from tumortwin.solvers import RESULTS, simulate_compartment
from tumortwin.treatments import StepHistory

COMPILED = {"count": 0}


def _counted(*args: Any) -> Any:
    COMPILED["count"] += 1
    return simulate_compartment(*args)


RUN = eqx.filter_jit(_counted)


def dishes(start: Any = (0.3, 0.2, 0.1), k: Any = (1.9, 1.5, 1.7)) -> Any:
    return m.RadiotherapyAllee(jnp.asarray(k), 0.98, 0.3, jnp.asarray(start), jnp.asarray([0.06, 0.1, 0.03]))


def lesions(start: Any = (5.0, 50.0, 500.0)) -> Any:
    return m.Treated(m.Gompertz(0.4, 0.05, jnp.asarray(start)), jnp.asarray([0.2, 0.1, 0.3]), 0.06)


def doomed() -> Any:
    start, g, k, m_ = (0.1, 0.3, 0.2), (1.4, 1.2, 1.7), (0.15, 0.3, 0.05), (3.0, 2.2, 3.8)
    rest = ((0.9, 0.95, 0.8), (0.15, 0.06, 0.2), m_, (0.4, 0.3, 1.0), (10.0, 8.0, 12.0))
    return m.DelayedDeath(*(jnp.asarray(x) for x in (start, g, k, *rest)))


TABLES = {"rates": dishes(), "flow": lesions()}
SMOOTH = {**TABLES, "delayed death": doomed()}
TS = jnp.asarray([[0.0, 2.0, 4.0, 9.0], [1.0, 3.0, 5.0, 6.0], [0.5, 2.5, 7.5, 10.0]])
EDGES = jnp.asarray([[1.0, 6.0], [0.0, 4.0], [2.5, 3.0]])
LEVELS = jnp.asarray([[0.0, 0.2, 0.1], [0.3, 0.1, 0.0], [0.0, 0.4, 0.0]])
TIMES = jnp.asarray([[0.0, 1.5, 4.0], [2.0, 3.5, 5.5], [-1.0, 1.0, 30.0]])
DOSES = jnp.asarray([[4.0, 4.0, 4.0], [2.0, 8.0, 0.0], [5.0, 5.0, 5.0]])


def row(model: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i] if leaf.ndim else leaf, model)


def run_table(model: Any) -> Any:
    return RUN(model, TS, StepHistory(EDGES, LEVELS), (TIMES, DOSES))


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_its_rows(kind):
    table = run_table(TABLES[kind])
    assert table.burden.shape == TS.shape and bool(jnp.all(table.succeeded))
    for i in range(3):
        one = RUN(row(TABLES[kind], i), TS[i], StepHistory(EDGES[i], LEVELS[i]), (TIMES[i], DOSES[i]))
        np.testing.assert_allclose(one.burden, table.burden[i], rtol=1e-9)


@pytest.mark.parametrize("kind", TABLES)
def test_padding_changes_nothing(kind):
    plain = run_table(TABLES[kind])
    ts = jnp.concatenate([TS, TS[:, -1:], TS[:, -1:]], axis=1)
    history = StepHistory(
        jnp.concatenate([EDGES, jnp.full((3, 2), jnp.inf)], axis=1),
        jnp.concatenate([LEVELS, jnp.full((3, 2), 7.0)], axis=1),
    )
    times = jnp.concatenate([jnp.full((3, 1), 2.2), TIMES, jnp.full((3, 1), jnp.inf)], axis=1)
    doses = jnp.concatenate([jnp.zeros((3, 1)), DOSES, jnp.zeros((3, 1))], axis=1)
    padded = RUN(TABLES[kind], ts, history, (times, doses))
    np.testing.assert_allclose(padded.burden[:, :4], plain.burden, rtol=1e-8)
    np.testing.assert_array_equal(padded.burden[:, 4:], padded.burden[:, [3, 3]])
    assert bool(jnp.all(padded.succeeded))


def test_a_measurement_on_the_day_of_a_dose_comes_before_it():
    model, ts = lesions(), jnp.broadcast_to(jnp.asarray([2.0, 3.0]), (3, 2))
    at = RUN(model, ts, None, (jnp.full((3, 1), 2.0), jnp.full((3, 1), 2.0))).burden
    none = RUN(model, ts, None, (jnp.full((3, 1), 2.0), jnp.zeros((3, 1)))).burden
    just_before = RUN(model, ts, None, (jnp.full((3, 1), 2.0 - 1e-9), jnp.full((3, 1), 2.0))).burden
    np.testing.assert_array_equal(at[:, 0], none[:, 0])
    np.testing.assert_allclose(just_before[:, 0], none[:, 0] * np.exp(-0.06 * 2.0 * 1.2), rtol=1e-7)
    np.testing.assert_allclose(just_before[:, 1], at[:, 1], rtol=1e-7)
    assert float(jnp.max(at[:, 1] / none[:, 1])) < 0.9


def test_the_days_may_come_in_any_order_and_before_the_start_there_is_nothing():
    model = lesions()
    shuffled = RUN(model, TS[:, ::-1], StepHistory(EDGES, LEVELS), (TIMES, DOSES))
    np.testing.assert_array_equal(shuffled.burden[:, ::-1], run_table(model).burden)
    early = simulate_compartment(model, TS, t0=jnp.asarray([0.0, 1.0, 1.0]))
    assert np.isnan(early.burden).tolist() == [[False] * 4, [False] * 4, [True, False, False, False]]
    assert early.succeeded.tolist() == [True, True, False]
    np.testing.assert_allclose(early.burden[1, 0], 50.0)


def test_a_history_without_edges_is_a_level():
    model = lesions()
    level = jnp.asarray([0.1, 0.0, 0.5])
    plain = simulate_compartment(model, TS, level).burden
    np.testing.assert_array_equal(simulate_compartment(model, TS, StepHistory.constant(level)).burden, plain)
    stepped = StepHistory(jnp.full((3, 1), 3.3), jnp.stack([level, level], axis=1))
    np.testing.assert_allclose(simulate_compartment(model, TS, stepped).burden, plain, rtol=1e-12)


def test_other_values_compile_nothing():
    run_table(dishes())
    before = COMPILED["count"]
    RUN(dishes((0.1, 0.4, 0.2), (1.0, 2.0, 1.1)), TS + 0.3, StepHistory(EDGES + 0.1, LEVELS * 2), (TIMES, DOSES))
    assert COMPILED["count"] == before


def test_a_failure_is_a_value_and_stays_with_its_subject():
    good = run_table(dishes())
    bad = run_table(dishes(k=(jnp.nan, 1.5, 1.7)))
    assert bad.succeeded.tolist() == [False, True, True]
    np.testing.assert_allclose(bad.burden[1:], good.burden[1:], rtol=1e-12)
    endless = run_table(dishes(k=(1.9, 1e9, 1.7)))
    assert (endless.result == RESULTS.max_steps_reached).tolist() == [False, True, False]
    blown = simulate_compartment(m.PowerLaw(1.0, jnp.asarray([0.8, 1.5])), jnp.full((2, 1), 10.0))
    assert (blown.result == RESULTS.nonfinite).tolist() == [False, True]


def test_shapes_that_belong_to_no_table_are_mistakes():
    with pytest.raises(ValueError, match="begin with"):
        simulate_compartment(lesions(), TS[:2])
    with pytest.raises(ValueError, match="one row for all"):
        simulate_compartment(lesions(), TS, None, (TIMES[:2], DOSES[:2]))


class CellsAndDna(AbstractRates):
    """Growing cells and the DNA they shed, which is gone within the hour: a stiff pair."""

    growth_rate: Array = parameter(unit="1/day")
    shedding: Array = parameter(unit="1/day", default=0.2)
    elimination: Array = parameter(unit="1/day", default=3327.1)

    stiff: ClassVar[bool] = True
    reference: ClassVar[str] = "none"

    def initial(self) -> ImmuneState:
        return ImmuneState(jnp.zeros_like(self.growth_rate), jnp.ones_like(self.growth_rate))

    def burden(self, state: ImmuneState) -> Array:
        return state.effector

    def jump(self, state: ImmuneState, dose: Array) -> ImmuneState:
        return ImmuneState(state.effector, state.tumor * jnp.exp(-dose))

    def rate(self, state: ImmuneState, exposure: Array) -> ImmuneState:
        dna, cells = state.effector, state.tumor
        return ImmuneState(
            self.shedding * cells - self.elimination * dna, (self.growth_rate * (1 - cells / 50) - exposure) * cells
        )


def test_a_stiff_model_takes_the_implicit_solver():
    ts = jnp.broadcast_to(jnp.asarray([1.0, 30.0, 60.0]), (2, 3))
    found = RUN(CellsAndDna(jnp.asarray([0.1, 0.3])), ts)
    assert bool(jnp.all(found.succeeded))
    for r, row in zip((0.1, 0.3), variables(found.states), strict=True):
        slope = lambda t, y, r=r: [0.2 * y[1] - 3327.1 * y[0], r * (1 - y[1] / 50) * y[1]]  # noqa: E731
        expected = solve_ivp(slope, (0, 60), [0.0, 1.0], "Radau", ts[0], rtol=1e-10, atol=1e-15).y.T
        np.testing.assert_allclose(row, expected, rtol=1e-6)


def _given(model: Any) -> dict[str, Any]:
    # Away from days on which the loss has a kink: a switch before 0, a dose at a measurement.
    return {
        "parameters": jax.tree.leaves(model), "ts": TS + 0.02, "edges": EDGES + 0.05, "levels": LEVELS,
        "times": TIMES + 0.1, "doses": DOSES,
    }  # fmt: skip


def _weighted(given: dict[str, Any], model: Any) -> Array:
    at = jax.tree.unflatten(jax.tree.structure(model), given["parameters"])
    history, weights = StepHistory(given["edges"], given["levels"]), jnp.asarray([1.0, 2.0, -1.0, 0.5])
    out = simulate_compartment(at, given["ts"], history, (given["times"], given["doses"]))
    return jnp.sum(weights[None] * out.burden)


LOSSES = {kind: jax.jit(lambda given, model=model: _weighted(given, model)) for kind, model in SMOOTH.items()}
SLOPES = {kind: jax.jit(jax.grad(lambda given, model=model: _weighted(given, model))) for kind, model in SMOOTH.items()}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "flow" else pytest.mark.slow) for kind in SMOOTH]
)
def test_gradients_against_central_differences(kind):
    """Of parameters, levels, all days and doses: one direction through all elements of each, Richardson's way."""
    given = _given(SMOOTH[kind])
    slopes = SLOPES[kind](given)
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(given)
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(slopes), strict=True)):
        way = jnp.asarray(rng.uniform(0.5, 1.0, leaf.shape)) * jnp.where(jnp.abs(leaf) > 0, jnp.abs(leaf), 1.0)
        f = [
            float(LOSSES[kind](tree.unflatten([*leaves[:i], leaf + h * way, *leaves[i + 1 :]])))
            for h in (2e-4, -2e-4, 1e-4, -1e-4)
        ]
        expected = (4 * (f[2] - f[3]) / 2e-4 - (f[0] - f[1]) / 4e-4) / 3
        assert abs(expected) > 1e-4, i
        assert float(jnp.sum(slope * way)) == pytest.approx(expected, rel=2e-6), i


@pytest.mark.parametrize("kind", TABLES)
def test_gradients_are_finite_where_segments_have_no_length(kind):
    """Measurements at the start, twice on a day, and on the day of a switch and of a dose; an edge that never comes."""
    row = {"ts": [0.0, 2.0, 2.0, 5.0], "edges": [2.0, jnp.inf], "times": [0.0, 2.0, 2.0], "doses": [1.0, 2.0, 0.0]}
    tied = {name: jnp.broadcast_to(jnp.asarray(x), (3, len(x))) for name, x in row.items()}
    slopes = SLOPES[kind]({**_given(TABLES[kind]), **tied})
    assert all(bool(jnp.all(jnp.isfinite(slope))) for slope in jax.tree.leaves(slopes))
    assert float(jnp.max(jnp.abs(slopes["doses"][:, :2]))) > 0.0
    assert float(jnp.max(jnp.abs(slopes["edges"][:, 1]))) == 0.0


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_of_flows_at_and_near_their_singularities(name):
    case = FLOWS[name]
    leaves, tree = jax.tree.flatten(case.model)
    ts, level = jnp.asarray([0.0, 0.4, 1.0]) * case.days, jnp.asarray(case.exposures[-1])

    @jax.jit
    def last(leaves, ts, level):
        return jnp.sum(simulate_compartment(tree.unflatten(leaves), ts, level).burden)

    given = (leaves, ts, level)
    slopes = jax.jit(jax.grad(last, argnums=(0, 1, 2)))(*given)
    flat, shape = jax.tree.flatten(given)
    for i, (leaf, slope) in enumerate(zip(flat, jax.tree.leaves(slopes), strict=True)):
        assert bool(jnp.all(jnp.isfinite(slope)))
        size = jnp.where(jnp.abs(leaf) > 0, jnp.abs(leaf), 1e-2 if leaf.ndim == 0 else 0.0)
        h = 1e-4
        f = [float(last(*shape.unflatten([*flat[:i], leaf + s * h * size, *flat[i + 1 :]]))) for s in (1, -1, 2, -2)]
        expected = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h)
        assert float(jnp.sum(slope * size)) == pytest.approx(expected, rel=1e-6, abs=1e-8 * abs(f[0])), i
