"""How fast, at which error, beside what? `make bench`, or `tumortwin reproduce benchmarks`.

Ratios are measured in one process, interleaved, as medians. Absolute times depend on the machine and on who else uses
it: CPU seconds of all threads stand beside the single-thread CPU seconds of other codes. `runtime=ci` takes the small
sizes.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from experiments.benchmarks import bare, calibration, learned, planning, population, windowed
from experiments.benchmarks.euler import Euler
from experiments.benchmarks.problems import P_DAY, P_DIFFUSIVITY, R_DAY, R_DIFFUSIVITY, problem, reference_problem
from experiments.benchmarks.timing import interleaved, once
from tumortwin.models import ReactionDiffusion
from tumortwin.params import set_parameters
from tumortwin.runs import Verdict, at_least, at_most, measured
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.treatments import Schedule

SOURCE = "targets of this experiment; peers measured by us with the published codes, one thread"
SIZES = {(64, 2.0): 20.0, (96, 1.0): 110.0, (128, 1.0): 330.0}  # [ms] wall, two cores
STEPS = 29  # the fewest that keep the time error of problem R below 5e-4
SOLVER = FixedSteps(R_DAY / STEPS, R_DIFFUSIVITY)
FINE = FixedSteps(R_DAY / 400, R_DIFFUSIVITY)
ADJOINT_STATES = 47  # the stages and cotangents of one step, beside one state a step
PHASES = ((20.0, 1.0), (60.0, 2.5), (120.0, 5.0), (300.0, 8.0))  # end and longest step [day] of P0-P2
FINE_PHASES = ((20.0, 0.1), (60.0, 0.25), (120.0, 0.5), (300.0, 1.0))
PATHS = ("mechanisms.diffusion.white_matter", "mechanisms.proliferation.rate", "mechanisms.radiotherapy.alpha")


def _relative(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _gradient(run: Callable[[ReactionDiffusion], jax.Array], model: ReactionDiffusion) -> Callable[..., Any]:
    """The gradient of the final mass with respect to D, rho and alpha."""

    def mass(values: list[jax.Array]) -> jax.Array:
        return run(set_parameters(model, dict(zip(PATHS, values, strict=True)))).sum()

    return jax.jit(jax.grad(mass))


def _values(model: ReactionDiffusion) -> list[jax.Array]:
    return [model.diffusion.white_matter, model.proliferation.rate, jax.numpy.asarray(0.04)]


def forward(quick: bool) -> Iterator[Verdict]:
    """Problem R at three sizes: time and time error."""
    for (n, spacing), limit in list(SIZES.items())[: 1 if quick else None]:
        model, schedule = reference_problem(n, spacing)
        run = eqx.filter_jit(bare.final(schedule, R_DAY, SOLVER))
        wall, _, u = once(lambda run=run, model=model: run(model))
        yield measured(f"forward_{n}_compile_and_run", wall, "s")
        fine = eqx.filter_jit(bare.final(schedule, R_DAY, FINE))(model)
        yield at_most(f"forward_{n}_time_error", _relative(u, fine), 5e-4, "1", SOURCE)
        timed = interleaved({"forward": lambda run=run, model=model: run(model)}, 9)["forward"]
        yield at_most(f"forward_{n}", 1e3 * timed.wall, limit, "ms", SOURCE)
        yield measured(f"forward_{n}_cpu", 1e3 * timed.cpu, "ms")


def gradient(quick: bool) -> Iterator[Verdict]:
    """The adjoint: against the forward solve, against plain automatic differentiation; its memory."""
    for n, spacing in [(64, 2.0)] if quick else [(64, 2.0), (96, 1.0)]:
        model, schedule = reference_problem(n, spacing)
        values = _values(model)
        run = bare.final(schedule, R_DAY, SOLVER)
        value = eqx.filter_jit(run)
        ours = _gradient(run, model)
        state = 4.0 * (n + 2) ** 3
        held = ours.lower(values).compile().memory_analysis()
        if held is not None:
            states = held.temp_size_in_bytes / state
            yield at_most(f"gradient_{n}_memory", states, STEPS + ADJOINT_STATES, "states", SOURCE)
        calls = {"gradient": lambda ours=ours, v=values: ours(v), "forward": lambda f=value, m=model: f(m)}
        timed = interleaved(calls, 7)
        yield at_most(f"gradient_{n}_over_forward", timed["gradient"].cpu / timed["forward"].cpu, 5.0, "1", SOURCE)
        if n == 64:
            plain = _gradient(bare.plain(schedule, R_DAY, SOLVER), model)
            calls = {"plain": lambda f=plain, v=values: f(v), "ours": calls["gradient"]}
            timed = interleaved(calls, 3 if quick else 5)
            yield at_least("gradient_plain_over_ours", timed["plain"].cpu / timed["ours"].cpu, 8.0, "1", SOURCE)
            difference = max(abs(float(a) / float(b) - 1.0) for a, b in zip(plain(values), ours(values), strict=True))
            yield at_most("gradient_plain_difference", difference, 1e-4, "1", SOURCE)


def overheads(quick: bool) -> Iterator[Verdict]:
    """Diffrax over a bare loop of the same steps; NumPy explicit Euler over ours."""
    model, schedule = reference_problem(64, 2.0)
    loops = {
        name: eqx.filter_jit(bare.final(schedule, R_DAY, SOLVER, bare=name == "bare")) for name in ("diffrax", "bare")
    }
    calls = {name: lambda f=loop: f(model) for name, loop in loops.items()}
    timed = interleaved(calls, 15)
    yield at_most("diffrax_over_bare_scan", timed["diffrax"].cpu / timed["bare"].cpu, 1.05, "1", SOURCE)
    yield at_most("diffrax_and_bare_scan_differ", _relative(calls["diffrax"](), calls["bare"]()), 1e-6, "1", SOURCE)
    n = 64 if quick else 96
    model, schedule = reference_problem(n, 1.0)
    euler = Euler(model, schedule, R_DAY)
    some = 20
    run = eqx.filter_jit(bare.final(schedule, R_DAY, SOLVER))
    timed = interleaved({"euler": lambda: euler.run(some), "ours": lambda: run(model)}, 7)
    parts = euler.n_steps / some  # its steps are all alike: some of them are timed
    yield measured(f"numpy_euler_{n}_1mm_cpu", timed["euler"].cpu * parts, "s")
    yield at_least("numpy_euler_over_ours_1mm", timed["euler"].wall * parts / timed["ours"].wall, 12.0, "1", SOURCE)
    yield measured("numpy_euler_over_ours_1mm_in_cpu", timed["euler"].cpu * parts / timed["ours"].cpu, "1")
    fine = eqx.filter_jit(bare.final(schedule, R_DAY, FINE))(model)
    ours, theirs = _relative(run(model), fine), _relative(euler.run(), fine)
    yield at_most("time_error_1mm", ours, 5e-4, "1", SOURCE)
    yield measured("numpy_euler_time_error_1mm", theirs, "1")
    yield measured("numpy_euler_error_over_ours_1mm", theirs / ours, "1")


def peers(quick: bool) -> Iterator[Verdict]:
    """P0-P2: CPU seconds and mass error beside other codes, in a window that follows the tumor."""
    for name in ("P0", "P1") if quick else ("P0", "P1", "P2"):
        given = problem(name)
        wall, _, _ = once(lambda given=given: windowed.solve(given, PHASES).density)
        yield measured(f"{name}_first_run", wall, "s")
        samples = [once(lambda given=given: windowed.solve(given, PHASES)) for _ in range(3 if quick else 5)]
        cpu, answer = float(np.median([s[1] for s in samples])), samples[-1][2]
        source = f"beside: {given.peers}"
        yield at_most(f"{name}_cpu", cpu, given.limit_seconds, "s", source)
        yield measured(f"{name}_wall", float(np.median([s[0] for s in samples])), "s")
        mass = float(answer.density.sum(dtype=np.float64)) * given.spacing**3
        yield at_most(f"{name}_mass_error", abs(mass / given.exact_mass - 1), given.limit_mass_error, "1", source)
        yield measured(f"{name}_mass", mass, "mm^3")
        yield at_most(f"{name}_largest_density_on_a_rim", answer.rim, windowed.RIM, "1", SOURCE)
        yield measured(f"{name}_largest_window", max(np.prod(w.shape) for w in answer.windows), "voxels")
        fine = windowed.solve(given, FINE_PHASES, margin=28.0)
        yield measured(f"{name}_relative_l2_against_own_fine_steps", _relative(answer.density, fine.density), "1")
        if name == "P0":
            yield measured("P0_central_density", float(answer.density[63:65, 63:65, 63:65].mean()), "1")


def whole_grid(quick: bool) -> Iterator[Verdict]:
    """P1 without a window, so that the window's share of the gain can be seen."""
    del quick
    given = problem("P1")
    model = given.model(given.white, given.gray, given.start)
    solver = FixedSteps(5.0, P_DIFFUSIVITY)
    run = eqx.filter_jit(lambda m: simulate(m, Schedule(), [P_DAY], solver, estimate_error=False))
    once(lambda: run(model).states.density)
    _, cpu, u = once(lambda: run(model).states.density)
    yield measured("P1_whole_grid_cpu", cpu, "s")
    yield measured("P1_whole_grid_mass_error", float(u.sum(dtype=np.float64)) * 8.0 / given.exact_mass - 1.0, "1")


