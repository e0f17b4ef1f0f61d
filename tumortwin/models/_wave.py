"""The least-speed front of Fisher and Kolmogorov: how the density falls from a tumor's inside to beyond what is seen.

$$ U'' + 2 U' + U (1 - U) = 0, \\qquad U(-\\infty) = 1,\\; U(\\infty) = 0, $$

in lengths of sqrt(D/rho); place 0 is where U = 1/2. The logit of U falls by sqrt(2) - 1 a length far behind the front,
by .49 in its middle, and only slowly approaches 1 a length ahead of it (U ~ x exp(-x)): .75 at U = .02. An outline of
visible tumor lies where the front is half as steep as its far tail.

With $s_- = \\sqrt 2 - 1$,

$$ \\mathrm{logit}\\,U(x) \\approx -s_- x
   - (s_+ - s_-)\\, w \\left[\\mathrm{softplus}\\tfrac{x - x_0}{w} - \\mathrm{softplus}\\tfrac{-x_0}{w}\\right] $$

within .025 of the exact logit between -12 and 8 (a test integrates the equation). Young tumors fall off faster still.

**Reference:** Murray, Mathematical Biology I (2002), section 13.2 (the equation, its least-speed front and the slope).
"""

import math

import jax
from jaxtyping import Array, Float

BEHIND = math.sqrt(2.0) - 1.0  # slope of the logit far behind the front, exact
# Fitted to the exact wave by least squares in the logit between -12 and 8.
_AHEAD, _BEND, _WIDTH = 0.90816, 4.43424, 2.50982
_ZERO = math.log1p(math.exp(-_BEND / _WIDTH))
_NEWTON_STEPS = 8


def wave_logit(place: Float[Array, "..."]) -> Float[Array, "..."]:
    """logit U at a place [lengths]."""
    bend = jax.nn.softplus((place - _BEND) / _WIDTH) - _ZERO
    return -(BEHIND * place + (_AHEAD - BEHIND) * _WIDTH * bend)


def wave_place(level: Float[Array, "..."]) -> Float[Array, "..."]:
    """The place [lengths] at which logit U is `level`: the inverse of `wave_logit`, by Newton's method."""

    def step(_: Array, place: Array) -> Array:
        slope = -(BEHIND + (_AHEAD - BEHIND) * jax.nn.sigmoid((place - _BEND) / _WIDTH))
        return place - (wave_logit(place) - level) / slope

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, -2.0 * level)
