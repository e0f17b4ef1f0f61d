"""What is written down of a lesion at the next visit, given what was written down at the last one."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tumortwin import units
from tumortwin.models import SwitchingGrowth
from tumortwin.models.compartment._switching import REFERENCE_SIZE
from tumortwin.params import parameter

LIMIT = 5.0  # [mm]: below it a lesion may be written down as gone
INTERVAL = 42.0  # [day] between two visits, in the mean
LARGEST = 400.0  # [mm]
RETURN_SIZE, RETURN_SPREAD = 6.0, 0.3  # [mm, log]: what comes back after it was gone is small
_LOGISTIC = 1.702  # a logistic of this slope is the normal distribution to .01
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
CLASSES = len(_NODES)


class Visits(NamedTuple):
    """Where a reading starts from: `size` [row, mm] last written down (0: gone), `before` the one before it (the same
    where there is none), `day` of the last reading, `duration` [day] until the next."""

    size: Array
    before: Array
    day: Array
    duration: Array


class LesionReadings(eqx.Module):
    """The law of the next reading of a diameter, for every hidden regime k and class c of a patient's variability.

    A lesion of size x > 0 is found gone with the hazard $h_k (x/15)^{-a}$ per 42 days; otherwise the last entry is
    written down again with probability $s_{kc}$ (readers do: 31 % of successive entries of the trials here are equal,
    far more than rounding explains); otherwise

    $$ \\ln x' = \\ln x + G_k + \\epsilon, \\quad
       \\epsilon \\sim (1 - w_k)\\,L(0, \\sigma_{kc}) + w_k\\,L(m + \\rho \\ln(x_{-}/x), S), \\quad
       \\sigma_{kc} = \\nu_c \\sigma_k (x/30)^{-q} (\\Delta t/42)^h (1 + t/60)^{c_t} $$

    and an entry is the interval that rounds to it; L is logistic with the spread of a normal distribution, `x_-` the
    reading before the last (a jump is often taken back: another lesion was measured), G_k the drift of `growth`. Of
    what is below 5 mm a share `psi` is written down as 0, which means [0, 5) and hardly ever changes again. The classes
    are the Gauss-Hermite nodes of $\\ln\\nu \\sim N(0, \\tau^2)$.

    **Arguments:** `growth`; `spread` sigma_k; `between` tau; `kept` and `kept_by_class`: log-odds of s and how they fall
    with ln nu; `duration_exponent` h; `spread_exponent` q; `time_exponent` c_t; `jump_share` (log-odds of w_k),
    `jump_spread` S, `jump_shift` m, `jump_return` rho; `vanishing` [regime, log of h_k]; `vanishing_exponent` a;
    `below_as_gone` and `returning` (log-odds of psi, and of coming back at a visit).

    **Good values:** the priors of `experiments/laleh2022/model.py`.

    **Limits:** x is the last entry, not a latent size: its rounding is in the spread (variance 1/12 mm^2), a misreading
    in `jump_return`.
    """

    growth: SwitchingGrowth
    spread: Float[Array, " regime"] = parameter(unit=units.FRACTION)
    between: Float[Array, ""] = parameter(unit=units.FRACTION)
    kept: Float[Array, " regime"] = parameter(unit=units.FRACTION)
    kept_by_class: Float[Array, ""] = parameter(unit=units.FRACTION)
    duration_exponent: Float[Array, ""] = parameter(unit=units.FRACTION)
    spread_exponent: Float[Array, ""] = parameter(unit=units.FRACTION)
    time_exponent: Float[Array, ""] = parameter(unit=units.FRACTION)
    jump_share: Float[Array, " regime"] = parameter(unit=units.FRACTION)
    jump_spread: Float[Array, ""] = parameter(unit=units.FRACTION)
    jump_shift: Float[Array, ""] = parameter(unit=units.FRACTION)
    jump_return: Float[Array, ""] = parameter(unit=units.FRACTION)
    correction: Float[Array, " regime"] = parameter(unit=units.FRACTION)
    vanishing: Float[Array, " regime"] = parameter(unit=units.FRACTION)
    vanishing_exponent: Float[Array, ""] = parameter(unit=units.FRACTION)
    below_as_gone: Float[Array, ""] = parameter(unit=units.FRACTION)
    returning: Float[Array, ""] = parameter(unit=units.FRACTION)

    def initial(self) -> Float[Array, "regime class"]:
        """Probability of every regime and class at the first reading."""
        return self.growth.initial()[:, None] * jnp.asarray(_WEIGHTS / _WEIGHTS.sum())[None, :]

    def transition(self, chances: Float[Array, "row chance"]) -> Float[Array, "row regime regime"]:
        """How the regimes move between two readings; a class stays."""
        return self.growth.transition(chances)

    def parts(self, at: Visits) -> "Parts":
        """The pieces of the law above."""
        size = jnp.where(at.size > 0, at.size, REFERENCE_SIZE)
        log_size, periods = jnp.log(size), at.duration / INTERVAL
        both = (at.size > 0) & (at.before > 0)
        back = jnp.where(both, jnp.log(jnp.where(both, at.before, 1.0)) - jnp.log(jnp.where(both, at.size, 1.0)), 0.0)
        center = log_size[:, None] + self.growth.log_growth(size, at.duration) + self.correction[None] * jnp.clip(back,-.3,.3)[:, None]
        common = (
            periods**self.duration_exponent
            * (size / REFERENCE_SIZE) ** (-self.spread_exponent)
            * (1 + jnp.maximum(at.day, 0.0) / 60.0) ** self.time_exponent
        )
        log_nu = self.between * jnp.asarray(_NODES)
        rounding = 1 / (12 * size**2)
        spread = jnp.sqrt((common[:, None, None] * self.spread[None, :, None] * jnp.exp(log_nu)) ** 2 + rounding[:, None, None])
        hazard = jnp.exp(self.vanishing[None, :] - self.vanishing_exponent * jnp.log(size / 15.0)[:, None])
        return Parts(
            center,
            spread,
            center + self.jump_shift + self.jump_return * back[:, None],
            jax.nn.sigmoid(self.jump_share),
            jax.nn.sigmoid(self.kept[:, None] - self.kept_by_class * log_nu[None, :]),
            -jnp.expm1(-hazard * periods[:, None]),
        )

    def likelihood(
        self, at: Visits, entry: Float[Array, " row"], lower: Float[Array, " row"], upper: Float[Array, " row"]
    ) -> Float[Array, "row regime class"]:
        """Probability of the next entry, known to lie in [lower, upper] mm."""
        law, gone = self.parts(at), (entry == 0)[:, None, None]
        low, high = jnp.where(lower > 0, jnp.log(jnp.where(lower > 0, lower, 1.0)), -30.0), jnp.log(upper)

        def mass(center: Array, spread: Array) -> Array:
            shape = (-1,) + (1,) * (center.ndim - 1)
            return _cdf(high.reshape(shape), center, spread) - _cdf(low.reshape(shape), center, spread)

        jumped = mass(law.jump_center, self.jump_spread)[:, :, None]
        share = law.jump_share[None, :, None]
        moved = (1 - share) * mass(law.center[:, :, None], law.spread) + share * jumped
        as_gone = jax.nn.sigmoid(self.below_as_gone)
        moved = moved * jnp.where(entry == 0, as_gone, jnp.where(upper <= LIMIT, 1 - as_gone, 1.0))[:, None, None]
        again = jnp.where(entry == at.size, 1.0, 0.0)[:, None, None] * law.kept[None]
        lost = law.lost[:, :, None]
        present = jnp.where(gone, lost, 0.0) + (1 - lost) * (again + (1 - law.kept)[None] * moved)
        back = jax.nn.sigmoid(self.returning)
        absent = jnp.where(entry == 0, 1 - back, back * mass(jnp.full_like(high, jnp.log(RETURN_SIZE)), jnp.asarray(RETURN_SPREAD)))
        return jnp.where((at.size > 0)[:, None, None], present, absent[:, None, None])

    def sample(
        self, at: Visits, regime: Int[Array, " row"], variability: Int[Array, " row"], *, key: Array
    ) -> Float[Array, " row"]:
        """The next entry [mm], whole millimeters unless the last one is written down again."""
        law, rows = self.parts(at), jnp.arange(at.size.shape[0])
        u = jax.random.uniform(key, (7, at.size.shape[0]), minval=1e-12, maxval=1.0)
        jump = u[0] < law.jump_share[regime]
        center = jnp.where(jump, law.jump_center[rows, regime], law.center[rows, regime])
        spread = jnp.where(jump, self.jump_spread, law.spread[rows, regime, variability])
        moved = jnp.minimum(jnp.exp(center + spread * _logistic(u[1])), LARGEST)
        entry = jnp.where((moved < LIMIT) & (u[2] < jax.nn.sigmoid(self.below_as_gone)), 0.0, jnp.round(moved))
        entry = jnp.where(u[3] < law.kept[regime, variability], at.size, entry)
        entry = jnp.where(u[4] < law.lost[rows, regime], 0.0, entry)
        new = jnp.round(RETURN_SIZE * jnp.exp(RETURN_SPREAD * _logistic(u[5])))
        absent = jnp.where(u[6] < jax.nn.sigmoid(self.returning), new, 0.0)
        return jnp.where(at.size > 0, entry, absent)


class Parts(NamedTuple):
    """Of every row: `center` and `jump_center` [row, regime], `spread` [row, regime, class], `lost` [row, regime];
    `jump_share` [regime], `kept` [regime, class]."""

    center: Array
    spread: Array
    jump_center: Array
    jump_share: Array
    kept: Array
    lost: Array


def _cdf(log_size: Array, center: Array, spread: Array) -> Array:
    return jax.nn.sigmoid(_LOGISTIC * (log_size - center) / spread)


def _logistic(uniform: Array) -> Array:
    return (jnp.log(uniform) - jnp.log1p(-uniform)) / _LOGISTIC