def calibrating(quick: bool) -> Iterator[Verdict]:
    """Four parameters and a posterior from three images."""
    del quick
    posed = calibration.problem()
    wall, cpu, _ = once(lambda: calibration.fit(posed).draws)
    yield measured("calibration_first_run", wall, "s")
    _, again, posterior = once(lambda: calibration.fit(posed))
    yield at_most("calibration_cpu", again, 12.0, "s", "beside: PyTorch, explicit RK4, 622 CPU s for the fit alone")
    yield measured("calibration_compile_cpu", cpu - again, "s")
    yield measured("calibration_solves", posterior.diagnostics["map_solves"], "1")
    yield at_most("calibration_newton_decrement", posterior.diagnostics["newton_decrement"], 0.1, "1", SOURCE)
    worst = max(abs(v) for v in calibration.distances(posterior).values())
    yield at_most("calibration_truth_within", worst, 3.0, "posterior_sd", SOURCE)


def populations(quick: bool) -> Iterator[Verdict]:
    """The hierarchy of 53 mice, compile included, each program in a fresh process; PyMC where it is installed."""
    if quick:
        return
    found = population.measure("tumortwin", None)
    if isinstance(found, str):
        raise RuntimeError(f"required: a posterior of the 53 mice; received: {found}")
    yield at_most("population_53_mice", found["seconds"], 60.0, "s", SOURCE)
    yield at_least("population_53_mice_least_ess", found["ess"], 400.0, "1", SOURCE)
    yield at_most("population_53_mice_r_hat", found["r_hat"], 1.01, "1", SOURCE)
    yield measured("population_53_mice_divergences", found["divergences"], "1")
    yield measured("population_53_mice_animals", found["animals"], "1")
    yield measured("population_53_mice_ess_per_second", found["ess"] / found["seconds"], "1/s")
    yield measured("population_53_mice_ess_per_cpu_second", found["ess"] / found["cpu"], "1/s")
    lesions = population.alone("lesions", [])
    if isinstance(lesions, str):
        raise RuntimeError(f"required: a posterior of the lesions; received: {lesions}")
    yield at_most("population_lesions", lesions["seconds"], 120.0, "s", SOURCE)
    yield at_least("population_lesions_least_ess", lesions["ess"], 400.0, "1", SOURCE)
    yield measured("population_lesions_least_ess_of_a_parameter", lesions["parameters"], "1")
    yield measured("population_lesions_r_hat", lesions["r_hat"], "1")
    for sampler in ("pymc", "nutpie"):
        peer = population.measure(sampler, None)
        if isinstance(peer, str):
            print(f"{sampler}: not measured: {peer} (pip install --group peers, or {population.PEERS}=PYTHON)")
            continue
        yield measured(f"population_53_mice_{sampler}", peer["seconds"], "s")
        yield measured(f"population_53_mice_{sampler}_least_ess", peer["ess"], "1")
        yield measured(f"population_53_mice_{sampler}_r_hat", peer["r_hat"], "1")
        yield measured(f"population_53_mice_{sampler}_ess_per_second", peer["ess"] / peer["seconds"], "1/s")
        yield measured(f"population_53_mice_{sampler}_ess_per_cpu_second", peer["ess"] / peer["cpu"], "1/s")
        yield measured(f"population_53_mice_{sampler}_divergences", peer["divergences"], "1")


