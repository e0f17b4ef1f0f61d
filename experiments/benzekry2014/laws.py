"""The growth laws that are compared, each with the priors of its population."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, HalfNormal, LogNormal, Normal

from tumortwin.inference import Measurements, PopulationProblem, Varying
from tumortwin.io import Table
from tumortwin.models import (
    AbstractCompartmentModel,
    Bertalanffy,
    Exponential,
    ExponentialLinear,
    Gompertz,
    Logistic,
    PowerLaw,
    ReducedGompertz,
)
from tumortwin.observation import CombinedError
from tumortwin.twin import BurdenCurves

VAGUE = 1.0  # log-sd of a typical value: a factor of 2.7 either way


@dataclasses.dataclass(frozen=True)
class Law:
    """A model, how its parameters vary between animals, and which of them together."""

    model: AbstractCompartmentModel
    varying: Mapping[str, Varying]
    correlated: tuple[str, ...] = ()


def about(median: float, spread: float = 0.5, *, centered: bool = True) -> Varying:
    """Log-normal between animals, the median known to a factor of some three. Not `centered` where the data hardly tell
    the spread from none: the effects of a spread near 0 leave a chain no room."""
    return Varying(LogNormal(np.log(median), VAGUE), HalfNormal(spread), centered=centered)


def shared(prior: Distribution, scale: str = "log") -> Varying:
    """The same for all animals."""
    return Varying(prior, None, scale=scale)


LAWS: dict[str, Law] = {
    "exponential": Law(Exponential(jnp.asarray(0.4)), {"growth_rate": about(0.4)}),
    "exponential_linear": Law(
        ExponentialLinear(jnp.asarray(0.5), jnp.asarray(150.0)),
        {"growth_rate": about(0.5), "linear_rate": about(150.0, centered=False)},
        ("growth_rate", "linear_rate"),
    ),
    "logistic": Law(
        Logistic(jnp.asarray(0.5), jnp.asarray(2000.0)),
        {"growth_rate": about(0.5), "carrying_capacity": about(2000.0, centered=False)},
        ("growth_rate", "carrying_capacity"),
    ),
    "power": Law(
        PowerLaw(jnp.asarray(0.9), jnp.asarray(0.78)),
        {
            "growth_rate": about(0.9),
            "exponent": Varying(Normal(0.78, 0.2), HalfNormal(0.2), scale="identity", centered=True),
        },
        ("growth_rate", "exponent"),
    ),
    "bertalanffy": Law(
        Bertalanffy(jnp.asarray(2.0), jnp.asarray(0.1)),
        {"growth_rate": about(2.0), "loss_rate": shared(LogNormal(np.log(0.1), VAGUE))},
    ),
    "gompertz": Law(
        Gompertz(jnp.asarray(0.7), jnp.asarray(0.08)),
        {"growth_rate": about(0.7), "deceleration": about(0.08)},
        ("growth_rate", "deceleration"),
    ),
}

REDUCED = Law(
    ReducedGompertz(jnp.asarray(0.08), jnp.asarray(9.0)),
    {"deceleration": about(0.08), "slope": shared(LogNormal(np.log(9.0), 0.3))},
)


def problem_of(law: Law, table: Table) -> PopulationProblem:
    """All animals of the table under one law; combined error, Var = sd^2 + (cv f)^2."""
    rows = table.padded()
    times, lower, upper, valid = (jnp.asarray(a, float) for a in (rows.times, rows.lower, rows.upper, rows.valid))
    data = Measurements(times, lower, upper, valid)
    priors = {"sd": LogNormal(np.log(30.0), 1.0), "cv": LogNormal(np.log(0.1), 1.0)}
    error = CombinedError(jnp.asarray(30.0), jnp.asarray(0.1))
    return PopulationProblem(law.model, law.varying, error, priors, data, BurdenCurves(), law.correlated)
