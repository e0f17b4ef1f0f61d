"""What a plan is worth when it is revised: virtual patients are treated, read at each visit, and planned for again."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin.control import (
    AbstractController,
    AbstractObjective,
    AbstractRisk,
    AbstractSlots,
    Infeasible,
    Plan,
    PlanningProblem,
    RecedingHorizon,
    Visit,
    curves,
    losses,
    make_plan,
    optimize,
    suitable_controller,
)
from tumortwin.inference import RESIDUAL, PopulationProblem, Posterior, systematic_rows
from tumortwin.metrics import Difference, paired_bootstrap
from tumortwin.twin._subject_plan import SubjectDraw, TreatedSubject, subject_draws

FEW_DRAWS = 10.0
"""Effective draws below which a posterior at a visit is not to be trusted."""

SAME = 0.05
"""Doses that differ by less than this share of the largest are the same: a search on other draws moves the rest."""


@dataclasses.dataclass(frozen=True)
class Revised:
    """One objective over the virtual patients, as a loss (less is better: of a time to progression minus the days): its
    mean under the standard of care, under the plan of the first day (`open_loop`) and under the plan as it was revised
    (`closed_loop`); `gain`: open minus closed loop, paired, with its interval over patients; `risk`: the measure that
    the plans were made for, over the patients, in the same order."""

    unit: str
    standard: float
    open_loop: float
    closed_loop: float
    gain: Difference
    risk: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        names = ("standard_of_care", "open_loop", "closed_loop")
        means = dict(zip(names, (self.standard, self.open_loop, self.closed_loop), strict=True))
        risks = dict(zip(names, self.risk, strict=True))
        gain = {"value": self.gain.mean, "low": self.gain.low, "high": self.gain.high}
        return {"unit": self.unit, "mean_loss": means, "risk_of_loss": risks, "gain_of_revising": gain}


@dataclasses.dataclass(frozen=True, eq=False)
class ClosedLoop:
    """Virtual patients under three ways to decide.

    `objectives`: name -> what it came to, that of the plan first; `courses` [patient component]: what was delivered,
    beside the `planned` one [component]; `effective` [patient]: of the draws that are weighed at the visits, how many
    speak at the last one (0: none could explain what was read); `refused`: visits at which no plan kept the limits, so
    that the one before was kept to; `unsolved`: patients left out of means and gains, as their burden could not be
    solved under one of the three.
    """

    objectives: Mapping[str, Revised]
    planned: Float[np.ndarray, " component"]
    courses: Float[np.ndarray, "patient component"]
    effective: Float[np.ndarray, " patient"]
    refused: int = 0
    unsolved: int = 0

    @property
    def changed(self) -> float:
        """Share of the patients whose delivered course is not the one that was planned."""
        largest = max(np.abs(self.planned).max(), np.abs(self.courses).max(), np.finfo(float).tiny)
        return float(np.mean(np.abs(self.courses - self.planned).max(axis=1) > SAME * largest))

    def to_json(self) -> dict[str, Any]:
        """The entry `trial` of plan.json."""
        return {
            "patients": len(self.courses),
            "objectives": {name: found.to_json() for name, found in self.objectives.items()},
            "changed": self.changed,
            "refused_visits": self.refused,
            "unsolved_patients": self.unsolved,
            "planned": self.planned.tolist(),
            "courses": self.courses.tolist(),
            "effective_draws": self.effective.tolist(),
            "statement": self.describe(),
        }

    def describe(self) -> str:
        """Plain sentences for a report."""
        gains = "; ".join(
            f"{name.replace('_', ' ')} {one.gain.mean:.3g} {one.unit} ({one.gain.low:.3g} to {one.gain.high:.3g})"
            for name, one in self.objectives.items()
        )
        words = (
            f"Revised at every visit, on {len(self.courses)} virtual patients drawn from the posterior, the course "
            f"changes in {self.changed:.0%} of them. Mean gain over the plan as it stands (95 %; below zero it is "
            f"worse): {gains}."
        )
        if self.refused:
            words += f" At {self.refused} visits no plan kept the limits, and the one before was kept to."
        if few := int(np.sum(self.effective < FEW_DRAWS)):
            words += f" For {few} of them fewer than {FEW_DRAWS:g} draws speak at the last visit: too few to trust it."
        if self.unsolved:
            words += f" {self.unsolved} of them could not be solved and count for nothing."
        return words


def closed_loop(
    problem: PopulationProblem,
    posterior: Posterior,
    planning: PlanningProblem,
    found: Plan,
    standard_of_care: Any,
    controller: AbstractController | None,
    *,
    subject: int,
    day: float,
    objectives: Sequence[AbstractObjective] = (),
    patients: int = 20,
    pool: int = 1000,
    key: Array,
) -> ClosedLoop:
    """Plan, give the first block, read the patient, weigh the draws, plan the rest again: for `patients` truths.

    $$ w_s \\propto \\prod_{j \\le k} p\\left(y_j \\mid f(t_j; \\theta_s, u_{<j})\\right) $$

    A truth is a draw of the half of the posterior that the plan was not made with; what is read of it has the error of
    the table. The plan of the first day is `found`. At each later visit `pool` draws of the other half (at most as many
    as it has) are weighed by all readings so far and as many as the plan has are taken (systematic resampling);
    `controller` plans what is left (`RecedingHorizon`).

    **Arguments:** `planning`: the problem of the subject on `day` of its clock; `found`: the plan of the first day;
    `objectives` that are looked at beside the problem's own.

    **Good values:** 20 patients, 1000 draws: the more is read, the fewer of them speak at the last visit.

    **Raises:** `ValueError` for decisions that are not slots of one drug.

    **Limits:** truth and belief are the same model: more than revising is worth where the model is wrong
    (mathematical). Where no plan keeps the limits at a visit, the plan before is kept to (convenience).
    """
    decided, burden = planning.parametrization, planning.burden
    if not (isinstance(decided, AbstractSlots) and len(decided.slots) == 1):
        raise ValueError(
            "required: slots of one drug, for revisions visit by visit; received: "
            f"{type(decided).__name__}; try: OnOff, DoseLevels or SlotDoses; a rule is feedback already"
        )
    assert isinstance(burden, TreatedSubject)
    usable = np.asarray(planning.draws.usable)
    planning = planning if usable.all() else planning.kept(usable)
    days, keys = decided.slots[0].days, jax.random.split(key, 4)
    first, second = posterior.halves()
    truths = _drawn(problem, second, subject, day, patients, keys[0])
    cloud = _drawn(problem, first, subject, day, min(pool, first.weights.size), keys[1])
    planned = np.asarray(decided.vector(found.variables), float)
    search = suitable_controller(planning) if controller is None else controller
    places = jnp.searchsorted(jnp.asarray(burden.days), jnp.asarray(days))
    courses, clinics = [], []
    for k in range(truths.size):
        clinic = _Clinic(problem, planning, cloud, truths.row(k), places, planned, jax.random.fold_in(keys[2], k))
        horizon = RecedingHorizon(_OrAsBefore(search, clinic), days, days, clinic)
        delivered = optimize(planning, horizon, key=jax.random.fold_in(keys[3], k))
        courses.append(np.asarray(decided.vector(delivered.variables), float))
        clinics.append(clinic)
    every = (planning.objective, *(o for o in objectives if o.name != planning.objective.name))
    real = planning.with_draws(truths.draws)
    standard, opened = (np.asarray(losses(real, v, every)) for v in (standard_of_care, found.variables))
    alone = [planning.with_draws(truths.row(k).draws) for k in range(truths.size)]
    each = [losses(p, decided.variables(jnp.asarray(c)), every) for p, c in zip(alone, courses, strict=True)]
    closed = np.concatenate([np.asarray(values) for values in each], axis=1)
    solved = np.isfinite(np.stack([standard, opened, closed])).all(axis=(0, 1))
    if not solved.any():
        raise FloatingPointError(
            f"required: a virtual patient whose burden can be solved; received: none of {patients}; try: other draws "
            "(seed=...), or trial=none"
        )
    told = _told(every, planning.risk, standard[:, solved], opened[:, solved], closed[:, solved], keys[3])
    effective = np.asarray([clinic.effective for clinic in clinics])
    refused, unsolved = sum(clinic.refused for clinic in clinics), patients - int(solved.sum())
    return ClosedLoop(told, planned, np.stack(courses), effective, refused, unsolved)


def _told(
    objectives: Sequence[AbstractObjective],
    risk: AbstractRisk,
    standard: Float[np.ndarray, "objective patient"],
    opened: Float[np.ndarray, "objective patient"],
    closed: Float[np.ndarray, "objective patient"],
    key: Array,
) -> dict[str, Revised]:
    """Means and paired gains, objective by objective."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    subjects = np.arange(closed.shape[1])
    each = [[float(risk(jnp.asarray(row))) for row in values] for values in (standard, opened, closed)]
    return {
        objective.name: Revised(
            unit=objective.gain_unit,
            standard=float(standard[row].mean()),
            open_loop=float(opened[row].mean()),
            closed_loop=float(closed[row].mean()),
            gain=paired_bootstrap(opened[row], closed[row], subjects, rng=rng),
            risk=(each[0][row], each[1][row], each[2][row]),
        )
        for row, objective in enumerate(objectives)
    }


