"""All decisions that keep every hard limit: rows, bounds and curved limits, for any parametrisation."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._decision import AbstractParametrization, DecisionSpace

TOLERANCE = 1e-9
"""How far (in the unit of the limit, and in u) rounding may exceed a limit that counts as kept."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Affine limits A u <= b; `owner` [row]: the index of the constraint a row belongs to."""

    matrix: Float[np.ndarray, "row n"]
    bound: Float[np.ndarray, " row"]
    owner: np.ndarray


@dataclasses.dataclass(frozen=True)
class Region:
    """The admissible decisions of a plan.

    $$ \\{ u : l \\le u \\le h, \\; A u \\le b, \\; g(u) \\le 0, \\; u_i \\in Z \\; (i \\in I) \\} $$

    `constraints` that are affine in u become the rows A u <= b; a row of one component also tightens the `lower` or
    `upper` bound. The others are the `curved` g. Everything is on the host (NumPy): decisions are short vectors.

    Build it with `Region.of(parametrization, constraints)`. That does not check that the region holds a decision:
    `tumortwin.control.check_feasible` does.
    """

    parametrization: AbstractParametrization
    constraints: tuple[AbstractConstraint, ...]
    space: DecisionSpace
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    rows: Rows
    curved: tuple[int, ...]

    @classmethod
    def of(cls, parametrization: AbstractParametrization, constraints: Sequence[AbstractConstraint]) -> "Region":
        """The region of a parametrisation within constraints."""
        space = parametrization.space
        matrices, bounds, owners, curved = [np.zeros((0, space.size))], [np.zeros(0)], [np.zeros(0, int)], []
        for index, constraint in enumerate(constraints):
            if not constraint.affine(parametrization):
                curved.append(index)
                continue
            matrix, bound = _row(constraint, parametrization, space.size)
            matrices.append(matrix)
            bounds.append(bound)
            owners.append(np.full(bound.size, index))
        rows = Rows(np.concatenate(matrices), np.concatenate(bounds), np.concatenate(owners))
        lower, upper = _tightened(space, rows)
        return cls(parametrization, tuple(constraints), space, lower, upper, rows, tuple(curved))

    @property
    def size(self) -> int:
        """Number of components of the decision."""
        return self.space.size

    @property
    def coupling(self) -> Rows:
        """The rows that bind several components (the others are in the bounds)."""
        several = (self.rows.matrix != 0.0).sum(axis=1) > 1
        return Rows(self.rows.matrix[several], self.rows.bound[several], self.rows.owner[several])

    def bounded(self) -> "Region":
        """This region.

        **Raises:** `ValueError` for a component without a finite lower and upper bound.
        """
        loose = ~(np.isfinite(self.lower) & np.isfinite(self.upper))
        if loose.any():
            names = [name for name, is_loose in zip(self.space.names, loose, strict=True) if is_loose]
            raise ValueError(
                f"required: finite bounds of every component; received: none for {', '.join(names)}; "
                "try: FractionDose(high=3.0) and StartWindow(low, high), or bounds of the parametrisation"
            )
        return self

    def curved_residuals(self, vector: np.ndarray) -> np.ndarray:
        """The residuals of the limits that are not affine, one after another."""
        if not self.curved:
            return np.zeros(0)
        return np.asarray(_values(_traced(self._curved), self.parametrization, jnp.asarray(vector)))

    def curved_jacobian(self, vector: np.ndarray) -> np.ndarray:
        """Their derivatives [residual n]."""
        if not self.curved:
            return np.zeros((0, self.size))
        return np.asarray(_slopes(_traced(self._curved), self.parametrization, jnp.asarray(vector)))

    @property
    def _curved(self) -> tuple[AbstractConstraint, ...]:
        return tuple(self.constraints[i] for i in self.curved)

    def excess(self, vector: np.ndarray) -> float:
        """The largest violation of any bound or limit; zero or less inside. Integrality is not looked at."""
        parts = [self.lower - vector, vector - self.upper, self.rows.matrix @ vector - self.rows.bound]
        return float(np.max(np.concatenate([*parts, self.curved_residuals(vector)]), initial=-np.inf))

    def excesses(self, vectors: Float[np.ndarray, "m n"]) -> Float[np.ndarray, " m"]:
        """`excess` of many vectors."""
        rows = vectors @ self.rows.matrix.T - self.rows.bound
        worst = np.concatenate([self.lower - vectors, vectors - self.upper, rows], axis=1).max(axis=1)
        if not self.curved:
            return worst
        curved = _worst_of_many(_traced(self._curved), self.parametrization, jnp.asarray(vectors))
        return np.maximum(worst, np.asarray(curved))

    def contains(self, vector: np.ndarray, tolerance: float = TOLERANCE) -> bool:
        """Whether every limit, bound and whole number is kept to `tolerance`."""
        fraction = np.abs(vector - np.round(vector))[self.space.integer]
        return bool(self.excess(vector) <= tolerance and (fraction <= tolerance).all())

    def keeps(self, vectors: Float[np.ndarray, "m n"], tolerance: float = TOLERANCE) -> Bool[np.ndarray, " m"]:
        """`contains` of many vectors [m n]."""
        whole = vectors[:, self.space.integer]
        unbroken = (np.abs(whole - np.round(whole)) <= tolerance).all(axis=1)
        return np.asarray((self.excesses(vectors) <= tolerance) & unbroken)

    def narrowed(self, lower: np.ndarray, upper: np.ndarray) -> "Region":
        """The part of the region within other bounds (a node of a branch-and-bound tree)."""
        return dataclasses.replace(self, lower=np.maximum(self.lower, lower), upper=np.minimum(self.upper, upper))

    def relaxed(self) -> "Region":
        """The region without integrality."""
        space = dataclasses.replace(self.space, integer=np.zeros(self.size, bool))
        return dataclasses.replace(self, space=space)


