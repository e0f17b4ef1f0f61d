"""One RKL2 super-step of linear diffusion, and its exact adjoint.

For a linear operator the second-order Runge-Kutta-Legendre method collapses to one polynomial,

$$ u^{n+1} = (1 - b) u + b\\,P_s(1 + w\\,\\tau L)\\,u,\\quad
   w = \\frac{4}{s^2+s-2},\\; b = \\frac{s^2+s-2}{2 s (s+1)}, $$

with `P_s` the Legendre polynomial, evaluated by its three-term recurrence: six arrays of traffic a stage. It is stable
for $\\tau\\lambda_{max} \\le (s^2+s-2)/2$, second order, and self-adjoint, so the gradient needs the same kernel.

**Limits:** densities that are smooth over two voxels stay within their bounds; one that is rough voxel by voxel may
undershoot by some percent of the jump in a long step, as with every second-order step (mathematical). The solver
reports that as `negative_density`.

**Reference:** Meyer, Balsara & Aslam, J. Comput. Phys. 257 (2014) 594-626, doi:10.1016/j.jcp.2013.08.021.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.geometry import Faces, divergence
from tumortwin.solvers._reaction import fast_sum


def stage_count(step_times_bound: float) -> int:
    """The least number of stages, at least 2, that is stable for `step * lambda_max` (both static)."""
    return max(2, math.ceil((math.sqrt(9.0 + 8.0 * step_times_bound) - 1.0) / 2.0))


def stage_weight(stages: int) -> float:
    """`w`: what the conductances times the step are to be multiplied with before `diffuse`."""
    return 4.0 / (stages**2 + stages - 2)


def _blend(stages: int) -> float:
    return (stages**2 + stages - 2) / (2.0 * stages * (stages + 1))


def _barrier(x: Array) -> Array:
    # Without it XLA fuses neighbouring unrolled stages into one kernel that recomputes each stage for every neighbour.
    return jax.lax.optimization_barrier(x)


def _first(u: Array, faces: Faces) -> Array:
    c = slice(1, -1)
    return jnp.pad(u[c, c, c] + divergence(u, faces), 1)


def _next(p: Array, q: Array, faces: Faces, a: float, b: float) -> Array:
    c = slice(1, -1)
    return jnp.pad(a * (p[c, c, c] + divergence(p, faces)) - b * q[c, c, c], 1)


def _coefficients(stages: int) -> list[tuple[float, float]]:
    return [((2.0 * j - 1.0) / j, (j - 1.0) / j) for j in range(1, stages + 1)]


def _stages(u: Array, faces: Faces, stages: int) -> list[Array]:
    """P_0 u ... P_s u."""
    p = [u, _barrier(_first(u, faces))]
    for a, b in _coefficients(stages)[1:]:
        p.append(_barrier(_next(p[-1], p[-2], faces, a, b)))
    return p


def diffuse_plain(u: Float[Array, "x y z"], faces: Faces, stages: int) -> Float[Array, "x y z"]:
    """`diffuse` without the hand-written adjoint: differentiable in forward mode too, slow in reverse mode."""
    b = _blend(stages)
    return (1.0 - b) * u + b * _stages(u, faces, stages)[-1]


def diffusion_matrix(step_matrix: Float[Array, "mode mode"], stages: int) -> Float[Array, "mode mode"]:
    """The same polynomial of a small matrix (step * D * projected div grad): one step of diffusion on a few modes."""
    b, one = _blend(stages), jnp.eye(step_matrix.shape[0], dtype=step_matrix.dtype)
    factor = one + stage_weight(stages) * step_matrix
    before, here = one, factor
    for a, c in _coefficients(stages)[1:]:
        before, here = here, a * (factor @ here) - c * before
    return (1.0 - b) * one + b * here


def diffuse(
    u: Float[Array, "x y z"], faces: Faces, stages: int, log_scale: Float[Array, ""] | None = None
) -> Float[Array, "x y z"]:
    """One RKL2 step of `du/dt = div(D grad u)` on ringed arrays.

    **Arguments:** `u` ringed density; `faces` ringed conductances *already multiplied* by
    `step * stage_weight(stages)`; `stages` static, from `stage_count` of an upper bound of the diffusivity (a larger
    diffusivity is unstable); `log_scale` zero in value: carries the derivative with respect to the logarithm of a
    factor common to all `faces` (`log_carrier`), at half the cost of differentiating `faces` themselves.
    """
    return _diffuse(u, faces, jnp.zeros((), u.dtype) if log_scale is None else log_scale, stages)


def log_carrier(factor: Float[Array, ""]) -> Float[Array, ""]:
    """Zero, with the derivative of `log(factor)`. The derivative at a factor of exactly zero is NaN."""
    log = jnp.log(factor)
    return log - jax.lax.stop_gradient(log)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _diffuse(u: Array, faces: Faces, log_scale: Array, stages: int) -> Array:
    del log_scale
    return diffuse_plain(u, faces, stages)


def _diffuse_forward(u: Array, faces: Faces, log_scale: Array, stages: int):
    p = _stages(u, faces, stages)
    b = _blend(stages)
    return (1.0 - b) * u + b * p[-1], (p, faces, log_scale)


def _face_products(q: list[Array], p: list[Array], scales: list[float], axis: int) -> Array:
    """-sum_j scales_j (q_j[i+1] - q_j[i]) (p_j[i+1] - p_j[i]) on the interior faces along `axis`, zero on the ring."""
    here, there = [slice(1, -1)] * 3, [slice(1, -1)] * 3
    there[axis] = slice(2, None)

    def step(x: Array) -> Array:
        return x[tuple(there)] - x[tuple(here)]

    total = -scales[0] * step(q[0]) * step(p[0])
    for scale, left, right in zip(scales[1:], q[1:], p[1:], strict=True):
        total = total - scale * step(left) * step(right)
    return jnp.pad(total, 1)


def _reverse(faces: Faces, cotangent: Array, stages: int) -> list[Array]:
    """Cotangents of the Legendre stages 1 ... s, over the blend's weight: the recurrence run backwards."""
    coefficients = _coefficients(stages)
    c = slice(1, -1)
    q: list[Array] = [cotangent] * stages
    for j in range(stages - 1, 0, -1):
        # cotangent of P_j: a_{j+1} (1 + wL) q_{j+1} - b_{j+2} q_{j+2}
        a, _ = coefficients[j]
        if j == stages - 1:
            q[j - 1] = _barrier(jnp.pad(a * (q[j][c, c, c] + divergence(q[j], faces)), 1))
        else:
            q[j - 1] = _barrier(_next(q[j], q[j + 1], faces, a, coefficients[j + 1][1]))
    return q


