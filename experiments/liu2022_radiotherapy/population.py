"""The population of wells: the mechanism, what batches, plates and wells add to it, and how it is learned.

On the scale h(y) = log(y + 0.01), of well i in plate p of batch b,

    h(y_i(t)) = h(N(t; theta_i)) + delta_b(t) + x_i delta'_b(t) + delta_p(t) + x_i delta'_p(t) + g_i(t) + noise
    log theta_i = mu + x_i gamma + u_b + u_p + eta_i,        x_i = log of the initial confluence, centered

with normal effects u and eta of independent parameters, and Gaussian processes that are 0 at t = 0: delta, delta'
(Ornstein-Uhlenbeck) say what the mechanism leaves unsaid of a whole batch or plate (such as a change of medium, which
washes dead cells away), g_i (Ornstein-Uhlenbeck + Matern 3/2) what it leaves unsaid of a well.

First the mechanism alone is fitted to all plates by penalized least squares. About its curves (of a batch, the plate's
own part left out) everything is linear: what is left of the effects, and the processes, are integrated out exactly;
variances and time scales maximize the marginal likelihood with their priors. Fitting all at once was tried: processes
then take what the mechanism could explain, and it drifts to parameters without meaning (learning in modules: Liu,
Bayarri & Berger, Bayesian Anal. 4 (2009) 119-150).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import block_diag, cho_solve
from jaxtyping import Array, Float
from scipy.optimize import least_squares, minimize

from experiments.liu2022_radiotherapy.culture import Dishes, Wells, confluence
from tumortwin.inference import marginalized, root_of, updated
from tumortwin.models import DelayedDeath

FLOOR = 0.01  # [1] confluence at which the scale turns from linear to logarithmic
# Prior of the typical value: median, log-sd.
PARAMETERS = {
    "doomed_rate": (1.4, 0.4),
    "survivor_rate": (0.15, 0.7),
    "carrying_capacity": (0.9, 0.3),
    "alpha": (0.15, 0.5),
    "death_rate": (3.0, 0.4),
    "clearance_rate": (0.4, 0.6),
    "start": (1.0, 0.05),
}
COUNT = len(PARAMETERS)
MEDIANS = jnp.log(jnp.asarray([m for m, _ in PARAMETERS.values()]))
SPREADS = jnp.asarray([s for _, s in PARAMETERS.values()])
OF_DENSITY = 0.25  # prior sd of gamma
CENTER = 0.12  # [1] initial confluence at which x is 0

Hyper = dict[str, Array]
"""Natural logarithms of standard deviations [1] and time scales [day]."""

_WEIGHT = np.array([0.6, 1.0, 0.4, 1.0, 0.6, 1.0, 0.1])
PRIOR_HYPER: dict[str, np.ndarray] = {
    "wells": np.log(0.05 * _WEIGHT),
    "plates": np.log(0.2 * _WEIGHT),
    "batches": np.log(0.1 * _WEIGHT),
    "well_rough": np.log([0.05, 3.0]),
    "well_smooth": np.log([0.1, 4.0]),
    "plate_curve": np.log([0.1, 4.0]),
    "plate_slope": np.log([0.05, 4.0]),
    "batch_curve": np.log([0.1, 4.0]),
    "batch_slope": np.log([0.05, 4.0]),
    "noise": np.log([0.02]),
}
HYPER_SPREAD = 0.5  # log-sd of every one of them
# While the mechanism is fitted: a reading's error on the scale h, autocorrelation included, and the spreads of batches
# and plates as parts of the prior's.
ERROR = 0.4
OF_BATCH, OF_PLATE = 1.0, 0.5
LEFT = 0.3  # of the prior spread, when the mechanism has been fitted


def start_hyper() -> Hyper:
    """The prior medians."""
    return {name: jnp.asarray(value) for name, value in PRIOR_HYPER.items()}


def scale(confluence_seen: Any) -> Array:
    """h(y)."""
    return jnp.log(jnp.maximum(jnp.asarray(confluence_seen), 0.0) + FLOOR)


def unscale(value: Any) -> np.ndarray:
    """The confluence of a value of h; none below 0 (a noisy reading of an empty well)."""
    return np.maximum(np.exp(np.asarray(value)) - FLOOR, 0.0)


def density(start: Any) -> np.ndarray:
    """x, the centered log of the initial confluence."""
    return np.asarray(scale(start)) - float(scale(CENTER))


def curve(logs: Float[Array, "parameter well"], dishes: Dishes) -> Float[Array, "well time"]:
    """h of the mechanism's confluence."""
    given = dict(zip(PARAMETERS, jnp.exp(logs), strict=True))
    model = DelayedDeath(**{**given, "start": dishes.start * given["start"]})
    return scale(confluence(model, dishes))


