"""The two models of the grid: volume under two drugs, and the worst loss of weight.

Responses to dose are free, level by level, or saturating."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import HalfNormal, LogNormal, Normal

from experiments.maeve_combination.record import Animals
from tumortwin import units
from tumortwin.inference import Measurements, PopulationProblem, Varying
from tumortwin.observation import CombinedError, LogNormalError
from tumortwin.params import parameter

GIVEN_FOR = 21.0  # [day] the first drug is given daily (its own protocol: qd x 21)
SHARPNESS = 1.5  # [day] over which doomed cells begin to die
LEAST_CURVE = 1e-6  # [mm^3]


class AbstractResponse(eqx.Module):
    """Effect of a dose [mg/kg], 0 at 0."""

    @abc.abstractmethod
    def __call__(self, dose: Array) -> Array: ...


class FreeResponse(AbstractResponse):
    """`at[level]` at every dose that was tried, linear in log(1 + dose) between; constant beyond the last."""

    at: dict[str, Array]
    levels: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, dose: Array) -> Array:
        places = np.log1p([0.0, *self.levels])
        place, effect = jnp.log1p(dose), jnp.zeros(())
        place = jnp.clip(place, 0.0, places[-1])
        for k, level in enumerate(self.levels, start=1):
            rise = (place - places[k - 1]) / (places[k] - places[k - 1])
            hat = jnp.clip(rise, 0.0, 1.0)
            if k < len(self.levels):
                fall = (places[k + 1] - place) / (places[k + 1] - places[k])
                hat = jnp.minimum(hat, jnp.clip(fall, 0.0, 1.0))
            effect = effect + hat * self.at[f"{level:g}"]
        return effect


class SaturatingResponse(AbstractResponse):
    """`limit dose / (dose + half)`: monotone."""

    limit: Array = parameter(unit="effect")
    half: Array = parameter(unit="mg/kg")

    def __call__(self, dose: Array) -> Array:
        return self.limit * dose / (dose + self.half)


class Combination(eqx.Module):
    """Volume under a drug that slows growth while it is given and one that dooms a share of the cells.

    $$ V = V_0 e^{x(t)} \\left[ e^{-K e^{-b t}} + (1 - e^{-K}) e^{-(g + c)\\,w\\,\\ln(1 + e^{(t - \\tau)/w})} \\right],
       \\qquad x' = g - u\\,[t < 21] - b x, \\quad x(0) = 0 $$

    `u` the slowing of the first drug at its dose, `K = s q(dose) (1 + psi 21 u)` the log-kill of the second. The
    doomed grow on until about day `tau` and are cleared from then on at rate `c`; survivors regrow.
    """

    slowing: AbstractResponse
    relative_kill: AbstractResponse
    growth_rate: Array = parameter(unit=units.RATE)
    deceleration: Array = parameter(unit=units.RATE)
    onset: Array = parameter(unit=units.TIME)
    clearance: Array = parameter(unit=units.RATE)
    strength: Array = parameter(unit="1")
    interaction: Array = parameter(unit="1")

    def volume(self, days: Array, start: Array, first: Array, second: Array) -> Array:
        """[subject, time], or [time] of scalars."""
        g, b, tau, c = (x[..., None] for x in (self.growth_rate, self.deceleration, self.onset, self.clearance))
        slowing = self.slowing(first)
        log_kill = (
            self.strength * self.relative_kill(second) * jnp.maximum(1.0 + self.interaction * GIVEN_FOR * slowing, 0.0)
        )
        u, kill = slowing[..., None], log_kill[..., None]
        gone = jnp.exp(-b * days)
        free = jnp.exp(-b * jnp.maximum(days - GIVEN_FOR, 0.0))
        base = g / b * (1.0 - gone) - u / b * (free - gone)
        cleared = (g + c) * SHARPNESS * jax.nn.softplus((days - tau) / SHARPNESS)
        survivors = -kill * gone
        doomed = jnp.log(-jnp.expm1(-jnp.maximum(kill, 1e-12))) - cleared
        return start[..., None] * jnp.exp(base + jnp.logaddexp(survivors, doomed)) + LEAST_CURVE


class WeightLoss(eqx.Module):
    """Worst relative loss of net weight: `rest + harm(second) (1 + potentiation(first))`, what the second drug does
    being multiplied by the first."""

    harm: AbstractResponse
    potentiation: AbstractResponse
    rest: Array = parameter(unit=units.FRACTION)

    def loss(self, first: Array, second: Array) -> Array:
        return self.rest + self.harm(second) * (1.0 + self.potentiation(first))


def solve_volume(model: Combination, data: Measurements) -> Array:
    """The `solve` of the volumes."""
    given: Any = data.given
    return model.volume(data.times, given["start"], given["dose"][:, 0], given["dose"][:, 1])


def solve_loss(model: WeightLoss, data: Measurements) -> Array:
    """The `solve` of the losses."""
    given: Any = data.given
    return model.loss(given["dose"][:, 0], given["dose"][:, 1])[:, None]


def shared(prior: Any, scale: str = "log") -> Varying:
    """The same for all animals."""
    return Varying(prior, None, scale=scale)


def _free(name: str, levels: tuple[float, ...], prior: Any, scale: str) -> tuple[FreeResponse, dict[str, Varying]]:
    names = [f"{level:g}" for level in levels]
    response = FreeResponse({n: jnp.asarray(0.0) for n in names}, levels)
    return response, {f"{name}.at.{n}": shared(prior, scale) for n in names}


def _saturating(name: str, limit: Any, half: float) -> tuple[SaturatingResponse, dict[str, Varying]]:
    response = SaturatingResponse(jnp.asarray(1.0), jnp.asarray(half))
    return response, {f"{name}.limit": shared(limit), f"{name}.half": shared(LogNormal(np.log(half), 1.5))}


def volume_problem(animals: Animals, *, monotone: bool = False, hidden: int | None = None) -> PopulationProblem:
    """Growth and log-kill differ between animals; the rest is shared. Priors know a factor of some three."""
    first, second = animals.levels
    if monotone:
        slowing, of_slowing = _saturating("slowing", LogNormal(np.log(0.05), 1.0), float(np.median(first)))
        kill, of_kill = _saturating("relative_kill", LogNormal(0.0, 0.1), float(np.median(second)))
    else:
        slowing, of_slowing = _free("slowing", first, Normal(0.0, 0.1), "identity")
        kill, of_kill = _free("relative_kill", second, LogNormal(0.0, 1.0), "log")
    one = jnp.asarray(1.0)
    model = Combination(slowing, kill, 0.1 * one, 0.02 * one, 5.0 * one, 0.1 * one, 4.0 * one, 0.0 * one)
    varying = {
        "growth_rate": Varying(LogNormal(np.log(0.12), 0.5), HalfNormal(0.3), centered=False),
        "strength": Varying(LogNormal(np.log(4.0), 0.7), HalfNormal(0.5), centered=False),
        "deceleration": shared(LogNormal(np.log(0.02), 1.0)),
        "onset": shared(LogNormal(np.log(5.0), 0.5)),
        "clearance": shared(LogNormal(np.log(0.1), 1.0)),
        "interaction": shared(Normal(0.0, 0.5), "identity"),
        **of_slowing,
        **of_kill,
    }
    error, prior = LogNormalError(0.3 * one), {"log_sd": LogNormal(np.log(0.3), 0.5)}
    return PopulationProblem(model, varying, error, prior, animals.volumes(hidden), solve_volume)


def weight_problem(animals: Animals, *, monotone: bool = False) -> PopulationProblem:
    """Everything is shared; what is left between animals and readings is the error, Var = sd^2 + (cv loss)^2."""
    first, second = animals.levels
    if monotone:
        potentiation, of_first = _saturating("potentiation", LogNormal(0.0, 1.0), float(np.median(first)))
        harm, of_second = _saturating("harm", LogNormal(np.log(0.05), 1.0), float(np.median(second)))
    else:
        potentiation, of_first = _free("potentiation", first, LogNormal(0.0, 1.0), "log")
        harm, of_second = _free("harm", second, LogNormal(np.log(0.04), 1.0), "log")
    one = jnp.asarray(1.0)
    varying = {"rest": shared(LogNormal(np.log(0.02), 1.0)), **of_first, **of_second}
    error = CombinedError(0.03 * one, 0.3 * one)
    prior = {"sd": LogNormal(np.log(0.03), 0.7), "cv": LogNormal(np.log(0.3), 0.7)}
    return PopulationProblem(
        WeightLoss(harm, potentiation, 0.02 * one), varying, error, prior, animals.weights(), solve_loss
    )
