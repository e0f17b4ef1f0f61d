"""The derivative with respect to a common factor of all conductances has its own adjoint: it must be the same one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tumortwin.geometry import Domain, Faces, Grid, Tissue, add_ring, face_conductances
from tumortwin.models import (
    Diffusion,
    DrugResponse,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
)
from tumortwin.params import as_parameter
from tumortwin.solvers import FixedSteps, diffuse, simulate
from tumortwin.solvers._reaction import fast_sum
from tumortwin.solvers._rkl import diffuse_plain, log_carrier, stage_weight
from tumortwin.treatments import Course, Schedule

SHAPE, BOUND = (6, 7, 5), 0.5
RANDOM = np.random.default_rng(5)
MASK = RANDOM.random(SHAPE) < 0.8
WHITE = RANDOM.random(SHAPE) * MASK
DOMAIN = Domain(Grid.from_spacing(SHAPE, (2.0, 1.5, 3.0)), MASK)
TISSUE = Tissue(DOMAIN, {"white_matter": WHITE, "gray_matter": MASK - WHITE})
START = RANDOM.random(SHAPE) * MASK
WEIGHTS = jnp.asarray(RANDOM.random(SHAPE))


@pytest.mark.parametrize("stages", [2, 5])
def test_the_scale_of_the_conductances_has_the_derivative_of_the_conductances(stages):
    faces = face_conductances(jnp.asarray(RANDOM.uniform(0.05, 0.6, SHAPE)), DOMAIN).scaled(stage_weight(stages))
    u, target = add_ring(jnp.asarray(START)), add_ring(WEIGHTS)

    def carried(k):
        held = jax.lax.stop_gradient(k)
        return jnp.sum(target * diffuse(u, faces.scaled(held), stages, log_carrier(k)) ** 2)

    def in_faces(k, kernel):
        return jnp.sum(target * kernel(u, faces.scaled(k), stages) ** 2)

    k = as_parameter(0.7)
    expected = jax.jacfwd(lambda k: in_faces(k, diffuse_plain))(k)
    np.testing.assert_allclose(float(jax.jit(jax.grad(carried))(k)), float(expected), rtol=1e-12)
    np.testing.assert_allclose(float(jax.jit(jax.grad(lambda k: in_faces(k, diffuse)))(k)), float(expected), rtol=1e-12)


def test_the_scale_and_the_conductances_may_be_differentiated_together():
    faces = face_conductances(jnp.asarray(RANDOM.uniform(0.05, 0.6, SHAPE)), DOMAIN).scaled(stage_weight(4))
    u = add_ring(jnp.asarray(START))

    def loss(f, k):
        held = jax.lax.stop_gradient(k)
        return jnp.sum(diffuse(u, f.scaled(held), 4, log_carrier(k)) ** 2)

    to_faces, to_scale = jax.jit(jax.grad(loss, (0, 1)))(faces, as_parameter(0.7))
    along = sum(float(jnp.sum(a * b)) for a, b in zip(to_faces, faces, strict=True))
    assert isinstance(to_faces, Faces) and float(to_scale) * 0.7 == pytest.approx(along, rel=1e-12)


def _solution(p, *, forward_mode=False):
    """A weighted sum of u^2 for diffusivity, grey ratio, rate, alpha, sensitivity, dose and time shift of fractions."""
    mechanisms = {
        "diffusion": Diffusion(p[0], p[1]),
        "proliferation": LogisticProliferation(p[2] * jnp.asarray(1.0 + 0.5 * WHITE)),
        "radiotherapy": RadiotherapyResponse(p[3]),
        "chemotherapy": DrugResponse(p[4]),
    }
    model = ReactionDiffusion(mechanisms, TISSUE, GivenDensity(jnp.asarray(START)))
    drug = {"temozolomide": Course(jnp.asarray([7.9, 8.9]), jnp.asarray([1.0, 0.5]))}
    times = jnp.asarray([8.2, 9.7, 13.1])
    schedule = Schedule(Course(times + p[6], p[5] * jnp.asarray([1.0, 0.8, 1.3])), drug)
    out = simulate(model, schedule, (24.0,), FixedSteps(8.0, BOUND), estimate_error=False, forward_mode=forward_mode)
    return jnp.sum(WEIGHTS * out.states.density[-1] ** 2)


AT = jnp.asarray([0.3, 0.2, 0.05, 0.06, 0.4, 2.0, 0.15])


def test_with_a_rate_that_varies_in_space_every_gradient_is_that_of_forward_mode():
    reverse = jax.jit(jax.grad(_solution))(AT)
    forward = jax.jit(jax.jacfwd(lambda p: _solution(p, forward_mode=True)))(AT)
    np.testing.assert_allclose(np.asarray(reverse), np.asarray(forward), rtol=1e-10)


def test_the_fast_sum_is_the_sum():
    x = RANDOM.normal(size=(9, 4, 11))
    assert float(fast_sum(jnp.asarray(x))) == pytest.approx(float(x.sum()), rel=1e-12)
    assert float(jax.vmap(fast_sum)(jnp.asarray(x)[None])[0]) == pytest.approx(float(x.sum()), rel=1e-12)
