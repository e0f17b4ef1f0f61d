"""Subjects whose hidden state moves between readings, the state summed out exactly."""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tumortwin.inference._prior import Prior, Values, prior_draws
from tumortwin.inference._problem import AbstractProblem
from tumortwin.params import get_parameter, set_parameters


class Filtered(NamedTuple):
    """`log_evidence` [subject]; `state` [subject, regime, class]: the state after the last reading, given all of them."""

    log_evidence: Array
    state: Array


def forward_filter(
    initial: Float[Array, "regime class"],
    transition: Float[Array, "row regime regime"],
    likelihood: Float[Array, "row regime class"],
    rows: Int[Array, "subject step"],
) -> Filtered:
    """The forward recursion of a hidden Markov model, of all subjects at once.

    $$ \\alpha_j(k', c) = \\Big(\\sum_k \\alpha_{j-1}(k, c) P_j(k, k')\\Big) L_j(k', c), \\qquad
       \\log p(y_{2:n} \\mid y_1) = \\sum_j \\log \\textstyle\\sum \\alpha_j $$

    with alpha normalized after every step. The regime k moves, then the reading is made; the class c of a subject stays.

    **Arguments:** `transition`, `likelihood`: one row a pair of successive readings, subjects in any order; `rows`: which
    rows a subject has, in time order, -1 for none (there the state stays as it is).

    **Reference:** Rabiner, Proc. IEEE 77 (1989) 257.
    """
    subjects = rows.shape[0]
    blank = jnp.ones_like(likelihood[:1])
    likelihood = jnp.concatenate([likelihood, blank])
    transition = jnp.concatenate([transition, jnp.eye(initial.shape[0])[None]])

    def step(carry: Filtered, row: Array) -> tuple[Filtered, None]:
        moved = jnp.einsum("skc,skl->slc", carry.state, transition[row]) * likelihood[row]
        total = jnp.sum(moved, axis=(1, 2))
        return Filtered(carry.log_evidence + jnp.log(total), moved / total[:, None, None]), None

    first = Filtered(jnp.zeros(subjects), jnp.broadcast_to(initial, (subjects, *initial.shape)))
    return jax.lax.scan(step, first, rows.T)[0]


class Law(Protocol):
    """How the hidden state starts and moves, and how probable a reading is in each state."""

    def initial(self) -> Float[Array, "regime class"]:
        """Probability of every state at the first reading."""
        ...

    def transition(self, chances: Array) -> Float[Array, "row regime regime"]:
        """How the regime moves between two readings."""
        ...

    def likelihood(self, at: Any, entry: Array, lower: Array, upper: Array) -> Float[Array, "row regime class"]:
        """Probability of the next reading."""
        ...


class Steps(eqx.Module):
    """All pairs of successive readings of all subjects.

    **Arguments:** `at`: what the law wants to know of the earlier reading, arrays [row]; `entry`, `lower`, `upper` [row]:
    the later one; `chances` [row, chance]: the interval between them, as the law's `transition` takes it; `rows`
    [subject, step]: which rows a subject has in time order, -1 for none.
    """

    at: Any
    entry: Float[Array, " row"]
    lower: Float[Array, " row"]
    upper: Float[Array, " row"]
    chances: Float[Array, "row chance"]
    rows: Int[Array, "subject step"]


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
        """Log evidence and last hidden state of every subject."""
        law, data = self.bound(values), self.data
        seen = law.likelihood(data.at, data.entry, data.lower, data.upper)
        return forward_filter(law.initial(), law.transition(data.chances), seen, data.rows)

    def log_density(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log of prior x marginal likelihood at `z`; -inf where a reading is impossible."""
        value = self.prior.log_density(z) + jnp.sum(self.filtered(self.constrain(z)).log_evidence)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def constrain(self, z: Float[Array, " parameter"]) -> Values:
        return self.prior.constrain(z)

    def sample_prior(self, n: int, *, key: Array) -> Float[Array, "draw parameter"]:
        return jax.vmap(self.prior.unconstrain)(self.prior.sample((n,), key=key))

    def prior_draws(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        return prior_draws(self.prior, n, key=key)
