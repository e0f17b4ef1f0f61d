"""Where a surrogate was trained: the test that a set of parameters belongs there."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.surrogates._conformal import conformal_quantile

NEIGHBORS = 5
# Added to the sides of the box [standard deviation]: a value that stands on a side is inside, however it was rounded.
ROUNDING = 1e-4


class ParameterDomain(eqx.Module):
    """The part of parameter space that training points cover, as a box and by the distance to the nearest of them.

    $$ x_p = \\frac{\\log \\theta_p - m_p}{s_p}, \\qquad
       d(x) = \\tfrac1k \\sum_{i \\le k} |x - x_{(i)}| $$

    with m, s mean and standard deviation of the training points in every coordinate, and x_(i) the training points
    nearest to x. A point is inside when every x_p is within [`low`, `high`] and d <= `distance_limit`. All limits are
    conformal quantiles over points drawn as the future ones are (those that the bounds are calibrated on): of them at
    most 1 - `level` are flagged, half of that by the distance and half by the sides of the box together, whatever their
    distribution. The box catches what lies beyond the range of one parameter, side by side, so that a long tail on one
    does not blur a sharp end on another; the distance catches gaps and empty corners of the training set.

    **Arguments:** of `of`: `training` path -> [point], positive; `expected` path -> [point] drawn as the points that
    will be asked for, not used for training; `level`.

    **Good values:** level .98; several hundred points of each.

    **Raises:** `ValueError` for parameters that are not positive, other paths in the two sets, or too few expected
    points to set the limits at that level.

    **Limits:** positive parameters (for convenience); neighbors thin out in many dimensions (mathematical).

    **Reference:** conformal anomaly detection, Laxhammar & Falkman, Ann. Math. Artif. Intell. 74 (2015) 67-94.
    """

    center: Float[Array, " parameter"]
    scale: Float[Array, " parameter"]
    points: Float[Array, "point parameter"]
    low: Float[Array, " parameter"]
    high: Float[Array, " parameter"]
    distance_limit: Float[Array, ""]
    paths: tuple[str, ...] = eqx.field(static=True)
    neighbors: int = eqx.field(static=True, default=NEIGHBORS)

    @classmethod
    def of(
        cls, training: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], level: float = 0.98
    ) -> "ParameterDomain":
        """The domain of training points, its limits set on points as they are expected."""
        paths = tuple(sorted(training))
        if paths != tuple(sorted(expected)):
            raise ValueError(f"required: the same parameters in both sets; received: {paths} and {sorted(expected)}")
        logs = _logarithms(training, paths)
        center, scale = logs.mean(axis=0), logs.std(axis=0)
        points = (logs - center) / scale
        asked = (_logarithms(expected, paths) - center) / scale
        side = 1.0 - (1.0 - level) / (4.0 * len(paths))
        high = ROUNDING + np.asarray([conformal_quantile(x, side) for x in asked.T])
        low = -ROUNDING - np.asarray([conformal_quantile(-x, side) for x in asked.T])
        if not np.isfinite([low, high]).all():
            raise ValueError(
                f"required: at least {int(np.ceil(side / (1.0 - side) - 1e-9))} expected points for level {level} of "
                f"{len(paths)} parameters; received: {len(asked)}"
            )
        center, scale, points, low, high = (jnp.asarray(x) for x in (center, scale, points, low, high))
        unlimited = cls(center, scale, points, low, high, jnp.asarray(np.inf), paths)
        distances = np.asarray(_distances(unlimited, jnp.asarray(asked)))
        limit = jnp.asarray(conformal_quantile(distances, 0.5 * (1.0 + level)))
        return eqx.tree_at(lambda d: d.distance_limit, unlimited, limit)

    def coordinates(self, values: Mapping[str, Array]) -> Float[Array, " parameter"]:
        """The standardized logarithms of parameter values by path."""
        logs = jnp.stack([jnp.log(jnp.asarray(values[path])) for path in self.paths])
        return (logs - self.center) / self.scale

    def distance(self, x: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Mean distance of a point to the nearest training points."""
        squares = jnp.sum((self.points - x[None]) ** 2, axis=1)
        nearest = -jax.lax.top_k(-squares, self.neighbors)[0]
        return jnp.mean(jnp.sqrt(jnp.maximum(nearest, 0.0)))

    def contains(self, values: Mapping[str, Array]) -> Bool[Array, ""]:
        """Whether a set of parameter values is inside; False for one that is not a number."""
        x = self.coordinates(values)
        return jnp.all((x >= self.low) & (x <= self.high)) & (self.distance(x) <= self.distance_limit)


@eqx.filter_jit
def _distances(domain: ParameterDomain, x: Float[Array, "point parameter"]) -> Float[Array, " point"]:
    return jax.vmap(domain.distance)(x)


def _logarithms(values: Mapping[str, np.ndarray], paths: tuple[str, ...]) -> np.ndarray:
    columns = np.stack([np.asarray(values[path], dtype=float) for path in paths], axis=1)
    if not (np.isfinite(columns).all() and (columns > 0).all()):
        worst = [path for path, column in zip(paths, columns.T, strict=True) if not (column > 0).all()]
        raise ValueError(f"required: positive, finite parameters; received others for: {', '.join(worst) or 'some'}")
    return np.log(columns)
