"""Many subjects, one model: what is common, how subjects differ, and what was measured of each."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import CorrCholeskyTransform

from tumortwin.inference._prior import Prior, Values
from tumortwin.inference._problem import AbstractProblem, unique_names
from tumortwin.observation import AbstractResidualError
from tumortwin.params import get_parameter, set_parameters

TYPICAL, BETWEEN, COVARIATE, RESIDUAL = "typical.", "between.", "covariate.", "residual."
SUBJECT, CORRELATION, EFFECTS = "subject.", "correlation", "effects"
_LOG_SQRT_TWO_PI = 0.9189385332046727

Solve = Callable[[Any, "Measurements"], Array]
"""`(model with parameters [subject], measurements) -> curve [subject, time]`."""

_SCALES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "log": (jnp.log, jnp.exp),
    "logit": (jax.scipy.special.logit, jax.scipy.special.expit),
    "identity": (lambda x: x, lambda x: x),
}


class Measurements(eqx.Module):
    """What was measured of every subject, padded to one rectangle.

    **Arguments:** `times` [subject, time, day], increasing along a row, padded by repeating the last; `lower`, `upper`
    [subject, time]: what is known of the value (equal: exact; an interval: rounded or censored); `valid` [subject,
    time]: 0 for padding; `covariates` name -> [subject]; `given`: whatever `solve` needs to know of the treatment.
    """

    times: Float[Array, "subject time"]
    lower: Float[Array, "subject time"]
    upper: Float[Array, "subject time"]
    valid: Float[Array, "subject time"]
    covariates: dict[str, Array] = eqx.field(default_factory=dict)
    given: Any = None

    def __check_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("times", "lower", "upper", "valid")}
        if len(set(shapes.values())) != 1 or self.times.ndim != 2:
            raise ValueError(f"required: arrays of one shape [subject, time]; received: {shapes}")

    @property
    def subjects(self) -> int:
        """Number of subjects."""
        return self.times.shape[0]


class Varying(eqx.Module):
    """How one parameter of the model varies between subjects.

    $$ g(\\theta_i) = g(\\bar\\theta) + \\textstyle\\sum_c \\gamma_c x_{ic} + \\omega\\,\\eta_i, \\qquad
       \\eta_i \\sim N(0, 1) $$

    **Arguments:** `typical`: prior of the typical value `theta-bar`, in the parameter's own unit; `between`: prior of
    the spread `omega` on the scale `g`, or `None` (the same for all); `scale` g: `log`, `logit` or `identity`;
    `centered`: whether the sampler moves `g(theta_i)` itself (better where every subject has much data) or what is
    standard normal in it whatever the population is (better where it has little): `eta_i`, or of a correlated one the
    part that the effects before it leave open; `covariates`: covariate -> prior of its `gamma` (center the covariate
    first).

    **Good values:** log scale; typical log-normal with log-sd 1; between half-normal .5; centered with more than some
    five informative measurements a subject and parameter.
    """

    typical: Distribution
    between: Distribution | None = None
    scale: str = eqx.field(static=True, default="log")
    centered: bool = eqx.field(static=True, default=False)
    covariates: dict[str, Distribution] = eqx.field(default_factory=dict)

    def __check_init__(self) -> None:
        if self.scale not in _SCALES:
            raise ValueError(f"required: a scale among {sorted(_SCALES)}; received: {self.scale!r}")


class PopulationProblem(AbstractProblem):
    """A hierarchical model of many subjects, as a log density on an unconstrained vector.

    $$ \\log p(z) = \\log\\pi(\\bar\\theta, \\omega, R, \\sigma) + \\sum_i \\log N(\\eta_i; 0, R)
       + \\sum_{ij} \\log p(y_{ij} \\mid f(t_{ij}; \\theta_i), \\sigma) $$

    The correlation matrix `R` of the random effects has an LKJ prior over those parameters of `correlated`. Paths:
    `typical.<parameter>`, `between.<parameter>`, `covariate.<parameter>.<covariate>`, `residual.<field>`; derived:
    `subject.<parameter>` [subject], `correlation` [effect, effect].

    `z` holds the coordinates of the `Prior` of the scalar paths (prior spread 1 each), then the unconstrained entries
    of the Cholesky factor of `R`, then the effects [subject, effect].

    **Arguments:** `model`: a module with parameter paths; `varying`: path -> how it varies (others stay as they are);
    `residual`: the error model, with starting values; `residual_priors`: field -> prior; `data`; `solve`:
    `(model, data) -> curve [subject, time]`, the model's parameters of `varying` being arrays [subject];
    `correlated`: paths whose effects are correlated (empty: none); `concentration`: of the LKJ prior (1: flat).

    Reference: Gelman et al., Bayesian Data Analysis (2013), ch. 15; Lewandowski, Kurowicka & Joe (2009) (LKJ);
    Papaspiliopoulos, Roberts & Skold (2007), Stat. Sci. 22:59 (centering).
    """

    model: Any
    varying: dict[str, Varying]
    residual: AbstractResidualError
    prior: Prior
    data: Measurements
    solve: Solve
    origin: dict[str, Array]
    correlated: tuple[str, ...] = eqx.field(static=True)
    concentration: float = eqx.field(static=True)

    def __init__(
        self,
        model: Any,
        varying: Mapping[str, Varying],
        residual: AbstractResidualError,
        residual_priors: Mapping[str, Distribution],
        data: Measurements,
        solve: Solve,
        correlated: tuple[str, ...] = (),
        concentration: float = 1.0,
    ) -> None:
        self.model, self.varying, self.residual = model, {p: varying[p] for p in sorted(varying)}, residual
        self.data, self.solve, self.concentration = data, solve, float(concentration)
        unknown = [path for path in correlated if path not in varying or varying[path].between is None]
        if unknown or len(set(correlated)) != len(correlated) or len(correlated) == 1:
            raise ValueError(
                "required: at least two different parameters that vary between subjects in `correlated`, or none; "
                f"received: {list(correlated)}; varying: {[p for p, v in varying.items() if v.between is not None]}"
            )
        self.correlated = tuple(sorted(correlated))
        priors: dict[str, Distribution] = {}
        for path, how in self.varying.items():
            get_parameter(model, path)  # names the nearest when there is none
            priors[TYPICAL + path] = how.typical
            if how.between is not None:
                priors[BETWEEN + path] = how.between
            for name, of in how.covariates.items():
                if name not in data.covariates:
                    raise KeyError(
                        f"required: covariate {name!r} of {path!r} in the data; received: {sorted(data.covariates)}"
                    )
                priors[f"{COVARIATE}{path}.{name}"] = of
        for field, of in residual_priors.items():
            get_parameter(residual, field)
            priors[RESIDUAL + field] = of
        _check_support(residual, data)
        self.prior = Prior(priors)
        middle = self.prior.constrain(jnp.zeros(self.prior.size))
        self.origin = {path: _SCALES[how.scale][0](middle[TYPICAL + path]) for path, how in self.varying.items()}

    @property
    def effects(self) -> tuple[str, ...]:
        """Parameters with a random effect: the correlated ones first."""
        others = [p for p, how in self.varying.items() if how.between is not None and p not in self.correlated]
        return (*self.correlated, *others)

    @property
    def size(self) -> int:
        """Length of `z`."""
        return self.prior.size + self._n_correlation + self.data.subjects * len(self.effects)

    @property
    def names(self) -> tuple[str, ...]:
        """One name an entry of `z`."""
        of_subjects = [f"{EFFECTS}.{path}[{i}]" for i in range(self.data.subjects) for path in self.effects]
        return (*self.prior.names, *(f"{CORRELATION}.z[{k}]" for k in range(self._n_correlation)), *of_subjects)

    @property
    def scalars(self) -> tuple[str, ...]:
        return self.prior.names

    def constrain(self, z: Float[Array, " parameter"]) -> Values:
        """`z` to values by path, those of every subject and the correlations included."""
        common, lower, effects = self._unpack(z)
        values = dict(common)
        values.update({SUBJECT + p: v for p, v in self._individual(common, lower, effects).items()})
        if self.correlated:
            values[CORRELATION] = lower @ lower.T
        return values

    def log_prior(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log density of `z` under the prior, effects included."""
        n, k = self.prior.size, self._n_correlation
        common, lower, effects = self._unpack(z)
        total = self.prior.log_density(z[:n])
        if k:
            transform, free = CorrCholeskyTransform(), z[n : n + k]
            lkj = dist.LKJCholesky(len(self.correlated), self.concentration)
            total += lkj.log_prob(lower) + transform.log_abs_det_jacobian(free, lower)
        standard, log_scale = self._standard(common, lower, effects)
        return total + jnp.sum(-0.5 * standard**2 - _LOG_SQRT_TWO_PI) - log_scale

    def curve(self, values: Mapping[str, Array]) -> Float[Array, "subject time"]:
        """What the model says at the times of the measurements, from values by path (`subject.*` needed)."""
        return self.solve(self.bound(values), self.data)

    def bound(self, values: Mapping[str, Array]) -> Any:
        """The model with the parameters `subject.*` of `values`, one a subject."""
        return with_subjects(
            self.model, {p.removeprefix(SUBJECT): v for p, v in values.items() if p.startswith(SUBJECT)}
        )

    def error(self, values: Mapping[str, Array]) -> AbstractResidualError:
        """The error model with the given values."""
        found = {p.removeprefix(RESIDUAL): v for p, v in values.items() if p.startswith(RESIDUAL)}
        return set_parameters(self.residual, found)

    def log_likelihoods(self, values: Mapping[str, Array]) -> Float[Array, "subject time"]:
        """Log-likelihood of every measurement; 0 for padding."""
        curve = jnp.where(self.data.valid > 0, self.curve(values), 1.0)
        lower, upper = (jnp.where(self.data.valid > 0, bound, 1.0) for bound in (self.data.lower, self.data.upper))
        return jnp.where(self.data.valid > 0, self.error(values).log_likelihood(curve, lower, upper), 0.0)

    def log_terms(self, z: Float[Array, " parameter"]) -> Float[Array, " term"]:
        return jnp.ravel(self.log_likelihoods(self.constrain(z)))

    @property
    def term_days(self) -> np.ndarray:
        return np.where(np.asarray(self.data.valid) > 0, np.asarray(self.data.times), np.nan).ravel()

    def term_names(self) -> tuple[str, ...]:
        times, lower, upper, valid = (
            np.asarray(getattr(self.data, name)) for name in ("times", "lower", "upper", "valid")
        )
        return unique_names(
            f"subject {i} day {float(times[i, j])!r} [{float(lower[i, j])!r}, {float(upper[i, j])!r}]"
            if valid[i, j] > 0
            else "padding"
            for i, j in np.ndindex(*times.shape)
        )

    def log_density(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log of prior x likelihood at `z`; -inf when the model failed."""
        value = self.log_prior(z) + jnp.sum(self.log_likelihoods(self.constrain(z)))
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def sample_prior(self, n: int, *, key: Array) -> Float[Array, "draw parameter"]:
        """Draws of `z` from the prior."""
        keys = jax.random.split(key, 3)
        common = self.prior.sample((n,), key=keys[0])
        heads = jax.vmap(self.prior.unconstrain)(common)
        parts = [heads]
        if self._n_correlation:
            lower = dist.LKJCholesky(len(self.correlated), self.concentration).sample(keys[1], (n,))
            parts.append(jnp.asarray(jax.vmap(CorrCholeskyTransform().inv)(lower)))
        standard = jax.random.normal(keys[2], (n, self.data.subjects, len(self.effects)))
        moved = jax.vmap(self._from_standard)(jnp.concatenate(parts, axis=1), standard)
        return jnp.concatenate([*parts, moved.reshape(n, -1)], axis=1)

    def prior_draws(self, n: int, *, key: Array) -> dict[str, np.ndarray]:
        return {path: np.asarray(value)[None] for path, value in _drawn(self, n, key).items()}

    def numpyro_model(self) -> Callable[[], None]:
        """The same as a NumPyro model (every effect non-centered): for guides and for other people's samplers."""

        def model() -> None:
            common: Values = {p: jnp.asarray(numpyro.sample(p, d)) for p, d in self.prior.distributions.items()}
            lower = jnp.eye(0)
            if self.correlated:
                lkj = dist.LKJCholesky(len(self.correlated), self.concentration)
                lower = jnp.asarray(numpyro.sample(CORRELATION, lkj))
            shape = (self.data.subjects, len(self.effects))
            standard = jnp.asarray(numpyro.sample(EFFECTS, dist.Normal().expand(shape).to_event(2)))
            effects = self._mixed(lower, standard)
            individual = self._natural(common, effects)
            values = {**common, **{SUBJECT + p: v for p, v in individual.items()}}
            numpyro.factor("log_likelihood", jnp.sum(self.log_likelihoods(values)))

        return model

    def scaled(self, values: Mapping[str, Array]) -> Float[Array, "subject effect"]:
        """The parameters of every subject that have an effect, each on its scale `g`."""
        columns = [_SCALES[self.varying[p].scale][0](values[SUBJECT + p]) for p in self.effects]
        return jnp.stack(columns, axis=1)

    def with_scaled(self, values: Mapping[str, Array], scaled: Float[Array, "subject effect"]) -> Values:
        """`values` with other parameters of the subjects, given on their scale `g`."""
        moved = {SUBJECT + p: _SCALES[self.varying[p].scale][1](scaled[:, k]) for k, p in enumerate(self.effects)}
        return {**values, **moved}

    def log_population(
        self, values: Mapping[str, Array], scaled: Float[Array, "subject effect"]
    ) -> Float[Array, " subject"]:
        """Log density, under the population of `values`, of subjects with the parameters `scaled` (on their scale)."""
        units = [
            (scaled[:, k] - self._location(values, path)) / values[BETWEEN + path]
            for k, path in enumerate(self.effects)
        ]
        spread = sum((jnp.log(values[BETWEEN + path]) for path in self.effects), jnp.zeros(()))
        columns = jnp.stack(units, axis=1)
        if self.correlated:
            columns, of_mixing = self._unmixed(jnp.linalg.cholesky(values[CORRELATION]), columns)
            spread = spread + of_mixing
        return jnp.sum(-0.5 * columns**2 - _LOG_SQRT_TWO_PI, axis=1) - spread

    def new_subjects(self, values: Mapping[str, Array], n: int, *, key: Array) -> Values:
        """`n` subjects of the population of `values` that were never measured (covariates 0), path -> [n]."""
        standard = jax.random.normal(key, (n, len(self.effects)))
        lower = jnp.linalg.cholesky(values[CORRELATION]) if self.correlated else jnp.eye(0)
        centers = {path: _SCALES[how.scale][0](values[TYPICAL + path]) for path, how in self.varying.items()}
        locations = {path: jnp.broadcast_to(center, (n,)) for path, center in centers.items()}
        return self._natural(values, self._mixed(lower, standard), locations)

    @property
    def _n_correlation(self) -> int:
        n = len(self.correlated)
        return n * (n - 1) // 2

    def _unpack(self, z: Array) -> tuple[Values, Array, Array]:
        n, k = self.prior.size, self._n_correlation
        common = self.prior.constrain(z[:n])
        lower = jnp.asarray(CorrCholeskyTransform()(z[n : n + k])) if k else jnp.eye(0)
        return common, lower, z[n + k :].reshape(self.data.subjects, len(self.effects))

    def _mixed(self, lower: Array, standard: Array) -> Array:
        """Independent effects to correlated ones."""
        m = len(self.correlated)
        return jnp.concatenate([standard[:, :m] @ lower.T, standard[:, m:]], axis=1) if m else standard

    def _unmixed(self, lower: Array, effects: Array) -> tuple[Array, Array]:
        """The inverse of `_mixed`, and the log of the volume that one subject's effects gain by mixing."""
        m = len(self.correlated)
        rows = jax.scipy.linalg.solve_triangular(lower, effects[:, :m].T, lower=True).T
        return jnp.concatenate([rows, effects[:, m:]], axis=1), jnp.sum(jnp.log(jnp.diagonal(lower)))

    def _location(self, common: Mapping[str, Array], path: str) -> Array:
        """`g` of the typical value with its covariates [subject]."""
        how = self.varying[path]
        center = _SCALES[how.scale][0](common[TYPICAL + path])
        shift = sum((common[f"{COVARIATE}{path}.{c}"] * self.data.covariates[c] for c in how.covariates), jnp.zeros(()))
        return jnp.broadcast_to(center + shift, (self.data.subjects,))

    def _standard(self, common: Values, lower: Array, effects: Array) -> tuple[Array, Array]:
        """Independent standard effects, and the log of how much `effects` are spread against them (all subjects).

        A centered effect that is correlated is what the effects before it leave open; any other column of `effects`
        is a standard effect already, whatever the correlations are.
        """
        columns: list[Array] = []
        log_scale = jnp.zeros(())
        for k, path in enumerate(self.effects):
            column = effects[:, k]
            if self.varying[path].centered:
                spread = common[BETWEEN + path]
                column = (column + self.origin[path] - self._location(common, path)) / spread
                if k < len(self.correlated):
                    before = sum((lower[k, j] * columns[j] for j in range(k)), jnp.zeros(()))
                    column, spread = (column - before) / lower[k, k], spread * lower[k, k]
                log_scale = log_scale + self.data.subjects * jnp.log(spread)
            columns.append(column)
        return jnp.stack(columns, axis=1) if columns else effects, log_scale

    def _from_standard(self, head: Array, standard: Array) -> Array:
        """The entries of `z` of independent standard effects: the inverse of `_standard`."""
        common, lower, _ = self._unpack(jnp.concatenate([head, jnp.zeros(standard.size)]))
        mixed, columns = self._mixed(lower, standard), []
        for k, path in enumerate(self.effects):
            column = standard[:, k]
            if self.varying[path].centered:
                column = self._location(common, path) + common[BETWEEN + path] * mixed[:, k] - self.origin[path]
            columns.append(column)
        return jnp.stack(columns, axis=1) if columns else standard

    def _individual(self, common: Values, lower: Array, effects: Array) -> Values:
        standard, _ = self._standard(common, lower, effects)
        return self._natural(common, self._mixed(lower, standard))

    def _natural(self, common: Mapping[str, Array], effects: Array, locations: Values | None = None) -> Values:
        """Parameters of subjects from correlated unit effects, about `locations` (`None`: those of the data)."""
        found = {}
        for path, how in self.varying.items():
            location = self._location(common, path) if locations is None else locations[path]
            if how.between is not None:
                location = location + common[BETWEEN + path] * effects[:, self.effects.index(path)]
            found[path] = _SCALES[how.scale][1](location)
        return found


@eqx.filter_jit
def _drawn(problem: PopulationProblem, n: int, key: Array) -> Values:
    return jax.vmap(problem.constrain)(problem.sample_prior(n, key=key))


def with_subjects(model: Any, individual: Mapping[str, Array]) -> Any:
    """The model with one value a subject at the given paths."""
    for path, value in individual.items():
        model = eqx.tree_at(lambda node, p=path: get_parameter(node, p), model, value)
    return model


def unsupported(residual: AbstractResidualError, data: Measurements) -> np.ndarray:
    """Measurements [subject, time] to which the error model gives no density: an exact zero under a log-normal one, a
    fraction among counts, an interval wider than the model can sum."""
    valid, exact = np.asarray(data.valid > 0), np.asarray(data.lower == data.upper)
    support = residual.noise(jnp.ones(())).support
    assert support is not None
    lower, upper = (jnp.where(jnp.asarray(valid & ~exact), bound, 1.0) for bound in (data.lower, data.upper))
    undefined = jnp.isnan(residual.log_likelihood(jnp.ones(data.lower.shape), lower, upper))
    return valid & np.where(exact, ~np.asarray(support(data.lower)), np.asarray(undefined))


def _check_support(residual: AbstractResidualError, data: Measurements) -> None:
    """Refuses values to which the error model gives no density."""
    outside = unsupported(residual, data)
    if outside.any():
        subject, time = np.argwhere(outside)[0]
        low, high = float(data.lower[subject, time]), float(data.upper[subject, time])
        raise ValueError(
            f"required: exact values inside {residual.noise(jnp.ones(())).support} for a {type(residual).__name__}, or "
            f"intervals that it can sum; received: {low:g} to {high:g} (subject {subject}, measurement {time}) and "
            f"{int(outside.sum()) - 1} more; try: an interval, such as [0, limit of quantification]"
        )