class _Drawn(eqx.Module):
    """Draws of a subject on the day of the decision, with the parameters of the error of a reading."""

    draws: SubjectDraw
    error: dict[str, Array]

    @property
    def size(self) -> int:
        return self.draws.usable.shape[0]

    def taken(self, rows: np.ndarray) -> "_Drawn":
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def row(self, k: int) -> "_Drawn":
        return self.taken(np.asarray([k]))


def _drawn(problem: PopulationProblem, half: Posterior, subject: int, day: float, n: int, key: Array) -> _Drawn:
    """`n` draws, without those that could not be solved up to the day of the decision."""
    drawn = half.resample(n, key=key)
    error = {path: jnp.asarray(value) for path, value in drawn.items() if path.startswith(RESIDUAL)}
    found = _Drawn(subject_draws(problem, drawn, subject, day), error)
    return found.taken(np.flatnonzero(np.asarray(found.draws.usable)))


class _Clinic:
    """`Reestimate` of one virtual patient: reads it at every visit and weighs the draws by what was read so far."""

    def __init__(
        self,
        problem: PopulationProblem,
        planning: PlanningProblem,
        cloud: _Drawn,
        truth: _Drawn,
        places: Array,
        planned: np.ndarray,
        key: Array,
    ) -> None:
        self.problem, self.planning, self.cloud, self.truth = problem, planning, cloud, truth
        self.places, self.key = places, key
        self.readings = np.ones(places.size)
        self.before, self.refused = planned, 0
        self.believed, self.effective, self.untouched = planning.draws, float(cloud.size), True

    def __call__(self, visit: Visit, key: Array) -> tuple[SubjectDraw, None]:
        if visit.index == 0:  # the last known reading is in the posterior already, and the plan is there
            return self.planning.draws, None
        self.before, self.untouched = visit.delivered, False
        variables = self.planning.parametrization.variables(jnp.asarray(visit.delivered))
        seen = np.arange(self.readings.size)
        seen = (seen >= 1) & (seen <= visit.index)
        real, believed = (
            curves(self.planning.with_draws(d.draws), variables).burden[:, self.places]
            for d in (self.truth, self.cloud)
        )
        drawn = _read(self.problem, self.truth.error, real, jax.random.fold_in(self.key, visit.index))
        self.readings[visit.index] = float(drawn[0, visit.index])
        fit = _fit(self.problem, self.cloud.error, believed, jnp.asarray(self.readings), jnp.asarray(seen))
        if not np.isfinite(self.readings[visit.index]) or not bool(jnp.isfinite(jnp.max(fit))):
            self.effective = 0.0  # nothing believed explains what was read: believe what was believed before
            return self.believed, None
        weights = np.exp(np.asarray(fit) - float(jnp.max(fit)))
        self.effective = float(weights.sum() ** 2 / np.sum(weights**2))
        rows = systematic_rows(weights, self.planning.n_draws, key=key)
        self.believed = self.cloud.taken(rows).draws
        return self.believed, None


