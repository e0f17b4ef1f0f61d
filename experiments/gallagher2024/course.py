"""Patients treated by a rule, visit by visit: the truth lives, is read with noise, is learned from, is decided upon."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.gallagher2024.particles import Record, effective, learned, renewed, started
from experiments.gallagher2024.planner import Imagined, SchedulePlanner
from experiments.gallagher2024.population import BASELINE, NOISE, Truths, lived_exactly
from tumortwin.control import AbstractFeedbackPolicy, Known, SchedulePolicy, Visit

PARTICLES = 512


@dataclasses.dataclass(frozen=True)
class Courses:
    """What happened: `days` to progression (or the horizon) [patient], doses, readings (ln of the measured burden) and
    burdens [patient visit], and the least effective number of particles after renewal of any patient and visit."""

    days: Float[np.ndarray, " patient"]
    dose: Float[np.ndarray, "patient visit"]
    reading: Float[np.ndarray, "patient visit"]
    burden: Float[np.ndarray, "patient visit"]
    least_effective: float = float("nan")

    @property
    def drug_share(self) -> float:
        """The mean share of a patient's visits under drug, until progression."""
        lived = np.isfinite(self.burden)
        return float(np.mean((self.dose * lived).sum(axis=1) / lived.sum(axis=1)))


def read(truths: Truths, burden: Array, visit: int | Array, noise: float) -> Array:
    """ln of the measured burden; without information (infinite noise) it says nothing and is set to the baseline."""
    if np.isinf(noise):
        return jnp.full_like(burden, np.log(BASELINE))
    return jnp.log(burden) + noise * truths.errors[:, visit].astype(burden.dtype)


@eqx.filter_jit
def _interval(truths: Truths, state: Any, dose: Array) -> tuple[Any, Array, Array]:
    found = lived_exactly(truths.model, state, dose)
    return found.state, found.days, found.passed


def replanned(
    truths: Truths, planner: SchedulePlanner, prior: Float[Array, "particle parameter"], noise: float, *, key: Array
) -> Courses:
    """At every visit the posterior is estimated again and the rest is planned again."""
    ward = _Ward(truths, prior, planner.draws, noise)
    doses = planner.delivered(ward.reestimate, patients=truths.size, visits=truths.errors.shape[1], key=key)
    return ward.closed(doses)


class _Ward:
    """A simulated clinic: patients live under what is delivered and are read, and particles learn from it."""

    def __init__(self, truths: Truths, prior: Float[Array, "particle parameter"], draws: int, noise: float) -> None:
        self.truths, self.draws, self.noise = truths, draws, noise
        self.ledger = _Ledger.start(truths, truths.errors.shape[1])
        self.particles = started(prior.astype(jnp.float32), truths.size)
        self.information = jnp.asarray(0.0 if np.isinf(noise) else noise**-2.0, jnp.float32)
        self.alive = np.arange(truths.size)
        self.least = float(prior.shape[0])

    def reestimate(self, visit: Visit, key: Array) -> Known | None:
        """The patients who have not progressed, by draws of what is known of them."""
        if visit.index:
            self._learn(visit, visit.index - 1, key)
        rows = _padded(np.flatnonzero(self.ledger.going), self.alive)
        if rows is None:
            return None
        if rows.size < self.alive.size:
            place = np.searchsorted(self.alive, rows)
            self.particles = jax.tree.map(lambda leaf: leaf[place], self.particles)
            self.alive = rows
        return Known(Imagined.of(self.particles, self.draws), rows=rows)

    def _learn(self, visit: Visit, last: int, key: Array) -> None:
        """The interval that began at the visit `last`: lived, read, learned from."""
        self.ledger.live(self.truths, visit.delivered[:, last], last, self.noise)
        doses, readings = (
            jnp.asarray(part[self.alive], jnp.float32) for part in (visit.delivered, self.ledger.reading)
        )
        record = Record(doses, readings, self.information)
        self.particles = learned(self.particles, record, jnp.asarray(last))
        fewest = float(jnp.min(effective(self.particles)))
        self.least = min(self.least, fewest)
        if fewest < 0.5 * self.particles.theta.shape[1]:
            self.particles = renewed(self.particles, record, jnp.asarray(visit.index), key)

    def closed(self, doses: Float[np.ndarray, "patient visit"]) -> Courses:
        """What happened, the last interval too."""
        if self.ledger.going.any():
            self.ledger.live(self.truths, doses[:, -1], doses.shape[1] - 1, self.noise)
        return dataclasses.replace(self.ledger.closed(), least_effective=self.least)


