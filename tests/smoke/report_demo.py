"""A realistic synthetic `ReportData`: real anatomy, an invented tumor. For the tests and for looking at the page."""

import dataclasses
from pathlib import Path

import numpy as np
from scipy import ndimage, special

from tumortwin import report as r

CALIBRATION, HIDDEN = (0.0, 30.0, 90.0), (120.0, 180.0)
DAYS = np.linspace(0.0, 180.0, 61)
CHANNELS = (r.Channel("t1gd", "enhancing tumor"), r.Channel("flair", "FLAIR abnormality"))
CENTER = np.array([-28.0, -18.0, 24.0])


def brain(*, coarse: int = 1) -> r.Anatomy | None:
    """The ICBM152 template of the nilearn package at `coarse` mm, or None when it is not installed."""
    try:
        import nilearn
        from nibabel.nifti1 import Nifti1Image
    except ImportError:
        return None
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    name = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    images = {k: Nifti1Image.from_filename(folder / name.format(k)) for k in ("t1", "gm", "wm")}
    arrays = {k: np.asarray(i.dataobj, dtype=np.float32)[::coarse, ::coarse, ::coarse] for k, i in images.items()}
    affine = np.asarray(images["t1"].affine, dtype=float).copy()
    affine[:3, :3] *= coarse
    inside = ndimage.binary_closing(arrays["gm"] + arrays["wm"] > 100, iterations=max(1, 3 // coarse))
    inside = ndimage.binary_fill_holes(inside)
    return r.Anatomy(r.Image(arrays["t1"], affine), np.asarray(inside, dtype=bool))


def phantom() -> r.Anatomy:
    """An ellipsoid for machines without the template."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-80.0, -100.0, -60.0]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (41, 51, 39)), indexing="ij"), axis=-1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    radius = np.linalg.norm((points - [0, -2, 14]) / [72, 92, 68], axis=-1)
    values = 120 * np.exp(-(((radius - 0.6) / 0.45) ** 2)) + 5 * np.sin(points[..., 0] / 6)
    return r.Anatomy(r.Image(values, affine), radius < 1)


def distance(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A lumpy distance [mm] from the invented tumor's centre, on any grid."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    points = index @ affine[:3, :3].T + affine[:3, 3] - CENTER
    far = np.linalg.norm(points * [1.0, 0.8, 1.1], axis=-1)
    x, y, z = np.moveaxis(points / np.maximum(far, 1e-6)[..., None], -1, 0)
    return far / (1 + 0.25 * (x * x - z * z) + 0.3 * x * y * np.tanh(far / 4) + 0.15 * y)


def radius(day: np.ndarray | float, channel: str) -> np.ndarray:
    """Edge [mm]: growth, shrinkage under radiotherapy from day 30 to 72, regrowth."""
    time = np.asarray(day, dtype=float)
    base = 11.0 + 0.05 * np.minimum(time, 30) - 0.055 * np.clip(time - 30, 0, 45) + 0.045 * np.clip(time - 75, 0, None)
    return base * (1.0 if channel == "t1gd" else 1.45)


def volume(day: np.ndarray | float, channel: str) -> np.ndarray:
    """Volume of that edge [mm^3]."""
    return 4.4 * radius(day, channel) ** 3


def mask(anatomy: r.Anatomy, day: float, channel: str) -> r.Image:
    """What was drawn on the scan."""
    affine = anatomy.image.affine
    inside = distance(affine, anatomy.image.values.shape) < radius(day, channel)
    return r.Image(inside if anatomy.brain is None else inside & anatomy.brain, affine)


def probability(anatomy: r.Anatomy, day: float, channel: str, *, width: float) -> r.Image:
    """P(tumor) on a coarser grid of its own (2 mm, other origin and axis order), as a forecast has one."""
    affine = np.array([[0.0, 0.0, -2.0, 60.0], [2.0, 0.0, 0.0, -90.0], [0.0, 2.0, 0.0, -40.0], [0.0, 0.0, 0.0, 1.0]])
    away = distance(affine, (70, 65, 80))
    return r.Image(special.ndtr((radius(day, channel) + 0.4 - away) / width).astype(np.float32), affine)


def predictions(rng: np.random.Generator, channel: str) -> r.VolumePrediction:
    """Volume draws that fan out after the last calibration scan."""
    speed = rng.normal(0.0, 1.0, (400, 1))
    drift = 0.035 + 0.0028 * np.clip(DAYS - 90.0, 0, None)
    noise = rng.normal(0.0, 0.06, (400, DAYS.size))
    draws = volume(DAYS, channel) * np.exp(0.03 + speed * drift + noise)
    return r.volume_prediction(channel, DAYS, draws, truth=volume(DAYS, channel))


def baselines(channel: str) -> tuple[r.Baseline, ...]:
    """Persistence, dilation, exponential."""
    days = np.linspace(90.0, 180.0, 31)
    last = float(volume(90.0, channel))
    growth = np.log(float(volume(90.0, channel) / volume(0.0, channel))) / 90.0
    return (
        r.Baseline("persistence", channel, days, np.full(days.size, last)),
        r.Baseline("dilation", channel, days, last * (1 + 0.012 * (days - 90.0)) ** 1.5),
        r.Baseline("exponential", channel, days, last * np.exp(growth * (days - 90.0))),
    )


def parameters(rng: np.random.Generator) -> tuple[r.ParameterDraws, ...]:
    """Six parameters: some learned, one not; importance weights on the first four."""
    weights = rng.gamma(4.0, 1.0, 1000)

    def one(
        path: str, label: str, unit: str, prior: tuple[float, float], post: tuple[float, float], truth: float | None
    ) -> r.ParameterDraws:
        return r.ParameterDraws(
            path,
            label,
            unit,
            rng.lognormal(prior[0], prior[1], 2000),
            rng.lognormal(post[0], post[1], 1000),
            weights,
            truth,
        )

    log = np.log
    return (
        one(
            "mechanisms.diffusion.white_matter",
            "spread in white matter",
            "mm^2/day",
            (log(0.1), 0.9),
            (log(0.13), 0.22),
            0.12,
        ),
        one("mechanisms.proliferation.rate", "growth rate", "1/day", (log(0.025), 0.7), (log(0.031), 0.18), 0.033),
        one("mechanisms.radiotherapy.alpha", "radiosensitivity", "1/Gy", (log(0.06), 0.5), (log(0.052), 0.21), 0.05),
        one(
            "mechanisms.chemotherapy.sensitivity",
            "drug sensitivity",
            "1/day",
            (log(0.04), 0.25),
            (log(0.041), 0.24),
            0.04,
        ),
        one("initial.tail_ratio", "tail over that of a front", "1", (log(1.0), 0.4), (log(1.1), 0.15), 1.0),
        r.ParameterDraws(
            "observation.flair.threshold", "FLAIR threshold", "1", rng.uniform(0.05, 0.4, 2000), rng.beta(30, 150, 1000)
        ),
    )


def scores() -> tuple[r.Score, ...]:
    """A twin that wins most comparisons and loses some."""
    table = {
        "twin": {"dice": (0.91, 0.86), "hd95": (2.1, 4.6), "crps": (420.0, 910.0)},
        "persistence": {"dice": (0.88, 0.74), "hd95": (2.6, 6.2), "crps": (780.0, 2900.0)},
        "dilation": {"dice": (0.90, 0.83), "hd95": (2.0, 4.1), "crps": (610.0, 1500.0)},
        "exponential": {"dice": (0.88, 0.76), "hd95": (2.6, 5.9), "crps": (700.0, 2500.0)},
    }
    days = dict(enumerate(HIDDEN))
    found = [
        r.Score(method, metric, value, "t1gd", days[i])
        for method, metrics in table.items()
        for metric, values in metrics.items()
        for i, value in enumerate(values)
    ]
    ccc = {"twin": 0.93, "persistence": 0.11, "dilation": 0.71, "exponential": 0.18}
    found += [r.Score(method, "ccc", value, "t1gd") for method, value in ccc.items()]
    return (*found, r.Score("twin", "coverage", 1.0, "t1gd"))


def plan(rng: np.random.Generator) -> r.Plan:
    """Six weeks, front-loaded, against 30 x 2 Gy."""
    speed = rng.normal(0.0, 0.3, 500)
    standard = 7500.0 * np.exp(speed)
    gain = rng.normal(0.09, 0.08, 500) + 0.05 * speed
    doses = np.array([2.6, 2.4, 2.0, 1.8, 1.7, 1.5])
    return r.Plan(
        recommended=r.Regimen("recommended", doses, 24.0, standard * (1 - gain), bed=103.1),
        standard=r.Regimen("standard of care", np.full(6, 2.0), 30.0, standard, bed=100.0),
        equal_bed=r.Regimen("same shape, equal BED", 0.98 * doses, 24.0, standard * (1 - 0.4 * gain), bed=100.0),
        outcome_name="enhancing tumor volume on day 180",
        outcome_unit="mm^3",
        risk="the mean of the worst tenth of the outcomes (CVaR 0.9)",
        constraints=("total dose at most 60 Gy", "at most 3 Gy a fraction", "normal-tissue BED at most 105 Gy"),
        front="Front against total dose: from 24 Gy to 60 Gy, 5 plans.",
        rows=(r.PlanRow("Mean of the worst tenth, volume", -1.4, -2.2, -0.5, "mL"),),
    )


def demo(*, coarse: int = 1, seed: int = 0) -> r.ReportData:
    """Everything the report can show."""
    rng = np.random.default_rng(seed)
    anatomy = brain(coarse=coarse) or phantom()
    visits = tuple(
        r.Visit(
            day,
            {c.key: float(volume(day, c.key) * np.exp(rng.normal(0, 0.07))) for c in CHANNELS},
            {c.key: mask(anatomy, day, c.key) for c in CHANNELS},
            hidden=day in HIDDEN,
        )
        for day in CALIBRATION + HIDDEN
    )
    fractions = np.array([30.0 + d for d in range(42) if d % 7 < 5])
    treatments = r.Treatments(fractions, np.full(30, 2.0), {"temozolomide": np.arange(30.0, 72.0)})
    fit = tuple(
        r.PredictedMask(day, c.key, probability(anatomy, day, c.key, width=1.2))
        for c in CHANNELS
        for day in CALIBRATION
    )
    maps = tuple(_maps(anatomy, day) for day in (90.0, 120.0, 180.0))
    return r.ReportData(
        title="Glioma twin: 90-day forecast and schedule",
        question="How large will the tumor be in 90 days, and would another radiotherapy schedule do better?",
        patient=r.PatientSummary(
            "atlas_glioma", "ICBM152 anatomy, virtual tumor", "simulated today", True, visits, treatments
        ),
        channels=CHANNELS,
        anatomy=anatomy,
        parameters=parameters(rng),
        diagnostics=r.Diagnostics(
            {"k_hat": 0.41, "ess": 612.0, "log_evidence": -1234.5},
            "three scans identify growth and spread; radiotherapy and drug are only jointly identified",
            "Pareto-smoothed importance sampling from a Laplace approximation, 1000 draws",
        ),
        fit=fit,
        forecast=r.Forecast(
            90.0,
            tuple(predictions(rng, c.key) for c in CHANNELS),
            tuple(b for c in CHANNELS for b in baselines(c.key)),
            maps,
            assumed_treatment="the treatment already given, and none after",
        ),
        scores=scores(),
        coverage=(r.Coverage("day-180 volume", np.linspace(0.1, 0.9, 9), np.linspace(0.1, 0.9, 9) ** 1.1, 20),),
        plan=plan(rng),
        limits=("One virtual patient says nothing about other patients", "The model knows no edema and no mass effect"),
        assumptions=("Carrying capacity is the same everywhere", "Drug reaches all of the tumor"),
        results=(r.Result("k_hat", 0.41, "", "< 0.7", "issue"), r.Result("peak_memory", 1.6, "GB", "< 2", "benchmark")),
        provenance={"version": "0.1.0", "seed": 0, "device": "cpu", "versions": {"numpy": np.__version__}},
        citations=("Rockne et al. 2010, Phys Med Biol 55:3271, doi 10.1088/0031-9155/55/12/001",),
        reproduce="tumortwin twin cancer=glioma patient=atlas_glioma",
    )


def _maps(anatomy: r.Anatomy, day: float) -> r.ForecastMaps:
    width = 1.0 + 0.03 * max(day - 60.0, 0.0)
    p = probability(anatomy, day, "flair", width=width)
    sd = r.Image((0.6 * p.values * (1 - p.values)).astype(np.float32), p.affine)
    return r.ForecastMaps(day, p, p, sd)


def minimal() -> r.ReportData:
    """A title, a question, one visit with one volume: nothing else."""
    full = demo(coarse=4)
    visit = r.Visit(0.0, {"flair": 31000.0})
    patient = dataclasses.replace(full.patient, visits=(visit,), treatments=r.Treatments(), virtual=False)
    return r.ReportData("One scan", "How large is it?", patient, CHANNELS)
