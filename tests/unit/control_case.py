"""A drug on Gompertz growth in closed form: small problems on which every controller can be tried."""

import jax
import jax.numpy as jnp
import numpy as np

from tumortwin.control import AbstractParametrization, Curve, CVaR, LogBurden, PlanningProblem, SlotDoses, Slots

END = 40.0
DAYS = (0.0, 7.0, 14.0, 21.0, 28.0)


def gompertz(n, rate, capacity, days):
    return capacity * jnp.exp(jnp.log(n / capacity) * jnp.exp(-rate * days))


def burden(draw, schedule):
    """ln N falls by kill d / (1 + d / 2) at a dose d (saturating), Gompertz growth between; white cells fall."""
    course = schedule.drugs["drug"]

    def give(carry, event):
        day, n, white = carry
        before = gompertz(n, draw["rate"], draw["capacity"], event[0] - day)
        recovered = 6.0 - (6.0 - white) * jnp.exp(-0.1 * (event[0] - day))
        dose = event[1]
        after = before * jnp.exp(-draw["kill"] * dose / (1.0 + 0.5 * dose))
        low = recovered * jnp.exp(-draw["harm"] * dose)
        carry = (event[0], after, low)
        return carry, (jnp.stack([event[0]] * 2), jnp.stack([before, after]), jnp.stack([recovered, low]))

    first = (jnp.zeros(()), draw["initial"], jnp.asarray(6.0))
    (last, n, white), (days, sizes, cells) = jax.lax.scan(give, first, (course.times, course.doses))
    tail = jnp.asarray([END])
    regrown = gompertz(n, draw["rate"], draw["capacity"], tail - last)
    risen = 6.0 - (6.0 - white) * jnp.exp(-0.1 * (tail - last))
    return Curve(
        jnp.concatenate([days.ravel(), tail]),
        jnp.concatenate([sizes.ravel(), regrown]),
        quantities={"white_cells": jnp.concatenate([cells.ravel(), risen])},
        units={"burden": "mm^3", "white_cells": "1e9/L"},
    )


def draws(size=8, seed=0):
    rng = np.random.default_rng(seed)

    def around(middle, spread):
        return jnp.asarray(middle * np.exp(spread * rng.standard_normal(size)))

    return {
        "rate": around(0.03, 0.3),
        "capacity": jnp.full(size, 1e5),
        "kill": around(0.8, 0.4),
        "harm": around(0.6, 0.3),
        "initial": around(1e3, 0.2),
    }


SLOTS = (Slots("drug", DAYS),)
CONTINUOUS = SlotDoses(SLOTS, high=2.0)


def problem(
    parametrization: AbstractParametrization = CONTINUOUS, constraints=(), objective=None, risk=None, limits=(), size=8
):
    return PlanningProblem(
        burden,
        draws(size),
        parametrization,
        LogBurden(END) if objective is None else objective,
        CVaR(0.5) if risk is None else risk,
        constraints,
        sequential=False,
        outcome_limits=limits,
    )
