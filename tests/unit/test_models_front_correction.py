"""The lattice correction of fronts: right where it matters, one where it does not, and differentiable everywhere."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.verification.convergence import coarse_front_error
from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.models import Diffusion, GivenDensity, LogisticProliferation, ReactionDiffusion
from tumortwin.models.spatial._reaction_diffusion import DIRECTION_MEAN, _lattice_factor
from tumortwin.params import set_parameters
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule

DIFFUSIVITY, RATE = 0.2, 0.03
LENGTH = float(np.sqrt(DIFFUSIVITY / RATE))


def _line(n: int, spacing: float, correct: bool, rate: float = RATE) -> ReactionDiffusion:
    grid = Grid.from_spacing((n, 1, 1), (spacing, 1.0, 1.0))
    tissue = Tissue(Domain(grid, np.ones(grid.shape, bool)), {"white_matter": np.ones(grid.shape)})
    x = (np.arange(n) + 0.5) * spacing
    start = np.where(x < 8.0 * LENGTH, 1.0, np.exp(-(x - 8.0 * LENGTH) / LENGTH)).reshape(n, 1, 1)
    mechanisms = {
        "diffusion": Diffusion(jnp.asarray(DIFFUSIVITY)),
        "proliferation": LogisticProliferation(jnp.asarray(rate)),
    }
    return ReactionDiffusion(mechanisms, tissue, GivenDensity(jnp.asarray(start)), front_correction=correct)


@pytest.mark.slow
def test_coarse_fronts_run_nearer_to_the_speed_of_fine_ones():
    """On voxels of 1.5 sqrt(D/rho): along an axis, and in the mean over the 26 directions to a voxel's neighbors."""
    plain, corrected = (
        np.asarray([coarse_front_error(1.5, corrected=c, diagonal=d) for d in (1, 2, 3)]) for c in (False, True)
    )
    assert plain[0] > 0.04 and abs(corrected[0]) < 0.03
    mean = np.asarray([6, 12, 8]) / 26
    assert abs(mean @ corrected) < 0.25 * abs(mean @ plain)


def test_the_correction_holds_for_the_mean_direction():
    """The mean over the sphere of the lattice's leading error, sum n_a^4, relative to that along an axis."""
    n = np.random.default_rng(0).standard_normal((400_000, 3))
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    assert np.mean(np.sum(n**4, axis=1)) == pytest.approx(DIRECTION_MEAN, abs=2e-3)


def test_fine_grids_are_left_alone():
    factor = float(_lattice_factor(jnp.full((1, 1, 1), 1.0), jnp.asarray(4e-4))[0, 0, 0])
    assert factor == pytest.approx(1.0 - 0.6e-4 / 6.0, rel=1e-9)


@pytest.mark.parametrize("square", [0.0, 1e-6, 0.00999, 0.01001, 1.0, 100.0, 1e7])
def test_the_factor_and_its_derivative_are_finite_and_right(square):
    def factor(ratio):
        return _lattice_factor(jnp.ones((1, 1, 1)), ratio)[0, 0, 0]

    value, slope = jax.value_and_grad(factor)(jnp.asarray(4.0 * square / DIRECTION_MEAN))
    a = np.sqrt(square)
    expected = 1.0 if a == 0 else 0.0 if a > 700 else a / np.sinh(a)
    assert float(value) == pytest.approx(expected, rel=2e-8, abs=1e-300) and np.isfinite(float(slope))
    closed = _lattice_factor(jnp.zeros((1, 1, 1)), jnp.asarray(square))
    assert float(closed[0, 0, 0]) == 0.0


def test_without_growth_mass_is_still_conserved_and_gradients_are_exact():
    model = _line(24, 1.5 * LENGTH, True)
    still = eqx.filter_jit(lambda m: simulate(m, Schedule(), [0.0, 60.0], FixedSteps(8.0, DIFFUSIVITY)).states.density)
    before, after = np.asarray(still(_line(24, 1.5 * LENGTH, True, rate=0.0))).sum(axis=(1, 2, 3))
    assert after == pytest.approx(before, rel=1e-13)
    paths = ("mechanisms.diffusion.white_matter", "mechanisms.proliferation.rate")

    @jax.jit
    def loss(p):
        moved = set_parameters(model, dict(zip(paths, p, strict=True)))
        out = simulate(moved, Schedule(), [60.0], FixedSteps(8.0, 2 * DIFFUSIVITY), estimate_error=False)
        return jnp.sum(out.states.density**2)

    p = np.array([DIFFUSIVITY, RATE])
    gradient = jax.jit(jax.grad(loss))(jnp.asarray(p))
    for i in range(2):
        h = 1e-4 * p[i]
        steps = [float(loss(jnp.asarray(p + k * h * np.eye(2)[i]))) for k in (1, -1)]
        assert float(gradient[i]) == pytest.approx((steps[0] - steps[1]) / (2 * h), rel=1e-6)


def test_a_field_of_equal_rates_is_the_scalar_and_an_edge_takes_the_mean_of_its_voxels():
    model = _line(8, LENGTH, True)

    def with_rate(values):
        field = jnp.asarray(values).reshape(8, 1, 1)
        return eqx.tree_at(lambda m: m.mechanisms["proliferation"].rate, model, field).relative_faces().x[1:-1, 1, 1]

    np.testing.assert_allclose(with_rate(np.full(8, RATE)), model.relative_faces().x[1:-1, 1, 1], rtol=1e-14)
    stepped = with_rate(np.where(np.arange(8) < 4, RATE, 3 * RATE))
    for face, rate in ((0, RATE), (3, 2 * RATE), (6, 3 * RATE)):
        np.testing.assert_allclose(stepped[face], _line(8, LENGTH, True, rate).relative_faces().x[1, 1, 1], rtol=1e-14)