@eqx.filter_jit
def linearized(logs: Array, dishes: Dishes) -> tuple[Float[Array, "well time"], Float[Array, "well time parameter"]]:
    """The curve and its derivatives with respect to the log parameters of each well."""
    value = curve(logs, dishes)
    along = jax.lax.map(
        lambda way: jax.jvp(lambda p: curve(p, dishes), (logs,), (jnp.broadcast_to(way[:, None], logs.shape),))[1],
        jnp.eye(COUNT),
    )
    return value, jnp.moveaxis(along, 0, -1)


def _tied(kernel: Callable[[Array], Array], days: Float[Array, " time"]) -> Float[Array, "time time"]:
    """The covariance of a stationary process, given that it is 0 at t = 0."""
    start = kernel(days)
    return kernel(days[:, None] - days[None, :]) - start[:, None] * start[None, :] / kernel(jnp.zeros(()))


def ornstein_uhlenbeck(log: Array, days: Array) -> Array:
    """sd^2 e^{-|r|/l}."""
    return _tied(lambda r: jnp.exp(2.0 * log[0] - jnp.abs(r) * jnp.exp(-log[1])), days)


def matern(log: Array, days: Array) -> Array:
    """sd^2 (1 + s) e^{-s}, s = sqrt(3) |r| / l."""

    def kernel(r: Array) -> Array:
        s = jnp.sqrt(3.0) * jnp.abs(r) * jnp.exp(-log[1])
        return jnp.exp(2.0 * log[0]) * (1.0 + s) * jnp.exp(-s)

    return _tied(kernel, days)


def of_well(hyper: Hyper, days: Array) -> Array:
    """Covariance of g_i."""
    return ornstein_uhlenbeck(hyper["well_rough"], days) + matern(hyper["well_smooth"], days)


def of_group(hyper: Hyper, group: str, days: Array) -> Float[Array, "k k"]:
    """Covariance of what a plate or a batch adds: its parameters, nothing to gamma, its two curves."""
    parts = [ornstein_uhlenbeck(hyper[f"{group}_{what}"], days) for what in ("curve", "slope")]
    spread = jnp.exp(2.0 * hyper["plates" if group == "plate" else "batches"])
    return block_diag(jnp.diag(spread), jnp.zeros((COUNT, COUNT)), *parts)


def of_everything() -> Float[Array, "k k"]:
    """Covariance of what is left of mu and gamma when the mechanism has been fitted."""
    return jnp.diag(jnp.concatenate([SPREADS**2, jnp.full(COUNT, OF_DENSITY**2)]) * LEFT**2)


class Part(eqx.Module):
    """Curves linear in their parameters, by plate: `residual` = h(y) - f, `jacobian` J.

    `days` [plate, time], `x` [plate, well], `weight` 1 for a well and 0 for padding, `batch` [batch, plate] membership.
    """

    days: Float[Array, "plate time"]
    valid: Float[Array, "plate well time"]
    x: Float[Array, "plate well"]
    jacobian: Float[Array, "plate well time parameter"]
    residual: Float[Array, "plate well time"]
    weight: Float[Array, "plate well"]
    batch: Float[Array, "batch plate"]


def own_covariance(hyper: Hyper, days: Array, jacobian: Array) -> Float[Array, "time time"]:
    """Of a reading, given everything above the well."""
    noise = jnp.exp(2.0 * hyper["noise"][0]) * jnp.eye(days.shape[-1])
    return (jacobian * jnp.exp(2.0 * hyper["wells"])[None]) @ jacobian.T + of_well(hyper, days) + noise


