"""Pathfinder: the best Gaussian along the way of a quasi-Newton search, from several starts."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize
from scipy.special import logsumexp

from tumortwin.inference._calibrate import AbstractCalibrator, State, child_key, state_key
from tumortwin.inference._identifiability import contraction_statement
from tumortwin.inference._laplace import constrained_draws
from tumortwin.inference._pareto import LARGEST_K_HAT, effective_draws, pareto_smooth
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem, Problem, log_densities

_LOG_TWO_PI = 1.8378770664093453
# A pair (s, y) is used where s.y exceeds this share of |y|^2 (positive curvature; Zhang et al. 2022, Algorithm 3).
LEAST_CURVATURE = 1e-12
# Paths start halfway between a draw of the prior and its mode, as NUTS does; of so many the first that works.
HALFWAY = 0.5
CANDIDATES = 20


class LowRankNormal(eqx.Module):
    """`N(mean, A^{1/2} (Q (L L^T - I) Q^T + I) A^{1/2})`, `A = diag(alpha)`: a BFGS covariance in `O(p J)`.

    `alpha` [parameter] > 0, `q` [parameter rank] orthonormal, `lower` [rank rank] lower triangular. Leading axes stack
    several.
    """

    mean: Float[Array, "*stack parameter"]
    alpha: Float[Array, "*stack parameter"]
    q: Float[Array, "*stack parameter rank"]
    lower: Float[Array, "*stack rank rank"]

    def draw(self, noise: Float[Array, "draw parameter"]) -> Float[Array, "draw parameter"]:
        """Standard normal `noise` to draws."""
        inside = noise @ self.q
        moved = noise + (inside @ self.lower.T - inside) @ self.q.T
        return self.mean[None] + jnp.sqrt(self.alpha)[None] * moved

    def log_density(self, z: Float[Array, "draw parameter"]) -> Float[Array, " draw"]:
        """Log density at `z`."""
        scaled = (z - self.mean[None]) / jnp.sqrt(self.alpha)[None]
        inside = scaled @ self.q
        solved = jax.scipy.linalg.solve_triangular(self.lower, inside.T, lower=True).T
        square = jnp.sum(scaled**2, axis=1) - jnp.sum(inside**2, axis=1) + jnp.sum(solved**2, axis=1)
        return -0.5 * (square + z.shape[1] * _LOG_TWO_PI) - self._half_log_determinant()

    def covariance(self) -> Float[Array, "parameter parameter"]:
        """The matrix itself."""
        inner = self.lower @ self.lower.T - jnp.eye(self.lower.shape[0])
        root = jnp.sqrt(self.alpha)
        return (jnp.eye(root.size) + self.q @ inner @ self.q.T) * jnp.outer(root, root)

    def _half_log_determinant(self) -> Array:
        return 0.5 * jnp.sum(jnp.log(self.alpha)) + jnp.sum(jnp.log(jnp.abs(jnp.diagonal(self.lower))))


class PathfinderCalibrator(AbstractCalibrator):
    """Draws from the Gaussian with the best evidence bound along L-BFGS paths, weighted to the posterior.

    $$ q_l = N\\big(z_l + \\Sigma_l \\nabla\\log p(z_l),\\; \\Sigma_l\\big), \\qquad
       l^* = \\arg\\max_l\\; \\tfrac1K \\sum_k \\log p(z_k) - \\log q_l(z_k) $$

    with `Sigma_l` the inverse Hessian that the search has built by step `l`. A hierarchical model has no useful mode:
    the best `q_l` lies on the way to it. The draws of all paths are weighted against the mixture of their `q` and the
    weights Pareto-smoothed. k-hat above .7, or fewer than `least_effective` effective draws, says that the draws are a
    place to start from and no posterior (`sample_reliable` 0).

    A step is one path. Needs a `solve` with reverse-mode derivatives.

    **Arguments:** `paths`; `draws` a path; `steps` of the search at most; `memory` J pairs; `elbo_draws` K a step;
    `least_effective` of the weighted draws; `vectorized`: draws side by side (small states) or one after another (3-D).

    **Good values:** paths 4-8; memory 6-10; elbo_draws 10-25; 100-400 gradients a path.

    **Limits:** a Gaussian a path (mathematical): in tens of dimensions k-hat is nearly always above .7, and the draws
    are for starting NUTS (`NutsCalibrator.start`).

    Reference: Zhang, Carpenter, Gelman & Vehtari (2022), JMLR 23:306.
    """

    paths: int = 4
    draws: int = 250
    steps: int = 300
    memory: int = 8
    elbo_draws: int = 15
    least_effective: float = 100.0
    vectorized: bool = True

    def __check_init__(self) -> None:
        if min(self.paths, self.steps, self.memory, self.elbo_draws) < 1 or self.draws < 20:
            raise ValueError(
                "required: at least one path, step, pair and draw of the bound, 20 draws a path; received: "
                f"{self.paths}, {self.steps}, {self.memory}, {self.elbo_draws}, {self.draws}"
            )

    def init(self, problem: AbstractProblem, *, key: Array) -> State:
        p, rank = problem.size, min(2 * self.memory, problem.size)
        shapes = {"mean": (p,), "alpha": (p,), "q": (p, rank), "lower": (rank, rank), "draws": (self.draws, p)}
        empty = {f"path_{name}": np.zeros((0, *shape)) for name, shape in shapes.items()}
        numbers = {f"path_{name}": np.zeros(0) for name in ("elbo", "gradients", "best")}
        return {
            "key": np.asarray(jax.random.key_data(key)),
            "z": np.zeros(p),
            **weights_of(problem),
            **empty,
            **numbers,
            "path_targets": np.zeros((0, self.draws)),
        }

    def step(self, problem: AbstractProblem, state: State) -> State:
        """One path."""
        done = len(state["path_elbo"])
        key = jax.random.fold_in(child_key(state_key(state), "pathfinder"), done)
        found = _path(self, problem, key)
        if not np.isfinite(found.elbo):
            raise FloatingPointError(
                f"required: a start with a finite density on path {done}; received: none along the path; try: a prior "
                "that keeps away from where the model fails"
            )
        new = {**_named(found.normal), "draws": found.draws, "targets": found.targets, "elbo": found.elbo}
        new |= {"gradients": found.gradients, "best": found.best}
        return {
            **state,
            **{f"path_{k}": np.concatenate([state[f"path_{k}"], np.asarray(v)[None]]) for k, v in new.items()},
        }

    def terminate(self, problem: AbstractProblem, state: State) -> bool:
        del problem
        return len(state["path_elbo"]) >= self.paths

    def progress(self, problem: AbstractProblem, state: State) -> tuple[int, int]:
        del problem
        return len(state["path_elbo"]), self.paths

    def postprocess(self, problem: AbstractProblem, state: State) -> Posterior:
        z, log_weights, k_hat = self.weighted(state)
        draws, weights = constrained_draws(problem, z[None]), np.exp(log_weights)
        ess = effective_draws(log_weights)
        reliable = k_hat < LARGEST_K_HAT and ess >= self.least_effective
        rows = np.asarray(
            jax.random.categorical(child_key(state_key(state), "rows"), jnp.asarray(log_weights), shape=(len(z),))
        )
        known = problem.scalars
        said = contraction_statement(known, z[rows][None][..., : len(known)])
        return Posterior(
            draws=draws,
            log_weights=log_weights[None],
            diagnostics={
                "k_hat": k_hat,
                "ess": ess,
                "draws": float(len(z)),
                "sample_reliable": float(reliable),
                "elbo": float(np.max(state["path_elbo"])),
                "elbo_spread": float(np.ptp(state["path_elbo"])),
                "gradients": float(np.sum(state["path_gradients"])),
            },
            statement=said if reliable else f"These draws are a place to start from, no posterior. {said}",
            info={"parameter_names": list(problem.names), "best_steps": state["path_best"].tolist()},
            prior_draws=problem.prior_draws(len(z), key=child_key(state_key(state), "prior")),
            log_density=state["path_targets"].reshape(1, -1),
            monte_carlo_error={path: weighted_error(value[0], weights) for path, value in draws.items()},
        )

    def weighted(self, state: State) -> tuple[np.ndarray, np.ndarray, float]:
        """Draws of all paths [draw, parameter], their smoothed log weights against the mixture, and k-hat."""
        z, targets = state["path_draws"].reshape(-1, state["z"].size), state["path_targets"].ravel()
        normals = LowRankNormal(*(jnp.asarray(state[f"path_{name}"]) for name in ("mean", "alpha", "q", "lower")))
        densities = np.asarray(_densities(normals, jnp.asarray(z)))
        ratios = np.where(
            np.isfinite(targets), targets - logsumexp(densities, axis=0) + np.log(len(densities)), -np.inf
        )
        log_weights, k_hat = pareto_smooth(ratios)
        return z, log_weights, k_hat

    def starts(self, state: State, n: int, *, key: Array) -> tuple[np.ndarray, np.ndarray]:
        """`n` different draws [n, parameter] taken by weight, and the covariance of the path with the best bound."""
        z, log_weights, _ = self.weighted(state)
        noise = np.asarray(jax.random.gumbel(key, log_weights.shape))
        best = int(np.argmax(state["path_elbo"]))
        normal = LowRankNormal(*(jnp.asarray(state[f"path_{name}"][best]) for name in ("mean", "alpha", "q", "lower")))
        return z[np.argsort(-(log_weights + noise))[:n]], np.asarray(normal.covariance())


class _Found(NamedTuple):
    """What one path has found."""

    normal: LowRankNormal
    draws: Array
    targets: Array
    elbo: float
    gradients: float
    best: int


def weighted_error(draws: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Standard error of a self-normalized weighted mean of `draws` [draw, ...]."""
    centered = draws - np.tensordot(weights, draws, axes=1)
    return np.asarray(np.sqrt(np.tensordot(weights**2, centered**2, axes=1)))


