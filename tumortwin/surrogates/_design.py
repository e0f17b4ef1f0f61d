"""Which tumors a surrogate is trained on, and which it is held against: parameters, anatomies, schedules."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import qmc

from tumortwin.inference import Prior


@dataclasses.dataclass(frozen=True)
class Design:
    """Parameters, anatomy and schedule of every sample: `values` path -> [sample], and two numbers that count into the
    models and schedules that `simulate_samples` is given."""

    values: Mapping[str, Float[np.ndarray, " sample"]]
    anatomy: Int[np.ndarray, " sample"]
    schedule: Int[np.ndarray, " sample"]

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.anatomy)

    def rows(self, chosen: slice | np.ndarray) -> "Design":
        """Some of the samples."""
        values = {path: value[chosen] for path, value in self.values.items()}
        return Design(values, self.anatomy[chosen], self.schedule[chosen])


def sobol_design(prior: Prior, n: int, *, seed: int, anatomies: int = 1, schedules: int = 1) -> Design:
    """A scrambled Sobol sequence through the quantiles of the prior: it covers the prior evenly.

    For training. Its points are not drawn independently, so no conformal bound may rest on them (`random_design`).
    Anatomy and schedule are two further dimensions of the sequence.

    **Arguments:** `prior`: scalar parameters with quantile functions; `n`: a power of two keeps the balance; the first
    half of a design of 2 n is the design of n; `seed` of the scrambling.

    **Raises:** `ValueError` for a vector parameter.

    **Reference:** Sobol, USSR Comput. Math. Math. Phys. 7 (1967) 86-112; Owen, J. Complexity 14 (1998) 466-489.
    """
    if vectors := [path for path, shape in prior.shapes.items() if shape != ()]:
        raise ValueError(f"required: scalar parameters; received vectors: {', '.join(vectors)}")
    sequence = qmc.Sobol(prior.size + 2, rng=np.random.default_rng(seed))
    exponent = max(0, int(np.ceil(np.log2(n))))
    levels = sequence.random_base2(exponent)[:n]
    values = {path: np.asarray(v) for path, v in _at_levels(prior, jnp.asarray(levels[:, :-2])).items()}
    return Design(values, _choices(levels[:, -2], anatomies), _choices(levels[:, -1], schedules))


def random_design(prior: Prior, n: int, *, anatomies: int = 1, schedules: int = 1, key: Array) -> Design:
    """Independent draws from the prior: exchangeable, for calibrating and testing a surrogate."""
    keys = jax.random.split(key, 3)
    values = {path: np.asarray(v) for path, v in _sampled(prior, n, keys[0]).items()}
    anatomy, schedule = (
        np.asarray(jax.random.randint(k, (n,), 0, count))
        for k, count in zip(keys[1:], (anatomies, schedules), strict=True)
    )
    return Design(values, anatomy, schedule)


def _choices(levels: np.ndarray, count: int) -> np.ndarray:
    return np.minimum((levels * count).astype(int), count - 1)


@eqx.filter_jit
def _at_levels(prior: Prior, levels: Float[Array, "sample parameter"]) -> dict[str, Array]:
    by_path = dict(zip(prior.paths, levels.T, strict=True))
    return {path: jax.vmap(lambda level, p=path: prior.quantile(level)[p])(x) for path, x in by_path.items()}


@eqx.filter_jit
def _sampled(prior: Prior, n: int, key: Array) -> dict[str, Array]:
    return prior.sample((n,), key=key)
