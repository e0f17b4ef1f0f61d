"""Simulated tumors, each on an anatomy, from a start and under a schedule of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tumortwin._chunks import in_chunks
from tumortwin.geometry import Domain, Tissue
from tumortwin.models import DrugResponse, GaussianSeed, GivenDensity, ReactionDiffusion
from tumortwin.params import set_parameters
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.surrogates.fno._anatomies import Brain, Variation, draw_anatomy
from tumortwin.treatments import Course, Schedule, weekday_fractions

# Places for fractions and for doses of the drug; what is not given has dose 0. All courses then share one program.
FRACTIONS, DOSES = 33, 42
# A start is grown over so many days; its diffusivity and rate follow from how far and how steep it shall be.
SPAN = 200.0
SEED_WIDTH = 4.0  # [mm]
DIFFUSIVITY, RATE = "mechanisms.diffusion.white_matter", "mechanisms.proliferation.rate"

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class CourseSettings:
    """What courses are drawn from, beside the prior of the parameters.

    `radius` [mm] low, high of the distance that the front of the start has traveled in white matter, uniform;
    `front_length` [mm] low, high of its sqrt(D / rho), log-uniform; `first_day` [day] low, high of the first fraction,
    uniform; `regimens` rows of (fractions, dose [Gy]), one of them drawn; `untreated` share without any treatment;
    `with_drug` share of the treated with a daily drug from the first fraction, for `DOSES` days.

    **Good values:** as they stand: 30 x 2 of Stupp et al. 2005, and shorter courses as the elderly are given (framework
    defaults).
    """

    radius: Sequence[float] = (8.0, 24.0)
    front_length: Sequence[float] = (1.2, 3.0)
    first_day: Sequence[float] = (5.0, 60.0)
    regimens: Sequence[Sequence[float]] = ((30, 2.0), (33, 1.8), (15, 2.67), (10, 3.4))
    untreated: float = 0.15
    with_drug: float = 0.7

    def __post_init__(self) -> None:
        most = max(int(n) for n, _ in self.regimens)
        if most > FRACTIONS:
            raise ValueError(f"required: regimens of at most {FRACTIONS} fractions; received: one of {most}")


@dataclasses.dataclass(frozen=True)
class Courses:
    """Courses as the model has them: `values` path -> [course]; `inputs` name -> [course ...]: tissue, domain, start
    and schedule; `density` [course day x y z]; `error_estimate` [course day] of the time step; `succeeded` and
    `anatomy`, its number, [course]."""

    days: tuple[float, ...]
    values: Mapping[str, np.ndarray]
    inputs: Mapping[str, np.ndarray]
    density: np.ndarray
    error_estimate: np.ndarray
    succeeded: np.ndarray
    anatomy: np.ndarray

    @property
    def size(self) -> int:
        """Number of courses."""
        return len(self.succeeded)

    def rows(self, chosen: np.ndarray | slice) -> "Courses":
        """Some of the courses."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "days"}
        return Courses(self.days, **jax.tree.map(lambda x: x[chosen], parts))

    def flat(self) -> Arrays:
        """Every array by a name of its own, for a file."""
        own = {"density": self.density, "error_estimate": self.error_estimate, "succeeded": self.succeeded}
        return {**self.values, **self.inputs, **own, "anatomy": self.anatomy}

    @classmethod
    def of_flat(cls, days: Sequence[float], arrays: Mapping[str, np.ndarray], paths: Sequence[str]) -> "Courses":
        """The inverse of `flat`; `paths` of the parameters."""
        own = ("density", "error_estimate", "succeeded", "anatomy")
        inputs = {k: v for k, v in arrays.items() if k not in (*own, *paths)}
        return cls(
            tuple(float(d) for d in days),
            {p: arrays[p] for p in paths},
            inputs,
            arrays["density"],
            arrays["error_estimate"],
            arrays["succeeded"].astype(bool),
            arrays["anatomy"],
        )

    @classmethod
    def of_parts(cls, parts: Sequence["Courses"]) -> "Courses":
        """The courses of all parts, in their order."""
        flat = [part.flat() for part in parts]
        joined = {name: np.concatenate([f[name] for f in flat]) for name in flat[0]}
        return cls.of_flat(parts[0].days, joined, tuple(parts[0].values))


def draw_inputs(
    template: ReactionDiffusion,
    brain: Brain,
    variation: Variation,
    settings: CourseSettings,
    numbers: Sequence[int],
    seed: Sequence[int],
) -> Arrays:
    """Anatomies, places and sizes of starts, and schedules, of the courses `numbers`; each depends on the seed and its
    own number alone."""
    grid = template.tissue.grid
    rows = []
    for number in numbers:
        random = np.random.default_rng([*seed, number])
        drawn = draw_anatomy(brain, grid.shape, grid.spacing[0], variation, random)
        low, high = settings.radius
        radius = random.uniform(low, high)
        length = float(np.exp(random.uniform(*np.log(settings.front_length))))
        rows.append(drawn._asdict() | {"radius": radius, "front_length": length} | draw_schedule(settings, random))
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def draw_schedule(settings: CourseSettings, random: np.random.Generator) -> Arrays:
    """Times and doses of one schedule, filled up with doses of 0."""
    low, high = settings.first_day
    first = round(random.uniform(low, high))
    count, dose = settings.regimens[int(random.integers(len(settings.regimens)))]
    treated, with_drug = random.random() >= settings.untreated, random.random() < settings.with_drug
    weekday = int(random.integers(5))
    given = weekday_fractions(float(first), FRACTIONS, float(dose), weekday)
    doses = np.where(np.arange(FRACTIONS) < int(count), np.asarray(given.doses), 0.0)
    return {
        "fraction_times": np.asarray(given.times, float),
        "fraction_doses": doses * treated,
        "drug_times": float(first) + np.arange(DOSES, dtype=float),
        "drug_doses": np.full(DOSES, float(treated and with_drug)),
    }


