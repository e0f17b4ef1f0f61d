"""Prior and problem: paths, transforms, missing visits, failures, the least-squares form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_case as linear
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from tumortwin.inference import Prior, Problem, central_difference_jacobian
from tumortwin.inference._linearize import linearize as eager_linearize
from tumortwin.inference._map import compressed_residuals
from tumortwin.observation import AdcObservation, Datum

linearize = eqx.filter_jit(eager_linearize)
PRIORS = {
    "normal": dist.Normal(2.0, 3.0),
    "lognormal": dist.LogNormal(-1.0, 0.5),
    "uniform": dist.Uniform(0.2, 0.9),
    "gamma": dist.Gamma(3.0, 2.0),
    "half_normal": dist.HalfNormal(0.4),
    "truncated": dist.TruncatedNormal(0.1, 0.05, low=0.04, high=0.5),
    "vector": dist.Normal(0.0, 2.0).expand([3]),
}


def test_the_density_of_the_coordinates_integrates_to_one_and_peaks_at_zero():
    for name, entry in PRIORS.items():
        prior = Prior({name: entry})
        if prior.size > 1:
            continue
        grid = np.linspace(-30, 30, 20_001)
        log_density = jax.jit(jax.vmap(prior.log_density))(jnp.asarray(grid)[:, None])
        assert np.trapezoid(np.exp(log_density), grid) == pytest.approx(1.0, abs=2e-4), name
        assert abs(grid[np.argmax(log_density)]) < 0.01, name
        assert float(prior.curvature(jnp.zeros(1))[0]) == pytest.approx(1.0, rel=1e-6), name


def test_normal_and_lognormal_priors_are_standard_normal_in_the_coordinates():
    prior = Prior({name: PRIORS[name] for name in ("normal", "lognormal", "vector")})
    z = jnp.asarray([0.3, -1.2, 0.5, 2.0, -0.1])
    assert prior.names == ("lognormal", "normal", "vector[0]", "vector[1]", "vector[2]")
    assert float(prior.log_density(z)) == pytest.approx(stats.norm.logpdf(np.asarray(z)).sum(), rel=1e-10)
    back = prior.unconstrain(prior.constrain(z))
    np.testing.assert_allclose(back, z, atol=1e-10)


def test_the_probability_of_draws_is_that_of_scipy_in_the_parameters_themselves():
    prior = Prior({"a": dist.LogNormal(0.5, 0.3), "b": dist.Uniform(1.0, 3.0), "c": dist.Normal(0.0, 2.0).expand([2])})
    drawn = prior.sample((5,), key=jax.random.key(1))
    a, c = np.asarray(drawn["a"]), np.asarray(drawn["c"])
    expected = (
        stats.lognorm.logpdf(a, 0.3, scale=np.exp(0.5)) + np.log(0.5) + stats.norm.logpdf(c, 0.0, 2.0).sum(axis=1)
    )
    np.testing.assert_allclose(prior.log_probability(drawn), expected, rtol=1e-12)
    alone = prior.log_probability({"a": drawn["a"], "unknown": drawn["a"]})
    np.testing.assert_allclose(alone, stats.lognorm.logpdf(a, 0.3, scale=np.exp(0.5)), rtol=1e-12)


def test_unknown_paths_and_shapes_are_named():
    given = linear.problem()
    for path, message in (("slop", "slope"), ("observation.image.noise", "observation.image.noise_sd")):
        with pytest.raises(KeyError, match=message):
            Problem(given.model, given.observations, Prior({path: dist.Normal(0.0, 1.0)}), given.data, linear.solve)
    with pytest.raises(ValueError, match="shape"):
        vector = Prior({"slope": dist.Normal(0.0, 1.0).expand([2])})
        Problem(given.model, given.observations, vector, given.data, linear.solve)
    with pytest.raises(ValueError, match="observation for channel 'flair'"):
        Problem(given.model, given.observations, given.prior, (Datum(0.0, "flair", np.ones(5)),), linear.solve)
    with pytest.raises(ValueError, match="univariate"):
        Prior({"slope": dist.Poisson(2.0)})


def test_a_missing_visit_and_invalid_voxels_are_the_same_as_no_data():
    given = linear.problem()
    fewer = Problem(given.model, given.observations, given.prior, given.data[:2] + given.data[3:], linear.solve)
    values = np.asarray(given.data[2].values).copy()
    valid = np.zeros(5)
    valid[0] = 1.0
    values[1:] = np.nan
    masked = Datum(2.5, "image", values, valid)
    partly = Problem(given.model, given.observations, given.prior, (*fewer.data, masked), linear.solve)
    z = jnp.asarray([0.2, 0.7])
    eta = linear.solve(linear.Line(*given.prior.constrain(z).values()), (2.5,))[0, 0]
    extra = stats.norm.logpdf(values[0], float(eta), linear.NOISE)
    assert float(partly.log_density(z)) == pytest.approx(float(fewer.log_density(z)) + extra, rel=1e-10)
    assert np.isfinite(jax.jit(jax.grad(partly.log_density))(z)).all()
    assert fewer.days == (0.0, 1.0, 4.0)


def test_a_failed_solve_has_probability_zero():
    given = linear.problem()

    def failing(model, days):
        return jnp.where(model.slope > 0, jnp.nan, linear.solve(model, days))

    problem = Problem(given.model, given.observations, given.prior, given.data, failing)
    good, bad = ({"offset": jnp.asarray(0.0), "slope": jnp.asarray(s)} for s in (-1.0, 1.0))
    assert np.isfinite(problem.log_density(given.prior.unconstrain(good)))
    assert float(problem.log_density(given.prior.unconstrain(bad))) == -np.inf
    assert float(problem.log_likelihood(bad)) == -np.inf


def test_central_differences_agree_with_automatic_ones():
    def fn(z):
        return jnp.stack([jnp.sin(z[0]) * z[1], jnp.exp(0.3 * z[1]), z[0] ** 2])

    z = jnp.asarray([0.4, -0.9])
    jacobian = central_difference_jacobian(fn, z, 1e-4)
    np.testing.assert_allclose(jacobian, jax.jacfwd(fn)(z).T, atol=1e-8)
    some = central_difference_jacobian(fn, z, 1e-4, np.asarray([1]))
    np.testing.assert_array_equal(some, jacobian[1:])


def test_the_compressed_residuals_stand_for_the_whole_problem():
    """Half their square is the loss plus the offset, J^T rho its gradient (a free noise scale included)."""
    given = linear.problem()
    prior = Prior({**given.prior.distributions, "observation.image.noise_sd": dist.LogNormal(-1.0, 0.5)})
    problem = Problem(given.model, {"image": linear.build(AdcObservation, 0.3)}, prior, given.data, linear.solve)
    z = jnp.asarray([0.3, 0.2, -0.4])
    local = linearize(problem, z, step=1e-3)
    np.testing.assert_allclose(local.gradient, jax.jit(jax.grad(problem.log_density))(z), rtol=1e-5)
    hessian = local.observed + jnp.diag(local.curvature)
    rho, jacobian = compressed_residuals(-local.log_density, -local.gradient, hessian, jnp.asarray(1e3), 1e-6)
    assert float(jnp.sum(rho**2) / 2) == pytest.approx(1e3 - float(problem.log_density(z)), rel=1e-10)
    np.testing.assert_allclose(jacobian.T @ rho, -local.gradient, rtol=1e-8)
    np.testing.assert_allclose(jacobian.T @ jacobian, hessian, rtol=1e-8)


def test_information_is_the_expected_hessian():
    """For a linear Gaussian model with known noise the Fisher information is minus the Hessian, exactly."""
    problem = linear.problem(weight=0.4)
    local = linearize(problem, jnp.asarray([0.1, 0.5]))
    hessian = -jax.hessian(lambda z: problem.log_density(z) - problem.log_prior(z))(jnp.asarray([0.1, 0.5]))
    np.testing.assert_allclose(local.information, hessian, rtol=1e-7)
