"""One neural operator on brains that it never saw: how right, how fast, and does it know when it is wrong?

`tumortwin reproduce surrogate_glioma [data.root=DIR]`. Trained on boxes of the ICBM152 atlas, bent and cut anew for
every course; tested on others of them, on the SRI24 atlas and on real patients in its space. No anatomy is in two
parts. `runtime=ci`: a small network, few courses; what rests on training is printed and not judged.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.rom_glioma.figures import draw_errors
from experiments.rom_glioma.study import half_range, scores
from experiments.surrogate_glioma.figures import draw_distributions, draw_slices, draw_training
from experiments.surrogate_glioma.study import (
    DIFFUSIVITY,
    familiar,
    patient_courses,
    sri24_brain,
    strangers,
    tcga_patients,
    times,
)
from tumortwin._errors import InputError
from tumortwin.cli_train_operator import OperatorCase, hold_out, operator_case, stored_courses, train_operator
from tumortwin.io import find_data_root, write_surrogate
from tumortwin.runs import Run, Verdict, at_least, at_most, between, measured
from tumortwin.surrogates import (
    Courses,
    FnoSurrogate,
    HeldOut,
    Variation,
    calibrate_operator,
    coverage_range,
    hold_operator_against,
    sobol_design,
    weight_count,
)

TEST, QUICK_TEST = 1000, 24
PER_PATIENT, QUICK_PER_PATIENT = 100, 6
STRANGERS, QUICK_STRANGERS = 200, 8
DRAWS = 4000


def main(config: DictConfig, run: Run) -> list[Verdict]:
    """Train, calibrate, and hold against anatomies that were never seen."""
    quick = bool(config.runtime.quick)
    expected = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    config = sized(config, quick)
    case = operator_case(config)
    surrogate, fitted = train_operator(config, run, case)
    draw_training(run, fitted)
    surrogate = calibrate_operator(surrogate, hold_out(run, case, surrogate, "calibration", case.sizes["calibration"]))
    write_surrogate(run.path("surrogate"), surrogate, {"seed": case.seed, "experiment": "surrogate_glioma"})
    count = QUICK_TEST if quick else TEST
    parts = {"atlas": hold_out(run, case, surrogate, "test", count)}
    unseen, found = elsewhere(config, run, case, surrogate, quick)
    parts |= unseen
    found = [
        at_most("weights", weight_count(surrogate.networks), **_limit(expected, "weights", "at_most")),
        measured("epochs", len(fitted.scores)),
        measured("held_out_loss", fitted.score),
        *found,
    ]
    for name, held in parts.items():
        found += accuracy(name, surrogate, held, expected, judged=not quick)
    found += conscience(config, run, case, surrogate, parts["atlas"], expected, quick)
    shown = next(stored_courses(run, case, "test", count))
    found += speed(case, surrogate, shown, parts["atlas"])
    draw_distributions(run, parts)
    draw_errors(run, surrogate, parts["sri24"] if "sri24" in parts else parts["atlas"])
    draw_slices(run, surrogate, shown)
    return found


def sized(config: DictConfig, quick: bool) -> DictConfig:
    """The configuration, or a smaller one for a quick run."""
    if not quick:
        return config
    small = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    s = small.surrogate
    s.training, s.calibration, s.expected, s.chunk, s.batch = 48, 40, 480, 24, 4
    s.settings.domain_level = 0.88  # what 480 expected cases can say of twelve numbers
    s.settings.modes, s.settings.width, s.settings.blocks, s.settings.hidden = 4, 8, 2, 16
    s.optimizer.epochs, s.optimizer.patience, s.optimizer.average, s.optimizer.rate = 8, 8, 0.9, 0.01
    return small  # type: ignore[return-value]


def elsewhere(
    config: DictConfig, run: Run, case: OperatorCase, surrogate: FnoSurrogate, quick: bool
) -> tuple[dict[str, HeldOut], list[Verdict]]:
    """The SRI24 atlas as it is, and patients in its space; what is not there is said and left out."""
    parts: dict[str, HeldOut] = {}
    spacing = case.template.tissue.grid.spacing[0] / 2.0
    try:
        root = find_data_root(config.data.root)
        brain = sri24_brain(root, spacing)
    except InputError as error:
        run.say(f"skipped: the SRI24 atlas and the patients in its space\n{error}")
        return parts, [measured("sri24_skipped", 1, source="brain_atlas is not under data.root")]
    plain = Variation.none(case.variation.wander)
    count = QUICK_TEST if quick else TEST
    parts["sri24"] = hold_out(run, case, surrogate, "sri24", count, brain=brain, variation=plain)
    patients = tcga_patients(root, "tcga_lgg_static")
    if not patients:
        run.say(f"skipped: patients in the space of SRI24 (no labels in {root / 'tcga_lgg_static'})")
        return parts, [measured("patients", 0, source="tcga_lgg_static is not under data.root")]
    each = QUICK_PER_PATIENT if quick else PER_PATIENT
    courses = [
        patient_courses(config, case, patient, number, each, run.key(f"patient/{patient.id}"))
        for number, patient in enumerate(patients)
    ]
    parts["patients"] = hold_operator_against(surrogate, Courses.of_parts(courses))
    return parts, [measured("patients", len(patients))]


def accuracy(name: str, surrogate: FnoSurrogate, held: HeldOut, expected: dict, *, judged: bool) -> list[Verdict]:
    """Over all cases of a part, whatever the surrogate says of itself; coverage over those in its domain."""
    every = scores(held)
    entry = expected["ccc_of_change"]
    ccc, limit = (f"{name}_ccc_of_change", every.worst_change), entry["at_least"]
    covered = coverage(surrogate, held)
    ends, source = (expected["coverage"]["low"], expected["coverage"]["high"]), expected["coverage"]["source"]
    found = [
        measured(f"{name}_cases", len(held.inside)),
        measured(f"{name}_in_domain_share", held.inside.mean()),
        measured(f"{name}_vouched_share", held.vouched.mean()),
        measured(f"{name}_relative_l2_median", every.median),
        measured(f"{name}_relative_l2_q95", every.q95),
        *(measured(f"{name}_dice_{level}_q05", value) for level, value in dice(held).items()),
        at_least(*ccc, limit, "1", entry["source"]) if judged and name != "patients" else measured(*ccc),
        *(measured(f"{name}_ccc_of_change_{quantity}", value) for quantity, value in every.change.items()),
    ]
    if not covered:
        return found
    # Patients are few, so the cases of a part that is only theirs are not 1,000 anatomies.
    strict = judged and name != "patients"
    for quantity, value in covered.items():
        label = f"{name}_coverage_{quantity}"
        found.append(between(label, value, *ends, source=source) if strict else measured(label, value))
    return found


def dice(held: HeldOut) -> dict[str, float]:
    """5th percentile of Dice over cases and days after the start with tumor above the level, by level."""
    found = {}
    for level, values in held.dice.items():
        seen = values[:, 1:][np.isfinite(values[:, 1:])]
        if seen.size:
            found[level] = float(np.quantile(seen, 0.05))
    return found


def coverage(surrogate: FnoSurrogate, held: HeldOut) -> dict[str, float]:
    """Share of the cases in the domain whose bounds hold on all days: of the density, of mass and volumes."""
    cases = held.rows(np.flatnonzero(held.inside))
    if not len(cases.inside):
        return {}
    bound = np.asarray(surrogate.error.density_bound(jnp.asarray(cases.estimate)))
    found = {"density": float((cases.error <= bound).all(axis=1).mean())}
    for name in surrogate.quantity_names:
        ours, theirs = cases.ours[name], cases.theirs[name]
        kept = np.abs(theirs - ours) <= surrogate.error.case_bounds(name, cases.estimate, ours)
        found[name] = float(kept.all(axis=1).mean())
    return found


def conscience(
    config: DictConfig,
    run: Run,
    case: OperatorCase,
    surrogate: FnoSurrogate,
    tested: HeldOut,
    expected: dict,
    quick: bool,
) -> list[Verdict]:
    """Flags among cases that do not belong and among those that do; the coverage that so many cases promise."""
    shares = {}
    for name, (values, inputs) in strangers(case, run, QUICK_STRANGERS if quick else STRANGERS).items():
        shares[name] = 1.0 - float(familiar(surrogate, values, inputs, case.days).mean())
    false_flags = ("false_flags", 1.0 - tested.inside.mean())
    entry = expected["false_flags"]
    design = sobol_design(case.prior, case.sizes["training"], seed=case.seed)
    low, high = coverage_range(case.sizes["calibration"], case.settings.level, 0.99)
    found = [
        at_least("flagged", np.mean(list(shares.values())), **_limit(expected, "flagged", "at_least")),
        at_most(*false_flags, entry["at_most"], "1", entry["source"]) if not quick else measured(*false_flags),
        *(measured(f"flagged_{name}", share) for name, share in shares.items()),
        measured("coverage_of_99_in_100_calibrations_low", low),
        measured("coverage_of_99_in_100_calibrations_high", high),
    ]
    if quick:  # a domain of 48 samples has no limits for half of its range
        return found
    flagged, false = half_range(case, design, DIFFUSIVITY, run, DRAWS)  # type: ignore[arg-type]
    return [
        *found,
        at_least("half_range_flagged", flagged, **_limit(expected, "flagged", "at_least")),
        at_most("half_range_false_flags", false, **_limit(expected, "false_flags", "at_most")),
    ]


def speed(case: OperatorCase, surrogate: FnoSurrogate, courses: Courses, held: HeldOut) -> list[Verdict]:
    """One course of the operator and of the PDE on the same grid, and of the PDE at the operator's own error."""
    seconds = times(case, surrogate, courses, scores(held).median)
    return [
        measured("milliseconds_operator", 1e3 * seconds.operator, "ms"),
        measured("milliseconds_pde", 1e3 * seconds.pde, "ms"),
        measured("milliseconds_pde_equal_error", 1e3 * seconds.pde_equal_error, "ms"),
        measured("pde_equal_error_step", seconds.step, "day"),
        measured("speedup", seconds.pde / seconds.operator),
        measured("speedup_at_equal_error", seconds.pde_equal_error / seconds.operator),
    ]


def _limit(expected: dict, name: str, kind: str) -> dict:
    entry = expected[name]
    return {"limit": entry[kind], "unit": entry["unit"], "source": entry["source"]}
