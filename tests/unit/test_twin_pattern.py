"""Growth that varies in space: the modes are those of the field they stand for, the solver takes them exactly."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin_case as case

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.models import (
    Diffusion,
    GaussianSeed,
    LogisticProliferation,
    PatternedProliferation,
    ReactionDiffusion,
)
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule
from tumortwin.twin import GliomaSettings, build_problem, dropped_paths
from tumortwin.twin._pattern import smooth_modes

SHAPE, SPACING = (7, 6, 5), (2.0, 3.0, 4.0)
PATH = "mechanisms.proliferation.pattern"


def region():
    inside = np.zeros(SHAPE, bool)
    inside[1:6, 1:5, 1:4] = True
    return inside


def covariance(length, spread):
    places = np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3) * np.asarray(SPACING)
    return spread**2 * np.exp(-0.5 * np.sum((places[:, None] - places[None]) ** 2, axis=-1) / length**2)


def test_enough_modes_are_the_covariance_and_few_never_overstate_it():
    exact = covariance(5.0, 0.3)
    inside = region().ravel()
    left = []
    for count in (3, 12, 60):
        modes = smooth_modes(region(), SPACING, count=count, length=5.0, spread=0.3).reshape(count, -1).astype(float)
        found = modes.T @ modes
        assert (np.diag(found) <= 0.09 * (1 + 1e-5)).all()
        left.append(float(np.abs(found - exact)[np.ix_(inside, inside)].max()))
    assert left[0] > left[1] > left[2] and left[2] < 1e-4 * 0.09


def test_the_modes_are_the_principal_components_on_the_region():
    """Of the exact covariance on the region: its largest eigenvalues, and no other modes carry more of it."""
    inside = region().ravel()
    values = np.linalg.eigvalsh(covariance(5.0, 0.3)[np.ix_(inside, inside)])[::-1]
    modes = smooth_modes(region(), SPACING, count=4, length=5.0, spread=0.3).reshape(4, -1)[:, inside]
    np.testing.assert_allclose(modes @ modes.T, np.diag(values[:4]), atol=1e-5 * values[0])


def patterned(rate=0.05, pattern=(0.7, -1.2, 0.4)):
    modes = jnp.asarray(smooth_modes(region(), SPACING, count=len(pattern), length=5.0, spread=0.3), float)
    return PatternedProliferation(modes, jnp.asarray(rate), jnp.asarray(pattern))


def test_the_rate_has_its_mean_everywhere_over_the_prior():
    draws = np.random.default_rng(0).standard_normal((200_000, 3))
    modes = np.asarray(patterned().modes).reshape(3, -1)
    mean = np.exp(draws @ modes - 0.5 * (modes**2).sum(axis=0)).mean(axis=0)
    np.testing.assert_allclose(mean, 1.0, atol=5e-3)
    one = patterned()
    expected = 0.05 * np.exp(np.asarray([0.7, -1.2, 0.4]) @ modes - 0.5 * (modes**2).sum(axis=0))
    np.testing.assert_allclose(np.asarray(one.local_rate()).ravel(), expected, rtol=1e-12)


def model(growth):
    tissue = Tissue(Domain(Grid.from_spacing(SHAPE, SPACING), np.ones(SHAPE, bool)), {"white_matter": np.ones(SHAPE)})
    mechanisms = {"diffusion": Diffusion(jnp.asarray(0.2)), "proliferation": growth}
    seed = GaussianSeed(jnp.asarray([3.0, 2.5, 2.0]), jnp.asarray(0.3), jnp.asarray(5.0))
    return ReactionDiffusion(mechanisms, tissue, seed, front_correction=True)


@eqx.filter_jit
def grown(growth):
    return simulate(model(growth), Schedule(), (40.0,), FixedSteps(5.0, 0.3), estimate_error=False).states.density


def test_a_pattern_grows_as_the_field_of_rates_it_stands_for():
    one = patterned()
    np.testing.assert_allclose(grown(one), grown(LogisticProliferation(one.local_rate())), rtol=1e-12)
    flat = PatternedProliferation(jnp.zeros_like(one.modes), one.rate, one.pattern)
    np.testing.assert_allclose(grown(flat), grown(LogisticProliferation(jnp.asarray(0.05))), rtol=1e-10)


def test_gradients_with_respect_to_the_pattern_and_through_the_front_correction_are_exact():
    weights = jnp.asarray(np.random.default_rng(1).random((1, *SHAPE)))

    @jax.jit
    def loss(x):
        growth = eqx.tree_at(lambda m: (m.rate, m.pattern), patterned(), (x[0], x[1:]))
        return jnp.sum(weights * grown(growth) ** 2)

    x = np.array([0.05, 0.7, -1.2, 0.4])
    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(x)))
    for i, h in enumerate((1e-5, 1e-3, 1e-3, 1e-3)):
        up, down = (float(loss(jnp.asarray(x + k * h * np.eye(4)[i]))) for k in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / (2 * h), rel=1e-5)


def test_a_pattern_needs_a_second_visit_and_contours():
    one, prior = case.patient(), {**case.prior(), PATH: case.prior()["observation.flair.shift"]}
    settings = GliomaSettings(pattern_modes=4)
    problem = build_problem(one, case.frame(one), case.SOLVER, prior, settings)
    assert problem.prior.shapes[PATH] == (4,)
    assert isinstance(problem.model.proliferation, PatternedProliferation)
    alone = dataclasses.replace(one, scans=one.scans[:1])
    assert "one visit" in dropped_paths(alone, settings, prior)[PATH]
    assert PATH in dropped_paths(one, GliomaSettings(start="seed"), prior)
    assert isinstance(case.problem().model.proliferation, LogisticProliferation)
