"""Every cycle forecast from the visits before it: under the drug that was given, and under the trial's own rule."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.zhang2022.bank import advance, records
from experiments.zhang2022.population import (
    Filtered,
    Node,
    Noise,
    Population,
    filtered,
    level_step,
    log_prior,
    reading_variance,
    virtual,
)
from experiments.zhang2022.visits import Cycle, Visits
from tumortwin.models import SensitiveResistant

STOP_BELOW = 0.5  # of the PSA at which abiraterone was first given; it begins again at that PSA
LEAST_WEIGHT = 1e-3  # of a node that takes part


class Fitted(eqx.Module):
    """One patient against the virtual ones at one node: parameters, cells and filter at every visit."""

    model: SensitiveResistant
    sensitive: Float[Array, "visit virtual"]
    resistant: Float[Array, "visit virtual"]
    level: Filtered


class Drawn(eqx.Module):
    """Draws [draw] of the state of a patient at one visit, his parameters, the log level and the noise."""

    model: SensitiveResistant
    cells: tuple[Array, Array]
    first: Array
    level: Array
    error: Noise


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """PSA [draw, visit] under the given drug and under the rule, and how many virtual patients carry the weight."""

    given: np.ndarray
    ruled: np.ndarray
    effective: float


class Patient:
    """Everything that is needed to forecast one patient: the others' population, and his own record.

    Only `draws_at(visit)` decides what is known: it uses the filter of that visit, which has seen nothing later.
    """

    def __init__(
        self, visits: Visits, patient: int, choices: list[Node], others: Population, points: np.ndarray
    ) -> None:
        self.days, self.psa, self.on = (a[patient] for a in (visits.days, visits.psa, visits.on))
        self.valid = visits.valid[patient].astype(float)
        used = np.flatnonzero(others.weight > LEAST_WEIGHT)
        self.prior = np.log(others.weight[used])[:, None] + log_prior(
            points, others.mean[used], others.covariance[used]
        )
        self.nodes = [choices[h] for h in used]
        self.fits = [self._fit(node, points) for node in self.nodes]

    def _fit(self, node: Node, points: np.ndarray) -> Fitted:
        model = virtual(points, node.start, node.competition)
        days, on, psa, valid = (jnp.asarray(a, float) for a in (self.days, self.on, self.psa, self.valid))
        sensitive, resistant = records(model, days, on)
        return Fitted(model, sensitive, resistant, filtered(sensitive + resistant, psa, days, valid, node.error))

    def draws_at(self, visit: int, count: int, rng: np.random.Generator) -> tuple[Drawn, float]:
        """`count` states at a visit whose reading is known, and the effective number of virtual patients."""
        log_weight = self.prior + np.array([fit.level.log_likelihood[visit] for fit in self.fits])
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        position = (np.arange(count) + rng.uniform()) / count
        chosen = np.minimum(np.searchsorted(np.cumsum(weight.ravel()), position), weight.size - 1)
        node, point = np.unravel_index(rng.permutation(chosen), weight.shape)

        def pick(of: object) -> np.ndarray:
            rows = np.array([np.broadcast_to(np.asarray(of(fit)), weight.shape[1:]) for fit in self.fits])  # type: ignore[operator]
            return rows[node, point]

        model = jax.tree.map(jnp.asarray, _stacked([fit.model for fit in self.fits], node, point))
        mean, variance = pick(lambda f: f.level.mean[visit]), pick(lambda f: f.level.variance[visit])
        cells = (jnp.asarray(pick(lambda f: f.sensitive[visit])), jnp.asarray(pick(lambda f: f.resistant[visit])))
        error = jax.tree.map(lambda *each: jnp.asarray(np.array(each)[node]), *(n.error for n in self.nodes))
        level = mean + np.sqrt(variance) * rng.standard_normal(count)
        first = pick(lambda f: f.sensitive[0] + f.resistant[0])
        drawn = Drawn(model, cells, jnp.asarray(first), jnp.asarray(level), error)
        return drawn, float(1.0 / np.sum(weight.sum(axis=0) ** 2))

    def forecast(self, cycle: Cycle, count: int, rng: np.random.Generator) -> Forecast:
        """The visits asked for in a cycle, whose days are known."""
        drawn, effective = self.draws_at(cycle.start, count, rng)
        noise = rng.standard_normal((cycle.stop - cycle.start, 2, count))
        given = self._run(drawn, cycle, noise, None)
        first_on = int(np.flatnonzero(self.on[: cycle.start + 1] > 0)[0])
        ruled = self._run(drawn, cycle, noise, float(self.psa[first_on]))
        return Forecast(given, ruled, effective)

    def _run(self, drawn: Drawn, cycle: Cycle, noise: np.ndarray, baseline: float | None) -> np.ndarray:
        """PSA [draw, visit]; the drug of the record, or, with the `baseline` of the rule, that of the PSA drawn."""
        drug = jnp.ones(drawn.level.shape)
        found = []
        for step, visit in enumerate(range(cycle.start, cycle.stop)):
            if baseline is None:
                drug = jnp.full(drawn.level.shape, float(self.on[visit]))
            elapsed = jnp.asarray(self.days[visit + 1] - self.days[visit])
            drawn, relative = _one_visit(drawn, elapsed, drug, jnp.asarray(noise[step]))
            psa = self.psa[0] * relative
            if baseline is not None:
                drug = jnp.where(drug > 0, psa >= STOP_BELOW * baseline, psa >= baseline).astype(float)
            found.append(np.asarray(psa))
        return np.array(found).T


@eqx.filter_jit
def _one_visit(drawn: Drawn, elapsed: Array, drug: Array, noise: Array) -> tuple[Drawn, Array]:
    """The state at the next visit and a reading, over the first."""
    cells = advance(drawn.model, drawn.cells, elapsed, drug)
    kept, added = level_step(elapsed, drawn.error)
    level = kept * drawn.level + jnp.sqrt(added) * noise[0]
    burden = cells[0] + cells[1]
    scatter = jnp.sqrt(reading_variance(burden, drawn.first, drawn.error))
    psa = burden / drawn.first * jnp.exp(level + scatter * noise[1])
    return eqx.tree_at(lambda d: (d.cells, d.level), drawn, (cells, level)), psa


def _stacked(models: list[SensitiveResistant], node: np.ndarray, point: np.ndarray) -> SensitiveResistant:
    """The parameters of the virtual patients drawn."""

    def pick(*leaves: Array) -> np.ndarray:
        rows = np.array(
            [np.broadcast_to(np.asarray(leaf), (max(point) + 1,) if leaf.ndim == 0 else leaf.shape) for leaf in leaves]
        )
        return rows[node, point]

    return jax.tree.map(pick, *models)
