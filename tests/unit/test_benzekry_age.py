"""Ages from their posteriors: closed forms of a log-normal one."""

import numpy as np
from scipy import stats

from experiments.benzekry2014.age import answer, grid, log_prior_of


def test_the_estimate_minimizes_the_expected_relative_error():
    spread, center = 0.3, np.log(20.0)
    log_density = stats.norm.logpdf(np.log(grid()), center, spread) - np.log(grid())
    found = answer(log_density + 7.0)
    # p(a)/a of a log-normal is log-normal about exp(center - spread^2)
    np.testing.assert_allclose(found.estimate, 20.0 * np.exp(-(spread**2)), atol=0.2)
    np.testing.assert_allclose(
        [found.low, found.high], 20.0 * np.exp(spread * stats.norm.ppf([0.025, 0.975])), atol=0.3
    )
    mass = np.exp(log_density)
    expected = [np.sum(mass * np.abs(a - grid()) / grid()) for a in grid()]
    assert abs(grid()[int(np.argmin(expected))] - found.estimate) <= 0.25


def test_the_prior_of_the_next_age_is_a_density_that_widens_with_few_animals():
    ages = np.asarray([15.0, 18.0, 20.0, 22.0, 17.0])
    few, many = np.exp(log_prior_of(ages)), np.exp(log_prior_of(np.tile(ages, 20)))
    np.testing.assert_allclose([few.sum() * 0.25, many.sum() * 0.25], 1.0, atol=5e-3)
    at = np.searchsorted(grid(), 40.0)
    assert few[at] > 10 * many[at]
