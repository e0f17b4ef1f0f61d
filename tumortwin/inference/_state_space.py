"""Subjects whose hidden state moves between readings, the state summed out exactly."""

import zlib
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tumortwin.inference._prior import Prior, Values, prior_draws
from tumortwin.inference._problem import AbstractProblem, unique_names
from tumortwin.params import get_parameter, set_parameters


class Filtered(NamedTuple):
    """`log_evidence` [subject]; `state` [regime, class, subject]: probability of the state after the last reading,
    given all of them."""

    log_evidence: Array
    state: Array


def forward_filter(
    initial: Float[Array, "regime class"],
    transition: Float[Array, "regime regime row"],
    likelihood: Float[Array, "regime class row"],
    counts: tuple[int, ...],
    subjects: int,
) -> Filtered:
    """The forward recursion of a hidden Markov model, of all subjects at once.

    $$ \\alpha_j(k', c) = \\Big(\\sum_k \\alpha_{j-1}(k, c) P_j(k, k')\\Big) L_j(k', c), \\qquad
       \\log p(y_{2:n} \\mid y_1) = \\sum_j \\log \\textstyle\\sum \\alpha_j $$

    with alpha normalized after every step. The regime k moves, then the reading is made; the class c of a subject
    stays.

    **Arguments:** `transition`, `likelihood`: a row is a pair of successive readings. Subjects are sorted by their
    number of readings, longest first, and rows by step, so that step j concerns the first `counts[j]` subjects: no
    padding, no gathering. `subjects`: their number, with those of a single reading.

    **Reference:** Rabiner, Proc. IEEE 77 (1989) 257.
    """
    state = jnp.broadcast_to(initial[:, :, None], (*initial.shape, subjects))
    evidence, done = jnp.zeros(subjects), []
    ends = np.cumsum(counts)[:-1]
    # Splits, not slices: the gradient of a slice is padded to the whole, once a step.
    moves, seen = (jnp.split(rows, ends, axis=-1) for rows in (transition, likelihood))
    for count, move, see in zip(counts, moves, seen, strict=False):
        (state, still), (evidence, known) = (jnp.split(part, [count], axis=-1) for part in (state, evidence))
        done.append(Filtered(known, still))
        moved = jnp.sum(state[:, None, :, :] * move[:, :, None, :], axis=0) * see
        total = jnp.sum(moved, axis=(0, 1))
        evidence, state = evidence + jnp.log(total), moved / total[None, None, :]
    parts = [Filtered(evidence, state), *reversed(done)]
    return Filtered(*(jnp.concatenate(found, axis=-1) for found in zip(*parts, strict=True)))


class Law(Protocol):
    """How the hidden state starts and moves, and how probable a reading is in each state."""

    def initial(self) -> Float[Array, "regime class"]:
        """Probability of every state at the first reading."""
        ...

    def transition(self, chances: Array) -> Float[Array, "regime regime row"]:
        """How the regime moves between two readings."""
        ...

    def likelihood(self, at: Any, entry: Array, lower: Array, upper: Array) -> Float[Array, "regime class row"]:
        """Probability of the next reading."""
        ...


class Steps(eqx.Module):
    """All pairs of successive readings of all subjects, in the order of `forward_filter`.

    **Arguments:** `at`: what the law wants to know of the earlier reading, arrays [row]; `entry`, `lower`, `upper`
    [row]: the later one; `chances` [chance, row]: the interval between them, as the law's `transition` takes it;
    `place` [subject]: where the subjects of the table stand among the sorted ones; `counts`: subjects that have a j-th
    step.
    """

    at: Any
    entry: Float[Array, " row"]
    lower: Float[Array, " row"]
    upper: Float[Array, " row"]
    chances: Float[Array, "chance row"]
    place: Int[Array, " subject"]
    counts: tuple[int, ...] = eqx.field(static=True)


class StepOrder(NamedTuple):
    """`subject` and `reading` [row]: the later reading of every pair, sorted; `place` and `counts` as in `Steps`."""

    subject: np.ndarray
    reading: np.ndarray
    place: np.ndarray
    counts: tuple[int, ...]


def step_order(readings: np.ndarray) -> StepOrder:
    """The pairs of subjects with so many `readings` [subject], in the order of `forward_filter`."""
    order = np.argsort(-readings, kind="stable")
    counts = [int(np.sum(readings > step)) for step in range(1, int(readings.max()))]
    reading = np.repeat(np.arange(1, len(counts) + 1), counts)
    subject = np.concatenate([order[:count] for count in counts] or [np.zeros(0, int)])
    return StepOrder(subject, reading, np.argsort(order, kind="stable"), tuple(counts))