def _known(covariance: Array, valid: Array) -> Array:
    """The covariance of the valid readings; padding has variance 1 and no covariance."""
    return covariance * valid[:, None] * valid[None, :] + jnp.diag(1.0 - valid)


def _plate(hyper: Hyper, days: Array, valid: Array, x: Array, jacobian: Array, residual: Array, weight: Array) -> Any:
    """(M, v) about [parameters, gamma, curve, slope] of a plate, and the log density of its constants."""

    def well(valid: Array, j: Array, r: Array) -> tuple[Array, ...]:
        factor = jnp.linalg.cholesky(_known(own_covariance(hyper, days, j), valid))
        inverse = cho_solve((factor, True), jnp.diag(valid)) * valid[:, None]
        slim, seen = inverse @ j, inverse @ r
        constant = -0.5 * r @ seen - jnp.sum(jnp.log(jnp.diagonal(factor)))
        return inverse, slim, j.T @ slim, seen, j.T @ seen, constant

    each = jax.vmap(well)(valid, jacobian, residual)
    inverse, slim, small, seen, told = ([jnp.tensordot(weight * x**k, a, 1) for k in range(3)] for a in each[:5])
    matrix = jnp.block(
        [
            [small[0], small[1], slim[0].T, slim[1].T],
            [small[1], small[2], slim[1].T, slim[2].T],
            [slim[0], slim[1], inverse[0], inverse[1]],
            [slim[1], slim[2], inverse[1], inverse[2]],
        ]
    )
    return (matrix, jnp.concatenate([told[0], told[1], seen[0], seen[1]])), weight @ each[5]


def _upward(hyper: Hyper, part: Part) -> Any:
    """Information of plates, of plates about batches, of batches, and of batches about everything; log likelihood."""

    def plate(given: Any) -> Any:
        own, constants = _plate(hyper, *given)
        passed, gain = marginalized(own, root_of(of_group(hyper, "plate", given[0])))
        return own, passed, constants + gain

    def batch(given: Any) -> Any:
        days, own = given
        passed, gain = marginalized(own, root_of(of_group(hyper, "batch", days)))
        return passed, gain

    plates, from_plates, gain = jax.lax.map(
        plate, (part.days, part.valid, part.x, part.jacobian, part.residual, part.weight)
    )
    batches = jax.tree.map(lambda a: jnp.tensordot(part.batch, a, 1), from_plates)
    days = part.days[jnp.argmax(part.batch, axis=1)]
    from_batches, more = jax.lax.map(batch, (days, batches))
    top = (from_batches[0][:, : 2 * COUNT, : 2 * COUNT], from_batches[1][:, : 2 * COUNT])
    everything = jax.tree.map(lambda a: a.sum(axis=0), top)
    _, last = marginalized(everything, root_of(of_everything()))
    return plates, from_plates, batches, top, gain.sum() + more.sum() + last


def log_posterior(hyper: Hyper, part: Part) -> Float[Array, ""]:
    """Log marginal likelihood and prior of the variances and time scales."""
    prior = sum(jnp.sum((hyper[name] - value) ** 2) for name, value in PRIOR_HYPER.items())
    return _upward(hyper, part)[-1] - 0.5 * prior / HYPER_SPREAD**2


class Levels(eqx.Module):
    """Mean and covariance of [parameters, gamma, curve, slope]: of each plate that was seen, of a new plate of each
    batch (without the plate's own part), and of a new batch ([parameters, gamma] alone)."""

    plates: tuple[Array, Array]
    batches: tuple[Array, Array]
    everything: tuple[Array, Array]


