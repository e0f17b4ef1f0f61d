"""A thin, bent ridge: two numbers on a parabola, with moments by quadrature and exact draws."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin.inference import AbstractProblem

NAMES = ("along", "across")


class Banana(AbstractProblem):
    """`z` standard normal; one value says that `across = bend (along^2 - 1)`, but for an error of sd `width`."""

    bend: Array
    width: Array

    @property
    def size(self):
        return 2

    @property
    def names(self):
        return NAMES

    @property
    def scalars(self):
        return NAMES

    def log_density(self, z):
        return self.log_prior(z) + self.log_terms(z)[0]

    def log_prior(self, z):
        return -0.5 * jnp.sum(z**2)

    def log_terms(self, z):
        return (-0.5 * ((z[1] - self.bend * (z[0] ** 2 - 1.0)) / self.width) ** 2)[None]

    @property
    def term_days(self):
        return np.zeros(1)

    def term_names(self):
        return ("ridge",)

    def constrain(self, z):
        return {name: z[k] for k, name in enumerate(NAMES)}

    def sample_prior(self, n, *, key):
        return jax.random.normal(key, (n, 2))

    def prior_draws(self, n, *, key):
        return {name: np.asarray(self.sample_prior(n, key=key))[None, :, k] for k, name in enumerate(NAMES)}

    def exact(self, points: int = 4001) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Grid of `along`, its weights, and the mean of `across` at each: a normal law, given `along`."""
        along = np.linspace(-6.0, 6.0, points)
        height, square = float(self.bend) * (along**2 - 1.0), float(self.width) ** 2
        log = -0.5 * along**2 - 0.5 * height**2 / (1.0 + square)
        weights = np.exp(log - log.max())
        return along, weights / weights.sum(), height / (1.0 + square)

    def draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Independent draws [draw, parameter]."""
        along, weights, across = self.exact()
        rows = rng.choice(along.size, n, p=weights)
        sd = float(self.width) / np.sqrt(1.0 + float(self.width) ** 2)
        return np.stack([along[rows], across[rows] + sd * rng.normal(size=n)], axis=1)


def banana(bend: float, width: float) -> Banana:
    return Banana(jnp.asarray(bend), jnp.asarray(width))
