"""What is written down of a lesion at the next visit, given what was written down at the last one."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tumortwin import units
from tumortwin.models import SwitchingGrowth
from tumortwin.params import parameter

REFERENCE_SIZE = 30.0  # [mm]: where the spread is read off
LIMIT = 5.0  # [mm]: below it a lesion may be written down as gone
INTERVAL = 42.0  # [day] between two visits, in the mean
SETTLING, VANISHING_SIZE = 60.0, 15.0  # [day], [mm]: where two power laws are read off
LARGEST = 400.0  # [mm]; a drawn future reading is held at it: a body is no larger, the tail of a jump is
RETURN_LOG_SIZE, RETURN_SPREAD = 1.792, 0.3  # [log mm]: what comes back is small, some 6 mm
_LOGISTIC = 1.702  # a logistic of this slope is the normal distribution to .01
_LOG_NOTHING = -30.0
_NODES, _WEIGHTS = (-(3.0**0.5), 0.0, 3.0**0.5), (1 / 6, 2 / 3, 1 / 6)  # Gauss-Hermite


class Visits(NamedTuple):
    """Where a reading starts from: `size` [row, mm] last written down (0: gone), `day` of it (after the first dose),
    `duration` [day] until the next."""

    size: Array
    day: Array
    duration: Array


class LesionReadings(eqx.Module):
    """The law of the next reading of a diameter, for every hidden regime k and class c of a patient's variability.

    A lesion of size x > 0 is found gone with the hazard $h_k (x/15)^{-a}$ per 42 days; otherwise the last entry is
    written down again with probability $s_{kc}$ (readers do: 31 % of successive entries of the trials here are equal,
    far more than rounding explains); otherwise

    $$ \\ln x' = \\ln x + G_k + \\epsilon, \\quad
       \\epsilon \\sim (1 - w_k)\\,L(0, \\sigma_{kc}) + w_k\\,L(m, S), \\quad
       \\sigma_{kc} = \\nu_c \\sigma_k (x/30)^{-q} (\\Delta t/42)^h (1 + t/60)^{\\kappa} $$

    and an entry is the interval that rounds to it. L is logistic with the spread of a normal distribution, G_k the
    drift of `growth`. Of what is below 5 mm a share `psi` is written down as 0, which means [0, 5) and hardly ever
    changes again. The classes are the three Gauss-Hermite nodes of $\\ln\\nu \\sim N(0, \\tau^2)$.

    **Arguments:** `growth`; `spread` sigma_k; `between` tau; `kept` and `kept_by_class`: log-odds of s, and how they
    fall with ln nu; `duration_exponent` h; `spread_exponent` q; `time_exponent` kappa; `jump_share` (log-odds of w_k),
    `jump_spread` S, `jump_shift` m; `vanishing` [regime, log of h_k]; `vanishing_exponent` a; `below_as_gone` and
    `returning` (log-odds of psi, and of coming back at a visit).

    **Good values:** the priors of `experiments/laleh2022/model.py`.

    **Limits:** x is the last entry, not a latent size: its rounding is in the spread (variance 1/12 mm^2), and a
    misreading that the next one takes back is two jumps (for convenience: a latent size would need a grid).

    **Reference:** Ghaffari Laleh et al., PLOS Comput. Biol. 18 (2022) e1009822 (the readings); Hyndman et al.,
    Forecasting with Exponential Smoothing (2008), ch. 3 (states that are driven by the last observation).
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
    vanishing: Float[Array, " regime"] = parameter(unit=units.FRACTION)
    vanishing_exponent: Float[Array, ""] = parameter(unit=units.FRACTION)
    below_as_gone: Float[Array, ""] = parameter(unit=units.FRACTION)
    returning: Float[Array, ""] = parameter(unit=units.FRACTION)

    def initial(self) -> Float[Array, "regime class"]:
        """Probability of every regime and class at the first reading."""
        return self.growth.initial()[:, None] * jnp.asarray(_WEIGHTS)[None, :]

    def transition(self, chances: Float[Array, "chance row"]) -> Float[Array, "regime regime row"]:
        """How the regimes move between two readings; a class stays."""
        return self.growth.transition(chances)

    def parts(self, at: Visits) -> "Parts":
        """The pieces of the law above."""
        size = jnp.where(at.size > 0, at.size, REFERENCE_SIZE)
        log_size, log_periods = jnp.log(size), jnp.log(at.duration / INTERVAL)
        center = log_size[None, :] + self.growth.log_growth(size, at.duration)
        common = (
            self.duration_exponent * log_periods
            - self.spread_exponent * jnp.log(size / REFERENCE_SIZE)
            + self.time_exponent * jnp.log1p(jnp.maximum(at.day, 0.0) / SETTLING)
        )
        log_nu = self.between * jnp.asarray(_NODES)
        variability = (self.spread[:, None] * jnp.exp(log_nu)[None, :])[:, :, None]
        rounding = 1 / (12 * size**2)
        log_hazard = self.vanishing[:, None] - self.vanishing_exponent * jnp.log(size / VANISHING_SIZE)[None, :]
        return Parts(
            center,
            jnp.sqrt((variability * jnp.exp(common)[None, None, :]) ** 2 + rounding[None, None, :]),
            center + self.jump_shift,
            jax.nn.sigmoid(self.jump_share),
            jax.nn.sigmoid(self.kept[:, None] - self.kept_by_class * log_nu[None, :]),
            -jnp.expm1(-jnp.exp(log_hazard + log_periods[None, :])),
        )

    def likelihood(
        self, at: Visits, entry: Float[Array, " row"], lower: Float[Array, " row"], upper: Float[Array, " row"]
    ) -> Float[Array, "regime class row"]:
        """Probability of the next entry, known to lie in [lower, upper] mm."""
        law, gone, back = self.parts(at), entry == 0, jax.nn.sigmoid(self.returning)
        low = jnp.where(lower > 0, jnp.log(jnp.where(lower > 0, lower, 1.0)), _LOG_NOTHING)
        high = jnp.log(upper)
        middle = jnp.clip(jnp.log(jnp.asarray(LIMIT)), low, high)
        as_gone = jax.nn.sigmoid(self.below_as_gone)
        below, above = jnp.where(gone, as_gone, 1 - as_gone), jnp.where(gone, 0.0, 1.0)

        def written(center: Array, spread: Array) -> Array:
            """Probability that a size between `low` and `high` is written down as `entry`."""
            scale = _LOGISTIC / spread
            least, limit, most = (
                jax.nn.sigmoid((edge[None, None, :] - center) * scale) for edge in (low, middle, high)
            )
            return below[None, None, :] * (limit - least) + above[None, None, :] * (most - limit)

        steps = jnp.broadcast_to(law.center[:, None, :], law.spread.shape)
        jump = law.jump_center[:, None, :]
        centers = jnp.concatenate([steps, jump], axis=1)  # a jump beside the classes: one expression to compile
        spreads = jnp.concatenate([law.spread, jnp.broadcast_to(self.jump_spread, jump.shape)], axis=1)
        walked, jumped = jnp.split(written(centers, spreads), [law.spread.shape[1]], axis=1)
        share, kept = law.jump_share[:, None, None], law.kept[:, :, None]
        again = jnp.where(entry == at.size, 1.0, 0.0)[None, None, :]
        moved = (1 - share) * walked + share * jumped
        lost = law.lost[:, None, :]
        present = jnp.where(gone, 1.0, 0.0)[None, None, :] * lost + (1 - lost) * (kept * again + (1 - kept) * moved)
        most, least = (jax.nn.sigmoid((e - RETURN_LOG_SIZE) * (_LOGISTIC / RETURN_SPREAD)) for e in (high, low))
        absent = jnp.where(gone, 1 - back, back * (most - least))
        return jnp.where((at.size > 0)[None, None, :], present, absent[None, None, :])

    def advance(self, at: Visits, entry: Float[Array, " row"], duration: Float[Array, " row"]) -> Visits:
        """What is known after the next entry, `duration` [day] before the one that follows it."""
        return Visits(entry, at.day + at.duration, duration)

    def sample(
        self, at: Visits, regime: Int[Array, " row"], variability: Int[Array, " row"], *, key: Array
    ) -> Float[Array, " row"]:
        """The next entry [mm], whole millimeters unless the last one is written down again."""
        law, rows = self.parts(at), jnp.arange(at.size.shape[0])
        u = jax.random.uniform(key, (7, at.size.shape[0]), minval=1e-12, maxval=1.0)
        jump = u[0] < law.jump_share[regime]
        center = jnp.where(jump, law.jump_center[regime, rows], law.center[regime, rows])
        spread = jnp.where(jump, self.jump_spread, law.spread[regime, variability, rows])
        moved = jnp.minimum(jnp.exp(center + spread * _logistic(u[1])), LARGEST)
        entry = jnp.where((moved < LIMIT) & (u[2] < jax.nn.sigmoid(self.below_as_gone)), 0.0, jnp.round(moved))
        entry = jnp.where(u[3] < law.kept[regime, variability], at.size, entry)
        entry = jnp.where(u[4] < law.lost[regime, rows], 0.0, entry)
        new = jnp.round(jnp.exp(RETURN_LOG_SIZE + RETURN_SPREAD * _logistic(u[5])))
        absent = jnp.where(u[6] < jax.nn.sigmoid(self.returning), new, 0.0)
        return jnp.where(at.size > 0, entry, absent)


class Parts(NamedTuple):
    """Of every row: `center` and `jump_center` [regime, row], `spread` [regime, class, row], `lost` [regime, row];
    `jump_share` [regime], `kept` [regime, class]."""

    center: Array
    spread: Array
    jump_center: Array
    jump_share: Array
    kept: Array
    lost: Array


def _logistic(uniform: Array) -> Array:
    return (jnp.log(uniform) - jnp.log1p(-uniform)) / _LOGISTIC
