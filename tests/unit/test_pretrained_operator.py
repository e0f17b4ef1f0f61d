"""The network that is shipped: it can be read, is right on anatomies that it never saw, and says no where it should."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.cli_train_operator import operator_case
from tumortwin.config import compose
from tumortwin.io import read_surrogate
from tumortwin.surrogates import (
    FnoSurrogate,
    draw_inputs,
    grow_starts,
    hold_operator_against,
    random_design,
    solve_courses,
    weight_count,
)

FOLDER = Path(__file__).resolve().parents[2] / "data" / "pretrained" / "operator_glioma"


@pytest.mark.slow
def test_the_shipped_operator_is_right_where_it_vouches_and_flags_what_is_strange():
    surrogate, _ = read_surrogate(FOLDER)
    assert isinstance(surrogate, FnoSurrogate)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5e6
    assert weight_count(surrogate.networks) <= 1_000_000
    case = operator_case(compose(["surrogate=fno"]).config)
    count = 4
    drawn = draw_inputs(case.template, case.brain, case.variation, case.courses, range(count), (90210,))
    inputs = grow_starts(case.template, drawn, case.solver)
    values = random_design(case.prior, count, key=jax.random.key(90210)).values
    courses = solve_courses(case.template, values, inputs, np.arange(count), case.days, case.solver)
    held = hold_operator_against(surrogate, courses)
    assert held.vouched.sum() >= 3
    assert np.median(held.true_error[:, 1:]) < 0.03  # .008 over a thousand
    bound = np.asarray(surrogate.error.density_bound(jnp.asarray(held.estimate)))
    assert np.mean(held.error[held.vouched] <= bound[held.vouched]) > 0.8
    fast = {**values, "mechanisms.proliferation.rate": np.full(count, 0.24)}
    beyond = solve_courses(case.template, fast, inputs, np.arange(count), case.days, case.solver)
    assert not hold_operator_against(surrogate, beyond).vouched.any()