class _OrAsBefore(AbstractController):
    """The plan that is there on the first day, then `controller`, or where no plan keeps the limits what was planned at
    the visit before."""

    controller: AbstractController
    clinic: _Clinic = eqx.field(static=True)

    def init(self, problem: PlanningProblem, *, key: Array | None = None) -> Plan:
        before = problem.parametrization.variables(jnp.asarray(self.clinic.before))
        if self.clinic.untouched:
            return make_plan(problem, before, name="as planned")
        try:
            return optimize(problem, self.controller, key=key)
        except Infeasible:
            self.clinic.refused += 1
            return make_plan(problem, before, name="as planned before")

    def step(self, problem: PlanningProblem, state: Plan) -> Plan:
        del problem
        return state

    def terminate(self, problem: PlanningProblem, state: Plan) -> bool:
        del problem, state
        return True

    def info(self, state: Plan) -> Mapping[str, Any]:
        return state.convergence

    def postprocess(self, problem: PlanningProblem, state: Plan, name: str) -> Plan:
        del problem
        return dataclasses.replace(state, name=name)


@eqx.filter_jit
def _read(problem: PopulationProblem, error: dict[str, Array], real: Array, key: Array) -> Float[Array, "one visit"]:
    """What is read of a patient whose burden is `real`, at every visit."""
    return jax.vmap(lambda values, curve: jnp.asarray(problem.error(values).noise(curve).sample(key)))(error, real)


@eqx.filter_jit
def _fit(
    problem: PopulationProblem,
    error: dict[str, Array],
    believed: Float[Array, "draw visit"],
    readings: Float[Array, " visit"],
    seen: Bool[Array, " visit"],
) -> Float[Array, " draw"]:
    """Log-likelihood of the readings that were seen, for each draw; -inf where its solve failed."""

    def one(values: dict[str, Array], curve: Array) -> Array:
        each = problem.error(values).log_likelihood(curve, readings, readings)
        total = jnp.sum(jnp.where(seen, each, 0.0))
        solved = jnp.all(jnp.isfinite(curve) | ~seen) & jnp.isfinite(total)
        return jnp.where(solved, total, -jnp.inf)

    return jnp.asarray(jax.vmap(one)(error, believed))
