"""What a model without space is: a few numbers a subject, a flow or a rate, and jumps at doses."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.params import parameter


class AbstractCompartmentModel(eqx.Module):
    """A tumor as a few numbers that follow autonomous differential equations between doses.

    Parameters and initial values are fields made by `tumortwin.params.parameter`. Each is a scalar (one value for all
    subjects) or begins with the axes `[*batch]` of the subjects. A state is an `eqx.Module`, one field a variable, each
    `[*batch]` (a variable may have further axes of its own). Everything acts element by element: one subject and a
    table of subjects are the same code.

    `exposure` is what is there for a while and `dose` what is given at an instant; each model says in which unit it
    wants them. Where nothing else is said an exposure is a loss rate of all cells [1/day], and a dose a natural
    log-kill of all cells [1] (`treatments.log_kill`).
    """

    reference: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def initial(self) -> Any:
        """The state at the start."""

    @abc.abstractmethod
    def burden(self, state: Any) -> Float[Array, "..."]:
        """What is measured: a volume [mm^3], a PSA [ng/mL], a confluence [1], an index of cells."""

    @abc.abstractmethod
    def jump(self, state: Any, dose: Float[Array, "..."]) -> Any:
        """The state just after a dose; a dose of 0 changes nothing."""


class AbstractFlow(AbstractCompartmentModel):
    """A model whose equations are solved in closed form."""

    @abc.abstractmethod
    def advance(self, state: Any, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> Any:
        """The state `duration` >= 0 [day] later under a constant exposure; a semigroup in `duration`."""


class AbstractPacedFlow(AbstractCompartmentModel):
    """A flow in closed form that runs on a clock of its own: x(t) = Phi(tau(t); x_0), tau' = pace(x). Only the clock
    is solved numerically."""

    @abc.abstractmethod
    def advance(self, state: Any, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> Any:
        """The state when the clock has gone on by `duration` [day]; a semigroup in `duration`."""

    @abc.abstractmethod
    def pace(self, state: Any, exposure: Float[Array, "..."]) -> Float[Array, "..."]:
        """d(clock)/dt [1], 1 where the clock is the time."""


class AbstractShared(eqx.Module):
    """A part of a model that is the same for all subjects, whatever the shapes of its arrays."""


class AbstractRates(AbstractCompartmentModel):
    """A model whose equations are solved numerically."""

    stiff: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def rate(self, state: Any, exposure: Float[Array, "..."]) -> Any:
        """d(state)/dt [1/day], a state of derivatives."""


def killed(state: Any, log_kill: Float[Array, "..."]) -> Any:
    """Every number of the state times e^{-log_kill}; variables may have axes behind those of `log_kill`."""

    def survive(cells: Array) -> Array:
        survival = jnp.exp(-log_kill)
        return cells * survival.reshape(*survival.shape, *(1,) * (cells.ndim - survival.ndim))

    return jax.tree.map(survive, state)


def linear_quadratic(dose: Array, alpha: Array, alpha_beta: Array) -> Array:
    """Natural log-kill of one fraction, alpha d (1 + d / (alpha/beta)), for parameters of any shape."""
    return alpha * dose * (1.0 + dose / alpha_beta)


class VolumeState(eqx.Module):
    """One number: the `volume` [mm^3] (or any other size, in the unit in which `start` is given)."""

    volume: Float[Array, "..."] = parameter(unit=units.VOLUME)


class AbstractGrowthLaw(AbstractFlow):
    """One equation for one volume, V' = G(V) - u V with a loss rate u.

    `exposure` is u [1/day]; a dose is a natural log-kill, V -> V e^{-dose}.
    """

    start: eqx.AbstractVar[Array]

    @abc.abstractmethod
    def grow(
        self, volume: Float[Array, "..."], duration: Float[Array, "..."], loss: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """The volume after `duration` [day] under the loss rate `loss` [1/day]."""

    def initial(self) -> VolumeState:
        """The volume `start`."""
        return VolumeState(self.start)

    def burden(self, state: VolumeState) -> Float[Array, "..."]:
        """The volume [mm^3]."""
        return state.volume

    def jump(self, state: VolumeState, dose: Float[Array, "..."]) -> VolumeState:
        """V e^{-dose}."""
        return killed(state, dose)

    def advance(self, state: VolumeState, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> VolumeState:
        """The volume after `duration`."""
        return VolumeState(self.grow(state.volume, duration, exposure))