def _padded(going: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """The patients to go on with: halved whenever half of them have progressed, so that few programs are compiled."""
    if going.size == 0:
        return None
    size = rows.size
    while size > 4 and going.size <= -(-size // 2):
        size = -(-size // 2)
    if size == rows.size:
        return rows
    done = np.setdiff1d(rows, going)[: size - going.size]
    return np.sort(np.concatenate([going, done]))


@dataclasses.dataclass
class _Ledger:
    """The truth as it goes: what `Courses` is made of."""

    state: Any
    going: np.ndarray
    days: np.ndarray
    dose: np.ndarray
    reading: np.ndarray
    burden: np.ndarray

    @classmethod
    def start(cls, truths: Truths, visits: int) -> "_Ledger":
        n = truths.size
        blank = np.zeros((n, visits))
        first = truths.model.initial()
        return cls(first, np.ones(n, bool), np.zeros(n), blank.copy(), blank.copy(), np.full((n, visits), np.nan))

    def live(self, truths: Truths, dose: Float[np.ndarray, " patient"], visit: int, noise: float) -> None:
        """The interval from `visit` on of all patients; who has progressed gets nothing."""
        given = np.where(self.going, dose, 0.0)
        self.dose[:, visit] = given
        self.burden[self.going, visit] = np.asarray(truths.model.burden(self.state))[self.going]
        self.state, days, passed = _interval(truths, self.state, jnp.asarray(given))
        self.days += np.where(self.going, np.asarray(days), 0.0)
        self.going &= np.asarray(passed)
        self.reading[:, visit] = np.asarray(read(truths, truths.model.burden(self.state), visit, noise))

    def closed(self) -> Courses:
        return Courses(self.days, self.dose, self.reading, self.burden)


def _under(truths: Truths, policy: AbstractFeedbackPolicy, noise: float) -> tuple[Array, tuple[Array, Array, Array]]:
    """Days to progression, and dose, reading and burden [visit patient]."""
    model = truths.model
    seen = jnp.full(truths.size, BASELINE)

    def interval(carry: tuple[Any, ...], visit: Array) -> tuple[tuple[Any, ...], tuple[Array, Array, Array]]:
        state, memory, seen, going, days = carry
        memory, dose = jax.vmap(policy.decide)(memory, seen)
        found = lived_exactly(model, state, dose)
        reading = read(truths, model.burden(found.state), visit, noise)
        before = jnp.where(going, model.burden(state), jnp.nan)
        days = days + jnp.where(going, found.days, 0.0)
        return (found.state, memory, jnp.exp(reading), going & found.passed, days), (dose, reading, before)

    start = (model.initial(), jax.vmap(policy.start)(seen), seen, jnp.ones(truths.size, bool), jnp.zeros(truths.size))
    carry, shown = jax.lax.scan(interval, start, jnp.arange(truths.errors.shape[1]))
    return carry[4], shown


def days_under(truths: Truths, policy: AbstractFeedbackPolicy, noise: float) -> Float[Array, " patient"]:
    """Days to progression under a feedback policy that sees the readings."""
    return _under(truths, policy, noise)[0]


def ruled(truths: Truths, policy: AbstractFeedbackPolicy, noise: float) -> Courses:
    """Patients under a feedback policy that sees the readings."""
    days, shown = eqx.filter_jit(_under)(truths, policy, noise)
    dose, reading, burden = (np.asarray(part).T for part in shown)
    return Courses(np.asarray(days), dose, reading, burden)


def scheduled(truths: Truths, plan: Float[np.ndarray, " visit"]) -> Courses:
    """Patients under one schedule, whatever is seen."""
    return ruled(truths, SchedulePolicy(jnp.asarray(plan, float)), NOISE)
