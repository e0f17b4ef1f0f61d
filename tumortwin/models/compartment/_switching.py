"""Growth whose rate changes for reasons that nobody sees: response, stability and progression as hidden regimes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.params import parameter

REFERENCE_SIZE = 30.0  # [mm]: where `rate` is read off
CHANCE = 21.0  # [day] between two chances of a change of regime, in the mean
REGIMES = ("responding", "stable", "progressing")
_STAY = 3.0  # log-odds of staying that belong to `moves` = 0
_CHANCES = 40  # of the Poisson sum: 40 chances are more than two years


class SwitchingGrowth(eqx.Module):
    """Exponential or power-law change of a size x, whose rate is that of a hidden regime k.

    $$ \\frac{d\\ln x}{dt} = r_{k(t)} \\left(\\frac{x}{30\\,mm}\\right)^{-b}, \\qquad
       P(t) = e^{Q t} = \\sum_n \\frac{(t/\\tau)^n e^{-t/\\tau}}{n!} A^n, \\qquad Q = (A - 1)/\\tau $$

    k is a continuous-time Markov chain on responding, stable, progressing: what Claret's equation says of all patients
    alike (a drug that works and wears off) happens here to each at a time of its own. A change of regime has a chance
    every tau = 21 days in the mean, so that the powers of A are computed once and the weights, which hold no parameter,
    never again.

    **State:** regime, one of three. **Arguments:** `rate` [regime, 1/day] of the diameter at 30 mm; `size_exponent`
    b [regime]: 0 exponential, above it deceleration; `start` [2, log-odds]: responding and progressing against stable
    at the first reading; `moves` [6, log-odds]: rows of A without the diagonal, against staying (less 3).

    **Good values:** rate (-3, 0, 2)e-3 /day; b .2-.5; moves about 0.

    **Limits:** the regime is constant between two readings (for convenience: it moves, then the lesion grows).

    **Reference:** Claret et al., J. Clin. Oncol. 27 (2009) 4103, doi:10.1200/JCO.2008.21.0807 (resistance); Jensen,
    Skand. Aktuarietidskr. 36 (1953) 87 (uniformization).
    """

    rate: Float[Array, " regime"] = parameter(unit=units.RATE)
    size_exponent: Float[Array, " regime"] = parameter(unit=units.FRACTION)
    start: Float[Array, " 2"] = parameter(unit=units.FRACTION)
    moves: Float[Array, " 6"] = parameter(unit=units.FRACTION)

    def initial(self) -> Float[Array, " regime"]:
        """Probability of every regime at the first reading."""
        return jax.nn.softmax(jnp.stack([self.start[0], jnp.zeros_like(self.start[0]), self.start[1]]))

    def one_chance(self) -> Float[Array, "regime regime"]:
        """A, from row to column."""
        m, stay = self.moves, jnp.full_like(self.moves[0], _STAY)
        rows = [jnp.stack([stay, m[0], m[1]]), jnp.stack([m[2], stay, m[3]]), jnp.stack([m[4], m[5], stay])]
        return jax.nn.softmax(jnp.stack(rows), axis=1)

    def transition(self, chances: Float[Array, "chance row"]) -> Float[Array, "regime regime row"]:
        """P of every row, from the weights of `chance_weights`."""
        one = self.one_chance()
        _, powers = jax.lax.scan(lambda power, _: (power @ one, power), jnp.eye(3), None, length=chances.shape[0])
        return jnp.tensordot(powers, chances, axes=((0,), (0,)))

    def log_growth(self, size: Float[Array, " row"], duration: Float[Array, " row"]) -> Float[Array, "regime row"]:
        """Change of the log-size in `duration` [day], to first order in it: the rate at the size `size` [mm]."""
        slowed = jnp.exp(-self.size_exponent[:, None] * jnp.log(size / REFERENCE_SIZE)[None, :])
        return duration[None, :] * slowed * self.rate[:, None]


def chance_weights(duration: np.ndarray) -> np.ndarray:
    """Probability of 0, 1, 2, ... chances of a change in `duration` [row, day]: Poisson weights [chance, row]."""
    mean = np.minimum(np.asarray(duration, float) / CHANCE, _CHANCES / 2)[None, :]
    counts = np.arange(_CHANCES)[:, None]
    logs = counts * np.log(np.maximum(mean, 1e-300)) - np.cumsum(np.log(np.maximum(counts, 1)), axis=0)
    weights = np.exp(logs - logs.max(axis=0, keepdims=True))
    return weights / weights.sum(axis=0, keepdims=True)
