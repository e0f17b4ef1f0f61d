"""What is believed before the data: a distribution for every parameter path, and the coordinates that suit it."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, ExpandedDistribution, LogNormal, Normal, biject_to

from tumortwin._types import ScalarLike
from tumortwin.inference._ordered import Ordered
from tumortwin.inference._quantile import Quantile

Values = dict[str, Array]
NEWTON_STEPS = 200
LARGEST_NEWTON_STEP = 2.0
DRAWS_A_CALL = 4000


class Prior(eqx.Module):
    """{parameter path: NumPyro distribution}, independent between paths.

    $$ x = T(t), \\qquad t = c + s\\,z, \\qquad \\phi(t) = -\\log p(T(t)) - \\log |T'(t)| $$

    `T` is NumPyro's `biject_to` of the support; `c` and `s` are the mode of `phi` and `phi''(c)^{-1/2}`. For a normal
    distribution truncated at both ends `T` goes by quantiles (`Quantile`) instead. The vector `z` (every path in
    alphabetical order, flattened) is therefore unconstrained and in units of the prior's own spread: a normal,
    truncated normal or log-normal prior is exactly standard normal in `z`, any other one is so to second order at its
    mode. All calibrators work in `z`.

    **Arguments:** `distributions`, each with an empty event shape; a batch shape makes the parameter a vector.

    **Raises:** `ValueError` for a distribution that is not continuous, not univariate, or has no interior mode in `t`.
    """

    ordered: dict[str, Ordered]
    center: Values
    scale: Values
    families: tuple["_Family", ...]

    def __init__(self, distributions: Mapping[str, Distribution]) -> None:
        if not distributions:
            raise ValueError("required: a prior for at least one parameter path; received: none")
        self.ordered, self.center, self.scale = {}, {}, {}
        for path in sorted(distributions):
            entry = distributions[path]
            if not isinstance(entry, Distribution) or entry.event_shape or _is_discrete(entry):
                raise ValueError(
                    f"required: a continuous univariate NumPyro distribution for {path!r}; received: {entry!r}; "
                    "try: `.expand([n])` for a vector of independent entries"
                )
            entry = jax.tree.map(jnp.asarray, entry)
            center, scale = _mode_and_scale(Ordered.of(entry))
            if not (np.isfinite(center).all() and np.isfinite(scale).all()):
                raise ValueError(
                    f"required: a prior of {path!r} with a mode in unconstrained space; "
                    f"received: {distributions[path]!r}"
                )
            self.ordered[path], self.center[path], self.scale[path] = Ordered.of(entry), center, scale
        self.families = _families(self.ordered)

    @property
    def distributions(self) -> dict[str, Distribution]:
        """The distribution of every path."""
        return {path: entry.distribution for path, entry in self.ordered.items()}

    @property
    def paths(self) -> tuple[str, ...]:
        """The parameter paths in the order of `z`."""
        return tuple(sorted(self.ordered))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter; `()` for a scalar."""
        return {path: self.ordered[path].distribution.batch_shape for path in self.paths}

    @property
    def names(self) -> tuple[str, ...]:
        """One name an entry of `z`: the path, with an index for a vector."""
        names: list[str] = []
        for path, shape in self.shapes.items():
            names += [path] if shape == () else [f"{path}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
        return tuple(names)

    @property
    def size(self) -> int:
        """Length of `z`."""
        return sum(prod(shape) for shape in self.shapes.values())

    def constrain(self, z: Float[Array, " parameter"]) -> Values:
        """`z` to parameter values by path."""
        return self._by_family(_value, z)

    def unconstrain(self, values: Mapping[str, Array]) -> Float[Array, " parameter"]:
        """Parameter values by path to `z`."""
        missing = [path for path in self.paths if path not in values]
        if missing:
            raise KeyError(f"required: a value for every path of the prior; received none for: {', '.join(missing)}")
        free = {
            path: _coordinate(entry, jnp.asarray(values[path], dtype=self.center[path].dtype))
            for path, entry in self.distributions.items()
        }
        parts = [(free[path] - self.center[path]) / self.scale[path] for path in self.paths]
        return jnp.concatenate([jnp.ravel(part) for part in parts])

    def log_density(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log density of `z` itself: the prior with the log-Jacobian of the transform and of the scaling."""
        scales = sum(jnp.sum(jnp.log(self.scale[path])) for path in self.paths)
        return scales - jnp.sum(self._potential(z))

    def log_probability(self, values: Mapping[str, Array | np.ndarray]) -> Array:
        """Log density of the parameters themselves (not of `z`), summed over paths: [draw] for leaves [draw ...].

        Paths of `values` that have no prior here are left out, as are priors that `values` has no path for.
        """
        terms = []
        for path in self.paths:
            if path in values:
                with jax.numpy_rank_promotion("allow"):  # NumPyro's truncated distributions of a vector promote ranks
                    term = jnp.asarray(self.ordered[path].distribution.log_prob(jnp.asarray(values[path])))
                terms.append(term.reshape(term.shape[0], -1).sum(axis=1))
        return sum(terms, jnp.zeros(()))

    def curvature(self, z: Float[Array, " parameter"]) -> Float[Array, " parameter"]:
        """Second derivative of the negative log density in each entry of `z`; 0 where the prior is not log-concave."""

        def gradient(point: Array) -> Array:
            return jax.grad(lambda value: jnp.sum(self._potential(value)))(point)

        return jnp.maximum(jax.jvp(gradient, (z,), (jnp.ones_like(z),))[1], 0)

    def quantile(self, level: ScalarLike) -> Values:
        """The quantile of every parameter's own distribution (0.5: the median), by path.

        **Raises:** `ValueError` for a distribution without a quantile function in NumPyro.
        """
        found = {}
        for path in self.paths:
            entry = self.ordered[path].distribution
            try:
                found[path] = jnp.broadcast_to(_single(entry).icdf(jnp.asarray(level)), self.shapes[path])
            except NotImplementedError as error:
                raise ValueError(
                    f"required: a prior of {path!r} with a quantile function; received: {entry!r}"
                ) from error
        return found

    def sample(self, shape: tuple[int, ...], *, key: Array) -> Values:
        """Draws from the prior by path, each of `shape` + the parameter's own shape."""
        keys, found = dict(zip(self.paths, jax.random.split(key, len(self.paths)), strict=True)), {}
        for family in self.families:
            of_family = jax.vmap(lambda k: jax.random.split(k, prod(shape)))(jnp.stack([keys[p] for p in family.paths]))
            draws = jax.vmap(lambda entry, ks: jax.vmap(entry.distribution.sample)(ks))(family.stacked, of_family)
            for path, drawn in zip(family.paths, draws, strict=True):
                found[path] = jnp.asarray(drawn).reshape(shape + self.shapes[path])
        return {path: found[path] for path in self.paths}

    def _unpack(self, z: Float[Array, " parameter"]) -> Values:
        sizes = [prod(shape) for shape in self.shapes.values()]
        parts = jnp.split(z, np.cumsum(sizes)[:-1])  # the gradient of a slice would be padded to the whole, once a path
        return {
            path: self.center[path] + self.scale[path] * part.reshape(shape)
            for (path, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def _potential(self, z: Float[Array, " parameter"]) -> Float[Array, " parameter"]:
        found = self._by_family(_potential, z)
        return jnp.concatenate([jnp.ravel(found[path]) for path in self.paths])

    def _by_family(self, function: Callable[[Distribution, Array], Array], z: Float[Array, " parameter"]) -> Values:
        """`function` of every distribution and its entries of `z` in the coordinates `t`."""
        unpacked, found = self._unpack(z), {}
        for family in self.families:
            t = jnp.stack([unpacked[path] for path in family.paths])
            of_family = jax.vmap(lambda entry, x: function(entry.distribution, x))(family.stacked, t)
            one_each = jnp.split(of_family, len(family.paths))
            found.update((path, one.reshape(one.shape[1:])) for path, one in zip(family.paths, one_each, strict=True))
        return {path: found[path] for path in self.paths}


class _Family(eqx.Module):
    """Distributions of one kind and shape, stacked: one expression for all of them, and one to compile."""

    paths: tuple[str, ...] = eqx.field(static=True)
    stacked: Ordered


def _families(distributions: Mapping[str, Ordered]) -> tuple[_Family, ...]:
    members: dict[Any, list[str]] = {}
    for path, entry in distributions.items():
        leaves, kind = jax.tree.flatten(entry)
        members.setdefault((kind, tuple(jnp.shape(leaf) for leaf in leaves)), []).append(path)
    return tuple(
        _Family(tuple(paths), jax.tree.map(lambda *leaves: jnp.stack(leaves), *(distributions[p] for p in paths)))
        for paths in members.values()
    )


def prior_draws(prior: Prior, n: int, *, key: Array) -> dict[str, np.ndarray]:
    """Draws of the prior as a posterior keeps them, path -> [1, n, ...]; made thousands at a time, by one program."""
    calls = [_sampled(prior, jax.random.fold_in(key, call)) for call in range(-(-n // DRAWS_A_CALL))]
    return {path: np.concatenate([np.asarray(call[path]) for call in calls])[None, :n] for path in prior.paths}


@eqx.filter_jit
def _sampled(prior: Prior, key: Array) -> Values:
    return prior.sample((DRAWS_A_CALL,), key=key)


def _is_discrete(entry: Distribution) -> bool:
    return entry.support is None or bool(entry.support.is_discrete)


def _value(entry: Distribution, t: Array) -> Array:
    """`T(t)`, elementwise."""
    quantile = Quantile.of(entry)
    return jnp.asarray(biject_to(entry.support)(t)) if quantile is None else quantile.value(t)


def _coordinate(entry: Distribution, value: Array) -> Array:
    """The inverse of `T`."""
    quantile = Quantile.of(entry)
    return jnp.asarray(biject_to(entry.support).inv(value)) if quantile is None else quantile.coordinate(value)


def _potential(entry: Distribution, t: Array) -> Array:
    """`phi(t)`, elementwise."""
    quantile = Quantile.of(entry)
    if quantile is not None:
        return quantile.potential(t)
    transform = biject_to(entry.support)
    value = transform(t)
    with jax.numpy_rank_promotion("allow"):  # NumPyro's truncated distributions of a vector promote ranks
        log_prob = jnp.asarray(entry.log_prob(value))
    return -log_prob - transform.log_abs_det_jacobian(t, value)


def _mode_and_scale(ordered: Ordered) -> tuple[Array, Array]:
    """Mode of `phi` and `phi''^{-1/2}` there: as they are known, else by search."""
    entry = ordered.distribution
    single, shape = _single(entry), entry.batch_shape
    if Quantile.of(entry) is not None:
        return jnp.zeros(shape), jnp.ones(shape)
    if isinstance(single, Normal | LogNormal):
        location, scale = jnp.asarray(single.loc), jnp.asarray(single.scale)
        return jnp.broadcast_to(location, shape), jnp.broadcast_to(scale, shape)
    return _searched(ordered)


def _single(entry: Distribution) -> Distribution:
    """The distribution itself where it was expanded."""
    return entry.base_dist if isinstance(entry, ExpandedDistribution) else entry


@eqx.filter_jit
def _searched(ordered: Ordered) -> tuple[Array, Array]:
    """Mode of `phi` by damped Newton steps, and `phi''^{-1/2}` there."""
    entry = ordered.distribution

    def derivatives(t: Array) -> tuple[Array, Array]:
        gradient = jax.grad(lambda value: jnp.sum(_potential(entry, value)))
        return jax.jvp(gradient, (t,), (jnp.ones_like(t),))

    def body(_: Array, t: Array) -> Array:
        slope, curvature = derivatives(t)
        move = slope / jnp.where(curvature > 0, curvature, 1)
        return t - jnp.clip(move, -LARGEST_NEWTON_STEP, LARGEST_NEWTON_STEP)

    mode = jax.lax.fori_loop(0, NEWTON_STEPS, body, jnp.zeros(entry.batch_shape))
    slope, curvature = derivatives(mode)
    found = (curvature > 0) & (jnp.abs(slope) <= 1e-3 * jnp.sqrt(jnp.abs(curvature)))
    return jnp.where(found, mode, jnp.nan), 1 / jnp.sqrt(jnp.where(found, curvature, jnp.nan))
