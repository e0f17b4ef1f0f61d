"""Which parameter moves the answer: Sobol indices over a prior."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import qmc

from tumortwin.inference._prior import Prior, Values

_RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Sobol indices [parameter, output]: `first` order and `total`, each with its 95 % interval [2, ...]."""

    names: tuple[str, ...]
    first: Float[np.ndarray, "parameter output"]
    total: Float[np.ndarray, "parameter output"]
    first_interval: Float[np.ndarray, "2 parameter output"]
    total_interval: Float[np.ndarray, "2 parameter output"]


def sobol_indices(
    function: Callable[[Values], Float[Array, " output"]], prior: Prior, n: int = 1024, *, key: Array
) -> Sensitivity:
    """Shares of the variance of `function` that each parameter explains alone, and with all its interactions.

    $$ S_i = \\frac{\\mathrm{Var}\\left(E[f \\mid x_i]\\right)}{\\mathrm{Var} f}, \\qquad
       T_i = 1 - \\frac{\\mathrm{Var}\\left(E[f \\mid x_{-i}]\\right)}{\\mathrm{Var} f} $$

    from a scrambled Sobol sequence of pairs of points `a`, `b`, with `f_i` at `a` but for parameter i, which is of `b`:

    $$ S_i \\approx \\frac{\\overline{f(b)\\,(f_i - f(a))}}{\\mathrm{Var} f}, \\qquad
       T_i \\approx \\frac{\\overline{(f(a) - f_i)^2}}{2\\,\\mathrm{Var} f} $$

    (Saltelli's and Jansen's estimates; intervals by the bootstrap over pairs). A total near 0 says that the parameter
    may be fixed; a total far above the first order, that it acts through others.

    **Arguments:** `function` of one set of values by path, in JAX, to a vector of outputs; `prior`: independent scalar
    parameters; `n`: a power of two; `n (p + 2)` evaluations for `p` parameters.

    **Raises:** `ValueError` for a vector parameter, or a function that is not finite on the whole prior.

    **Good values:** n 1024 for two digits of the large indices, 4096 to tell small ones from 0.

    Reference: Saltelli et al. (2010), Comput. Phys. Commun. 181:259; Jansen (1999), Comput. Phys. Commun. 117:35.
    """
    vectors = [path for path, shape in prior.shapes.items() if shape != ()]
    if vectors:
        raise ValueError(f"required: scalar parameters; received vectors: {', '.join(vectors)}")
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    levels = qmc.Sobol(2 * prior.size, rng=random).random(n).T
    points = np.stack([_quantiles(prior, path, levels[i :: prior.size]) for i, path in enumerate(prior.paths)])
    at_a, at_b = points[:, 0], points[:, 1]
    swapped = [np.where(np.arange(prior.size)[:, None] == i, at_b, at_a) for i in range(prior.size)]
    found = [_evaluated(function, prior.paths, x) for x in (at_a, at_b, *swapped)]
    of_a, of_b, of_swapped = found[0], found[1], np.stack(found[2:])
    first, total = _indices(of_a, of_b, of_swapped)
    again = [
        _indices(of_a[:, rows], of_b[:, rows], of_swapped[:, :, rows])
        for rows in random.integers(0, n, (_RESAMPLES, n))
    ]
    ends = np.quantile(np.asarray(again), [0.025, 0.975], axis=0)
    return Sensitivity(prior.paths, first, total, ends[:, 0], ends[:, 1])


def _indices(of_a: np.ndarray, of_b: np.ndarray, of_swapped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First-order and total indices [parameter, output] from outputs [output, n] and [parameter, output, n]."""
    middle = 0.5 * (of_a.mean(axis=-1, keepdims=True) + of_b.mean(axis=-1, keepdims=True))
    variance = np.var(np.concatenate([of_a, of_b], axis=-1), axis=-1)
    first = np.mean((of_b - middle) * (of_swapped - of_a), axis=-1) / variance
    return first, 0.5 * np.mean((of_a - of_swapped) ** 2, axis=-1) / variance


def _quantiles(prior: Prior, path: str, levels: np.ndarray) -> np.ndarray:
    return np.asarray(_quantile(prior, path, jnp.asarray(levels)))


@eqx.filter_jit
def _quantile(prior: Prior, path: str, levels: Array) -> Array:
    return jnp.reshape(jax.vmap(lambda level: prior.quantile(level)[path])(jnp.ravel(levels)), levels.shape)


def _evaluated(function: Callable[[Values], Array], paths: tuple[str, ...], x: np.ndarray) -> np.ndarray:
    """`function` of the columns of `x` [parameter, draw], outputs first."""
    values = {path: jnp.asarray(row) for path, row in zip(paths, x, strict=True)}
    found = np.asarray(_mapped(function, values))
    if not np.isfinite(found).all():
        lost = int(np.sum(~np.isfinite(found).all(axis=tuple(range(1, found.ndim)))))
        raise ValueError(
            f"required: a finite output everywhere in the prior; received: {lost} of {len(found)} without; "
            "try: a narrower prior, or the logarithm of the output"
        )
    return found.reshape(len(found), -1).T


@eqx.filter_jit
def _mapped(function: Callable[[Values], Array], values: Values) -> Array:
    return jax.lax.map(function, values)