def weights_of(problem: AbstractProblem) -> State:
    """The power-likelihood weights of a problem that has such (a checkpoint must fit them)."""
    return {"weights": np.asarray(problem.weights)} if isinstance(problem, Problem) else {}


def _named(normal: LowRankNormal) -> dict[str, Array]:
    return {"mean": normal.mean, "alpha": normal.alpha, "q": normal.q, "lower": normal.lower}


@eqx.filter_jit
def _densities(normals: LowRankNormal, z: Array) -> Array:
    return jax.vmap(lambda normal: normal.log_density(z))(normals)


@eqx.filter_jit
def _starts(settings: PathfinderCalibrator, problem: AbstractProblem, key: Array) -> tuple[Array, Array]:
    """Candidates for a start, and whether each works."""
    candidates = HALFWAY * problem.sample_prior(CANDIDATES, key=key)
    return candidates, jnp.isfinite(log_densities(problem, candidates, settings.vectorized))


@eqx.filter_jit
def _loss_and_slope(problem: AbstractProblem, z: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda point: -problem.log_density(point))(z)


@eqx.filter_jit
def _sampled(
    settings: PathfinderCalibrator, problem: AbstractProblem, normal: LowRankNormal, n: int, key: Array
) -> tuple[Array, Array, Array]:
    """`n` draws of a Gaussian, the log posterior there, and the bound on the log evidence."""
    z = normal.draw(jax.random.normal(key, (n, problem.size)))
    targets = log_densities(problem, z, settings.vectorized)
    bound = jnp.mean(targets - normal.log_density(z))
    return z, targets, jnp.where(jnp.isfinite(bound), bound, -jnp.inf)


