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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def diffuse(u: Float[Array, "x y z"], faces: Faces, stages: int) -> Float[Array, "x y z"]:
    """One RKL2 step of `du/dt = div(D grad u)` on ringed arrays.

    **Arguments:** `u` ringed density; `faces` ringed conductances *already multiplied* by
    `step * stage_weight(stages)`; `stages` static, from `stage_count` of an upper bound of the diffusivity (a larger
    diffusivity is unstable).
    """
    return diffuse_plain(u, faces, stages)


def _diffuse_forward(u: Array, faces: Faces, stages: int):
    p = _stages(u, faces, stages)
    b = _blend(stages)
    return (1.0 - b) * u + b * p[-1], (p, faces)


def _face_products(q: list[Array], p: list[Array], scales: list[float], axis: int) -> Array:
    """-sum_j scales_j (q_j[i+1] - q_j[i]) (p_j[i+1] - p_j[i]) on the faces along `axis`, zero at the last index."""
    n = p[0].shape[axis]

    def step(x: Array) -> Array:
        return jax.lax.slice_in_dim(x, 1, n, axis=axis) - jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)

    total = -scales[0] * step(q[0]) * step(p[0])
    for scale, left, right in zip(scales[1:], q[1:], p[1:], strict=True):
        total = total - scale * step(left) * step(right)
    widths = [(0, 0)] * 3
    widths[axis] = (0, 1)
    return jnp.pad(_barrier(total), widths)


def _reverse(p: list[Array], faces: Faces, cotangent: Array, stages: int) -> tuple[list[Array], Array]:
    """Cotangents q_0 ... q_s of the Legendre stages (q_0 unused) and that of u.

    The recurrence run backwards; the operator is symmetric, so the kernel is the same.
    """
    b = _blend(stages)
    coefficients = _coefficients(stages)
    c = slice(1, -1)
    q: list[Array] = [jnp.zeros((), cotangent.dtype)] * (stages + 1)
    q[stages] = _barrier(jnp.pad(b * cotangent[c, c, c], 1))
    later = jnp.zeros_like(cotangent)
    for j in range(stages, 1, -1):
        a, _ = coefficients[j - 1]
        _, b_later = coefficients[j] if j < stages else (0.0, 0.0)
        # cotangent of P_{j-1}: a_j (1 + wL) q_j - b_{j+1} q_{j+1}
        q[j - 1] = _barrier(_next(q[j], later, faces, a, b_later))
        later = q[j]
    direct = q[1][c, c, c] + divergence(q[1], faces) - coefficients[1][1] * q[2][c, c, c]
    return q, _barrier(jnp.pad(direct + (1.0 - b) * cotangent[c, c, c], 1))


def _diffuse_backward(stages: int, residual, cotangent: Array):
    p, faces = residual
    q, to_u = _reverse(p, faces, cotangent, stages)
    scales = [a for a, _ in _coefficients(stages)]
    return to_u, Faces(*(_face_products(q[1:], p[:-1], scales, axis) for axis in range(3)))


diffuse.defvjp(_diffuse_forward, _diffuse_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def diffuse_scale(
    u: Float[Array, "x y z"], faces: Faces, log_scale: Float[Array, ""], stages: int
) -> Float[Array, "x y z"]:
    """`diffuse` for callers who differentiate a common factor of the conductances only: half the cost of its adjoint.

    `log_scale` is zero in value; its cotangent is the derivative with respect to the logarithm of a factor common to
    all `faces`,

    $$ \\partial_{\\log k} = \\sum_j \\langle q_j,\\; a_j w L p_{j-1} \\rangle
       = \\sum_j \\langle q_j,\\; p_j + b_j p_{j-2} - a_j p_{j-1} \\rangle, $$

    which the recurrence gives without another stencil. The cotangent of `faces` is NaN, not zero: whoever asks for it
    must use `diffuse`.
    """
    del log_scale
    return diffuse_plain(u, faces, stages)


def _scale_forward(u: Array, faces: Faces, log_scale: Array, stages: int):
    y, (p, _) = _diffuse_forward(u, faces, stages)
    return y, (p, faces, log_scale)


def _scale_backward(stages: int, residual, cotangent: Array):
    p, faces, log_scale = residual
    q, to_u = _reverse(p, faces, cotangent, stages)
    total = q[1] * (p[1] - p[0])
    for j, (a, b) in enumerate(_coefficients(stages)[1:], start=2):
        total = total + q[j] * (p[j] + b * p[j - 2] - a * p[j - 1])
    to_scale = jnp.sum(_barrier(total), dtype=log_scale.dtype)
    return to_u, Faces(*(jnp.full_like(f, jnp.nan) for f in faces)), to_scale


diffuse_scale.defvjp(_scale_forward, _scale_backward)
