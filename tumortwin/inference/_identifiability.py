"""What the data identify and what they do not, computed from the information and said in words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tumortwin.inference._prior import Prior, Values, prior_draws
from tumortwin.inference._problem import Problem

# Marginal share of the prior variance that is left; below: identified, above WEAK: prior-driven.
IDENTIFIED = 0.25
WEAK = 0.5
# A posterior correlation above this joins two parameters into one group.
JOINED = 0.7
# Smallest loading, relative to the largest of the direction, that is named.
LEAST_LOADING = 0.3
EXPONENT_STEPS = 2
# Of the prior, to measure its spread by.
PRIOR_DRAWS = 4000
# A coordinate so far out that a parameter stands at the lower end of its support.
FAR = 40.0


@dataclasses.dataclass(frozen=True)
class Direction:
    """One direction of a group of parameters: its name and the share of the prior variance left by the data."""

    name: str
    variance_left: float


@dataclasses.dataclass(frozen=True)
class Identifiability:
    """Variances left by parameter (marginal; and with all others known), directions of the whole, and the statement."""

    names: tuple[str, ...]
    variance_left: np.ndarray
    variance_left_conditional: np.ndarray
    correlation: np.ndarray
    directions: tuple[Direction, ...]
    statement: str

    def as_plain(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            "variance_left": dict(zip(self.names, map(float, self.variance_left), strict=True)),
            "variance_left_conditional": dict(zip(self.names, map(float, self.variance_left_conditional), strict=True)),
            "directions": [dataclasses.asdict(direction) for direction in self.directions],
            "correlation": self.correlation.tolist(),
        }


def identifiability_report(
    problem: Problem, z: np.ndarray, information: np.ndarray, curvature: np.ndarray
) -> Identifiability:
    """Compare posterior and prior by direction.

    $$ \\tilde F = K^{-1/2} F K^{-1/2} = \\sum_i \\lambda_i v_i v_i^T, \\qquad
       \\frac{\\mathrm{var}_{post}}{\\mathrm{var}_{prior}}(v_i) = \\frac{1}{1 + \\lambda_i} $$

    with `F` the Fisher information and `K` the prior's curvature, both at the MAP `z`, in coordinates in which it
    has unit spread. A parameter is *identified* when the data leave less than a quarter of its prior variance, *prior-
    driven* when they leave more than half. Prior-driven parameters that would be identified if the others were known
    are only *jointly* identified: they are grouped by their posterior correlation, and the marginal information of the
    group (Schur complement) says which combination the data fix. For parameters with a positive support the
    combination is a product of powers: `D/rho`.
    """
    root = np.sqrt(np.maximum(curvature, 1e-6))
    whitened = information / np.outer(root, root)
    return _report(problem, z, np.linalg.inv(np.eye(root.size) + whitened), root)


def identifiability_of_draws(
    problem: Problem, z: Float[np.ndarray, "draw parameter"], weights: Float[np.ndarray, " draw"], *, key: Array
) -> Identifiability:
    """The same from draws of the posterior and of the prior instead of curvatures: what a table of both will show.

    Where a posterior is skewed, or bends away from its mode, the curvature there says too little or too much: of a
    tail ratio it left 83 % of the prior's sd, the draws 45 %.
    """
    drawn = {path: jnp.asarray(value[0]) for path, value in prior_draws(problem.prior, PRIOR_DRAWS, key=key).items()}
    before = np.asarray(_coordinates(problem.prior, drawn))
    root = 1 / before.std(axis=0)
    share = weights / weights.sum()
    apart = (np.asarray(z) - (share @ z)[None]) * root[None]
    return _report(problem, share @ z, (apart * share[:, None]).T @ apart, root)


@eqx.filter_jit
def _coordinates(prior: Prior, values: Values) -> Array:
    return jax.vmap(prior.unconstrain)(values)


def _report(problem: Problem, z: np.ndarray, covariance: np.ndarray, root: np.ndarray) -> Identifiability:
    """From the posterior's covariance in units of the prior's spread, `1 / root` in each entry of `z`."""
    left = np.diag(covariance)
    conditional = 1 / np.diag(np.linalg.inv(covariance))
    spread = np.sqrt(left)
    correlation = covariance / np.outer(spread, spread)
    labels = _labels(problem.prior.names)
    values, vectors = np.linalg.eigh(covariance)
    powers = _is_positive(problem)
    scales = _scales(problem, z, powers)
    directions = tuple(
        Direction(_combination(vectors[:, i], labels, powers, scales * root), float(values[i]))
        for i in range(root.size)
    )
    sentences = _sentences(covariance, left, conditional, correlation, labels, powers, scales * root)
    return Identifiability(problem.prior.names, left, conditional, correlation, directions, " ".join(sentences))


def _sentences(
    covariance: np.ndarray,
    left: np.ndarray,
    conditional: np.ndarray,
    correlation: np.ndarray,
    labels: list[str],
    powers: np.ndarray,
    scales: np.ndarray,
) -> list[str]:
    groups = _groups(left, conditional, correlation)
    grouped = {index for group in groups for index in group}
    found = [i for i in range(left.size) if i not in grouped]
    strong = _listed([i for i in found if left[i] < IDENTIFIED], labels, left)
    middle = _listed([i for i in found if IDENTIFIED <= left[i] <= WEAK], labels, left)
    weak = _listed([i for i in found if left[i] > WEAK], labels, left)
    sentences = []
    if strong:
        sentences.append(f"Identified by the data (posterior sd as a share of the prior's): {', '.join(strong)}.")
    if middle:
        sentences.append(f"Informed by data and prior alike: {', '.join(middle)}.")
    sentences += [_joint_sentence(group, covariance, labels, powers, scales) for group in groups]
    if weak:
        sentences.append(f"The data say little about {', '.join(weak)}: most of the prior's spread is left.")
    if sentences and not strong:
        sentences.append("Percentages are the posterior sd as a share of the prior's.")
    if not groups and not weak and not middle:
        sentences.append("Every parameter is identified; no combination rests on the prior.")
    return sentences


def _listed(chosen: list[int], labels: list[str], left: np.ndarray) -> list[str]:
    """`rate (37 %)`; the entries of one vector together: `pattern[1, 2] (56-59 %)`."""
    together: dict[str, list[int]] = {}
    for i in chosen:
        together.setdefault(labels[i].split("[")[0], []).append(i)
    said = []
    for name, members in together.items():
        if len(members) == 1:
            said.append(f"{labels[members[0]]} ({_percent(left[members[0]])})")
            continue
        entries = ", ".join(labels[i].split("[")[1].rstrip("]") for i in members)
        least, most = min(left[members]), max(left[members])
        span = _percent(least) if _percent(least) == _percent(most) else f"{_share(least)}-{_percent(most)}"
        said.append(f"{name}[{entries}] ({span})")
    return said


def _groups(left: np.ndarray, conditional: np.ndarray, correlation: np.ndarray) -> list[list[int]]:
    """Connected sets of strongly correlated parameters that hold one which only the others' ignorance leaves open."""
    confounded = (left > IDENTIFIED) & (conditional < 0.5 * left)
    waiting, groups = set(range(left.size)), []
    while waiting:
        frontier, group = [min(waiting)], set()
        while frontier:
            index = frontier.pop()
            if index in group:
                continue
            group.add(index)
            frontier += [j for j in range(left.size) if abs(correlation[index, j]) > JOINED and j not in group]
        waiting -= group
        if len(group) > 1 and confounded[list(group)].any():
            groups.append(sorted(group))
    return groups