def _diffuse_backward(stages: int, residual, cotangent: Array):
    # The three cotangents share little, so that each costs nothing where it is not used (dead code to the compiler).
    p, faces, log_scale = residual
    b = _blend(stages)
    # The operator is symmetric: its transpose is the same polynomial.
    turned = _stages(cotangent, faces, stages)
    to_u = (1.0 - b) * cotangent + b * turned[-1]
    to_scale = (b * _along_operator(turned, faces, p[0])).astype(log_scale.dtype)
    q = _reverse(faces, cotangent, stages)
    scales = [b * a for a, _ in _coefficients(stages)]
    to_faces = Faces(*(_face_products(q, p[:-1], scales, axis) for axis in range(3)))
    return to_u, to_faces, to_scale


def _along_operator(p: list[Array], faces: Faces, u: Array) -> Array:
    """The derivative of `<p_0, P_s(1 + k w L) u>` with respect to log k at k = 1, from the stages `p` of `p_0`.

    $$ P_s' = (2s-1) P_{s-1} + (2s-5) P_{s-3} + \\dots \\;\\Rightarrow\\;
       \\partial_{\\log k} = \\langle \\textstyle\\sum_j (2j+1) P_j p_0,\\; w L u \\rangle $$

    One stencil more than the step itself, and no stage of `u`.
    """
    last = len(p) - 2
    total = (2.0 * last + 1.0) * p[last]
    for j in range(last - 2, -1, -2):
        total = total + (2.0 * j + 1.0) * p[j]
    return fast_sum(jnp.pad(divergence(u, faces), 1) * total)


_diffuse.defvjp(_diffuse_forward, _diffuse_backward)