def grow_starts(template: ReactionDiffusion, inputs: Arrays, solver: FixedSteps) -> Arrays:
    """The inputs with `start` [course x y z]: a seed grown over `SPAN` days, by a diffusivity and a rate of its own.

    $$ R = 2\\sqrt{D\\rho}\\,T, \\quad \\ell = \\sqrt{D/\\rho} \\quad\\Rightarrow\\quad
       D = \\frac{R\\,\\ell}{2T}, \\quad \\rho = \\frac{R}{2T\\ell} $$

    so that how far and how steep a tumor is says nothing of how it goes on: outlines of a first scan do not either. The
    solver may undershoot zero by 5e-5: the start is its state projected onto [0, 1].
    """
    places = {
        name: inputs[name] for name in ("white_matter", "gray_matter", "mask", "center", "radius", "front_length")
    }
    start = in_chunks(lambda part: _grown(template, solver, part), places)
    return {**inputs, "start": np.asarray(start)}


@eqx.filter_jit
def _grown(template: ReactionDiffusion, solver: FixedSteps, rows: Mapping[str, Array]) -> Array:
    dtype = template.tissue.fields["white_matter"].dtype

    def one(row: Mapping[str, Array]) -> Array:
        values = {
            DIFFUSIVITY: row["radius"] * row["front_length"] / (2.0 * SPAN),
            RATE: row["radius"] / (2.0 * SPAN * row["front_length"]),
        }
        seed = GaussianSeed(row["center"], jnp.asarray(0.5), jnp.asarray(SEED_WIDTH))
        model = eqx.tree_at(lambda m: m.initial, set_parameters(_placed(template, row), values), seed)
        found = simulate(model, Schedule(), (SPAN,), solver, estimate_error=False)
        return jnp.where(found.succeeded, jnp.clip(found.states.density[0], 0.0, 1.0), jnp.nan).astype(dtype)

    return jax.lax.map(one, dict(rows))


def solve_courses(
    template: ReactionDiffusion,
    values: Mapping[str, np.ndarray],
    inputs: Arrays,
    anatomy: np.ndarray,
    days: Sequence[float],
    solver: FixedSteps,
    *,
    estimate_error: bool = True,
) -> Courses:
    """The model's own answer at `days` from the starts of `inputs` (`grow_starts`, or a patient's)."""
    asked = tuple(float(d) for d in days)
    rows = ({p: np.asarray(v) for p, v in values.items()}, dict(inputs))
    density, error, succeeded = in_chunks(
        lambda part: _solved(template, solver, part[0], part[1], asked, estimate_error), rows
    )
    return Courses(
        asked, rows[0], inputs, np.asarray(density), np.asarray(error), np.asarray(succeeded), np.asarray(anatomy)
    )


@eqx.filter_jit
def _solved(
    template: ReactionDiffusion,
    solver: FixedSteps,
    values: Mapping[str, Array],
    inputs: Mapping[str, Array],
    days: tuple[float, ...],
    estimate_error: bool,
) -> tuple[Array, Array, Array]:
    def one(row: tuple[Mapping[str, Array], Mapping[str, Array]]) -> tuple[Array, Array, Array]:
        model, schedule = course_model(template, row[0], row[1]), course_schedule(template, row[1])
        found = simulate(model, schedule, days, solver, estimate_error=estimate_error)
        return found.states.density, found.error_estimate, found.succeeded

    return jax.lax.map(one, (dict(values), dict(inputs)))


def course_model(
    template: ReactionDiffusion, values: Mapping[str, Array], inputs: Mapping[str, Array]
) -> ReactionDiffusion:
    """The model of one course."""
    placed = set_parameters(_placed(template, inputs), values)
    return eqx.tree_at(lambda m: m.initial, placed, GivenDensity(inputs["start"]))


def course_schedule(template: ReactionDiffusion, inputs: Mapping[str, Array]) -> Schedule:
    """The schedule of one course; the drug is the one to which the template responds."""
    drugs = [m.drug for m in template.mechanisms.values() if isinstance(m, DrugResponse)]
    given = {drug: Course(inputs["drug_times"], inputs["drug_doses"]) for drug in drugs}
    return Schedule(Course(inputs["fraction_times"], inputs["fraction_doses"]), given)


def _placed(template: ReactionDiffusion, row: Mapping[str, Any]) -> ReactionDiffusion:
    """The template on another anatomy of its grid."""
    fields = {name: row[name] for name in template.tissue.fields}
    tissue = Tissue(Domain(template.tissue.grid, row["mask"]), fields)
    return eqx.tree_at(lambda m: m.tissue, template, tissue)