def _joint_sentence(
    group: list[int], covariance: np.ndarray, labels: list[str], powers: np.ndarray, scales: np.ndarray
) -> str:
    block = covariance[np.ix_(group, group)]
    values, vectors = np.linalg.eigh(block)  # shares of the prior variance left, ascending
    names = [labels[i] for i in group]
    known = [
        f"{_combination(vectors[:, i], names, powers[group], scales[group])} ({_percent(values[i])})"
        for i in range(len(group))
        if values[i] < IDENTIFIED
    ]
    separate = " and ".join(f"{labels[i]} ({_percent(covariance[i, i])})" for i in group)
    if not known:
        return f"{separate} are entangled, and no combination of them is identified: the prior decides."
    return (
        f"Only jointly identified: the data fix {' and '.join(known)} but not {separate} separately; "
        "the prior decides the split."
    )


def _combination(vector: np.ndarray, labels: list[str], powers: np.ndarray, scales: np.ndarray) -> str:
    """Name of `sum_i v_i z_i`: a product of powers where all parameters concerned are positive, else a sum."""
    named = np.flatnonzero(np.abs(vector) >= LEAST_LOADING * np.abs(vector).max())
    exponents = vector / scales
    lead = named[np.argmax(np.abs(exponents[named]))]
    first = named[0]
    exponents = exponents / np.abs(exponents[lead]) * np.sign(exponents[first])
    rounded = {int(i): round(exponents[i] * EXPONENT_STEPS) / EXPONENT_STEPS for i in named}
    rounded = {i: value for i, value in rounded.items() if value != 0}
    if len(rounded) == 1:
        return labels[next(iter(rounded))]
    if all(powers[i] for i in rounded):
        over = [_power(labels[i], value) for i, value in rounded.items() if value > 0]
        under = [_power(labels[i], -value) for i, value in rounded.items() if value < 0]
        below = under[0] if len(under) == 1 else f"({' * '.join(under)})"
        return " * ".join(over) + (f" / {below}" if under else "")
    return " ".join(f"{'+' if value > 0 else '-'} {abs(value):g} {labels[i]}" for i, value in rounded.items())


