"""All that a calibrator may know: model, observations, prior and data."""

import abc
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float, Inexact, Int

from tumortwin.inference._prior import Prior, Values, prior_draws
from tumortwin.observation import AbstractObservation, Datum
from tumortwin.params import get_parameter, set_parameters

PREFIX = "observation."
Solve = Callable[[Any, tuple[float, ...]], Array]


class AbstractProblem(eqx.Module):
    """A posterior as calibrators see it: a log density of an unconstrained vector `z`, in units of the prior."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Length of `z`."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """One name an entry of `z`."""

    @property
    @abc.abstractmethod
    def scalars(self) -> tuple[str, ...]:
        """Names of the first entries of `z` that stand for a parameter each (all of them, or those of a population)."""

    @abc.abstractmethod
    def log_density(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log of prior x likelihood, up to the evidence; -inf where the model fails."""

    @abc.abstractmethod
    def log_prior(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log prior density of `z`, log-Jacobian included."""

    @abc.abstractmethod
    def log_terms(self, z: Float[Array, " parameter"]) -> Float[Array, " term"]:
        """The log-likelihood term by term (a datum, or a measurement): what sequential calibrators take in one by one.

        Together with `log_prior` they sum to `log_density`; a term that the model fails on is NaN or -inf, padding 0.
        """

    @property
    @abc.abstractmethod
    def term_days(self) -> np.ndarray:
        """The day of every term [term] [day]; NaN for padding, which is no term."""

    @abc.abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """What identifies every term: equal for the same measurement of the same day and for nothing else."""

    @abc.abstractmethod
    def constrain(self, z: Float[Array, " parameter"]) -> Values:
        """`z` to values by path."""

    @abc.abstractmethod
    def sample_prior(self, n: int, *, key: Array) -> Float[Array, "draw parameter"]:
        """Draws of `z` from the prior."""

    @abc.abstractmethod
    def prior_draws(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        """Draws of the prior as a posterior keeps them, path -> [1, n, ...]."""


class Problem(AbstractProblem):
    """Model + observations + prior + data, as a log density on an unconstrained vector.

    $$ \\log p(z) = \\log \\pi(z) + \\sum_k w_k \\sum_{i \\in valid_k} \\log p(y_{ki} \\mid \\eta_{ki}(x)),
       \\qquad x = T(z) $$

    a power likelihood: `w_k = V_voxel / V_corr` says how many of the voxels of a visit and channel are worth one
    independent observation.

    **Arguments:**

    - `model`: a module with parameter paths (`tumortwin.params`).
    - `observations`: channel -> observation; its parameters are addressed as `observation.<channel>.<field>`.
    - `prior`: the paths that are calibrated; a path that does not exist is a `KeyError` naming the nearest.
    - `data`: one `Datum` a visit and channel; a missing visit is left out.
    - `solve`: `(model, days) -> states [time ...]`, the state of the model at the increasing, concrete `days`, as the
      observations take it (density [time x y z] for images). A failed solve must come back non-finite: it has
      probability zero, and is counted by the calibrators. A module (its arrays are traced: no recompilation for
      another schedule) or a plain function.
    - `spacing`: voxel edge lengths [mm]; needed only to estimate the weights (`reweight`).
    - `ties`: pairs (target, source): the model's parameter `target` takes the value of the calibrated path `source`.
    - `unlearned`: the prior of paths that act on nothing in the data but may under another schedule (the effect of a
      treatment that was not given yet). No calibrator reads it.
    """

    model: Any
    observations: dict[str, AbstractObservation]
    prior: Prior
    data: tuple[Datum, ...]
    solve: Solve
    spacing: tuple[float, float, float] | None = eqx.field(static=True, default=None)
    ties: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())
    unlearned: Prior | None = None

    def __check_init__(self) -> None:
        if not self.data:
            raise ValueError("required: at least one datum; received: none")
        names = [datum.name for datum in self.data]
        if len(set(names)) != len(names):
            raise ValueError(f"required: one datum a day and channel; received: {', '.join(names)}")
        for datum in self.data:
            if datum.channel not in self.observations:
                raise ValueError(
                    f"required: an observation for channel {datum.channel!r}; received: {sorted(self.observations)}"
                )
        # Names the nearest paths when one is unknown.
        eqx.filter_eval_shape(lambda z: self.bind(self.prior.constrain(z)), jnp.zeros(self.prior.size))
        for path, shape in self.prior.shapes.items():
            found = self._template(path).shape
            if found != shape:
                raise ValueError(f"required: a prior of shape {found} for {path!r}; received: {shape}")

    @property
    def days(self) -> tuple[float, ...]:
        """Days that have data, increasing."""
        return tuple(sorted({datum.day for datum in self.data}))

    @property
    def weights(self) -> Float[Array, " datum"]:
        """The power-likelihood weights, in the order of `data`."""
        return jnp.stack([datum.weight for datum in self.data])

    def with_weights(self, weights: Float[Array, " datum"]) -> "Problem":
        """The same problem with other weights; nothing is compiled anew."""
        new = [jnp.asarray(weight, dtype=datum.weight.dtype) for weight, datum in zip(weights, self.data, strict=True)]
        return eqx.tree_at(lambda p: [datum.weight for datum in p.data], self, new)

    def bind(self, values: Mapping[str, Any]) -> tuple[Any, dict[str, AbstractObservation]]:
        """Model and observations with the given parameter values; unknown paths raise `KeyError`."""
        observed = {path: value for path, value in values.items() if path.startswith(PREFIX)}
        rest = {path: value for path, value in values.items() if not path.startswith(PREFIX)}
        rest |= {target: values[source] for target, source in self.ties}
        bundle = set_parameters({"observation": self.observations}, observed)
        return set_parameters(self.model, rest), bundle["observation"]

    def groups(self) -> tuple["Group", ...]:
        """The data stacked by channel and shape: one program for all visits of a channel, not one each."""
        members: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for index, datum in enumerate(self.data):
            members.setdefault((datum.channel, datum.values.shape), []).append(index)
        return tuple(Group.of(self.data, channel, tuple(found)) for (channel, _), found in members.items())

    def predict(self, values: Mapping[str, Any]) -> tuple[tuple[Array, ...], dict[str, AbstractObservation]]:
        """The predictions [visit ...] of every group, and the observations bound to the values."""
        states = self.visits(values)
        return self.observe(states, values)

    def observe(
        self, states: tuple[Array, ...], values: Mapping[str, Any]
    ) -> tuple[tuple[Array, ...], dict[str, AbstractObservation]]:
        """The predictions of every group from the states of its visits: no solve."""
        _, observations = self.bind(values)
        found = []
        for group, seen in zip(self.groups(), states, strict=True):
            observe = _observe(observations[group.channel])
            found.append(jax.vmap(observe)(seen, group.visits))
        return tuple(found), observations

    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Entries of `z` that move the model's states, and those that only change how they are observed."""
        sources = {source for _, source in self.ties}
        only = [
            p.startswith(PREFIX) and p not in sources
            for p, shape in self.prior.shapes.items()
            for _ in range(prod(shape))
        ]
        return np.flatnonzero(~np.asarray(only)), np.flatnonzero(only)

    def visits(self, values: Mapping[str, Any]) -> tuple[Array, ...]:
        """The states [visit ...] that every group observes."""
        model, _ = self.bind(values)
        states = self.solve(model, self.days)
        row = {day: index for index, day in enumerate(self.days)}
        rows = [np.asarray([row[self.data[index].day] for index in group.members]) for group in self.groups()]
        return tuple(states[chosen] for chosen in rows)

    def by_datum(self, stacked: tuple[Array, ...]) -> tuple[Array, ...]:
        """Arrays [visit ...] of every group, in the order of `data`."""
        found: dict[int, Array] = {}
        for group, array in zip(self.groups(), stacked, strict=True):
            found.update({index: array[position] for position, index in enumerate(group.members)})
        return tuple(found[index] for index in range(len(self.data)))

    def predictions(self, values: Mapping[str, Any]) -> dict[tuple[float, str], Array]:
        """The prediction of every datum, by (day, channel)."""
        found = self.by_datum(self.predict(values)[0])
        return {(datum.day, datum.channel): prediction for datum, prediction in zip(self.data, found, strict=True)}

    @property
    def size(self) -> int:
        return self.prior.size

    @property
    def names(self) -> tuple[str, ...]:
        return self.prior.names

    @property
    def scalars(self) -> tuple[str, ...]:
        return self.prior.names

    def constrain(self, z: Float[Array, " parameter"]) -> Values:
        return self.prior.constrain(z)

    def sample_prior(self, n: int, *, key: Array) -> Float[Array, "draw parameter"]:
        return jax.vmap(self.prior.unconstrain)(self.prior.sample((n,), key=key))

    def prior_draws(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        return prior_draws(self.prior, n, key=key)

    def log_prior(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log prior density of `z`, log-Jacobian included."""
        return self.prior.log_density(z)

    def log_likelihoods(self, values: Mapping[str, Any]) -> Float[Array, " datum"]:
        """The weighted log-likelihood of every datum.

        The visits of a group go one after another and are recomputed for the gradient: as one expression XLA merges the
        gathering of the states into the arithmetic, which it then no longer vectorizes (8 times slower on a CPU).
        """
        states, (_, observations) = self.visits(values), self.bind(values)
        terms = []
        for group, seen in zip(self.groups(), states, strict=True):
            term = _observed_term(observations[group.channel])
            terms.append(jax.lax.map(term, ((seen, group.visits), *group.arrays)))
        return jnp.stack(self.by_datum(tuple(terms)))

    def log_terms(self, z: Float[Array, " parameter"]) -> Float[Array, " term"]:
        return self.log_likelihoods(self.prior.constrain(z))

    @property
    def term_days(self) -> np.ndarray:
        return np.asarray([datum.day for datum in self.data], float)

    def term_names(self) -> tuple[str, ...]:
        return unique_names(f"{datum.name}/{fingerprint(datum.values, datum.valid)}" for datum in self.data)

    def likelihood_terms(
        self, predictions: tuple[Array, ...], observations: dict[str, AbstractObservation]
    ) -> Float[Array, " datum"]:
        """The weighted log-likelihood of every datum, given the predictions of the groups."""
        terms = [
            jax.vmap(_predicted_term(observations[group.channel]))((prediction, *group.arrays))
            for group, prediction in zip(self.groups(), predictions, strict=True)
        ]
        return jnp.stack(self.by_datum(tuple(terms)))

    def log_likelihood(self, values: Mapping[str, Any]) -> Float[Array, ""]:
        """The power log-likelihood; -inf when the solve failed."""
        return _finite_or_impossible(jnp.sum(self.log_likelihoods(values)))

    def log_density(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log of prior x power likelihood at `z`, up to the evidence; -inf when the solve failed."""
        return _finite_or_impossible(self.log_prior(z) + jnp.sum(self.log_likelihoods(self.prior.constrain(z))))

    def numpyro_model(self) -> Callable[[], None]:
        """A NumPyro model: one `sample` a path, one `factor` a datum."""

        def model() -> None:
            values: Values = {p: jnp.asarray(numpyro.sample(p, self.prior.distributions[p])) for p in self.prior.paths}
            for datum, term in zip(self.data, self.log_likelihoods(values), strict=True):
                numpyro.factor(f"log_likelihood/{datum.name}", _finite_or_impossible(term))

        return model

    def _template(self, path: str) -> Array:
        tree = {"observation": self.observations} if path.startswith(PREFIX) else self.model
        return get_parameter(tree, path)


class Group(eqx.Module):
    """The data of one channel and shape, stacked: `members` are their places in `Problem.data`, `visits` among the
    data of the channel."""

    channel: str = eqx.field(static=True)
    members: tuple[int, ...] = eqx.field(static=True)
    values: Inexact[Array, "visit ..."]
    valid: Inexact[Array, "visit ..."]
    weight: Float[Array, " visit"]
    visits: Int[Array, " visit"]

    @classmethod
    def of(cls, data: tuple[Datum, ...], channel: str, members: tuple[int, ...]) -> "Group":
        """The group of the given members."""
        chosen = [data[index] for index in members]
        values, valid, weight = (
            jnp.stack([getattr(datum, name) for datum in chosen]) for name in ("values", "valid", "weight")
        )
        places = [index for index, datum in enumerate(data) if datum.channel == channel]
        return cls(channel, members, values, valid, weight, jnp.asarray([places.index(index) for index in members]))

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """Values, which of them are valid, and weights, visits first."""
        return self.values, self.valid, self.weight

    def spread(self, by_visit: Float[Array, " visit"]) -> Array:
        """`by_visit` shaped to multiply `values`."""
        return by_visit.reshape((-1,) + (1,) * (self.values.ndim - 1))

    @property
    def counts(self) -> Float[Array, " visit"]:
        """Number of valid values of every visit."""
        return jnp.sum(self.valid.reshape(len(self.members), -1), axis=1, dtype=self.weight.dtype)


Visit = tuple[Array, Array, Array, Array]


def _predicted_term(observation: AbstractObservation) -> Callable[[Visit], Array]:
    """The weighted log-likelihood of one visit, from (prediction, values, valid, weight)."""

    def term(visit: Visit) -> Array:
        prediction, values, valid, weight = visit
        log_prob = observation.noise(prediction).log_prob(values)
        return weight * jnp.sum(jnp.where(valid > 0, log_prob, 0) * valid, dtype=weight.dtype)

    return term


def _observe(observation: AbstractObservation) -> Callable[[Array, Array], Array]:
    """(state, place of the visit) -> prediction."""
    return lambda state, visit: observation.at_visit(visit).predict(state)


def _observed_term(
    observation: AbstractObservation,
) -> Callable[[tuple[tuple[Array, Array], Array, Array, Array]], Array]:
    """The weighted log-likelihood of one visit, from ((state, place), values, valid, weight)."""
    term, observe = _predicted_term(observation), _observe(observation)
    return jax.checkpoint(lambda visit: term((observe(*visit[0]), *visit[1:])))


def fingerprint(*arrays: Any) -> str:
    """A short name of the content of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(np.asarray(array, float)).tobytes())
    return digest.hexdigest()[:16]


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names, with `#2`, `#3` ... for those that came before."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)


def _finite_or_impossible(value: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)


@eqx.filter_jit
def value_and_gradient(problem: AbstractProblem, z: Float[Array, " parameter"]) -> tuple[Array, Array]:
    """Log density and its gradient at `z`: one program for all who ask."""
    return jax.value_and_grad(problem.log_density)(z)


def log_densities(problem: AbstractProblem, z: Float[Array, "draw parameter"], vectorized: bool) -> Array:
    """`problem.log_density` of many points, side by side (small states) or one after another (3-D)."""
    return jax.vmap(problem.log_density)(z) if vectorized else jax.lax.map(problem.log_density, z)


@eqx.filter_jit
def log_density_batch(problem: Problem, z: Float[Array, "draw parameter"]) -> Float[Array, " draw"]:
    """`problem.log_density` of many points, one after another (a `vmap` over 3-D solves is 3-5 times slower)."""
    return jax.lax.map(problem.log_density, z)
