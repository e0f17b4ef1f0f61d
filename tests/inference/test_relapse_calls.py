"""Calls of `experiments/bruchovsky2006`: definitions by hand, the population by SciPy, a future that is not read."""

import dataclasses
import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from experiments.bruchovsky2006 import cycles, folds, link, population, psa
from experiments.bruchovsky2006.leak import poisoned
from tumortwin.io import DoseHistory, Readings, Table
from tumortwin.models import StemDifferentiatedPsa, StemSource
from tumortwin.solvers import simulate_compartment
from tumortwin.treatments import StepHistory


def table_of(patients):
    """`(outcome, [(day, on, PSA or None), ...])` of each patient."""
    rows = [(s, *row) for s, (_, visits) in enumerate(patients) for row in visits]
    subject, day, level, psa_values = (np.asarray(c, dtype=object) for c in zip(*rows, strict=True))
    measured = np.asarray([v is not None for v in psa_values])
    value = np.asarray([v or 0.0 for v in psa_values], float)
    edges, levels = [], []
    for s in range(len(patients)):
        mine = subject == s
        changes = np.diff(level[mine].astype(float), prepend=0.0) != 0
        edges.append(day[mine].astype(float)[changes])
        levels.append(level[mine].astype(float)[changes])
    return Table(
        tuple(f"p{s}" for s in range(len(patients))),
        subject.astype(int),
        day.astype(float),
        {"psa": Readings("ng/mL", value, value.copy(), value.copy(), measured)},
        {"on_treatment": DoseHistory("1", tuple(edges), tuple(levels))},
        {"outcome": np.asarray([o for o, _ in patients]), "trial": np.asarray(["x"] * len(patients))},
        (),
        Path("made_up.csv"),
    )


PLAIN = table_of(
    [
        # before treatment, two cycles, a restart whose on-phase has no reading
        (
            "relapse",
            [
                (5, 0, 9.0),
                (10, 1, 12.0),
                (110, 1, 0.1),
                (210, 1, 0.4),
                (260, 0, 2.0),
                (310, 0, 6.0),
                (330, 0, None),
                (340, 1, 11.0),
                (400, 3, 1.0),  # a stray level counts as on
                (440, 1, 0.8),
                (600, 0, 9.0),
                (650, 1, None),
            ],
        ),
        ("metastasis_no_relapse", [(0, 1, 8.0), (100, 1, 1.0), (200, 0, 3.0), (300, 1, 5.0), (400, 1, 4.0)]),
        ("no_relapse", [(0, 1, 8.0), (100, 0, 1.0)]),  # never treated again: no landmark
        ("no_relapse", [(0, 0, 8.0)]),  # never treated at all
    ]
)


def test_cycles_landmarks_and_labels_by_hand():
    found = cycles.landmarks_of(PLAIN)
    np.testing.assert_array_equal(found.patient, [0, 0, 1])
    np.testing.assert_array_equal(found.cycle, [2, 3, 2])
    np.testing.assert_array_equal(found.day, [320, 590, 200])
    np.testing.assert_array_equal(found.relapses, [False, True, False])
    np.testing.assert_array_equal(found.ever, [True, True, False])
    np.testing.assert_array_equal(found.metastasis, [False, False, True])
    np.testing.assert_array_equal(found.judged, [True, False, True])
    np.testing.assert_array_equal(found.nadir, [0.8, np.nan, 4.0])
    np.testing.assert_array_equal(found.known.valid.sum(axis=1), [5, 9, 3])
    np.testing.assert_array_equal(found.known.times[0][:5], [0, 100, 200, 250, 300])
    np.testing.assert_array_equal(found.known.lower[0][:2], [12.0, 0.0])
    np.testing.assert_array_equal(found.known.upper[0][:2], [12.0, cycles.QUANTIFICATION])
    np.testing.assert_array_equal(found.known.switches[0], [0, 250, np.inf, np.inf, np.inf])
    np.testing.assert_array_equal(found.known.switches[1], [0, 250, 330, 590, np.inf])
    plain = cycles.plain_features(found.known)
    np.testing.assert_allclose(plain[0], np.log([0.2, 70 + cycles.MONTH, np.e**2, 12.0]))
    np.testing.assert_allclose(plain[1], np.log([0.8, cycles.MONTH, np.e**3, 12.0]))