PARTS: dict[str, Callable[[bool], Iterator[Verdict]]] = {
    "forward": forward,
    "gradient": gradient,
    "overheads": overheads,
    "other codes": peers,
    "whole grid": whole_grid,
    "calibration": calibrating,
    "populations": populations,
    "plans": planning.plans,
    "surrogates": learned.surrogates,
}
STUDIES = "studies of plans"


def threads() -> Verdict:
    """Cores that the computation may use."""
    return measured("threads", len(os.sched_getaffinity(0)), "1")


def main(config: Any, run: Any) -> list[Verdict]:
    """Every measurement as a verdict."""
    verdicts = [threads()]
    parts = PARTS | {STUDIES: _studies(Path(config.paths.runs))}
    with run.progress.task("benchmarks", total=len(parts)) as bar:
        for name, part in parts.items():
            verdicts.extend(part(bool(config.runtime.quick)))
            run.log(f"benchmarks: {name}")
            bar.advance()
    return verdicts


def _studies(runs: Path) -> Callable[[bool], Iterator[Verdict]]:
    return lambda quick: planning.studies(quick, runs)


def alone(parts: list[str], quick: bool = False) -> None:
    """The same without a run directory: `python -m experiments.benchmarks.run [quick] [part ...]`."""
    from tumortwin.runs import configure_backend

    configure_backend()
    print(threads().line())
    for name, part in (PARTS | {STUDIES: _studies(Path("runs"))}).items():
        if not parts or name in parts:
            for verdict in part(quick):
                print(verdict.line(), flush=True)


if __name__ == "__main__":
    import sys

    alone([a for a in sys.argv[1:] if a != "quick"], "quick" in sys.argv)
