"""Many patients through one cycle, on fixed steps: fast, with gradients, and held against the adaptive solver.

`simulate_compartment` refines the 11 states to a relative 1e-8 (half a minute for 65 patients). Here what is linear has
a closed form (cytarabine in plasma, lenograstim under the skin) and the rest goes by exponential steps of one hour,
the coefficients of a step averaged over its two ends (second order):

- E is averaged over a step by Gauss-Legendre quadrature of s ln(1 + C(t));
- a variable with X' = q (r - X) takes r as linear over the step, so that the fast G-CSF follows its balance r.

The equations are those of `tumortwin.models.LeukemiaMyelosuppression`, or with another `Law` those of another class:
a chain of transit stages of another length, and blasts that grow by Gompertz' law whatever the white cells do.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.models import LeukemiaMyelosuppression
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import StepHistory

STEPS_PER_DAY = 24
NODES, WEIGHTS = (a / 2.0 for a in np.polynomial.legendre.leggauss(4))
INFUSION = 0.125  # [day]: 3 h
SLOTS = tuple(0.5 * k for k in range(6))  # [day]: every 12 h on three days
MARROW = 500.0  # [G/L]: a full one
MAXIMAL = 3000.0 * 1.8 / 243.2 * 1e3  # [umol]: 3 g/m2, 1.8 m2, 243.2 g/mol
FACTOR = 263.0  # [ug]: a vial of lenograstim a day, some 150 ug/m2


@dataclasses.dataclass(frozen=True)
class Cycle:
    """Days that are simulated, from `first` to `last` [day], the days on which lenograstim may be given, and the starts
    of the infusions of cytarabine [day]. Day 0 is that of the first infusion.
    """

    first: float
    last: float
    factor_days: tuple[float, ...]
    slots: tuple[float, ...] = SLOTS

    @property
    def days(self) -> np.ndarray:
        """Ends of all steps [day]."""
        return np.linspace(self.first, self.last, round((self.last - self.first) * STEPS_PER_DAY) + 1)


@functools.lru_cache(maxsize=8)
def _responses(cycle: Cycle, rates: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Plasma times volume [step node slot] for 1 umol a slot; absorbed lenograstim [edge day] for 1 ng/L given."""
    elimination, to_tissue, from_tissue, absorption = rates
    days = cycle.days
    nodes = days[:-1, None] + np.diff(days)[:, None] * (0.5 + NODES)
    return (
        np.stack([_infused(nodes - slot, elimination, to_tissue, from_tissue) for slot in cycle.slots], axis=2),
        np.stack([_absorbed(days - day, absorption) for day in cycle.factor_days], axis=1)
        if cycle.factor_days
        else np.zeros((days.size, 0)),
    )


def _infused(age: np.ndarray, elimination: float, to_tissue: float, from_tissue: float) -> np.ndarray:
    """Amount in plasma over volume 1, of an infusion of 1 umol over three hours."""
    total = elimination + to_tissue + from_tissue
    root = np.sqrt(total**2 - 4.0 * elimination * from_tissue)
    fast, slow = (total + root) / 2.0, (total - root) / 2.0
    during, after = np.clip(age, 0.0, INFUSION), np.maximum(age - INFUSION, 0.0)

    def part(rate: float, share: float) -> np.ndarray:
        return share / (rate * INFUSION) * -np.expm1(-rate * during) * np.exp(-rate * after)

    return part(fast, (fast - from_tissue) / (fast - slow)) + part(slow, (from_tissue - slow) / (fast - slow))


def _absorbed(age: np.ndarray, absorption: float) -> np.ndarray:
    """Second of two absorbing compartments after 1 in the depot at age 0: rates a, b, b with b = 10/3 a."""
    a, b = absorption, 10.0 / 3.0 * absorption
    t = np.maximum(age, 0.0)
    gap = b - a
    return a * b / gap**2 * (np.exp(-a * t) - np.exp(-b * t) * (1.0 + gap * t))


@dataclasses.dataclass(frozen=True)
class Law:
    """What is not a parameter of the model: the number of transit `stages` between dividing and circulating cells, and
    `blast_growth` [1/day, patient]: None for blasts that the white cells inhibit (the published class), otherwise the
    rate g of Gompertz' law, L1' = g L1 ln(500 / L1) - kill, which knows no white cell."""

    stages: int = 1
    blast_growth: Array | None = None


jax.tree_util.register_dataclass(Law, ["blast_growth"], ["stages"])
PUBLISHED = Law()


@dataclasses.dataclass(frozen=True)
class Course:
    """What the patients go through, [time patient] on `days`: `white` cells [G/L], blasts in the `marrow` [%]."""

    days: Array
    white: Array
    marrow: Array


jax.tree_util.register_dataclass(Course, ["days", "white", "marrow"], [])


