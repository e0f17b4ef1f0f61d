"""What every compartment model promises: units, a complete docstring, a start, and doses that add up."""

import dataclasses
import inspect
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.verification.compartment_cases import FLOWS, RATES, m, variables
from tumortwin import models
from tumortwin.models.compartment._functions import mean_decay, mean_inverse
from tumortwin.params import parameter_units, set_parameters

CASES = {**FLOWS, **RATES}
CARD = Path(__file__).parents[2] / "docs" / "models" / "compartment.md"


def classes() -> list[type]:
    found = [c for c in vars(models).values() if inspect.isclass(c) and issubclass(c, models.AbstractCompartmentModel)]
    return [c for c in found if not c.__name__.startswith("Abstract")]


def test_every_model_is_verified_and_has_its_row_on_the_card():
    assert {type(case.model) for case in CASES.values()} == set(classes())
    rows = re.findall(r"^\| `(\w+)` \|", CARD.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(c.__name__ for c in classes())


@pytest.mark.parametrize("model", classes(), ids=lambda c: c.__name__)
def test_a_model_is_documented_and_has_units(model):
    doc = inspect.getdoc(model) or ""
    for heading in (
        "$$",
        "**State:**",
        "**Exposure:**",
        "**dose:**",
        "**Arguments:**",
        "**Good values:**",
        "**Reference:**",
    ):
        assert heading in doc, heading
    assert model.reference.removeprefix("doi:") in doc
    for field in dataclasses.fields(model):
        assert "unit" in field.metadata or field.name in ("growth", "mechanism", "closure", "features"), field.name
        assert f"`{field.name}`" in doc, field.name


@pytest.mark.parametrize("name", CASES)
def test_a_model_starts_where_it_says_and_a_dose_of_nothing_is_nothing(name):
    model = CASES[name].model
    state = model.initial()
    assert jax.tree.structure(model.jump(state, jnp.zeros(()))) == jax.tree.structure(state)
    np.testing.assert_array_equal(variables(model.jump(state, jnp.zeros(()))), variables(state))
    expected = np.asarray(CASES[name].jump(variables(state), CASES[name].dose))
    np.testing.assert_allclose(variables(model.jump(state, jnp.asarray(CASES[name].dose))), expected, rtol=1e-12)
    assert expected.tolist() != variables(state).tolist()


def test_parameters_are_addressed_by_path():
    model = m.Treated(m.Logistic(0.1, 100.0), alpha=0.05)
    assert parameter_units(model)["growth.carrying_capacity"] == "mm^3"
    changed = set_parameters(model, {"growth.growth_rate": 0.2, "alpha": 0.1})
    assert isinstance(changed.growth, models.Logistic) and float(changed.growth.growth_rate) == 0.2
    assert jax.tree.structure(changed) == jax.tree.structure(model) and eqx.is_array(changed.alpha)


@pytest.mark.parametrize(
    "function, exact", [(mean_decay, lambda x: -np.expm1(-x) / x), (mean_inverse, lambda x: np.log1p(x) / x)]
)
def test_the_regular_functions_join_smoothly(function, exact):
    x = np.array([-0.5, -0.011, -0.0099, -1e-5, 1e-7, 0.0099, 0.011, 3.0])
    np.testing.assert_allclose(function(jnp.asarray(x)), exact(x), rtol=1e-14)
    assert float(function(jnp.zeros(()))) == 1.0
    slope = jax.vmap(jax.grad(function))
    assert float(slope(jnp.zeros(1))[0]) == -0.5
    sides = slope(jnp.asarray([0.01 - 1e-9, 0.01 + 1e-9, -0.01 + 1e-9, -0.01 - 1e-9]))
    np.testing.assert_allclose(sides[0::2], sides[1::2], rtol=1e-8)
