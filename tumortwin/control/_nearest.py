"""The nearest admissible decision: projection on the region, and the nearest whole numbers in it."""

import dataclasses
import functools
import math

import numpy as np
from scipy.optimize import minimize, nnls

from tumortwin.control._infeasible import check_feasible
from tumortwin.control._programs import linear_program
from tumortwin.control._region import TOLERANCE, Region, Rows

SECTIONS, SECTIONINGS = 64, 9
"""The last admissible point of a segment is found to 1 / 64^9 by nine calls of one program; a bisection takes 54."""
MOST_CUTS = 20
MOST_LISTED = 20_000
"""Whole decisions up to which all that keep curved limits are listed, and the nearest is exact."""
SAFETY = 1e-12
"""What a projection keeps away from rows, so that rounding does not leave them."""


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Projection on a region, and the nearest whole numbers in it.

    $$ P(y) = \\arg\\min_{u \\in C} |u - y|^2 $$

    With affine limits it is the least-distance program of Lawson and Hanson, solved exactly by non-negative least
    squares. With curved convex limits sequential quadratic programming finds it, and what rounding leaves outside is
    drawn in along the segment to an inner point: every answer keeps its limits.

    Build it with `Nearest.of(region)`.

    **Limits:** with curved limits that are not convex an answer is inside, but not always the nearest (mathematical);
    among up to 20,000 whole decisions it is.

    **Reference:** Lawson and Hanson, Solving Least Squares Problems, ch. 23 (1974).
    """

    region: Region
    inner: np.ndarray

    @classmethod
    def of(cls, region: Region) -> "Nearest":
        """Checks the region and finds an inner point.

        **Raises:** `Infeasible` for a region without a decision.
        """
        return cls(region, _inner(region.relaxed(), check_feasible(region)))

    def project(self, target: np.ndarray) -> np.ndarray:
        """The nearest decision (integrality left out)."""
        region = self.region
        near = np.clip(_least_distance(region, target), region.lower, region.upper)
        if region.excess(near) <= 0.0:
            return near
        if region.curved and region.curved_residuals(near).max() > 0.0:
            near = _curved_projection(region, target, self.inner)
        return self.drawn_in(near)

    def drawn_in(self, vector: np.ndarray) -> np.ndarray:
        """The last admissible point on the way from the inner point to `vector`; `vector` itself inside."""
        if self.region.excess(vector) <= TOLERANCE / 10.0:
            return np.clip(vector, self.region.lower, self.region.upper)
        low, high, way = 0.0, 1.0, vector - self.inner
        for _ in range(SECTIONINGS):
            shares = np.linspace(low, high, SECTIONS + 1)
            outside = self.region.excesses(self.inner + shares[1:, None] * way) > 0.0
            first = int(np.argmax(outside)) if outside.any() else SECTIONS - 1
            low, high = float(shares[first]), float(shares[first + 1])
        return self.inner + low * way

    def whole(self, target: np.ndarray) -> np.ndarray | None:
        """The decision nearest to `target` (sum of absolute differences) that keeps every limit and whole number.

        A mixed-integer linear program; with curved limits the nearest of all decisions that keep them, where there are
        at most `MOST_LISTED`. More, or continuous components beside: curved convex limits enter as the tangents that
        its answers violate (outer approximation, at the boundary on the way to the inner point). Should `MOST_CUTS`
        tangents not suffice, the last answer is walked in by single steps, nearest no longer. None when no decision is
        found.
        """
        region = self.region
        rounded = np.where(region.space.integer, np.round(target), target)
        rounded = np.clip(rounded, region.lower, region.upper)
        if region.contains(rounded):
            return rounded
        if self._listed is not None:
            apart = np.abs(self._listed - target).sum(axis=1)
            return self._listed[np.argmin(apart)].copy() if apart.size else None
        rows = region.coupling
        found = None
        for _ in range(MOST_CUTS):
            answer = _nearest_whole(region, rows, target)
            if answer is None:
                break
            found = answer
            if not region.curved or region.curved_residuals(found).max() <= TOLERANCE:
                return found
            rows = _with_tangents(region, rows, self.drawn_in(found), found)
        return None if found is None else _walked_in(region, found)

    @functools.cached_property
    def _listed(self) -> np.ndarray | None:
        """All decisions [m n] within curved limits; None where limits are affine, or decisions too many."""
        region = self.region
        if not region.curved or not region.space.integer.all():
            return None
        counts = np.maximum(region.upper - region.lower + 1.0, 0.0)
        if math.prod(counts) > MOST_LISTED:
            return None
        axes = [low + np.arange(int(n)) for low, n in zip(region.lower, counts, strict=True)]
        every = np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=1)
        rows = np.arange(-(-len(every) // SECTIONS) * SECTIONS).reshape(-1, SECTIONS)  # one program for any number
        parts = [region.keeps(every[np.minimum(part, len(every) - 1)]) for part in rows]
        return every[np.concatenate([np.zeros(0, bool), *parts])[: len(every)]]


def _least_distance(region: Region, target: np.ndarray) -> np.ndarray:
    """Projection on the bounds and rows, min |z| with G z >= h, by non-negative least squares."""
    clipped = np.clip(target, region.lower, region.upper)
    coupling = region.coupling
    if not coupling.bound.size or (coupling.matrix @ clipped <= coupling.bound).all():
        return clipped
    finite_low, finite_high = np.isfinite(region.lower), np.isfinite(region.upper)
    eye = np.eye(region.size)
    matrix = np.concatenate([-coupling.matrix, eye[finite_low], -eye[finite_high]])
    margin = SAFETY * np.maximum(np.abs(coupling.bound), 1.0)
    bound = np.concatenate([margin - coupling.bound, region.lower[finite_low], -region.upper[finite_high]])
    need = bound - matrix @ target
    system = np.concatenate([matrix.T, need[None, :]])
    goal = np.zeros(region.size + 1)
    goal[-1] = 1.0
    weights, _ = nnls(system, goal, maxiter=50 * system.shape[1])
    rest = system @ weights - goal
    return target - rest[:-1] / rest[-1]


def _curved_projection(region: Region, target: np.ndarray, start: np.ndarray) -> np.ndarray:
    rows = region.coupling

    def inside(u: np.ndarray) -> np.ndarray:
        return np.concatenate([rows.bound - rows.matrix @ u, -region.curved_residuals(u)])

    def slopes(u: np.ndarray) -> np.ndarray:
        return np.concatenate([-rows.matrix, -region.curved_jacobian(u)])

    found = minimize(
        lambda u: 0.5 * float(np.sum((u - target) ** 2)),
        start,
        jac=lambda u: u - target,
        method="SLSQP",
        bounds=np.stack([region.lower, region.upper], axis=1),
        constraints={"type": "ineq", "fun": inside, "jac": slopes},
        options={"maxiter": 200, "ftol": 1e-14},
    )
    return np.clip(found.x, region.lower, region.upper)


def _inner(region: Region, vertex: np.ndarray) -> np.ndarray:
    """A point inside, as far from the curved limits as there is room (a unit of theirs suffices)."""
    if not region.curved:
        return np.clip(vertex, region.lower, region.upper)
    n, rows = region.size, region.coupling
    cost = np.append(np.zeros(n), -1.0)
    constraints = {
        "type": "ineq",
        "fun": lambda x: np.concatenate([rows.bound - rows.matrix @ x[:n], -region.curved_residuals(x[:n]) - x[n]]),
        "jac": lambda x: np.concatenate(
            [
                np.concatenate([-rows.matrix, np.zeros((rows.bound.size, 1))], axis=1),
                np.concatenate([-region.curved_jacobian(x[:n]), -np.ones((region.curved_residuals(x[:n]).size, 1))], 1),
            ]
        ),
    }
    start = np.clip(vertex, region.lower, region.upper)
    found = minimize(
        lambda x: float(cost @ x),
        np.append(start, -region.curved_residuals(start).max()),
        jac=lambda x: cost,
        method="SLSQP",
        bounds=np.stack([np.append(region.lower, -np.inf), np.append(region.upper, 1.0)], axis=1),
        constraints=constraints,
        options={"maxiter": 200, "ftol": 1e-10},
    )
    point = np.clip(found.x[:n], region.lower, region.upper)
    return point if region.excess(point) <= region.excess(start) else start


def _nearest_whole(region: Region, rows: Rows, target: np.ndarray) -> np.ndarray | None:
    """min sum_i |u_i - y_i| over bounds, rows and whole numbers: u and the absolute differences."""
    n = region.size
    eye = np.eye(n)
    distance = np.concatenate([np.concatenate([eye, -eye], axis=1), np.concatenate([-eye, -eye], axis=1)])
    matrix = np.concatenate([distance, np.concatenate([rows.matrix, 0.0 * rows.matrix], axis=1)])
    found, _ = linear_program(
        np.concatenate([np.zeros(n), np.ones(n)]),
        matrix=matrix,
        bound=np.concatenate([target, -target, rows.bound]),
        lower=np.concatenate([region.lower, np.zeros(n)]),
        upper=np.concatenate([region.upper, np.full(n, np.inf)]),
        whole=np.concatenate([region.space.integer, np.zeros(n, bool)]),
    )
    if found is None:
        return None
    vector = np.clip(found[:n], region.lower, region.upper)
    kept = (rows.matrix @ vector <= rows.bound + 10 * TOLERANCE).all()
    return vector if kept else None


def _with_tangents(region: Region, rows: Rows, at: np.ndarray, outside: np.ndarray) -> Rows:
    """The rows and the tangents, at the boundary point `at`, of the curved limits that `outside` breaks."""
    broken = region.curved_residuals(outside) > TOLERANCE
    slopes = region.curved_jacobian(at)[broken]
    bound = slopes @ at - region.curved_residuals(at)[broken]
    return Rows(
        np.concatenate([rows.matrix, slopes]),
        np.concatenate([rows.bound, bound]),
        np.concatenate([rows.owner, np.zeros(bound.size, int)]),
    )


def _walked_in(region: Region, vector: np.ndarray) -> np.ndarray | None:
    """Whole steps of one component, each the one that lowers the excess most, until every limit is kept; or None."""
    whole = np.flatnonzero(region.space.integer)
    steps = np.concatenate([np.eye(region.size)[whole], -np.eye(region.size)[whole]])
    excess = region.excess(vector)
    while excess > TOLERANCE:
        near = [vector + step for step in steps]
        found = [region.excess(point) for point in near]
        best = int(np.argmin(found))
        if found[best] >= excess:
            return None
        vector, excess = near[best], found[best]
    return vector
