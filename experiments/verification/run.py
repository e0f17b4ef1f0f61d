"""Is the solver right? Orders of convergence, conservation, closed forms, gradients, symmetry, an independent program.

`tumortwin reproduce verification`. Everything is in float64 and runs from nothing but this repository; `runtime=ci`
takes smaller grids.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from experiments.verification import convergence, gradients, invariants
from experiments.verification.cases import orders
from tumortwin.runs import Verdict, at_least, at_most, between, measured

SOURCE = "targets of this experiment, fixed beforehand"
ISOTROPIC, FLAT = (3.0, 3.0, 3.0), (2.0, 2.0, 6.0)  # spacing [mm] of the coarsest grid: 1 x 1 x 1 and 1 x 1 x 3
Part = Callable[[bool], Iterator[Verdict]]


def space(quick: bool) -> Iterator[Verdict]:
    """Spatial order on boxes with smooth coefficients; falling error on an irregular mask."""
    sizes = (6, 12, 24) if quick else (8, 16, 32)
    for shape, spacing in (("isotropic", ISOTROPIC), ("1x1x3", FLAT)):
        for name, errors_of in (
            ("cosine", convergence.cosine_errors),
            ("manufactured", convergence.manufactured_errors),
        ):
            errors = errors_of(sizes, spacing, day=20.0, step=0.4)
            for pair, order in zip(("coarse", "fine"), orders(errors), strict=True):
                yield between(f"spatial_order_{name}_{shape}_{pair}", order, 1.9, 2.1, "1", SOURCE)
            yield measured(f"spatial_error_{name}_{shape}", errors[-1], "1")
    for pair, order in zip(
        ("coarse", "fine"), convergence.corrected_orders((*sizes, 2 * sizes[-1]), ISOTROPIC), strict=False
    ):
        yield between(f"spatial_order_front_corrected_{pair}", order, 1.8, 2.2, "1", SOURCE)
    masked = convergence.masked_errors((8, 16, 32) if quick else (8, 16, 32, 64), (5.0, 5.0, 5.0))
    for coarse, fine, name in zip(masked[:-1], masked[1:], ("coarse", "fine"), strict=False):
        yield at_most(f"irregular_mask_error_ratio_{name}", fine / coarse, 1.0, "1", SOURCE)


def time(quick: bool) -> Iterator[Verdict]:
    """Temporal order, and whether the solver knows its own error."""
    steps = (8.0, 4.0, 2.0) if quick else (8.0, 4.0, 2.0, 1.0)
    for name, treated in (("untreated", False), ("treated", True)):
        errors, estimates = convergence.temporal(steps, treated=treated, same_stages=True, n=12)
        slope = float(np.polyfit(np.log2(steps), np.log2(errors), 1)[0])
        yield at_least(f"temporal_order_{name}", slope, 1.9, "1", SOURCE)
        ratios = np.array(estimates) / np.array(errors)
        worst = float(np.exp(np.max(np.abs(np.log(ratios)))))
        yield at_most(f"error_estimate_factor_{name}", worst, 2.0, "1", SOURCE)
    if not quick:
        errors, estimates = convergence.temporal(steps, treated=True, n=12)
        for step, error in zip(steps, errors, strict=True):
            yield measured(f"time_error_treated_{step:g}_day_steps", error, "1")
        worst = float(np.exp(np.max(np.abs(np.log(np.array(estimates) / np.array(errors))))))
        yield at_most("error_estimate_factor_least_stages", worst, 2.0, "1", SOURCE)


# Directions from a voxel to its 26 neighbors: along how many axes -> how many of them.
DIRECTIONS = {1: 6, 2: 12, 3: 8}


def physics(quick: bool) -> Iterator[Verdict]:
    """Mass, front speed, surviving fractions."""
    for name, drift in invariants.mass_drift(12 if quick else 24).items():
        yield at_most(f"mass_drift_{name.replace(' ', '_')}", drift, 1e-6, "1", SOURCE)
    for axis, name in enumerate("x" if quick else "xyz"):
        yield at_most(f"front_speed_error_{name}", abs(convergence.front_speed_error(axis)), 0.01, "1", SOURCE)
    for h in (1.5,) if quick else (1.0, 1.5, 2.0, 4.0):
        for corrected, name in ((False, "plain"), (True, "corrected")):
            errors = {d: convergence.coarse_front_error(h, corrected=corrected, diagonal=d) for d in DIRECTIONS}
            for diagonal, error in errors.items():
                where = ("axis", "face_diagonal", "space_diagonal")[diagonal - 1]
                yield measured(f"coarse_front_speed_error_{h:g}_lengths_{name}_{where}", error, "1")
            mean = sum(DIRECTIONS[d] * error for d, error in errors.items()) / sum(DIRECTIONS.values())
            title = f"coarse_front_speed_error_{h:g}_lengths_{name}_mean"
            yield at_most(title, abs(mean), 0.05, "1", SOURCE) if corrected else measured(title, mean, "1")
    for n, dose, alpha_beta in ((30, 2.0, 10.0), (7, 5.0, 3.0)):
        error = invariants.fraction_error(n, dose, alpha_beta=alpha_beta)
        yield at_most(f"survival_error_{n}x{dose:g}Gy", error, 1e-6, "1", SOURCE)


def adjoints(quick: bool) -> Iterator[Verdict]:
    """Adjoint gradients against central differences, on both paths."""
    for path, loss in gradients.losses(8 if quick else 12).items():
        value = jax.jit(loss)
        errors = gradients.gradient_errors(value, jax.jit(jax.grad(loss)), every=not quick)
        for name, error in errors.items():
            yield at_most(f"gradient_error_{path}_{name.replace(' ', '_')}", error, 1e-4, "1", SOURCE)
    for path, loss in gradients.losses(8, corrected=True).items():
        errors = gradients.gradient_errors(jax.jit(loss), jax.jit(jax.grad(loss)), every=False)
        yield at_most(f"gradient_error_{path}_front_corrected", max(errors.values()), 1e-4, "1", SOURCE)


def invariance(quick: bool) -> Iterator[Verdict]:
    """Voxel order, the other path, the independent program."""
    cases = invariants.ALL_ORIENTATIONS[5 :: 14 if quick else 3]
    worst = invariants.orientation_difference(cases, n=10 if quick else 16)
    yield at_most(f"orientation_difference_of_{len(cases)}", worst, 1e-9, "1", SOURCE)
    yield at_most("difference_from_numpy_euler", invariants.euler_difference(12), 2e-4, "1", SOURCE)
    steps = (4.0,) if quick else (8.0, 4.0, 2.0)
    for step, difference in zip(steps, convergence.path_differences(steps), strict=True):
        yield measured(f"fast_and_moving_path_differ_{step:g}_day_steps", difference, "1")


PARTS: dict[str, Part] = {
    "order in space": space,
    "order in time": time,
    "mass, fronts, survival": physics,
    "gradients": adjoints,
    "invariance": invariance,
}


def main(config: Any, run: Any) -> list[Verdict]:
    """Every claim as a verdict."""
    verdicts: list[Verdict] = []
    with run.progress.task("verification", total=len(PARTS)) as bar:
        for part in PARTS.values():
            verdicts.extend(part(bool(config.runtime.quick)))
            bar.advance()
    return verdicts


def alone(quick: bool = False) -> None:
    """The same without a run directory: `python -m experiments.verification.run`."""
    jax.config.update("jax_enable_x64", True)
    for part in PARTS.values():
        for verdict in part(quick):
            print(verdict.line(), flush=True)


if __name__ == "__main__":
    import sys

    alone("quick" in sys.argv)
