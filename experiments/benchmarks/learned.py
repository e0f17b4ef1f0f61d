"""What the neural half trains and answers in a second, beside the PDE on the same grid and in the same process.

No targets: how much a surrogate gains depends on the processor, and the studies (`rom_glioma`, `rehearsal`,
`surrogate_glioma`, `amortised`) judge what is judged. Weights are drawn, not trained: they cost the same. Every call
was made before it is timed. Rehearsals and courses of the PDE are answered several side by side, as many as there are
cores; rehearsals with what falls back to the PDE.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from experiments.amortised import mouse
from experiments.benchmarks.timing import interleaved, once
from experiments.hybrid_ablation.learned import Loss, forecaster, predicted
from experiments.hybrid_ablation.rows import HYBRID, MECHANISM
from experiments.hybrid_ablation.synthetic import LAW, subjects
from tumortwin.cli_train_operator import operator_case
from tumortwin.cli_train_reduced import fit, modes_of, simulate_training, training_case
from tumortwin.config import compose
from tumortwin.models import ReactionDiffusion
from tumortwin.runs import Verdict, measured, open_run
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.surrogates import (
    OperatorLoss,
    Training,
    asked_of,
    begin_networks,
    calibrate_pod,
    course_model,
    course_schedule,
    course_summaries,
    draw_inputs,
    grow_starts,
    held_out_batches,
    hold_against,
    member_densities,
    random_design,
    rehearse,
    simulate_samples,
    sobol_design,
    solve_courses,
    train_amortised,
    weight_count,
)
from tumortwin.treatments import Schedule

REHEARSALS, QUICK_REHEARSALS = 1000, 100
PDE_COURSES = 24
CHUNK = 100  # steps of an amortised training


@eqx.filter_jit
def _pde(model: ReactionDiffusion, schedule: Schedule, days: tuple[float, ...], solver: FixedSteps) -> jax.Array:
    return simulate(model, schedule, days, solver, estimate_error=False).states.density


def operator(quick: bool) -> Iterator[Verdict]:
    """The neural operator at its default size: courses simulated and learned from in a second, time of an answer."""
    given = ["surrogate=fno"]
    if quick:
        given += [f"surrogate.settings.{k}={v}" for k, v in {"modes": 4, "width": 8, "blocks": 2}.items()]
    case = operator_case(compose(given).config)
    count = case.sizes["batch"]
    values = sobol_design(case.prior, count, seed=case.seed).values

    def courses(first: int):
        drawn = draw_inputs(case.template, case.brain, case.variation, case.courses, range(first, first + count), (1,))
        starts = grow_starts(case.template, drawn, case.solver)
        return solve_courses(case.template, values, starts, np.arange(count), case.training_days, case.solver)

    courses(0)
    wall, _, found = once(lambda: courses(count))
    yield measured("operator_courses_simulated", count / wall, "1/s")
    networks = begin_networks(case.settings, key=jax.random.key(0))
    yield measured("operator_weights", weight_count(networks), "1")
    summary = course_summaries(case.template, found)
    center, scale = jnp.asarray(summary.mean(axis=(0, 1))), jnp.asarray(summary.std(axis=(0, 1)) + 1e-6)
    slope = eqx.filter_jit(eqx.filter_value_and_grad(OperatorLoss(case.template, center, scale)))
    data = jax.tree.map(jnp.asarray, held_out_batches(found, count)[0].data)
    inputs = {k: jnp.asarray(v[0]) for k, v in found.inputs.items()}
    model = course_model(case.template, {p: jnp.asarray(v[0]) for p, v in found.values.items()}, inputs)
    schedule = course_schedule(case.template, inputs)

    @eqx.filter_jit
    def answer(networks, model, schedule):
        asked = asked_of(model, schedule, jnp.asarray(case.days), center, scale)
        return jnp.mean(member_densities(networks, asked), axis=0)

    timed = interleaved(
        {
            "slope": lambda: slope(networks, data),
            "answer": lambda: answer(networks, model, schedule),
            "pde": lambda: _pde(model, schedule, case.days, case.solver),
        },
        3 if quick else 7,
    )
    yield measured("operator_courses_learned_from", count / timed["slope"].wall, "1/s")
    yield measured("operator_answer", 1e3 * timed["answer"].wall, "ms")
    yield measured("operator_pde", 1e3 * timed["pde"].wall, "ms")


def reduced(quick: bool) -> Iterator[Verdict]:
    """The reduced-order model: its training courses and its fit, and therapy rehearsals in a second."""
    with tempfile.TemporaryDirectory() as folder:
        given = [f"paths.runs={Path(folder).as_posix()}", f"surrogate.spacing={4.0 if quick else 2.0}"]
        if quick:
            given += ["surrogate.training=32", "surrogate.settings.modes=16"]
        config = compose(["task=train", "surrogate=pod", *given]).config
        with open_run(config) as run:
            case = training_case(config, run)
            simulate_training(config, run, case)
            basis = modes_of(config, run, case)
            fitted = lambda: fit(config, run, case, basis)  # noqa: E731
            surrogate = fitted()
            yield measured("reduced_fit", once(fitted)[0], "s")
    rows = random_design(case.prior, PDE_COURSES, key=jax.random.key(2))

    def courses(estimate_error: bool):
        solved = simulate_samples(
            [case.model], [case.schedule], rows, case.days, case.solver, estimate_error=estimate_error
        )
        return solved.density

    known = random_design(case.prior, 100, key=jax.random.key(0))
    samples = simulate_samples([case.model], [case.schedule], known, case.days, case.solver, estimate_error=False)
    surrogate = calibrate_pod(surrogate, hold_against(surrogate, samples, [case.schedule]))
    count = QUICK_REHEARSALS if quick else REHEARSALS
    draws = random_design(case.prior, count, key=jax.random.key(1)).values
    asked = lambda: rehearse(surrogate, draws, case.schedule, case.days, case.solver)  # noqa: E731
    timed = interleaved(
        {
            "rehearse": lambda: asked().values,
            "pde": lambda: courses(False),
            "training": lambda: courses(True),
        },
        3,
    )
    yield measured("reduced_courses_simulated", PDE_COURSES / timed["training"].wall, "1/s")
    yield measured("reduced_rehearsals", count / timed["rehearse"].wall, "1/s")
    yield measured("reduced_rehearsals_that_fell_back", asked().solves / count, "1")
    yield measured("reduced_pde", PDE_COURSES / timed["pde"].wall, "1/s")


def amortised(quick: bool) -> Iterator[Verdict]:
    """Neural posterior estimation of one mouse: steps of 256 simulations, and posterior draws."""
    case = mouse.case(256)
    stamps: list[float] = []
    posterior, _ = train_amortised(
        case.simulate,
        case.features,
        Training(steps=(2 if quick else 5) * CHUNK, chunk=CHUNK),
        key=jax.random.key(0),
        progress=lambda step, steps: stamps.append(time.perf_counter()),
    )
    yield measured("amortised_steps", CHUNK / float(np.median(np.diff(stamps))), "1/s")
    _, data = case.simulate(jax.random.key(1))
    sample = eqx.filter_jit(lambda p, y, key: p.sample(y, 1000, key=key))
    timed = interleaved({"draws": lambda: sample(posterior, data[0], jax.random.key(2))}, 7)["draws"]
    yield measured("amortised_draws", 1000 / timed.wall, "1/s")


def hybrids(quick: bool) -> Iterator[Verdict]:
    """A closure inside an ODE: value and slope through the solver, and forecasts, beside the mechanism alone."""
    rows, _ = subjects("allee", np.random.default_rng(0))
    rows = rows.where(np.arange(len(rows.start)) < LAW.batch)
    calls = {}
    for kind in (MECHANISM, HYBRID):
        made = forecaster(LAW, kind, jax.random.key(0))
        loss, first = Loss(made, jnp.asarray(float(rows.valid.sum())), True), made.first()
        slope = eqx.filter_jit(eqx.filter_value_and_grad(lambda p, r, loss=loss: loss(p, r)))
        calls[f"{kind}_steps"] = lambda slope=slope, first=first: slope(first, jax.tree.map(jnp.asarray, rows))
        calls[f"{kind}_forecasts"] = lambda made=made, first=first: predicted(made, first, rows)
    timed = interleaved(calls, 5 if quick else 15)
    for name, found in timed.items():
        per = LAW.batch if name.endswith("forecasts") else 1
        yield measured(f"ode_{name}", per / found.wall, "1/s")


def surrogates(quick: bool) -> Iterator[Verdict]:
    """All of them."""
    for part in (operator, reduced, amortised, hybrids):
        yield from part(quick)
