"""Data that come in one scan at a time: does what is believed narrow, and is it what all data at once would say?

`tumortwin reproduce sequential [data.root=DIR]`. Every number that is judged stands in `expected.json`, fixed before
the experiment was run. `runtime=ci`: fewer patients, no mice.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from experiments.sequential.agreement import Difference, differences, largest_allowed
from experiments.sequential.cohort import SCANS, Course, follow, patients, spearman
from experiments.sequential.field import case, field_errors, filtered, without_data
from experiments.sequential.figures import draw_cohort, draw_field
from experiments.sequential.mice import mice
from tumortwin.inference import EnsembleKalmanFilter, NutsCalibrator, Posterior, SmcCalibrator, calibrate
from tumortwin.runs import Run, Verdict, at_most, between, measured

PARTICLES = SmcCalibrator(particles=600)
REFERENCE = NutsCalibrator(
    laplace=None, dense=True, warmup=400, draws=800, chunk=300, chains=4, vectorized=True, tree_depth=6
)
PATHS = ["typical.alpha", "typical.growth.growth_rate", "typical.growth.start"]
# Patients, patients compared with NUTS, repetitions, members of the field's ensemble.
SIZES, QUICK_SIZES = (40, 6, 8, 60), (30, 3, 4, 40)
RESAMPLES = 1000


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """The cohort, sequential against batch, late and repeated scans, the mice, and a field."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    n, compared, repeats, members = QUICK_SIZES if quick else SIZES
    courses = cohort(run, n)
    found = narrowing(run, courses, expected)
    found += batch(run, courses[:compared], repeats, expected)
    found += late_and_twice(run, courses[0], expected)
    if not quick:
        found += mice(run, config.data.root, expected)
    return [*found, *field(run, members, expected)]


def cohort(run: Run, n: int) -> list[Course]:
    """Every patient through every scan."""
    truths, asked, readings = patients(n, key=run.key("patients"))
    courses = []
    with run.progress.task("assimilate", total=n * len(SCANS)) as bar:
        for i in range(n):
            key = run.key(f"patient/{i}")
            courses.append(follow(f"p{i:02d}", truths[i], asked[i], readings[i], PARTICLES, bar.advance, key=key))
    return courses


def narrowing(run: Run, courses: list[Course], expected: dict[str, dict]) -> list[Verdict]:
    """Widths and errors of the forecast by the number of scans, and whether intervals hold the truth."""
    width, error, inside = (np.stack([getattr(c, name) for c in courses]) for name in ("width", "error", "inside"))
    draw_cohort(run, courses, width, error)
    found, target = [], expected["spearman_upper"]
    for name, values in (("width", width), ("error", error)):
        rho, upper = spearman(values, resamples=RESAMPLES, seed=run.config.seed)
        found.append(at_most(f"spearman_of_{name}_with_scans_upper", upper, target["at_most"], "1", target["source"]))
        found.append(measured(f"spearman_of_{name}_with_scans", rho))
        for k in (0, len(SCANS) - 1):
            found.append(measured(f"median_{name}_of_log_volume_after_scan_{k + 1}", np.median(values[:, k])))
    truths = [[low <= c.truth[p] <= high for p in PATHS for low, high in [_interval(c, p)]] for c in courses]
    limits = expected["coverage_all_scans"]
    coverage = np.mean(truths)
    found.append(between("coverage_after_all_scans", coverage, limits["low"], limits["high"], "1", limits["source"]))
    return [*found, measured("coverage_of_the_forecast_over_all_scans", inside.mean())]


