"""One schedule a patient: six doses of cytarabine and the days of lenograstim, all patients side by side.

$$ \\max_u \\; -s \\ln \\sum_t e^{-\\ln W(t) / s} \\quad \\text{with blasts on day 28 below a limit,}
   \\quad u \\in [0, 1]^n, \\; \\sum_{days} u \\le 10 $$

by projected Adam on an augmented Lagrangian. What still breaks the limit at the end is mixed with full cytarabine until
it does not: every schedule that is returned keeps box, budget and limit, or is the standard itself.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from experiments.jost2020.bank import PUBLISHED, SLOTS, STEPS_PER_DAY, Cycle, Law, simulate
from experiments.jost2020.patients import LEUKOPENIA
from tumortwin.models import LeukemiaMyelosuppression

PLANNED = Cycle(-8.0, 28.0, tuple(float(d) for d in range(-7, 21)))
FROM = round(-PLANNED.first * STEPS_PER_DAY)  # index of day 0
VIALS = 10.0
STANDARD_FIRST, STANDARD_DAYS = 7, 10  # lenograstim after chemotherapy, from a week after its start
SOFTNESS = 0.05  # [ln]
BLASTS = 5.0  # [%]
RATE, LEAST = 0.05, 0.1  # of Adam, in shares of a dose; the part of it that is left at the end
GROWTH, PENALTY = 1.5, 5.0  # of the penalty of the limit every ROUND steps; its first value
ROUND = 20
HALVINGS = 12
ROUNDING = 1e-9
NO_LIMIT = 1e6  # [%]


@dataclasses.dataclass(frozen=True)
class Plans:
    """Doses [patient slot] and vials [patient day] in shares, and what they lead to [patient]."""

    cytarabine: np.ndarray
    factor: np.ndarray
    nadir: np.ndarray
    blasts: np.ndarray

    @property
    def leukopenia(self) -> float:
        """Share of patients below 1 G/L."""
        return float(np.mean(self.nadir < LEUKOPENIA))


def standard_factor(given: bool) -> np.ndarray:
    """Vials by day of the standard, or none."""
    last = STANDARD_FIRST + STANDARD_DAYS
    return np.asarray([float(given and STANDARD_FIRST <= d < last) for d in PLANNED.factor_days])


def judged(models: LeukemiaMyelosuppression, cytarabine: np.ndarray, factor: np.ndarray, law: Law = PUBLISHED) -> Plans:
    """What schedules [patient ...] lead to."""
    n = models.baseline.size
    cytarabine = np.broadcast_to(cytarabine, (n, len(SLOTS)))
    factor = np.broadcast_to(factor, (n, len(PLANNED.factor_days)))
    nadir, blasts = _outcome(models, jnp.asarray(cytarabine), jnp.asarray(factor), law)
    return Plans(cytarabine, factor, np.asarray(nadir), np.asarray(blasts))


@eqx.filter_jit
def _outcome(models: LeukemiaMyelosuppression, cytarabine: Array, factor: Array, law: Law) -> tuple[Array, Array]:
    found = simulate(models, PLANNED, cytarabine, factor, law)
    return jnp.min(found.white[FROM:], axis=0), found.marrow[-1]


def optimised(
    models: LeukemiaMyelosuppression,
    limit: Float[np.ndarray, " patient"],
    *,
    steps: int,
    fixed_doses: bool = False,
    common: bool = False,
) -> Plans:
    """The best schedule of every patient, or one for all (`common`: the mean of the logarithms of the nadirs, and the
    limit for every patient that full cytarabine keeps below it); `fixed_doses`: cytarabine stays full.
    """
    n, rows = models.baseline.size, 1 if common else models.baseline.size
    doses, vials = np.ones((rows, len(SLOTS))), np.full((rows, len(PLANNED.factor_days)), 0.1)
    full = judged(models, np.ones(len(SLOTS)), standard_factor(True))
    # Whom full cytarabine does not keep below the limit: no more than under it; no say in a schedule for all.
    limit = np.where(full.blasts < limit, limit, np.inf if common else full.blasts)
    u = _admissible(jnp.concatenate([jnp.asarray(doses), jnp.asarray(vials)], axis=1), fixed_doses)
    optimiser = optax.adam(RATE)
    state, multiplier, penalty = optimiser.init(u), jnp.zeros(n), PENALTY
    for k in range(steps):
        slopes, excess = _slopes(models, u, multiplier, penalty, jnp.asarray(np.log(np.minimum(limit, NO_LIMIT))))
        changes, state = optimiser.update(slopes, state)
        u = _admissible(u + jnp.asarray(changes) * max(1.0 - k / steps, LEAST), fixed_doses)
        if (k + 1) % ROUND == 0:
            multiplier, penalty = jnp.maximum(multiplier + penalty * excess, 0.0), penalty * GROWTH
    return _kept(models, np.asarray(u), limit, np.concatenate([np.ones(len(SLOTS)), standard_factor(True)]))


@eqx.filter_jit
def _slopes(
    models: LeukemiaMyelosuppression, u: Array, multiplier: Array, penalty: float, limit: Array
) -> tuple[Array, Array]:
    def total(v: Array) -> tuple[Array, Array]:
        found = simulate(models, PLANNED, v[:, : len(SLOTS)], v[:, len(SLOTS) :])
        low = jnp.log(found.white[FROM:])
        soft = -SOFTNESS * (jax.nn.logsumexp(-low / SOFTNESS, axis=0) - jnp.log(low.shape[0]))
        excess = jnp.log(found.marrow[-1]) - limit
        held = jnp.maximum(multiplier + penalty * excess, 0.0) ** 2 / (2.0 * penalty)
        return jnp.sum(-soft + held), excess

    slopes, excess = jax.grad(total, has_aux=True)(u)
    return slopes, excess


@eqx.filter_jit
def _admissible(u: Array, fixed_doses: bool) -> Array:
    """The nearest decision in the box and within the budget of vials (one shift for all days, by bisection)."""
    doses = jnp.ones_like(u[:, : len(SLOTS)]) if fixed_doses else jnp.clip(u[:, : len(SLOTS)], 0.0, 1.0)
    vials = u[:, len(SLOTS) :]

    def halved(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = 0.5 * (low + high)
        above = jnp.sum(jnp.clip(vials - middle, 0.0, 1.0), axis=1, keepdims=True) > VIALS
        return (jnp.where(above, middle, low), jnp.where(above, high, middle)), None

    zero = jnp.zeros_like(u[:, :1])
    over = jnp.sum(jnp.clip(vials, 0.0, 1.0), axis=1, keepdims=True) > VIALS
    (_, shift), _ = jax.lax.scan(halved, (zero, zero + jnp.max(vials)), None, length=50)
    vials = jnp.clip(vials - jnp.where(over, shift, 0.0), 0.0, 1.0)
    return jnp.concatenate([doses, vials], axis=1)


def _kept(models: LeukemiaMyelosuppression, u: np.ndarray, limit: np.ndarray, standard: np.ndarray) -> Plans:
    """`u`, moved as little as the limit asks for towards full cytarabine on its own days of lenograstim, and where that
    is not enough towards the standard (box and budget are convex: they stay kept)."""
    full = np.concatenate([np.ones((len(u), len(SLOTS))), u[:, len(SLOTS) :]], axis=1)
    u = _drawn(models, u, full, limit)
    return _judged_rows(models, _drawn(models, u, np.broadcast_to(standard, u.shape), limit))


def _drawn(models: LeukemiaMyelosuppression, u: np.ndarray, goal: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The first decision on the way to `goal` that keeps the limit, by bisection; `goal` where none does."""

    def broken(share: np.ndarray) -> np.ndarray:
        over = _judged_rows(models, u + share[:, None] * (goal - u)).blasts > limit * (1.0 + ROUNDING)
        return over if len(u) > 1 else np.asarray([over.any()])

    low, high = np.zeros(len(u)), np.where(broken(np.zeros(len(u))), 1.0, 0.0)
    for _ in range(HALVINGS if high.any() else 0):
        middle = 0.5 * (low + high)
        over = broken(middle)
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return u + high[:, None] * (goal - u)


def _judged_rows(models: LeukemiaMyelosuppression, u: np.ndarray) -> Plans:
    return judged(models, u[:, : len(SLOTS)], u[:, len(SLOTS) :])