def simulate(
    model: LeukemiaMyelosuppression,
    cycle: Cycle,
    cytarabine: Float[Array, "... slot"],
    factor: Float[Array, "... day"],
    law: Law = PUBLISHED,
) -> Course:
    """One cycle under `cytarabine` [share of the maximal dose] in the slots and `factor` [share of a vial] by day.

    Parameters of the model and doses are scalars or begin with [patient].
    """
    rates = tuple(float(getattr(MODEL, n)) for n in ("elimination", "to_tissue", "from_tissue", "absorption"))
    plasma, absorbed = _responses(cycle, rates)
    shape = jnp.broadcast_shapes(model.baseline.shape, model.volume.shape, cytarabine.shape[:-1], factor.shape[:-1])
    model = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), model)
    cytarabine = jnp.broadcast_to(cytarabine, (*shape, cytarabine.shape[-1]))
    depot = jnp.broadcast_to(factor, (*shape, factor.shape[-1])) * FACTOR * 1000.0 / model.factor_volume[..., None]
    concentration = jnp.einsum("tns,...s->tn...", jnp.asarray(plasma), cytarabine) * MAXIMAL / model.volume[None, None]
    kills = model.kill_slope[None] * jnp.einsum("n,tn...->t...", jnp.asarray(WEIGHTS), jnp.log1p(concentration))
    second = 10.0 / 3.0 * model.absorption[None]
    supplied = second * jnp.einsum("td,...d->t...", jnp.asarray(absorbed), depot)
    cells = jnp.broadcast_to(model.baseline * model.white_death / model.transit_rate, shape)
    start = tuple(
        jnp.broadcast_to(jnp.asarray(x), shape)
        for x in (
            model.factor_baseline, cells, model.baseline, model.start_marrow, model.start_blood, *[cells] * law.stages
        )
    )  # fmt: skip
    duration = 1.0 / STEPS_PER_DAY

    def step(state: tuple[Array, ...], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        kill, before, after = now
        guess = _stepped(model, law, state, state, kill, before, after, duration)
        found = _stepped(model, law, state, guess, kill, before, after, duration)
        return found, (found[2], _share(found))

    _, (white, marrow) = jax.lax.scan(step, start, (kills, supplied[:-1], supplied[1:]))
    return Course(
        jnp.asarray(cycle.days),
        jnp.concatenate([start[2][None], white]),
        jnp.concatenate([_share(start)[None], marrow]),
    )


def _share(state: tuple[Array, ...]) -> Array:
    """Blasts in the marrow [%]; some of the transit cells count as blasts."""
    return 100.0 * (state[3] + 0.005 * sum(state[5:])) / MARROW


MODEL = LeukemiaMyelosuppression()


def _followed(x: Array, rate: Array, first: Array, last: Array, duration: float) -> Array:
    """X' = rate (r - X) with r linear from `first` to `last`."""
    gone = jnp.exp(-rate * duration)
    slope = (last - first) / (rate * duration)
    return last - slope + (x - first + slope) * gone


def _stepped(
    m: LeukemiaMyelosuppression,
    law: Law,
    old: tuple[Array, ...],
    new: tuple[Array, ...],
    kill: Array,
    before: Array,
    after: Array,
    duration: float,
) -> tuple[Array, ...]:
    """The step from `old`, its coefficients the means of those of `old` and of a guess `new` of its end."""
    (factor, cells, white, marrow, blood, *transit), (factor_, _, white_, marrow_, blood_, *_) = old, new
    maturing = 0.5 * m.transit_rate * _sum_of_powers(factor, factor_, m.factor_baseline, m.maturation_exponent)
    dividing = 0.5 * m.transit_rate * _sum_of_powers(factor, factor_, m.factor_baseline, m.division_exponent)
    cells_end = cells * jnp.exp(duration * (dividing * (1.0 - kill) - maturing))
    first, last, transit_end = cells, cells_end, []
    for stage in transit:
        end = _followed(stage, maturing, first, last, duration)
        first, last, transit_end = stage, end, [*transit_end, end]
    share = maturing / m.white_death
    white_end = _followed(white, m.white_death, share * first, share * last, duration)
    if law.blast_growth is None:
        renewal, renewal_ = (
            m.self_renewal / (1.0 + m.inhibition * (w + b)) for w, b in ((white, blood), (white_, blood_))
        )
        mean = 0.5 * (renewal + renewal_)
        growth = m.blast_division * (2.0 * mean - 1.0)
    else:
        mean = m.self_renewal
        growth = 0.5 * law.blast_growth * (jnp.log(MARROW / marrow) + jnp.log(MARROW / marrow_))
    marrow_end = marrow * jnp.exp(duration * (growth - m.blast_division * kill))
    born = 2.0 * (1.0 - mean) * m.blast_division / m.blast_death
    blood_end = _followed(blood, m.blast_death, born * marrow, born * marrow_end, duration)
    made = (m.factor_elimination + m.factor_uptake * m.baseline) * m.factor_baseline
    cleared, cleared_ = (
        m.factor_elimination + m.factor_uptake * (w + b) for w, b in ((white, blood), (white_end, blood_end))
    )
    balance, balance_ = (made + before) / cleared, (made + after) / cleared_
    factor_end = _followed(factor, 0.5 * (cleared + cleared_), balance, balance_, duration)
    return factor_end, cells_end, white_end, marrow_end, blood_end, *transit_end


def _sum_of_powers(first: Array, last: Array, unit: Array, exponent: Array) -> Array:
    return (first / unit) ** exponent + (last / unit) ** exponent


def adaptive(
    model: LeukemiaMyelosuppression,
    cycle: Cycle,
    cytarabine: Float[Array, " slot"],
    factor: Float[Array, " day"],
    days: Float[Array, " time"],
) -> Any:
    """The same of one schedule by the adaptive solver, [patient time]; days count from the start of the simulation."""
    edges = np.sort(np.concatenate([np.asarray(cycle.slots), np.asarray(cycle.slots) + INFUSION])) - cycle.first
    levels = jnp.zeros(2 * len(cycle.slots) + 1).at[1::2].set(jnp.asarray(cytarabine) * MAXIMAL / INFUSION)
    ts = jnp.broadcast_to(days - cycle.first, (*model.baseline.shape, days.size))
    doses = None
    if cycle.factor_days:
        doses = (jnp.asarray(cycle.factor_days) - cycle.first, jnp.asarray(factor) * FACTOR)
    return simulate_compartment(model, ts, StepHistory(jnp.asarray(edges), levels), doses)
