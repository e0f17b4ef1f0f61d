"""Log-kill as a path: how much is killed between two times, exactly, whatever the time step."""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin._types import ScalarLike


class LogKill(diffrax.AbstractPath):
    """Cumulative natural log-kill of fractions (jumps) and drug doses (exponentially decaying rates).

    $$ \\Lambda(t_0, t_1) = \\sum_{t_0 \\le \\tau_i < t_1} \\ell_i
       + \\sum_j \\kappa_j\\,\\big(e^{-k_j (t_0 - \\tau_j)_+} - e^{-k_j (t_1 - \\tau_j)_+}\\big) $$

    with `l_i` the log-kill of a fraction and `kappa_j` the log-kill of a drug dose given time to act. The interval is
    closed on the left: a scan on the day of a fraction sees the tumor *before* it, a fraction on day 0 counts.

    **Arguments:** `t0`, `t1` the range on which the path is defined [day]; times [day]; log-kills [1];
    `elimination_rates` [1/day], one a dose. Everything has gradients, the times included (through drug terms and
    through whoever integrates against the path).
    """

    t0: ScalarLike
    t1: ScalarLike
    fraction_times: Float[Array, " fraction"]
    fraction_log_kills: Float[Array, " fraction"]
    drug_times: Float[Array, " dose"]
    drug_log_kills: Float[Array, " dose"]
    elimination_rates: Float[Array, " dose"]

    def evaluate(self, t0: ScalarLike, t1: ScalarLike | None = None, left: bool = True) -> Float[Array, "..."]:
        """Log-kill in [t0, t1), or in [self.t0, t0) when `t1` is not given. Accepts arrays of times."""
        del left
        if t1 is None:
            return self.cumulative(jnp.asarray(t0))
        return self.cumulative(jnp.asarray(t1)) - self.cumulative(jnp.asarray(t0))

    def cumulative(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log-kill in [self.t0, t)."""
        return jax.vmap(self._cumulative)(t.reshape(-1)).reshape(t.shape)

    def _cumulative(self, t: Float[Array, ""]) -> Float[Array, ""]:
        start = jnp.asarray(self.t0, t.dtype)
        happened = (self.fraction_times >= start) & (self.fraction_times < t)
        jumps = jnp.sum(jnp.where(happened, self.fraction_log_kills, 0.0))
        left = jnp.exp(-self.elimination_rates * jnp.maximum(start - self.drug_times, 0.0))
        remaining = jnp.exp(-self.elimination_rates * jnp.maximum(t - self.drug_times, 0.0))
        return jumps + jnp.sum(self.drug_log_kills * (left - remaining))

    @property
    def event_times(self) -> Float[Array, " event"]:
        """Every time at which the path or its derivative jumps [day], fractions first."""
        return jnp.concatenate([self.fraction_times, self.drug_times])