def _residuals_at(
    constraints: tuple[AbstractConstraint, ...], parametrization: AbstractParametrization, vector: Array
) -> Float[Array, " residual"]:
    variables = parametrization.variables(vector)
    return jnp.concatenate([c.residuals(variables, parametrization) for c in constraints])


def _traced(constraints: tuple[AbstractConstraint, ...]) -> tuple[AbstractConstraint, ...]:
    """The constraints with their numbers as arrays: one program for limits of any size."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, constraints)


# Compiled once for limits of a kind, whatever part of the region or visit of a course asks.
_values = eqx.filter_jit(_residuals_at)


@eqx.filter_jit
def _slopes(
    constraints: tuple[AbstractConstraint, ...], parametrization: AbstractParametrization, vector: Array
) -> Float[Array, "residual n"]:
    return jax.jacfwd(lambda u: _residuals_at(constraints, parametrization, u))(vector)


@eqx.filter_jit
def _worst_of_many(
    constraints: tuple[AbstractConstraint, ...], parametrization: AbstractParametrization, vectors: Array
) -> Float[Array, " m"]:
    return jax.vmap(lambda u: jnp.max(_residuals_at(constraints, parametrization, u)))(vectors)


def _row(
    constraint: AbstractConstraint, parametrization: AbstractParametrization, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A and b of an affine constraint: its derivative, and minus its value at zero."""
    zero = jnp.zeros(size)
    alone = _traced((constraint,))
    matrix, values = _slopes(alone, parametrization, zero), _values(alone, parametrization, zero)
    return np.asarray(matrix), -np.asarray(values)


def _tightened(space: DecisionSpace, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of the space, and those of the rows of one component."""
    lower, upper = space.lower.copy(), space.upper.copy()
    for row, bound in zip(rows.matrix, rows.bound, strict=True):
        (where,) = np.nonzero(row)
        if where.size == 1:
            (k,) = where
            if row[k] > 0.0:
                upper[k] = min(upper[k], bound / row[k])
            else:
                lower[k] = max(lower[k], bound / row[k])
    whole = space.integer
    lower[whole], upper[whole] = np.ceil(lower[whole] - TOLERANCE), np.floor(upper[whole] + TOLERANCE)
    return lower + 0.0, upper + 0.0  # no minus zero
