"""Bounds and domains hold what they promise, and say no where they should."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from surrogate_case import prior

from tumortwin.inference import Prior
from tumortwin.surrogates import (
    ErrorModel,
    ParameterDomain,
    conformal_quantile,
    coverage_range,
    random_design,
    sobol_design,
)

DIFFUSIVITY = "mechanisms.diffusion.white_matter"


@pytest.mark.parametrize("n, level, place", [(19, 0.95, 19), (99, 0.95, 95), (100, 0.9, 91), (39, 0.5, 20)])
def test_the_bound_is_the_order_statistic(n, level, place):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert conformal_quantile(scores, level) == place


def test_too_few_cases_bound_nothing_and_a_nan_is_an_error():
    assert conformal_quantile(np.ones(18), 0.95) == math.inf
    assert conformal_quantile(np.append(np.ones(30), np.inf), 0.9) == 1.0
    for bad in (np.asarray([1.0, np.nan]), np.zeros(0)):
        with pytest.raises(ValueError, match="without NaN"):
            conformal_quantile(bad, 0.5)
    with pytest.raises(ValueError, match="at least 19 cases"):
        coverage_range(18, 0.95)


def test_coverage_is_that_of_theory_and_a_bound_from_the_training_set_is_short():
    """Marginal coverage k/(n+1), its spread Beta(k, n+1-k); in-sample residuals of an overfit cover too little."""
    random, n, level, repeats = np.random.default_rng(1), 60, 0.9, 4000
    scores = random.standard_cauchy((repeats, n))
    bounds = np.asarray([conformal_quantile(row, level) for row in scores])
    covered = 0.5 + np.arctan(bounds) / np.pi  # exact coverage of each bound: the Cauchy distribution function
    assert abs(covered.mean() - 55 / 61) < 4 * covered.std() / math.sqrt(repeats)
    low, high = coverage_range(n, level)
    assert abs(np.mean((covered >= low) & (covered <= high)) - 0.95) < 0.015
    shares = []
    for x, y in zip(random.normal(size=(50, 2, 20, 12)), random.normal(size=(50, 2, 20)), strict=True):
        fit = np.linalg.lstsq(x[0], y[0], rcond=None)[0]  # 12 coefficients from 20 points of noise
        shares.append(abs(y[1] - x[1] @ fit) <= conformal_quantile(abs(y[0] - x[0] @ fit), 0.9))
    assert np.mean(shares) < 0.75


def test_few_of_what_is_expected_are_flagged_and_what_lies_elsewhere_is():
    wide, key = prior(), jax.random.key(0)
    domain = ParameterDomain.of(
        sobol_design(wide, 256, seed=0).values, random_design(wide, 1000, key=key).values, level=0.95
    )
    asked = random_design(wide, 3000, key=jax.random.key(9)).values
    inside = np.asarray(jax.vmap(domain.contains)({p: jnp.asarray(v) for p, v in asked.items()}))
    assert 0.93 <= inside.mean() <= 0.99
    other = {p: jnp.asarray(v) * (4.0 if p == DIFFUSIVITY else 1.0) for p, v in asked.items()}
    assert np.asarray(jax.vmap(domain.contains)(other)).mean() < 0.05
    for bad in (np.nan, -1.0, np.inf):
        assert not bool(domain.contains({p: jnp.asarray(bad if p == DIFFUSIVITY else v[0]) for p, v in asked.items()}))


def test_a_surrogate_of_half_the_range_flags_the_other_half():
    wide = prior()
    every = sobol_design(wide, 512, seed=0).values
    middle = np.median(every[DIFFUSIVITY])
    half = {p: v[every[DIFFUSIVITY] < middle] for p, v in every.items()}
    drawn = random_design(wide, 4000, key=jax.random.key(1)).values
    lower = {p: v[drawn[DIFFUSIVITY] < middle] for p, v in drawn.items()}
    domain = ParameterDomain.of(half, lower, level=0.95)
    upper = {p: jnp.asarray(v[drawn[DIFFUSIVITY] > 1.02 * middle]) for p, v in drawn.items()}
    assert 1.0 - np.asarray(jax.vmap(domain.contains)(upper)).mean() >= 0.95


def test_a_domain_of_other_parameters_or_of_signs_is_refused():
    values = random_design(prior(), 8, key=jax.random.key(0)).values
    with pytest.raises(ValueError, match="at least 799 expected points"):
        ParameterDomain.of(values, values)
    with pytest.raises(ValueError, match="same parameters"):
        ParameterDomain.of(values, {DIFFUSIVITY: values[DIFFUSIVITY]})
    with pytest.raises(ValueError, match="positive"):
        ParameterDomain.of({**values, DIFFUSIVITY: -values[DIFFUSIVITY]}, values)


def test_a_design_follows_the_prior_and_grows_without_moving():
    wide = prior()
    small, large = sobol_design(wide, 64, seed=4), sobol_design(wide, 128, seed=4, anatomies=3, schedules=2)
    for path in wide.paths:
        assert np.array_equal(small.values[path], large.values[path][:64])
        shares = [(large.values[path] < float(wide.quantile(level)[path])).mean() for level in (0.25, 0.5, 0.75)]
        assert np.allclose(shares, [0.25, 0.5, 0.75], atol=1e-12)  # a balanced net: exactly
    assert set(large.anatomy) == {0, 1, 2} and set(large.schedule) == {0, 1} and not small.anatomy.any()
    vector = Prior({"x": wide.distributions[DIFFUSIVITY].expand((2,))})
    with pytest.raises(ValueError, match="vectors"):
        sobol_design(vector, 4, seed=0)


def test_bounds_hold_for_new_cases_at_all_days_together():
    random, days = np.random.default_rng(2), 5

    def cases(n):
        estimate = np.exp(random.normal(-5.0, 1.0, (n, days)))
        error = estimate * np.exp(random.normal(-1.0, 0.5, (n, days)))
        ours = np.exp(random.normal(8.0, 1.0, (n, days)))
        theirs = ours + error * (ours + ours[:, :1]) * random.normal(size=(n, days))
        return estimate, error, ours, theirs

    before = ErrorModel.uncalibrated(("mass",), 0.9, 0.1, 8.0)
    assert np.isinf(np.asarray(before.density_bound(jnp.ones(2)))).all()
    estimate, error, ours, theirs = cases(2000)
    after = before.calibrated(estimate, error, {"mass": (ours, theirs)})
    estimate, error, ours, theirs = cases(4000)
    kept = (error <= np.asarray(after.density_bound(jnp.asarray(estimate)))).all(axis=1)
    of_case = jax.vmap(lambda e, v: after.quantity_bound("mass", e, v, v[0]))
    bound = np.asarray(of_case(jnp.asarray(estimate), jnp.asarray(ours)))
    assert 0.88 <= kept.mean() <= 0.92
    assert 0.88 <= (abs(theirs - ours) <= bound).all(axis=1).mean() <= 0.92
    np.testing.assert_allclose(after.case_bounds("mass", estimate, ours), bound)
    with pytest.raises(ValueError, match="NaN"):
        before.calibrated(estimate * np.nan, error, {"mass": (ours, theirs)})
    with pytest.raises(ValueError, match="mass"):
        before.calibrated(estimate, error, {})


def test_a_volume_of_which_nothing_is_seen_is_bounded_too():
    """A third of the cases have no volume by the surrogate, on any day, and some by the model."""
    random = np.random.default_rng(3)

    def cases(n):
        ours = np.where(random.uniform(size=(n, 1)) < 0.3, 0.0, np.exp(random.normal(8.0, 1.0, (n, 3))))
        theirs = np.where(
            ours == 0.0, random.uniform(0.0, 40.0, (n, 3)), ours * (1.0 + 0.1 * random.normal(size=(n, 3)))
        )
        theirs[:, 0] = ours[:, 0]
        return np.full((n, 3), 0.05), np.full((n, 3), 0.01), ours, theirs

    estimate, error, ours, theirs = cases(2000)
    after = ErrorModel.uncalibrated(("v",), 0.9, 0.1, 8.0).calibrated(estimate, error, {"v": (ours, theirs)})
    estimate, _, ours, theirs = cases(4000)
    covered = (abs(theirs - ours) <= after.case_bounds("v", estimate, ours)).all(axis=1)
    assert 0.88 <= covered.mean() <= 0.92
