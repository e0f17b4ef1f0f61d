"""When nothing keeps every limit: which limit cannot be met, and how little it would have to give."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.optimize import minimize

from tumortwin.control._calendar import Relaxed
from tumortwin.control._constraint import AbstractConstraint
from tumortwin.control._programs import linear_program
from tumortwin.control._region import Region

FEW = 20_000
"""Whole decisions that are simply all looked at."""

SPREAD = 1024
"""Points of the box among which a decision is looked for."""

WIDEST = 1e4
"""The part of an unbounded box that is looked at."""

NEGLIGIBLE = 1e-7
"""A relative excess below this is rounding of the programs that look for it."""


class Infeasible(ValueError):
    """No decision keeps every limit.

    `excess`: constraint name -> by how much it is exceeded in the closest relaxation (smallest sum of relative
    excesses), in its unit; constraints that can be met are not in it. `alone`: constraint name -> by how much it would
    have to give if no other did, for every constraint whose giving suffices. `relaxation`: the constraints as they can
    be met, to plan with instead.
    """

    def __init__(
        self,
        excess: Mapping[str, float],
        alone: Mapping[str, float],
        relaxation: tuple[AbstractConstraint, ...],
        units: Mapping[str, str],
    ) -> None:
        self.excess, self.alone, self.relaxation = dict(excess), dict(alone), relaxation

        def words(parts: Mapping[str, float], joint: str) -> str:
            return joint.join(f"{name} by {by:.4g} {units[name]}" for name, by in parts.items())

        others = {name: by for name, by in alone.items() if name not in excess}
        message = (
            "required: a plan that keeps every limit; received: limits that no plan keeps together: "
            f"{', '.join(excess)} cannot be met; try: the closest limits that can be, with {words(excess, ' and ')} "
            "relaxed"
        )
        ValueError.__init__(self, message + (f", or alone {words(others, ', or ')}" if others else ""))


def check_feasible(region: Region) -> np.ndarray:
    """A decision inside the region (whole numbers included where no curved limit stands beside them).

    The elastic program: every constraint j gives by a slack s_j >= 0,

    $$ \\min_{u, s} \\sum_j s_j / c_j, \\qquad A u - s \\le b, \\; g(u) - s \\le 0, \\; l \\le u \\le h, $$

    with c_j the size of its limit (1 or more in its unit). The sum of slacks, not of their squares, so that few limits
    give. A linear (mixed-integer) program where the limits are affine. With curved limits all decisions are looked at
    where they are few whole numbers, else a decision is looked for among points of the box, and by sequential quadratic
    programming.

    **Raises:** `Infeasible` with the slacks where they are not all zero; `ValueError` for bounds of the parametrisation
    that contradict each other.

    **Limits:** with curved limits and many whole numbers it is the continuous relaxation that is looked at (necessary,
    not sufficient); curved limits that are not convex may then be reported as unmet though they can be met
    (mathematical).
    """
    if region.curved:
        points = box_points(region)
        kept = points[region.keeps(points)]
        if len(kept):
            return kept[0]
    every = np.ones(len(region.constraints), bool)
    vector, unmet = _closest(region, every)
    if unmet:
        raise _infeasible(region, unmet)
    return vector


def _closest(region: Region, may_give: np.ndarray) -> tuple[np.ndarray, dict[int, float]]:
    """The closest relaxation in which only some constraints may give: u, and constraint -> slack where not zero."""
    if region.curved and _few(region):
        return _closest_of_all(region, may_give)
    vector, slack = _elastic_rows(region, may_give)
    if region.curved:
        vector, slack = _elastic_curved(region, vector, slack, may_give)
    scale = _scales(region)
    return vector, {j: float(s) for j, s in enumerate(slack) if s > NEGLIGIBLE * scale[j]}


def _few(region: Region) -> bool:
    space = region.space
    return bool(space.integer.all() and np.prod(space.upper - space.lower + 1.0) <= FEW)


def box_points(region: Region) -> np.ndarray:
    """All decisions [m n] where they are few whole numbers, else points spread over the box (whole where they must be).

    Additive recurrence with the powers of the generalised golden ratio (Roberts 2018): even in every dimension.
    """
    if _few(region):
        axes = [np.arange(a, b + 0.5) for a, b in zip(region.space.lower, region.space.upper, strict=True)]
        return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    low, high = (np.clip(bound, -WIDEST, WIDEST) for bound in (region.lower, region.upper))
    ratio = 2.0
    for _ in range(50):  # x^(n + 1) = x + 1
        ratio = (1.0 + ratio) ** (1.0 / (region.size + 1.0))
    share = np.mod(0.5 + np.outer(np.arange(SPREAD), ratio ** -np.arange(1.0, region.size + 1.0)), 1.0)
    points = np.concatenate([[low, high], low + share * (high - low)])
    return np.where(region.space.integer, np.round(points), points)


def _closest_of_all(region: Region, may_give: np.ndarray) -> tuple[np.ndarray, dict[int, float]]:
    """The closest relaxation among all decisions: exact, for few whole numbers."""
    points, parametrization = box_points(region), region.parametrization

    def slack(u: Array) -> Array:
        variables = parametrization.variables(u)
        return jnp.stack([jnp.maximum(c.violation(variables, parametrization), 0.0) for c in region.constraints])

    every = np.asarray(jax.jit(jax.vmap(slack))(jnp.asarray(points)))
    scale = _scales(region)
    allowed = (every[:, ~may_give] <= NEGLIGIBLE * scale[~may_give]).all(axis=1)
    if not allowed.any():
        raise ValueError("required: limits that give enough; received: none found")
    best = int(np.argmin(np.where(allowed, (every / scale).sum(axis=1), np.inf)))
    return points[best], {int(j): float(every[best, j]) for j in np.flatnonzero(every[best] > NEGLIGIBLE * scale)}


def _infeasible(region: Region, unmet: Mapping[int, float]) -> Infeasible:
    every = [c.name for c in region.constraints]
    name = [n if every.count(n) == 1 else f"{n}[{j}]" for j, n in enumerate(every)]
    alone: dict[str, float] = {}
    for j in range(len(every)):
        try:
            _, found = _closest(region, np.arange(len(every)) == j)
        except ValueError:  # its giving does not suffice
            continue
        if set(found) == {j}:
            alone[name[j]] = found[j]
    names = {name[j]: by for j, by in unmet.items()}
    units = {name[j]: c.unit for j, c in enumerate(region.constraints)}
    scale = _scales(region)
    relaxation = tuple(
        Relaxed(c, unmet[j] + NEGLIGIBLE * scale[j]) if j in unmet else c for j, c in enumerate(region.constraints)
    )
    return Infeasible(names, alone, relaxation, units)


def _scales(region: Region) -> np.ndarray:
    """The size of every limit, one or more in its unit."""
    scale = np.ones(len(region.constraints))
    for j in range(scale.size):
        scale[j] = max([1.0, *np.abs(region.rows.bound[region.rows.owner == j])])
    for j in region.curved:
        limit = region.constraints[j].describe().get("limit")
        scale[j] = max(1.0, abs(limit)) if isinstance(limit, int | float) else 1.0
    return scale


def _elastic_rows(region: Region, may_give: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The elastic program of the affine limits: u [n] and slack [constraint]."""
    n, m, rows = region.size, len(region.constraints), region.rows
    lower, upper = region.space.lower, region.space.upper
    matrix = np.concatenate([rows.matrix, -(rows.owner[:, None] == np.arange(m)).astype(float)], axis=1)
    cost = np.concatenate([np.zeros(n), 1.0 / _scales(region)])
    low, high = np.concatenate([lower, np.zeros(m)]), np.concatenate([upper, np.where(may_give, np.inf, 0.0)])
    whole = np.concatenate([region.space.integer & (not region.curved), np.zeros(m, bool)])
    found, message = linear_program(cost, matrix=matrix, bound=rows.bound, lower=low, upper=high, whole=whole)
    if found is None:
        raise ValueError(
            f"required: bounds of the parametrisation that leave a decision; received: {lower.tolist()} to "
            f"{upper.tolist()} ({message})"
        )
    return found[:n], np.maximum(found[n:], 0.0)


