"""A twin of few numbers: one subject of a table, whose measurements come in one visit at a time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from tumortwin.inference import (
    Measurements,
    Particles,
    PopulationProblem,
    Posterior,
    SmcCalibrator,
    Update,
    Varying,
    assimilate,
)
from tumortwin.models import AbstractCompartmentModel
from tumortwin.observation import AbstractResidualError
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import StepHistory

# Measurements are padded to a multiple of this: another visit compiles nothing.
BUCKET = 8


class Treatment(eqx.Module):
    """What one subject was given: `exposure` (none: 0), and doses [event] on days [event].

    Later doses are part of it from the start, with an amount of zero where none was given yet.
    """

    dose_days: Float[Array, " event"] = eqx.field(default_factory=lambda: jnp.zeros(0))
    doses: Float[Array, " event"] = eqx.field(default_factory=lambda: jnp.zeros(0))
    exposure: StepHistory | None = None


class TreatedCurves(eqx.Module):
    """The burden of one subject under its treatment: the `solve` of a `CompartmentTwin`."""

    def __call__(self, model: Any, data: Measurements) -> Float[Array, "subject time"]:
        given = data.given
        doses = (given.dose_days, given.doses) if given.doses.size else None
        found = simulate_compartment(model, data.times, exposure=given.exposure, times_and_doses=doses)
        return jnp.where(found.succeeded[:, None], found.burden, jnp.nan)


@dataclasses.dataclass(frozen=True)
class Reading:
    """One measurement: `day`, and what is known of the value (equal bounds: exact; an interval: rounded, censored)."""

    day: float
    lower: float
    upper: float

    @classmethod
    def exact(cls, day: float, value: float) -> "Reading":
        """A value without rounding."""
        return cls(float(day), float(value), float(value))


@dataclasses.dataclass(frozen=True)
class CompartmentTwin:
    """One version of a twin that lives by a compartment model. Immutable: `assimilate` returns the next version.

    `problem` holds model, prior, error model and treatment of the subject, its measurements being those of `readings`;
    `particles` what is believed after them (None before the first).
    """

    id: str
    problem: PopulationProblem
    readings: tuple[Reading, ...] = ()
    particles: Particles | None = None

    @classmethod
    def of(
        cls,
        id: str,
        model: AbstractCompartmentModel,
        prior: Mapping[str, Distribution],
        residual: AbstractResidualError,
        residual_prior: Mapping[str, Distribution] | None = None,
        treatment: Treatment | None = None,
    ) -> "CompartmentTwin":
        """A twin before its first reading.

        **Arguments:** `prior`: parameter path -> distribution over subjects (a population that was learned elsewhere);
        `residual_prior`: field of the error model -> distribution (others stay as they are).
        """
        varying = {path: Varying(entry) for path, entry in prior.items()}
        nothing = _measurements((), Treatment() if treatment is None else treatment)
        return cls(
            id, PopulationProblem(model, varying, residual, dict(residual_prior or {}), nothing, TreatedCurves())
        )

    @property
    def version(self) -> int:
        """How many updates made this twin."""
        return 0 if self.particles is None else self.particles.version

    @property
    def history(self) -> tuple[Update, ...]:
        """What came in, when, and how well it had been foreseen."""
        return () if self.particles is None else self.particles.history

    def assimilate(self, reading: Reading, calibrator: SmcCalibrator, *, key: Array) -> "CompartmentTwin":
        """A new twin that has seen `reading` too; the same reading twice returns this very twin.

        A late reading, of a day before others that are in, is taken in all the same: parameters do not change in time,
        so that the order does not matter. It is marked in the `history`.

        **Raises:** `ValueError` for another value of a day that is already there, or a day before the model starts.
        """
        if reading in self.readings:
            return self
        same = [known for known in self.readings if known.day == reading.day]
        if same:
            raise ValueError(
                f"required: one reading a day; received a second one of day {reading.day:g}, "
                f"[{reading.lower:g}, {reading.upper:g}] after [{same[0].lower:g}, {same[0].upper:g}]; try: for a "
                "correction, a new twin that takes in all readings"
            )
        if not np.isfinite(reading.day) or reading.day < 0 or not reading.lower <= reading.upper:
            raise ValueError(
                f"required: a day from 0 on and lower <= upper; received: day {reading.day:g}, "
                f"[{reading.lower:g}, {reading.upper:g}]"
            )
        readings = tuple(sorted((*self.readings, reading), key=lambda known: known.day))
        problem = self._with(readings)
        return dataclasses.replace(
            self,
            problem=problem,
            readings=readings,
            particles=assimilate(self.particles, problem, calibrator, key=key),
        )

    def posterior(self, calibrator: SmcCalibrator) -> Posterior:
        """The posterior of the readings so far.

        **Raises:** `ValueError` before the first reading.
        """
        if self.particles is None:
            raise ValueError("required: a twin with a reading; received: one without; try: `assimilate`")
        return self.particles.posterior(self.problem, calibrator)

    def forecast(
        self, days: Float[np.ndarray, " day"], draws: int = 500, *, noise: bool = False, key: Array
    ) -> Float[np.ndarray, "draw day"]:
        """Draws of the burden on `days`, or with `noise` of what would be measured.

        Before the first reading they are of the prior.
        """
        pick_key, noise_key = jax.random.split(key)
        if self.particles is None:
            z = self.problem.sample_prior(draws, key=pick_key)
        else:
            weights = jnp.asarray(self.particles.state["log_weights"])
            rows = jax.random.categorical(pick_key, weights, shape=(draws,))
            z = jnp.asarray(self.particles.state["z"])[rows]
        found = _drawn(self.problem, z, jnp.asarray(days, float), noise, noise_key)
        return np.asarray(found)

    def _with(self, readings: tuple[Reading, ...]) -> PopulationProblem:
        data = _measurements(readings, self.problem.data.given)
        return eqx.tree_at(lambda problem: problem.data, self.problem, data)


def _measurements(readings: tuple[Reading, ...], treatment: Treatment) -> Measurements:
    """Padded to a multiple of `BUCKET`, the last day repeated."""
    missing = -len(readings) % BUCKET if readings else BUCKET
    last = readings[-1] if readings else Reading.exact(0.0, 1.0)
    rows = [*readings, *[last] * missing]
    times, lower, upper = (jnp.asarray([[getattr(row, n) for row in rows]], float) for n in ("day", "lower", "upper"))
    valid = jnp.asarray([[1.0] * len(readings) + [0.0] * missing])
    return Measurements(times, lower, upper, valid, given=treatment)


@eqx.filter_jit
def _drawn(problem: PopulationProblem, z: Array, days: Array, noise: bool, key: Array) -> Array:
    blank = jnp.zeros((1, days.size))
    asked = Measurements(days[None], blank, blank, blank, given=problem.data.given)

    def one(point: Array, draw_key: Array) -> Array:
        values = problem.constrain(point)
        curve = problem.solve(problem.bound(values), asked)[0]
        return jnp.asarray(problem.error(values).noise(curve).sample(draw_key)) if noise else curve

    return jax.vmap(one)(z, jax.random.split(key, z.shape[0]))
