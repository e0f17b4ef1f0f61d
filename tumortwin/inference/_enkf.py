"""The ensemble Kalman filter: states and fields that are estimated as they evolve, parameters with them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

KINDS = ("transform", "stochastic")
# Mean squared standardized innovation beyond which the spread is not what the data show (1 is right).
LARGEST_INNOVATION = 2.0


class EnsembleKalmanFilter(eqx.Module):
    """Update of an ensemble by an observation with Gaussian noise.

    $$ x_i^a = x_i + K (y + \\epsilon_i - h_i), \\qquad K = P_{xh} (P_{hh} + R)^{-1} $$

    with `h_i = h(x_i)` and the covariances of the ensemble (`stochastic`, perturbed observations), or without noise of
    its own in the space of the members (`transform`, the symmetric square root),

    $$ T = (I + S^T R^{-1} S)^{-1/2}, \\qquad X^a = \\bar x + X' (w + T), \\qquad
       w = T^2 S^T R^{-1} (y - \\bar h) $$

    with `S = H' / sqrt(m - 1)`: mean and covariance are exactly the Kalman filter's for the ensemble's own mean and
    covariance and a linear `h`. Parameters are estimated by being a part of `x`.

    **Arguments:** `kind`; `inflation` of the deviations before each update [1] (1: none); `localization`: distance
    [mm] at which the taper of Gaspari & Cohn is zero, `None` for none.

    **Good values:** transform, 40-100 members for a handful of parameters; inflation 1.0-1.1 where the model is not
    perfect; localization some three widths of what is correlated, whenever the field has more degrees of freedom than
    there are members.

    **Limits:** Gaussian (mathematical): bring bounded quantities to an unbounded scale first (`LogitScale`); linear
    regression stands for what is not. Localization needs `stochastic` (for convenience: the transform would be another
    one at every voxel).

    Reference: Burgers, van Leeuwen & Evensen (1998), Mon. Weather Rev. 126:1719; Bishop, Etherton & Majumdar (2001),
    Mon. Weather Rev. 129:420; Hunt, Kostelich & Szunyogh (2007), Physica D 230:112; Gaspari & Cohn (1999), Q. J. R.
    Meteorol. Soc. 125:723.
    """

    kind: str = "transform"
    inflation: float = 1.0
    localization: float | None = None

    def __check_init__(self) -> None:
        if self.kind not in KINDS or self.inflation < 1 or (self.localization is not None and self.localization <= 0):
            raise ValueError(
                f"required: a kind among {KINDS}, inflation at least 1, localization above 0; received: "
                f"{self.kind!r}, {self.inflation}, {self.localization}"
            )
        if self.localization is not None and self.kind != "stochastic":
            raise ValueError(
                f"required: kind 'stochastic' with localization; received: {self.kind!r}; try: localization=None"
            )

    def inflated(self, members: Float[Array, "member size"]) -> Float[Array, "member size"]:
        """Deviations from the mean times `inflation`."""
        mean = jnp.mean(members, axis=0)[None]
        return mean + self.inflation * (members - mean)

    @eqx.filter_jit
    def update(
        self,
        members: Float[Array, "member size"],
        predicted: Float[Array, "member observation"],
        observed: Float[Array, " observation"],
        noise_sd: Float[Array, " observation"],
        *,
        tapers: tuple[Array, Array] | None = None,
        key: Array,
    ) -> Float[Array, "member size"]:
        """The members after an observation.

        **Arguments:** `predicted`: what each member says of it; `noise_sd` of independent errors; `tapers`: weights of
        the covariances [size, observation] and [observation, observation] (`tapers_of`).
        """
        if self.kind == "transform":
            return _transformed(members, predicted, observed, noise_sd)
        return _perturbed(members, predicted, observed, noise_sd, tapers, key)

    def tapers_of(
        self, places: Float[Array, "size axis"], seen: Float[Array, "observation axis"]
    ) -> tuple[Array, Array] | None:
        """Weights by distance of places [mm]; a parameter has a place of NaN and is tapered by nothing."""
        if self.localization is None:
            return None

        def weights(a: Array, b: Array) -> Array:
            apart = jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))
            return jnp.where(jnp.isnan(apart), 1.0, gaspari_cohn(apart / (0.5 * self.localization)))  # type: ignore[operator]

        return weights(places, seen), weights(seen, seen)


@dataclasses.dataclass(frozen=True)
class Seen:
    """One observation: `day`, values and the sd of their independent errors [observation]."""

    day: float
    values: np.ndarray
    sd: np.ndarray


@dataclasses.dataclass(frozen=True)
class Filtered:
    """What a filter hands back: `days` [time]; `mean`, `sd` [time size] after each update; the last `members`
    [member size]; `innovation` [time]: mean square of (observed - predicted) over its own sd, 1 where the spread is
    right; `log_score` [time]: log density of each observation given those before, its values as independent.

    `consistent`: the innovations are not above `LARGEST_INNOVATION` on average; if they are, the ensemble has collapsed
    or the model is wrong, and the sds are too small.
    """

    days: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    members: np.ndarray
    innovation: np.ndarray
    log_score: np.ndarray

    @property
    def consistent(self) -> bool:
        """Whether the spread of the ensemble is what the data show."""
        return bool(np.mean(self.innovation) <= LARGEST_INNOVATION)


Forecast = Callable[[Array, Array, Array], Array]
"""`(member, from day, to day) -> member`."""


def filter_states(
    members: Float[Array, "member size"],
    forecast: Forecast,
    observe: Callable[[Array], Array],
    data: Sequence[Seen],
    settings: EnsembleKalmanFilter,
    *,
    start: float = 0.0,
    tapers: tuple[Array, Array] | None = None,
    vectorized: bool = True,
    key: Array,
) -> Filtered:
    """The ensemble through all observations: forecast to each day, update there.

    **Arguments:** `members` at day `start`; `forecast` `(member, from, to) -> member` and `observe` `member ->
    [observation]` of one member; `vectorized`: members side by side or one after another (3-D).

    **Raises:** `ValueError` for observations that are not in the order of days or before `start` (a filter of states
    cannot go back: start again, or from a stored ensemble); `FloatingPointError` for a member whose forecast failed.
    """
    days = [seen.day for seen in data]
    if not days or days != sorted(days) or days[0] < start:
        raise ValueError(
            f"required: observations in the order of days, from day {start:g}; received days {days}; try: start again "
            "from an ensemble before the earliest"
        )
    now, rows = start, []
    for step, seen in enumerate(data):
        if seen.day > now:
            members = _of_all(forecast, vectorized, members, jnp.asarray(now), jnp.asarray(seen.day))
        _check(members, seen.day)
        members = settings.inflated(members)
        predicted = _of_all(observe, vectorized, members)
        rows.append(_scores(np.asarray(predicted), seen))
        members = settings.update(
            members,
            predicted,
            jnp.asarray(seen.values),
            jnp.asarray(seen.sd),
            tapers=tapers,
            key=jax.random.fold_in(key, step),
        )
        now = seen.day
        rows[-1] += (np.asarray(members.mean(axis=0)), np.asarray(members.std(axis=0, ddof=1)))
    innovation, score, mean, sd = (np.stack(column) for column in zip(*rows, strict=True))
    return Filtered(np.asarray(days), mean, sd, np.asarray(members), innovation, score)


class LogitScale(eqx.Module):
    """Densities in [0, 1] on an unbounded scale, `x = logit(floor + (1 - 2 floor) u)`.

    0 and 1 keep finite values, and come back exactly; what an update moves beyond them comes back as 0 and 1. The floor
    is a density that no scan tells from none.

    **Good values:** floor .001-.01.
    """

    floor: float = 0.005

    def to_scale(self, density: Float[Array, "..."]) -> Float[Array, "..."]:
        """Density [1] to x."""
        return jax.scipy.special.logit(self.floor + (1 - 2 * self.floor) * density)

    def from_scale(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """x to density [1]."""
        return jnp.clip((jax.scipy.special.expit(x) - self.floor) / (1 - 2 * self.floor), 0.0, 1.0)


def gaspari_cohn(r: Float[Array, "..."]) -> Float[Array, "..."]:
    """A correlation that looks like a Gaussian and is zero from `r` = 2 on (fifth-order piecewise rational).

    Reference: Gaspari & Cohn (1999), Q. J. R. Meteorol. Soc. 125:723, eq. 4.10.
    """
    near = 1 - 5 / 3 * r**2 + 5 / 8 * r**3 + r**4 / 2 - r**5 / 4
    safe = jnp.maximum(r, 1e-6)
    far = 4 - 5 * r + 5 / 3 * r**2 + 5 / 8 * r**3 - r**4 / 2 + r**5 / 12 - 2 / (3 * safe)
    return jnp.where(r <= 1, near, jnp.where(r < 2, far, 0.0))


def _transformed(members: Array, predicted: Array, observed: Array, noise_sd: Array) -> Array:
    m = members.shape[0]
    middle, deviations = jnp.mean(members, axis=0), members - jnp.mean(members, axis=0)[None]
    scaled = (predicted - jnp.mean(predicted, axis=0)[None]) / noise_sd[None] / jnp.sqrt(m - 1.0)
    gap = (observed - jnp.mean(predicted, axis=0)) / noise_sd
    values, vectors = jnp.linalg.eigh(scaled @ scaled.T)
    shrunk = 1 / (1 + jnp.maximum(values, 0.0))
    shift = vectors @ (shrunk * (vectors.T @ (scaled @ gap)))
    turn = (vectors * jnp.sqrt(shrunk)[None]) @ vectors.T
    return middle[None] + (turn + shift[None] / jnp.sqrt(m - 1.0)) @ deviations


def _perturbed(
    members: Array, predicted: Array, observed: Array, noise_sd: Array, tapers: tuple[Array, Array] | None, key: Array
) -> Array:
    m = members.shape[0]
    noise = jax.random.normal(key, predicted.shape)
    noise = (noise - jnp.mean(noise, axis=0)[None]) * noise_sd[None]
    deviations, seen = members - jnp.mean(members, axis=0)[None], predicted - jnp.mean(predicted, axis=0)[None]
    cross, own = deviations.T @ seen / (m - 1), seen.T @ seen / (m - 1)
    if tapers is not None:
        cross, own = cross * tapers[0], own * tapers[1]
    gaps = observed[None] + noise - predicted
    solved = jnp.linalg.solve(own + jnp.diag(noise_sd**2), gaps.T)
    return members + (cross @ solved).T


@eqx.filter_jit
def _of_all(function: Callable[..., Array], vectorized: bool, members: Array, *shared: Array) -> Array:
    """`function(member, *shared)` of every member."""
    if vectorized:
        return jax.vmap(lambda x: function(x, *shared))(members)
    return jax.lax.map(lambda x: function(x, *shared), members)


def _scores(predicted: np.ndarray, seen: Seen) -> tuple[Any, ...]:
    """Mean squared standardized innovation, and the log score of the observation."""
    variance = predicted.var(axis=0, ddof=1) + seen.sd**2
    square = (seen.values - predicted.mean(axis=0)) ** 2 / variance
    return np.mean(square), -0.5 * np.sum(square + np.log(2 * np.pi * variance))


def _check(members: Array, day: float) -> None:
    failed = int(jnp.sum(~jnp.all(jnp.isfinite(members), axis=1)))
    if failed:
        raise FloatingPointError(
            f"required: a finite forecast of every member to day {day:g}; received: {failed} that failed; try: a "
            "smaller step of the solver, or a narrower first ensemble"
        )
