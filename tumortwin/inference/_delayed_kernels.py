"""Steps that leave a cheap density as it is: what a proposal of delayed acceptance is made of."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Density = Callable[[Array], Array]


class Spot(NamedTuple):
    """A place, the log density there, and its slope (zeros for a kernel that asks for none)."""

    z: Float[Array, " parameter"]
    value: Float[Array, ""]
    slope: Float[Array, " parameter"]


class Moved(NamedTuple):
    """A place after a step, the chance with which the step was taken, and what it asked of the density."""

    spot: Spot
    chance: Float[Array, ""]
    densities: Int[Array, ""]
    gradients: Int[Array, ""]


class AbstractInnerKernel(eqx.Module):
    """A Markov step, reversible for a density known up to a factor. Its moves are made of `scale` and `factor` alone,
    never of what the chain has seen.

    `factor`: triangular, of the covariance of the density as far as it is known; `scale`: of a step, in units of it.
    """

    @property
    @abc.abstractmethod
    def acceptance(self) -> float:
        """The mean chance at which the search leaves `scale` as it is."""

    @property
    @abc.abstractmethod
    def gradients_at_start(self) -> int:
        """Gradients that `begin` takes."""

    @abc.abstractmethod
    def first_scale(self, size: int) -> float:
        """Where the search for `scale` begins, for `size` parameters."""

    @abc.abstractmethod
    def begin(self, density: Density, z: Array, value: Array) -> Spot:
        """The place that the first step starts from; `value`: the log density there."""

    @abc.abstractmethod
    def move(self, density: Density, factor: Array, scale: Array, here: Spot, *, key: Array) -> Moved:
        """One step."""


class RandomWalk(AbstractInnerKernel):
    """Metropolis with a normal proposal: `y = z + scale * factor n`. One density a step, no gradient.

    **Limits:** (mathematical) of a ridge r times as long as wide it needs some r^2 steps to get along it where the
    covariance cannot straighten it.

    Reference: Roberts & Rosenthal (2001), Stat. Sci. 16:351 (scale 2.38 / sqrt(p), acceptance .234).
    """

    @property
    def acceptance(self) -> float:
        return 0.234

    @property
    def gradients_at_start(self) -> int:
        return 0

    def first_scale(self, size: int) -> float:
        return 2.38 / float(np.sqrt(size))

    def begin(self, density: Density, z: Array, value: Array) -> Spot:
        del density
        return Spot(z, value, jnp.zeros_like(z))

    def move(self, density: Density, factor: Array, scale: Array, here: Spot, *, key: Array) -> Moved:
        move_key, accept_key = jax.random.split(key)
        z = here.z + scale * (factor @ jax.random.normal(move_key, here.z.shape))
        there = Spot(z, density(z), here.slope)
        return _taken(here, there, there.value - here.value, accept_key, densities=1, gradients=0)


class Hamiltonian(AbstractInnerKernel):
    """Hamiltonian Monte Carlo: a trajectory of random length along the density, accepted by its error of energy.

    $$ p \\sim N(0, I), \\quad \\dot z = L p, \\quad \\dot p = L^T \\nabla \\log \\pi^*(z), \\qquad
       a = \\min\\big(1, e^{\\log \\pi^*(z') - |p'|^2/2 - \\log \\pi^*(z) + |p|^2/2}\\big) $$

    `n = ceil(T u / h)` leapfrog steps (at most `longest`) of `h = scale (1 + spread v)`, `u` uniform on (0, 1), `v` on
    (-1, 1): both drawn before the trajectory, so that every step is a mixture of reversible ones, and no orbit closes.
    A trajectory that meets a place where the density or its slope is not finite is refused; so is its way back.

    **Arguments:** `time` T in units of `factor` (a normal density needs pi / 2 to forget where it was); `longest`
    leapfrog steps; `spread` of their size; `wanted` acceptance of the search. A leapfrog step is one gradient (with the
    value); a proposal of several steps takes one more at its start.

    **Good values:** time 3 (half of it on average), wanted .9-.95, spread .2; longest at least `time` over the width of
    the ridge in units of its length.

    **Limits:** (mathematical) between separate modes it does not travel. (For convenience) one step size for all
    places: where a ridge is much thinner than elsewhere trajectories are refused, and `wanted` is to be raised.

    Reference: Neal (2011), Handbook of MCMC, ch. 5; Bou-Rabee & Sanz-Serna (2017), Ann. Appl. Probab. 27:2159 (random
    lengths); Beskos et al. (2013), Bernoulli 19:1501 (scale p^-1/4, acceptance).
    """

    time: float = 3.0
    longest: int = 256
    spread: float = 0.2
    wanted: float = 0.9

    def __check_init__(self) -> None:
        if not (self.time > 0 and self.longest >= 1 and 0 <= self.spread < 1 and 0 < self.wanted < 1):
            raise ValueError(
                "required: time > 0, longest at least 1, 0 <= spread < 1 and 0 < wanted < 1; received: "
                f"{self.time}, {self.longest}, {self.spread}, {self.wanted}; try: Hamiltonian()"
            )

    @property
    def acceptance(self) -> float:
        return self.wanted

    @property
    def gradients_at_start(self) -> int:
        return 1

    def first_scale(self, size: int) -> float:
        return 0.7 / size**0.25

    def begin(self, density: Density, z: Array, value: Array) -> Spot:
        return Spot(z, value, jax.grad(density)(z))

    def move(self, density: Density, factor: Array, scale: Array, here: Spot, *, key: Array) -> Moved:
        push_key, time_key, size_key, accept_key = jax.random.split(key, 4)
        momentum = jax.random.normal(push_key, here.z.shape)
        step = scale * (1.0 + self.spread * jax.random.uniform(size_key, minval=-1.0))
        steps = jnp.ceil(self.time * jax.random.uniform(time_key) / step)
        steps = jnp.clip(steps, 1, self.longest).astype(int)

        def leap(_: Array, carry: tuple[Spot, Array]) -> tuple[Spot, Array]:
            spot, speed = carry
            speed = speed + 0.5 * step * (factor.T @ spot.slope)
            z = spot.z + step * (factor @ speed)
            value, slope = jax.value_and_grad(density)(z)
            return Spot(z, value, slope), speed + 0.5 * step * (factor.T @ slope)

        there, speed = jax.lax.fori_loop(0, steps, leap, (here, momentum))
        gain = there.value - here.value - 0.5 * (jnp.sum(speed**2) - jnp.sum(momentum**2))
        return _taken(here, there, gain, accept_key, densities=0, gradients=steps)


def _taken(here: Spot, there: Spot, gain: Array, key: Array, *, densities: int, gradients: int | Array) -> Moved:
    """`there` with chance min(1, e^gain), else `here`; never where anything of it is not finite."""
    possible = jnp.isfinite(there.value) & jnp.isfinite(gain) & jnp.all(jnp.isfinite(there.slope))
    chance = jnp.where(possible, jnp.exp(jnp.minimum(gain, 0.0)), 0.0)
    taken = jax.random.uniform(key) < chance
    spot = jax.tree.map(lambda new, old: jnp.where(taken, new, old), there, here)
    return Moved(spot, chance, jnp.asarray(densities), jnp.asarray(gradients))
