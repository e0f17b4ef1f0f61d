"""Linear-quadratic radiobiology: survival, biologically effective dose (BED) and its equivalent in 2 Gy fractions.

Pure functions of arrays, with gradients with respect to every argument. Doses are Gy a fraction, `alpha` is 1/Gy,
`alpha_beta` is the ratio alpha/beta in Gy.

**Good values:** alpha 0.03-0.1 /Gy and alpha/beta 10 Gy for high-grade glioma; alpha/beta 3 Gy for late-responding
normal tissue, 2 Gy for brain necrosis.

**Limits:** dose a fraction below about 6-8 Gy (mathematical: the quadratic term overstates kill beyond); complete
repair between fractions (convenience).

**Reference:** Fowler, "The linear-quadratic formula and progress in fractionated radiotherapy", Br J Radiol 62 (1989).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin._types import ScalarLike

STANDARD_FRACTION = 2.0
"""Dose a fraction [Gy] to which EQD2 refers."""


def log_kill(dose: Float[Array, "*fraction"], alpha: ScalarLike, alpha_beta: ScalarLike) -> Float[Array, "*fraction"]:
    """Negative log survival of one fraction, -ln S = alpha d + beta d^2 with beta = alpha / (alpha/beta)."""
    return alpha * dose * (1.0 + dose / alpha_beta)


def survival(dose: Float[Array, "*fraction"], alpha: ScalarLike, alpha_beta: ScalarLike) -> Float[Array, "*fraction"]:
    """Surviving fraction of one fraction, S = exp(-alpha d - beta d^2)."""
    return jnp.exp(-log_kill(dose, alpha, alpha_beta))


def biologically_effective_dose(doses: Float[Array, " fraction"], alpha_beta: ScalarLike) -> Float[Array, ""]:
    """BED [Gy] of a course, sum_i d_i (1 + d_i / (alpha/beta)). 30 x 2 Gy: 72 Gy at 10, 100 Gy at 3."""
    return jnp.sum(doses * (1.0 + doses / alpha_beta))


def equivalent_dose_2gy(doses: Float[Array, " fraction"], alpha_beta: ScalarLike) -> Float[Array, ""]:
    """EQD2 [Gy]: the total dose in 2 Gy fractions with the same BED, BED / (1 + 2 / (alpha/beta))."""
    return biologically_effective_dose(doses, alpha_beta) / (1.0 + STANDARD_FRACTION / alpha_beta)


def repopulated_dose(
    doses: Float[Array, " fraction"],
    alpha: ScalarLike,
    alpha_beta: ScalarLike,
    overall_time: ScalarLike,
    kick_off_time: ScalarLike,
    doubling_time: ScalarLike,
) -> Float[Array, ""]:
    """BED [Gy] less what repopulation gives back: BED - ln 2 max(T - T_k, 0) / (alpha T_d), all times in days."""
    regrowth = jnp.log(2.0) * jnp.maximum(overall_time - kick_off_time, 0.0) / (alpha * doubling_time)
    return biologically_effective_dose(doses, alpha_beta) - regrowth