def _path(settings: PathfinderCalibrator, problem: AbstractProblem, key: Array) -> _Found:
    """One search, the Gaussian of its best step, and draws of that."""
    start_key, elbo_key, draw_key = jax.random.split(key, 3)
    candidates, works = _starts(settings, problem, start_key)
    points, slopes, spent = _search(problem, np.asarray(candidates[jnp.argmax(works)]), settings)
    padding = ((0, settings.steps + 1 - len(points)), (0, 0))  # one shape for every path: nothing is compiled anew
    padded = [jnp.asarray(np.pad(array, padding, mode="edge")) for array in (points, slopes)]
    normals = _inverse_hessians(padded[0], padded[1], settings.memory)
    bounds = []
    for step in range(len(points) - 1):
        normal = jax.tree.map(lambda leaf, k=step: leaf[k], normals)
        _, _, bound = _sampled(settings, problem, normal, settings.elbo_draws, jax.random.fold_in(elbo_key, step))
        bounds.append(float(bound))
    best = int(np.argmax(bounds))
    normal = jax.tree.map(lambda leaf: leaf[best], normals)
    draws, targets, _ = _sampled(settings, problem, normal, settings.draws, draw_key)
    return _Found(normal, draws, targets, bounds[best], float(spent), best)


def _search(
    problem: AbstractProblem, start: np.ndarray, settings: PathfinderCalibrator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Points [steps + 1, parameter] of an L-BFGS search (SciPy), the slopes of `-log p` there, and gradients spent."""
    seen: dict[bytes, np.ndarray] = {}

    def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope = _loss_and_slope(problem, jnp.asarray(z))
        seen[z.tobytes()] = np.asarray(slope, float)
        return float(loss), seen[z.tobytes()]

    points = [np.array(start)]
    found = minimize(
        evaluate,
        start,
        method="L-BFGS-B",
        jac=True,
        callback=lambda z: points.append(np.array(z)),
        options={"maxiter": settings.steps, "maxcor": settings.memory, "ftol": 1e-10, "gtol": 1e-6},
    )
    points = points[: settings.steps + 1] if len(points) > 1 else [*points, points[-1]]
    slopes = [seen[z.tobytes()] if z.tobytes() in seen else evaluate(z)[1] for z in points]
    return np.stack(points), np.stack(slopes), int(found.nfev)


@eqx.filter_jit
def _inverse_hessians(points: Array, slopes: Array, memory: int) -> LowRankNormal:
    return inverse_hessians(points, slopes, memory)


def inverse_hessians(points: Array, slopes: Array, memory: int) -> LowRankNormal:
    """The Gaussians [step] of all steps but the start, from points and slopes [step + 1, parameter] of a search.

    The inverse Hessian in compact form,

    $$ \\Sigma = A + \\beta \\gamma \\beta^T, \\qquad \\beta = (A Y, S), \\qquad
       \\gamma = \\begin{pmatrix} 0 & -R^{-1} \\\\ -R^{-T} & R^{-T} (E + Y^T A Y) R^{-1} \\end{pmatrix} $$

    `S`, `Y` the last pairs, `R` the upper triangle of `S^T Y`, `E` its diagonal. The diagonal `A` follows Gilbert &
    Lemarechal. Pairs without positive curvature are left out.

    Reference: Byrd, Nocedal & Schnabel (1994), Math. Program. 63:129; Zhang et al. (2022), Algorithms 3 and 4.
    """
    moves, bends = jnp.diff(points, axis=0), jnp.diff(slopes, axis=0)
    usable = jnp.sum(moves * bends, axis=1) > LEAST_CURVATURE * jnp.sum(bends**2, axis=1)

    def advance(carry: tuple[Array, Array, Array], now: tuple[Array, Array, Array, Array, Array]):
        alpha, s, y = carry
        move, bend, use, point, slope = now
        a, b, c = jnp.sum(bend**2 * alpha), jnp.sum(bend * move), jnp.sum(move**2 / alpha)
        inverse = a / (b * alpha) + bend**2 / b - a * move**2 / (b * c * alpha**2)
        alpha = jnp.where(use, 1 / jnp.where(use, inverse, 1.0), alpha)
        s = jnp.where(use, jnp.concatenate([s[1:], move[None]]), s)
        y = jnp.where(use, jnp.concatenate([y[1:], bend[None]]), y)
        return (alpha, s, y), _normal(point, slope, alpha, s.T, y.T)

    p = points.shape[1]
    empty = jnp.zeros((memory, p), points.dtype)
    start = (jnp.ones(p, points.dtype), empty, empty)
    return jax.lax.scan(advance, start, (moves, bends, usable, points[1:], slopes[1:]))[1]


def _normal(point: Array, slope: Array, alpha: Array, s: Array, y: Array) -> LowRankNormal:
    products = s.T @ y
    missing = jnp.diagonal(products) == 0
    r = jnp.triu(products) + jnp.diag(jnp.where(missing, 1.0, 0.0))
    inverse = jax.scipy.linalg.solve_triangular(r, jnp.eye(r.shape[0], dtype=r.dtype))
    inner = jnp.diag(jnp.diagonal(products)) + (y.T * alpha[None]) @ y
    zero = jnp.zeros_like(r)
    gamma = jnp.block([[zero, -inverse], [-inverse.T, inverse.T @ inner @ inverse]])
    beta = jnp.concatenate([alpha[:, None] * y, s], axis=1)
    q, triangle = jnp.linalg.qr(beta / jnp.sqrt(alpha)[:, None])
    lower = jnp.linalg.cholesky(jnp.eye(triangle.shape[0], dtype=r.dtype) + triangle @ gamma @ triangle.T)
    step = beta @ (gamma @ (beta.T @ slope)) + alpha * slope
    return LowRankNormal(point - step, alpha, q, lower)