@eqx.filter_jit
def levels(hyper: Hyper, part: Part) -> Levels:
    """What the data say of every group."""
    plates, from_plates, batches, top, _ = _upward(hyper, part)
    prior, none = of_everything(), jnp.zeros(2 * COUNT)
    total = jax.tree.map(lambda a: a.sum(axis=0), top)
    width = plates[1].shape[-1] - 2 * COUNT

    def without(own: Any, days: Array) -> tuple[Array, Array]:
        """A batch before its own data: what the others say, and its own spread."""
        mean, covariance = updated(none, prior, jax.tree.map(jnp.subtract, total, own))
        wide = jnp.pad(covariance, (0, width))
        return jnp.pad(mean, (0, width)), wide + of_group(hyper, "batch", days)

    first = jax.lax.map(lambda given: without(*given), (top, part.days[jnp.argmax(part.batch, axis=1)]))
    mine = jnp.argmax(part.batch, axis=0)

    def plate(batch: Array, own: Any, passed: Any, days: Array) -> tuple[Array, Array]:
        siblings = jax.tree.map(lambda a, b: a[batch] - b, batches, passed)
        mean, covariance = updated(first[0][batch], first[1][batch], siblings)
        return updated(mean, covariance + of_group(hyper, "plate", days), own)

    return Levels(
        jax.lax.map(lambda given: plate(*given), (mine, plates, from_plates, part.days)),
        jax.lax.map(lambda given: updated(*given), (*first, batches)),
        updated(none, prior, total),
    )


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which well stands where in the arrays by plate; `rows` [plate, well], -1 for padding."""

    plates: tuple[str, ...]
    batches: tuple[str, ...]
    rows: np.ndarray
    batch: np.ndarray

    @staticmethod
    def of(wells: Wells, room: tuple[int, int] = (0, 0)) -> "Layout":
        """Plates and batches in alphabetical order; at least `room` (plates, wells of a plate), so that fits of one
        shape are compiled once. Plates without wells belong to the last batch and say nothing."""
        plates, batches = sorted(set(wells.plate)), sorted(set(wells.batch))
        members = [np.flatnonzero(wells.plate == p) for p in plates]
        rows = np.full((max(room[0], len(plates)), max(room[1], *map(len, members))), -1)
        batch = np.zeros((len(batches), len(rows)))
        batch[-1, len(plates) :] = 1.0
        for k, mine in enumerate(members):
            rows[k, : len(mine)] = mine
            batch[batches.index(wells.batch[mine[0]]), k] = 1.0
        return Layout(tuple(plates), tuple(batches), rows, batch)


class Mechanism(eqx.Module):
    """Log parameters: `middle` of everything, `slope` on x, and what a `batch` and a `plate` add."""

    middle: Float[np.ndarray, " parameter"]
    slope: Float[np.ndarray, " parameter"]
    batch: dict[str, np.ndarray]
    plate: dict[str, np.ndarray]

    def typical(self, wells: Wells) -> Float[np.ndarray, "parameter well"]:
        """Of wells of a batch, the plate's own part left out."""
        none = np.zeros(COUNT)
        own = np.stack([self.batch.get(batch, none) for batch in wells.batch], axis=1)
        return self.middle[:, None] + self.slope[:, None] * density(wells.start) + own


@dataclasses.dataclass(frozen=True)
class Population:
    """What was learned: `hyper`, the `levels` of `layout`, and the `days` of each plate."""

    mechanism: Mechanism
    hyper: Hyper
    levels: Levels
    layout: Layout
    days: Float[np.ndarray, "plate time"]
    kernels: dict[Any, Any] = dataclasses.field(default_factory=dict)


def part_of(wells: Wells, layout: Layout, logs: Array, dishes: Dishes) -> Part:
    """The curves made linear at `logs`."""
    value, jacobian = linearized(logs, dishes)
    residual = scale(wells.seen) - value
    there = layout.rows >= 0
    first = np.where(there[:, :1], layout.rows[:, :1], 0)[:, 0]
    weight = jnp.asarray(there, float)
    valid = jnp.asarray(wells.valid, float)
    return Part(
        dishes.days[first],
        valid[layout.rows] * weight[..., None],
        jnp.asarray(density(wells.start))[layout.rows],
        jacobian[layout.rows],
        (residual * valid)[layout.rows],
        weight,
        jnp.asarray(layout.batch),
    )


@eqx.filter_jit
def _loss(vector: Array, part: Part) -> tuple[Array, Array]:
    """Minus the log posterior of the variances and time scales, and its gradient."""
    return jax.value_and_grad(lambda z: -log_posterior(ravel_pytree(start_hyper())[1](z), part))(vector)