def batch(run: Run, courses: list[Course], repeats: int, expected: dict[str, dict]) -> list[Verdict]:
    """The posterior that grew scan by scan beside NUTS on all scans, and the error that SMC reports beside its own."""
    gaps: list[Difference] = []
    worst_r_hat = 0.0
    with run.progress.task("sequential against NUTS", total=len(courses)) as bar:
        for i, course in enumerate(courses):
            problem = course.twins[-1].problem
            reference = calibrate(problem, REFERENCE, key=run.key(f"nuts/{i}"))
            worst_r_hat = max(worst_r_hat, reference.diagnostics["r_hat"])
            gaps += differences(course.twins[-1].posterior(PARTICLES), reference, PATHS)
            bar.advance()
    problem = courses[0].twins[-1].problem
    again = [calibrate(problem, PARTICLES, key=run.key(f"again/{k}")) for k in range(repeats)]
    means = np.asarray([[p.mean(path) for path in PATHS] for p in again])
    reported = np.asarray([[p.monte_carlo_error[path] for path in PATHS] for p in again])
    ratio = float(np.mean(means.std(axis=0, ddof=1) / np.sqrt(np.mean(reported**2, axis=0))))
    evidence = np.asarray([p.diagnostics["log_evidence"] for p in again])
    stated = np.asarray([p.diagnostics["log_evidence_sd"] for p in again])
    return [
        *judged("sequential_against_nuts", gaps, expected),
        at_most("nuts_worst_r_hat", worst_r_hat, 1.01),
        measured("smc_error_between_runs_over_reported", ratio),
        measured("smc_log_evidence_sd_between_runs", evidence.std(ddof=1), "nat"),
        measured("smc_log_evidence_sd_reported", stated.mean(), "nat"),
    ]


def judged(name: str, gaps: list[Difference], expected: dict[str, dict]) -> list[Verdict]:
    """The largest difference over its standard error, and in posterior sds."""
    target = expected["batch_against_sequential"]
    limit = largest_allowed(len(gaps), target["family_error"])
    worst = max(gaps, key=lambda gap: abs(gap.score))
    return [
        at_most(f"{name}_largest_score", abs(worst.score), limit, "1", f"{target['source']} ({len(gaps)})"),
        measured(f"{name}_root_mean_square_score", np.sqrt(np.mean([gap.score**2 for gap in gaps]))),
        measured(f"{name}_largest_difference_in_sds", max(abs(gap.in_sds) for gap in gaps)),
    ]


def late_and_twice(run: Run, course: Course, expected: dict[str, dict]) -> list[Verdict]:
    """The same scan twice, and a scan that comes after later ones."""
    last = course.twins[-1]
    again = last.assimilate(course.readings[2], PARTICLES, key=run.key("again"))
    moved = max(float(np.ptp(again.posterior(PARTICLES).draws[p] - last.posterior(PARTICLES).draws[p])) for p in PATHS)
    late = course.twins[1]
    for k in (3, 4, 5, 6, 2):
        late = late.assimilate(course.readings[k], PARTICLES, key=run.key(f"late/{k}"))
    gaps = differences(late.posterior(PARTICLES), last.posterior(PARTICLES), PATHS)
    return [
        at_most("same_scan_twice_moves_by", moved, 0.0, "1", "exact"),
        at_most("same_scan_twice_versions", again.version - last.version, 0.0, "1", "exact"),
        at_most("late_scan_not_marked", 1.0 - float(late.history[-1].late), 0.0, "1", "exact"),
        *judged("late_against_in_order", gaps, expected),
    ]


def field(run: Run, members: int, expected: dict[str, dict]) -> list[Verdict]:
    """The ensemble Kalman filter on a small tumor in three dimensions, and one with too few members."""
    given = case(members, key=run.key("field"))
    with run.progress.task("field") as bar:
        found = filtered(given, EnsembleKalmanFilter(), key=run.key("filter"))
        bare = without_data(given, bar.advance)
        few = dataclasses.replace(given, members=given.members[:6])
        small = filtered(few, EnsembleKalmanFilter(), key=run.key("few"))
    error, alone, of_few = (field_errors(given, means) for means in (found.mean, bare, small.mean))
    draw_field(run, given, found, error, alone)
    ratio, innovation = expected["field_error_ratio"], expected["field_innovation"]
    apart = (found.mean[-1, -2:] - given.truth[-1, -2:]) / found.sd[-1, -2:]
    return [
        at_most("field_error_over_no_data", error[-1] / alone[-1], ratio["at_most"], "1", ratio["source"]),
        at_most("field_innovation", found.innovation.mean(), innovation["at_most"], "1", innovation["source"]),
        measured("field_error", error[-1]),
        measured("field_log_diffusivity_off_in_sds", apart[0]),
        measured("field_log_growth_rate_off_in_sds", apart[1]),
        measured("field_log_growth_rate_sd_left", found.sd[-1, -1] / found.sd[0, -1]),
        measured("field_six_members_error", of_few[-1]),
        measured("field_six_members_innovation", small.innovation.mean()),
    ]


def _interval(course: Course, path: str) -> tuple[float, float]:
    posterior: Posterior = course.twins[-1].posterior(PARTICLES)
    low, high = posterior.interval(path)
    return float(low), float(high)
