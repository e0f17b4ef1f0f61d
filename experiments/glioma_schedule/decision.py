"""The decision: every fraction and every day's temozolomide, within the toxicity of the standard of care."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig, OmegaConf

from tumortwin.cli_patient import atlas_glioma
from tumortwin.cli_scans import prepare
from tumortwin.control import (
    CumulativeDose,
    CVaR,
    EffectiveDose,
    MeanLogBurden,
    Plan,
    PlanningProblem,
    ScipyGradient,
    SlotDoses,
    TotalDose,
    optimize,
    regular_slots,
    weekday_slots,
)
from tumortwin.inference import Posterior, Problem
from tumortwin.runs import Run
from tumortwin.treatments import Course, Schedule
from tumortwin.twin import Patient, Twin, schedule_problem

ORIGIN = 30.0  # [day] of the second scan, and of the decision
FIRST = 5.0  # [day] after it: the first fraction
FRACTIONS, DOSE = 30, 2.0  # the standard of care; Stupp et al. 2005
DRUG, DRUG_DAYS = "temozolomide", 42  # the standard of care: a dose of 1 (75 mg/m^2) on each of 42 days
SLOTS = 56  # days on which a plan may give the drug: two weeks more
CAP, DRUG_CAP = 3.0, 2.0  # [Gy] a fraction, [75 mg/m^2] a day
HORIZON = 150.0  # [day] after the decision
LEVEL = 0.8
DRAWS, PRIOR_DRAWS = 16, 512
COARSE, FINE = 4.0, 2.0  # [mm]

_FRACTIONS = weekday_slots("radiotherapy", FIRST, FRACTIONS)
DECISION = SlotDoses((_FRACTIONS, regular_slots(DRUG, FIRST, 1.0, SLOTS)), high=(CAP, DRUG_CAP))
STANDARD = np.concatenate([np.full(FRACTIONS, DOSE), (np.arange(SLOTS) < DRUG_DAYS).astype(float)])
LIMITS = (
    TotalDose(FRACTIONS * DOSE),
    EffectiveDose(FRACTIONS * DOSE * (1.0 + DOSE / 3.0), 3.0),
    CumulativeDose(DRUG, float(DRUG_DAYS)),
)
OBJECTIVE = MeanLogBurden(0.0, HORIZON)
RISK = CVaR(LEVEL)


def known_twin(config: DictConfig, run: Run, spacing: float) -> Twin:
    """The twin of the scans until the day of the decision."""
    changed = OmegaConf.create(OmegaConf.to_container(config))
    changed.geometry.spacing = spacing
    changed.patient.known_until = ORIGIN
    changed.patient.plan.retrospective = False
    changed.patient.plan.earliest, changed.patient.plan.standard_start = 1.0, FIRST
    changed.patient.plan.latest, changed.patient.plan.horizon = FIRST + 7.0, HORIZON
    return prepare(changed, run).twin  # type: ignore[arg-type]


def problems(known: Twin, spacings: tuple[float, float]) -> tuple[Problem, Problem]:
    """The calibration problem of a twin's scans on voxels of two spacings [mm]."""
    frame = {"margin": known.frame.margin, "bucket": known.frame.bucket}
    parts = (known.patient, known.solver, known.prior, known.settings)
    coarse, fine = (Twin.of(*parts, spacing=spacing, **frame).problem() for spacing in spacings)
    return coarse, fine


def planning(problem: Problem, posterior: Posterior, n_draws: int, key: Array) -> PlanningProblem:
    """The planning problem of `n_draws` draws."""
    return schedule_problem(
        problem,
        posterior,
        DECISION,
        OBJECTIVE,
        RISK,
        LIMITS,
        reference=DECISION.schedule(jnp.asarray(STANDARD)),
        days=np.linspace(_FRACTIONS.days[-1] + 2.0, HORIZON, 7).tolist(),
        save_fractions=(*range(0, FRACTIONS, 5), -1),
        origin=ORIGIN,
        n_draws=n_draws,
        key=key,
    )


def best(problem: PlanningProblem, start: np.ndarray, iterations: int, name: str) -> Plan:
    """The plan found from `start`."""
    search = ScipyGradient(start=tuple(map(float, start)), max_iterations=iterations, tolerance=1e-5)
    return optimize(problem, search, name=name)


def believed_before(problem: Problem, key: Array) -> Posterior:
    """Draws of the prior: what was believed of the parameters before the new scan."""
    return Posterior(draws=problem.prior_draws(PRIOR_DRAWS, key=key), log_weights=None, diagnostics={}, statement="")


def truly(config: DictConfig, key: Array, vector: np.ndarray) -> Patient:
    """The virtual patient under the decision: on the anatomy's 1 mm grid, rho varying in space."""
    planned = DECISION.schedule(jnp.asarray(vector))
    moved = Schedule(
        Course(planned.radiotherapy.times + ORIGIN, planned.radiotherapy.doses),
        {name: Course(course.times + ORIGIN, course.doses) for name, course in planned.drugs.items()},
    )
    days = (0.0, ORIGIN, 90.0, 120.0, ORIGIN + HORIZON)
    return atlas_glioma(days=days, tumor=config.patient.loader.tumor, config=config, key=key, schedule=moved)
