"""The wells of a table as arrays: what was seeded, what was given, which were cultured together."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tumortwin.io import Table
from tumortwin.models import DelayedDeath
from tumortwin.treatments import biologically_effective_dose

STEPS = 12  # of the solver, a day; a fraction of every day falls on one
SAME_DOSE = 0.03  # total doses that differ by less belong to one experiment: 15.9 and 16 Gy, 20.1 and 20 Gy
DETECTION = 1e-3  # [1] share of the well: what is seen of an empty one


@dataclasses.dataclass(frozen=True)
class Wells:
    """Curves [well, time], sorted into plates (one schedule at one imaging interval) and batches (plates of one imaging
    interval and one total dose: 16 Gy in two, three or four fractions were given side by side).

    `days`, `seen` [well, time]; `valid` True for a reading to be forecast (the one at t = 0 is given); `dose` [Gy a
    fraction], `fractions` [well]; `plate`, `batch`, `schedule` [well] words; `held_out` [well].
    """

    names: np.ndarray
    days: Float[np.ndarray, "well time"]
    seen: Float[np.ndarray, "well time"]
    valid: np.ndarray
    dose: Float[np.ndarray, " well"]
    fractions: Float[np.ndarray, " well"]
    plate: np.ndarray
    batch: np.ndarray
    schedule: np.ndarray
    held_out: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def start(self) -> Float[np.ndarray, " well"]:
        """The confluence at t = 0 [1]."""
        return self.seen[:, 0]

    def where(self, keep: np.ndarray) -> "Wells":
        """The wells for which `keep` is True."""
        return Wells(**{f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self)})

    def every(self, hours: float) -> "Wells":
        """The readings at whole multiples of `hours`, moved to the left of the rows."""
        on = np.abs(self.days * 24.0 / hours - np.round(self.days * 24.0 / hours)) < 1e-6
        on[:, 1:] &= self.valid[:, 1:]
        length = int(on.sum(axis=1).max())
        order = np.argsort(~on, axis=1, kind="stable")[:, :length]
        taken = np.take_along_axis(on, order, axis=1)
        days, seen = np.take_along_axis(self.days, order, axis=1), np.take_along_axis(self.seen, order, axis=1)
        last = np.max(np.where(taken, days, 0.0), axis=1, keepdims=True)
        valid = taken & (np.arange(length) > 0)
        return dataclasses.replace(self, days=np.where(taken, days, last), seen=np.where(taken, seen, 0.0), valid=valid)


def wells_of(table: Table) -> Wells:
    """The wells of one cell line."""
    rows, about = table.padded("confluence"), table.covariates
    dose, fractions = about["fraction_dose"].astype(float), about["fractions"].astype(float)
    valid = rows.valid.copy()
    valid[:, 0] = False
    gaps = np.where(valid[:, 1:], np.diff(rows.times, axis=1), np.nan)
    hours = np.round(24.0 * np.nanmedian(gaps, axis=1), 2)
    total = _grouped(dose * fractions)
    schedule = np.array([f"{n:g} x {d:g} Gy" for n, d in zip(fractions, dose, strict=True)])
    return Wells(
        np.array(table.subjects, object),
        rows.times,
        rows.values,
        valid,
        dose,
        fractions,
        np.array([f"{s} every {h:g} h" for s, h in zip(schedule, hours, strict=True)]),
        np.array([f"{t:.3g} Gy every {h:g} h" for t, h in zip(total, hours, strict=True)]),
        schedule,
        about["split"] != "training",
    )


def _grouped(total: np.ndarray) -> np.ndarray:
    """Every total dose as the smallest of those that are the same but for rounding."""
    values = np.unique(total)
    first = np.concatenate([[True], np.diff(values) > SAME_DOSE * values[:-1]])
    return values[first][np.cumsum(first)[np.searchsorted(values, total)] - 1]


def effective_dose(dose: float, fractions: float) -> float:
    """BED [Gy] at alpha/beta 10 Gy."""
    return float(biologically_effective_dose(jnp.full(int(fractions), dose), 10.0))


class Dishes(eqx.Module):
    """What the model needs to know of wells: `start`, `dose`, `fractions` [well], `days` [well, time]."""

    start: Float[Array, " well"]
    dose: Float[Array, " well"]
    fractions: Float[Array, " well"]
    days: Float[Array, "well time"]
    steps: int = eqx.field(static=True)

    @staticmethod
    def of(wells: Wells, last: float) -> "Dishes":
        """Those of `wells`, solved until day `last`."""
        return Dishes(
            jnp.asarray(np.maximum(wells.start, DETECTION)),
            jnp.asarray(wells.dose),
            jnp.asarray(wells.fractions),
            jnp.asarray(wells.days),
            int(np.ceil(last * STEPS - 1e-6)),
        )


def confluence(model: DelayedDeath, dishes: Dishes) -> Float[Array, "well time"]:
    """The confluence by Runge-Kutta steps of two hours, between which its logarithm is straight.

    All wells share the steps and the hours of the fractions, so a scan over steps serves the table at once, and forward
    derivatives cost a scan each. `simulate_compartment` (steps of each well's own, 1e-8) differs by less than 1e-4.
    """
    width = 1.0 / STEPS

    def moved(state: object, by: float, slope: object) -> object:
        return jax.tree.map(lambda x, v: x + by * v, state, slope)

    def step(state: object, number: Int[Array, ""]) -> tuple[object, Array]:
        given = (number % STEPS == 0) & (number // STEPS < dishes.fractions)
        now = model.jump(state, jnp.where(given, dishes.dose, 0.0))  # pyright: ignore[reportArgumentType]
        rate = lambda s: model.rate(s, jnp.zeros(()))  # noqa: E731
        one = rate(now)
        two = rate(moved(now, 0.5 * width, one))
        three = rate(moved(now, 0.5 * width, two))
        four = rate(moved(now, width, three))
        mean = jax.tree.map(lambda a, b, c, d: (a + 2.0 * b + 2.0 * c + d) / 6.0, one, two, three, four)
        after = moved(now, width, mean)
        return after, model.burden(after)  # pyright: ignore[reportArgumentType]

    first = model.initial()
    _, later = jax.lax.scan(step, first, jnp.arange(dishes.steps))
    path = jnp.log(jnp.concatenate([model.burden(first)[None], later]))
    place = jnp.clip(dishes.days.T * STEPS, 0.0, dishes.steps)
    left = jnp.clip(jnp.floor(place + 1e-9).astype(int), 0, dishes.steps - 1)
    weight = place - left
    low, high = (jnp.take_along_axis(path, left + k, axis=0) for k in (0, 1))
    return jnp.exp((1.0 - weight) * low + weight * high).T
