"""Where a surrogate was trained: the test that a set of parameters belongs there."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.surrogates._conformal import conformal_quantile

NEIGHBORS = 5


class ParameterDomain(eqx.Module):
    """The part of parameter space that training points cover, as a box and by the distance to the nearest of them.

    $$ x_p = \\frac{\\log \\theta_p - m_p}{s_p}, \\qquad
       b(x) = \\max_p \\max(l_p - x_p,\\ x_p - h_p), \\qquad d(x) = \\tfrac1k \\sum_{i \\le k} |x - x_{(i)}| $$

    with m, s, l, h mean, standard deviation, least and largest value of the training points in every coordinate. A
    point is inside when b <= `box_limit` and d <= `distance_limit`. Both limits are conformal quantiles over points
    drawn as the future ones are: of those at most 1 - `level` are flagged, whatever their distribution. The box
    catches what lies beyond the range of one parameter; the distance catches gaps and empty corners.

    **Arguments:** of `of`: `training` path -> [point], positive; `expected` path -> [point] drawn as the points that
    will be asked for, not used for training; `level`.

    **Good values:** level .98; several hundred points of each.

    **Raises:** `ValueError` for parameters that are not positive, or other paths in the two sets.

    **Limits:** positive parameters (for convenience); neighbors thin out in many dimensions (mathematical).

    **Reference:** conformal anomaly detection, Laxhammar & Falkman, Ann. Math. Artif. Intell. 74 (2015) 67-94.
    """

    center: Float[Array, " parameter"]
    scale: Float[Array, " parameter"]
    points: Float[Array, "point parameter"]
    low: Float[Array, " parameter"]
    high: Float[Array, " parameter"]
    box_limit: Float[Array, ""]
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
        unlimited = cls(
            jnp.asarray(center),
            jnp.asarray(scale),
            jnp.asarray(points),
            jnp.asarray(points.min(axis=0)),
            jnp.asarray(points.max(axis=0)),
            jnp.asarray(np.inf),
            jnp.asarray(np.inf),
            paths,
        )
        asked = jnp.asarray((_logarithms(expected, paths) - center) / scale)
        boxes, distances = (np.asarray(x) for x in _scores(unlimited, asked))
        half = 0.5 * (1.0 + level)  # either test may flag half of what may be flagged
        limits = tuple(jnp.asarray(conformal_quantile(scores, half)) for scores in (boxes, distances))
        return eqx.tree_at(lambda d: (d.box_limit, d.distance_limit), unlimited, limits)

    def coordinates(self, values: Mapping[str, Array]) -> Float[Array, " parameter"]:
        """The standardized logarithms of parameter values by path."""
        logs = jnp.stack([jnp.log(jnp.asarray(values[path])) for path in self.paths])
        return (logs - self.center) / self.scale

    def scores(self, x: Float[Array, " parameter"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """How far a point is beyond the box (negative inside), and its mean distance to the nearest points."""
        beyond = jnp.max(jnp.maximum(self.low - x, x - self.high))
        squares = jnp.sum((self.points - x[None]) ** 2, axis=1)
        nearest = -jax.lax.top_k(-squares, self.neighbors)[0]
        return beyond, jnp.mean(jnp.sqrt(jnp.maximum(nearest, 0.0)))

    def contains(self, values: Mapping[str, Array]) -> Bool[Array, ""]:
        """Whether a set of parameter values is inside; False for one that is not a number."""
        beyond, distance = self.scores(self.coordinates(values))
        return (beyond <= self.box_limit) & (distance <= self.distance_limit)


@eqx.filter_jit
def _scores(domain: ParameterDomain, x: Float[Array, "point parameter"]) -> tuple[Array, Array]:
    return jax.vmap(domain.scores)(x)


def _logarithms(values: Mapping[str, np.ndarray], paths: tuple[str, ...]) -> np.ndarray:
    columns = np.stack([np.asarray(values[path], dtype=float) for path in paths], axis=1)
    if not (np.isfinite(columns).all() and (columns > 0).all()):
        worst = [path for path, column in zip(paths, columns.T, strict=True) if not (column > 0).all()]
        raise ValueError(f"required: positive, finite parameters; received others for: {', '.join(worst) or 'some'}")
    return np.log(columns)