def _power(label: str, exponent: float) -> str:
    return label if exponent == 1 else f"{label}^{exponent:g}"


def _percent(variance_left: float) -> str:
    return f"{_share(variance_left)} %"


def _share(variance_left: float) -> str:
    return f"{100 * np.sqrt(max(variance_left, 0.0)):.0f}"


def _labels(names: tuple[str, ...]) -> list[str]:
    """The shortest ends of the paths (at least two words of a longer path) that are still distinct."""
    ends = [".".join(name.split(".")[-2:]) for name in names]
    return [end if ends.count(end) == 1 else name for end, name in zip(ends, names, strict=True)]


def _is_positive(problem: Problem) -> np.ndarray:
    """Whether a parameter's support holds no negative value, so that its logarithm is its natural scale."""
    return np.asarray(_flat(problem.prior, jnp.full(problem.prior.size, -FAR))) >= 0


def _scales(problem: Problem, z: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Slope of each parameter (of its logarithm where positive) with respect to its own coordinate, at `z`."""

    value, slope = _flat_slope(problem.prior, jnp.asarray(z))
    return np.asarray(slope) / np.where(positive, np.asarray(value), 1.0)


@eqx.filter_jit
def _flat(prior: Prior, z: Array) -> Array:
    """Parameter values in the order of `z`."""
    values = prior.constrain(z)
    return jnp.concatenate([jnp.ravel(values[path]) for path in prior.paths])


@eqx.filter_jit
def _flat_slope(prior: Prior, z: Array) -> tuple[Array, Array]:
    """The values, and the slope of each in its own entry of `z`."""
    return jax.jvp(lambda point: _flat(prior, point), (z,), (jnp.ones_like(z),))


def contraction_statement(names: Sequence[str], z: np.ndarray) -> str:
    """In words, from draws [chain, draw, entry] of coordinates whose prior has variance 1: what the data left of it."""
    if not names:
        return ""
    left = np.var(z.reshape(-1, z.shape[-1]), axis=0)
    shares = {name: share for name, share in zip(names, left, strict=True)}
    sentences = []
    for word, chosen in (
        ("The data identify", [n for n, share in shares.items() if share < IDENTIFIED]),
        ("They narrow", [n for n, share in shares.items() if IDENTIFIED <= share <= WEAK]),
        ("Prior-driven, hardly changed by the data", [n for n, share in shares.items() if share > WEAK]),
    ):
        if chosen:
            sentences.append(
                f"{word}: {', '.join(f'{n} ({shares[n]:.0%} of the prior variance left)' for n in chosen)}."
            )
    return " ".join(sentences)
