"""What treatment does to tumor cells: fractions kill at once, a drug kills while it is there."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin.models._base import AbstractMechanism, Context, TumorState
from tumortwin.params import parameter
from tumortwin.treatments import log_kill


class RadiotherapyResponse(AbstractMechanism):
    """Linear-quadratic cell kill, instantaneous at each fraction.

    $$ u(t^+) = u(t^-)\\,e^{-\\alpha d - \\beta d^2},\\qquad \\beta = \\alpha / (\\alpha/\\beta) $$

    **Arguments:** `alpha` [1/Gy]; `alpha_beta` [Gy].

    **Good values:** alpha 0.03-0.1 /Gy, alpha/beta 10 Gy (high-grade glioma).

    **Limits:** a fraction is instantaneous and uniform over the tumor (for convenience).

    **Reference:** Fowler, Br. J. Radiol. 62 (1989) 679-694, doi:10.1259/0007-1285-62-740-679.
    """

    alpha: Float[Array, ""] = parameter(unit=units.RADIOSENSITIVITY)
    alpha_beta: Float[Array, ""] = parameter(unit=units.DOSE, default=10.0)

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "doi:10.1259/0007-1285-62-740-679"

    def log_kill(self, doses: Float[Array, " event"]) -> Float[Array, " event"]:
        """Natural log-kill of each fraction [1]."""
        return log_kill(doses, self.alpha, self.alpha_beta)

    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """Zero: fractions are jumps."""
        del t, context
        return jnp.zeros_like(state.density)


class DrugResponse(AbstractMechanism):
    """First-order kill by a drug that is eliminated exponentially.

    $$ \\partial_t u = -s\\,C(t)\\,u,\\quad C(t) = \\sum_j c_j\\,e^{-k (t - t_j)} H(t - t_j) $$

    One dose c kills `s c / k` in natural log when given time to act. The kill is integrated in closed form by the
    solver; nothing samples C(t).

    **Arguments:** `sensitivity` s [1/day] at the concentration of one reference dose; `elimination_rate` k [1/day];
    `drug` the name of the course in the schedule.

    **Good values:** temozolomide: half-life 1.8 h, k 9.242 /day, s 0.5 /day.

    **Reference:** Skipper, Schabel & Wilcox, Cancer Chemother. Rep. 35 (1964) 1-111 (log-kill); Baker et al.,
    Clin. Cancer Res. 5 (1999) 309-317 (temozolomide half-life 1.8 h).
    """

    sensitivity: Float[Array, ""] = parameter(unit=units.RATE)
    elimination_rate: Float[Array, ""] = parameter(unit=units.RATE, default=9.242)
    drug: str = eqx.field(static=True, default="temozolomide")

    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = "Baker et al., Clin. Cancer Res. 5 (1999) 309-317"

    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """-s C(t) u [1/day]."""
        course = context.schedule.drugs[self.drug]
        age = t - course.times
        safe_age = jnp.where(age >= 0, age, 0.0)
        concentration = jnp.sum(jnp.where(age >= 0, course.doses * jnp.exp(-self.elimination_rate * safe_age), 0.0))
        return -(self.sensitivity * concentration).astype(state.density.dtype) * state.density