STATES = jax.jit(psa.states_at)
SIMULATE = eqx.filter_jit(simulate_compartment)
MODEL = StemSource(*map(jnp.asarray, (12.0, 0.02, 8e-4, 0.003, 0.06, 0.5)))


def test_phases_are_the_simulation():
    switches, days = jnp.asarray([0.0, 250.0, 600.0, jnp.inf]), jnp.asarray([0.0, 100.0, 250.0, 400.0, 600.0, 900.0])
    history = StepHistory(jnp.asarray([0.0, 250.0, 600.0]), jnp.asarray([0.0, 1.0, 0.0, 1.0]))
    found = STATES(MODEL, switches, days)
    expected = SIMULATE(MODEL, days, history).states
    np.testing.assert_allclose(found.source, expected.source, rtol=1e-12)
    np.testing.assert_allclose(found.sensitive, expected.sensitive, rtol=1e-12)
    late = psa.acting(switches, jnp.asarray(400.0))
    np.testing.assert_array_equal(late, [0.0, 600.0, 600.0, jnp.inf])


def test_the_stem_cell_model_with_few_stem_cells_is_the_source():
    """PSA 1e-3 D with a quick turnover; S does not grow (self-renewal 0)."""
    stem = StemDifferentiatedPsa(*map(jnp.asarray, (0.0, 30.0, 9000.0, 9.0, 0.7, 0.05, 0.1, 100.0)))
    source = StemSource(*map(jnp.asarray, (9.0, 0.7 * 30.0 * 1e-3, 0.0, 0.0, 0.05, 1.0)))
    days = jnp.linspace(0.0, 600.0, 13)
    history = StepHistory(jnp.asarray([200.0]), jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(
        SIMULATE(source, days, history).burden,
        SIMULATE(stem, days, history).burden,
        rtol=1e-3,
    )


def simulated(seed=0, patients=9):
    """One restart each; every third relapses with a source three times as large."""
    rng, made = np.random.default_rng(seed), []
    for s in range(patients):
        relapses = s % 3 == 0
        model = StemSource(
            *map(jnp.asarray, (rng.uniform(8, 20), rng.uniform(0.01, 0.02) * (1 + 2 * relapses), 8e-4, 2e-3, 0.05, 0.5))
        )
        days = np.r_[np.arange(0, 260, 60), np.arange(260, 620, 60), np.arange(620, 861, 60)].astype(float)
        on = (days < 260) | (days >= 620)
        curve = STATES(model, jnp.asarray([0.0, 260.0, 620.0]), jnp.asarray(days)).sensitive
        readings = np.asarray(curve) * np.exp(rng.normal(0, 0.2, days.size))
        outcome = "relapse" if relapses else "no_relapse"
        made.append((outcome, list(zip(days, on * 1, [float(v) for v in readings], strict=True))))
    return table_of(made)


@pytest.fixture(scope="module")
def cohort():
    table = simulated()
    return table, cycles.landmarks_of(table)


@pytest.mark.slow
def test_a_patients_posterior_against_scipy(cohort):
    table, _ = cohort
    courses = psa.courses_of(cycles.records_of(table))
    before = population.before_any()
    start = jnp.broadcast_to(before.mean, (9, len(psa.NAMES)))
    found = population.individuals(courses, before, start, jnp.asarray(population.NEWTON))
    smooth = int(np.argmin(found.gradient))
    assert found.gradient[smooth] < population.FLAT
    course = jax.tree.map(lambda x: x[smooth], courses)
    sd = np.sqrt(np.diag(before.covariance))
    likelihood = jax.jit(psa.log_likelihood)

    def cost(unit):
        return 0.5 * np.sum(unit**2) - float(likelihood(jnp.asarray(before.mean + sd * unit), course))

    mode = (np.asarray(found.mode[smooth]) - np.asarray(before.mean)) / sd
    best = minimize(cost, np.zeros(mode.size), method="BFGS", options={"gtol": 1e-5})
    np.testing.assert_allclose(cost(mode), best.fun, atol=1e-4)
    step, size = 1e-3, mode.size
    moves = step * np.eye(size)
    curvature = np.asarray(
        [
            [
                (cost(mode + a + b) - cost(mode + a - b) - cost(mode - a + b) + cost(mode - a - b)) / (4 * step**2)
                for a in moves
            ]
            for b in moves
        ]
    )
    np.testing.assert_allclose(
        np.linalg.inv(np.asarray(found.covariance[smooth]) / np.outer(sd, sd)), curvature, rtol=2e-3, atol=2e-3
    )


def test_the_population_is_its_sums_and_forgets_who_is_left_out():
    rng = np.random.default_rng(2)
    size = len(psa.NAMES)
    modes = rng.normal(size=(5, size))
    covariances = np.stack([np.eye(size) * k for k in range(1, 6)])
    found = population.Individuals(jnp.asarray(modes), jnp.asarray(covariances), jnp.zeros(5), jnp.zeros(5))
    one = population.population_of(found, jnp.asarray([1.0, 1.0, 0.0, 1.0, 1.0]))
    before, kept = population.before_any(), [0, 1, 3, 4]
    mean = (np.asarray(before.mean) + modes[kept].sum(axis=0)) / 5
    scatter = sum(np.outer(m - mean, m - mean) + c for m, c in zip(modes[kept], covariances[kept], strict=True))
    pull = np.outer(mean - before.mean, mean - before.mean)
    expected = (population.PSEUDO * np.asarray(before.covariance) + pull + scatter) / (population.PSEUDO + 5)
    np.testing.assert_allclose(one.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(one.covariance, expected, rtol=1e-12)
    moved = dataclasses.replace(found, mode=found.mode.at[2].add(50.0))
    np.testing.assert_array_equal(
        population.population_of(moved, jnp.asarray([1.0, 1.0, 0.0, 1.0, 1.0])).mean, one.mean
    )


def test_the_link_is_the_posterior_mode_and_reads_no_event_of_its_own_patient():
    rng = np.random.default_rng(4)
    features, subject = rng.normal(size=(60, 2)), np.arange(60) // 2
    event = rng.random(60) < 1 / (1 + np.exp(1.0 - features[:, 0]))
    training = subject != 7
    probability, threshold = link.called(features, event, subject, training)
    flipped = np.where(training, event, ~event)
    np.testing.assert_array_equal(link.called(features, flipped, subject, training)[0], probability)
    assert link.called(features, flipped, subject, training)[1] == threshold
    design = link._design(features, training)
    beta, covariance = link._fits(design, event, training[None].astype(float))
    sds = np.r_[link.PRIOR_SD_INTERCEPT, [link.PRIOR_SD_SLOPE] * 2]

    def cost(b):
        logit = design[training] @ b
        return np.sum(np.logaddexp(0, logit) - event[training] * logit) + 0.5 * np.sum((b / sds) ** 2)

    best = minimize(cost, np.zeros(3), options={"gtol": 1e-8})
    np.testing.assert_allclose(beta[0], best.x, atol=1e-5)
    logits = rng.multivariate_normal(beta[0], covariance[0], 200_000) @ design[14]
    np.testing.assert_allclose(probability[14], np.mean(1 / (1 + np.exp(-logits))), atol=2e-3)


def test_youden_by_hand():
    probability = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert link.youden(probability, np.array([False, False, True, False, True])) == pytest.approx(0.25)
    assert link.youden(probability, np.zeros(5, bool)) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("refit", [False, True])
def test_a_poisoned_future_changes_no_call_but_the_nowcast(cohort, monkeypatch, refit):
    monkeypatch.setattr(folds, "fit", functools.partial(population.fit, rounds=3))
    table, landmarks = cohort
    key, patient = jax.random.key(0), 4
    other = poisoned(table, patient, landmarks.day[patient], np.random.default_rng(0))
    worse = cycles.landmarks_of(other)
    assert worse.ever[patient] != landmarks.ever[patient]
    assert worse.nadir[patient] > 2 * landmarks.nadir[patient]
    calls = [
        folds.leave_one_out(cycles.records_of(t), marks, key=key, refit=refit, only=(patient,))
        for t, marks in ((table, landmarks), (other, worse))
    ]
    for name in ("mechanism", "logistic", "both", "nadir_only"):
        assert calls[0].probability[name][patient] == calls[1].probability[name][patient]
        assert calls[0].ever_probability[name][patient] == calls[1].ever_probability[name][patient]
        assert calls[0].threshold[name][patient] == calls[1].threshold[name][patient]
    assert calls[0].probability["nowcast"][patient] != calls[1].probability["nowcast"][patient]
    assert np.isnan(calls[0].probability["mechanism"][0])