def ascend(hyper: Hyper, part: Part, steps: int) -> tuple[Hyper, float]:
    """`steps` of L-BFGS up the log posterior of the variances and time scales, and its value."""
    vector, back = ravel_pytree(hyper)

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _loss(jnp.asarray(z), part)
        return float(value), np.asarray(slope)

    found = minimize(loss, np.asarray(vector), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return back(jnp.asarray(found.x)), -float(found.fun)


def spread_over(wells: Wells, most: int) -> np.ndarray:
    """True for at most so many wells of every plate, evenly over their initial confluence."""
    keep = np.zeros(len(wells), bool)
    for plate in np.unique(wells.plate):
        mine = np.flatnonzero(wells.plate == plate)
        mine = mine[np.argsort(wells.start[mine], kind="stable")]
        keep[mine[np.unique(np.linspace(0, len(mine) - 1, most).round().astype(int))]] = True
    return keep


def mechanism_of(wells: Wells) -> Mechanism:
    """The mechanism alone, by penalized least squares over all plates at once (trust region; every effect shrunk)."""
    batches, plates = np.unique(wells.batch), np.unique(wells.plate)
    dishes, seen, x = Dishes.of(wells, float(wells.days.max())), np.asarray(scale(wells.seen)), density(wells.start)
    of_batch, of_plate = wells.batch[:, None] == batches[None], wells.plate[:, None] == plates[None]
    design = np.concatenate([np.ones((len(wells), 1)), x[:, None], of_batch, of_plate], axis=1).astype(float)
    spread = np.asarray(SPREADS)
    effects = [OF_BATCH * spread] * len(batches) + [OF_PLATE * spread] * len(plates)
    sd, middle = np.concatenate([spread, np.full(COUNT, OF_DENSITY), *effects]), np.asarray(MEDIANS)

    def logs(z: np.ndarray) -> Array:
        return jnp.asarray(middle[:, None] + (design @ (sd * z).reshape(-1, COUNT)).T)

    def loss(z: np.ndarray) -> np.ndarray:
        return np.concatenate([((np.asarray(linearized(logs(z), dishes)[0]) - seen) / ERROR)[wells.valid], z])

    def slope(z: np.ndarray) -> np.ndarray:
        jacobian = np.asarray(linearized(logs(z), dishes)[1])
        wide = design[:, None, :, None] * jacobian[:, :, None, :]
        return np.concatenate([wide.reshape(*seen.shape, -1)[wells.valid] * sd / ERROR, np.eye(len(sd))])

    solve: Any = least_squares
    found = (solve(loss, np.zeros(len(sd)), slope, max_nfev=40, ftol=1e-4).x * sd).reshape(-1, COUNT)
    groups = found[2:]
    return Mechanism(
        middle + found[0],
        found[1],
        dict(zip(batches, groups[: len(batches)], strict=True)),
        dict(zip(plates, groups[len(batches) :], strict=True)),
    )


def learn(
    wells: Wells, *, ascent: int = 8, hours: float = 12.0, most: int = 12, room: tuple[int, int] = (0, 0)
) -> Population:
    """The population of `wells`: mechanism, variances and time scales from at most `most` wells of each plate and
    readings `hours` apart, what is said of groups from all readings of all wells. `ascent` steps of the variances
    (0: their prior medians); `room` as in `Layout.of`."""
    few = wells.where(spread_over(wells, most)).every(hours)
    last = float(wells.days.max())
    mechanism = mechanism_of(few)
    part = part_of(few, Layout.of(few, (room[0], most)), jnp.asarray(mechanism.typical(few)), Dishes.of(few, last))
    hyper = ascend(start_hyper(), part, ascent)[0] if ascent else start_hyper()
    layout = Layout.of(wells, room)
    part = part_of(wells, layout, jnp.asarray(mechanism.typical(wells)), Dishes.of(wells, last))
    return Population(mechanism, hyper, levels(hyper, part), layout, np.asarray(part.days))


def curve_of(mechanism: Mechanism, wells: Wells) -> np.ndarray:
    """h of the mechanism's curve, the plate's own part left out."""
    dishes = Dishes.of(wells, float(wells.days.max()))
    return np.asarray(linearized(jnp.asarray(mechanism.typical(wells)), dishes)[0])