class StateSpaceProblem(AbstractProblem):
    """The parameters of a law whose hidden states are summed out, as a log density on an unconstrained vector.

    $$ \\log p(z) = \\log\\pi(z) + \\sum_i \\log p(y_{i,2:n_i} \\mid y_{i1}; T(z)) $$

    Few parameters, however many subjects: NUTS moves no effect of a subject.

    **Arguments:** `law`: a module with parameter paths; `prior`: the paths that are calibrated; `data`.
    """

    law: Any
    prior: Prior
    data: Steps

    def __check_init__(self) -> None:
        for path, shape in self.prior.shapes.items():
            found = get_parameter(self.law, path).shape  # names the nearest path when there is none
            if found != shape:
                raise ValueError(f"required: a prior of shape {found} for {path!r}; received: {shape}")

    @property
    def size(self) -> int:
        return self.prior.size

    @property
    def names(self) -> tuple[str, ...]:
        return self.prior.names

    @property
    def scalars(self) -> tuple[str, ...]:
        return self.prior.names

    def bound(self, values: Values) -> Any:
        """The law with the given parameters."""
        return set_parameters(self.law, values)

    def filtered(self, values: Values) -> Filtered:
        """Log evidence and last hidden state of every subject, in the order of the table."""
        return Filtered(*(part[..., self.data.place] for part in self._sorted(values)))

    def _sorted(self, values: Values) -> Filtered:
        law, data = self.bound(values), self.data
        seen = law.likelihood(data.at, data.entry, data.lower, data.upper)
        moves = law.transition(data.chances)
        return forward_filter(law.initial(), moves, seen, data.counts, data.place.shape[0])

    def log_density(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log of prior x marginal likelihood at `z`; -inf where a reading is impossible."""
        value = self.log_prior(z) + jnp.sum(self._sorted(self.constrain(z)).log_evidence)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def log_prior(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        return self.prior.log_density(z)

    def log_terms(self, z: Float[Array, " parameter"]) -> Float[Array, " subject"]:
        """One term a subject: readings of one subject are no terms of their own, a hidden state joins them."""
        return self.filtered(self.constrain(z)).log_evidence

    @property
    def term_days(self) -> np.ndarray:
        """All of one day: the subjects have no order."""
        return np.zeros(self.data.place.shape[0])

    def term_names(self) -> tuple[str, ...]:
        """The readings of every subject, by a checksum."""
        rows = np.stack([np.asarray(a, float) for a in (self.data.entry, self.data.lower, self.data.upper)], axis=1)
        starts = np.cumsum([0, *self.data.counts])
        names = []
        for i, place in enumerate(np.asarray(self.data.place)):
            own = [rows[start + place] for start, count in zip(starts, self.data.counts, strict=False) if count > place]
            names.append(f"subject {i} {zlib.crc32(np.ascontiguousarray(own).tobytes()):08x}")
        return unique_names(names)

    def constrain(self, z: Float[Array, " parameter"]) -> Values:
        return self.prior.constrain(z)

    def sample_prior(self, n: int, *, key: Array) -> Float[Array, "draw parameter"]:
        return jax.vmap(self.prior.unconstrain)(self.prior.sample((n,), key=key))

    def prior_draws(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        return prior_draws(self.prior, n, key=key)


class Horizon(eqx.Module):
    """What is to be forecast: from `at`, the last known reading of every subject (as the law takes it, its `duration`
    being the first of `durations` [step, subject, day]), over intervals with `chances` [step, chance, subject]."""

    at: Any
    durations: Float[Array, "step subject"]
    chances: Float[Array, "step chance subject"]


@eqx.filter_jit
def sample_ahead(
    problem: StateSpaceProblem, values: Values, horizon: Horizon, *, key: Array
) -> Float[Array, "draw step subject"]:
    """One future of every subject a draw of the parameters: path -> values [draw, ...].

    The hidden state after the last known reading is drawn from the filter, then regimes and readings follow the law,
    each reading on the one before: parameters, states and readings are all uncertain.
    """

    def future(drawn: tuple[Values, Array]) -> Array:
        one, own = drawn
        law, state = problem.bound(one), problem.filtered(one).state
        first, *keys = jax.random.split(own, 1 + horizon.durations.shape[0])
        _, classes, subjects = state.shape
        picked = jax.random.categorical(first, jnp.log(state.reshape(-1, subjects)), axis=0)
        regime, kind, at, entries = picked // classes, picked % classes, horizon.at, []
        for step, step_key in enumerate(keys):
            move_key, read_key = jax.random.split(step_key)
            moves = law.transition(horizon.chances[step])[regime, :, jnp.arange(subjects)]
            regime = jax.random.categorical(move_key, jnp.log(moves), axis=1)
            entries.append(law.sample(at, regime, kind, key=read_key))
            following = horizon.durations[min(step + 1, len(keys) - 1)]
            at = law.advance(at, entries[-1], following)
        return jnp.stack(entries)

    draws = next(iter(values.values())).shape[0]
    return jax.lax.map(future, (values, jax.random.split(key, draws)))
