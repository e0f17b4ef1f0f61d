"""From an error estimate to an error bound: what the estimates of held-out cases were short of, or in excess by."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.surrogates._conformal import conformal_quantile

FLOOR = 1e-4  # relative L2: the model's own rounding and time step; smaller estimates are not told apart


class ErrorModel(eqx.Module):
    """Bounds for what a surrogate is off by, at all days of a course together, from a cheap estimate of it.

    $$ |u - \\hat u|/|\\hat u| \\le q\\,(\\eta + f), \\qquad
       |Q - \\hat Q| \\le q_Q\\,(\\eta + f)\\,(\\hat Q + \\hat Q_0 + v) $$

    with eta the estimate at a day, f `floor`, Q_0 the quantity at the start, v the volume of one `voxel` [mm^3], so
    that a volume of which the surrogate sees nothing is bounded too. Every factor q is the conformal quantile,
    at `level`, of the greatest ratio of the left to the right over the days of a held-out case: so every bound holds at
    all days of a new case with that probability, over cases drawn as the held-out ones were.

    `tolerance`: the largest bound of the relative error with which a surrogate vouches for its answer.
    A surrogate that was not held against cases (`uncalibrated`) has infinite factors: it vouches for nothing.

    **Good values:** level .95, tolerance .1.
    """

    density_factor: Float[Array, ""]
    quantity_factors: dict[str, Float[Array, ""]]
    tolerance: Float[Array, ""]
    level: Float[Array, ""]
    floor: Float[Array, ""]
    voxel: Float[Array, ""]

    @classmethod
    def uncalibrated(
        cls, quantities: tuple[str, ...], level: float, tolerance: float, voxel: float, floor: float = FLOOR
    ) -> "ErrorModel":
        """Before any case was held against it: infinite bounds."""
        infinite = jnp.asarray(np.inf)
        return cls(
            infinite,
            {name: infinite for name in quantities},
            jnp.asarray(tolerance),
            jnp.asarray(level),
            jnp.asarray(floor),
            jnp.asarray(voxel),
        )

    def calibrated(
        self, estimates: np.ndarray, errors: np.ndarray, quantities: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> "ErrorModel":
        """The bounds that held-out cases give.

        **Arguments:** `estimates`, `errors` [case day]: estimated and true relative L2 error; `quantities`: name -> the
        surrogate's and the model's values [case day], the first day being that of the start.

        **Raises:** `ValueError` for numbers that are NaN, or the wrong names.
        """
        if set(quantities) != set(self.quantity_factors):
            raise ValueError(f"required: {sorted(self.quantity_factors)}; received: {sorted(quantities)}")
        level, slack = float(self.level), np.asarray(estimates) + float(self.floor)
        factor = conformal_quantile(np.max(np.asarray(errors) / slack, axis=1), level)
        factors = {}
        for name, (ours, theirs) in quantities.items():
            ratio = np.abs(np.asarray(theirs) - ours) / (slack * self._scale(ours))
            factors[name] = jnp.asarray(conformal_quantile(np.max(ratio, axis=1), level))
        return ErrorModel(jnp.asarray(factor), factors, self.tolerance, self.level, self.floor, self.voxel)

    def density_bound(self, estimate: Float[Array, "*case time"]) -> Float[Array, "*case time"]:
        """Bound of the relative L2 error of the density."""
        return self.density_factor * (estimate + self.floor)

    def quantity_bound(
        self, name: str, estimate: Float[Array, " time"], value: Float[Array, " time"], start: Float[Array, ""]
    ) -> Float[Array, " time"]:
        """Half-width of the interval around a quantity, in its unit."""
        return self.quantity_factors[name] * (estimate + self.floor) * (jnp.abs(value) + jnp.abs(start) + self.voxel)

    def case_bounds(self, name: str, estimates: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The same of held-out cases [case day] whose first day is that of the start."""
        slack = np.asarray(estimates) + float(self.floor)
        return float(self.quantity_factors[name]) * slack * self._scale(values)

    def _scale(self, values: np.ndarray) -> np.ndarray:
        """|Q| + |Q_0| + v of quantities [case day]."""
        return np.abs(values) + np.abs(values[:, :1]) + float(self.voxel)
