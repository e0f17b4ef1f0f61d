"""The network that is shipped: it can be read, is right on anatomies that it never saw, and says no where it should."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin_case
from numpyro.distributions import Normal

from tumortwin.cli_patient import prior_medians
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
    stand_in,
    weight_count,
)
from tumortwin.twin import GliomaSettings, ModelFrame, Twin

PATTERN = "mechanisms.proliferation.pattern"
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


@pytest.mark.slow
def test_it_stands_in_for_the_solver_of_a_patients_own_twin():
    """As `docs/use/surrogates.md` has it, with a prior that asks for growth that differs in space."""
    patient, prior = twin_case.patient(), twin_case.prior() | {PATTERN: Normal(0.0, 1.0)}
    operator, _ = read_surrogate(FOLDER)
    assert isinstance(operator, FnoSurrogate)
    frame = ModelFrame.of_shape(patient, (32, 32, 32), spacing=4.0)
    problem = Twin(patient, frame, operator.solver, prior, GliomaSettings(pattern_modes=0)).problem()
    assert PATTERN not in problem.prior.paths
    fast = stand_in(problem, operator)
    model, _ = problem.bind(prior_medians(problem))
    solved, said = (np.asarray(p.solve(model, (0.0, 30.0))) for p in (problem, fast))
    np.testing.assert_allclose(said, solved, atol=1e-5)  # a made-up brain: flagged, so that the solver answers
    other = Twin.of(patient, operator.solver, prior, GliomaSettings(pattern_modes=0), spacing=4.0)
    with pytest.raises(ValueError, match="of_shape"):
        stand_in(other.problem(), operator)