def _elastic_curved(
    region: Region, vector: np.ndarray, slack: np.ndarray, may_give: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The elastic program with the curved limits, from the answer without them."""
    n, m, rows = region.size, len(region.constraints), region.rows
    scale, owner = _scales(region), curved_owner(region)
    cost = np.concatenate([np.zeros(n), np.ones(m)])
    spread_rows = (rows.owner[:, None] == np.arange(m)) * scale
    spread_curved = (owner[:, None] == np.arange(m)) * scale
    low = np.concatenate([region.space.lower, np.zeros(m)])
    high = np.concatenate([region.space.upper, np.where(may_give, np.inf, 0.0)])

    def inside(x: np.ndarray) -> np.ndarray:
        affine = rows.bound - rows.matrix @ x[:n] + spread_rows @ x[n:]
        return np.concatenate([affine, spread_curved @ x[n:] - region.curved_residuals(x[:n])])

    def slopes(x: np.ndarray) -> np.ndarray:
        affine = np.concatenate([-rows.matrix, spread_rows], axis=1)
        return np.concatenate([affine, np.concatenate([-region.curved_jacobian(x[:n]), spread_curved], axis=1)])

    start = np.concatenate([vector, slack / scale])
    residuals = region.curved_residuals(vector)
    for j in region.curved:
        start[n + j] = max(0.0, residuals[owner == j].max(initial=0.0) / scale[j]) if may_give[j] else 0.0
    found = minimize(
        lambda x: float(cost @ x),
        start,
        jac=lambda x: cost,
        method="SLSQP",
        bounds=np.stack([low, high], axis=1),
        constraints={"type": "ineq", "fun": inside, "jac": slopes},
        options={"maxiter": 300, "ftol": 1e-13},
    )
    closest = inside(found.x).min(initial=0.0) >= -1e-7
    best = found.x if closest and (found.fun <= cost @ start or inside(start).min(initial=0.0) < 0.0) else start
    if inside(best).min(initial=0.0) < -1e-7:
        raise ValueError("required: limits that give enough; received: none found")
    return best[:n], np.maximum(best[n:], 0.0) * scale


def curved_owner(region: Region) -> np.ndarray:
    """The index of the constraint that every curved residual belongs to."""
    zero = region.parametrization.variables(jnp.zeros(region.size))
    sizes = [region.constraints[j].residuals(zero, region.parametrization).size for j in region.curved]
    return np.repeat(np.asarray(region.curved, dtype=int), sizes)
