"""Adjoint gradients beside central differences, in float64 and away from the optimum."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.verification.cases import DRUG, ball, brain, glioma
from tumortwin.models import GivenDensity
from tumortwin.params import as_parameter
from tumortwin.solvers import FixedSteps, MovingEdges, simulate, simulate_moving
from tumortwin.treatments import Course, Schedule

BOUND = 0.3
START = {
    "diffusivity": 0.25,
    "gray_ratio": 0.15,
    "rate": 0.05,
    "alpha": 0.05,
    "alpha_beta": 9.0,
    "sensitivity": 0.5,
    "elimination": 8.0,
}
FRACTION_TIMES = (9.3, 10.3, 11.3, 14.3, 15.3)
DRUG_TIMES = (9.1, 10.1, 11.1, 12.1)
DOSES = (2.0, 1.5, 2.5, 2.0, 3.0)
DRUG_DOSES = (1.0, 0.5, 1.5, 1.0)

Inputs = dict[str, Array]


def inputs() -> Inputs:
    """Everything that is differentiated: the model's parameters, the schedule, and the start."""
    values: Inputs = {k: as_parameter(v) for k, v in START.items()}
    values["fraction time"], values["dose"] = jnp.asarray(FRACTION_TIMES), jnp.asarray(DOSES)
    values["drug time"], values["drug dose"] = jnp.asarray(DRUG_TIMES), jnp.asarray(DRUG_DOSES)
    values["initial height"] = as_parameter(0.7)
    return values


def losses(n: int = 10, *, corrected: bool = False) -> dict[str, Callable[[Inputs], Array]]:
    """One scalar of the solution for each path: a weighted sum of u^2 at two times (sparse across the fractions).

    `corrected`: with the front correction, through which the faces depend on D and rho.
    """
    tissue = brain((n, n, n), (2.0, 2.0, 2.0))
    shape = ball(tissue, height=1.0)
    weights = jnp.asarray(1.0 + 0.5 * np.sin(np.arange(2 * n**3)).reshape(2, n, n, n))
    days = (12.0, 40.0)

    def setup(v: Inputs):
        start = GivenDensity(v["initial height"] * shape.density)
        model = glioma(tissue, start, corrected=corrected, **{k: v[k] for k in START})
        drug = {DRUG: Course(v["drug time"], v["drug dose"])}
        return model, Schedule(Course(v["fraction time"], v["dose"]), drug)

    reference = Schedule(Course(jnp.asarray(FRACTION_TIMES), jnp.asarray(DOSES)))
    edges = MovingEdges.from_schedule(reference, days, max_step=8.0, max_diffusivity=BOUND)

    def fast(v: Inputs) -> Array:
        out = simulate(*setup(v), days, FixedSteps(4.0, BOUND), estimate_error=False)
        return jnp.sum(weights * out.states.density**2)

    def moving(v: Inputs) -> Array:
        return jnp.sum(weights * simulate_moving(*setup(v), edges).states.density ** 2)

    return {"fast": fast, "moving": moving}


def gradient_errors(
    value: Callable[[Inputs], Array],
    gradient_of: Callable[[Inputs], Inputs],
    *,
    every: bool = True,
    width: float = 1e-4,
) -> dict[str, float]:
    """Relative error of the adjoint `gradient_of` of the scalar `value` (both compiled) for each input.

    Each element of an array by itself (the worst, relative to the array's largest); with `every` False one random
    direction an array. Differences are central and of fourth order, so that rounding and truncation both stay small.
    """
    at = inputs()
    gradient = gradient_of(at)
    random, errors = np.random.default_rng(0), {}
    for name, x in at.items():
        flat = np.asarray(x).reshape(-1)
        directions = np.eye(flat.size) if every else random.uniform(0.5, 1.0, (1, flat.size))
        exact = directions @ np.asarray(gradient[name]).reshape(-1)
        found = np.zeros(len(directions))
        for i, direction in enumerate(directions):
            h = width * max(1.0, float(np.abs(flat).max()))
            for k, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
                moved = (flat + k * h * direction).reshape(x.shape)
                found[i] += weight * float(value({**at, name: jnp.asarray(moved)})) / (12.0 * h)
        errors[name] = float(np.max(np.abs(exact - found)) / np.max(np.abs(found)))
    return errors
