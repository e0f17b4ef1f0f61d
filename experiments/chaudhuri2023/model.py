"""Logistic growth and linear-quadratic kill in closed form, and the same patients under Gompertz growth.

Days count from the first scan. Growth between fractions and kill at a fraction are exact maps of y = K / N (logistic:
y - 1 -> (y - 1) exp(-rho t), y -> y exp(kill)) or of x = ln(N / K) (Gompertz: x -> x exp(-a t), x -> x - kill).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.control import Curve, WeeklyFractions
from tumortwin.treatments import log_kill

SCANS = (0.0, 20.0, 27.0)
"""[day]: baseline, the day before radiotherapy, the Sunday after its first week."""

START = 21.0
"""[day] of the first fraction, a Monday."""

HORIZON = START + 180.0
"""[day]: a longer time to progression counts as 180 days after the start of radiotherapy."""

WEEKS = WeeklyFractions(n_weeks=6, fractions_per_week=5)
"""Fractions from Monday to Friday; the first week is given before the plan is made."""

STANDARD = 2.0
"""[Gy] a fraction: 30 x 2 Gy."""

Draw = dict[str, Array]
"""`growth_rate` [1/day], `alpha` [1/Gy], `alpha_beta` [Gy], `capacity_ratio` = K / N(0) [1]; N counts in N(0)."""

Scalar = Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Law:
    """A growth law as exact maps of its own variable y; with `decay` and `effect` known, a curve is multiplications.

    `start(draw)` for N = 1; `decay(draw)` [1/day], so that `grown(y, exp(-decay t))`; `effect(kill)`, so that
    `killed(y, effect)` is N -> N exp(-kill); `burden(y, draw)`; `back(first, last, draw)`: days in which `last` grows
    to `first`, negative where it stands above it.
    """

    start: Callable[[Draw], Array]
    decay: Callable[[Draw], Array]
    grown: Callable[[Array, Array], Array]
    effect: Callable[[Array], Array]
    killed: Callable[[Array, Array], Array]
    burden: Callable[[Array, Draw], Array]
    back: Callable[[Array, Array, Draw], Array]


LOGISTIC = Law(
    start=lambda draw: draw["capacity_ratio"],
    decay=lambda draw: draw["growth_rate"],
    grown=lambda y, g: 1.0 + (y - 1.0) * g,
    effect=jnp.exp,
    killed=lambda y, effect: y * effect,
    burden=lambda y, draw: draw["capacity_ratio"] / y,
    back=lambda first, last, draw: jnp.log((last - 1.0) / (first - 1.0)) / draw["growth_rate"],
)
"""y = K / N."""


def gompertz_decay(draw: Draw) -> Scalar:
    """The rate a [1/day] with which the tumor grows at N(0) as fast as the logistic one: a ln(K) = rho (1 - 1/K)."""
    ratio = draw["capacity_ratio"]
    return draw["growth_rate"] * (1.0 - 1.0 / ratio) / jnp.log(ratio)


GOMPERTZ = Law(
    start=lambda draw: jnp.log(draw["capacity_ratio"]),
    decay=gompertz_decay,
    grown=lambda y, g: y * g,
    effect=lambda kill: kill,
    killed=lambda y, effect: y + effect,
    burden=lambda y, draw: draw["capacity_ratio"] * jnp.exp(-y),
    back=lambda first, last, draw: jnp.log(last / first) / gompertz_decay(draw),
)
"""y = ln(K / N)."""


def course(draw: Draw, doses: Float[Array, " week"], law: Law) -> tuple[Array, Array, Array]:
    """The law's variable on day START, before every fraction [fraction], and after the last one."""
    reference = law.grown(law.start(draw), jnp.exp(-law.decay(draw) * START))
    gaps = np.diff(WEEKS.fraction_days, prepend=0.0)
    growth = jnp.exp(-law.decay(draw) * gaps)
    effects = law.effect(log_kill(doses, draw["alpha"], draw["alpha_beta"]))

    def fraction(y: Array, event: tuple[Array, Array]) -> tuple[Array, Array]:
        before = law.grown(y, event[0])
        return law.killed(before, event[1]), before

    last, before = jax.lax.scan(fraction, reference, (growth, jnp.repeat(effects, WEEKS.fractions_per_week)))
    return reference, before, last


def burden(draw: Draw, schedule: Any) -> Curve:
    """What `LogisticTimeToProgression` asks for: N on day START, and after the last fraction.

    The schedule is one of `WEEKS`, whose fractions of a week are equal.
    """
    given = schedule.radiotherapy
    first, _, last = course(draw, given.doses[:: WEEKS.fractions_per_week], LOGISTIC)
    return Curve(
        jnp.stack([jnp.asarray(START), given.times[-1]]),
        LOGISTIC.burden(jnp.stack([first, last]), draw),
        parameters={"growth_rate": draw["growth_rate"], "carrying_capacity": draw["capacity_ratio"]},
    )


def time_to_progression(draw: Draw, doses: Float[Array, " week"], law: Law) -> Scalar:
    """Days from START to the return to N(START) in closed form, from after the last fraction; at most 180."""
    first, _, last = course(draw, doses, law)
    return jnp.minimum(WEEKS.fraction_days[-1] + law.back(first, last, draw), HORIZON - START)


def above_during_treatment(draw: Draw, doses: Float[Array, " week"], law: Law) -> Array:
    """Whether the burden stands above N(START) before a fraction, this or a later one of which is given."""
    first, before, _ = course(draw, doses, law)
    fractions = jnp.repeat(doses, WEEKS.fractions_per_week)
    later = jnp.cumsum(fractions[::-1])[::-1] > 0.0
    above = law.burden(before, draw) > law.burden(first, draw) * (1.0 + 1e-9)
    return jnp.any(above & later)


def scans(draw: Draw, law: Law) -> Float[Array, " scan"]:
    """ln N on the days of the scans, in units of N(0), with the first week of the standard of care."""
    rate = law.decay(draw)
    effect = law.effect(log_kill(jnp.asarray(STANDARD), draw["alpha"], draw["alpha_beta"]))
    baseline = law.start(draw)
    second = law.grown(baseline, jnp.exp(-rate * SCANS[1]))
    y, day = second, SCANS[1]
    for fraction in START + WEEKS.fraction_days[: WEEKS.fractions_per_week]:
        y = law.killed(law.grown(y, jnp.exp(-rate * (fraction - day))), effect)
        day = fraction
    third = law.grown(y, jnp.exp(-rate * (SCANS[2] - day)))
    return jnp.log(jnp.stack([law.burden(each, draw) for each in (baseline, second, third)]))
