"""The receding horizon of many patients side by side: a virtual trial of feedback, one program a visit."""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from tumortwin.control._problem import Burden, PlanningProblem
from tumortwin.control._receding import Visit, check_visits
from tumortwin.control._region import TOLERANCE

Propose = Callable[[Float[Array, " n"], Int[Array, ""]], Float[Array, "candidate n"]]
"""`(vector, visit) -> candidates`: decisions to be tried for a patient whose course stands at `vector`."""


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known at a visit of the patients who still need a plan: `draws` (leaves [row draw ...]), `weights`
    [row draw] or None, and which patients the `rows` are (None: all)."""

    draws: PyTree
    weights: Float[Array, "row draw"] | None = None
    rows: Int[np.ndarray, " row"] | None = None


ReestimateEach = Callable[[Visit, Array], Known | None]
"""`(visit, key) -> Known`, or None when nobody needs a further plan. `visit.delivered` is [patient n]."""


@dataclasses.dataclass(frozen=True)
class DeliveredEach:
    """The `course` of every patient [patient n] as it was delivered, and the `risk` [visit patient] of what was planned
    at each visit on the draws of that visit (NaN for a patient who needed no plan)."""

    course: Float[np.ndarray, "patient n"]
    risk: Float[np.ndarray, "visit patient"]


def receding_each(
    problem: PlanningProblem,
    propose: Propose,
    reestimate: ReestimateEach,
    *,
    visits: Sequence[float],
    component_days: Sequence[float],
    start: Float[np.ndarray, "patient n"],
    burden_from: Callable[[Int[Array, ""]], Burden] | None = None,
    key: Array,
) -> DeliveredEach:
    """What `RecedingHorizon` does for one patient, for all patients of a virtual trial at once.

    At visit k on day t_k every patient's draws are estimated again, components due before t_k stay as they were given,
    and of the decisions that `propose` names and the plan of the visit before the one with the least risk is taken (the
    plan before where nothing is better). Where all decisions are named it is `RecedingHorizon(Exhaustive(), ...)`.

    **Arguments:** `problem`: burden, objective, risk and limits of every patient; its own draws are not used, all draws
    are solved at once. `propose`: compiled, for one patient; of what it names only the components that are not held
    count. `reestimate`: on the host; in silico it lets the patients live under `visit.delivered`, reads them and
    updates what is known of them. `start` [patient n]: the plan before the first visit, which keeps all limits.
    `burden_from`: the burden of draws that are states at visit k rather than at the start (by default the problem's).

    **Raises:** `ValueError` for visits that do not rise, a first component before the first visit, a `start` that
    breaks a limit, or limits on the outcome.

    **Limits:** of the decisions that are tried the best, no more (mathematical); draws of equal number for all
    patients, and no limits on the outcome (convenience).
    """
    days = np.asarray(component_days, dtype=float)
    check_visits(tuple(visits), tuple(component_days))
    vectors = np.array(start, dtype=float)
    outside = problem.region.excesses(vectors).max()
    if problem.outcome_limits or vectors.shape[1] != days.size or outside > TOLERANCE:
        raise ValueError(
            f"required: no limits on the outcome, and starts [patient, {days.size}] that keep the limits; received: "
            f"{len(problem.outcome_limits)} limits on the outcome, starts {vectors.shape}, outside by {outside:.3g}"
        )
    bare = problem.with_draws(None)
    risks = np.full((len(visits), len(vectors)), np.nan)
    for index, day in enumerate(visits):
        held = days < day
        known = reestimate(Visit(index, day, vectors.copy(), held), jax.random.fold_in(key, index))
        if known is None:
            break
        rows = np.arange(len(vectors)) if known.rows is None else known.rows
        begun = jnp.asarray(vectors[rows])
        now = jnp.asarray(index)
        chosen, risk = _best_of(bare, propose, burden_from, begun, jnp.asarray(held), now, known.draws, known.weights)
        vectors[rows], risks[index, rows] = np.asarray(chosen), np.asarray(risk)
    return DeliveredEach(vectors, risks)


@eqx.filter_jit
def _best_of(
    problem: PlanningProblem,
    propose: Propose,
    burden_from: Callable[[Int[Array, ""]], Burden] | None,
    vectors: Float[Array, "row n"],
    held: Bool[Array, " n"],
    visit: Int[Array, ""],
    draws: PyTree,
    weights: Float[Array, "row draw"] | None,
) -> tuple[Float[Array, "row n"], Float[Array, " row"]]:
    """The best decision of every patient and its risk; the first of equals, which is the plan before."""
    parametrization = problem.parametrization
    now = problem if burden_from is None else dataclasses.replace(problem, burden=burden_from(visit))

    def broken(vector: Array) -> Array:
        variables = parametrization.variables(vector)
        residuals = [c.residuals(variables, parametrization) for c in problem.constraints]
        return jnp.max(jnp.concatenate([jnp.full(1, -jnp.inf), *residuals])) > TOLERANCE

    def one(vector: Array, drawn: PyTree, share: Array | None) -> tuple[Array, Array]:
        proposed = propose(vector, visit).astype(vector.dtype)
        tried = jnp.concatenate([vector[None], jnp.where(held[None], vector[None], proposed)])
        own = now.with_draws(drawn, share)

        def risk(u: Array) -> Array:
            return jnp.where(broken(u), jnp.inf, own.judged(parametrization.variables(u))[0])

        every = jax.vmap(risk)(tried)
        best = jnp.argmin(every)
        return tried[best], every[best]

    return jax.vmap(one)(vectors, draws, weights)
