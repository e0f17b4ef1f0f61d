"""Patients treated by a rule, visit by visit: the truth lives, is read with noise, is learned from, is decided upon."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.gallagher2024.particles import Record, effective, learned, renewed, started
from experiments.gallagher2024.planner import SchedulePlanner, decided
from experiments.gallagher2024.population import BASELINE, Truths, lived_exactly, tumors
from experiments.gallagher2024.tumor import State
from tumortwin.control import AbstractFeedbackPolicy

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
def _interval(truths: Truths, state: State, dose: Array) -> tuple[State, Array, Array]:
    found = lived_exactly(tumors(truths.theta), state, dose)
    return found.state, found.days, found.passed


def replanned(
    truths: Truths, planner: SchedulePlanner, prior: Float[Array, "particle parameter"], noise: float, *, key: Array
) -> Courses:
    """At every visit the posterior is estimated again and the rest is planned again."""
    visits = truths.errors.shape[1]
    ledger = _Ledger.start(truths, visits)
    particles = started(prior.astype(jnp.float32), truths.size)
    information = jnp.asarray(0.0 if np.isinf(noise) else noise**-2.0, jnp.float32)
    plan = jnp.ones((truths.size, visits), jnp.float32)
    least = float(prior.shape[0])
    alive = np.arange(truths.size)
    for k in range(visits):
        rows = _padded(np.flatnonzero(ledger.going), alive)
        if rows is None:
            break
        if rows.size < alive.size:
            place = np.searchsorted(alive, rows)
            particles, plan = jax.tree.map(lambda leaf, p=place: leaf[p], (particles, plan))
            alive = rows
        plan = decided(planner, particles, plan, jnp.asarray(k))
        ledger.live(truths, alive, np.asarray(plan[:, k]), k, noise)
        record = Record(
            jnp.asarray(ledger.dose[alive], jnp.float32), jnp.asarray(ledger.reading[alive], jnp.float32), information
        )
        particles = learned(particles, record, jnp.asarray(k))
        fewest = float(jnp.min(effective(particles)))
        least = min(least, fewest)
        if fewest < 0.5 * particles.theta.shape[1]:
            particles = renewed(particles, record, jnp.asarray(k + 1), jax.random.fold_in(key, k))
    return dataclasses.replace(ledger.closed(), least_effective=least)


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

    state: State
    going: np.ndarray
    days: np.ndarray
    dose: np.ndarray
    reading: np.ndarray
    burden: np.ndarray

    @classmethod
    def start(cls, truths: Truths, visits: int) -> "_Ledger":
        n = truths.size
        state = tumors(truths.theta).initial()
        blank = np.zeros((n, visits))
        return cls(state, np.ones(n, bool), np.zeros(n), blank.copy(), blank.copy(), np.full((n, visits), np.nan))

    def live(self, truths: Truths, rows: np.ndarray, dose: np.ndarray, visit: int, noise: float) -> None:
        """One interval of all patients, the dose of `rows` given (nothing to the others, who have progressed)."""
        given = np.zeros(self.going.size)
        given[rows] = dose
        self.dose[:, visit] = given
        self.burden[self.going, visit] = np.asarray(self.state.sensitive + self.state.resistant)[self.going]
        self.state, days, passed = _interval(truths, self.state, jnp.asarray(given))
        self.days += np.where(self.going, np.asarray(days), 0.0)
        self.going &= np.asarray(passed)
        self.reading[:, visit] = np.asarray(read(truths, self.state.sensitive + self.state.resistant, visit, noise))

    def closed(self) -> Courses:
        return Courses(self.days, self.dose, self.reading, self.burden)


def _under(truths: Truths, policy: AbstractFeedbackPolicy, noise: float) -> tuple[Array, tuple[Array, Array, Array]]:
    """Days to progression, and dose, reading and burden [visit patient]."""
    model = tumors(truths.theta)
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


@eqx.filter_jit
def _scheduled(truths: Truths, plan: Float[Array, " visit"]) -> tuple[Array, Array]:
    model = tumors(truths.theta)

    def interval(carry: tuple[Any, ...], dose: Array) -> tuple[tuple[Any, ...], Array]:
        state, going, days = carry
        found = lived_exactly(model, state, jnp.broadcast_to(dose, going.shape))
        shown = jnp.where(going, model.burden(state), jnp.nan)
        return (found.state, going & found.passed, days + jnp.where(going, found.days, 0.0)), shown

    start = (model.initial(), jnp.ones(truths.size, bool), jnp.zeros(truths.size))
    carry, burden = jax.lax.scan(interval, start, plan)
    return carry[2], burden.T


def scheduled(truths: Truths, plan: Float[np.ndarray, " visit"]) -> Courses:
    """Patients under one schedule, whatever is seen."""
    days, burden = _scheduled(truths, jnp.asarray(plan))
    dose = np.broadcast_to(plan, burden.shape)
    return Courses(np.asarray(days), dose, np.full(burden.shape, np.nan), np.asarray(burden))
