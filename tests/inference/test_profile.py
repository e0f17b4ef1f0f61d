"""Profile likelihood and Fisher information against closed forms; a pair that one time point cannot split."""

import jax.numpy as jnp
import linear_case as linear
import numpy as np
import pytest
from pair_case import pair
from scipy import stats

from tumortwin.inference import fisher_identifiability, fisher_information, profile_likelihood


def least_squares(given):
    values = np.concatenate([np.asarray(datum.values) for datum in given.data])
    rows = linear.design()
    covariance = linear.NOISE**2 * np.linalg.inv(rows.T @ rows)
    return covariance @ rows.T @ values / linear.NOISE**2, covariance


@pytest.mark.parametrize("index", [0, 1])
def test_the_profile_of_a_linear_model_is_a_parabola(index):
    given = linear.problem()
    best, covariance = least_squares(given)
    name, sd = given.names[index], float(np.sqrt(covariance[index, index]))
    values = best[index] + sd * np.linspace(-4, 4, 17)
    found = profile_likelihood(given, name, values, np.zeros(2))
    np.testing.assert_allclose(found.log_likelihood, -0.5 * ((values - best[index]) / sd) ** 2, atol=1e-5)
    reach = stats.norm.ppf(0.975) * sd
    assert (found.low, found.high) == pytest.approx((best[index] - reach, best[index] + reach), abs=0.03 * sd)
    assert found.identified and "by the data alone" in found.statement


def test_fisher_information_is_that_of_the_design():
    given = linear.problem()
    rows = linear.design() * linear.PRIOR_SD / linear.NOISE
    found = fisher_information(given, np.zeros(2))
    np.testing.assert_allclose(found.information, rows.T @ rows, rtol=1e-6)
    np.testing.assert_allclose(
        found.standard_errors * linear.PRIOR_SD, np.sqrt(np.diag(least_squares(given)[1])), rtol=1e-6
    )
    assert found.unidentified == ()
    said = fisher_identifiability(given, np.zeros(2))
    prior = np.eye(2)
    np.testing.assert_allclose(said.variance_left, np.diag(np.linalg.inv(rows.T @ rows + prior)), rtol=1e-6)
    assert "Every parameter is identified" in said.statement


def test_invasion_and_growth_are_not_identified_by_one_time_point():
    """Known bad: whatever the diffusivity, a growth rate explains one front as well. Known good: two time points."""
    once, twice = pair((0.0,)), pair((0.0, 60.0))
    truth = {"diffusivity": jnp.asarray(0.15), "growth": jnp.asarray(0.02)}
    start = np.asarray(once.prior.unconstrain(truth))
    values = 0.15 * np.exp(np.linspace(-1.5, 1.5, 13))
    for name, center in (("diffusivity", 0.15), ("growth", 0.02)):
        flat = profile_likelihood(once, name, values * center / 0.15, start)
        assert not flat.identified and flat.low == -np.inf and flat.high == np.inf
        np.testing.assert_allclose(flat.log_likelihood, 0.0, atol=1e-4)
        assert f"{name} is not identified: its profile does not fall below nor above" in flat.statement
        sharp = profile_likelihood(twice, name, values * center / 0.15, start)
        assert sharp.identified and sharp.low < center < sharp.high
    lost = fisher_information(once, start)
    assert lost.unidentified == (("diffusivity", "growth"),)
    assert np.isinf(lost.standard_errors).all() or lost.standard_errors.min() > 1e3
    assert "Only jointly identified" in fisher_identifiability(once, start).statement
    found = fisher_information(twice, start)
    assert found.unidentified == () and found.standard_errors.max() < 0.5


def test_a_profile_of_what_is_not_there_is_refused():
    given = linear.problem()
    with pytest.raises(ValueError, match="scalar among offset, slope and increasing values; received: 'slop'"):
        profile_likelihood(given, "slop", [0.0, 1.0], np.zeros(2))
    with pytest.raises(ValueError, match="increasing"):
        profile_likelihood(given, "slope", [1.0, 0.0], np.zeros(2))
